"""Data frames and lists of a program -> Arrow tables, without importing what made them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.types as kinds

from rayrnn.data.arrow_lists import flat, is_extended, without_views
from rayrnn.errors import DataError, UsageError


def library_of(value: Any) -> str:
    """The package that a value is of: rayrnn imports none for it, and whoever hands it over has it."""
    return type(value).__module__.partition(".")[0]


def is_frame(value: Any) -> bool:
    """Whether it has columns that Arrow reads: a frame of pandas' or polars', a table of Arrow's."""
    return hasattr(value, "__arrow_c_stream__") and hasattr(value, "columns")


def names_of_frame(frame: Any) -> list[str]:
    """The columns of a data frame, in order, as `table_of_frame` calls them."""
    levels = [str(name) for name in _named_levels(frame)] if library_of(frame) == "pandas" else []
    # the `columns` of Arrow's tables are their cells
    columns = frame.column_names if library_of(frame) == "pyarrow" else frame.columns
    return [*levels, *map(str, columns)]


def table_of_frame(frame: Any, read: Collection[str] | None = None) -> pa.Table:
    """The columns of a data frame, as Arrow has them; lists of every kind are plain ones.

    Of pandas' frames a level of the index that has a name is a column too, in front; one without is left out, as is
    one that the columns have beside it.

    Args:
        read: only these columns, where any of them is there: what the others hold does not matter.

    Raises:
        DataError: a column is there twice, or cannot be Arrow's; or there are no rows.
    """
    if not len(frame):
        raise DataError("the data frame has no rows")
    if library_of(frame) == "pandas":
        frame = _plain_pandas(frame, read)
    elif library_of(frame) == "polars" and (there := [name for name in frame.columns if read is None or name in read]):
        frame = frame[there]  # `select` would take a name for a pattern
    try:
        table = pa.table(frame)
        if there := [name for name in table.column_names if read is not None and name in read]:
            table = table.select(there)
        for place, cells in enumerate(table.columns):
            if is_extended(cells.type):
                table = table.set_column(place, table.column_names[place], flat(cells))
        return table.cast(pa.schema([column.with_type(_list_type(column.type)) for column in table.schema]))
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise DataError(f"the data frame cannot be read: {next(iter(str(error).splitlines()), '')}") from None


def table_of_list(sequences: Sequence[Any], labels: Sequence[Any] | None = None) -> pa.Table:
    """A list of sequences -> a row each, in the row schema (see rayrnn/data/rows.py).

    Args:
        sequences: mappings in the row schema; texts; lists of words; or arrays, T numbers or T x F each.
        labels: of the sequences that are no mappings, as many.

    Raises:
        UsageError: they are of several kinds, or none of these; or there are not as many labels.
        DataError: what they hold cannot be read.
    """
    rows = [plain(one) for one in sequences]
    if not rows:
        raise DataError("the list has no sequences")
    found = {_kind(row) for row in rows if not _is_empty(row)} or {"values"}
    if len(found) > 1 or "" in found:
        seen = next(row for row in rows if _kind(row) == "" or _kind(row) != _kind(rows[0]))
        raise UsageError(
            f"the list holds {type(seen).__name__}s among others; due are texts, lists of words, arrays of numbers (a "
            "number or a row of them a step), or mappings in the row schema, all of one kind"
        )
    (kind,) = found
    if labels is not None and (kind == "rows" or len(labels) != len(rows)):
        why = "mappings have their own `label`" if kind == "rows" else f"there are {len(rows)} sequences"
        raise UsageError(f"{len(labels)} labels are given, and {why}")
    try:
        if kind == "rows":
            names = dict.fromkeys(str(name) for row in rows for name in row)
            return pa.table({name: pa.array([plain(row.get(name)) for row in rows]) for name in names})
        columns = {kind: pa.array(rows)}
        return pa.table(columns if labels is None else columns | {"label": pa.array([plain(one) for one in labels])})
    except (pa.ArrowException, OverflowError) as error:
        raise DataError(f"the list cannot be read: {next(iter(str(error).splitlines()), '')}") from None


def with_keys(rows: pa.Table) -> pa.Table:
    """Rows in the row schema with a key each: their number, where they have none."""
    if "key" in rows.column_names:
        return rows
    return rows.add_column(0, "key", pa.array([str(number) for number in range(len(rows))], pa.string()))


def plain(value: Any) -> Any:
    """Arrays, tensors and columns as lists.

    Raises:
        DataError: they hold times.
    """
    if isinstance(value, tuple):
        return list(value)
    if getattr(getattr(value, "dtype", None), "kind", "") in ("M", "m"):
        raise DataError("an array holds times, which are no numbers: give what of them is to be read, the hour say")
    return value.tolist() if hasattr(value, "tolist") else value


def _kind(row: Any) -> str:
    """The column of the row schema that a sequence is; `rows` for one that has columns, nothing for none."""
    if isinstance(row, Mapping):
        return "rows"
    if isinstance(row, str):
        return "text"
    if not isinstance(row, list):
        return ""
    return "symbols" if any(isinstance(step, str) for step in row) else "values"


def _is_empty(row: Any) -> bool:
    return isinstance(row, list) and not row


def _named_levels(frame: Any) -> list[Any]:
    """The levels of the index of pandas' frame that are columns, too."""
    taken = {str(name) for name in frame.columns}
    return [name for name in frame.index.names if name is not None and str(name) not in taken]


def _plain_pandas(frame: Any, read: Collection[str] | None) -> Any:
    levels = _named_levels(frame)
    others = [place for place, name in enumerate(frame.index.names) if name not in levels]
    if levels:
        frame = frame.set_axis(frame.index.droplevel(others)) if others else frame
        frame = frame.reset_index(allow_duplicates=True)
    names = [str(name) for name in frame.columns]
    places = [place for place, name in enumerate(names) if read is None or name in read]
    # of a header-less file the columns are places
    frame = frame.iloc[:, places] if places else frame
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1).reset_index(drop=True)
    for name in dict.fromkeys(n for n in frame.columns if list(frame.columns).count(n) > 1):
        raise DataError(f"column {name!r} is there {list(frame.columns).count(name)} times: leave all but one out")
    for name in [name for name in frame.columns if frame[name].dtype == object]:
        frame = frame.assign(**{name: [plain(cell) for cell in frame[name]]})
    return frame


def _list_type(kind: pa.DataType) -> pa.DataType:
    """Lists of every kind as plain ones."""
    kind = without_views(kind)
    if kinds.is_fixed_size_list(kind) or kinds.is_list_view(kind) or kinds.is_large_list_view(kind):
        return pa.large_list(_list_type(kind.value_type))
    return kind
