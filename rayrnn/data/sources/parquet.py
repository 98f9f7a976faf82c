"""Parquet tables -> rows of the row schema: one row a sequence, renamed; or one row a step, brought together by key."""

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import ray.data
from pyarrow import fs

from rayrnn.data.files import Listing, list_files
from rayrnn.data.sequences import beside
from rayrnn.data.sources.any_table import FEWEST_BUCKETS, Piece, Table, plain, plain_schema, sequences_of_table
from rayrnn.data.sources.csv_labels import below_common
from rayrnn.data.sources.source import Wanted
from rayrnn.errors import DataError
from rayrnn.recipe.data_sections import ParquetData

_NULL = "__HIVE_DEFAULT_PARTITION__"
#: bytes, before compression, that one task reads, about
TASK_BYTES = 32 * 2**20
#: footers read at the same time
READERS = 16


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
        schemas = [plain_schema(footer.schema.to_arrow_schema()) for footer in footers]
        named = data.named_columns(labelled=wanted.labelled) - set(schemas[0].names)
        partitions = {name: column for name, column in partition_columns(listing.paths).items() if name in named}
        schemas = [_with_fields(schema, partitions) for schema in schemas]
        pieces = _pieces(listing, footers, partitions)
        parts = _cut(pieces, fewest=1 if data.order_by is None else FEWEST_BUCKETS)
        read = functools.partial(_read, listing.filesystem)
        table = Table(listing.names, schemas, parts, read, beside(listing.filesystem))
        return sequences_of_table(table, data, wanted)


def _footers(listing: Listing) -> list[pyarrow.parquet.FileMetaData]:
    def read(number: int) -> pyarrow.parquet.FileMetaData:
        try:
            with listing.filesystem.open_input_file(listing.paths[number]) as file:
                return pyarrow.parquet.read_metadata(file)
        except (OSError, ValueError) as error:  # a message of Arrow's may not be text, which is a ValueError
            raise DataError(f"{listing.names[number]} cannot be read as Parquet: {error}") from None

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(read, range(len(listing))))


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


def _cut(pieces: pa.Table, *, fewest: int = 1) -> list[pa.Table]:
    """Neighbouring row groups for one task each."""
    ends = np.cumsum(np.asarray(pieces["bytes"]))
    size = max(1, min(TASK_BYTES, int(ends[-1]) // fewest))
    cuts = np.flatnonzero(np.diff((ends - 1) // size)) + 1
    return [pieces.take(pa.array(numbers)) for numbers in np.split(np.arange(len(pieces)), cuts)]


def _read(filesystem: fs.FileSystem, pieces: pa.Table, columns: Sequence[str]) -> Iterator[Piece]:
    """Each file's pieces at once."""
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
            table = plain(table)
        except (OSError, ValueError) as error:  # a message of Arrow's may not be text, which is a ValueError
            raise DataError(f"{path} cannot be read as Parquet: {error}") from None
        for name in partitions:
            table = table.append_column(name, pa.repeat(pa.scalar(partitions[name], types[name]), len(table)))
        yield Piece(table, together[0]["name"], together[0]["first_row"])
