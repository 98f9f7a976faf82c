"""Workers in processes of their own keep averaging while others die, hang, come late or come back."""

import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest
import ray
import torch
from ray.actor import ActorHandle

from rayrnn.training import group as group_module
from rayrnn.training.channel import Inbox
from rayrnn.training.coordinator import start_coordinator
from rayrnn.training.group import Group, LeftBehind, State
from rayrnn.training.messages import Event, Lost

pytestmark = pytest.mark.usefixtures("ray_cluster")

SIZE = 10_001
#: far more than a round takes on a busy machine
PATIENCE = 30.0
#: more rounds than a test lives to see
ENDLESS = 1_000_000


@dataclass(frozen=True)
class Fault:
    """What happens to a worker in a round, after so many seconds in which the others may begin to add up."""

    #: None: when it takes over the others' state
    round: int | None
    #: without one it is an error in the loop
    signal: int | None = signal.SIGKILL
    after: float = 0.0

    def strike(self) -> None:
        time.sleep(self.after)
        if self.signal is None:
            raise ValueError("the chosen error")
        os.kill(os.getpid(), self.signal)


@dataclass
class Diary:
    """What a worker lived through: the members' numbers and its own values' bits after every round."""

    rounds: dict[int, tuple[list[int], bytes]] = field(default_factory=dict)
    healed_in: list[int] = field(default_factory=list)
    left_behind_in: list[int] = field(default_factory=list)
    end: int = 0
    #: the others had finished before
    finished: bool = False


# one thread learns, as in Ray Train; the other answers
@ray.remote(num_cpus=0, max_concurrency=2)
class Worker:
    """Learns noise of its own; the mean of all workers' values is what they agree on."""

    def __init__(
        self, coordinator: ActorHandle, number: int, patience: float = PATIENCE, gathers: bool = False
    ) -> None:
        #: it gathers the values and adds them up itself
        self._gathers = gathers
        self._values = torch.zeros(SIZE)
        self._stop = False
        self._stopped = False
        self._fault: Fault | None = None
        self._diary = Diary()
        self._group = Group(
            coordinator, number=number, sums=0, patience=patience, state=self._state, load_state=self._load_state
        )

    def pid(self) -> int:
        return os.getpid()

    def break_connect(self) -> None:
        """From now on the thread that links the members raises what no lost member makes it raise."""

        def connect(*_: object) -> None:
            raise ValueError("the chosen error")

        group_module.connect = connect

    def stop(self) -> None:
        """Let all workers end with the round they are in."""
        self._stop = True

    def learn(self, rounds: int, fault: Fault | None = None, seconds: float = 0.02) -> Diary:
        self._fault = fault
        with self._group as group:
            group.open_round()
            while not group.finished and not self._stopped and group.sums < rounds:
                time.sleep(seconds)
                if fault is not None and fault.round == group.sums:
                    fault.strike()
                self._average(group)
                group.open_round()
        self._diary.end, self._diary.finished = group.sums, group.finished
        return self._diary

    def _average(self, group: Group) -> None:
        learned = self._values + torch.randn(SIZE)
        now = group.sums
        try:
            while (flat := self._total(group, torch.cat([learned, torch.tensor([1.0, self._stop])]))) is None:
                group.open_round()
        except LeftBehind:
            self._diary.left_behind_in.append(now)
            return
        self._values.copy_(flat[:-2] / flat[-2])
        self._stopped = bool(flat[-1])
        self._diary.rounds[now] = group.numbers, self._values.numpy().tobytes()

    def _total(self, group: Group, own: torch.Tensor) -> torch.Tensor | None:
        if not self._gathers:
            flat = own.clone()
            return flat if group.sum(flat) else None
        parts = group.gather(own.view(torch.uint8))
        if parts is None:
            return None
        assert torch.equal(parts[group.rank].view(torch.float32), own)
        return torch.stack([part.view(torch.float32) for part in parts]).sum(0)

    def _state(self) -> State:
        return {"values": self._values}

    def _load_state(self, state: State) -> None:
        if self._fault is not None and self._fault.round is None:
            self._fault.strike()
        self._values.copy_(state["values"])
        self._diary.healed_in.append(self._group.sums)


def begin(
    number_of_workers: int, patience: float = PATIENCE, *, gather: bool = False
) -> tuple[ActorHandle, list[ActorHandle]]:
    coordinator = start_coordinator(expected=number_of_workers, patience=patience)
    return coordinator, [Worker.remote(coordinator, number, patience, gather) for number in range(number_of_workers)]


class Chronicle:
    """What the coordinator tells of a run."""

    def __init__(self, coordinator: ActorHandle) -> None:
        self._inbox = Inbox(coordinator)
        self._events: list[Event] = []

    def wait_for(self, what: str, times: int = 1) -> Any:
        """The first event of that kind, or the second, ..."""
        while len(found := [event for event in self.look() if kind(event) == what]) < times:
            time.sleep(0.02)
        return found[times - 1]

    def wait_for_members(self, numbers: list[int], seconds: float = 120.0) -> None:
        give_up = time.monotonic() + seconds
        while self.look() is not None and list(self._inbox.members) != numbers:
            assert time.monotonic() < give_up, f"the members are {self._inbox.members}, not {numbers}"
            time.sleep(0.02)

    def look(self) -> list[Event]:
        """All that happened until now."""
        self._events += self._inbox.events()
        return self._events

    def kinds(self) -> list[str]:
        """What happened until now."""
        return [kind(event) for event in self.look()]


