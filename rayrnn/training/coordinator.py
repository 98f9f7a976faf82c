"""The coordinator: who takes part, who is lost, and what workers and driver tell each other. One process a run.

The members of a sum add up among themselves (rayrnn/training/group.py) and need this only when something changes.
What keeps them together: a sum counts once a member has seen that every member has it (the vote). A member that has
the sum but lost the others before the vote was complete asks here, and all get the same answer: the sum counts when
anybody saw the whole vote, else those who are left add up again.

A dead worker is noticed here, and nowhere else. There are five ways:

- its process ends: a task here asks every member's process how it is, four times a second (killed);
- a new process claims its number, which Ray Train has started in its place (killed);
- its links break: the others' sum fails, they ask here, and this waits for the pulse or for their patience;
- it does not come to a sum for as long as the run's patience (late): it takes over the others' state when it does;
- it says so itself: it raised (raised) or its node leaves (drained).

What follows is always the same: the others add up again without it, or the sum counts as it is; one `Lost` reaches the
driver; Ray Train starts another process (rayrnn/training/worker_pool.py), which joins with the others' state.

When this process dies, Ray starts it again, and repeats what it was asked: the members' reports bring it up to date,
the driver sees another incarnation and gives its orders again, and so do the workers with the events that the driver
does not have yet (rayrnn/training/channel.py).
What is lost with it are losses and returns that it had not told of: lines in a log. Also when its own thinking fails it
ends itself, to begin anew with what the members say. When it cannot be started again, since its node is lost, the
driver's node is lost too, and the run ends.
"""

import asyncio
import os
import time
import traceback
import uuid
from collections.abc import Iterable

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayrnn.training.messages import (
    GRACE_SECONDS,
    Answer,
    Batch,
    Event,
    Joined,
    Lost,
    Member,
    News,
    Orders,
    Receipt,
    Report,
    View,
    WentOn,
)

#: between two questions whether a worker's process lives; Ray knows of a death after about 0.1 s
PULSE_SECONDS = 0.25
#: views that those who began together can go through, also without a word: who begins after them starts above
GENERATIONS = 2**32


