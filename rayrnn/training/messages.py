"""What driver, workers and coordinator tell each other: who takes part, what became of a sum, and what happened.

Values only, and nothing heavy: the coordinator's process imports this.
"""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

import ray
from ray.actor import ActorHandle

from rayrnn.errors import RayrnnError

#: the end of a worker's patience that members who noticed a loss keep for hearing of one another
GRACE_SECONDS = 0.5

# Who takes part


#: a worker wants to take part; its sum counts; it has the sum but not the whole vote; it has no sum
Word = Literal["join", "agreed", "unsure", "no sum"]


@dataclass(frozen=True, order=True)
class Member:
    """One worker's process; the process that replaces it is another member with the same number."""

    number: int
    name: str
    #: for whoever must know whether it lives; None outside of an actor
    process: ActorHandle | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class View:
    """The members of one sum in the order of their numbers: a member's rank is its place."""

    #: sums agreed on before this one
    sums: int
    members: tuple[Member, ...]
    #: rises with every view
    generation: int
    #: the generation since which these members are linked with one another
    linked: int

    def next_sum(self) -> "View":
        """The same members one sum later."""
        return replace(self, sums=self.sums + 1, generation=self.generation + 1)


@dataclass(frozen=True)
class Report:
    """What a worker says."""

    member: Member
    word: Word
    #: sums it knows to be agreed on
    sums: int
    #: the view it speaks of; None when it never had one
    view: View | None = None
    #: seconds it waited for the others in this sum
    waited: float = 0.0
    #: a reference to its state, for those who join
    state: tuple[ray.ObjectRef, ...] = ()


@dataclass(frozen=True)
class Answer:
    """Where a worker finds itself."""

    #: None when the others have finished or the worker was replaced
    view: View | None
    #: sums agreed on
    sums: int
    #: a reference to the state that the worker has to take over; empty when it is up to date
    state: tuple[ray.ObjectRef, ...] = ()
    replaced: bool = False


@dataclass(frozen=True)
class Orders:
    """What the driver wants of the workers; references, for what they name is not the coordinator's to hold."""

    #: rises with every change
    number: int = 0
    #: to a WorkerSpec; empty until the data is read
    spec: tuple[ray.ObjectRef, ...] = ()
    #: to the newest complete checkpoint; empty at the start of a new run
    checkpoint: tuple[ray.ObjectRef, ...] = ()
    #: finish the round and end
    stop: bool = False
    #: the newest of which the driver has heard, for a coordinator that knows nothing
    generation: int = 0


# What happened


#: why a worker is lost: its process ended, it raised an exception, it did not come in time, its node leaves
Reason = Literal["killed", "raised", "late", "drained"]


@dataclass(frozen=True)
class Started:
    """A worker is ready to learn."""

    worker: int


@dataclass(frozen=True)
class WorkerRound:
    """One worker's part in a round. Seconds are wall-clock."""

    worker: int
    steps: int
    updates: int
    steps_per_second: float
    learning_seconds: float
    waiting_seconds: float
    evaluating_seconds: float
    #: what is left of the round: the average itself, and waiting for the slowest member
    averaging_seconds: float


@dataclass(frozen=True)
class Culprit:
    """Where a loss first was not finite."""

    worker: int
    #: of the round, from 1
    update: int


@dataclass(frozen=True)
class LayerNorm:
    """One layer after a round; None where a number is not known, or not finite."""

    name: str
    #: the Euclidean norm of its parameters
    parameters: float | None
    #: of what the rounds since the last such line have changed of them
    update: float | None


@dataclass(frozen=True)
class RoundLearned:
    """One round, from 1: a line of metrics.jsonl."""

    round: int
    #: of the view in which it was learned: two workers tell of every round, and one that is made again has another
    generation: int
    #: the mean over all targets
    loss: float | None
    learning_rate: float
    steps: int
    padding_share: float | None
    seconds: float
    #: each worker handed in
    bytes: int
    #: the workers whose loss or parameters were not finite
    broken: tuple[int, ...]
    workers: tuple[WorkerRound, ...]
    #: why the run stops, when it stops because of that
    culprit: Culprit | None = None
    #: after every round whose model is, or could be, evaluated
    layers: tuple[LayerNorm, ...] = ()


@dataclass(frozen=True)
class Evaluated:
    """The held-out loss after a round."""

    round: int
    generation: int
    held_out_loss: float
    held_out_accuracy: float | None
    #: packed (see rayrnn/runs/checkpoints.py), when it is the best so far
    model: bytes | None = None
    #: what says which model is the best, where it is not the loss, and what it says; None where it has no number
    monitor: str = ""
    monitored: float | None = None


@dataclass(frozen=True)
class Unmeasured:
    """After a round the held-out part has no loss: nothing there has a target, or the answers are not finite."""

    round: int
    generation: int