def kind(event: Event) -> str:
    return event.reason if isinstance(event, Lost) else type(event).__name__


def assert_they_agree(*diaries: Diary) -> None:
    """Whoever took part in a round holds the same bits after it."""
    for number in set().union(*(diary.rounds for diary in diaries)):
        assert len({diary.rounds[number][1] for diary in diaries if number in diary.rounds}) == 1, number


@pytest.mark.parametrize(
    "gather", [pytest.param(False, id="added up", marks=pytest.mark.slow), pytest.param(True, id="gathered")]
)
def test_all_members_hold_the_same_bits_after_every_round(gather: bool) -> None:
    _, workers = begin(3, gather=gather)
    diaries = ray.get([worker.learn.remote(10) for worker in workers])
    assert [sorted(diary.rounds) for diary in diaries] == [list(range(10))] * 3
    assert all(members == [0, 1, 2] for members, _ in diaries[0].rounds.values())
    assert_they_agree(*diaries)


@pytest.mark.parametrize(
    ("after", "gather"),
    [
        pytest.param(0.0, False, id="before the others add up"),
        pytest.param(0.3, True, id="while the others gather"),
        pytest.param(0.3, False, id="while the others add up", marks=pytest.mark.slow),
        pytest.param(0.0, True, id="before the others gather", marks=pytest.mark.slow),
    ],
)
def test_a_worker_goes_on_alone_when_the_other_is_killed(after: float, gather: bool) -> None:
    coordinator, workers = begin(2, gather=gather)
    survivor = workers[0].learn.remote(12)
    workers[1].learn.remote(12, Fault(round=5, after=after))
    diary = ray.get(survivor)
    assert sorted(diary.rounds) == list(range(12))
    assert [members for members, _ in diary.rounds.values()] == [[0, 1]] * 5 + [[0]] * 7
    assert Chronicle(coordinator).kinds() == ["killed", "WentOn"]


def test_a_replacement_takes_part_with_the_state_of_the_survivors() -> None:
    coordinator, workers = begin(3)
    survivors = [worker.learn.remote(ENDLESS) for worker in workers[:2]]
    workers[2].learn.remote(ENDLESS, Fault(round=5))
    chronicle = Chronicle(coordinator)
    chronicle.wait_for("killed")
    replaced = Worker.remote(coordinator, 2).learn.remote(ENDLESS)
    joined = chronicle.wait_for("Joined")
    workers[0].stop.remote()
    diaries = ray.get([*survivors, replaced])
    assert joined.worker == 2
    (healed,) = diaries[2].healed_in
    assert min(diaries[2].rounds) == healed
    assert {diary.end for diary in diaries} == {max(diaries[0].rounds) + 1}
    assert diaries[0].rounds[healed][0] == [0, 1, 2]
    assert_they_agree(*diaries)


@pytest.mark.slow
def test_those_who_are_left_gather_again_and_a_replacement_gathers_with_them() -> None:
    coordinator, workers = begin(3, gather=True)
    survivors = [worker.learn.remote(ENDLESS) for worker in workers[:2]]
    workers[2].learn.remote(ENDLESS, Fault(round=5, after=0.3))
    chronicle = Chronicle(coordinator)
    assert chronicle.wait_for("WentOn").workers == (0, 1)
    replaced = Worker.remote(coordinator, 2, gathers=True).learn.remote(ENDLESS)
    chronicle.wait_for("Joined")
    workers[0].stop.remote()
    diaries = ray.get([*survivors, replaced])
    (healed,) = diaries[2].healed_in
    assert diaries[0].rounds[5][0] == [0, 1]
    assert diaries[0].rounds[healed][0] == [0, 1, 2]
    assert_they_agree(*diaries)


@pytest.mark.slow
def test_two_of_three_workers_may_die_in_the_same_round() -> None:
    _, workers = begin(3)
    survivor = workers[1].learn.remote(12)
    for worker in (workers[0], workers[2]):
        worker.learn.remote(12, Fault(round=5))
    diary = ray.get(survivor)
    assert [members for members, _ in diary.rounds.values()] == [[0, 1, 2]] * 5 + [[1]] * 7


def test_a_stopped_worker_is_left_behind_and_comes_back_with_the_state_of_the_others() -> None:
    coordinator, workers = begin(2, patience=3.0)
    pid = ray.get(workers[1].pid.remote())
    survivor = workers[0].learn.remote(ENDLESS)
    stopped = workers[1].learn.remote(ENDLESS, Fault(round=5, signal=signal.SIGSTOP))
    chronicle = Chronicle(coordinator)
    assert chronicle.wait_for("late").worker == 1
    os.kill(pid, signal.SIGCONT)
    assert chronicle.wait_for("Joined").worker == 1
    workers[0].stop.remote()
    first, second = ray.get([survivor, stopped])
    assert second.left_behind_in[0] == 5
    assert second.healed_in
    assert first.end == second.end
    assert first.rounds[first.end - 1][0] == [0, 1]
    assert_they_agree(first, second)


