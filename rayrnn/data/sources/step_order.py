"""The place of a step in its sequence, where text says it: numbers count as numbers, times as times."""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from rayrnn.data.sources.labels import Faults, first_faults
from rayrnn.data.words import words

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
#: the day, or the month, before the year
_DATE = re.compile(r"\d{1,2}([./-])\d{1,2}\1\d{2,4}(?!\d).*", re.ASCII | re.DOTALL)
_DIGITS = re.compile(r"(\d+)", re.ASCII)


def order_of(cells: pa.Array, missing: Sequence[str]) -> pa.Array:
    """What steps are sorted by: the cells, or where they are text a number for each; null where there is no value."""
    if kinds.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    if kinds.is_null(cells.type):
        return cells.cast(pa.int64())
    if not is_text(cells.type):
        return cells
    texts = words(cells, missing)
    ranks = np.zeros(len(texts), np.int64)
    numeric = _are_numbers(texts)
    for chosen, read in ((numeric, _numbers), (~numeric, _others)):
        ranks[chosen] = np.unique(read(texts.filter(pa.array(chosen)).fill_null("")), return_inverse=True)[1]
    return pa.array(ranks, mask=np.asarray(texts.is_null()))


def is_text(kind: pa.DataType) -> bool:
    """Whether such cells are text."""
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind))


def misleading(cells: pa.Array, offsets: np.ndarray, name: str, missing: Sequence[str]) -> Faults:
    """Sequences whose steps, sorted by `order_of`, may be in another order than is meant: it was text that says so.

    Args:
        cells: of column `name`, sequence after sequence, each in order.
        offsets: int64 [N + 1]; sequence n owns the steps offsets[n] .. offsets[n + 1].
    """
    if kinds.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    if not is_text(cells.type):
        return {}
    texts = words(cells, missing)
    numeric, there = _are_numbers(texts), np.asarray(texts.is_valid())
    if numeric[there].all():
        return {}
    by_time = not numeric.any() and _times(texts.drop_null()) is not None
    faults: Faults = {}
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        own = np.arange(start, end)[there[start:end]]
        reason = None if by_time and not numeric[own].any() else _doubt(texts.take(pa.array(own)), numeric[own], name)
        if reason:
            faults |= first_faults(np.array([start]), offsets, [reason])
    return faults


def _doubt(texts: pa.Array, numeric: np.ndarray, name: str) -> str | None:
    """Why these steps of one sequence may be in another order than is meant."""
    advice = "write it as numbers, or as times such as 2024-01-31T09:05:00, or give another column"
    if numeric.all() or len(texts) < 2:
        return None
    if numeric.any():
        one, other = texts[int(np.argmax(numeric))], texts[int(np.argmin(numeric))]
        return f"column {name!r} (data.order_by) is {str(one)!r} and {str(other)!r}, numbers and text: {advice}"
    written = texts.to_pylist()
    if _DATE.fullmatch(written[0]):
        return f"column {name!r} (data.order_by) is {written[0]!r}, a date whose year does not come first: {advice}"
    for one, other in pairwise(written):
        if _as_people(one) > _as_people(other):
            return f"column {name!r} (data.order_by) is text, by which {one!r} comes before {other!r}: {advice}"
    return None


def _as_people(text: str) -> list[tuple[int, int, str]]:
    """The text, its digits as numbers."""
    pieces = _DIGITS.split(text)
    return [(0, int(piece[:4000]), "") if place % 2 else (1, 0, piece) for place, piece in enumerate(pieces)]


def _are_numbers(texts: pa.Array) -> np.ndarray:
    return np.asarray(pc.match_substring_regex(texts, _NUMBER).fill_null(False))


def _numbers(texts: pa.Array) -> np.ndarray:
    plain = pc.replace_substring_regex(texts, r"^\+", "")
    try:
        return np.asarray(plain.cast(pa.int64()))
    except pa.ArrowInvalid:
        return np.asarray(plain.cast(pa.float64()))


def _others(texts: pa.Array) -> np.ndarray:
    times = _times(texts)
    return np.array(texts.to_pylist(), object) if times is None else times


def _times(texts: pa.Array) -> np.ndarray | None:
    """Times of ISO 8601 as whole numbers; None where one of them is none."""
    for unit in ("us", "ns"):
        for zone in (None, "UTC"):
            try:
                return np.asarray(texts.cast(pa.timestamp(unit, zone)).cast(pa.int64()))
            except pa.ArrowInvalid:
                continue
    return None
