"""Any table, wherever it lies -> rows of the row schema: one row a sequence, or one row a step, grouped by its key.

Every source of tables ends here. It says what the table's parts hold and how a task reads one; what a program has in a
dataset of Ray's comes in by `sequences_of_dataset`.
"""

import functools
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds
import ray
import ray.data

from rayrnn.data.arrow_lists import depth, flat, is_extended, unwrap, without_views
from rayrnn.data.sequences import results, settle
from rayrnn.data.sources.beside_values import with_features_beside
from rayrnn.data.sources.grouping import Grouping, group, grouping_of, into_buckets
from rayrnn.data.sources.source import Wanted
from rayrnn.data.sources.table_parts import (
    Common,
    Parts,
    check_alike,
    check_named,
    common_types,
    in_common,
    known_schema,
    say_unread,
)
from rayrnn.data.sources.tables import joined, rows_of_sequences
from rayrnn.errors import DataError
from rayrnn.recipe.data_sections import TableData

#: tasks that bring steps together, however few there are
FEWEST_BUCKETS = 4
#: bytes, before compression, that one task reads, about
TASK_BYTES = 32 * 2**20


class Piece(NamedTuple):
    """Some rows of a table, as a task has read them."""

    rows: pa.Table
    #: in what they are numbered, where they have no key; and the number of the first
    origin: str
    first_row: int


#: one of a table's parts, and the columns that are used -> its pieces, in order
ReadPart = Callable[[Any, Sequence[str]], Iterator[Piece]]


@dataclass(frozen=True)
class Table:
    """A table in parts. How it is cut depends on the table alone, so that whoever reads it has the same order."""

    #: what messages call that of which each of `schemas` is: files, or blocks
    names: Sequence[str]
    schemas: Sequence[pa.Schema]
    #: each for one task, at least one; they travel to it
    parts: Sequence[Any]
    read: ReadPart
    #: of Ray: where the tasks that read may run
    options: Mapping[str, Any] = field(default_factory=dict)
    #: of what the schemas are
    parted: str = "files"


def sequences_of_table(table: Table, data: TableData, wanted: Wanted) -> ray.data.Dataset:
    """A table with one row a sequence, read when the dataset is consumed; or with one row a step, brought together now.

    The steps of a sequence may lie anywhere: Ray tasks split the rows by a hash of their key, others group and sort one
    bucket each. Only the columns that are used are read.

    Returns:
        rows of `key`, one of `values`, `symbols` and `text`, or `categories`, and `label`, as the section says. A row a
        step also has `fault`: two steps with the same place in the order, an empty cell, a label outside the classes.

    Raises:
        DataError: a column is missing, holds what cannot be learned, or is not the same in all parts.
    """
    parts, asked = (
        Parts(table.names, table.schemas, table.parted),
        {"labelled": wanted.labelled, "weighed": wanted.weighed},
    )
    check_named(parts, sorted(data.named_columns(**asked)))
    if data.order_by is not None:
        if data.features is None and not wanted.column_names:
            say_unread(parts, [*data.named_columns(labelled=True, weighed=True), *data.ignore], wanted.say)
        grouping = grouping_of(data, wanted, known_schema(parts))
        check_alike(parts, grouping.columns, grouping.roles.numbers)
        return ray.data.from_arrow_refs(_brought_together(table, grouping, common_types(parts, grouping)))
    check_alike(parts, data.columns(**asked))
    rename = functools.partial(_renamed, table.read, table.parts, data, asked)
    numbers = ray.data.from_arrow([pa.table({"part": [number]}) for number in range(len(table.parts))])
    return numbers.map_batches(rename, batch_size=None, batch_format="pyarrow", **table.options)


def sequences_of_dataset(dataset: ray.data.Dataset, data: TableData, wanted: Wanted) -> ray.data.Dataset:
    """The same of a dataset of Ray's, from wherever it comes: it is read once, now, and cut anew.

    Its blocks are as many as the cluster makes of it; what follows depends on its rows and their order alone.

    Raises:
        DataError: as above, or there are no rows.
    """
    return sequences_of_blocks(settle(dataset).to_arrow_refs(), data, wanted)


def sequences_of_blocks(blocks: Sequence[ray.ObjectRef], data: TableData, wanted: Wanted) -> ray.data.Dataset:
    """The same of Arrow tables in Ray's object store.

    Raises:
        DataError: as above.
    """
    return sequences_of_table(_table_of_blocks(blocks), data, wanted)


