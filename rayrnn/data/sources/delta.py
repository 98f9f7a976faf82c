"""Delta Lake tables: their log says which files they have at a version, and what is in these."""

import functools
import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyarrow import fs
from pyarrow.dataset import ParquetFileFragment

from rayrnn.data.files import open_file_system
from rayrnn.data.sequences import beside, streamed
from rayrnn.data.sources.any_table import (
    FEWEST_BUCKETS,
    Piece,
    Table,
    neighbours,
    plain,
    plain_schema,
    sequences_of_blocks,
    sequences_of_dataset,
    sequences_of_table,
)
from rayrnn.data.sources.conditions import columns_of, filter_of, kept, meaning_of
from rayrnn.data.sources.source import Wanted
from rayrnn.errors import DataError
from rayrnn.recipe.row_conditions import Condition
from rayrnn.recipe.table_sections import DeltaData, as_time

#: with these a file's rows or columns are not what they seem, and Arrow cannot read it by itself
_MAPPED = {"deletionVectors", "columnMapping"}
_ERRORS = (DeltaError, OSError, ValueError)
_GONE = (
    "VACUUM removes the files that the newest version does not have: bring them back, or begin another run with the "
    "newest version; `rayrnn evaluate RUN --data PATH` measures on the table as it is now"
)


class Delta:
    """A Delta Lake table, whose rows are sequences or steps."""

    section = DeltaData

    def pinned(self, data: DeltaData) -> DeltaData:
        """The same section, whose versions are numbers.

        Raises:
            DataError: there is no table, or no such version.
        """
        versions = {"version": _open(data, data.path, data.version).version()}
        if isinstance(data.held_out, str):
            versions["held_out_version"] = _open(data, data.held_out, data.held_out_version).version()
        return data.at(versions)

    def read(self, data: DeltaData, wanted: Wanted) -> ray.data.Dataset:
        """The sequences of a section. Files that no condition can keep a row of, as the log says, are not read.

        Raises:
            DataError: there is no table or version, the log cannot be read, or a column is missing or does not fit.
        """
        address, conditions = wanted.where or data.path, data.conditions(wanted.where)
        table = _open(data, address, data.version_of(wanted.where))
        if _is_mapped(table):
            return _scanned(table, address, data, conditions, wanted)
        filesystem, path = open_file_system(address, endpoint=data.endpoint)
        try:
            dataset = table.to_pyarrow_dataset(filesystem=fs.SubTreeFileSystem(path, filesystem))
            sizes = _sizes(table)
        except _ERRORS as error:
            raise DataError(f"{address} cannot be read as Delta: {error}") from None
        filter_of(conditions, dataset.schema)  # before anything is read
        compared = [
            one for one in conditions if meaning_of(one, dataset.schema.field(one.column).type).values is not None
        ]
        pushed = filter_of(compared, dataset.schema)
        files = sorted(dataset.get_fragments(pushed), key=lambda file: str(file.path))
        if not files:
            none = f": data.where keeps none of version {table.version()}" if conditions else ""
            raise DataError(f"{address} has no rows{none}")
        fewest = 1 if data.order_by is None else FEWEST_BUCKETS
        runs = neighbours(np.array([sizes.get(file.path, 1) for file in files]), fewest=fewest)
        parts = [[files[number] for number in run] for run in runs]
        read = functools.partial(_read, address, table.version(), dataset.schema, pushed, conditions)
        schema = plain_schema(dataset.schema)
        return sequences_of_table(Table([address], [schema], parts, read, beside(filesystem)), data, wanted)


def _open(data: DeltaData, address: str, version: int | str | None) -> DeltaTable:
    filesystem, path = open_file_system(address, endpoint=data.endpoint)
    try:
        if filesystem.get_file_info(posixpath.join(path, "_delta_log")).type != fs.FileType.Directory:
            raise DataError(f"{address} is no Delta table: there is no directory _delta_log in it")
        where = path if filesystem.type_name == "local" else address
        table = DeltaTable(where, storage_options=_store(data.endpoint))
        if version is not None:
            _go_to(table, address, version)
    except _ERRORS as error:
        raise DataError(f"{address} cannot be read as Delta: {error}") from None
    return table


