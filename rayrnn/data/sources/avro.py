"""Avro files: read whole, with the Arrow types that their own schema means."""

from collections.abc import Mapping, Sequence
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.types as kinds
import ray.data
from pyarrow import fs

from rayrnn.data.sources.source import Wanted
from rayrnn.data.sources.table_files import Inside, Unit, read_files
from rayrnn.errors import DataError
from rayrnn.recipe.row_conditions import Condition
from rayrnn.recipe.table_sections import AvroData

_PLAIN = {
    **{"null": pa.null(), "boolean": pa.bool_(), "int": pa.int32(), "long": pa.int64(), "float": pa.float32()},
    **{"double": pa.float64(), "bytes": pa.binary(), "string": pa.string(), "enum": pa.string()},
}
_LOGICAL = {
    **{"date": pa.date32(), "time-millis": pa.time32("ms"), "time-micros": pa.time64("us"), "uuid": pa.string()},
    **{"timestamp-millis": pa.timestamp("ms", "UTC"), "timestamp-micros": pa.timestamp("us", "UTC")},
    **{"local-timestamp-millis": pa.timestamp("ms"), "local-timestamp-micros": pa.timestamp("us")},
}

_BEGINS = b"Obj\x01"


class Avro:
    """Avro files, whose records are sequences or steps."""

    section = AvroData

    def read(self, data: AvroData, wanted: Wanted) -> ray.data.Dataset:
        """The sequences of a section; see `read_files`.

        Raises:
            DataError: a file is no Avro file, or lacks a column that the recipe names.
        """
        return read_files(_AvroFiles(), data, wanted)


class _AvroFiles:
    name = "Avro"
    # fastavro raises whatever its decoder stumbles over
    errors: tuple[type[Exception], ...] = (
        OSError,
        ValueError,
        EOFError,
        LookupError,
        TypeError,
        ArithmeticError,
        AttributeError,
        MemoryError,
        SystemError,
    )

    def look(self, filesystem: fs.FileSystem, path: str) -> Inside:
        with filesystem.open_input_file(path) as file:
            if file.read(len(_BEGINS)) != _BEGINS:
                raise ValueError("it does not begin as an Avro file does")
            file.seek(0)
            schema = _schema_of(fastavro.reader(file))
            # how many records there are is not known before all are read
            return Inside(schema, [Unit(1, file.size())])

    def read(
        self,
        filesystem: fs.FileSystem,
        path: str,
        units: Sequence[int],
        columns: Sequence[str],
        conditions: Sequence[Condition],
    ) -> pa.Table:
        with filesystem.open_input_file(path) as file:
            reader = fastavro.reader(file)
            schema = _schema_of(reader)
            cells: dict[str, list[Any]] = {name: [] for name in columns}
            for record in reader:
                for name in columns:
                    cells[name].append(record[name])
        return pa.table({name: _cells(name, cells[name], schema.field(name).type) for name in columns})


def _cells(name: str, values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        if kinds.is_string(kind):  # a uuid is an object
            values = [None if value is None else str(value) for value in values]
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError) as error:
        raise DataError(f"column {name!r} cannot be read as {kind}: {error}") from None


def _schema_of(reader: Any) -> pa.Schema:
    """
    Raises:
        ValueError: the file holds something else than records.
    """
    written = reader.writer_schema
    if not isinstance(written, dict) or written.get("type") != "record":
        raise ValueError("it holds no records")
    known: dict[str, pa.DataType] = {}
    return pa.schema([pa.field(column["name"], _kind(column["type"], known)) for column in written["fields"]])


def _kind(written: Any, known: dict[str, pa.DataType]) -> pa.DataType:
    """Arrow's type for one of Avro's; `known` has those with names that stood before it."""
    if isinstance(written, list):
        return _one_of([_kind(one, known) for one in written])
    if isinstance(written, str):
        return _PLAIN[written] if written in _PLAIN else known[written]
    name = written["type"]
    kind = _logical(written) or _nested(name, written, known)
    if "name" in written:
        known[written["name"]] = kind
    return kind


def _logical(written: Mapping[str, Any]) -> pa.DataType | None:
    if written.get("logicalType") == "decimal":
        precision = int(written["precision"])
        make = pa.decimal128 if precision <= 38 else pa.decimal256
        return make(precision, int(written.get("scale", 0)))
    return _LOGICAL.get(written.get("logicalType", ""))


def _nested(name: Any, written: Mapping[str, Any], known: dict[str, pa.DataType]) -> pa.DataType:
    if name == "array":
        return pa.list_(_kind(written["items"], known))
    if name == "map":
        return pa.map_(pa.string(), _kind(written["values"], known))
    if name == "fixed":
        return pa.binary(int(written["size"]))
    if name in ("record", "error"):
        known[written["name"]] = pa.null()  # a record inside of itself is none of our tables
        return pa.struct([pa.field(part["name"], _kind(part["type"], known)) for part in written["fields"]])
    return _kind(name, known)


def _one_of(branches: Sequence[pa.DataType]) -> pa.DataType:
    """A type with null is that type; several numbers are one number; anything else is what nobody learns."""
    there = [kind for kind in dict.fromkeys(branches) if not kinds.is_null(kind)]
    if len(there) < 2:
        return there[0] if there else pa.null()
    if all(kinds.is_integer(kind) for kind in there):
        return pa.int64()
    if all(kinds.is_integer(kind) or kinds.is_floating(kind) for kind in there):
        return pa.float64()
    return pa.dense_union([pa.field(str(kind), kind) for kind in there])
