"""The words that driver, workers and coordinator exchange: what to learn, who takes part, what became of a sum."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import ray
from ray.actor import ActorHandle

from rayrnn.data.encoding import Encoding
from rayrnn.data.sequences import Part
from rayrnn.recipe import Recipe

#: the end of a worker's patience that members who noticed a loss keep for hearing of one another
GRACE_SECONDS = 0.5


#: a worker wants to take part; its sum counts; it has the sum but not the whole vote; it has no sum
Word = Literal["join", "agreed", "unsure", "lost"]


@dataclass(frozen=True, order=True)
class Member:
    """One worker's process; the process that replaces it is another member with the same number."""

    number: int
    name: str
    #: for whoever must know whether it lives; None outside of an actor
    process: ActorHandle | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Roster:
    """The members of one round in the order of their numbers: a member's rank is its place."""

    #: sums agreed on before this round
    round: int
    members: tuple[Member, ...]
    #: counts the rosters
    edition: int
    #: the edition since which these members are connected
    connected: int

    def next_round(self) -> "Roster":
        """The same members one round later."""
        return replace(self, round=self.round + 1, edition=self.edition + 1)


@dataclass(frozen=True)
class Report:
    """What a worker says."""

    member: Member
    word: Word
    #: sums it knows to be agreed on
    round: int
    #: the roster it speaks of; None when it never had one
    roster: Roster | None = None
    #: seconds it waited for the others in this round
    waited: float = 0.0
    #: a reference to its state, for those who join
    state: tuple[ray.ObjectRef, ...] = ()


@dataclass(frozen=True)
class Answer:
    """Where a worker finds itself."""

    #: None when the others have finished or the worker was replaced
    roster: Roster | None
    #: sums agreed on
    round: int
    #: a reference to the state that the worker has to take over; empty when it is up to date
    state: tuple[ray.ObjectRef, ...] = ()
    replaced: bool = False


@dataclass(frozen=True)
class Assignment:
    """One run's work, the same for every worker."""

    recipe: Recipe
    encoding: Encoding
    training: Part
    held_out: Part
    mailbox: ActorHandle
    #: who takes part (see rayrnn/training/coordinator.py)
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
