"""Delta, Iceberg, ORC, Avro and SQL give the sequences that Parquet gives of the same rows."""

import sqlite3
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import deltalake
import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc
from pyiceberg.catalog import Catalog, load_catalog

from rayrnn.data.sequences import gather, take
from rayrnn.data.sources import read
from rayrnn.errors import DataError
from rayrnn.recipe.data_sections import Data, ParquetData
from rayrnn.recipe.table_sections import AvroData, DeltaData, IcebergData, OrcData, SqlData
from tests.asked import needs

STEPS = {"key": "device", "order_by": "at", "label": "state"}
ROWS = {"key": "device", "values": "series", "label": "state"}


def write_parquet(table: pa.Table, place: Path) -> ParquetData:
    place.mkdir()
    pq.write_table(table, place / "a.parquet", row_group_size=7)
    return ParquetData(path=str(place), **keys_of(table))


def write_orc(table: pa.Table, place: Path) -> OrcData:
    place.mkdir()
    half = len(table) // 2
    orc.write_table(table.slice(0, half), place / "a.orc")
    orc.write_table(table.slice(half), place / "b.orc")
    return OrcData(path=str(place), **keys_of(table))


_AVRO = {pa.int64(): "long", pa.float64(): "double", pa.string(): "string", pa.list_(pa.float64()): None}


def write_avro(table: pa.Table, place: Path) -> AvroData:
    place.mkdir()
    lists = {"type": "array", "items": "double"}
    fields = [{"name": field.name, "type": ["null", _AVRO[field.type] or lists]} for field in table.schema]
    with open(place / "a.avro", "wb") as file:
        fastavro.writer(file, {"type": "record", "name": "row", "fields": fields}, table.to_pylist())
    return AvroData(path=str(place), **keys_of(table))


def write_delta(table: pa.Table, place: Path) -> DeltaData:
    half = len(table) // 2
    deltalake.write_deltalake(str(place), table.slice(0, half), partition_by=["state"])
    deltalake.write_deltalake(str(place), table.slice(half), mode="append")
    return DeltaData(path=str(place), **keys_of(table))


def catalog_at(place: Path) -> dict[str, str]:
    return {"name": "tests", "type": "sql", "uri": f"sqlite:///{place}.catalog", "warehouse": f"file://{place}"}


def catalog_of(place: Path) -> Catalog:
    catalog = load_catalog(**catalog_at(place))
    catalog.create_namespace_if_not_exists("plant")
    return catalog


def write_iceberg(table: pa.Table, place: Path) -> IcebergData:
    half = len(table) // 2
    stored = catalog_of(place).create_table("plant.sensors", table.schema)
    stored.append(table.slice(0, half))
    stored.append(table.slice(half))
    return IcebergData(table="plant.sensors", catalog=catalog_at(place), **keys_of(table))


def write_sql(table: pa.Table, place: Path) -> SqlData:
    with sqlite3.connect(place) as database:
        database.execute(f"CREATE TABLE sensors ({', '.join(table.column_names)})")
        marks = ", ".join("?" * table.num_columns)
        database.executemany(
            f"INSERT INTO sensors VALUES ({marks})", [tuple(row.values()) for row in table.to_pylist()]
        )
    return SqlData(connection=f"sqlite:///{place}", query="SELECT * FROM sensors;", **keys_of(table))


WRITERS: dict[str, Callable[[pa.Table, Path], Any]] = {
    **{"delta": write_delta, "iceberg": write_iceberg, "orc": write_orc, "avro": write_avro, "sql": write_sql},
    "parquet": write_parquet,
}


def keys_of(table: pa.Table) -> dict[str, Any]:
    return ROWS if "series" in table.column_names else STEPS


def steps(count: int = 60) -> pa.Table:
    device, at = np.arange(count) % 7, np.arange(count) // 7
    state = np.where(device % 2, "run", "walk")
    table = pa.table({"device": device, "at": at, "x": at * 0.5 + device, "y": device * 1.0, "state": state})
    return table.take(np.random.default_rng(1).permutation(count))


def sequence_rows() -> pa.Table:
    series = [[float(number)] * (1 + number % 3) for number in range(9)]
    return pa.table(
        {"device": [f"d{n}" for n in range(9)], "series": series, "other": range(9), "state": list("ababababa")}
    )


def sequences(data: Data, task: str = "classification", **asked: Any) -> list[dict[str, Any]]:
    found = gather(read(data, needs(task), **asked), needs(task))
    rows: list[dict[str, Any]] = take(found, np.arange(len(found))).to_pylist()
    return rows


def with_keys(data: Any, **keys: Any) -> Any:
    return type(data).model_validate(data.model_dump(exclude_unset=True) | keys)


def fault(data: Data, task: str = "classification", **asked: Any) -> str:
    with pytest.raises(DataError) as told:
        sequences(data, task, **asked)
    return str(told.value)


def by_key(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: row["key"])


@pytest.mark.parametrize("source", WRITERS)
def test_steps_are_brought_together(ray_cluster: None, tmp_path: Path, source: str) -> None:
    due = sequences(write_parquet(steps(), tmp_path / "parquet-too"))
    found = sequences(WRITERS[source](steps(), tmp_path / "table"))
    assert found == due
    assert len(due) == 7
    assert due[0]["values"] == sorted(due[0]["values"])


@pytest.mark.parametrize("source", [source for source in WRITERS if source != "sql"])
def test_rows_are_sequences(ray_cluster: None, tmp_path: Path, source: str) -> None:
    due = sequences(write_parquet(sequence_rows(), tmp_path / "parquet-too"))
    assert by_key(sequences(WRITERS[source](sequence_rows(), tmp_path / "table"))) == due
    assert due[2] == {"key": "d2", "values": [[2], [2], [2]], "label": "a"}


