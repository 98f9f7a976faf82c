"""The threads of the driver in which workers are followed: whatever is raised in one, it begins again."""

import threading
import time
from collections.abc import Callable

import pytest

from rayrnn.training import placement, worker_pool
from rayrnn.training.messages import Event, NoRoom, Restarted, Stumbled
from rayrnn.training.placement import Need
from rayrnn.training.worker_pool import WorkerPool

pytestmark = pytest.mark.usefixtures("ray_cluster")

PATIENCE = 30.0


class EndsWith(BaseException):
    """What no `except Exception` catches."""


class Run:
    """In the place of a Ray Train run: each does what is planned next, and then the work is done."""

    def __init__(self, plan: list[BaseException | None]) -> None:
        self.plan = plan
        self.started = 0
        self.cancelled = threading.Event()

    def __call__(self, *_: object, **__: object) -> "Run":
        return self

    def fit(self) -> None:
        self.started += 1
        if self.plan and (error := self.plan.pop(0)) is not None:
            raise error

    def cancel(self) -> None:
        self.cancelled.set()


class Endless(Run):
    def fit(self) -> None:
        self.started += 1
        self.cancelled.wait()


def pool(told: list[Event], most: int = 1) -> WorkerPool:
    return WorkerPool(None, Need(cpus=1), most=most, tell=told.append)  # type: ignore[arg-type]


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("error", [ValueError("chosen"), EndsWith("chosen")], ids=["exception", "base exception"])
def test_a_thread_that_raises_tells_of_it_and_follows_its_worker_again(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "LOOK_SECONDS", 0.01)
    run, told = Run([error, None]), []
    monkeypatch.setattr(worker_pool, "Solo", run)
    with pool(told) as workers:
        workers.start(1)
        wait_until(lambda: not workers.running())
    assert run.started == 2
    assert told == [Stumbled("worker-0", f"{type(error).__name__}: chosen")]


def test_a_thread_that_looks_for_room_looks_again_after_it_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(worker_pool, "Solo", Endless([]))
    answers: list[Callable[[], dict[str, int]]] = []

    def free_places(need: Need, *, spared_cpus: int) -> dict[str, int]:
        answers.append(lambda: {"node": 1})
        if len(answers) == 1:
            raise EndsWith("chosen")
        return answers[-1]()

    told: list[Event] = []
    monkeypatch.setattr(worker_pool, "free_places", free_places)
    with pool(told, most=2) as workers:
        workers.start(1)
        workers.see_start(0)
        wait_until(lambda: len(answers) >= 3)
    assert told == [Stumbled("grow", "EndsWith: chosen")]


def test_a_pool_that_is_closed_cancels_its_runs_and_waits_for_their_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    run, told = Endless([]), []
    monkeypatch.setattr(worker_pool, "Solo", run)
    with pool(told) as workers:
        workers.start(1)
        wait_until(lambda: run.started == 1)
    assert not workers.running()
    assert told == []


def test_a_place_that_cannot_be_given_back_keeps_no_other_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[object] = []

    def give_back(place: object) -> None:
        given_back.append(place)
        raise ValueError("chosen")

    monkeypatch.setattr(worker_pool, "remove_placement_group", give_back)
    with pool([], most=2) as workers:
        for number in (0, 1):
            workers.see_request(number, f"place {number}")  # type: ignore[arg-type]
    assert given_back == ["place 0", "place 1"]


def test_early_workers_leave_a_cpu_of_every_node_to_those_who_read(monkeypatch: pytest.MonkeyPatch) -> None:
    run, told = Endless([]), []
    monkeypatch.setattr(worker_pool, "Solo", run)
    cpus = {"first": {"CPU": 4.0}, "second": {"CPU": 1.0}}
    monkeypatch.setattr(placement, "available_resources_per_node", lambda: cpus)
    with pool(told, most=9) as workers:
        workers.start_early(9)
        wait_until(lambda: run.started == 3)
        time.sleep(0.1)
        assert run.started == 3


def test_that_there_is_no_room_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Event] = []
    with pool(told) as workers:
        assert workers.find_no_room(0)
        assert workers.find_no_room(0)
        assert workers.see_failure(0, ValueError("chosen"))
    assert told == [NoRoom(0), Restarted(0, "ValueError: chosen")]
    assert not workers.find_no_room(0), "nobody is started any more"
