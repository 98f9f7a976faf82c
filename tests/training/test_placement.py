"""The watch over this node: it goes on whatever a question raises, and asks the system whether Ray is there."""

import threading
import time

import pytest
import ray

from rayrnn.training import placement
from rayrnn.training.placement import DrainWatch, HomeNode, Need, free_places

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_a_drain_is_noticed_after_a_question_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def draining_nodes() -> set[str]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise ValueError("chosen")
        return {ray.get_runtime_context().get_node_id()}

    monkeypatch.setattr(placement, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(placement, "draining_nodes", draining_nodes)
    with DrainWatch() as watch:
        deadline = time.monotonic() + 30
        while not watch.noticed:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert "drain watch" not in [thread.name for thread in threading.enumerate()]


def test_a_question_that_hangs_does_not_hang_the_end_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.setattr(placement, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(placement, "draining_nodes", lambda: answer.wait() and set())
    with DrainWatch() as watch:
        time.sleep(0.1)
    assert not watch.noticed
    answer.set()


def test_the_node_of_this_process_answers() -> None:
    assert HomeNode().answers()


def test_cpus_that_are_spared_are_no_places() -> None:
    (places,), (fewer,) = free_places(Need(cpus=1)).values(), free_places(Need(cpus=1), spared_cpus=1).values()
    assert fewer == places - 1
