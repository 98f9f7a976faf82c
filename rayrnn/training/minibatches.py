"""Gives a worker its minibatches of a round, prepared ahead of the loop."""

from collections.abc import Iterator

import numpy as np

from rayrnn.data.batches import Minibatch, collate
from rayrnn.data.encoding import Encoding
from rayrnn.data.plan import Plan
from rayrnn.data.prefetch import prefetched
from rayrnn.data.sequences import take
from rayrnn.training.assignment import Part

#: what a worker learns is fixed by these three: minibatches taken so far, its rank, the number of members
Position = tuple[int, int, int]


class Stream:
    """A worker's minibatches, round after round.

    In a round that begins at `cursor` with `size` members, member `rank` learns the minibatches
    `cursor + rank + size * n` for n = 0 .. frequency - 1 of the plan's endless stream; the next round begins
    at `cursor + size * frequency`. So every sequence of an epoch is learned once, whoever learns it, and the
    next round's minibatches are prepared while the members average, unless the members change.
    """

    def __init__(self, part: Part, encoding: Encoding, plan: Plan, *, frequency: int, ahead: int) -> None:
        self._part = part
        self._encoding = encoding
        self._plan = plan
        self._frequency = frequency
        self._ahead = ahead
        self._expected: Position | None = None
        self._running: Iterator[Minibatch] = iter(())

    def round(self, cursor: int, rank: int, size: int) -> Iterator[Minibatch]:
        """The minibatches from `cursor` on; the caller takes `frequency` of them."""
        if self._expected != (cursor, rank, size):
            self.close()
            self._running = prefetched(self._from(cursor, rank, size), self._ahead)
        self._expected = (cursor + size * self._frequency, rank, size)
        return self._running

    def close(self) -> None:
        """End the preparation."""
        close = getattr(self._running, "close", None)
        if close is not None:
            close()

    def _from(self, cursor: int, rank: int, size: int) -> Iterator[Minibatch]:
        number = cursor + rank
        while True:
            yield collate(take(self._part.sequences, self._plan.minibatch(number)), self._encoding)
            number += size


def make_plan(part: Part, *, batch_size: int, seed: int) -> Plan:
    """The endless stream of minibatches of a part."""
    sequences = part.sequences
    return Plan(sequences.steps, part.indices, sequences.offsets, batch_size=batch_size, seed=seed)


def shared_out(
    part: Part, encoding: Encoding, *, rank: int, size: int, batch_size: int, ahead: int
) -> Iterator[Minibatch]:
    """One member's share of a part, once, in minibatches of sequences of like length."""
    own = part.indices[rank::size]
    own = own[np.argsort(part.sequences.steps[own], kind="stable")]
    chunks = (own[start : start + batch_size] for start in range(0, len(own), batch_size))
    return prefetched((collate(take(part.sequences, chunk), encoding) for chunk in chunks), ahead)
