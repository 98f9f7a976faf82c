"""What a row holds beside its steps and its label: what their columns are for, what is known of later steps, weights.

N sequences, S steps of all of them together, K numbers that are known ahead.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.types as kinds

from rayrnn.data.arrow_lists import depth, ends, matrix, numbers, side_by_side, unwrap, wrap
from rayrnn.errors import DataError
from rayrnn.wording import counted, listed

_KEY = b"rayrnn.roles"
#: weights are used as float32, in which also sums of losses times them must be told from nothing and from infinity
_LEAST, _MOST = 1e-12, 1e12


@dataclass(frozen=True)
class ColumnRoles:
    """Places among the numbers of a step; none are told where all are forecast, if any."""

    forecast: tuple[int, ...] = ()
    known: tuple[int, ...] = ()


def with_roles(rows: pa.Table, roles: ColumnRoles) -> pa.Table:
    """The same rows, whose column `values` knows what its numbers are for."""
    if not (roles.forecast or roles.known) or "values" not in rows.column_names:
        return rows
    place, said = rows.column_names.index("values"), json.dumps([roles.forecast, roles.known])
    field = rows.schema.field(place)
    fields = rows.schema.set(place, field.with_metadata({**(field.metadata or {}), _KEY: said}))
    return pa.Table.from_arrays(rows.columns, schema=fields)


def roles_of(schema: pa.Schema) -> ColumnRoles:
    """What `with_roles` said."""
    metadata = schema.field("values").metadata if "values" in schema.names else None
    return ColumnRoles(*map(tuple, json.loads(metadata[_KEY]))) if metadata and _KEY in metadata else ColumnRoles()


def read_future(cells: pa.Array, keys: pa.Array) -> pa.Array:
    """What is known of the steps after the last: list<fixed_size_list<float64, K>> [N].

    Raises:
        DataError: it is something else, or a number is missing; names the sequence and its step.
    """
    sizes, items = unwrap(cells) if depth(cells.type) in (1, 2) else (None, cells)
    widths, values = unwrap(items) if sizes is not None and depth(items.type) else (np.ones(len(items), int), items)
    plain = kinds.is_null(values.type) or kinds.is_integer(values.type) or kinds.is_floating(values.type)
    if sizes is None or not plain or len(set(widths.tolist())) > 1:
        raise DataError(
            f"column `future` holds {cells.type}; it is a list with an item for each step that follows the last one, "
            "and each item the numbers that are known ahead (data.known_ahead)"
        )
    fixed = items.type.list_size if kinds.is_fixed_size_list(items.type) else 0
    width = int(widths[0]) if len(widths) else fixed or 1
    found = numbers(values).reshape(-1, width)
    for step in np.flatnonzero(~np.isfinite(found).all(axis=1))[:1]:
        row = int(np.searchsorted(ends(sizes), step, side="right")) - 1
        raise DataError(
            f"sequence {keys[row].as_py()!r}, step {step - int(ends(sizes)[row])} after the last: `future` holds "
            f"{found[step].tolist()}, and what is known ahead (data.known_ahead) is a number: fill it in"
        )
    return wrap(side_by_side(found.reshape(-1), width), sizes)


def check_future(rows: pa.Table, steps: np.ndarray, due: int, names: Sequence[str]) -> None:
    """
    Args:
        rows: canonical ones, of `steps` [N].
        due: steps after the last that must be known.
        names: of what is known ahead.

    Raises:
        DataError: fewer are known; names the sequence, its last step and what to do.
    """
    sizes = unwrap(rows["future"].combine_chunks())[0] if "future" in rows.column_names else np.zeros_like(steps)
    for row in np.flatnonzero((sizes < due) & (steps > 0))[:1]:
        columns = listed(names) if names else "what is known ahead"
        raise DataError(
            f"sequence {rows['key'][int(row)].as_py()!r} ends at step {steps[row] - 1}, and to forecast from there "
            f"{columns} (data.known_ahead) must be known for {counted(due, 'more step')}; there "
            f"{'is' if sizes[row] == 1 else 'are'} {sizes[row]}: add rows to its end that hold the key, the order and "
            "these columns alone"
        )


def read_weights(cells: pa.Array, steps: np.ndarray, keys: pa.Array, *, per_step: bool) -> pa.Array:
    """How much each sequence counts, float64 [N], or each of its steps, list<float64> [N].

    Args:
        steps: of every sequence, [N].
        per_step: whether there are answers at the steps; if not, a sequence's steps must agree.

    Raises:
        DataError: a weight is no number, negative, not there, or beyond what networks compute with, or there is not one
            for each step; names the sequence.
    """
    levels = depth(cells.type)
    sizes, items = unwrap(cells) if levels else (np.ones(len(cells), np.int64), cells)
    if not (kinds.is_integer(items.type) or kinds.is_floating(items.type) or kinds.is_decimal(items.type)):
        raise DataError(f"column `weight` (data.weight) holds {cells.type}: a weight is a number, or one for each step")
    for row in np.flatnonzero(sizes != steps)[:1] if levels else ():
        raise DataError(
            f"sequence {keys[int(row)].as_py()!r} has {steps[row]} steps, and {counted(sizes[row], 'weight')} "
            "(data.weight): give one for each step, or one number for the sequence"
        )
    found = numbers(items)
    for place in np.flatnonzero(~((found == 0) | (found >= _LEAST) & (found <= _MOST)))[:1]:
        row = int(np.searchsorted(ends(sizes), place, side="right")) - 1
        step = f", step {place - int(ends(sizes)[row])}" if levels else ""
        value = "missing" if np.isnan(found[place]) else f"{found[place]:g}"
        raise DataError(
            f"sequence {keys[row].as_py()!r}{step}: its weight (data.weight) is {value}; it must be 0, or a number "
            f"from {_LEAST:g} to {_MOST:g}: 1 counts once, 0 not at all, and only how weights compare matters, so that "
            "all of them may be divided by one number"
        )
    if not levels or per_step:
        return wrap(pa.array(found), sizes) if levels else pa.array(found)
    return pa.array(_one_each(found, sizes, keys))


def _one_each(found: np.ndarray, sizes: np.ndarray, keys: pa.Array) -> np.ndarray:
    """The one weight of each sequence's steps; 0 of a sequence without any."""
    firsts = np.zeros(len(sizes))
    firsts[sizes > 0] = found[ends(sizes)[:-1][sizes > 0]]
    for place in np.flatnonzero(found != np.repeat(firsts, sizes))[:1]:
        row = int(np.searchsorted(ends(sizes), place, side="right")) - 1
        raise DataError(
            f"sequence {keys[row].as_py()!r} has one answer, and its weight (data.weight) changes from "
            f"{firsts[row]:g} to {found[place]:g} at step {place - int(ends(sizes)[row])}: give all of its steps the "
            "same weight"
        )
    return firsts


def weights_of(rows: pa.Table) -> tuple[np.ndarray, np.ndarray | None] | None:
    """The weights of canonical rows, and of how many steps of each they are; None: of sequences. None of rows without.

    float64 [N] or [S], int64 [N].
    """
    if "weight" not in rows.column_names:
        return None
    cells = rows["weight"].combine_chunks()
    if not depth(cells.type):
        return numbers(cells), None
    sizes, items = unwrap(cells)
    return numbers(items), sizes


def future_of(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """How many later steps each canonical row knows of, int64 [N], and what: float64 [all of them, K]."""
    sizes, items = unwrap(rows["future"].combine_chunks())
    return sizes, matrix(items)
