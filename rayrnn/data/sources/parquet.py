"""Parquet tables -> rows of the row schema: one row a sequence, renamed; or one row a step, brought together by key."""

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pyarrow.types as kinds
import ray
import ray.data
from pyarrow import fs

from rayrnn.data.arrow_lists import depth, without_views
from rayrnn.data.files import Listing, list_files
from rayrnn.data.sequences import beside, results
from rayrnn.data.sources.beside_values import with_features_beside
from rayrnn.data.sources.csv_labels import below_common
from rayrnn.data.sources.grouping import Grouping, group, grouping_of, into_buckets, is_number
from rayrnn.data.sources.source import Wanted
from rayrnn.data.sources.tables import check_columns, joined, rows_of_sequences
from rayrnn.errors import DataError
from rayrnn.recipe.data_sections import ParquetData

_NULL = "__HIVE_DEFAULT_PARTITION__"
#: bytes, before compression, that one task reads, about
TASK_BYTES = 32 * 2**20
#: footers read at the same time
READERS = 16
#: tasks that bring steps together, however few there are
FEWEST_BUCKETS = 4


def partition_values(path: str) -> dict[str, str | None]:
    """Column -> value, of all directories `name=value` in which a file lies."""
    pairs = (directory.split("=", 1) for directory in path.split("/")[:-1] if "=" in directory)
    return {unquote(name): None if value == _NULL else unquote(value) for name, value in pairs if name}


def partition_columns(paths: Sequence[str]) -> dict[str, pa.Array]:
    """The columns that all files have, a value a file: whole numbers where all values are, else strings."""
    values = [partition_values(path) for path in paths]
    names = [name for name in values[0] if all(name in own for own in values)] if values else []
    return {name: _typed([own[name] for own in values]) for name in names}


def _typed(texts: Sequence[str | None]) -> pa.Array:
    given = [text for text in texts if text is not None]
    if given and all(text.removeprefix("-").isdecimal() and str(int(text)) == text for text in given):
        return pa.array([None if text is None else int(text) for text in texts], pa.int64())
    return pa.array(texts, pa.string())


class Parquet:
    """Parquet files, whose rows are sequences or steps."""

    section = ParquetData

    def read(self, data: ParquetData, wanted: Wanted) -> ray.data.Dataset:
        """Tables with one row a sequence, read when the dataset is consumed; or one row a step, brought together now.

        The steps of a sequence may lie anywhere in all files: Ray tasks split the rows by a hash of their key, others
        group and sort one bucket each. A column that the recipe names may stand in the directories' names, `kind=up/`.

        Returns:
            rows of `key`, one of `values`, `symbols` and `text`, or `categories`, and `label`, as the recipe says. A
            row a step also has `fault`: two steps with the same place in the order, an empty cell, a label outside the
            classes.

        Raises:
            DataError: a file is no Parquet file, or lacks a column that the recipe names.
        """
        listing = list_files(wanted.where or data.path, endpoint=data.endpoint, say=wanted.say)
        footers = _footers(listing)
        schemas = [_plain(footer.schema.to_arrow_schema()) for footer in footers]
        named = data.named_columns(labelled=wanted.labelled, weighed=wanted.weighed) - set(schemas[0].names)
        partitions = {name: column for name, column in partition_columns(listing.paths).items() if name in named}
        schemas = [_with_fields(schema, partitions) for schema in schemas]
        pieces = _pieces(listing, footers, partitions)
        if data.order_by is not None:
            grouping = grouping_of(data, wanted, schemas[0])
            _check(listing, schemas, grouping.columns, grouping.roles.numbers)
            return ray.data.from_arrow_refs(_brought_together(pieces, listing.filesystem, grouping))
        asked = {"labelled": wanted.labelled, "weighed": wanted.weighed}
        _check(listing, schemas, data.columns(**asked))
        rename = functools.partial(_renamed, data=data, asked=asked, filesystem=listing.filesystem)
        return ray.data.from_arrow(_cut(pieces)).map_batches(
            rename, batch_size=None, batch_format="pyarrow", **beside(listing.filesystem)
        )


def _footers(listing: Listing) -> list[pyarrow.parquet.FileMetaData]:
    def read(number: int) -> pyarrow.parquet.FileMetaData:
        try:
            with listing.filesystem.open_input_file(listing.paths[number]) as file:
                return pyarrow.parquet.read_metadata(file)
        except (OSError, ValueError) as error:  # a message of Arrow's may not be text, which is a ValueError
            raise DataError(f"{listing.names[number]} cannot be read as Parquet: {error}") from None

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(read, range(len(listing))))


def _plain(schema: pa.Schema) -> pa.Schema:
    """The types of what is read of columns of these types."""
    return pa.schema([field.with_type(without_views(field.type)) for field in schema], schema.metadata)


def _with_fields(schema: pa.Schema, partitions: Mapping[str, pa.Array]) -> pa.Schema:
    for name, column in partitions.items():
        schema = schema.append(pa.field(name, column.type))
    return schema