@pytest.mark.parametrize("source", WRITERS)
def test_only_rows_that_all_conditions_keep_are_read(ray_cluster: None, tmp_path: Path, source: str) -> None:
    data = WRITERS[source](steps(), tmp_path / "table")
    some = with_keys(data, where=[["state", "=", "run"], ["at", ">=", 2], ["at", "<", 7.0], ["device", "not in", [3]]])
    found = sequences(some)
    assert [row["key"] for row in by_key(found)] == ["1", "5"]
    assert [row[0] for row in by_key(found)[0]["values"]] == [2.0, 2.5, 3.0, 3.5, 4.0]
    assert len(sequences(with_keys(data, where=[["device", "in", [3, 4]], ["x", "!=", None]]))) == 2
    assert "data.where keeps none" in fault(with_keys(data, where=[["at", ">", 1000]]))
    assert "there is no column 'tat'" in fault(with_keys(data, where=[["tat", ">", 1000]]))


@pytest.mark.parametrize("source", WRITERS)
@pytest.mark.parametrize(
    ("condition", "devices"),
    [
        *(
            (["device", "<", "3"], "012"),
            (["device", "in", ["1", "2"]], "12"),
            (["device", "not in", [2, 2.5]], "013456"),
        ),
        *((["at", ">=", 0.5], "0123456"), (["device", "<", 2.5], "012"), (["device", ">", 4.5], "56")),
        *((["device", ">=", 2**63], ""), (["device", "<", 2**70], "0123456"), (["device", "!=", 1.5], "0123456")),
        *((["device", "==", 1.5], ""), (["device", ">", float("-inf")], "0123456"), (["y", "<=", "1.5"], "01")),
    ],
)
def test_a_number_means_the_same_however_it_is_written(
    ray_cluster: None, tmp_path: Path, source: str, condition: list[Any], devices: str
) -> None:
    data = with_keys(WRITERS[source](steps(14), tmp_path / "table"), where=[condition])
    if not devices:
        assert "data.where keeps none" in fault(data)
        return
    assert "".join(row["key"] for row in by_key(sequences(data))) == devices


ODD = pa.table(
    {
        "device": ["a", "a", "b", "b"],
        "at": [0, 1, 0, 1],
        "x": [1.0, 2.0, 3.0, 4.0],
        "state": ["up", "up", "down", "down"],
        "whole": pa.array([2**64 - 1, 5, 2**63, None], pa.uint64()),
        "half": pa.array([1.5, 2.5, 3.5, None], pa.float16()),
        "single": pa.array([0.1, 0.2, 0.3, None], pa.float32()),
        "clock": pa.array([1, 2, 3, None], pa.time32("s")),
        "naive": pa.array([1, 2, 3, None], pa.timestamp("us")),
        "zoned": pa.array([1, 2, 3, None], pa.timestamp("us", "UTC")),
        "price": pa.array([Decimal("0.10"), Decimal("0.20"), Decimal("0.30"), None], pa.decimal128(9, 2)),
        "lasts": pa.array([1, 2, 3, None], pa.duration("s")),
        "none": pa.nulls(4),
    }
)


@pytest.mark.parametrize(
    ("condition", "due"),
    [
        *((["whole", ">", 5], [1, 3]), (["whole", "==", 2**64 - 1], [1]), (["whole", "in", [2**63, 7, -1]], [3])),
        *((["whole", ">=", "18446744073709551615"], [1]), (["whole", ">", -1], [1, 2, 3])),
        *((["half", "<", 2.5], [1]), (["half", "in", [2.5, 3.5]], [2, 3]), (["half", "!=", 1.5], [2, 3])),
        *((["single", "==", 0.1], [1]), (["single", "in", [0.2]], [2]), (["single", "<", 10**400], [1, 2, 3])),
        *((["clock", ">=", "00:00:02"], [2, 3]), (["clock", "==", "00:00:03"], [3])),
        *((["naive", "<", "1970-01-01T00:00:00.000002"], [1]), (["zoned", "<", "1970-01-01T00:00:00.000002Z"], [1])),
        *((["price", "<", 0.2], [1]), (["none", "==", None], [1, 2, 3, 4])),
    ],
)
def test_conditions_on_columns_of_every_type(
    ray_cluster: None, tmp_path: Path, condition: list[Any], due: list[float]
) -> None:
    data = with_keys(write_parquet(ODD, tmp_path / "table"), features=["x"], where=[condition])
    assert sorted(x for row in sequences(data) for (x,) in row["values"]) == due


def test_a_value_that_a_column_cannot_have_is_told(ray_cluster: None, tmp_path: Path) -> None:
    told = {
        "whole": ("two", "due is a number"),
        "clock": (36001, "due is a time of day in quotes, such as '09:05:00'"),
        "naive": ("1970-01-01T00:00:00Z", "due is a time without a zone, such as 2024-01-31T09:05:00"),
        "zoned": ("noon", "due is a time, such as 2024-01-31T09:05:00Z"),
        "price": (0.001, "due is a number with at most 2 digits behind the point"),
        "lasts": ("00:00:01", "only == null and != null are asked of such a column"),
    }
    data = with_keys(write_parquet(ODD, tmp_path / "table"), features=["x"])
    for column, (value, due) in told.items():
        says = fault(with_keys(data, where=[[column, "<", value]]))
        assert f"data.where: column {column!r} holds " in says
        assert says.endswith(f"and {value!r} is none: {due}")
    assert "no row is left" in fault(with_keys(data, where=[["none", "==", 1]]))
