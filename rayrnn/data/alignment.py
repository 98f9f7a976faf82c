"""Lays labels from files of their own along sequences of another length."""

import numpy as np
import pyarrow as pa

from rayrnn.data.ragged import ends, flat, unwrap, wrap


def aligned(rows: pa.Table, labels: pa.ListArray, how: str) -> tuple[pa.Table, dict[int, str]]:
    """Add one label a step to rows of sequences.

    `equal` takes as many labels as steps. `start` and `end` make the shorter of the two as long as the other: steps
    without a label get null; labels without a step (one-to-many) get a step of zeros (of empty words).

    Returns:
        the rows with `label`, and why a row cannot be used.
    """
    names = [name for name in ("values", "symbols", "categories") if name in rows.column_names]
    (num_steps, _), (num_labels, _) = unwrap(flat(rows[names[0]])), unwrap(labels)
    if how == "equal":
        different = np.flatnonzero(num_steps != num_labels)
        reasons = {
            int(row): f"{num_labels[row]} labels for {num_steps[row]} steps; data.align: start or end allows that"
            for row in different
        }
        return rows.append_column("label", labels), reasons
    longest = np.maximum(num_steps, num_labels)
    for name in names:
        padded = _padded(flat(rows[name]), longest, at_end=how == "start")
        rows = rows.set_column(rows.column_names.index(name), name, padded)
    return rows.append_column("label", _padded(labels, longest, at_end=how == "start", filler=None)), {}


def _padded(lists: pa.ListArray, lengths: np.ndarray, *, at_end: bool, filler: object = "") -> pa.ListArray:
    """Lists of the given lengths, which are no shorter than they were."""
    own, items = unwrap(lists)
    if pa.types.is_fixed_size_list(items.type) and filler is not None:
        filler = [0.0 if pa.types.is_floating(items.type.value_type) else ""] * items.type.list_size
    place = np.arange(lengths.sum()) - np.repeat(ends(lengths)[:-1], lengths)
    if not at_end:
        place -= np.repeat(lengths - own, lengths)
    inside = (place >= 0) & (place < np.repeat(own, lengths))
    source = np.where(inside, np.repeat(ends(own)[:-1], lengths) + place, len(items))
    taken = pa.concat_arrays([items, pa.array([filler], items.type)]).take(pa.array(source))
    return wrap(taken, lengths)
