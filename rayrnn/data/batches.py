"""Rows of sequences -> minibatches: padded tensors with masks, cut into segments, prepared ahead of the loop.

Which targets a minibatch has is its task's to say (`Task.minibatch`). B batch, T time, F features, O numbers of an
answer.
"""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from queue import Queue
from threading import Event, Thread

import numpy as np
import pyarrow as pa
import torch

from rayrnn.data.beside_steps import future_of, weights_of
from rayrnn.data.encoding import Encoding, Numbers
from rayrnn.data.forecast import Forecast
from rayrnn.data.rows import feature_names, places_of, step_counts
from rayrnn.data.symbols import Symbols
from rayrnn.errors import DataError


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
    #: whether the targets lie beside the steps; else they belong to where a sequence ends
    per_step: bool = True
    #: B, BT or BTO float32: how much each target counts in what is learned; None: all alike
    weights: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        rows: pa.Table,
        inputs: tuple[np.ndarray, np.ndarray],
        targets: tuple[np.ndarray, np.ndarray],
        *,
        per_step: bool = True,
    ) -> "Minibatch":
        """The minibatch of canonical rows: inputs and their mask, targets and theirs."""
        tensors = (torch.from_numpy(np.ascontiguousarray(array)) for array in (*inputs, *targets))
        steps, mask, answers, target_mask = tensors
        return cls(steps, answers, mask, target_mask, tuple(rows["key"].to_pylist()), per_step)

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

    def parts(self, number: int) -> "list[Minibatch]":
        """The same sequences in so many minibatches of nearly the same size; fewer where there are fewer sequences."""
        if number == 1:
            return [self]
        pieces = np.array_split(np.arange(len(self.keys)), max(1, min(number, len(self.keys))))
        ends = np.cumsum([0, *map(len, pieces)]).tolist()
        return [self._rows(slice(start, end)) for start, end in pairwise(ends)]

    def segments(self, truncate: int) -> "list[Minibatch]":
        """Consecutive pieces of `truncate` steps, the last one shorter; 0 keeps the whole.

        Targets that do not lie beside the steps are in the segment in which a sequence ends. What is padding to every
        sequence is dropped.
        """
        lengths_B = self.mask.sum(dim=1)
        longest = int(lengths_B.max()) if len(lengths_B) else 0
        size = truncate or max(1, longest)
        return [self._segment(start, min(start + size, longest), lengths_B) for start in range(0, longest, size)]

    def _rows(self, place: slice) -> "Minibatch":
        return replace(self._with({name: value[place] for name, value in self._tensors()}), keys=self.keys[place])

    def _segment(self, start: int, end: int, lengths_B: torch.Tensor) -> "Minibatch":
        piece = {"inputs": self.inputs[:, start:end], "mask": self.mask[:, start:end]}
        if self.per_step:
            piece |= {"targets": self.targets[:, start:end], "target_mask": self.target_mask[:, start:end]}
            if self.weights is not None and self.weights.dim() > 1:
                piece |= {"weights": self.weights[:, start:end]}
        else:
            ends_here_B = (lengths_B > start) & (lengths_B <= end)
            own_shape = (-1,) + (1,) * (self.target_mask.dim() - 1)
            piece |= {"target_mask": self.target_mask & ends_here_B.reshape(own_shape)}
        return self._with(piece)

    def _tensors(self) -> list[tuple[str, torch.Tensor]]:
        tensors = ((name, getattr(self, name)) for name in ("inputs", "targets", "mask", "target_mask", "weights"))
        return [(name, value) for name, value in tensors if value is not None]

    def _with(self, tensors: dict[str, torch.Tensor]) -> "Minibatch":
        return replace(self, **tensors)  # type: ignore[arg-type]


def inputs_of(rows: pa.Table, encoding: Encoding) -> tuple[np.ndarray, np.ndarray]:
    """What a network reads of canonical rows: padded, BT or BTF, and the BT mask.

    Raises:
        DataError: the rows do not hold what was learned; names the sequence.
    """
    steps, mask = pad(encoding.inputs.read(rows), step_counts(rows))
    if encoding.forecast is None or not encoding.forecast.known:
        return steps, mask
    told = encoding.forecast.told(_known_ahead(rows, steps, encoding.forecast, encoding.inputs), mask)
    return np.concatenate([steps, told], axis=-1), mask


