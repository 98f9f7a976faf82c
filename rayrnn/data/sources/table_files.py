"""Files of a table, in directories that may name columns -> sequences: what Parquet, ORC and Avro have in common."""

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple, Protocol
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import ray.data
from pyarrow import fs

from rayrnn.data.files import Listing, list_files
from rayrnn.data.sequences import beside
from rayrnn.data.sources.any_table import (
    FEWEST_BUCKETS,
    Piece,
    Table,
    neighbours,
    plain,
    plain_schema,
    sequences_of_table,
)
from rayrnn.data.sources.conditions import columns_of, filter_of, kept
from rayrnn.data.sources.csv_labels import below_common
from rayrnn.data.sources.source import Wanted
from rayrnn.data.sources.table_parts import Parts, check_named
from rayrnn.errors import DataError
from rayrnn.recipe.data_sections import ParquetData
from rayrnn.recipe.row_conditions import Condition
from rayrnn.recipe.table_sections import AvroData, OrcData

_NULL = "__HIVE_DEFAULT_PARTITION__"
#: files looked into at the same time
READERS = 16


class Unit(NamedTuple):
    """What can be read of a file at the least."""

    rows: int
    #: before compression, about
    bytes: int


class Inside(NamedTuple):
    """What a file says of itself."""

    schema: pa.Schema
    units: Sequence[Unit]


class Format(Protocol):
    """A kind of file that holds a table. It travels to the tasks that read."""

    name: str
    #: what is raised where a file is none; ValueError too, for a message of Arrow's may not be text
    errors: tuple[type[Exception], ...]

    def look(self, filesystem: fs.FileSystem, path: str) -> Inside:
        """What is in a file, before it is read."""

    def read(
        self,
        filesystem: fs.FileSystem,
        path: str,
        units: Sequence[int],
        columns: Sequence[str],
        conditions: Sequence[Condition],
    ) -> pa.Table:
        """These columns of these units; units of which the conditions keep no row may be left out."""


def read_files(form: Format, data: ParquetData | OrcData | AvroData, wanted: Wanted) -> ray.data.Dataset:
    """The sequences in files of one format. A column that is named may stand in the directories' names, `kind=up/`.

    Raises:
        DataError: a file is none of this format, or lacks a column that is named.
    """
    listing = list_files(wanted.where or data.path, endpoint=data.endpoint, say=wanted.say)
    _check_are_files(listing)
    conditions = data.conditions(wanted.where)
    inside = _look(form, listing)
    schemas = [plain_schema(one.schema) for one in inside]
    named = {*data.named_columns(labelled=wanted.labelled, weighed=wanted.weighed), *columns_of(conditions)} - set(
        schemas[0].names
    )
    partitions = {name: column for name, column in partition_columns(listing.paths).items() if name in named}
    schemas = [_with_fields(schema, partitions) for schema in schemas]
    check_named(Parts(listing.names, schemas, "files"), columns_of(conditions))
    for name, schema in zip(listing.names, schemas, strict=True):  # before anything is read
        try:
            filter_of(conditions, schema)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
    parts = _cut(_pieces(listing, inside, partitions), fewest=1 if data.order_by is None else FEWEST_BUCKETS)
    read = functools.partial(_read, form, listing.filesystem, conditions)
    return sequences_of_table(Table(listing.names, schemas, parts, read, beside(listing.filesystem)), data, wanted)


def first_schema(form: Format, listing: Listing) -> pa.Schema:
    """What the first file's columns hold.

    Raises:
        DataError: it is none of this format.
    """
    return _look(form, replace(listing, paths=listing.paths[:1], sizes=listing.sizes[:1]))[0].schema


def partition_values(path: str) -> dict[str, str | None]:
    """Column -> value, of all directories `name=value` in which a file lies."""
    pairs = (directory.split("=", 1) for directory in path.split("/")[:-1] if "=" in directory)
    return {unquote(name): None if value == _NULL else unquote(value) for name, value in pairs if name}


