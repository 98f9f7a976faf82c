"""A thread that does the newest thing, and does not die unseen."""

import threading
import time

from rayrnn.background import NewestOnly


def ignore(error: Exception) -> None:
    raise AssertionError(f"nothing was to go wrong: {error}")


def test_of_what_was_asked_for_meanwhile_only_the_newest_is_done() -> None:
    begun, may_go_on, done = threading.Event(), threading.Event(), []

    def work(number: int) -> None:
        begun.set()
        may_go_on.wait()
        done.append(number)

    worker = NewestOnly(work, name="test", on_death=ignore)
    worker.put(1)
    begun.wait()
    for number in (2, 3, 4):
        worker.put(number)
    may_go_on.set()
    assert worker.close()
    assert done == [1, 4]


def test_it_says_how_long_it_has_been_at_work_and_is_left_when_patience_ends() -> None:
    begun, may_go_on = threading.Event(), threading.Event()

    def work(_: str) -> None:
        begun.set()
        may_go_on.wait()

    worker = NewestOnly(work, name="test", on_death=ignore)
    assert worker.busy_seconds == 0
    worker.put("a thing that does not end")
    begun.wait()
    time.sleep(0.01)
    assert worker.busy_seconds > 0
    assert not worker.close(patience=0.01)
    may_go_on.set()
    assert worker.close()
    assert worker.busy_seconds == 0


def test_an_exception_is_told_of_and_nothing_more_is_done() -> None:
    told, done = [], []

    def work(number: int) -> None:
        if number == 1:
            raise ValueError("broken")
        done.append(number)

    worker = NewestOnly(work, name="test", on_death=told.append)
    worker.put(1)
    while not told:
        time.sleep(0.01)
    worker.put(2)
    assert worker.close()
    assert [str(error) for error in told] == ["broken"]
    assert (done, worker.busy_seconds) == ([], 0)
