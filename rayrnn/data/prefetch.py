"""Prepares minibatches ahead of the loop, in a thread of its own."""

from collections.abc import Generator, Iterator
from queue import Queue
from threading import Event, Thread

import torch

from rayrnn.data.batches import Minibatch

#: a minibatch, the error that ended the iterator, or None where it just ended
Prepared = Minibatch | BaseException | None


def prefetched(minibatches: Iterator[Minibatch], ahead: int) -> Generator[Minibatch, None, None]:
    """The same minibatches, `ahead` of them prepared while the loop learns; 0 prepares each when it is asked for.

    Where there is a GPU they lie in pinned memory. An error in the iterator is raised here. `close()` ends the thread
    and the iterator.
    """
    return _prepared(minibatches, ahead) if ahead else _unprepared(minibatches)


def _unprepared(minibatches: Iterator[Minibatch]) -> Generator[Minibatch, None, None]:
    try:
        yield from minibatches
    finally:
        _close(minibatches)


def _prepared(minibatches: Iterator[Minibatch], ahead: int) -> Generator[Minibatch, None, None]:
    queue: Queue[Prepared] = Queue(ahead)
    stop = Event()
    thread = Thread(target=_prepare, args=(minibatches, queue, stop), name="prefetch", daemon=True)
    thread.start()
    try:
        while (prepared := queue.get()) is not None:
            if isinstance(prepared, BaseException):
                raise prepared
            yield prepared
    finally:
        stop.set()
        _drain(queue, thread)
        _close(minibatches)


def _prepare(minibatches: Iterator[Minibatch], queue: Queue[Prepared], stop: Event) -> None:
    pinned = torch.cuda.is_available()
    last: Prepared = None
    try:
        while not stop.is_set() and (minibatch := next(minibatches, None)) is not None:
            queue.put(minibatch.pin_memory() if pinned else minibatch)
    except BaseException as error:  # the loop is to see whatever happened here
        last = error
    queue.put(last)


def _drain(queue: Queue[Prepared], thread: Thread) -> None:
    """Make room until the thread has put its last."""
    while thread.is_alive() or not queue.empty():
        while not queue.empty():
            queue.get_nowait()
        thread.join(timeout=0.01)


def _close(minibatches: Iterator[Minibatch]) -> None:
    if isinstance(minibatches, Generator):
        minibatches.close()