@dataclass(frozen=True)
class Common:
    """What all members of a round hold alike."""

    #: both packed
    model: bytes
    outer: bytes
    progress: dict[str, Any]


@dataclass(frozen=True)
class CheckpointPart:
    """One worker's part of a checkpoint."""

    round: int
    generation: int
    worker: int
    #: whose parts make it whole
    members: tuple[int, ...]
    #: of what all hold alike
    digest: str
    #: packed
    optimizer: bytes
    #: from two of the members, in case one is lost
    common: Common | None = None


@dataclass(frozen=True)
class Finished:
    """A worker has ended its work in agreement with the others."""

    worker: int
    #: finished, interrupted, no better, broken
    reason: str
    round: int
    #: packed, where no evaluation chose one
    model: bytes | None = None


@dataclass(frozen=True)
class Failed:
    """A mistake of the user's, met in a worker: it ends the run."""

    worker: int
    error: RayrnnError


@dataclass(frozen=True)
class Lost:
    """A worker is gone; the others go on, and another starts in its place."""

    worker: int
    reason: Reason
    detail: str
    #: seconds since 1970
    time: float
    traceback: str = ""


@dataclass(frozen=True)
class WentOn:
    """Those who were held up by a loss go on."""

    workers: tuple[int, ...]
    seconds: float
    time: float


@dataclass(frozen=True)
class Joined:
    """A worker takes part from the next round on."""

    worker: int
    #: since it was lost; 0 when it was not
    seconds: float
    time: float


@dataclass(frozen=True)
class Restarted:
    """A worker's process ended before its work did, or did not start: Ray Train starts another."""

    worker: int
    detail: str


@dataclass(frozen=True)
class NoRoom:
    """No host has room for a worker."""

    worker: int


@dataclass(frozen=True)
class Stumbled:
    """A thread of the driver raised, and was begun again."""

    thread: str
    detail: str


#: what changes who takes part, as far as the user is told
Membership = Lost | WentOn | Joined

Event = (
    Started
    | RoundLearned
    | Evaluated
    | Unmeasured
    | CheckpointPart
    | Finished
    | Failed
    | Lost
    | WentOn
    | Joined
    | Restarted
    | NoRoom
    | Stumbled
)


@dataclass(frozen=True)
class Batch:
    """Events that travel together."""

    sender: str
    #: from 1 for each sender, without a gap: what comes twice, or too early, is known by it
    number: int
    events: tuple[Event, ...]


@dataclass(frozen=True)
class Receipt:
    """What a sender hears of its batches."""

    #: of the process of the coordinator that has them; another one has nothing of what came before
    incarnation: str
    #: the sender's newest batch that the driver has
    taken: int


@dataclass(frozen=True)
class News:
    """What the coordinator has for the driver."""

    #: of this process of the coordinator
    incarnation: str
    #: the batches that were ever here, in this incarnation
    count: int
    batches: tuple[Batch, ...]
    #: the numbers of the workers that take part
    members: tuple[int, ...]


# What is written down

#: what metrics.jsonl and a screen at a distance call them
_KINDS: dict[str, type[RoundLearned | Evaluated | Lost | WentOn | Joined]] = {
    "round": RoundLearned,
    "evaluation": Evaluated,
    "lost": Lost,
    "went_on": WentOn,
    "joined": Joined,
}
#: left out where there is nothing to say
_OFTEN_EMPTY = ("culprit", "layers")
#: of no use to a reader
_UNWRITTEN = ("model", "generation", "traceback")


def to_json(event: RoundLearned | Evaluated | Membership) -> dict[str, Any]:
    """The event as plain values: its kind, and what a reader of it wants to know."""
    (kind,) = (kind for kind, known in _KINDS.items() if isinstance(event, known))
    values = {name: value for name, value in asdict(event).items() if name not in _UNWRITTEN}
    return {"kind": kind, **{name: value for name, value in values.items() if value or name not in _OFTEN_EMPTY}}


def from_json(values: dict[str, Any]) -> RoundLearned | Evaluated | Membership:
    """What `to_json` gave; what was not written has no value."""
    known = _KINDS[values["kind"]]
    names = {one.name for one in fields(known)}
    rest: dict[str, Any] = {name: _value(name, value) for name, value in values.items() if name in names}
    if "generation" in names:
        rest["generation"] = 0
    return known(**rest)


def _value(name: str, value: Any) -> Any:
    if name == "workers":
        return tuple(WorkerRound(**one) if isinstance(one, dict) else one for one in value)
    if name == "layers":
        return tuple(LayerNorm(**one) for one in value)
    if name == "culprit":
        return Culprit(**value)
    return tuple(value) if isinstance(value, list) else value
