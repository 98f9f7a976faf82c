"""One file that has come -> canonical rows, a sequence each, and where their steps lie in the order.

N sequences.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from posixpath import basename, splitext
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import pyarrow.types as kinds

from rayrnn.data.arrow_lists import flat
from rayrnn.data.contents import unpacked_name
from rayrnn.data.rows import REASONS
from rayrnn.data.sources.csv import rows_of_csv
from rayrnn.data.sources.step_order import order_of
from rayrnn.data.sources.tables import check_columns
from rayrnn.data.words import words
from rayrnn.errors import DataError
from rayrnn.prediction.given_rows import checked_rows
from rayrnn.prediction.given_steps import step_names, wanted_of
from rayrnn.prediction.in_process import rows_of_frame
from rayrnn.recipe.data_sections import CsvData, StepData, TableData
from rayrnn.runs.model import Trained
from rayrnn.wording import listed

#: how the names of files end -> how they are read
FORMATS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@dataclass(frozen=True)
class ArrivedRows:
    """What one file holds."""

    #: canonical, a sequence each
    rows: pa.Table
    #: the first and the last place of each sequence's steps in data.order_by, [N]; None where steps have no places
    firsts: pa.Array | None = None
    lasts: pa.Array | None = None

    @property
    def keys(self) -> list[str]:
        """The names of the sequences."""
        return list(self.rows["key"].to_pylist())


def format_of(name: str, model: Trained) -> str | None:
    """How a file is read: parquet, csv or jsonl; None for one that is none of these.

    A run that has learned CSV files reads any other ending as CSV too, as it learned them.
    """
    known = FORMATS.get(splitext(unpacked_name(name))[1].lower())
    return known or ("csv" if isinstance(model.recipe.data, CsvData) else None)


def rows_arrived(content: bytes, name: str, model: Trained) -> ArrivedRows:
    """The sequences of a file's content.

    In a table with `data.key` and `data.order_by` every row is a step; other tables may also have a row a sequence. A
    file without a column that names its sequences is one sequence, and is called by the file's own name.

    Raises:
        DataError: it cannot be read, or holds something else than was learned.
    """
    data, kind = model.recipe.data, format_of(name, model)
    if kind is None:
        raise DataError(f"its name ends in none of {listed(sorted(FORMATS))} (also .gz, .bz2, .zst, .lz4)")
    if not content:
        raise DataError("it is empty")
    if kind == "csv" and not isinstance(data, TableData):
        return ArrivedRows(_named(_rows_of_csv(content, name, model), basename(name)))
    table = _READERS[kind](content, model)
    if not len(table):
        raise DataError("it has no rows")
    if not isinstance(data, TableData) or data.order_by is None:
        return ArrivedRows(_rows_with_keys(table, name, model))
    # a column of lists was learned as name[0], name[1] ...
    learned = [name for name in step_names(model) if name.rpartition("[")[0] not in table.column_names]
    check_columns(table.schema, [str(data.key), data.order_by, *learned])
    rows = checked_rows(rows_of_frame(table, model), model)
    return ArrivedRows(rows, *_bounds(table, flat(rows["key"]), data))


def order_texts(cells: pa.Array) -> list[str]:
    """Places in the order as text that tells them apart."""
    return list(_plain_order(cells).cast(pa.string()).to_pylist())


def come_after(before: Sequence[str], cells: pa.Array) -> list[bool]:
    """Of each of these places in the order, whether it comes after the one that `order_texts` made a text of.

    Raises:
        DataError: they are of two kinds.
    """
    cells, told = _plain_order(cells), pa.array(before, pa.string())
    try:
        earlier = told.cast(cells.type)
    except pa.ArrowInvalid:
        try:
            earlier, cells = told.cast(pa.float64()), cells.cast(pa.float64())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise DataError(
                f"data.order_by holds {cells.type} such as {cells[0]}, and in files before it was {before[0]!r}: write "
                "all files alike"
            ) from None
    places = order_of(pa.concat_arrays([earlier, cells]), ())
    return list(pc.greater(places[len(before) :], places[: len(before)]).to_pylist())


def _plain_order(cells: pa.Array) -> pa.Array:
    """Whatever the units that a file has it in."""
    if kinds.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    if kinds.is_timestamp(cells.type):
        return cells.cast(pa.timestamp("ns", cells.type.tz))
    if kinds.is_date(cells.type):
        return cells.cast(pa.timestamp("ns"))
    if kinds.is_floating(cells.type) or kinds.is_decimal(cells.type):
        return cells.cast(pa.float64())
    return cells


def _bounds(table: pa.Table, keys: pa.Array, data: TableData) -> tuple[pa.Array, pa.Array]:
    """Of each sequence its first and its last cell of data.order_by."""
    cells = flat(table[str(data.order_by)])
    places = order_of(cells, data.no_value)
    owners = words(flat(table[str(data.key)]), data.no_value)
    ends = pa.table({"key": owners, "place": places}).group_by("key").aggregate([("place", "min"), ("place", "max")])
    ends = ends.take(pc.index_in(keys, value_set=flat(ends["key"])))
    first, last = (cells.take(pc.index_in(flat(ends[f"place_{end}"]), value_set=places)) for end in ("min", "max"))
    return first, last


def _rows_of_csv(content: bytes, name: str, model: Trained) -> pa.Table:
    """A CSV file as the one sequence that the run's own files are."""
    data = model.recipe.data
    if not isinstance(data, CsvData):
        data = CsvData(source="csv", path=name, features=list(model.encoding.column_names) or None)
    rows = rows_of_csv(content, name, data, wanted_of(model))
    return checked_rows(rows.drop_columns([reason for reason in REASONS if reason in rows.column_names]), model)


