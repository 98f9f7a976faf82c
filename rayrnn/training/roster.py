"""The words that workers and the roll exchange: who takes part in a round, and what became of its sum."""

from dataclasses import dataclass, field, replace
from typing import Literal

import ray
from ray.actor import ActorHandle

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
