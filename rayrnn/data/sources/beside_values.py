"""Features that lie beside the steps of a sequence, in tables with one row a sequence: known ahead, or the same at all.

N sequences, S steps of all of them together.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from rayrnn.data.arrow_lists import depth, ends, flat, matrix, numbers, side_by_side, unwrap, wrap
from rayrnn.data.beside_steps import ColumnRoles, with_roles
from rayrnn.data.rows import values_of, with_feature_names
from rayrnn.data.sources.grouping import is_number
from rayrnn.data.sources.tables import abreast
from rayrnn.data.words import missing_numbers, words
from rayrnn.errors import DataError
from rayrnn.recipe.data_sections import Column, Place, TableData
from rayrnn.wording import listed


def with_features_beside(rows: pa.Table, table: pa.Table, data: TableData) -> pa.Table:
    """Rows of sequences whose steps have these features too: `values` grows by them, and knows what each is for.

    Args:
        rows: what `rows_of_sequences` made of the table.

    Raises:
        DataError: a column holds something else, or is empty; names the sequence.
    """
    if not (data.forecast or data.known_ahead or data.static):
        return rows
    keys = flat(rows["key"]) if "key" in rows.column_names else pa.array([f"row {n}" for n in range(len(rows))])
    sizes, items = unwrap(values_of(flat(rows["values"]), keys))
    parts, names = [matrix(items)], _names(str(data.values), items.type.list_size)
    forecast = tuple(_place(column, names) for column in data.forecast or ()) or tuple(range(len(names)))
    known = tuple(range(len(names), len(names) + len(data.known_ahead)))
    lists = [_known(table, name, sizes, keys, data.no_value) for name in data.known_ahead]
    parts += [now[:, None] for now, _, _ in lists]
    alike = [name for name in data.static if _holds_numbers(table, name, data)]
    parts += [np.repeat(_numbers(table, name, keys, data.no_value), sizes)[:, None] for name in alike]
    names = (*names, *data.known_ahead, *alike)
    together = np.concatenate(parts, axis=1)
    rows = _put(rows, "values", wrap(side_by_side(together.reshape(-1), together.shape[1]), sizes))
    texts = [name for name in data.static if name not in alike]
    if texts:
        rows = _with_words(rows, table, texts, sizes, data)
    if lists:
        rows = _put(rows, "future", _future(lists, data.known_ahead, keys))
    called = {"values": names, "categories": (*data.categorical_lists, *texts), "future": data.known_ahead}
    return with_feature_names(with_roles(rows, ColumnRoles(forecast, known)), called)


def _put(rows: pa.Table, name: str, cells: pa.Array) -> pa.Table:
    if name not in rows.column_names:
        return rows.append_column(name, cells)
    return rows.set_column(rows.column_names.index(name), name, cells)


def _names(column: str, width: int) -> tuple[str, ...]:
    return (column,) if width == 1 else tuple(f"{column}[{place}]" for place in range(width))


def _place(column: Column, names: Sequence[str]) -> int:
    """Of a number of a step."""
    if isinstance(column, str) and column in names:
        return names.index(column)
    place = column.place if isinstance(column, Place) else int(column) if column.removeprefix("-").isdecimal() else None
    if place is None or not -len(names) <= place < len(names):
        raise DataError(
            f"data.forecast names {column if isinstance(column, str) else {'place': column.place}}, and a step has "
            f"{listed(names)}: give their places, {{place: 0}} .. {{place: {len(names) - 1}}}"
        )
    return place % len(names)


def _known(
    table: pa.Table, name: str, sizes: np.ndarray, keys: pa.Array, missing: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a column knows at the steps, [S], after the last ones, and of how many steps there, [N]."""
    cells = flat(table[name])
    if depth(cells.type) != 1 or not is_number(cells.type.value_type):
        raise DataError(
            f"column {name!r} (data.known_ahead) holds {cells.type}; where a row is a sequence it is a list with a "
            "number for each step, and for those to come"
        )
    lengths, items = unwrap(cells)
    for row in np.flatnonzero(lengths < sizes)[:1]:
        raise DataError(
            f"sequence {keys[int(row)].as_py()!r} has {sizes[row]} steps, and column {name!r} (data.known_ahead) "
            f"{lengths[row]} numbers: it has one for each step, and more where it is known further"
        )
    found = _present(numbers(items), missing)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(owners)) - ends(lengths)[:-1][owners]
    for bad in np.flatnonzero(~np.isfinite(found))[:1]:
        raise DataError(
            f"sequence {keys[int(owners[bad])].as_py()!r}, step {place[bad]}: column {name!r} (data.known_ahead) is "
            "empty or no number; it needs one at every step that it has"
        )
    is_past = place < sizes[owners]
    return found[is_past], found[~is_past], lengths - sizes


def _future(
    lists: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], names: Sequence[str], keys: pa.Array
) -> pa.ListArray:
    _, _, sizes = lists[0]
    for name, (_, _, others) in zip(names, lists, strict=True):
        for row in np.flatnonzero(others != sizes)[:1]:
            raise DataError(
                f"sequence {keys[int(row)].as_py()!r}: column {names[0]!r} (data.known_ahead) is known for "
                f"{sizes[row]} steps to come, {name!r} for {others[row]}: make all of them equally long"
            )
    later = np.stack([found for _, found, _ in lists], axis=1)
    return wrap(side_by_side(later.reshape(-1), len(lists)), sizes)


def _holds_numbers(table: pa.Table, name: str, data: TableData) -> bool:
    return is_number(table.schema.field(name).type) and name not in data.categorical


def _numbers(table: pa.Table, name: str, keys: pa.Array, missing: Sequence[str]) -> np.ndarray:
    """A number a sequence, [N]."""
    found = _present(numbers(flat(table[name])), missing)
    for row in np.flatnonzero(~np.isfinite(found))[:1]:
        raise DataError(
            f"sequence {keys[int(row)].as_py()!r}: column {name!r} (data.static) is empty or no number: fill it in, or "
            "leave the sequence out"
        )
    return found


def _present(found: np.ndarray, missing: Sequence[str]) -> np.ndarray:
    return np.where(np.isin(found, missing_numbers(missing)), np.nan, found)


def _with_words(rows: pa.Table, table: pa.Table, names: Sequence[str], sizes: np.ndarray, data: TableData) -> pa.Table:
    """With the words of each sequence at all of its steps."""
    owners = pa.array(np.repeat(np.arange(len(sizes)), sizes))
    columns = []
    for name in names:
        kind = table.schema.field(name).type
        if depth(kind):
            raise DataError(f"column {name!r} (data.static) holds {kind}; it is one number or one word a sequence")
        try:
            columns.append(words(flat(table[name]), data.no_value).fill_null("").take(owners))
        except pa.ArrowInvalid as error:
            raise DataError(f"column {name!r} (data.static) cannot be words: {error}") from None
    if "categories" in rows.column_names:
        items = unwrap(flat(rows["categories"]))[1]
        cells, width = items.flatten(), items.type.list_size
        columns = [cells.take(pa.array(np.arange(n, len(cells), width))) for n in range(width)] + columns
    return _put(rows, "categories", wrap(abreast(columns), sizes))
