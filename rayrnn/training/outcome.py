"""How a run ended."""

from dataclasses import dataclass
from typing import Any

from rayrnn.run import Run


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run: Run
    #: `finished`, or `no better` (early stopping)
    reason: str
    rounds: int
    #: the last round's
    loss: float | None
    best_loss: float | None
    best_round: int
    #: over all workers, unmasked steps
    steps_per_second: float
    #: from the workers' first minibatch to their last
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """What `rayrnn train --json` prints."""
        return {
            "run": self.run.name,
            "reason": self.reason,
            "rounds": self.rounds,
            "loss": self.loss,
            "best_held_out_loss": self.best_loss,
            "best_round": self.best_round if self.best_loss is not None else None,
            "steps_per_second": self.steps_per_second,
            "seconds": self.seconds,
        }
