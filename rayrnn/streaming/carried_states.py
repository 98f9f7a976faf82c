"""A network over pieces of many sequences at once: what it answers, and what it carries on, as bytes a sequence.

N sequences, V numbers of an answer.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from rayrnn.data.rows import step_counts
from rayrnn.errors import DataError, RunError
from rayrnn.models.state import leaves, with_leaves
from rayrnn.prediction.live_steps import first_state
from rayrnn.recipe import task_of
from rayrnn.runs.model import Trained


class CarriedStates:
    """One network that goes on from the states of sequences.

    Args:
        network: one that can; see `live_steps.why_not`.
    """

    def __init__(self, model: Trained, network: torch.nn.Module) -> None:
        self._model = model
        self._network = network
        self._device = next(network.parameters()).device
        #: the form of every state
        self._like = first_state(model, network)
        self._sizes = [leaf[0].numel() * leaf.element_size() for leaf in leaves(self._like)]

    @torch.inference_mode()
    def go_on(self, rows: pa.Table, before: Sequence[bytes | None]) -> tuple[np.ndarray, list[bytes | None]]:
        """Read the steps of canonical rows, each from the state of its sequence; None is that of its beginning.

        Sequences with as many steps lie side by side: nothing is padded, for a state after padding means nothing.

        Returns:
            float32 [steps of all rows, V], or [N, V] with one answer a row, that at its last step; and the states then.

        Raises:
            DataError: a sequence's answers or its state are no finite numbers.
            RunError: a state is of another network.
        """
        steps, per_step = step_counts(rows), self._model.encoding.per_step
        sizes = steps if per_step else np.ones(len(rows), np.int64)
        starts = np.cumsum(sizes) - sizes
        found = np.zeros((int(sizes.sum()), self._model.encoding.num_outputs), np.float32)
        after = list(before)
        for chosen in self._together(steps, before):
            given = [before[row] for row in chosen]
            state = None if given[0] is None else self._unpacked([one for one in given if one is not None])
            part = rows.take(pa.array(chosen))
            outputs, state = self._read(part, state)
            kept = self._packed(state)
            finite = np.isfinite(outputs.reshape(len(chosen), -1)).all(axis=1) & self._are_finite(state)
            if not finite.all():
                key = part["key"][int(np.argmin(finite))].as_py()
                raise DataError(
                    f"sequence {key!r}: the network's answers are no finite numbers: its steps are too far from what "
                    "was learned, or the run has diverged"
                )
            places = (starts[chosen][:, None] + np.arange(sizes[chosen[0]])).reshape(-1)
            found[places] = outputs.reshape(len(places), -1)
            for row, own in zip(chosen, kept, strict=True):
                after[row] = own
        return found, after

    def _together(self, steps: np.ndarray, before: Sequence[bytes | None]) -> Iterator[np.ndarray]:
        """Rows with as many steps, all new or none, as many as fit into memory at ease."""
        is_new = np.array([one is None for one in before], bool)
        for count in np.unique(steps[steps > 0])[::-1]:
            for new in (True, False):
                alike = np.flatnonzero((steps == count) & (is_new == new))
                for chosen in self._model.minibatches(np.full(len(alike), count)):
                    yield alike[chosen]

    def _read(self, rows: pa.Table, state: Any) -> tuple[np.ndarray, Any]:
        task = task_of(self._model.recipe)
        minibatch = task.minibatch(rows, self._model.encoding).to(self._device)
        pieces = []
        for segment in minibatch.segments(self._model.recipe.training.truncate):
            outputs, state = task.call(self._network, segment, state)
            pieces.append(outputs.float().cpu())
        return (torch.cat(pieces, dim=1) if self._model.encoding.per_step else pieces[-1]).numpy(), state

    def _packed(self, state: Any) -> list[bytes]:
        """The rows of a state, one after another."""
        parts = [leaf.reshape(len(leaf), -1).contiguous().cpu().view(torch.uint8).numpy() for leaf in leaves(state)]
        return [row.tobytes() for row in np.concatenate(parts, axis=1)]

    def _are_finite(self, state: Any) -> np.ndarray:
        fine = torch.stack([leaf.reshape(len(leaf), -1).isfinite().all(dim=1) for leaf in leaves(state)])
        return np.asarray(fine.all(dim=0).cpu())

    def _unpacked(self, kept: Sequence[bytes]) -> Any:
        due = sum(self._sizes)
        if wrong := next((len(one) for one in kept if len(one) != due), None):
            raise RunError(f"a state has {wrong:,} bytes, and this network carries {due:,}: it is of another network")
        matrix = np.frombuffer(b"".join(kept), np.uint8).reshape(len(kept), due)
        parts = np.split(matrix, np.cumsum(self._sizes)[:-1], axis=1)
        tensors = [
            torch.from_numpy(part.copy()).view(leaf.dtype).reshape(len(kept), *leaf.shape[1:]).to(self._device)
            for part, leaf in zip(parts, leaves(self._like), strict=True)
        ]
        return with_leaves(self._like, tensors)
