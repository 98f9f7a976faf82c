"""Averages the workers' parameters: the mean weighted by work done, the outer optimizer, the optimizer's state.

One flat vector travels a round. It holds, scaled by the worker's weight, every parameter (and, with
`optimizer_state: average`, the optimizer's moments), then the weight itself, a one that counts the
members, and two rows of notes a member (loss, seconds, votes: see `_in_two`), so that a round needs one all_reduce.

With `wire: bfloat16` or `int8` every member gathers all members' messages instead, decodes them and computes the same
mean: a weight, notes, the parameters encoded (compression.py), and the moments in float32 as ever, since an error in
Adam's or RMSProp's squares may make them negative. A round of one member encodes nothing.
"""

import hashlib
from collections.abc import Iterator, Sequence
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

    def average(self, group: Group, *, weight: float, notes: Sequence[float]) -> Average:
        """Replace every member's parameters by the members' weighted mean (after the outer optimizer).

        Args:
            weight: the steps this worker learned; a worker with 0 contributes nothing and takes the mean.
            notes: numbers every member gets to see; as many on each member.

        Without any weight in the group the parameters stay. A single member's parameters stay bit for bit
        (unless an outer optimizer moves them). When a member is lost on the way, those left average again.
        """
        while (average := self._try(group, weight, notes)) is None:
            group.open_round()
        return average

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

    def _try(self, group: Group, weight: float, notes: Sequence[float]) -> Average | None:
        if self._differences is not None and group.size > 1:
            return self._average_encoded(self._differences, group, weight, notes)
        return self._average_exactly(group, weight, notes)

    def _average_exactly(self, group: Group, weight: float, notes: Sequence[float]) -> Average | None:
        values = list(self._values())
        flat = self._pack(values, group, weight, notes)
        if not group.sum(flat):
            return None
        num_values = sum(value.numel() for value in values)
        total, members = flat[num_values : num_values + 2].tolist()
        if total > 0:
            self._write(flat[:num_values].div_(total) if members > 1 else flatten(values))
        rows = flat[num_values + 2 :].view(group.size, 2, len(notes)).cpu().double().sum(1)
        return Average(total, rows, flat.numel() * flat.element_size())

    def _average_encoded(
        self, differences: Differences, group: Group, weight: float, notes: Sequence[float]
    ) -> Average | None:
        encoded, lost = differences.encode(flatten(self._parameters))
        contributes = weight > 0 and bool(lost.isfinite().all())
        own = self._message(encoded, weight if contributes else 0.0, notes)
        content = own.to_bytes()
        gathered = group.gather(content)
        if gathered is None:
            return None
        messages = [own.split(part) for part in gathered]
        numbers = torch.stack([message.numbers for message in messages])
        weights: list[float] = numbers[:, 0].tolist()
        if sum(weights) > 0:
            residual = lost if contributes else differences.residual
            moved = weighted_mean((decode(message.encoded, differences.wire) for message in messages), weights)
            exact = weighted_mean((message.exact for message in messages), weights)
            self._write(torch.cat([differences.common + moved, exact]), residual)
        return Average(sum(weights), numbers[:, 1:], content.numel())

    def _message(self, encoded: torch.Tensor, weight: float, notes: Sequence[float]) -> Message:
        """Zeros from a worker without weight, which may hold NaN."""
        exact = flatten([encoded.new_empty(0, dtype=torch.float32), *self._exact_values()])
        if weight == 0:
            encoded, exact = torch.zeros_like(encoded), torch.zeros_like(exact)
        return Message(torch.tensor([weight, *notes], dtype=torch.float64), exact, encoded)

    def _values(self) -> Iterator[torch.Tensor]:
        yield from self._parameters
        yield from self._exact_values()

    def _exact_values(self) -> Iterator[torch.Tensor]:
        """What is averaged beside the parameters."""
        if self._optimizer_state == "average":
            yield from moments(self._optimizer)

    def _pack(
        self, values: Sequence[torch.Tensor], group: Group, weight: float, notes: Sequence[float]
    ) -> torch.Tensor:
        own = flatten(values)
        # zeros, not values * 0: a worker without weight may hold NaN
        scaled = own.mul_(weight) if weight > 0 else own.zero_()
        rows = own.new_zeros(group.size, 2, len(notes))
        rows[group.rank] = _in_two(torch.tensor(notes, dtype=torch.float64), own.dtype)
        return torch.cat([scaled, own.new_tensor([weight, 1.0]), rows.view(-1)])

    @torch.no_grad()
    def _write(self, mean: torch.Tensor, residual: torch.Tensor | None = None) -> None:
        num_parameters = sum(parameter.numel() for parameter in self._parameters)
        stepped = self.outer.step(mean[:num_parameters])
        # copy_ keeps the storage: an LSTM's packed weights must not move
        unflatten(torch.cat([stepped, mean[num_parameters:]]), list(self._values()))
        if self._differences is not None:
            self._differences.settle(stepped, residual)
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
