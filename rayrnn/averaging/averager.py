"""Averages the workers' parameters: the mean weighted by work done, the outer optimizer, the optimizer's state.

One flat vector travels a round. It holds, scaled by the worker's weight, every parameter (and, with
`optimizer_state: average`, the optimizer's moments), then the weight itself, a one that counts the
members, and two rows of notes a member (loss, seconds, votes: see `_in_two`), so that a round needs one all_reduce.

The vector may travel while its worker goes on learning (`send`, `receive`). What the worker has learned meanwhile is
added to the mean, as streaming DiLoCo does with its fragments (Douillard et al. 2025, arXiv:2501.18512).

With `wire: bfloat16` or `int8` every member gathers all members' messages instead, decodes them and computes the same
mean: a weight, notes, the parameters encoded (compression.py), and the moments in float32 as ever, since an error in
Adam's or RMSProp's squares may make them negative. A round of one member encodes nothing.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from rayrnn.averaging.compression import Differences, Message, Wire, decode, weighted_mean
from rayrnn.averaging.optimizer_state import load_own_state, moments, own_state, prepare_state, reset_state
from rayrnn.averaging.outer import RULES, Memory

OptimizerState = Literal["keep", "average", "reset"]


class Group(Protocol):
    """The workers that average together in one round."""

    @property
    def rank(self) -> int:
        """This worker's place among the members of the round, from 0."""

    @property
    def size(self) -> int:
        """How many members the round has."""

    def open_round(self) -> None:
        """Begin to find out who takes part, in the background."""

    def sum(self, flat: torch.Tensor) -> bool:
        """Add up `flat` over the members in place; False when a member was lost on the way."""

    def gather(self, own: torch.Tensor) -> list[torch.Tensor] | None:
        """What each member passes, in rank order; None when a member was lost on the way."""


@dataclass(frozen=True)
class Average:
    """What came of one average."""

    #: the sum of the members' weights
    weight: float
    #: one row a member, in rank order, as each passed it in
    notes: torch.Tensor
    #: bytes of what this worker handed in
    num_bytes: int


@dataclass(frozen=True)
class _Arrived:
    """What an exchange brought, and what it takes to make use of it."""

    average: Average
    #: as it was handed in
    sent: torch.Tensor
    #: of all that is averaged; None where nobody had any weight
    mean: torch.Tensor | None = None
    #: what encoding has lost of this worker's difference
    residual: torch.Tensor | None = None


