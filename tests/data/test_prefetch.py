"""Minibatches are prepared ahead of the loop, no further, and nothing is left behind."""

import gc
import threading
from collections.abc import Iterator

import pytest
import torch

from rayrnn.data import batches
from rayrnn.data.batches import Minibatch, prefetched


def minibatch(number: int) -> Minibatch:
    tensor, mask = torch.full((1, 1), number), torch.ones(1, 1, dtype=torch.bool)
    return Minibatch(inputs=tensor, targets=tensor, mask=mask, target_mask=mask, keys=(str(number),))


class Source:
    """Gives minibatches, and says how many it prepared."""

    def __init__(self, count: int, fails: bool = False) -> None:
        self.count, self.fails = count, fails
        self.prepared = 0
        self.closed = False
        self.changed = threading.Condition()

    def __iter__(self) -> Iterator[Minibatch]:
        try:
            for number in range(self.count):
                with self.changed:
                    self.prepared += 1
                    self.changed.notify_all()
                yield minibatch(number)
            if self.fails:
                raise ValueError("the source broke")
        finally:
            self.closed = True

    def wait_for(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.prepared >= count, timeout=30)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("ahead", [0, 1, 2, 50])
def test_minibatches_come_in_order_and_once(ahead: int) -> None:
    source = Source(20)
    assert [m.keys[0] for m in prefetched(iter(source), ahead)] == [str(number) for number in range(20)]
    assert not threads()
    assert source.closed


def test_so_many_are_prepared_ahead_and_no_more() -> None:
    source = Source(1000)
    minibatches = prefetched(iter(source), 3)
    for taken in range(1, 11):
        next(minibatches)
        # the queue holds three, and one waits for a place in it
        source.wait_for(taken + 3)
        assert source.prepared <= taken + 4
    minibatches.close()


def test_nothing_is_prepared_ahead_when_it_is_off() -> None:
    source = Source(10)
    minibatches = prefetched(iter(source), 0)
    next(minibatches)
    assert source.prepared == 1
    assert not threads()
    minibatches.close()
    assert source.closed


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_error_in_the_preparation_reaches_the_loop_after_what_was_ready(ahead: int) -> None:
    minibatches = prefetched(iter(Source(3, fails=True)), ahead)
    assert [next(minibatches).keys[0] for _ in range(3)] == ["0", "1", "2"]
    with pytest.raises(ValueError, match="the source broke"):
        next(minibatches)
    assert not threads()


def test_a_loop_that_stops_ends_the_thread_and_the_source() -> None:
    source = Source(10**9)
    minibatches = prefetched(iter(source), 2)
    next(minibatches)
    assert threads()
    minibatches.close()
    assert not threads()
    assert source.closed


def test_a_loop_that_is_forgotten_ends_the_thread_too() -> None:
    minibatches = prefetched(iter(Source(10**9)), 2)
    next(minibatches)
    del minibatches
    gc.collect()
    assert not threads()


def test_a_preparation_that_hangs_does_not_hang_the_end_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "CLOSING_SECONDS", 0.2)
    let_go = threading.Event()

    def hanging() -> Iterator[Minibatch]:
        yield minibatch(0)
        let_go.wait()

    minibatches = prefetched(hanging(), 2)
    next(minibatches)
    minibatches.close()
    (left,) = threads()
    let_go.set()
    left.join(30)
    assert not threads()
