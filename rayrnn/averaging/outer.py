"""Outer rules: where the members' mean moves the parameters that they have in common. A rule is one function here.

A rule maps the mean to the new common parameters, both P. It may write to what every worker last had in common and to
the velocity, P each, which stay from round to round. P parameters.

No torch is imported here: a recipe asks for the rules' names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Memory:
    """What a rule keeps from round to round, P each."""

    #: what every worker last had in common
    common: torch.Tensor
    velocity: torch.Tensor


def none(mean: torch.Tensor, memory: Memory, *, learning_rate: float, momentum: float) -> torch.Tensor:
    """The mean as it is (DL4J's ParameterAveragingTrainingMaster)."""
    return mean


def nesterov(mean: torch.Tensor, memory: Memory, *, learning_rate: float, momentum: float) -> torch.Tensor:
    """DiLoCo's (Douillard et al. 2023, arXiv:2311.08105): SGD with Nesterov momentum on `common - mean`."""
    delta = mean - memory.common
    memory.velocity.mul_(momentum).add_(delta)
    return memory.common.add_(delta.add_(memory.velocity, alpha=momentum), alpha=learning_rate)


def bmuf(mean: torch.Tensor, memory: Memory, *, learning_rate: float, momentum: float) -> torch.Tensor:
    """Classical block momentum (Chen and Huo 2016, ICASSP, eq. 4-5).

    `update = momentum * update + learning_rate * (mean - common)`
    """
    memory.velocity.mul_(momentum).add_(mean - memory.common, alpha=learning_rate)
    return memory.common.add_(memory.velocity)


@dataclass(frozen=True)
class Rule:
    """An outer rule, and how its paper sets it."""

    step: Callable[..., torch.Tensor]
    #: workers -> the published learning rate and momentum
    published: Callable[[int], tuple[float, float]]
    #: whether it uses its memory
    remembers: bool = True


#: `averaging.outer` of a recipe -> its rule
RULES = {
    "none": Rule(none, lambda workers: (1.0, 0.0), remembers=False),
    "nesterov": Rule(nesterov, lambda workers: (0.7, 0.9)),
    "bmuf": Rule(bmuf, lambda workers: (1.0, 1 - 1 / workers)),
}
