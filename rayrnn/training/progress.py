"""How far the workers have come, and whether they go on: the same on each of them after every round."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rayrnn.recipe import Recipe, task_of
from rayrnn.tasks import monitors_of

#: a model that is not finite in so many rounds in succession is not going to mend
BROKEN_ROUNDS = 2


@dataclass(frozen=True)
class Monitor:
    """What says which of two models is the better one."""

    name: str = "loss"
    higher_is_better: bool = False

    @classmethod
    def of(cls, recipe: Recipe) -> "Monitor":
        """The recipe's."""
        name = recipe.training.monitor
        return cls(name, monitors_of(task_of(recipe))[name])

    def prefers(self, value: float, to: float | None) -> bool:
        """Whether a value is better than the best before it, where there was one."""
        return to is None or (value > to if self.higher_is_better else value < to)


LOSS = Monitor()


@dataclass(frozen=True)
class Length:
    """How long a run is."""

    rounds: int
    #: that the members learn, in the place of the rounds
    seconds: float | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> "Length":
        """The recipe's."""
        minutes = recipe.averaging.minutes
        return cls(recipe.averaging.rounds, None if minutes is None else 60 * minutes)

    def ends_after(self, rounds: int, seconds: float) -> bool:
        """Whether so much is all of it."""
        return rounds >= self.rounds if self.seconds is None else seconds >= self.seconds


class Deadline:
    """The end of the time that a command may learn.

    Args:
        seconds: from `begin` on; None has no end.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._end: float | None = None
        #: it was said that the time is over
        self.has_ended = False

    def begin(self) -> None:
        """Learning begins now."""
        if self._seconds is not None:
            self._end = time.monotonic() + self._seconds

    def is_over(self) -> bool:
        """Whether the time is over; says so once."""
        if self.has_ended or self._end is None or time.monotonic() < self._end:
            return False
        self.has_ended = True
        return True


@dataclass(frozen=True)
class Progress:
    """What every member knows alike; a checkpoint has it too."""

    #: rounds learned
    round: int = 0
    #: sums that went into this state, those of evaluations too: of two workers the one with more is further
    sums: int = 0
    #: minibatches of the training part that are taken, over all workers and epochs
    cursor: int = 0
    #: the held-out loss of the best model, and the round after which it was
    best_loss: float = math.inf
    best_round: int = 0
    #: by what it is the best, and how good it is by that where that is not the loss
    monitor: str = "loss"
    best_value: float | None = None
    #: evaluations since the best one
    evaluations_without_better: int = 0
    #: that were learned; counted where the run's length goes by it
    seconds: float = 0.0
    #: rounds in succession in which some worker's loss or parameters were not finite
    broken_rounds: int = 0
    #: why no further round is learned: finished, interrupted, no better, broken; empty while they go on
    reason: str = ""

    @property
    def best(self) -> float | None:
        """What the monitor said of the best model; None before there was one."""
        if self.monitor != "loss":
            return self.best_value
        return self.best_loss if math.isfinite(self.best_loss) else None

    def after(
        self,
        *,
        cursor: int,
        broken: Sequence[bool],
        stop: bool,
        length: Length,
        seconds: float = 0.0,
        may_end: bool = True,
    ) -> "Progress":
        """One round later.

        Args:
            cursor: where the next round begins.
            broken: of every member, whether its loss or parameters were not finite.
            stop: somebody was told that the user wants to stop.
            length: the run's.
            seconds: that the round took.
            may_end: whether this may be the last round that is learned, if it has been a long time.
        """
        learned, broken_rounds = self.round + 1, self.broken_rounds + 1 if any(broken) else 0
        seconds = 0.0 if length.seconds is None else self.seconds + seconds
        reason = "interrupted" if stop else ""
        if length.ends_after(learned, seconds) and may_end:
            reason = "finished"
        if broken and (all(broken) or broken_rounds >= BROKEN_ROUNDS):
            reason = "broken"
        return replace(
            self,
            round=learned,
            sums=self.sums + 1,
            cursor=cursor,
            seconds=seconds,
            broken_rounds=broken_rounds,
            reason=reason,
        )

    def evaluation_due(self, *, every: int) -> bool:
        """Whether this round's model is to be evaluated: every so many rounds, and the last one."""
        return self.reason == "finished" or (self.reason != "broken" and self.round % every == 0)

    def after_evaluation(
        self, loss: float, *, early_stopping: int, monitor: Monitor = LOSS, value: float | None = None
    ) -> "Progress":
        """The same round, evaluated.

        Args:
            early_stopping: evaluations without anything better that end the run; 0 never does.
            loss: where it is not finite, there is none: nothing was compared.
            monitor: what says what is better; by another than before, nothing was good before.
            value: what it says of this round's model, where it is not the loss.
        """
        value = loss if monitor.name == "loss" else value
        if not math.isfinite(loss) or value is None or not math.isfinite(value):
            return replace(self, sums=self.sums + 1)
        if self.monitor != monitor.name:
            fresh = replace(self, monitor=monitor.name, best_loss=math.inf, best_value=None)
            fresh = replace(fresh, evaluations_without_better=0)
            return fresh.after_evaluation(loss, early_stopping=early_stopping, monitor=monitor, value=value)
        if monitor.prefers(value, self.best):
            return replace(
                self,
                sums=self.sums + 1,
                best_loss=loss,
                best_round=self.round,
                best_value=None if monitor.name == "loss" else value,
                evaluations_without_better=0,
            )
        without_better = self.evaluations_without_better + 1
        enough = early_stopping and without_better >= early_stopping and self.reason != "finished"
        return replace(
            self,
            sums=self.sums + 1,
            evaluations_without_better=without_better,
            reason="no better" if enough else self.reason,
        )

    def resumed(self, *, length: Length) -> "Progress":
        """What a checkpoint remembers, with the recipe's length as it is now."""
        return replace(self, reason="finished" if length.ends_after(self.round, self.seconds) else "")

    def to_json(self) -> dict[str, Any]:
        """Plain values; JSON knows no infinity."""
        return asdict(self) | {"best_loss": None if self.best_loss == math.inf else self.best_loss}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Progress":
        """What `to_json` gave, and what a checkpoint has beside it."""
        known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
        best = values["best_loss"]
        return cls(**(known | {"best_loss": math.inf if best is None else best}))
