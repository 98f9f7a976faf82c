"""Cells of label columns -> labels of the row schema: one class a sequence, one a step, or numbers.

A Fault says what is wrong with a sequence at one of its steps; a source turns the step into file and line.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from rayrnn.data.arrow_lists import flat, wrap
from rayrnn.data.rows import Needs
from rayrnn.data.sources.csv_dialect import is_number
from rayrnn.data.words import texts_of
from rayrnn.wording import listed


class Fault(NamedTuple):
    """Why a sequence cannot be used, and the step (counted from 0 within the sequence) that shows it."""

    step: int
    reason: str


_WHOLE = re.compile(r"(-?\d+)([.,])0+", re.ASCII)

#: sequence -> its first fault
Faults = dict[int, Fault]


@dataclass(frozen=True)
class Target:
    """What the labels are for, and which classes there may be (none given: whatever is found)."""

    needs: Needs
    classes: tuple[str, ...] | None = None
    num_classes: int | None = None
    #: words that stand where there is no value, of labels as of all other columns
    missing: tuple[str, ...] = ()
    #: what parts the whole of a number from its fraction
    decimal: str = "."

    def outside(self) -> str:
        """The end of the sentence about a label that is not among the classes."""
        if self.num_classes is not None:
            return f"which is no whole number in 0 .. {self.num_classes - 1} (data.num_classes: {self.num_classes})"
        return f"which is not among data.classes: {listed(self.classes or ())}"


def step_labels(cells: pa.Array | pa.ChunkedArray, offsets: np.ndarray, target: Target) -> tuple[pa.ListArray, Faults]:
    """One class a step; an empty cell is a step without a label.

    Args:
        cells: the label column of all steps, sequence after sequence.
        offsets: int64 [N + 1]; sequence n owns the steps offsets[n] .. offsets[n + 1].
    """
    codes, classes, faults = _classes(cells, offsets, target)
    return wrap(classes.take(pa.array(codes, mask=codes < 0)), np.diff(offsets)), faults


def sequence_labels(cells: pa.Array | pa.ChunkedArray, offsets: np.ndarray, target: Target) -> tuple[pa.Array, Faults]:
    """One class a sequence: the one that its labelled steps agree on."""
    codes, classes, faults = _classes(cells, offsets, target)
    firsts = np.full(len(offsets) - 1, -1)
    if len(codes):
        starts = offsets[:-1]
        highest = np.maximum.reduceat(codes, starts)
        lowest = np.minimum.reduceat(np.where(codes < 0, len(classes), codes), starts)
        firsts = np.where(highest == lowest, highest, -1)
        for sequence in np.flatnonzero(firsts < 0):
            own = codes[offsets[sequence] : offsets[sequence + 1]]
            faults.setdefault(int(sequence), _no_single_class(own, classes))
    return classes.take(pa.array(firsts, mask=firsts < 0)), faults


def first_faults(bad_steps: np.ndarray, offsets: np.ndarray, reasons: Iterable[str]) -> Faults:
    """The first of the bad steps (global numbers, ascending, each with its reason) in every sequence."""
    faults: Faults = {}
    owners = np.searchsorted(offsets, bad_steps, side="right") - 1
    for step, owner, reason in zip(bad_steps, owners, reasons, strict=False):
        faults.setdefault(int(owner), Fault(int(step - offsets[owner]), reason))
    return faults


def _classes(
    cells: pa.Array | pa.ChunkedArray, offsets: np.ndarray, target: Target
) -> tuple[np.ndarray, pa.Array, Faults]:
    """The class of every step as a place (-1 = no label) in an array of the classes found."""
    encoded = texts_of(flat(cells)).dictionary_encode()
    texts = ["" if text in target.missing else text for text in encoded.dictionary.to_pylist()]
    meanings = [_meaning(text, target) if text else None for text in texts]
    classes = list(dict.fromkeys(meaning for meaning in meanings if meaning is not None))
    place = {meaning: number for number, meaning in enumerate(classes)}
    places = np.array([-1 if meaning is None else place[meaning] for meaning in meanings] + [-1])
    spelt = encoded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)
    codes = places[spelt]
    is_label = np.array([text != "" for text in texts] + [False])
    bad_steps = np.flatnonzero((codes < 0) & is_label[spelt])
    reasons = (f"the label is {texts[spelt[step]]!r}, {target.outside()}" for step in bad_steps)
    return codes, pa.array(classes, pa.string()), first_faults(bad_steps, offsets, reasons)


def _meaning(text: str, target: Target) -> str | None:
    """The class a cell names; None where it is none of the target's. A whole number may be written as 1.0 or 1,0."""
    if target.needs.takes_sets:  # which are told apart, and compared with the classes, later
        return text
    found = _WHOLE.fullmatch(text)
    whole = found[1] if found and found[2] == target.decimal else text
    if target.num_classes is None:
        names = (text, whole)
        return names[-1] if target.classes is None else next((name for name in names if name in target.classes), None)
    if not is_number(whole):
        return None
    number = float(whole)
    return str(int(number)) if number.is_integer() and 0 <= number < target.num_classes else None


def _no_single_class(codes: np.ndarray, classes: pa.Array) -> Fault:
    labelled = np.flatnonzero(codes >= 0)
    if not len(labelled):
        return Fault(0, "the sequence has no label")
    first = codes[labelled[0]]
    step = int(np.flatnonzero((codes >= 0) & (codes != first))[0])
    return Fault(
        step,
        f"the label changes from {classes[first].as_py()!r} to {classes[codes[step]].as_py()!r}: classification takes "
        "one label a sequence; for one label a step set task: tagging",
    )