def _rows_with_keys(table: pa.Table, name: str, model: Trained) -> pa.Table:
    """Rows of sequences with the keys that the file names, or the file's own name where it holds one sequence."""
    data = model.recipe.data
    column = data.key if isinstance(data, TableData) and data.key is not None else "key"
    rows = rows_of_frame(table, model)
    if column not in table.column_names:
        if len(rows) > 1:
            raise DataError(f"it has {len(rows):,} sequences without a name: name each in a column {column!r}")
        return checked_rows(_named(rows, basename(name)), model)
    if len(rows) == len(table):
        keys = words(flat(table[column]))
        if keys.null_count:
            raise DataError(f"column {column!r} is empty in {keys.null_count} rows: it names the sequence")
        rows = rows.set_column(rows.column_names.index("key"), "key", keys)
    counts = pc.value_counts(flat(rows["key"]))
    for place in pc.indices_nonzero(pc.greater(counts.field("counts"), 1))[:1]:
        raise DataError(f"two rows are of sequence {str(counts.field('values')[place.as_py()])!r}: make one of them")
    return checked_rows(rows, model)


def _named(rows: pa.Table, key: str) -> pa.Table:
    return rows.set_column(rows.column_names.index("key"), "key", pa.array([key], pa.string()))


def _read_parquet(content: bytes, model: Trained) -> pa.Table:
    try:
        return pyarrow.parquet.read_table(pa.BufferReader(content))
    except (OSError, ValueError) as error:  # a message of Arrow's may not be text, which is a ValueError
        raise DataError(f"it cannot be read as Parquet: {error}") from None


def _read_csv(content: bytes, model: Trained) -> pa.Table:
    data = model.recipe.data
    missing = data.no_value if isinstance(data, StepData) else ()
    convert = pyarrow.csv.ConvertOptions(
        # words stay words: 007 is no number where it names a sequence
        column_types={name: pa.string() for name in _word_columns(model)},
        null_values=["", *missing],
        strings_can_be_null=True,
    )
    try:
        return pyarrow.csv.read_csv(pa.BufferReader(content), convert_options=convert)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise DataError(f"it cannot be read as CSV: {error}") from None


def _word_columns(model: Trained) -> tuple[str, ...]:
    data = model.recipe.data
    if not isinstance(data, TableData):
        return ("key",)
    return (*filter(None, [data.key]), *data.categorical)


def _read_json_lines(content: bytes, model: Trained) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise DataError(f"line {number} is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"line {number} is {type(row).__name__}; due is an object, a name and a value a column")
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: _column([row.get(name) for row in rows], name) for name in names})


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _column(cells: list[Any], name: str) -> pa.Array:
    try:
        return pa.array(cells)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise DataError(f"column {name!r} holds values of several kinds: {error}") from None


_READERS: dict[str, Callable[[bytes, Trained], pa.Table]] = {
    "parquet": _read_parquet,
    "csv": _read_csv,
    "jsonl": _read_json_lines,
}
