"""What an answer that is numbers costs: errors, quantiles, or the likelihood of a distribution whose parameters it is.

A network gives P outputs for each of O numbers: [..., O, P]. Everything here is in the units in which they are learned.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import torch
from torch import distributions
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from rayrnn.errors import UsageError
from rayrnn.tasks import LOSSES, POINT_LOSSES, QUANTILES

#: levels at which a distribution is compared with a number for its CRPS
GRID = tuple((step + 0.5) / 50 for step in range(50))
#: the least scale, and number of failures, of a distribution: a likelihood has no bound where these reach zero
FLOOR = 1e-4
#: of the logarithm of a mean
MOST_LOG = 20.0


class NumberLoss(Protocol):
    """What is minimized, and what outputs then are."""

    @property
    def name(self) -> str:
        """As `training.loss` calls it."""

    @property
    def parameters(self) -> int:
        """P."""

    @property
    def levels(self) -> tuple[float, ...]:
        """The quantiles that are answered beside the number; none of a loss that knows no spread."""

    @property
    def grid(self) -> tuple[float, ...]:
        """The levels by which the spread is measured: its CRPS."""

    @property
    def unit(self) -> str:
        """Of the loss, in a report."""

    @property
    def counts(self) -> bool:
        """Whether the numbers are counts, which are learned as they are: never scaled."""

    def losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Of every number, [..., O]."""

    def rescaled(self, losses: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """What losses [..., O] are where one unit of number o was `scale[o]` of the data's own."""

    def points(self, outputs: torch.Tensor) -> torch.Tensor:
        """The one number that is answered, [..., O]."""

    def quantiles(self, outputs: torch.Tensor, levels: Sequence[float]) -> torch.Tensor:
        """At each of these levels the number below which the truth is with this probability: [..., O, levels], which
        never fall from one level to the next."""

    def describe(self, loss: float) -> str:
        """The mean loss of a number, as people read it."""

    def meaning(self) -> dict[str, Any]:
        """What the P outputs for a number are, for a file that needs no rayrnn; nothing where it is the number."""


@dataclass(frozen=True)
class Errors:
    """How far the answer is from the number, or the square of it: the answer is a median, or a mean."""

    name: str
    power: int
    unit: str
    parameters: int = 1
    levels: tuple[float, ...] = ()
    grid: tuple[float, ...] = ()
    counts: bool = False

    def losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        errors = outputs.squeeze(-1).float() - targets
        return errors.square() if self.power == 2 else errors.abs()

    def rescaled(self, losses: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return losses * scale**self.power

    def points(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.squeeze(-1)

    def quantiles(self, outputs: torch.Tensor, levels: Sequence[float]) -> torch.Tensor:
        assert not levels, "an error knows no spread"
        return outputs[..., :0]

    def describe(self, loss: float) -> str:
        if self.power == 2:
            return f"{loss:.4f} squared error = {math.sqrt(loss):.4f} RMSE"
        return f"{loss:.4f} absolute error"

    def meaning(self) -> dict[str, Any]:
        return {}


SQUARED = Errors("squared", 2, "(mean squared error)")
ABSOLUTE = Errors("absolute", 1, "(mean absolute error)")


@dataclass(frozen=True)
class Chances:
    """-ln of the probability that is answered for a number that is 1, or not 1; one between is both in that share.

    The output is a logit; the answer its probability.
    """

    name: str = "bernoulli"
    unit: str = "nats a number"
    parameters: int = 1
    levels: tuple[float, ...] = ()
    grid: tuple[float, ...] = ()
    counts: bool = False

    def losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return binary_cross_entropy_with_logits(outputs.squeeze(-1).float(), targets, reduction="none")

    def rescaled(self, losses: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return losses

    def points(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.squeeze(-1).sigmoid()

    def quantiles(self, outputs: torch.Tensor, levels: Sequence[float]) -> torch.Tensor:
        assert not levels, "a probability knows no spread"
        return outputs[..., :0]

    def describe(self, loss: float) -> str:
        return f"{loss:.4f} nats a number"

    def meaning(self) -> dict[str, Any]:
        return {"distribution": self.name, "parameters": ["probability of 1 = sigmoid"]}


@dataclass(frozen=True)
class Quantiles:
    """Pinball loss (Koenker and Bassett 1978), in the mean over the levels; of many levels, twice it is the CRPS.

    Outputs in ascending order are the quantiles, so that none crosses another: what is sorted never costs more
    (Chernozhukov, Fernandez-Val and Galichon 2010).
    """

    levels: tuple[float, ...]
    name: str = "quantile"
    unit: str = "(mean pinball loss)"
    counts: bool = False

    @property
    def parameters(self) -> int:
        return len(self.levels)

    @property
    def grid(self) -> tuple[float, ...]:
        return self.levels

    def losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return pinball(outputs.float().sort(-1).values, targets, self.levels).mean(-1)

    def rescaled(self, losses: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return losses * scale

    def points(self, outputs: torch.Tensor) -> torch.Tensor:
        """The median, between the two levels around it; the nearest level where all lie on one side."""
        levels, ordered = np.array(self.levels), outputs.sort(-1).values
        place = float(np.interp(0.5, levels, np.arange(len(levels))))
        low, share = int(place), place - int(place)
        high = min(low + 1, len(levels) - 1)
        return ordered[..., low] * (1 - share) + ordered[..., high] * share if share else ordered[..., low]

    def quantiles(self, outputs: torch.Tensor, levels: Sequence[float]) -> torch.Tensor:
        ordered = outputs.sort(-1).values
        return ordered[..., [self.levels.index(level) for level in levels]]

    def describe(self, loss: float) -> str:
        return f"{loss:.4f} pinball loss"

    def meaning(self) -> dict[str, Any]:
        return {"parameters": [f"quantile {level:g}" for level in self.levels], "of_each_number": "sorted"}


@dataclass(frozen=True)
class Likelihood:
    """-ln of the probability, or of its density, that a distribution gives to what came: nats a number."""

    name: str
    levels: tuple[float, ...]
    #: of the distribution, in the order of the outputs, and how they come of these
    formulas: tuple[str, ...]
    of: Callable[[torch.Tensor], distributions.Distribution]
    #: of a distribution and a level in (0, 1): float64 [..., O]
    at: Callable[[Any, float], torch.Tensor]
    counts: bool = False
    grid: tuple[float, ...] = GRID

    @property
    def parameters(self) -> int:
        return len(self.formulas)

    @property
    def unit(self) -> str:
        return "nats a count" if self.counts else "nats a number (of a density: may be below 0)"

    def losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        # the logarithms of gamma functions are nearly equal, and their difference is nothing in float32
        likelihoods: torch.Tensor = self.of(outputs.double()).log_prob(targets.double())
        return -likelihoods.float()

    def rescaled(self, losses: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return losses if self.counts else losses + scale.log()

    def points(self, outputs: torch.Tensor) -> torch.Tensor:
        """The mean."""
        mean: torch.Tensor = self.of(outputs.double()).mean
        return mean.float()

    def quantiles(self, outputs: torch.Tensor, levels: Sequence[float]) -> torch.Tensor:
        distribution = self.of(outputs.double())
        return torch.stack([self.at(distribution, level).float() for level in levels], dim=-1)

    def samples(self, outputs: torch.Tensor) -> torch.Tensor:
        """One number drawn from each distribution, [..., O], by torch's own chance."""
        return self.of(outputs.double()).sample().float()

    def describe(self, loss: float) -> str:
        return f"{loss:.4f} nats a target"

    def meaning(self) -> dict[str, Any]:
        said = {"distribution": self.name, "parameters": list(self.formulas)}
        return said | ({"counts": True} if self.counts else {})


def pinball(quantiles: torch.Tensor, targets: torch.Tensor, levels: Sequence[float]) -> torch.Tensor:
    """The pinball loss of every quantile [..., O, levels] of a target [..., O]: level times what it lies too low, or
    1 - level times what it lies too high."""
    errors = targets.unsqueeze(-1) - quantiles
    own = torch.tensor(levels, dtype=errors.dtype, device=errors.device)
    return torch.maximum(own * errors, (own - 1) * errors)


def loss_named(name: str, quantiles: tuple[float, ...] | None) -> NumberLoss:
    """The loss that a recipe names.

    Args:
        quantiles: that are answered; None: the usual ones.
    """
    levels = quantiles or QUANTILES
    if name == "quantile":
        return Quantiles(levels)
    if name in _LIKELIHOODS:
        return Likelihood(name, levels, *_LIKELIHOODS[name], counts=name == "negative_binomial")
    points: dict[str, NumberLoss] = {one.name: one for one in (SQUARED, ABSOLUTE, Chances())}
    return points[name]


def check_loss(name: str) -> None:
    """
    Raises:
        UsageError: the library by which the quantiles of its distribution are found is not there.
    """
    if name in ("student_t", "negative_binomial") and find_spec("scipy") is None:
        raise UsageError(
            f"training.loss {name} needs scipy, which is not installed here: pip install 'rayrnn[forecast]'"
        )


def _normal(outputs: torch.Tensor) -> distributions.Distribution:
    mean, scale = outputs.unbind(-1)
    return distributions.Normal(mean, softplus(scale) + FLOOR, validate_args=False)


def _normal_at(normal: distributions.Normal, level: float) -> torch.Tensor:
    standard = torch.special.ndtri(torch.tensor(level, dtype=torch.float64)).to(normal.loc)
    return torch.addcmul(normal.loc, normal.scale, standard)


def _student_t(outputs: torch.Tensor) -> distributions.Distribution:
    place, scale, freedom = outputs.unbind(-1)
    # above 2 it has a mean and a variance
    return distributions.StudentT(2 + FLOOR + softplus(freedom), place, softplus(scale) + FLOOR, validate_args=False)


def _student_t_at(student: distributions.StudentT, level: float) -> torch.Tensor:
    standard = import_module("scipy.special").stdtrit(student.df.cpu().numpy(), level)
    return student.loc + student.scale * torch.as_tensor(standard).to(student.loc)


def _negative_binomial(outputs: torch.Tensor) -> distributions.Distribution:
    log_mean, failures = outputs.unbind(-1)
    number = softplus(failures) + FLOOR
    logits = log_mean.clamp(-MOST_LOG, MOST_LOG) - number.log()
    return distributions.NegativeBinomial(number, logits=logits, validate_args=False)


def _negative_binomial_at(counts: distributions.NegativeBinomial, level: float) -> torch.Tensor:
    number, failed = counts.total_count.cpu().numpy(), torch.sigmoid(-counts.logits).cpu().numpy()
    least = import_module("scipy.special").nbdtrik(level, number, failed)
    # the least whole number whose probability is enough; that of none may be more than the level
    found = np.ceil(np.maximum(np.nan_to_num(least), 0) - 1e-9)
    return torch.as_tensor(found).to(counts.total_count)


_LIKELIHOODS: dict[str, tuple[tuple[str, ...], Callable[..., Any], Callable[..., Any]]] = {
    "normal": (("mean", f"scale = softplus + {FLOOR:g}"), _normal, _normal_at),
    "student_t": (
        ("mean", f"scale = softplus + {FLOOR:g}", f"degrees of freedom = 2 + {FLOOR:g} + softplus"),
        _student_t,
        _student_t_at,
    ),
    "negative_binomial": (
        ("mean = exp", f"number of failures = softplus + {FLOOR:g}"),
        _negative_binomial,
        _negative_binomial_at,
    ),
}
assert set(LOSSES) == {*POINT_LOSSES, "quantile", *_LIKELIHOODS}
