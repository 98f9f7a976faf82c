"""Who averages with whom in which round, who was lost on the way, and what the workers and the driver tell each other.

The members of a round add up among themselves (rayrnn/training/group.py) and need this only when something changes.
What keeps them together: a sum counts once a member has seen that every member has it (the vote). A member that has
the sum but lost the others before the vote was complete asks here, and all get the same answer: the sum counts when
anybody saw the whole vote, else those who are left add up again.
"""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayrnn.training.messages import GRACE_SECONDS, Answer, Member, Report, Roster

#: between two questions whether a worker's process lives; Ray knows of a death after about 0.1 s
PULSE_SECONDS = 0.25


Event = dict[str, Any]


def start_roll(*, expected: int, patience: float) -> ActorHandle:
    """Start a run's roll on this node; it lives as long as the caller, and Ray starts it again should it die.

    Args:
        expected: workers the first roster waits for, but no longer than `patience` after the first one came.
        patience: seconds the members of a round wait for one that does not come.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    return ray.remote(**options)(Roll).remote(expected, patience)


class Roll:
    """One a run, beside the driver. The workers' reports bring it up to date, also after a restart."""

    def __init__(self, expected: int, patience: float) -> None:
        self._expected = expected
        self._patience = patience
        self._roster: Roster | None = None
        self._edition = 0
        #: the members' words about this round's sum; the members that will say none; how long to wait for the rest
        self._reports: dict[str, Report] = {}
        self._absent: set[str] = set()
        self._deadline = float("inf")
        #: who waits for a place, who just got one, and the state they take over
        self._joining: dict[str, Report] = {}
        self._newcomers: set[str] = set()
        self._state: tuple[ray.ObjectRef, ...] = ()
        #: the process that last claimed a number, and those that have no claim any more
        self._holders: dict[int, Member] = {}
        self._gone: set[str] = set()
        self._finished: int | None = None
        self._addresses: dict[tuple[int, str], bytes] = {}
        self._pulses: dict[str, asyncio.Task[None]] = {}
        self._events: list[Event] = []
        self._stalled_since = float("inf")
        self._missing_since: dict[int, float] = {}
        self._changed = asyncio.Event()

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
        roster, known = self._roster, report.roster
        if roster is not None and known is not None and known.edition <= roster.edition:
            return report.member in roster.members
        self._note(report)
        self._advance()
        return True

    async def leave(self, report: Report, finished: bool, why: str = "") -> None:
        """A worker ends its work: in agreement with the others, or without them, for the reason that `why` tells."""
        if report.member.name not in self._gone:
            self._catch_up(report.roster)
            if report.word == "agreed":
                self._note(report)
        if finished:
            self._finished = max(report.round, self._finished or 0)
        self._lose(report.member, "" if finished else "left", detail=why)

    async def joiner(self) -> None:
        """Answers when a worker waits for a place."""
        while not self._joining:
            await self._changed.wait()

    async def put(self, connected: int, key: str, value: bytes) -> None:
        """Leave a value for the other members that connect in that edition."""
        self._addresses[connected, key] = value
        self._wake()

    async def take(self, connected: int, key: str) -> bytes | None:
        """A value that one of the members leaves; None when these members will never be connected."""
        while (connected, key) not in self._addresses:
            if not self._can_connect(connected):
                return None
            await self._changed.wait()
        return self._addresses[connected, key]

    async def collect(self) -> list[Event]:
        """Take all events, oldest first; `kind` is died, left, late, went_on or joined."""
        events, self._events = self._events, []
        return events

    async def members(self) -> list[int]:
        """The numbers of the workers that take part."""
        return [member.number for member in self._present()]

    def _recognise(self, report: Report) -> None:
        """A new process takes over the number; the one before has no claim any more, whatever it still does."""
        holder = self._holders.setdefault(report.member.number, report.member)
        if holder == report.member:
            return
        if report.roster is None:
            self._holders[report.member.number] = report.member
            self._lose(holder, "died", detail="replaced by a new process")
        else:
            self._gone.add(report.member.name)

    def _note(self, report: Report) -> None:
        name, known = report.member.name, report.roster
        self._catch_up(known)
        roster = self._roster
        if roster is None or report.member not in roster.members or report.word == "join":
            self._joining[name] = report
            self._absent.add(name)
        elif known is not None and known.edition == roster.edition:
            self._reports[name] = report
            if report.word != "agreed":
                self._stalled_since = min(self._stalled_since, time.monotonic() - report.waited)
                self._advance_after(max(GRACE_SECONDS, self._patience - report.waited))

    def _catch_up(self, known: Roster | None) -> None:
        """While nothing happens the members go on without a word; a roll that was started again knows nothing."""
        if known is not None and known.edition > self._edition:
            self._take_up(known)
            for member in known.members:
                self._watch(member)

    def _advance(self) -> None:
        """Draw up the next roster if it is due, and let everybody look for their answer."""
        if self._roster is not None and not self._present():
            self._roster, self._deadline = None, float("inf")
        if self._roster is None:
            self._found()
        elif any(report.word == "agreed" for report in self._reports.values()):
            self._go_on(self._roster)
        elif any(member.name in self._reports for member in self._present()):
            self._add_up_again(self._roster)
        self._wake()

    def _found(self) -> None:
        """The first roster: the workers that are furthest. The others join them later."""
        if not self._joining or self._finished is not None:
            return
        if len(self._joining) < self._expected and self._worth_waiting():
            return
        top = max(report.round for report in self._joining.values())
        # those who came before may have gone on for many rounds without a word: no edition may come twice
        self._edition = max(self._edition, time.time_ns() // 1000)
        self._draw_up(top, [report.member for report in self._joining.values() if report.round == top])

    def _go_on(self, roster: Roster) -> None:
        """The sum counts. Those who join come in when the first member hands over its state."""
        first = roster.members[0].name
        if self._joining and first not in self._reports and first not in self._absent and self._worth_waiting():
            return
        state = self._reports[first].state if first in self._reports else ()
        newcomers = [report.member for report in self._joining.values()] if state else []
        broken = any(report.word != "agreed" for report in self._reports.values())
        self._draw_up(roster.round + 1, [*self._present(), *newcomers], broken=broken)
        self._newcomers, self._state = {member.name for member in newcomers}, state

    def _add_up_again(self, roster: Roster) -> None:
        """The sum does not count: those who reported add up again, once nobody else is worth waiting for."""
        missing = [member for member in self._present() if member.name not in self._reports]
        if missing and self._worth_waiting():
            return
        for member in missing:
            self._miss(member, "late")
        self._draw_up(roster.round, self._present(), broken=True)

    def _worth_waiting(self) -> bool:
        if self._deadline == float("inf"):
            self._advance_after(self._patience)
        return time.monotonic() < self._deadline

    def _draw_up(self, round_number: int, members: Iterable[Member], *, broken: bool = False) -> None:
        before, ordered, edition = self._roster, tuple(sorted(members)), self._edition + 1
        same = before is not None and before.members == ordered and not broken
        connected = before.connected if before is not None and same else edition
        self._tell_of(round_number, ordered, before)
        self._joining = {name: report for name, report in self._joining.items() if report.member not in ordered}
        self._addresses = {key: value for key, value in self._addresses.items() if key[0] == connected}
        self._take_up(Roster(round_number, ordered, edition, connected))

    def _take_up(self, roster: Roster) -> None:
        self._roster, self._edition = roster, roster.edition
        self._reports, self._absent, self._deadline = {}, set(self._gone), float("inf")
        self._newcomers, self._state = set(), ()

    def _answer(self, report: Report) -> Answer | None:
        roster, name = self._roster, report.member.name
        known = report.roster.edition if report.roster is not None else 0
        if name in self._gone:
            return Answer(None, report.round, replaced=True)
        if roster is not None and roster.edition > known and report.member in roster.members:
            return Answer(roster, roster.round, self._state if name in self._newcomers else ())
        return Answer(None, self._finished) if self._finished is not None else None

    def _present(self) -> list[Member]:
        members = self._roster.members if self._roster is not None else ()
        return [member for member in members if member.name not in self._absent]

    def _can_connect(self, connected: int) -> bool:
        roster = self._roster
        whole = roster is not None and roster.connected == connected and len(self._present()) == len(roster.members)
        return whole and all(report.word == "agreed" for report in self._reports.values())

    def _lose(self, member: Member, how: str, detail: str = "") -> None:
        """A worker that never comes back under this name; `how` is empty when it had finished."""
        if member.name in self._gone:
            return
        self._gone.add(member.name)
        self._joining.pop(member.name, None)
        self._miss(member, how, detail)
        self._advance()

    def _miss(self, member: Member, how: str, detail: str = "") -> None:
        self._absent.add(member.name)
        if how:
            self._tell(how, self._roster.round if self._roster is not None else 0, worker=member.number, detail=detail)
            self._missing_since.setdefault(member.number, time.monotonic())

    def _watch(self, member: Member) -> None:
        if member.process is not None and member.name not in self._pulses:
            self._pulses[member.name] = asyncio.ensure_future(self._feel_pulse(member, member.process))

    async def _feel_pulse(self, member: Member, process: ActorHandle) -> None:
        while member.name not in self._gone:
            try:
                await process.__ray_ready__.remote()
            except ActorDiedError as error:
                self._lose(member, "died", detail=_cause(error))
            except RayError:
                pass  # out of reach is not dead: patience decides
            await asyncio.sleep(PULSE_SECONDS)

    def _advance_after(self, seconds: float) -> None:
        self._deadline = min(self._deadline, time.monotonic() + seconds)
        asyncio.get_running_loop().call_later(seconds + 0.001, self._advance)

    def _tell_of(self, round_number: int, members: tuple[Member, ...], before: Roster | None) -> None:
        now = time.monotonic()
        for member in members:
            missing_since = self._missing_since.pop(member.number, now)
            if missing_since < now or (before is not None and member not in before.members):
                self._tell("joined", round_number, worker=member.number, seconds=now - missing_since)
        if before is not None and self._stalled_since < now:
            numbers = [member.number for member in members]
            self._tell("went_on", round_number, workers=numbers, seconds=now - self._stalled_since)
        self._stalled_since = float("inf")

    def _tell(self, kind: str, round_number: int, **more: Any) -> None:
        self._events.append({"kind": kind, "round": round_number, "time": time.time(), **more})

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _cause(error: ActorDiedError) -> str:
    """What Ray knows of a death, in a few words: it sees the end of a process, not the signal."""
    text = str(error)
    if "node has died" in text:
        return "its node was lost"
    return "ended by Ray" if "ray.kill" in text else "killed, out of memory or crashed"


def open_mailbox() -> ActorHandle:
    """Start a run's mailbox on this node; it lives as long as the caller."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Mailbox).remote()


class Mailbox:
    """One a run, beside the driver; no call ever waits.

    The newest checkpoint rests here too, so that workers which Ray starts again go on from it.
    """

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._stop = False
        self._checkpoint: Any = None

    def post(self, event: Event) -> bool:
        """Leave an event; True when the workers should finish their round and stop."""
        self._events.append(event)
        return self._stop

    def collect(self) -> list[Event]:
        """Take all events, oldest first."""
        events, self._events = self._events, []
        return events

    def request_stop(self) -> None:
        self._stop = True

    def stop_requested(self) -> bool:
        return self._stop

    def keep_checkpoint(self, checkpoint: Any) -> None:
        self._checkpoint = checkpoint

    def checkpoint(self) -> Any:
        """The newest complete checkpoint, or None at the start of a new run."""
        return self._checkpoint
