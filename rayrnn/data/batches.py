"""Rows of sequences -> minibatches: padded tensors with masks, cut into segments, prepared ahead of the loop.

B batch, T time, F features, O outputs (numbers).
"""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, fields, replace
from queue import Queue
from threading import Event, Thread

import numpy as np
import pyarrow as pa
import torch

from rayrnn.data.encoding import Encoding


@dataclass(frozen=True)
class Minibatch:
    """B sequences, padded at their ends to T steps."""

    #: BT int64 symbols, or BTF float32
    inputs: torch.Tensor
    #: BT int64 or BTO float32 with an answer a step; B int64 or BO float32 with an answer a sequence
    targets: torch.Tensor
    #: BT bool, True where there is a step
    mask: torch.Tensor
    #: BT or B bool, True where there is an answer to learn
    target_mask: torch.Tensor
    #: the sequences' names
    keys: tuple[str, ...]

    @property
    def steps(self) -> int:
        """Steps without the padding."""
        return int(self.mask.sum())

    def to(self, device: torch.device) -> "Minibatch":
        """The same on another device."""
        return self._with({name: value.to(device, non_blocking=True) for name, value in self._tensors()})

    def pin_memory(self) -> "Minibatch":
        """The same in memory that a GPU can fetch from on its own."""
        return self._with({name: value.pin_memory() for name, value in self._tensors()})

    def segments(self, truncate: int) -> "list[Minibatch]":
        """Consecutive pieces of `truncate` steps, the last one shorter; 0 keeps the whole.

        With one answer a sequence, the segment in which a sequence ends has it. What is padding to every sequence is
        dropped.
        """
        lengths_B = self.mask.sum(dim=1)
        longest = int(lengths_B.max()) if len(lengths_B) else 0
        size = truncate or max(1, longest)
        return [self._segment(start, min(start + size, longest), lengths_B) for start in range(0, longest, size)]

    def _segment(self, start: int, end: int, lengths_B: torch.Tensor) -> "Minibatch":
        piece = {"inputs": self.inputs[:, start:end], "mask": self.mask[:, start:end]}
        if self.target_mask.dim() == 2:
            piece |= {"targets": self.targets[:, start:end], "target_mask": self.target_mask[:, start:end]}
        else:
            piece |= {"target_mask": self.target_mask & (lengths_B > start) & (lengths_B <= end)}
        return self._with(piece)

    def _tensors(self) -> list[tuple[str, torch.Tensor]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self) if field.name != "keys"]

    def _with(self, tensors: dict[str, torch.Tensor]) -> "Minibatch":
        return replace(self, **tensors)  # type: ignore[arg-type]


def collate(table: pa.Table, encoding: Encoding) -> Minibatch:
    """Turn canonical rows (see rayrnn/data/rows.py) into a minibatch; rows without a label have no targets.

    Raises:
        DataError: a symbol, or a label, is not among those the encoding knows; names it and the sequence.
    """
    flat, sizes = encoding.inputs(table)
    padded, mask = pad(flat, sizes)
    if encoding.task == "language_model":
        # a symbol's target is the next one, so the last symbol is no step
        mask = mask[:, 1:]
        inputs, targets, target_mask = np.where(mask, padded[:, :-1], 0), np.where(mask, padded[:, 1:], 0), mask
    elif encoding.horizon:
        inputs = padded
        targets, target_mask = _ahead(padded[..., : encoding.num_outputs], mask, encoding.horizon)
    else:
        inputs = padded
        targets, target_mask = _answers(table, encoding, sizes)
    return Minibatch(
        inputs=_tensor(inputs),
        targets=_tensor(targets),
        mask=_tensor(mask),
        target_mask=_tensor(target_mask),
        keys=tuple(table["key"].to_pylist()),
    )


def pad(flat: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lay rows that follow one another in `flat` (S or S x ...) side by side: B x T (x ...) and the BT mask."""
    mask = np.arange(sizes.max(initial=0)) < sizes[:, None]
    padded = np.zeros(mask.shape + flat.shape[1:], flat.dtype)
    padded[mask] = flat
    return padded, mask


def _ahead(padded_BTF: np.ndarray, mask_BT: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """The steps `horizon` later, where there are such."""
    targets, target_mask = np.zeros_like(padded_BTF), np.zeros_like(mask_BT)
    targets[:, :-horizon] = padded_BTF[:, horizon:]
    target_mask[:, :-horizon] = mask_BT[:, horizon:]
    return targets, target_mask


def _answers(table: pa.Table, encoding: Encoding, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flat, there = encoding.targets(table, int(sizes.sum()))
    if not encoding.per_step:
        return flat, there
    return pad(flat, sizes)[0], pad(there, sizes)[0]


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


#: for the thread to end that prepares minibatches
CLOSING_SECONDS = 5.0

#: a minibatch, the error that ended the iterator, or None where it just ended
Prepared = Minibatch | BaseException | None


def prefetched(minibatches: Iterator[Minibatch], ahead: int) -> Generator[Minibatch, None, None]:
    """The same minibatches, `ahead` of them prepared while the loop learns; 0 prepares each when it is asked for.

    Where there is a GPU they lie in pinned memory. An error in the iterator is raised here. `close()` ends the thread
    and the iterator; a thread that waits for what never comes is left behind after a few seconds, and ends with the
    process.
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
        if not thread.is_alive():
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
    """Make room until the thread has put its last, or for as long as it may take to prepare one."""
    deadline = time.monotonic() + CLOSING_SECONDS
    while (thread.is_alive() or not queue.empty()) and time.monotonic() < deadline:
        while not queue.empty():
            queue.get_nowait()
        thread.join(timeout=0.01)


def _close(minibatches: Iterator[Minibatch]) -> None:
    if isinstance(minibatches, Generator):
        minibatches.close()