def neighbours(sizes: np.ndarray, *, fewest: int = 1) -> list[np.ndarray]:
    """The numbers of what has these sizes in bytes, in runs for one task each; so many at least, if there are."""
    ends = np.cumsum(sizes)
    size = max(1, min(TASK_BYTES, int(ends[-1]) // fewest))
    cuts = np.flatnonzero(np.diff((ends - 1).clip(min=0) // size)) + 1
    return np.split(np.arange(len(sizes)), cuts)


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The types of what is read of columns of these types."""
    return pa.schema([field.with_type(_plain_kind(field.type)) for field in schema], schema.metadata)


def plain(rows: pa.Table) -> pa.Table:
    """The same rows without views, and with text and lists in the place of UUIDs and of Ray's tensors."""
    for place, cells in enumerate(rows.columns):
        if is_extended(cells.type) or isinstance(cells.type, pa.UuidType):
            rows = rows.set_column(place, rows.column_names[place], flat(cells))
    schema = plain_schema(rows.schema)
    return rows if schema == rows.schema else rows.cast(schema)


def _plain_kind(kind: pa.DataType) -> pa.DataType:
    return pa.string() if isinstance(kind, pa.UuidType) else without_views(kind)


def _renamed(
    read: ReadPart, parts: Sequence[Any], data: TableData, asked: Mapping[str, bool], numbers: pa.Table
) -> Iterator[pa.Table]:
    for number in numbers["part"].to_pylist():
        for piece in read(parts[number], data.columns(**asked)):
            rows = rows_of_sequences(piece.rows, data.names(**asked), data.categorical_lists, data.no_value)
            rows = with_features_beside(rows, piece.rows, data)
            if data.key is None:
                places = range(piece.first_row, piece.first_row + len(rows))
                rows = rows.add_column(0, "key", pa.array([f"{piece.origin}:{row}" for row in places], pa.string()))
            yield rows


def _brought_together(table: Table, grouping: Grouping, common: Common) -> list[ray.ObjectRef]:
    """Blocks of rows of sequences; how many depends on the data alone, so that a resumed run has the same."""
    num_buckets = max(FEWEST_BUCKETS, len(table.parts))
    split = ray.remote(num_returns=num_buckets, **table.options)(_split)
    bring_together = ray.remote(num_returns=2)(_group)
    splits = [split.remote(table.read, part, grouping, common, num_buckets) for part in table.parts]
    blocks = [bring_together.remote(grouping, *bucket) for bucket in zip(*splits, strict=True)]
    if not any(results([count for _, count in blocks])):
        raise DataError(f"no row is left of {table.names[0]}: there is none, or data.where keeps none")
    return [block for block, _ in blocks]


def _split(read: ReadPart, part: Any, grouping: Grouping, common: Common, num_buckets: int) -> list[pa.Table]:
    tables = [in_common(piece.rows, piece.origin, common) for piece in read(part, grouping.columns)]
    return into_buckets(joined(tables, grouping.roles), grouping, num_buckets)


def _group(grouping: Grouping, *bucket: pa.Table) -> tuple[pa.Table, int]:
    rows = group(*bucket, grouping=grouping)
    return rows, len(rows)


class _Look(NamedTuple):
    """What a block holds."""

    rows: int
    #: of its cells, whatever block they are in
    bytes: int
    schema: pa.Schema


class _Run(NamedTuple):
    """Neighbouring rows of one block."""

    block: ray.ObjectRef
    start: int
    stop: int


class _Rows(NamedTuple):
    """Neighbouring rows of a dataset, and the number of the first."""

    runs: tuple[_Run, ...]
    first_row: int


def _table_of_blocks(blocks: Sequence[ray.ObjectRef]) -> Table:
    """Blocks as a table, cut where its rows say so and not the blocks, which are others on another machine."""
    look = ray.remote(_look)
    try:
        looks = results([look.remote(block) for block in blocks])
    except ray.exceptions.RayTaskError as error:
        if not isinstance(error.cause, ray.exceptions.RaySystemError):
            raise
        # a block could not be brought to its task
        reason = str(error.cause).removeprefix("System error: ").partition("\n")[0]
        raise DataError(
            f"a block of the dataset cannot be read: {reason}; a column of it holds what Arrow does not give back, "
            "such as a Categorical of intervals: make it text, or leave it out (dataset.drop_columns)"
        ) from None
    used = [(block, seen) for block, seen in zip(blocks, looks, strict=True) if seen.rows]
    if not used:
        raise DataError("the dataset has no rows")
    ends = np.cumsum([0, *(seen.rows for _, seen in used)]).tolist()
    num_rows, num_bytes = ends[-1], sum(seen.bytes for _, seen in used)
    size = max(1, num_rows * TASK_BYTES // num_bytes)
    parts = []
    for first in range(0, num_rows, size):
        last = min(first + size, num_rows)
        places = range(bisect_right(ends, first) - 1, bisect_left(ends, last))
        runs = (_Run(used[at][0], max(0, first - ends[at]), min(ends[at + 1], last) - ends[at]) for at in places)
        parts.append(_Rows(tuple(runs), first))
    names = [f"row {first:,} and those after it" for first in ends[:-1]]
    return Table(names, [seen.schema for _, seen in used], parts, _read_rows, parted="rows")


def _look(block: pa.Table) -> _Look:
    schema = plain(block.slice(0, 1)).schema
    return _Look(len(block), sum(_bytes(flat(cells)) for cells in block.columns), schema)


def _bytes(cells: pa.Array) -> int:
    """Eight for a number, and for where a list or a text begins; none is shared, and none a block's own."""
    sizes = 8 * len(cells)
    while depth(cells.type):
        cells = unwrap(cells)[1]
        sizes += 8 * len(cells)
    kind = cells.type
    if kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_binary(kind) or kinds.is_large_binary(kind):
        sizes += pc.sum(pc.binary_length(cells)).as_py() or 0
    return sizes


def _read_rows(part: _Rows, columns: Sequence[str]) -> Iterator[Piece]:
    first = part.first_row
    for run in part.runs:
        rows = plain(ray.get(run.block).slice(run.start, run.stop - run.start).select(list(columns)))
        yield Piece(rows, "row", first)
        first += len(rows)
