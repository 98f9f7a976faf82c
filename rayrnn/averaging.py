"""Averages the workers' parameters: the mean weighted by work done, the outer optimizer, the optimizer's state.

One flat vector travels a round. It holds, scaled by the worker's weight, every parameter (and, with
`optimizer_state: average`, the optimizer's moments), then the weight itself, a one that counts the
members, and one row of notes a member (loss, seconds, votes), so that a round needs one all_reduce.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

Outer = Literal["none", "nesterov", "bmuf"]
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


@dataclass(frozen=True)
class Average:
    """What came of one average."""

    #: the sum of the members' weights
    weight: float
    #: one row a member, in rank order, as each passed it in
    notes: torch.Tensor
    #: bytes this worker put on the wire
    num_bytes: int


class OuterOptimizer:
    """Treats the mean's move away from the last common parameters as a gradient.

    `none` takes the mean (DL4J's ParameterAveragingTrainingMaster). `nesterov` is DiLoCo's (Douillard et al. 2023,
    arXiv:2311.08105): SGD with Nesterov momentum on `common - mean`. `bmuf` is classical block momentum (Chen and
    Huo 2016, ICASSP, eq. 4-5): `update = momentum * update + learning_rate * (mean - common)`.
    """

    def __init__(self, flat: torch.Tensor, *, kind: Outer, learning_rate: float, momentum: float) -> None:
        self._kind = kind
        self._learning_rate = learning_rate
        self._momentum = momentum
        #: what every worker last had in common, and the momentum: both P, empty for `none`
        self.common = flat.clone() if kind != "none" else flat.new_empty(0)
        self.velocity = torch.zeros_like(self.common)

    def step(self, mean: torch.Tensor) -> torch.Tensor:
        """The new common parameters, P, from the members' mean, P."""
        if self._kind == "none":
            return mean
        delta = mean - self.common
        if self._kind == "bmuf":
            self.velocity.mul_(self._momentum).add_(delta, alpha=self._learning_rate)
            self.common.add_(self.velocity)
        else:
            self.velocity.mul_(self._momentum).add_(delta)
            self.common.add_(delta.add_(self.velocity, alpha=self._momentum), alpha=self._learning_rate)
        return self.common

    def state(self) -> dict[str, torch.Tensor]:
        """What must be kept to go on: nothing for `none`."""
        if self._kind == "none":
            return {}
        return {"common": self.common.cpu().clone(), "velocity": self.velocity.cpu().clone()}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from what `state` returned."""
        if state:
            self.common.copy_(state["common"])
            self.velocity.copy_(state["velocity"])


class Averager:
    """Makes the members of a group agree on one model at the end of a round.

    Args:
        model: its parameters are averaged and written in place.
        optimizer: its state is kept, averaged or reset, as `optimizer_state` says.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        outer: Outer = "none",
        outer_learning_rate: float = 1.0,
        outer_momentum: float = 0.0,
        optimizer_state: OptimizerState = "keep",
    ) -> None:
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._optimizer = optimizer
        self._optimizer_state = optimizer_state
        prepare_state(optimizer)
        self.outer = OuterOptimizer(
            flatten(self._parameters), kind=outer, learning_rate=outer_learning_rate, momentum=outer_momentum
        )

    def average(self, group: Group, *, weight: float, notes: Sequence[float]) -> Average:
        """Replace every member's parameters by the members' weighted mean (after the outer optimizer).

        Args:
            weight: the steps this worker learned; a worker with 0 contributes nothing and takes the mean.
            notes: numbers every member gets to see; as many on each member.

        Without any weight in the group the parameters stay. A single member's parameters stay bit for bit
        (unless an outer optimizer moves them). When a member is lost on the way, those left average again.
        """
        values = list(self._values())
        while not group.sum(flat := self._pack(values, group, weight, notes)):
            group.open_round()
        num_values = sum(value.numel() for value in values)
        total, members = flat[num_values : num_values + 2].tolist()
        if total > 0:
            mean = flat[:num_values].div_(total) if members > 1 else flatten(values)
            self._write(values, mean)
        rows = flat[num_values + 2 :].view(group.size, len(notes)).cpu()
        return Average(total, rows, flat.numel() * flat.element_size())

    def _values(self) -> Iterator[torch.Tensor]:
        yield from self._parameters
        if self._optimizer_state == "average":
            yield from moments(self._optimizer)

    def _pack(
        self, values: Sequence[torch.Tensor], group: Group, weight: float, notes: Sequence[float]
    ) -> torch.Tensor:
        own = flatten(values)
        # zeros, not values * 0: a worker without weight may hold NaN
        scaled = own.mul_(weight) if weight > 0 else own.zero_()
        rows = own.new_zeros(group.size, len(notes))
        rows[group.rank] = torch.tensor(notes)
        return torch.cat([scaled, own.new_tensor([weight, 1.0]), rows.view(-1)])

    @torch.no_grad()
    def _write(self, values: Sequence[torch.Tensor], mean: torch.Tensor) -> None:
        num_parameters = sum(parameter.numel() for parameter in self._parameters)
        stepped = self.outer.step(mean[:num_parameters])
        # copy_ keeps the storage: an LSTM's packed weights must not move
        unflatten(torch.cat([stepped, mean[num_parameters:]]), values)
        if self._optimizer_state == "reset":
            reset_state(self._optimizer)


def flatten(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """All values of `tensors` in one new vector."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


@torch.no_grad()
def unflatten(flat: torch.Tensor, tensors: Sequence[torch.Tensor]) -> None:
    """Write a vector that `flatten` made back into `tensors`, in place."""
    pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, piece in zip(tensors, pieces, strict=True):
        tensor.copy_(piece.view_as(tensor))


def moments(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    """The optimizer's running averages, in a fixed order; its counts of updates, which are scalars, are none."""
    return (value for _, value in _named_state(optimizer) if value.dim() > 0)


@torch.no_grad()
def prepare_state(optimizer: torch.optim.Optimizer) -> None:
    """Make the optimizer create its state now (all zeros), so that every worker has the same tensors."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    reset_state(optimizer)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def reset_state(optimizer: torch.optim.Optimizer) -> None:
    """Forget all moments and counts, in place."""
    for state in optimizer.state.values():
        for value in state.values():
            value.zero_()


def own_state(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What only this worker has: its optimizer's state and its random generator."""
    state = {name: value.detach().cpu().clone() for name, value in _named_state(optimizer)}
    return state | {"random": torch.get_rng_state()}


@torch.no_grad()
def load_own_state(optimizer: torch.optim.Optimizer, state: dict[str, torch.Tensor]) -> None:
    """Go on from what `own_state` returned, in place."""
    for name, value in _named_state(optimizer):
        value.copy_(state[name])
    torch.set_rng_state(state["random"])


def _named_state(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.Tensor]]:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in enumerate(parameters):
        for name, value in sorted(optimizer.state[parameter].items()):
            yield f"{number}.{name}", value