class OuterOptimizer:
    """An outer rule (see rayrnn/averaging/outer.py) and what it keeps from round to round."""

    def __init__(self, flat: torch.Tensor, *, kind: str, learning_rate: float, momentum: float) -> None:
        self._rule = RULES[kind]
        self._learning_rate = learning_rate
        self._momentum = momentum
        common = flat.clone() if self._rule.remembers else flat.new_empty(0)
        self._memory = Memory(common, torch.zeros_like(common))

    def step(self, mean: torch.Tensor) -> torch.Tensor:
        """The new common parameters, P, from the members' mean, P."""
        return self._rule.step(mean, self._memory, learning_rate=self._learning_rate, momentum=self._momentum)

    def state(self) -> dict[str, torch.Tensor]:
        """What must be kept to go on: nothing for a rule without a memory."""
        if not self._rule.remembers:
            return {}
        return {name: value.cpu().clone() for name, value in vars(self._memory).items()}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from what `state` returned."""
        for name, value in state.items():
            getattr(self._memory, name).copy_(value)


class Averager:
    """Makes the members of a group agree on one model at the end of a round.

    Args:
        model: its parameters are averaged and written in place.
        optimizer: its state is kept, averaged or reset, as `optimizer_state` says.
        outer: the name of an outer rule (see rayrnn/averaging/outer.py).
        wire: how the parameters travel.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        outer: str = "none",
        outer_learning_rate: float = 1.0,
        outer_momentum: float = 0.0,
        optimizer_state: OptimizerState = "keep",
        wire: Wire = "float32",
    ) -> None:
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._optimizer = optimizer
        self._optimizer_state = optimizer_state
        prepare_state(optimizer)
        common = flatten(self._parameters)
        self.outer = OuterOptimizer(common, kind=outer, learning_rate=outer_learning_rate, momentum=outer_momentum)
        self._differences = Differences(common, wire=wire) if wire != "float32" else None
        self._sender: ThreadPoolExecutor | None = None
        self._under_way: Future[_Arrived] | None = None

    def average(self, group: Group, *, weight: float, notes: Sequence[float]) -> Average:
        """Replace every member's parameters by the members' weighted mean (after the outer optimizer).

        Args:
            weight: the steps this worker learned; a worker with 0 contributes nothing and takes the mean.
            notes: numbers every member gets to see; as many on each member.

        Without any weight in the group the parameters stay. A single member's parameters stay bit for bit
        (unless an outer optimizer moves them). When a member is lost on the way, those left average again.
        """
        arrived = self._exchange(group, self._own(), weight, notes)
        self._take(arrived)
        return arrived.average

    def send(self, group: Group, *, weight: float, notes: Sequence[float]) -> None:
        """Begin to average; the model may change until `receive` ends it. Nobody else may use the group till then.

        Args:
            weight, notes: see `average`.
        """
        if self._sender is None:
            self._sender = ThreadPoolExecutor(1, thread_name_prefix="average")
        self._under_way = self._sender.submit(self._exchange, group, self._own(), weight, notes)

    def receive(self) -> Average:
        """Wait for what `send` began, and put the members' mean in the place of what was sent.

        What the parameters have changed by since then is added to the mean; those that were not finite are dropped.
        Whatever the group raised is raised here.
        """
        assert self._under_way is not None, "send comes first"
        under_way, self._under_way = self._under_way, None
        arrived = under_way.result()
        self._take(arrived, since=flatten(self._parameters) - self._of_parameters(arrived.sent))
        return arrived.average

    def close(self) -> None:
        """End the thread in which averages travel; one that is under way is left to itself."""
        if self._sender is not None:
            self._sender.shutdown(wait=False)

    def own_state(self) -> dict[str, torch.Tensor]:
        """What only this worker has: its optimizer's state, its random generator, what encoding has lost so far."""
        state = own_state(self._optimizer)
        if self._differences is not None:
            state["residual"] = self._differences.residual.cpu().clone()
        return state

    def load_own_state(self, state: dict[str, torch.Tensor], *, borrowed: bool = False) -> None:
        """Go on from what `own_state` returned, in place.

        Args:
            borrowed: another worker goes on from it too, which then feeds back what encoding has lost.
        """
        load_own_state(self._optimizer, state)
        if self._differences is not None and "residual" in state and not borrowed:
            self._differences.residual.copy_(state["residual"])

    def take_over(self, outer: dict[str, torch.Tensor]) -> None:
        """Go on from the model's parameters as they are now, which all members have, and the outer optimizer's state.

        What encoding has lost of this worker's earlier differences is forgotten.
        """
        self.outer.load(outer)
        if self._differences is not None:
            self._differences.settle(flatten(self._parameters))

    def _exchange(self, group: Group, sent: torch.Tensor, weight: float, notes: Sequence[float]) -> _Arrived:
        """Until it counts; nothing of this worker changes."""
        while (arrived := self._try(group, sent, weight, notes)) is None:
            group.open_round()
        return arrived

    def _try(self, group: Group, sent: torch.Tensor, weight: float, notes: Sequence[float]) -> _Arrived | None:
        if self._differences is not None and group.size > 1:
            return self._average_encoded(self._differences, group, sent, weight, notes)
        return self._average_exactly(group, sent, weight, notes)

    def _average_exactly(
        self, group: Group, sent: torch.Tensor, weight: float, notes: Sequence[float]
    ) -> _Arrived | None:
        flat = self._pack(sent, group, weight, notes)
        if not group.sum(flat):
            return None
        num_values = len(sent)
        total, members = flat[num_values : num_values + 2].tolist()
        rows = flat[num_values + 2 :].view(group.size, 2, len(notes)).cpu().double().sum(1)
        average = Average(total, rows, flat.numel() * flat.element_size())
        if total == 0:
            return _Arrived(average, sent)
        return _Arrived(average, sent, flat[:num_values].div_(total) if members > 1 else sent)

    def _average_encoded(
        self, differences: Differences, group: Group, sent: torch.Tensor, weight: float, notes: Sequence[float]
    ) -> _Arrived | None:
        encoded, lost = differences.encode(self._of_parameters(sent))
        contributes = weight > 0 and bool(lost.isfinite().all())
        own = self._message(encoded, sent[len(lost) :], weight if contributes else 0.0, notes)
        content = own.to_bytes()
        gathered = group.gather(content)
        if gathered is None:
            return None
        messages = [own.split(part) for part in gathered]
        numbers = torch.stack([message.numbers for message in messages])
        weights: list[float] = numbers[:, 0].tolist()
        average = Average(sum(weights), numbers[:, 1:], content.numel())
        if average.weight == 0:
            return _Arrived(average, sent)
        moved = weighted_mean((decode(message.encoded, differences.wire) for message in messages), weights)
        exact = weighted_mean((message.exact for message in messages), weights)
        mean = torch.cat([differences.common + moved, exact])
        return _Arrived(average, sent, mean, lost if contributes else differences.residual)

    def _message(self, encoded: torch.Tensor, exact: torch.Tensor, weight: float, notes: Sequence[float]) -> Message:
        """Zeros from a worker without weight, which may hold NaN."""
        exact = exact.to(torch.float32)
        if weight == 0:
            encoded, exact = torch.zeros_like(encoded), torch.zeros_like(exact)
        return Message(torch.tensor([weight, *notes], dtype=torch.float64), exact, encoded)

    def _values(self) -> Iterator[torch.Tensor]:
        """All that is averaged."""
        yield from self._parameters
        if self._optimizer_state == "average":
            yield from moments(self._optimizer)

    def _own(self) -> torch.Tensor:
        return flatten(list(self._values()))

    def _of_parameters(self, flat: torch.Tensor) -> torch.Tensor:
        return flat[: sum(parameter.numel() for parameter in self._parameters)]

    @staticmethod
    def _pack(sent: torch.Tensor, group: Group, weight: float, notes: Sequence[float]) -> torch.Tensor:
        # zeros, not values * 0: a worker without weight may hold NaN
        scaled = sent * weight if weight > 0 else torch.zeros_like(sent)
        rows = sent.new_zeros(group.size, 2, len(notes))
        rows[group.rank] = _in_two(torch.tensor(notes, dtype=torch.float64), sent.dtype)
        return torch.cat([scaled, sent.new_tensor([weight, 1.0]), rows.view(-1)])

    @torch.no_grad()
    def _take(self, arrived: _Arrived, *, since: torch.Tensor | None = None) -> None:
        """Write the mean, and beside it what the parameters have changed by since they were sent."""
        if arrived.mean is None:
            return
        stepped = self.outer.step(self._of_parameters(arrived.mean))
        if self._differences is not None:
            self._differences.settle(stepped, arrived.residual)
        if since is not None and bool(since.isfinite().all()):
            stepped = stepped + since
        # copy_ keeps the storage: an LSTM's packed weights must not move
        unflatten(torch.cat([stepped, arrived.mean[len(stepped) :]]), list(self._values()))
        if self._optimizer_state == "reset":
            reset_state(self._optimizer)


def _in_two(numbers: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """N numbers as 2N whose sums they are, nearly twice as exact: float32 alone counts no further than 2**24."""
    rounded = numbers.to(dtype)
    rest = (numbers - rounded.double()).nan_to_num(0.0, posinf=0.0, neginf=0.0)
    return torch.stack([rounded, rest.to(dtype)])


def order_of(model: torch.nn.Module) -> str:
    """A fingerprint of the order in which a model's parameters are averaged, by which flat vectors are to be read."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def flatten(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """All values of `tensors` in one new vector."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


@torch.no_grad()
def unflatten(flat: torch.Tensor, tensors: Sequence[torch.Tensor]) -> None:
    """Write a vector that `flatten` made back into `tensors`, in place."""
    pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, piece in zip(tensors, pieces, strict=True):
        tensor.copy_(piece.view_as(tensor))