def start_coordinator(*, expected: int, patience: float) -> ActorHandle:
    """Start a run's coordinator on this node; it lives as long as the caller, and Ray starts it again should it die.

    Args:
        expected: workers the first view waits for, but no longer than `patience` after the first one came.
        patience: seconds the members of a sum wait for one that does not come.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    return ray.remote(**options)(Coordinator).remote(expected, patience)


class Coordinator:
    """Membership, the way of events to the driver, and the driver's orders; see above."""

    def __init__(self, expected: int, patience: float) -> None:
        self._expected = expected
        self._patience = patience
        self._view: View | None = None
        self._generation = 0
        #: the members' words about this sum; the members that will say none; how long to wait for the rest
        self._reports: dict[str, Report] = {}
        self._missing: set[str] = set()
        self._deadline = float("inf")
        #: who waits for a place, who just got one, and the state they take over
        self._joining: dict[str, Report] = {}
        self._newcomers: set[str] = set()
        self._state: tuple[ray.ObjectRef, ...] = ()
        #: the process that last claimed a number, and those that have no claim any more
        self._claims: dict[int, Member] = {}
        self._gone: set[str] = set()
        self._finished: int | None = None
        self._addresses: dict[tuple[int, str], bytes] = {}
        self._pulses: dict[str, asyncio.Task[None]] = {}
        self._stalled_since = float("inf")
        self._lost_since: dict[int, float] = {}
        self._changed = asyncio.Event()
        #: the batches that the driver does not have yet, how many there ever were, and how many it has
        self._incarnation = uuid.uuid4().hex
        self._batches: list[Batch] = []
        self._count = self._taken = self._told = 0
        #: sender -> its newest batch that the driver has
        self._taken_of: dict[str, int] = {}
        self._orders = Orders()
        self._knows_nothing = _was_started_again()

    # The way of events, and the driver's orders

    async def post(self, batch: Batch) -> Receipt:
        """Pass a batch on. Its sender keeps it until the driver has it; an empty one only asks how things are."""
        if batch.events:
            self._batches.append(batch)
            self._count += 1
        return Receipt(self._incarnation, self._taken_of.get(batch.sender, 0))

    async def collect(self, incarnation: str, taken: int) -> News:
        """What the driver does not have yet, oldest first.

        Args:
            incarnation: of the last answer.
            taken: the batches that the driver has of that incarnation.
        """
        if incarnation == self._incarnation and taken > self._taken:
            arrived = taken - self._taken
            for batch in self._batches[:arrived]:
                self._taken_of[batch.sender] = max(batch.number, self._taken_of.get(batch.sender, 0))
            self._batches, self._taken = self._batches[arrived:], taken
        members = tuple(member.number for member in self._present())
        return News(self._incarnation, self._count, tuple(self._batches), members)

    async def give(self, orders: Orders) -> None:
        """What the driver wants from now on."""
        if orders.number > self._orders.number:
            self._orders = orders
            self._advance()

    async def orders(self) -> Orders:
        """The driver's orders, as soon as it has given any that a worker can follow."""
        while not self._orders.spec and not self._orders.stop:
            await self._changed.wait()
        return self._orders

    async def stop(self) -> None:
        """Answers when the workers are to finish their round and end."""
        while not self._orders.stop:
            await self._changed.wait()

    # Who takes part

    async def report(self, report: Report) -> Answer:
        """Take a worker's word; answer as soon as it is clear what comes next."""
        self._recognise(report)
        if report.member.name not in self._gone:
            self._watch(report.member)
            self._note(report)
            self._advance()
        while (answer := self._answer(report)) is None:
            await self._changed.wait()
        return answer

    async def hear(self, report: Report) -> bool:
        """Take a sign of life from members who need nothing; False when others have gone on without them."""
        self._watch(report.member)
        view, known = self._view, report.view
        if view is not None and known is not None and known.generation <= view.generation:
            return report.member in view.members
        self._note(report)
        self._advance()
        return True

    async def leave(self, report: Report, lost: Lost | None = None) -> None:
        """A worker ends its work: in agreement with the others, or as one that is lost to them."""
        if report.member.name not in self._gone:
            self._catch_up(report.view)
            if report.word == "agreed":
                self._note(report)
        if lost is None:
            self._finished = max(report.sums, self._finished or 0)
        self._lose(report.member, lost)

    async def joiner(self) -> None:
        """Answers when a worker waits for a place."""
        while not self._joining:
            await self._changed.wait()

    async def put(self, linked: int, key: str, value: bytes) -> None:
        """Leave a value for the other members that connect in that generation."""
        self._addresses[linked, key] = value
        self._wake()

    async def take(self, linked: int, key: str) -> bytes | None:
        """A value that one of the members leaves; None when these members will never be linked."""
        while (linked, key) not in self._addresses:
            if not self._can_connect(linked):
                return None
            await self._changed.wait()
        return self._addresses[linked, key]

    def _recognise(self, report: Report) -> None:
        """A new process takes over the number; the one before has no claim any more, whatever it still does."""
        holder = self._claims.setdefault(report.member.number, report.member)
        if holder == report.member:
            return
        if report.view is None:
            self._claims[report.member.number] = report.member
            self._lose(holder, _killed(holder, "replaced by a new process"))
        else:
            self._gone.add(report.member.name)

    def _note(self, report: Report) -> None:
        name, known = report.member.name, report.view
        self._catch_up(known)
        view = self._view
        if view is None or report.member not in view.members or report.word == "join":
            self._joining[name] = report
            self._missing.add(name)
        elif known is not None and known.generation == view.generation:
            self._reports[name] = report
            if report.word != "agreed":
                self._stalled_since = min(self._stalled_since, time.monotonic() - report.waited)
                self._advance_after(max(GRACE_SECONDS, self._patience - report.waited))

    def _catch_up(self, known: View | None) -> None:
        """While nothing happens the members go on without a word; who was started again knows nothing."""
        if known is not None and known.generation > self._generation:
            self._take_up(known)
            for member in known.members:
                self._watch(member)

    def _advance(self) -> None:
        """Draw up the next view if it is due, and let everybody look for their answer."""
        if self._view is not None and not self._present():
            self._view, self._deadline = None, float("inf")
        if self._view is None:
            self._found()
        elif any(report.word == "agreed" for report in self._reports.values()):
            self._go_on(self._view)
        elif any(member.name in self._reports for member in self._present()):
            self._add_up_again(self._view)
        self._wake()

    def _found(self) -> None:
        """The first view: the workers that are furthest. The others join them later."""
        if not self._joining or self._finished is not None:
            return
        lacks_somebody = len(self._joining) < self._expected
        if (lacks_somebody or (self._knows_nothing and not self._orders.number)) and self._worth_waiting():
            return
        top = max(report.sums for report in self._joining.values())
        # those who came before may have gone on for many rounds without a word: no generation may come twice
        newest = max(self._generation, self._orders.generation)
        self._generation = (newest // GENERATIONS + 1) * GENERATIONS
        self._draw_up(top, [report.member for report in self._joining.values() if report.sums == top])

    def _go_on(self, view: View) -> None:
        """The sum counts. Those who join come in when the first member hands over its state."""
        first = view.members[0].name
        if self._joining and first not in self._reports and first not in self._missing and self._worth_waiting():
            return
        state = self._reports[first].state if first in self._reports else ()
        newcomers = [report.member for report in self._joining.values()] if state else []
        broken = any(report.word != "agreed" for report in self._reports.values())
        self._draw_up(view.sums + 1, [*self._present(), *newcomers], broken=broken)
        self._newcomers, self._state = {member.name for member in newcomers}, state

    def _add_up_again(self, view: View) -> None:
        """The sum does not count: those who reported add up again, once nobody else is worth waiting for."""
        missing = [member for member in self._present() if member.name not in self._reports]
        if missing and self._worth_waiting():
            return
        for member in missing:
            self._miss(member, Lost(member.number, "late", "", time.time()))
        self._draw_up(view.sums, self._present(), broken=True)

    def _worth_waiting(self) -> bool:
        if self._deadline == float("inf"):
            self._advance_after(self._patience)
        return time.monotonic() < self._deadline

    def _draw_up(self, sums: int, members: Iterable[Member], *, broken: bool = False) -> None:
        before, ordered, generation = self._view, tuple(sorted(members)), self._generation + 1
        same = before is not None and before.members == ordered and not broken
        linked = before.linked if before is not None and same else generation
        self._tell_of(ordered, before)
        self._joining = {name: report for name, report in self._joining.items() if report.member not in ordered}
        self._addresses = {key: value for key, value in self._addresses.items() if key[0] == linked}
        self._take_up(View(sums, ordered, generation, linked))

    def _take_up(self, view: View) -> None:
        self._view, self._generation = view, view.generation
        self._reports, self._missing, self._deadline = {}, set(self._gone), float("inf")
        self._newcomers, self._state = set(), ()

    def _answer(self, report: Report) -> Answer | None:
        view, name = self._view, report.member.name
        known = report.view.generation if report.view is not None else 0
        if name in self._gone:
            return Answer(None, report.sums, replaced=True)
        if view is not None and view.generation > known and report.member in view.members:
            return Answer(view, view.sums, self._state if name in self._newcomers else ())
        return Answer(None, self._finished) if self._finished is not None else None

    def _present(self) -> list[Member]:
        members = self._view.members if self._view is not None else ()
        return [member for member in members if member.name not in self._missing]

    def _can_connect(self, linked: int) -> bool:
        view = self._view
        whole = view is not None and view.linked == linked and len(self._present()) == len(view.members)
        return whole and all(report.word == "agreed" for report in self._reports.values())

    def _lose(self, member: Member, lost: Lost | None) -> None:
        """A worker that never comes back under this name; None when it has finished."""
        if member.name in self._gone:
            return
        self._gone.add(member.name)
        self._joining.pop(member.name, None)
        self._miss(member, lost)
        self._advance()

    def _miss(self, member: Member, lost: Lost | None) -> None:
        self._missing.add(member.name)
        if lost is not None:
            self._tell(lost)
            self._lost_since.setdefault(member.number, time.monotonic())

    def _watch(self, member: Member) -> None:
        if member.process is not None and member.name not in self._pulses:
            self._pulses[member.name] = asyncio.ensure_future(self._feel_pulse(member, member.process))

    async def _feel_pulse(self, member: Member, process: ActorHandle) -> None:
        """Nothing but a death ends this: out of reach is not dead, and then patience decides."""
        while member.name not in self._gone:
            try:
                await process.__ray_ready__.remote()
            except ActorDiedError as error:
                self._lose(member, _killed(member, _cause(error)))
            except Exception:
                traceback.print_exc()
            await asyncio.sleep(PULSE_SECONDS)

    def _advance_after(self, seconds: float) -> None:
        self._deadline = min(self._deadline, time.monotonic() + seconds)
        asyncio.get_running_loop().call_later(seconds + 0.001, self._advance_in_time)

    def _advance_in_time(self) -> None:
        """Nobody hears of an exception in here, and members wait for what comes next."""
        try:
            self._advance()
        except Exception:
            traceback.print_exc()
            os._exit(1)  # Ray starts this process again

    def _tell_of(self, members: tuple[Member, ...], before: View | None) -> None:
        now = time.monotonic()
        for member in members:
            lost_since = self._lost_since.pop(member.number, now)
            if lost_since < now or (before is not None and member not in before.members):
                self._tell(Joined(member.number, now - lost_since, time.time()))
        if before is not None and self._stalled_since < now:
            numbers = tuple(member.number for member in members)
            self._tell(WentOn(numbers, now - self._stalled_since, time.time()))
        self._stalled_since = float("inf")

    def _tell(self, event: Event) -> None:
        self._told += 1
        self._batches.append(Batch(self._incarnation, self._told, (event,)))
        self._count += 1

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _was_started_again() -> bool:
    if not ray.is_initialized():  # asking would start one
        return False
    context = ray.get_runtime_context()
    return bool(context.get_actor_id()) and bool(context.was_current_actor_reconstructed)


def _killed(member: Member, detail: str) -> Lost:
    return Lost(member.number, "killed", detail, time.time())


def _cause(error: ActorDiedError) -> str:
    """What Ray knows of a death, in a few words: it sees the end of a process, not the signal."""
    text = str(error)
    if "node has died" in text:
        return "its node was lost"
    return "ended by Ray" if "ray.kill" in text else "killed, out of memory or crashed"
