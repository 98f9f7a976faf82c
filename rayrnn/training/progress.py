"""How far the workers have come, and whether they go on: the same on each of them after every round."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

#: a model that is not finite in so many rounds in succession is not going to mend
BROKEN_ROUNDS = 2


@dataclass(frozen=True)
class Progress:
    """What every member knows alike; a checkpoint has it too."""

    #: rounds learned
    round: int = 0
    #: sums that went into this state, those of evaluations too: of two workers the one with more is further
    sums: int = 0
    #: minibatches of the training part that are taken, over all workers and epochs
    cursor: int = 0
    best_loss: float = math.inf
    best_round: int = 0
    #: evaluations since the best one
    evaluations_without_better: int = 0
    #: rounds in succession in which some worker's loss or parameters were not finite
    broken_rounds: int = 0
    #: why no further round is learned: finished, interrupted, no better, broken; empty while they go on
    reason: str = ""

    def after(self, *, cursor: int, broken: Sequence[bool], stop: bool, rounds: int) -> "Progress":
        """One round later.

        Args:
            cursor: where the next round begins.
            broken: of every member, whether its loss or parameters were not finite.
            stop: somebody was told that the user wants to stop.
            rounds: the recipe's.
        """
        learned, broken_rounds = self.round + 1, self.broken_rounds + 1 if any(broken) else 0
        reason = "interrupted" if stop else ""
        if learned >= rounds:
            reason = "finished"
        if broken and (all(broken) or broken_rounds >= BROKEN_ROUNDS):
            reason = "broken"
        return replace(
            self, round=learned, sums=self.sums + 1, cursor=cursor, broken_rounds=broken_rounds, reason=reason
        )

    def evaluation_due(self, *, every: int) -> bool:
        """Whether this round's model is to be evaluated: every so many rounds, and the last one."""
        return self.reason == "finished" or (self.reason != "broken" and self.round % every == 0)

    def after_evaluation(self, loss: float, *, early_stopping: int) -> "Progress":
        """The same round, evaluated.

        Args:
            early_stopping: evaluations without a better loss that end the run; 0 never does.
            loss: where it is not finite, there is none: nothing was compared.
        """
        if not math.isfinite(loss):
            return replace(self, sums=self.sums + 1)
        if loss < self.best_loss:
            return replace(
                self, sums=self.sums + 1, best_loss=loss, best_round=self.round, evaluations_without_better=0
            )
        without_better = self.evaluations_without_better + 1
        enough = early_stopping and without_better >= early_stopping and self.reason != "finished"
        return replace(
            self,
            sums=self.sums + 1,
            evaluations_without_better=without_better,
            reason="no better" if enough else self.reason,
        )

    def resumed(self, *, rounds: int) -> "Progress":
        """What a checkpoint remembers, with the recipe's rounds as they are now."""
        return replace(self, reason="finished" if self.round >= rounds else "")

    def to_json(self) -> dict[str, Any]:
        """Plain values; JSON knows no infinity."""
        return asdict(self) | {"best_loss": None if self.best_loss == math.inf else self.best_loss}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Progress":
        """What `to_json` gave, and what a checkpoint has beside it."""
        known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
        best = values["best_loss"]
        return cls(**(known | {"best_loss": math.inf if best is None else best}))