@pytest.mark.slow
def test_a_newcomer_that_hangs_before_it_is_connected_is_left_behind() -> None:
    coordinator, workers = begin(1, patience=3.0)
    first = workers[0].learn.remote(ENDLESS)
    chronicle = Chronicle(coordinator)
    chronicle.wait_for_members([0])
    newcomer = Worker.remote(coordinator, 1, 3.0)
    pid = ray.get(newcomer.pid.remote())
    second = newcomer.learn.remote(ENDLESS, Fault(round=None, signal=signal.SIGSTOP))
    assert chronicle.wait_for("late").worker == 1
    assert chronicle.wait_for("WentOn").workers == (0,)
    os.kill(pid, signal.SIGKILL)
    chronicle.wait_for("killed")
    workers[0].stop.remote()
    diary = ray.get(first)
    assert sorted(diary.rounds) == list(range(diary.end))
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(second)


@pytest.mark.slow
def test_a_slow_worker_is_waited_for() -> None:
    coordinator, workers = begin(2)
    diaries = ray.get([workers[0].learn.remote(2), workers[1].learn.remote(2, seconds=1.0)])
    assert [members for members, _ in diaries[0].rounds.values()] == [[0, 1]] * 2
    assert Chronicle(coordinator).kinds() == []


def test_a_replacement_that_comes_after_the_end_ends_too() -> None:
    coordinator, workers = begin(2)
    survivor = workers[0].learn.remote(8)
    workers[1].learn.remote(8, Fault(round=5))
    ray.get(survivor)
    diary = ray.get(Worker.remote(coordinator, 1).learn.remote(8))
    assert diary.finished
    assert diary.end == 8
    assert diary.rounds == {}


@pytest.mark.slow
def test_when_all_workers_have_died_their_replacements_begin_again() -> None:
    coordinator, workers = begin(2)
    for worker in workers:
        worker.learn.remote(8, Fault(round=5))
    chronicle = Chronicle(coordinator)
    chronicle.wait_for("killed", times=2)
    chronicle.wait_for_members([])
    diaries = ray.get([Worker.remote(coordinator, number).learn.remote(8) for number in range(2)])
    assert [sorted(diary.rounds) for diary in diaries] == [list(range(8))] * 2
    assert_they_agree(*diaries)


def test_a_worker_that_fails_leaves_at_once() -> None:
    coordinator, workers = begin(2)
    survivor = workers[0].learn.remote(12)
    with pytest.raises(ValueError, match="the chosen error"):
        ray.get(workers[1].learn.remote(12, Fault(round=5, signal=None)))
    assert [members for members, _ in ray.get(survivor).rounds.values()] == [[0, 1]] * 5 + [[0]] * 7
    assert Chronicle(coordinator).kinds() == ["raised", "WentOn"]


def test_a_coordinator_that_was_started_again_sees_the_death_of_a_worker_that_never_spoke_to_it() -> None:
    coordinator, workers = begin(2)
    process = psutil.Process(ray.get(workers[1].pid.remote()))
    survivor = workers[0].learn.remote(ENDLESS)
    workers[1].learn.remote(ENDLESS, Fault(round=5, signal=signal.SIGSTOP))
    while process.status() != psutil.STATUS_STOPPED:
        time.sleep(0.02)
    ray.kill(coordinator, no_restart=False)
    chronicle = Chronicle(coordinator)
    chronicle.wait_for_members([])
    process.kill()
    assert chronicle.wait_for("WentOn").workers == (0,)
    workers[0].stop.remote()
    assert sorted(ray.get(survivor).rounds)[:7] == list(range(7))
    assert chronicle.kinds() == ["killed", "WentOn"], "the survivor did not wait for its patience"


@pytest.mark.slow
def test_training_survives_the_death_of_the_coordinator() -> None:
    coordinator, workers = begin(2)
    survivor = workers[0].learn.remote(ENDLESS)
    workers[1].learn.remote(ENDLESS, Fault(round=60))
    chronicle = Chronicle(coordinator)
    chronicle.wait_for_members([0, 1])
    ray.kill(coordinator, no_restart=False)
    chronicle.wait_for_members([0])
    replaced = Worker.remote(coordinator, 1).learn.remote(ENDLESS)
    chronicle.wait_for_members([0, 1])
    workers[0].stop.remote()
    diaries = ray.get([survivor, replaced])
    assert sorted(diaries[0].rounds) == list(range(diaries[0].end))
    assert_they_agree(*diaries)


def test_an_error_in_the_thread_that_links_ends_its_worker_and_no_other() -> None:
    coordinator, workers = begin(2)
    ray.get(workers[1].break_connect.remote())
    survivor = workers[0].learn.remote(4)
    with pytest.raises(ValueError, match="the chosen error"):
        ray.get(workers[1].learn.remote(4))
    assert sorted(ray.get(survivor).rounds) == list(range(4))
    assert "raised" in Chronicle(coordinator).kinds()