def _known_ahead(rows: pa.Table, steps: np.ndarray, forecast: Forecast, inputs: Symbols | Numbers) -> np.ndarray:
    """What is known ahead, scaled, of the steps and of those after them: B L K, 0 where nobody knows."""
    assert isinstance(inputs, Numbers), "symbols are not known ahead"
    places = list(forecast.known)
    known = np.pad(steps[..., places], ((0, 0), (0, forecast.furthest), (0, 0)))
    if "future" not in rows.column_names:
        return known
    names = [inputs.names[place] for place in places] if inputs.names else []
    sizes, numbers = future_of(rows)
    if len(numbers) and numbers.shape[1] != len(places) and not feature_names(rows.schema, "future"):
        raise DataError(f"`future` has {numbers.shape[1]} numbers a step, the model knows {len(places)} ahead")
    order = places_of(names, feature_names(rows.schema, "future"))
    scaled = inputs.scaling.of(places).apply(numbers if order is None else numbers[:, order])
    if not np.isfinite(scaled).all():
        raise DataError("what is known ahead (data.known_ahead) is more than float32 holds, in which networks compute")
    lengths, longest = step_counts(rows), known.shape[1]
    owners = np.repeat(np.arange(len(rows)), sizes)
    later = lengths[owners] + np.arange(len(owners)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    there = later < np.minimum(lengths[owners] + forecast.furthest, longest)
    known[owners[there], later[there]] = scaled[there]
    return known


def weighed(minibatch: Minibatch, rows: pa.Table, encoding: Encoding) -> Minibatch:
    """The minibatch of canonical rows with their weights; without any where all of these are 1, which says the same.

    Of a forecast the weight of a step is that of the answers which foretell it.
    """
    found = weights_of(rows)
    if found is None or (found[0] == 1).all():
        return minibatch
    weights, sizes = found
    if sizes is None:
        return replace(minibatch, weights=torch.from_numpy(weights.astype(np.float32)))
    padded, mask = pad(weights.astype(np.float32), sizes)
    if encoding.foretold is not None:
        forecast = replace(encoding.foretold, columns=(0,) * len(encoding.foretold.columns))
        padded = np.nan_to_num(forecast.targets(padded[..., None], mask)[0])
    # a step that is an answer only, as the first symbol of a language model is none, has no place among them
    return replace(minibatch, weights=torch.from_numpy(padded[:, padded.shape[1] - minibatch.mask.shape[1] :]))


def label_targets(rows: pa.Table, encoding: Encoding) -> tuple[np.ndarray, np.ndarray]:
    """What canonical rows are labelled with, B or BT (BO or BTO), and the mask; rows without the column have nothing.

    Raises:
        DataError: a label is not among the classes; names the sequence.
    """
    targets, sizes = encoding.targets, step_counts(rows)
    assert not isinstance(targets, Symbols), "labels are classes or numbers"
    if "label" in rows.column_names:
        flat, there = targets.of_labels(rows)
    else:
        flat, there = targets.unknown(int(sizes.sum()) if encoding.per_step else len(rows))
    return (pad(flat, sizes)[0], pad(there, sizes)[0]) if encoding.per_step else (flat, there)


def pad(flat: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lay rows that follow one another in `flat` (S or S x ...) side by side: B x T (x ...) and the BT mask."""
    mask = np.arange(sizes.max(initial=0)) < sizes[:, None]
    padded = np.zeros(mask.shape + flat.shape[1:], flat.dtype)
    padded[mask] = flat
    return padded, mask


#: for the thread to end that prepares minibatches
CLOSING_SECONDS = 5.0

#: a minibatch, the error that ended the iterator, or None where it just ended
_Prepared = Minibatch | BaseException | None


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
    queue: Queue[_Prepared] = Queue(ahead)
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


def _prepare(minibatches: Iterator[Minibatch], queue: Queue[_Prepared], stop: Event) -> None:
    pinned = torch.cuda.is_available()
    last: _Prepared = None
    try:
        while not stop.is_set() and (minibatch := next(minibatches, None)) is not None:
            queue.put(minibatch.pin_memory() if pinned else minibatch)
    except BaseException as error:  # the loop is to see whatever happened here
        last = error
    queue.put(last)


def _drain(queue: Queue[_Prepared], thread: Thread) -> None:
    """Make room until the thread has put its last, or for as long as it may take to prepare one."""
    deadline = time.monotonic() + CLOSING_SECONDS
    while (thread.is_alive() or not queue.empty()) and time.monotonic() < deadline:
        while not queue.empty():
            queue.get_nowait()
        thread.join(timeout=0.01)


def _close(minibatches: Iterator[Minibatch]) -> None:
    if isinstance(minibatches, Generator):
        minibatches.close()
