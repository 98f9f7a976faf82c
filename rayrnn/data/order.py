"""Which sequences are learned together, when and by whom: a pure function of the seed that any worker works out."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from rayrnn.data.batches import Minibatch, prefetched
from rayrnn.data.sequences import Part, take

#: sequences in one window, or a little more: enough to shuffle well, few enough that their blocks are kept at hand
WINDOW = 65_536
#: minibatches whose sequences are sorted by length together: more mean less padding and less chance
POOL = 64


class Plan:
    """The endless stream of minibatches: minibatch j is number j % M of epoch j // M, each of M minibatches.

    In a round that begins at `cursor` with W members and frequency k, member i learns the minibatches
    cursor + i + W * n (n < k); the next round begins at cursor + W * k.
    """

    def __init__(self, steps: np.ndarray, indices: np.ndarray, *, batch_size: int, seed: int) -> None:
        """
        Args:
            steps: of all sequences, int64 [N].
            indices: numbers of the sequences to learn from, ascending.
        """
        assert len(indices), "a plan needs sequences"
        self.indices = indices
        self.batch_size = batch_size
        self._steps = steps
        self._seed = seed
        self._windows = windows_of(indices)
        self._epoch = -1
        self._minibatches: list[np.ndarray] = []

    @property
    def minibatches_an_epoch(self) -> int:
        """M: every window's sequences in minibatches, the last of which may be smaller."""
        return sum(-(-len(window) // self.batch_size) for window in self._windows)

    def minibatch(self, number: int) -> np.ndarray:
        """The sequences' numbers, int64 [at most batch_size], of minibatch `number` (from 0) of the stream."""
        epoch, place = divmod(number, self.minibatches_an_epoch)
        if epoch != self._epoch:
            self._minibatches = epoch_plan(
                self._steps, self._windows, batch_size=self.batch_size, seed=self._seed, epoch=epoch
            )
            self._epoch = epoch
        return self._minibatches[place]


def epoch_plan(
    steps: np.ndarray, windows: list[np.ndarray], *, batch_size: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """One epoch's minibatches: every sequence once, shuffled within its window, the windows in an order of their own.

    Where all lengths are equal, minibatches are consecutive pieces of the shuffled window: W workers with minibatches
    of b learn, side by side, what one worker with minibatches of W * b learns. Where they differ, sequences of like
    length come together.
    """
    random = np.random.default_rng([seed, epoch])
    equal = _all_equal(steps, windows)
    minibatches: list[np.ndarray] = []
    for number in random.permutation(len(windows)):
        shuffled = random.permutation(windows[number])
        if equal:
            minibatches += _chunks(shuffled, batch_size)
            continue
        pool_of = np.arange(len(shuffled)) // (POOL * batch_size)
        chunks = _chunks(shuffled[np.lexsort((steps[shuffled], pool_of))], batch_size)
        minibatches += [chunks[place] for place in random.permutation(len(chunks))]
    return minibatches


def windows_of(indices: np.ndarray, at_least: int = WINDOW) -> list[np.ndarray]:
    """Cut ascending sequence numbers into windows of `at_least` sequences each, all of nearly the same size.

    Blocks have no say in it: how many there are may depend on the hosts, which a run that is resumed finds changed.
    """
    return np.array_split(indices, max(1, len(indices) // at_least))


def padding_share(steps: np.ndarray, minibatches: Iterable[np.ndarray]) -> float:
    """The share of all computed steps that are padding."""
    lengths = [steps[minibatch] for minibatch in minibatches]
    computed = sum(len(own) * int(own.max()) for own in lengths)
    return 1 - sum(int(own.sum()) for own in lengths) / computed if computed else 0.0


def _all_equal(steps: np.ndarray, windows: list[np.ndarray]) -> bool:
    first = steps[windows[0][0]]
    return all(bool((steps[window] == first).all()) for window in windows)


def _chunks(indices: np.ndarray, size: int) -> list[np.ndarray]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


#: makes a minibatch of rows: `Task.minibatch` with its encoding
Collate = Callable[[pa.Table], Minibatch]
#: what a worker learns is fixed by these three: minibatches taken so far, its rank, the number of members
Position = tuple[int, int, int]


class Share(NamedTuple):
    """One member's part of a round."""

    minibatches: Iterator[Minibatch]
    #: where the next round begins, whoever takes part in it: a member that is lost takes its minibatches with it
    next_cursor: int


class Stream:
    """A worker's minibatches, round after round.

    In a round that begins at `cursor` with `size` members, member `rank` learns the minibatches
    `cursor + rank + size * n` for n = 0 .. frequency - 1 of the plan's endless stream. So every sequence of an epoch is
    learned once, whoever learns it, and the next round's minibatches are prepared while the members average, unless the
    members change.
    """

    def __init__(self, part: Part, collate: Collate, plan: Plan, *, frequency: int, ahead: int) -> None:
        self._part = part
        self._collate = collate
        self._plan = plan
        self._frequency = frequency
        self._ahead = ahead
        self._expected: Position | None = None
        self._running: Iterator[Minibatch] = iter(())

    def share(self, cursor: int, rank: int, size: int) -> Share:
        """What this member learns in the round that begins at `cursor`."""
        if self._expected != (cursor, rank, size):
            self.close()
            self._running = prefetched(self._from(cursor, rank, size), self._ahead)
        next_cursor = cursor + size * self._frequency
        self._expected = (next_cursor, rank, size)
        return Share(islice(self._running, self._frequency), next_cursor)

    def close(self) -> None:
        """End the preparation, and forget what is left of a round that was begun."""
        self._expected = None
        close = getattr(self._running, "close", None)
        if close is not None:
            close()

    def _from(self, cursor: int, rank: int, size: int) -> Iterator[Minibatch]:
        number = cursor + rank
        while True:
            yield self._collate(take(self._part.sequences, self._plan.minibatch(number)))
            number += size


def make_plan(part: Part, *, batch_size: int, seed: int) -> Plan:
    """The endless stream of minibatches of a part."""
    sequences = part.sequences
    return Plan(sequences.steps, part.indices, batch_size=batch_size, seed=seed)


def shared_out(
    part: Part, collate: Collate, *, rank: int, size: int, batch_size: int, ahead: int
) -> Iterator[Minibatch]:
    """One member's share of a part, once, in minibatches of sequences of like length."""
    own = part.indices[rank::size]
    own = own[np.argsort(part.sequences.steps[own], kind="stable")]
    chunks = (own[start : start + batch_size] for start in range(0, len(own), batch_size))
    return prefetched((collate(take(part.sequences, chunk)) for chunk in chunks), ahead)
