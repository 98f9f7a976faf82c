"""Apache Iceberg tables: a catalogue knows where they are, their snapshots say what is in them."""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import ray.data
from pyiceberg.catalog import load_catalog
from pyiceberg.expressions import (
    AlwaysTrue,
    And,
    BooleanExpression,
    EqualTo,
    GreaterThan,
    GreaterThanOrEqual,
    In,
    IsNull,
    LessThan,
    LessThanOrEqual,
    NotEqualTo,
    NotIn,
    NotNull,
)
from pyiceberg.expressions.visitors import bind
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import ArrowScan, schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, StaticTable
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.types import UUIDType

from rayrnn.data.files import open_file_system
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
from rayrnn.data.sources.conditions import columns_of, filter_of, kept, meaning_of, with_variables
from rayrnn.data.sources.source import Wanted
from rayrnn.errors import DataError
from rayrnn.recipe.row_conditions import Condition
from rayrnn.recipe.table_sections import IcebergData, as_time
from rayrnn.wording import listed

_COMPARE = {
    **{"==": EqualTo, "!=": NotEqualTo, "<": LessThan, "<=": LessThanOrEqual, ">": GreaterThan},
    **{">=": GreaterThanOrEqual, "in": In, "not in": NotIn},
}
_METADATA = ".metadata.json"


class Iceberg:
    """An Apache Iceberg table, whose rows are sequences or steps."""

    section = IcebergData

    def pinned(self, data: IcebergData) -> IcebergData:
        """The same section, whose versions are numbers of snapshots, each with the columns that it is read with.

        Raises:
            DataError: the catalogue does not answer, or there is no table, or no such version.
        """
        versions = _pinned(data, None, data.table, "")
        if isinstance(data.held_out, str):
            versions |= _pinned(data, data.held_out, data.held_out, "held_out_")
        return data.at(versions)

    def read(self, data: IcebergData, wanted: Wanted) -> ray.data.Dataset:
        """The sequences of a section. Files that no condition can keep a row of, as their manifest says, are not read.

        Raises:
            DataError: the catalogue does not answer, there is no table or version, or a column is missing or does not
                fit.
        """
        name, conditions = wanted.where or data.table, data.conditions(wanted.where)
        table = _open(data, name)
        snapshot = _snapshot(table, name, data.version_of(wanted.where))
        # pyiceberg takes the names in conditions for those of the newest schema
        table.metadata = _with_schema(table, name, _schema_id(table, data, wanted.where))
        schema = table.schema()
        arrow = plain_schema(schema_to_pyarrow(schema, include_field_ids=False))
        condition = _filter(conditions, schema, arrow)
        try:
            scan = table.scan(row_filter=condition, snapshot_id=snapshot)
            files = sorted(scan.plan_files(), key=lambda task: task.file.file_path)
        except Exception as error:  # pyiceberg raises its own and whatever its libraries raise
            raise DataError(f"{name} cannot be read at snapshot {snapshot}: {error}") from None
        if not files:
            none = f": data.where keeps none of snapshot {snapshot}" if conditions else ""
            raise DataError(f"{name} has no rows{none}")
        fewest = 1 if data.order_by is None else FEWEST_BUCKETS
        runs = neighbours(np.array([task.file.file_size_in_bytes for task in files]), fewest=fewest)
        parts = [[files[number] for number in run] for run in runs]
        # which Arrow does not compare
        by_text = [one for one in conditions if isinstance(schema.find_type(one.column), UUIDType)]
        pushed = _filter([one for one in conditions if one not in by_text], schema, arrow)
        read = functools.partial(_read, name, table.metadata, table.io, schema, pushed, by_text)
        return sequences_of_table(Table([name], [arrow], parts, read, _where(table)), data, wanted)


def _open(data: IcebergData, name: str) -> IcebergTable:
    properties = {key: with_variables(value, f"data.catalog.{key}") for key, value in data.catalog.items()}
    catalog = properties.pop("name", None)
    if data.endpoint is not None:
        properties.setdefault("s3.endpoint", data.endpoint)
    try:
        if name.endswith(_METADATA):
            return StaticTable.from_metadata(name, properties)
        return load_catalog(catalog, **properties).load_table(name)
    except Exception as error:  # pyiceberg raises its own, and whatever the catalogue's client raises
        told = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name} cannot be found in the catalogue {_described(data)}: {told}") from None