def _store(endpoint: str | None) -> dict[str, str] | None:
    """What deltalake does not find in the environment by itself, which has the credentials."""
    if endpoint is None:
        return None
    return {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": str(endpoint.startswith("http://")).lower()}


def _go_to(table: DeltaTable, address: str, version: int | str) -> None:
    newest = table.version()
    if isinstance(version, int) and version > newest:
        raise DataError(f"{address} has no version {version}: the newest is {newest}")
    time = as_time(version) if isinstance(version, str) else None
    try:
        # deltalake takes the first version for any time before it
        is_known = time is None or table.history()[-1]["timestamp"] <= time.timestamp() * 1000
        table.load_as_version(version if time is None else time)
    except _ERRORS as error:
        raise DataError(f"{address} cannot be read at version {version} (the newest is {newest}): {error}") from None
    if not is_known:
        raise DataError(f"{address} has no version {version}: it was not there yet")


def _is_mapped(table: DeltaTable) -> bool:
    features = {*(table.protocol().reader_features or ())}
    mapping = table.metadata().configuration.get("delta.columnMapping.mode", "none")
    return bool(features & _MAPPED) or mapping != "none"


def _sizes(table: DeltaTable) -> dict[str, int]:
    files = pa.table(table.get_add_actions())
    return dict(zip(files["path"].to_pylist(), files["size_bytes"].to_pylist(), strict=True))


def _read(
    address: str,
    version: int,
    schema: pa.Schema,
    pushed: pc.Expression | None,
    conditions: Sequence[Condition],
    files: Sequence[ParquetFileFragment],
    columns: Sequence[str],
) -> Iterator[Piece]:
    used = list(dict.fromkeys([*columns, *columns_of(conditions)]))
    for file in files:
        try:
            rows = file.to_table(schema=schema, columns=used, filter=pushed, use_threads=False)
        except FileNotFoundError:
            raise DataError(f"{address} cannot be read at version {version}: {file.path} is gone. {_GONE}") from None
        except (OSError, ValueError, pa.ArrowException) as error:
            raise DataError(f"{address}: {file.path} cannot be read: {error}") from None
        # what Delta promises of a column without a value misleads Arrow, which then keeps rows that have none
        yield Piece(kept(plain(rows), conditions).select(list(columns)), str(file.path), 0)


def _scanned(
    table: DeltaTable, address: str, data: DeltaData, conditions: Sequence[Condition], wanted: Wanted
) -> ray.data.Dataset:
    """The same, read by deltalake's own engine in one task, whose rows come in no order."""
    if data.order_by is None and data.key is None:
        raise DataError(
            f"{address} has deletion vectors or renamed columns, and rows that are sequences come in no order from "
            "such a table: give data.key, a column that names them"
        )
    schema = pa.schema(table.schema().to_arrow())
    filter_of(conditions, schema)
    columns = None
    if data.order_by is None or data.features is not None:
        columns = [*data.named_columns(labelled=wanted.labelled, weighed=wanted.weighed), *columns_of(conditions)]
        columns = [name for name in schema.names if name in columns]
    where, _ = open_file_system(address, endpoint=data.endpoint)
    source = table.table_uri, _store(data.endpoint), table.version()
    scan = ray.remote(num_returns="streaming", **beside(where))(_scan)
    blocks = streamed(scan.remote(source, columns, conditions))
    if data.order_by is not None:
        return sequences_of_blocks(blocks, data, wanted)
    return sequences_of_dataset(ray.data.from_arrow_refs(blocks).sort(str(data.key)), data, wanted)


def _scan(
    source: tuple[str, Any, int], columns: list[str] | None, conditions: Sequence[Condition]
) -> Iterator[pa.Table]:
    where, options, version = source
    try:
        reader = DeltaTable(where, version=version, storage_options=options).scan(columns)
        for batch in pa.RecordBatchReader.from_stream(reader):
            yield kept(plain(pa.Table.from_batches([batch])), conditions)
    except (*_ERRORS, pa.ArrowException) as error:
        gone = f". {_GONE}" if "not found" in str(error).lower() else ""
        raise DataError(f"{where} cannot be read at version {version}: {error}{gone}") from None
