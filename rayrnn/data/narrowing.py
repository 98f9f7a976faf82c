"""Different numbers that become one: in float64, in which they are scaled, or in float32, in which networks compute.

S numbers of one column.
"""

import json
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from rayrnn.data.arrow_lists import depth, flat, unwrap

_LOST = b"rayrnn.lost"

#: whole numbers up to here are all different in float64
_EXACT = 2**53
#: digits that float64 keeps of any number
_DIGITS = 15
#: fractions that are looked at, and of how many one may be lost: more than this is no matter of rounding
SAMPLE = 2**14
_ONE_OF = 8


def lost_in_float64(cells: pa.Array) -> tuple[str, str] | None:
    """Two of the whole numbers or decimals, as they are written, that are one number in float64; none where none are.

    Text may be among them: only whole numbers of many digits are looked at.
    """
    if kinds.is_string(cells.type):
        return _of_texts(cells)
    if kinds.is_decimal(cells.type):
        if cells.type.precision <= _DIGITS:
            return None
    elif not (kinds.is_int64(cells.type) or kinds.is_uint64(cells.type)) or not _is_large(cells):
        return None
    distinct = cells.unique().drop_null()
    distinct = distinct.take(pc.sort_indices(distinct))
    place = _first_same(np.asarray(distinct.cast(pa.float64(), safe=False)))
    return None if place is None else (str(distinct[place]), str(distinct[place + 1]))


def lost_in_float32(numbers: np.ndarray, narrowed: np.ndarray, scale: float) -> tuple[float, float] | None:
    """Two of the numbers (float64 [S]) that are different, and the same once narrowed (float32 [S]).

    Of whole numbers none may be lost. Of fractions, which may have more digits than anybody measured, few may.

    Args:
        scale: by which they were divided.
    """
    whole = bool((numbers == np.floor(numbers)).all())
    if not len(numbers) or (whole and np.spacing(np.abs(narrowed).max()) * scale < 0.5):
        return None
    if not whole:
        numbers, narrowed = numbers[:SAMPLE], narrowed[:SAMPLE]
    order = np.argsort(numbers)
    numbers, narrowed = numbers[order], narrowed[order]
    different = numbers[1:] != numbers[:-1]
    lost = np.flatnonzero(different & (narrowed[1:] == narrowed[:-1]))
    if not len(lost) or (not whole and len(lost) * _ONE_OF <= different.sum()):
        return None
    return float(numbers[lost[0]]), float(numbers[lost[0] + 1])


def with_lost(table: pa.Table, lost: Mapping[str, tuple[str, str]]) -> pa.Table:
    """The same table, which knows of which columns some numbers are not told apart any more, and two of each."""
    return table.replace_schema_metadata({_LOST: json.dumps(dict(lost))} if lost else None)


def lost_before(table: pa.Table) -> dict[str, tuple[str, str]]:
    """What `with_lost` said of a table."""
    stored = json.loads((table.schema.metadata or {}).get(_LOST, b"{}"))
    return {name: (one, other) for name, (one, other) in stored.items()}


def lost_of_rows(rows: pa.Table) -> dict[str, tuple[str, str]]:
    """The same of a source's rows, and what their own whole numbers and decimals lose when they become canonical."""
    lost = lost_before(rows)
    for name in {"values", "label"} & set(rows.column_names):
        cells = flat(rows[name])
        while depth(cells.type):
            cells = unwrap(cells)[1]
        if not kinds.is_string(cells.type) and (pair := lost_in_float64(cells)):
            lost[name] = pair
    return lost


def _is_large(cells: pa.Array) -> bool:
    ends = pc.min_max(cells).as_py()
    return any(end is not None and abs(end) > _EXACT for end in ends.values())


def _of_texts(cells: pa.Array) -> tuple[str, str] | None:
    # Python makes no whole number of more than 4,300 digits
    whole = cells.filter(pc.match_substring_regex(cells, r"^[+-]?\d{16,400}$").fill_null(False))
    distinct = sorted({int(text) for text in whole.unique().to_pylist()})
    place = _first_same(np.array(list(map(_as_float, distinct)), np.float64))
    return None if place is None else (str(distinct[place]), str(distinct[place + 1]))


def _as_float(number: int) -> float:
    return float(str(number))  # infinity, where float(number) would raise


def _first_same(ascending: np.ndarray) -> int | None:
    """Where a number is the same as the next."""
    same = np.flatnonzero(ascending[1:] == ascending[:-1])
    return int(same[0]) if len(same) else None