def _pieces(
    listing: Listing, footers: list[pyarrow.parquet.FileMetaData], partitions: Mapping[str, pa.Array]
) -> pa.Table:
    """Every row group of every file: what one task can read at the least; and the file's own `partitions`."""
    rows = []
    names = below_common(listing.paths)
    for number, footer in enumerate(footers):
        first_row = 0
        for place in range(footer.num_row_groups):
            row_group = footer.row_group(place)
            rows.append((listing.paths[number], names[number], place, first_row, row_group.total_byte_size, number))
            first_row += row_group.num_rows
    if not any(footer.num_rows for footer in footers):
        raise DataError(f"{listing.names[0]} has no rows" + (", nor has any other" if len(listing) > 1 else ""))
    *columns, numbers = map(list, zip(*rows, strict=True))
    pieces = pa.table(dict(zip(("path", "name", "row_group", "first_row", "bytes"), columns, strict=True)))
    own = pa.table({name: column.take(pa.array(numbers)) for name, column in partitions.items()})
    return pieces.append_column("partitions", own.to_struct_array()) if partitions else pieces


def _check(listing: Listing, schemas: list[pa.Schema], columns: list[str], numbers: Sequence[str] = ()) -> None:
    """Raise a DataError where a file lacks a column, or holds something else in it than the first.

    Args:
        numbers: columns of which any kind of number is the same.
    """
    for origin, schema in zip(listing.names, schemas, strict=True):
        try:
            check_columns(schema, columns)
        except DataError as error:
            raise DataError(f"{origin}: {error}") from None
        for name in columns:
            here, first = schema.field(name).type, schemas[0].field(name).type
            natures = {_nature(kind, is_feature=name in numbers) for kind in (here, first) if not kinds.is_null(kind)}
            if len(natures) > 1:
                raise DataError(
                    f"{origin}: column {name!r} holds {here}, in {listing.names[0]} it holds {first}: all files must "
                    f"be alike"
                )


def _nature(kind: pa.DataType, *, is_feature: bool) -> tuple[int, str]:
    """What files may not differ in: how lists are nested, and what the innermost values are."""
    levels = depth(kind)
    for _ in range(levels):
        kind = kind.value_type
    if is_number(kind):
        return levels, "boolean" if kinds.is_boolean(kind) and not is_feature else "number"
    kind = kind.value_type if kinds.is_dictionary(kind) else kind
    return levels, "string" if kinds.is_large_string(kind) else str(kind)


def _cut(pieces: pa.Table, *, fewest: int = 1) -> list[pa.Table]:
    """Neighbouring row groups for one task each."""
    ends = np.cumsum(np.asarray(pieces["bytes"]))
    size = max(1, min(TASK_BYTES, int(ends[-1]) // fewest))
    cuts = np.flatnonzero(np.diff((ends - 1) // size)) + 1
    return [pieces.take(pa.array(numbers)) for numbers in np.split(np.arange(len(pieces)), cuts)]


def _read(pieces: pa.Table, columns: list[str], filesystem: fs.FileSystem) -> Iterator[tuple[dict[str, Any], pa.Table]]:
    """Each file's pieces at once, with the first of them."""
    parted = "partitions" in pieces.column_names
    types = {field.name: field.type for field in pieces.schema.field("partitions").type} if parted else {}
    for path, run in itertools.groupby(pieces.to_pylist(), lambda piece: piece["path"]):
        together = list(run)
        partitions = together[0].get("partitions") or {}
        stored = [name for name in columns if name not in partitions]
        try:
            with filesystem.open_input_file(path) as file:
                parquet = pyarrow.parquet.ParquetFile(file, pre_buffer=True)
                table = parquet.read_row_groups([piece["row_group"] for piece in together], stored, use_threads=False)
            if (plain := _plain(table.schema)) != table.schema:
                table = table.cast(plain)
        except (OSError, ValueError) as error:  # a message of Arrow's may not be text, which is a ValueError
            raise DataError(f"{path} cannot be read as Parquet: {error}") from None
        for name in partitions:
            table = table.append_column(name, pa.repeat(pa.scalar(partitions[name], types[name]), len(table)))
        yield together[0], table


def _renamed(
    pieces: pa.Table, data: ParquetData, *, asked: Mapping[str, bool], filesystem: fs.FileSystem
) -> Iterator[pa.Table]:
    for first, table in _read(pieces, data.columns(**asked), filesystem):
        rows = rows_of_sequences(table, data.names(**asked), data.categorical_lists, data.no_value)
        rows = with_features_beside(rows, table, data)
        if data.key is None:
            numbers = range(first["first_row"], first["first_row"] + len(rows))
            rows = rows.add_column(0, "key", pa.array([f"{first['name']}:{number}" for number in numbers], pa.string()))
        yield rows


def _brought_together(pieces: pa.Table, filesystem: fs.FileSystem, grouping: Grouping) -> list[ray.ObjectRef]:
    """Blocks of rows of sequences; how many depends on the data alone, so that a resumed run has the same."""
    tasks = _cut(pieces, fewest=FEWEST_BUCKETS)
    num_buckets = max(FEWEST_BUCKETS, len(tasks))
    split = ray.remote(num_returns=num_buckets, **beside(filesystem))(_split)
    bring_together = ray.remote(num_returns=2)(_group)
    splits = [split.remote(task, filesystem, grouping, num_buckets) for task in tasks]
    blocks = [bring_together.remote(grouping, *bucket) for bucket in zip(*splits, strict=True)]
    results([count for _, count in blocks])
    return [block for block, _ in blocks]


def _split(pieces: pa.Table, filesystem: fs.FileSystem, grouping: Grouping, num_buckets: int) -> list[pa.Table]:
    tables = [table for _, table in _read(pieces, grouping.columns, filesystem)]
    return into_buckets(joined(tables, grouping.roles), grouping, num_buckets)


def _group(grouping: Grouping, *bucket: pa.Table) -> tuple[pa.Table, int]:
    rows = group(*bucket, grouping=grouping)
    return rows, len(rows)