def _described(data: IcebergData) -> str:
    told = {key: data.catalog[key] for key in ("name", "type", "uri") if key in data.catalog}
    return ", ".join(f"{key} {value}" for key, value in told.items()) or "of pyiceberg's own configuration"


def _snapshot(table: IcebergTable, name: str, version: int | str | None) -> int:
    """The number of the snapshot that a version is."""
    found = table.current_snapshot() if version is None else _found(table, version)
    if found is None and version is None:
        raise DataError(f"{name} has no rows: nothing was written into it yet")
    if found is None:
        known = [str(one.snapshot_id) for one in table.snapshots()]
        raise DataError(
            f"{name} has no version {version}: its snapshots are {listed(known)}, its names {listed([*table.refs()])}; "
            "a time is written as 2024-01-31T09:05:00Z"
        )
    return int(found.snapshot_id)


def _found(table: IcebergTable, version: int | str) -> Snapshot | None:
    """By its number, its name, which may be digits too, or its time."""
    if isinstance(version, int):
        return table.snapshot_by_id(version) or table.snapshot_by_name(str(version))
    if (found := table.snapshot_by_name(version)) is None and (time := as_time(version)) is not None:
        found = table.snapshot_as_of_timestamp(round(time.timestamp() * 1000))
    return found


def _pinned(data: IcebergData, where: str | None, name: str, prefix: str) -> dict[str, int]:
    table = _open(data, name)
    version = _snapshot(table, name, data.version_of(where))
    return {f"{prefix}version": version, f"{prefix}schema": _schema_id(table, data, where)}


def _schema_id(table: IcebergTable, data: IcebergData, where: str | None) -> int:
    """The columns that a version is read with: the newest table's and a branch's are the table's own, as they are now;
    those of what it was are those that it had."""
    known, version = data.schema_of(where), data.version_of(where)
    if known is not None:
        return known
    names = {} if version is None else table.refs()
    found = None if version is None else _found(table, version)
    is_branch = str(version) in names and names[str(version)].snapshot_ref_type == SnapshotRefType.BRANCH
    if found is None or is_branch or found.schema_id is None:
        return int(table.metadata.current_schema_id)
    return int(found.schema_id)


def _with_schema(table: IcebergTable, name: str, schema_id: int) -> TableMetadata:
    if schema_id not in table.schemas():
        raise DataError(
            f"{name} has no schema {schema_id} any more, with which this version is read: name the version that is to "
            "be read (data.version), and begin another run"
        )
    return table.metadata.model_copy(update={"current_schema_id": schema_id})


def _filter(conditions: Sequence[Condition], schema: Schema, arrow: pa.Schema) -> BooleanExpression:
    filter_of(conditions, arrow)  # what cannot be compared is told
    condition = And(AlwaysTrue(), *(_holds(one, arrow) for one in conditions), AlwaysTrue())
    try:
        bind(schema, condition, case_sensitive=True)
    except (TypeError, ValueError) as error:
        raise DataError(f"data.where: {error}") from None
    return condition


def _holds(condition: Condition, arrow: pa.Schema) -> BooleanExpression:
    column = condition.column
    comparison, scalars = meaning_of(condition, arrow.field(column).type)
    if scalars is None:
        return IsNull(column) if comparison == "==" else NotNull(column)
    values = [scalar.as_py() for scalar in scalars]
    # a row without a value is kept by no comparison, as in SQL
    return And(NotNull(column), _COMPARE[comparison](column, values if comparison in ("in", "not in") else values[0]))


def _where(table: IcebergTable) -> dict[str, object]:
    """Options for tasks that read: local files are those of this host."""
    scheme = table.location().partition("://")[0]
    local = "://" not in table.location() or scheme == "file"
    return beside(open_file_system("/")[0]) if local else {}


def _read(
    name: str,
    metadata: TableMetadata,
    io: FileIO,
    schema: Schema,
    pushed: BooleanExpression,
    by_text: Sequence[Condition],
    files: Sequence[FileScanTask],
    columns: Sequence[str],
) -> Iterator[Piece]:
    used = schema.select(*dict.fromkeys([*columns, *columns_of(by_text)]))
    for file in files:
        try:
            rows = ArrowScan(metadata, io, used, pushed).to_table([file])
        except Exception as error:  # as above
            raise DataError(f"{name}: {file.file.file_path} cannot be read: {error}") from None
        rows = kept(plain(rows), by_text).select(list(columns))
        yield Piece(rows, file.file.file_path.rpartition("/")[2], 0)