def partition_columns(paths: Sequence[str]) -> dict[str, pa.Array]:
    """The columns that all files have, a value a file: whole numbers where all values are, else strings."""
    values = [partition_values(path) for path in paths]
    names = [name for name in values[0] if all(name in own for own in values)] if values else []
    return {name: _typed([own[name] for own in values]) for name in names}


def _check_are_files(listing: Listing) -> None:
    """
    Raises:
        DataError: they are what a table of another source is made of.
    """
    for path, name in zip(listing.paths, listing.names, strict=True):
        if "_delta_log" in path.removeprefix(listing.base).split("/"):
            where = name[: name.rindex("_delta_log")].rstrip("/") or "."
            raise DataError(
                f"{where} is a Delta table, of whose files not all are part of it now: read it with source: delta"
            )
        if path.endswith(".metadata.json"):
            raise DataError(
                f"{name} is of an Iceberg table, which is more than its files: read it with source: iceberg"
            )


def _typed(texts: Sequence[str | None]) -> pa.Array:
    given = [text for text in texts if text is not None]
    if given and all(text.removeprefix("-").isdecimal() and str(int(text)) == text for text in given):
        return pa.array([None if text is None else int(text) for text in texts], pa.int64())
    return pa.array(texts, pa.string())


def _look(form: Format, listing: Listing) -> list[Inside]:
    def look(number: int) -> Inside:
        try:
            return form.look(listing.filesystem, listing.paths[number])
        except form.errors as error:
            raise DataError(f"{listing.names[number]} cannot be read as {form.name}: {error}") from None

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(look, range(len(listing))))


def _with_fields(schema: pa.Schema, partitions: Mapping[str, pa.Array]) -> pa.Schema:
    for name, column in partitions.items():
        schema = schema.append(pa.field(name, column.type))
    return schema


def _pieces(listing: Listing, inside: Sequence[Inside], partitions: Mapping[str, pa.Array]) -> pa.Table:
    """Every unit of every file, and the file's own `partitions`."""
    rows = []
    names = below_common(listing.paths)
    for number, one in enumerate(inside):
        first_row = 0
        for place, unit in enumerate(one.units):
            rows.append((listing.paths[number], names[number], place, first_row, unit.bytes, number))
            first_row += unit.rows
    if not any(unit.rows for one in inside for unit in one.units):
        raise DataError(f"{listing.names[0]} has no rows" + (", nor has any other" if len(listing) > 1 else ""))
    *columns, numbers = map(list, zip(*rows, strict=True))
    pieces = pa.table(dict(zip(("path", "name", "unit", "first_row", "bytes"), columns, strict=True)))
    own = pa.table({name: column.take(pa.array(numbers)) for name, column in partitions.items()})
    return pieces.append_column("partitions", own.to_struct_array()) if partitions else pieces


def _cut(pieces: pa.Table, *, fewest: int) -> list[pa.Table]:
    """Neighbouring units for one task each."""
    return [pieces.take(pa.array(numbers)) for numbers in neighbours(np.asarray(pieces["bytes"]), fewest=fewest)]


def _read(
    form: Format,
    filesystem: fs.FileSystem,
    conditions: Sequence[Condition],
    pieces: pa.Table,
    columns: Sequence[str],
) -> Iterator[Piece]:
    """Each file's pieces at once."""
    parted = "partitions" in pieces.column_names
    types = {field.name: field.type for field in pieces.schema.field("partitions").type} if parted else {}
    used = list(dict.fromkeys([*columns, *columns_of(conditions)]))
    inside = [condition for condition in conditions if condition.column not in types]
    for path, run in itertools.groupby(pieces.to_pylist(), lambda piece: piece["path"]):
        together = list(run)
        partitions = together[0].get("partitions") or {}
        stored = [name for name in used if name not in partitions]
        try:
            table = form.read(filesystem, path, [piece["unit"] for piece in together], stored, inside)
            table = plain(table)
        except form.errors as error:
            raise DataError(f"{path} cannot be read as {form.name}: {error}") from None
        for name in partitions:
            table = table.append_column(name, pa.repeat(pa.scalar(partitions[name], types[name]), len(table)))
        table = kept(table, conditions).select(list(columns))
        yield Piece(table, together[0]["name"], together[0]["first_row"])
