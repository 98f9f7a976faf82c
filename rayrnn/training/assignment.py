"""What the driver hands to every worker, and the progress that all workers share."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from ray.actor import ActorHandle

from rayrnn.data.encoding import Encoding
from rayrnn.data.sequences import Sequences
from rayrnn.recipe import Recipe


@dataclass(frozen=True)
class Part:
    """Some of the sequences: the ones to learn from, or the ones held out."""

    sequences: Sequences
    #: global indices into `sequences`, int64
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Assignment:
    """One run's work, the same for every worker."""

    recipe: Recipe
    encoding: Encoding
    training: Part
    held_out: Part
    mailbox: ActorHandle
    #: who takes part (see rayrnn/training/roll.py)
    roll: ActorHandle


@dataclass(frozen=True)
class Progress:
    """How far the workers have come, the same on each of them after every round."""

    #: rounds learned
    round: int = 0
    #: minibatches of the training part that are taken, over all workers and epochs
    cursor: int = 0
    best_loss: float = float("inf")
    best_round: int = 0
    #: the newest round whose model was evaluated
    evaluated: int = 0
    #: evaluations since the best one
    evaluations_without_better: int = 0
    #: rounds in succession in which some worker's loss or parameters were not finite
    broken_rounds: int = 0
    #: why no further round is learned: finished, interrupted, no better, broken; empty while they go on
    reason: str = ""

    def after_round(self, *, minibatches: int, broken: bool) -> "Progress":
        return replace(
            self,
            round=self.round + 1,
            cursor=self.cursor + minibatches,
            broken_rounds=self.broken_rounds + 1 if broken else 0,
        )

    def stopped_for(self, reason: str) -> "Progress":
        return replace(self, reason=reason)

    def after_evaluation(self, round_number: int, loss: float) -> "Progress":
        if loss < self.best_loss:
            return replace(
                self, evaluated=round_number, best_loss=loss, best_round=round_number, evaluations_without_better=0
            )
        return replace(self, evaluated=round_number, evaluations_without_better=self.evaluations_without_better + 1)

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        # JSON knows no infinity
        return values | {"best_loss": None if self.best_loss == float("inf") else self.best_loss}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Progress":
        best = values["best_loss"]
        return cls(**(values | {"best_loss": float("inf") if best is None else best}))
