"""Adds up or gathers vectors with whoever is there: workers may die, hang, come late or join between two rounds.

What is said here of a sum holds for what is gathered too. Both run over gloo between the workers' own processes
(rayrnn/training/gloo.py); rayrnn/training/coordinator.py settles who they are. While nothing happens a round costs one
sum and one vote of a single number.
"""

import time
import traceback
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any

import ray
import torch
from ray.actor import ActorHandle
from ray.exceptions import RayError

from rayrnn.training.gloo import Links, all_gather, all_reduce, connect
from rayrnn.training.messages import Answer, Lost, Member, Report, View, Word

#: between two messages by which a coordinator that was started again learns of members who need nothing from it
TELL_SECONDS = 1.0

State = dict[str, Any]


class Replaced(Exception):
    """Another process has this worker's number: it was cut off, and Ray took it for dead. Nobody waits for this one."""


class Leaving(Exception):
    """Raised by a member that must go: the others go on without it, and are told why."""


class LeftBehind(Exception):
    """The others went on without this worker: this round's work is lost, `open_round` brings it up to date."""


class Group:
    """This worker among those it averages with.

    `open_round` before each sum, then `sum` or `gather` (the same on every member); in between rank and size stay.
    Use it as a context: a worker that ends without an exception has finished in agreement with the others.

    Args:
        coordinator: see `start_coordinator`.
        number: this worker's number, from 0; a replacement has the number of the one it replaces.
        sums: sums that went into this worker's state; those with fewer take the state of those with more.
        patience: seconds to wait in a sum for those who do not come.
        state: what a worker that joins needs to go on like this one. Called between rounds, must not be a view.
        load_state: takes what another worker's `state` gave.
    """

    def __init__(
        self,
        coordinator: ActorHandle,
        *,
        number: int,
        sums: int,
        patience: float,
        state: Callable[[], State],
        load_state: Callable[[State], None],
    ) -> None:
        self.sums = sums
        #: the others have reached the end
        self.finished = False
        self._coordinator = coordinator
        self._member = Member(number, uuid.uuid4().hex, _this_process())
        self._patience = patience
        self._state = state
        self._load_state = load_state
        self._view: View | None = None
        #: this sum counts; somebody waits to be admitted; the coordinator has answered already
        self._agreed = False
        self._change_ahead = False
        self._answer: Answer | None = None
        self._joiner: Future[None] | None = None
        self._heard: ray.ObjectRef | None = None
        self._told = 0.0
        # what the thread raises, the next sum raises: of a lost member it is added up again, of a fault of our own the
        # worker ends, and is replaced
        self._connector = ThreadPoolExecutor(1, thread_name_prefix="connect")
        #: None when there is nobody to be linked with, or no more
        self._links: Future[Links] | None = None
        self._linked = 0

    @property
    def rank(self) -> int:
        """This worker's place among the members of the round, from 0."""
        return self._known_view.members.index(self._member)

    @property
    def size(self) -> int:
        """How many members the round has."""
        return len(self._known_view.members)

    @property
    def numbers(self) -> list[int]:
        """The members' numbers in the order of their ranks."""
        return [member.number for member in self._known_view.members]

    @property
    def generation(self) -> int:
        """Rises with every sum that was begun, those that were made again too; the same on every member."""
        return self._known_view.generation

    @property
    def change_ahead(self) -> bool:
        """Somebody waits to be admitted by the next `open_round`."""
        return self._change_ahead

    def open_round(self, *, admit: bool = True) -> None:
        """Begin a sum, or the same again: at once, unless somebody joins or was lost.

        A worker that is not among the members waits until they open one that admits it, and takes over their state.

        Args:
            admit: those who wait may join here; False between two sums of a round, where the state is half of one.

        Raises:
            Replaced: Ray has replaced this worker.
        """
        astray = admit and self._astray()
        if self._agreed and not astray and not (admit and self._change_ahead):
            self._agreed, self._view = False, self._known_view.next_sum()
        elif self._agreed and not astray:
            self._enter(self._ask("agreed", state=self._hand_over()))
        elif self._view is None or self._answer or astray:
            self._enter(self._answer or self._ask("join"))
        if self._is_first and self._joiner is None:
            self._joiner = self._coordinator.joiner.remote().future()

    def sum(self, flat: torch.Tensor) -> bool:
        """Add up `flat` over the members, in place; all of them get the same bits.

        Returns:
            Whether the sum counts, for every member alike. If not, `flat` is spoilt: call `open_round` and add up
            again with those who are left.

        Raises:
            LeftBehind: the others went on without this worker.
            Replaced: Ray has replaced this worker.
        """
        return self._agree(lambda links: all_reduce(links, flat))

    def gather(self, own: torch.Tensor) -> list[torch.Tensor] | None:
        """What each member passes as `own`, in the order of their ranks; as long and of one type on all of them.

        Returns:
            The same bits on every member; None, on all of them alike, when it does not count: call `open_round` and
            gather again with those who are left.

        Raises:
            LeftBehind: the others went on without this worker.
            Replaced: Ray has replaced this worker.
        """
        parts = [own.clone() for _ in range(self.size)]
        return parts if self._agree(lambda links: all_gather(links, own, parts)) else None

    def close(self, lost: Lost | None = None) -> None:
        """Leave: in agreement with the others, or as one that is lost to them, and tell why."""
        word: Word = "agreed" if self._agreed else "join"
        with suppress(RayError):
            ray.get(self._coordinator.leave.remote(self._report(word), lost), timeout=self._patience)
        self._links = None
        self._connector.shutdown(wait=False)

    def __enter__(self) -> "Group":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close(lost_by(self._member.number, error) if error is not None else None)

    @property
    def _known_view(self) -> View:
        assert self._view is not None, "open_round comes first"
        return self._view

    @property
    def _is_first(self) -> bool:
        return self._view is not None and self._view.members[0] == self._member

    def _astray(self) -> bool:
        """Whether a coordinator that was started again put others together without these; asked now and then."""
        if not self._agreed or time.monotonic() - self._told < TELL_SECONDS:
            return False
        if self._heard is None:
            self._heard = self._coordinator.hear.remote(self._report("agreed"))
        elif ray.wait([self._heard], timeout=0)[0]:
            known, self._heard = ray.get(self._heard), None
            if not known:
                self._links, self._agreed = None, False
                return True
        self._told = time.monotonic()
        return False

    def _report(self, word: Word, waited: float = 0.0, state: tuple[ray.ObjectRef, ...] = ()) -> Report:
        return Report(self._member, word, self.sums, self._view, waited, state)

    def _hand_over(self) -> tuple[ray.ObjectRef, ...]:
        """The state, where it is this worker's turn to give it to those who join."""
        with suppress(RayError):  # no room in the object store: those who join wait a round longer
            return (ray.put(self._state()),) if self._is_first else ()
        return ()

    def _ask(self, word: Word, *, waited: float = 0.0, state: tuple[ray.ObjectRef, ...] = ()) -> Answer:
        answer: Answer = ray.get(self._coordinator.report.remote(self._report(word, waited, state)))
        if answer.replaced:
            raise Replaced(f"worker {self._member.number} was replaced by Ray while it did not answer")
        return answer

    def _enter(self, answer: Answer) -> None:
        """Take a place on the view, with the state that belongs to it."""
        self._agreed, self._change_ahead, self._answer = False, False, None
        while answer.state:
            self._view = answer.view
            try:
                state = ray.get(answer.state[0], timeout=self._patience)
            except RayError:
                # whoever held the state is gone or hangs; ask for a place again
                answer = self._ask("join")
                continue
            self.sums = answer.sums
            self._load_state(state)
            break
        self.sums, self._view = answer.sums, answer.view
        self.finished = answer.view is None
        if self._view is not None and self._view.linked != self._linked:
            self._linked = self._view.linked
            self._links = self._link(self._view) if self.size > 1 else None

    def _link(self, view: View) -> Future[Links]:
        return self._connector.submit(connect, self._coordinator, view, self.rank, self._patience)

    def _agree(self, collective: Callable[[Links], None]) -> bool:
        """Do it with the other members; whether it counts, for every member alike."""
        started = time.monotonic()
        word = self._carry_out(collective)
        if word != "agreed":
            self._links = None
            self._answer = self._ask(word, waited=time.monotonic() - started)
            if self._answer.state or self._answer.view is None:
                raise LeftBehind
            if self._answer.sums == self.sums:
                return False
        self._agreed = word == "agreed"
        self.sums += 1
        return True

    def _carry_out(self, collective: Callable[[Links], None]) -> Word:
        """Nothing is to be done without others; with them it counts when all have voted, which all do after it."""
        if self.size == 1:
            self._change_ahead = self._change_ahead or self._somebody_joins()
            return "agreed"
        word: Word = "no sum"
        try:
            if self._links is not None:
                links = self._links.result()
                collective(links)
                word = "unsure"
                vote = torch.tensor([float(self._somebody_joins())])
                all_reduce(links, vote)
                self._change_ahead = self._change_ahead or bool(vote.item())
                word = "agreed"
        except (RuntimeError, RayError):
            pass  # gloo and the rendezvous say so when a member is lost; the coordinator knows more
        return word

    def _somebody_joins(self) -> bool:
        if self._joiner is None or not self._joiner.done():
            return False
        self._joiner = None
        return True


def lost_by(number: int, error: BaseException) -> Lost:
    """How a worker is lost that ends by this exception."""
    if isinstance(error, Leaving):
        return Lost(number, "drained", str(error), time.time())
    said = f"{type(error).__name__}: {error}"
    return Lost(number, "raised", said, time.time(), "".join(traceback.format_exception(error)))


def _this_process() -> ActorHandle | None:
    """The actor that runs this, for the coordinator to see that it lives; None outside of an actor."""
    context = ray.get_runtime_context()
    return context.current_actor if context.get_actor_id() else None
