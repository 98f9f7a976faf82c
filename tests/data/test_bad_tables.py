"""Tables that are broken, empty, changed, or hold what nobody can learn: each is told, as it is for Parquet."""

import base64
import datetime
import json
import sqlite3
import struct
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import deltalake
import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyroaring
import pytest
from pyarrow import orc
from pyiceberg.types import LongType

from rayrnn.data.sources import pinned
from rayrnn.errors import UsageError
from rayrnn.recipe.data_sections import ParquetData
from rayrnn.recipe.table_sections import AvroData, DeltaData, IcebergData, OrcData, SqlData
from tests.data.test_stored_tables import (
    ROWS,
    STEPS,
    by_key,
    catalog_at,
    catalog_of,
    fault,
    sequence_rows,
    sequences,
    steps,
    with_keys,
    write_delta,
    write_sql,
)
from tests.s3_store import Store


def table_of(**columns: Any) -> pa.Table:
    plain = {"device": ["a", "a", "b"], "at": [0, 1, 0], "x": [1.0, 2.0, 3.0], "state": ["up", "up", "down"]}
    return pa.table({**plain, **columns})


def parquet(table: pa.Table, place: Path) -> Any:
    pq.write_table(table, place)
    return ParquetData(path=str(place), **STEPS)


def delta(table: pa.Table, place: Path) -> Any:
    deltalake.write_deltalake(str(place), table)
    return DeltaData(path=str(place), **STEPS)


def iceberg(table: pa.Table, place: Path) -> Any:
    catalog_of(place).create_table("plant.sensors", table.schema).append(table)
    return IcebergData(table="plant.sensors", catalog=catalog_at(place), **STEPS)


def orc_file(table: pa.Table, place: Path) -> Any:
    orc.write_table(table, place)
    return OrcData(path=str(place), **STEPS)


WRITERS: dict[str, Callable[[pa.Table, Path], Any]] = {
    **{"parquet": parquet, "delta": delta, "iceberg": iceberg, "orc": orc_file},
}
ZONED = pa.array([datetime.datetime(2024, 1, day, tzinfo=datetime.UTC) for day in (2, 1, 1)], pa.timestamp("us", "UTC"))
DAYS = pa.array([datetime.date(2024, 1, day) for day in (2, 1, 1)])
CELLS: dict[str, tuple[dict[str, Any], str]] = {
    "a key that is null": ({"device": ["a", None, "b"]}, "column 'device' (data.key) is empty in 1 rows"),
    "a key that is a struct": (
        {"device": [{"id": 1}, {"id": 1}, {"id": 2}]},
        "column 'device' (data.key) holds struct<id: int64>: it takes text, whole numbers or times",
    ),
    "two steps in one place": ({"at": [1, 1, 0]}, "sequence 'a', at 1: two steps have this place"),
    "an empty cell": ({"x": [1.0, None, 2.0]}, "sequence 'a', at 1: column 'x' is empty or not a number"),
    "words among the features": ({"x": ["one", "two", "three"]}, "column 'x' holds"),
    "lists of lists": ({"x": [[[1.0]], [[2.0]], [[3.0]]]}, ": double>>, no numbers: leave it out"),
}


@pytest.mark.parametrize("source", WRITERS)
def test_cells_that_nobody_can_learn_are_told_as_for_parquet(ray_cluster: None, tmp_path: Path, source: str) -> None:
    for number, (columns, says) in enumerate(CELLS.values()):
        data = WRITERS[source](table_of(**columns), tmp_path / f"table{number}")
        assert says in fault(data), (source, columns)
    data = WRITERS[source](table_of(), tmp_path / "table")
    assert "there is no column 'device2'; the columns are" in fault(with_keys(data, key="device2"))
    assert "data.where: there is no column 'x2'" in fault(with_keys(data, where=[["x2", "==", 1]]))
    assert "data.where: column 'x' holds double, and 'many' is none" in fault(
        with_keys(data, where=[["x", "<", "many"]])
    )


@pytest.mark.parametrize("source", WRITERS)
def test_times_dates_decimals_and_lists_are_read(ray_cluster: None, tmp_path: Path, source: str) -> None:
    price = pa.array([Decimal("1.50"), Decimal("2.25"), Decimal("3.00")], pa.decimal128(10, 2))
    table = table_of(at=ZONED, x=price, y=[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], day=DAYS)
    data = with_keys(WRITERS[source](table, tmp_path / "table"), ignore=["day"])
    assert by_key(sequences(data))[0]["values"] == [[2.25, 3, 4], [1.5, 1, 2]]
    by_day = with_keys(data, order_by="day", features=["x"], where=[["at", ">=", "2024-01-01"], ["x", "<", 3]])
    assert by_key(sequences(by_day)) == [{"key": "a", "values": [[2.25], [1.5]], "label": "up"}]
    newer = with_keys(by_day, where=[["day", ">", "2024-01-01"], ["at", "<", "2024-01-02T00:00:01Z"]])
    assert [row["values"] for row in sequences(newer)] == [[[1.5]]]


def test_a_key_with_a_hundred_thousand_steps_is_one_sequence(ray_cluster: None, tmp_path: Path) -> None:
    count = 100_000
    device = np.concatenate([np.zeros(count, np.int64), np.arange(1, 50)])
    at = np.concatenate([np.arange(count)[::-1], np.zeros(49, np.int64)])
    table = pa.table({"device": device, "at": at, "x": at * 0.5, "state": np.where(device % 2, "odd", "even")})
    rows = sequences(delta(table, tmp_path / "table"))
    assert len(rows) == 50
    (long,) = (row for row in rows if row["key"] == "0")
    assert [len(long["values"]), long["values"][0][0], long["values"][-1][0]] == [count, 0, (count - 1) / 2]


def test_a_delta_table_whose_columns_have_changed(ray_cluster: None, tmp_path: Path) -> None:
    place = tmp_path / "table"
    data = delta(table_of(), place)
    added = table_of(device=["c", "c", "d"], y=[7.0, 8.0, 9.0])
    deltalake.write_deltalake(str(place), added, mode="append", schema_mode="merge")
    told = fault(data)
    assert "sequence 'a', at 0: column 'y' is empty" in told
    assert [row["key"] for row in by_key(sequences(with_keys(data, where=[["y", "!=", None]])))] == ["c", "d"]
    unset = with_keys(data, where=[["y", "==", None]], features=["x"])
    assert [row["key"] for row in by_key(sequences(unset))] == ["a", "b"]
    assert len(sequences(with_keys(data, version=0))) == 2
    retyped = table_of(x=["1", "2", "3"])
    deltalake.write_deltalake(str(place), retyped, mode="overwrite", schema_mode="overwrite")
    assert "column 'x' holds string, no numbers" in fault(data)
    assert [row["key"] for row in by_key(sequences(with_keys(data, version=0)))] == ["a", "b"]


def test_versions_of_a_delta_table(ray_cluster: None, tmp_path: Path) -> None:
    place = tmp_path / "table"
    data = delta(table_of(), place)
    before = datetime.datetime.now(datetime.UTC)
    deltalake.write_deltalake(str(place), table_of(device=["c", "c", "d"]), mode="append")
    assert len(sequences(data)) == 4
    assert pinned(data, {}).describe() == f"{place}, version 1"
    then = with_keys(data, version=before.isoformat(), held_out=str(place), held_out_version=0)
    assert pinned(then, {}).versions == {"version": 0, "held_out_version": 0}  # type: ignore[attr-defined]
    assert pinned(then, {"version": 1}).versions["version"] == 1  # type: ignore[attr-defined]
    assert len(sequences(then)) == len(sequences(then, where=str(place))) == 2
    assert f"{place} has no version 7: the newest is 1" in fault(with_keys(data, version=7))
    assert "has no version 1999-01-01: it was not there yet" in fault(with_keys(data, version="1999-01-01"))
    old = next(file for file in place.glob("*.parquet"))
    old.unlink()
    told = fault(data)
    assert f"{place} cannot be read at version 1: {old.name} is gone. VACUUM removes the files" in told
    assert told.endswith("`rayrnn evaluate RUN --data PATH` measures on the table as it is now")


def test_a_delta_table_that_is_none_or_broken_or_empty_is_told(ray_cluster: None, tmp_path: Path) -> None:
    assert "there is no directory _delta_log in it" in fault(DeltaData(path=str(tmp_path / "nowhere"), **STEPS))
    assert not (tmp_path / "nowhere").exists()
    empty = tmp_path / "empty"
    deltalake.DeltaTable.create(str(empty), table_of().schema)
    assert f"{empty} has no rows" in fault(DeltaData(path=str(empty), **STEPS))
    data = delta(table_of(), tmp_path / "table")
    log = tmp_path / "table/_delta_log/00000000000000000000.json"
    log.write_text(log.read_text()[:200])
    assert "cannot be read as Delta" in fault(data)
    log.unlink()
    assert "cannot be read as Delta" in fault(data)


def rewrite_log(place: Path, change: Callable[[dict[str, Any]], None]) -> None:
    log = place / "_delta_log/00000000000000000000.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        change(action)
    log.write_text("".join(json.dumps(action) + "\n" for action in actions))


def z85(content: bytes) -> str:
    ours = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
    theirs = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    padded = content + b"\0" * (-len(content) % 4)
    return base64.b85encode(padded).decode().translate(str.maketrans(ours, theirs))


def test_deleted_rows_of_a_delta_table_are_left_out(ray_cluster: None, tmp_path: Path) -> None:
    """As Spark deletes them: the file stays, and a vector says which of its rows are gone."""
    data = delta(table_of(), tmp_path / "table")
    gone = struct.pack("<i", 1681511377) + pyroaring.BitMap64([1]).serialize()

    def change(action: dict[str, Any]) -> None:
        if "protocol" in action:
            features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
            action["protocol"] = {"minReaderVersion": 3, "minWriterVersion": 7, **features}
        if "add" in action:
            vector = {"storageType": "i", "pathOrInlineDv": z85(gone), "sizeInBytes": len(gone), "cardinality": 1}
            action["add"]["deletionVector"] = vector

    rewrite_log(tmp_path / "table", change)
    assert [row["values"] for row in by_key(sequences(data))] == [[[1.0]], [[3.0]]]
    assert [row["key"] for row in sequences(with_keys(data, where=[["x", "<", 2]], features=["x"]))] == ["a"]
    nameless = DeltaData(path=data.path, values="x", label="state")
    assert "in no order from such a table: give data.key" in fault(nameless)


def test_renamed_columns_of_a_delta_table_are_found(ray_cluster: None, tmp_path: Path) -> None:
    table = pa.table({"device": ["b", "a"], "series": [[1.0, 2.0], [3.0]], "state": ["up", "down"]})
    deltalake.write_deltalake(str(tmp_path / "table"), table.rename_columns(["c1", "c2", "c3"]))

    def change(action: dict[str, Any]) -> None:
        if "protocol" in action:
            action["protocol"] = {"minReaderVersion": 2, "minWriterVersion": 5}
        if "metaData" in action:
            schema = json.loads(action["metaData"]["schemaString"])
            for number, (field, name) in enumerate(zip(schema["fields"], table.column_names, strict=True), start=1):
                physical = field["name"]
                field["name"] = name
                field["metadata"] = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": physical}
            action["metaData"]["schemaString"] = json.dumps(schema)
            action["metaData"]["configuration"] = {
                "delta.columnMapping.mode": "name",
                "delta.columnMapping.maxColumnId": "3",
            }

    rewrite_log(tmp_path / "table", change)
    rows = sequences(DeltaData(path=str(tmp_path / "table"), **ROWS))
    assert [(row["key"], row["values"]) for row in rows] == [("a", [[3]]), ("b", [[1], [2]])]


def test_an_iceberg_table_whose_columns_have_changed(ray_cluster: None, tmp_path: Path) -> None:
    data = iceberg(table_of(at=pa.array([0, 1, 0], pa.int32())), tmp_path / "lake")
    table = catalog_of(tmp_path / "lake").load_table("plant.sensors")
    first = table.current_snapshot().snapshot_id
    table.manage_snapshots().create_tag(first, "release-1").commit()
    with table.update_schema() as update:
        update.add_column("y", LongType())
        update.update_column("at", LongType())
        update.rename_column("x", "speed")
    table.append(table_of(device=["c", "c", "d"], y=[7, 8, 9]).rename_columns({"x": "speed"}))
    assert "sequence 'a', at 0: column 'y' is empty" in fault(data)
    assert len(sequences(with_keys(data, features=["speed"]))) == 4
    for version in (first, "release-1", datetime.datetime.now(datetime.UTC).isoformat()):
        whole = pinned(with_keys(data, version=version), {})
        expected = first if version != table.current_snapshot().snapshot_id and "T" not in str(version) else None
        assert whole.versions["version"] == (expected or table.current_snapshot().snapshot_id)  # type: ignore[attr-defined]
    assert len(sequences(with_keys(data, version=first))) == 2
    assert "has no version 77: its snapshots are" in fault(with_keys(data, version=77))
    assert "has no version release-2" in fault(with_keys(data, version="release-2"))
    assert "has no version 1999-01-01" in fault(with_keys(data, version="1999-01-01"))
    metadata = IcebergData(table=table.metadata_location, **STEPS, features=["speed"])
    assert len(sequences(metadata)) == 4


def test_columns_of_an_iceberg_table_are_those_that_it_has_now(ray_cluster: None, tmp_path: Path) -> None:
    data = iceberg(table_of(leak=[7.0, 8.0, 9.0]), tmp_path / "lake")
    table = catalog_of(tmp_path / "lake").load_table("plant.sensors")
    snapshot, begun = table.current_snapshot().snapshot_id, pinned(data, {}).versions  # type: ignore[attr-defined]
    table.manage_snapshots().create_tag(snapshot, "2024").create_branch(snapshot, "trial").commit()
    with table.update_schema() as update:
        update.delete_column("leak")
        update.rename_column("x", "speed")
    now = [{"key": "a", "values": [[1], [2]], "label": "up"}, {"key": "b", "values": [[3]], "label": "down"}]
    then = [[[1, 7], [2, 8]], [[3, 9]]]
    assert by_key(sequences(data)) == by_key(sequences(with_keys(data, version="trial"))) == now
    assert by_key(sequences(with_keys(data, where=[["speed", "<", 1.5]])))[0]["values"] == [[1]]
    for version in (snapshot, "2024", 2024):
        assert [row["values"] for row in by_key(sequences(with_keys(data, version=version)))] == then
    assert len(sequences(with_keys(data, version="2024", where=[["x", ">", 2.5], ["leak", "==", 9]]))) == 1
    # a run goes on with the columns that it began with, as it does with the rows
    again = pinned(data, begun)
    assert again.versions == begun  # type: ignore[attr-defined]
    assert [row["values"] for row in by_key(sequences(again))] == then
    assert by_key(sequences(pinned(data, pinned(data, {}).versions))) == now  # type: ignore[attr-defined]
    assert "has no schema 77 any more" in fault(pinned(data, begun | {"schema": 77}))


def test_an_iceberg_table_or_catalogue_that_is_not_there_is_told(ray_cluster: None, tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path / "lake")
    catalog.create_table("plant.empty", table_of().schema)
    keys = {"catalog": catalog_at(tmp_path / "lake"), **STEPS}
    assert "plant.empty has no rows: nothing was written into it yet" in fault(IcebergData(table="plant.empty", **keys))
    assert "plant.none cannot be found in the catalogue" in fault(IcebergData(table="plant.none", **keys))
    away = IcebergData(table="plant.a", catalog={"type": "rest", "uri": "http://127.0.0.1:9"}, **STEPS)
    assert "plant.a cannot be found in the catalogue type rest, uri http://127.0.0.1:9" in fault(away)
    assert "cannot be found in the catalogue" in fault(IcebergData(table="a.b", catalog={"type": "nonsense"}, **STEPS))
    lost = IcebergData(table="plant.a", catalog={"type": "rest", "token": "${RAYRNN_NOT_SET}"}, **STEPS)
    assert "data.catalog.token names the variable RAYRNN_NOT_SET" in fault(lost)


def test_orc_files_that_differ_or_are_none_are_told(ray_cluster: None, tmp_path: Path) -> None:
    (tmp_path / "kind=up").mkdir()
    orc.write_table(table_of().drop_columns("state"), tmp_path / "kind=up/a.orc", stripe_size=1024)
    data = OrcData(path=str(tmp_path), **(STEPS | {"label": "kind"}))
    assert {row["label"] for row in sequences(data)} == {"up"}
    some = with_keys(data, where=[["kind", "==", "up"], ["x", ">", 1]])
    assert by_key(sequences(some))[0]["values"] == [[2.0]]
    (tmp_path / "kind=down").mkdir()
    orc.write_table(table_of(x=["1", "2", "3"]).drop_columns("state"), tmp_path / "kind=down/b.orc")
    assert "column 'x' holds" in fault(data)
    (tmp_path / "kind=down/b.orc").write_text("no table")
    assert "b.orc cannot be read as ORC" in fault(data)
    orc.write_table(table_of().slice(0, 0), tmp_path / "empty.orc")
    assert "empty.orc has no rows" in fault(OrcData(path=str(tmp_path / "empty.orc"), **STEPS))


def write_records(place: Path, records: list[dict[str, Any]], **types: Any) -> AvroData:
    plain = {"device": "string", "at": "long", "x": "double", "state": "string"} | types
    fields = [{"name": name, "type": kind} for name, kind in plain.items()]
    with open(place, "wb") as file:
        fastavro.writer(file, {"type": "record", "name": "step", "fields": fields}, records)
    return AvroData(path=str(place), **STEPS)


def test_avro_records_of_all_types_are_read_or_told(ray_cluster: None, tmp_path: Path) -> None:
    day = datetime.datetime(2024, 1, 31, 9, 5, tzinfo=datetime.UTC)
    record = {"device": uuid.UUID(int=7), "at": day, "x": Decimal("1.50"), "state": "up", "list": [1, 2.5], "n": 3}
    types = {
        "device": {"type": "string", "logicalType": "uuid"},
        "at": {"type": "long", "logicalType": "timestamp-micros"},
        "x": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}],
        "state": {"type": "enum", "name": "state", "symbols": ["up", "down"]},
        "list": {"type": "array", "items": ["int", "double"]},
        "n": ["null", "int"],
    }
    other = record | {"at": day + datetime.timedelta(days=1), "n": 4}
    (row,) = sequences(write_records(tmp_path / "a.avro", [other, record], **types))
    assert row == {"key": str(uuid.UUID(int=7)), "values": [[1.5, 1, 2.5, 3], [1.5, 1, 2.5, 4]], "label": "up"}
    step = {"device": "a", "at": 0, "x": 1.0, "state": "up"}
    mixed = write_records(tmp_path / "b.avro", [step | {"x": "one"}, step], x=["double", "string"])
    assert "column 'x' holds dense_union" in fault(mixed)
    fields = {"type": "record", "name": "inner", "fields": [{"name": "id", "type": "int"}]}
    nested = write_records(tmp_path / "c.avro", [step | {"device": {"id": 1}}], device=fields)
    assert "column 'device' (data.key) holds struct" in fault(nested)
    assert "column 'x' is empty" in fault(
        write_records(tmp_path / "d.avro", [step | {"x": None}], x=["null", "double"])
    )
    assert "no row is left" in fault(write_records(tmp_path / "e.avro", []))
    (tmp_path / "f.avro").write_bytes((tmp_path / "a.avro").read_bytes()[:-20])
    assert "f.avro cannot be read as Avro" in fault(AvroData(path=str(tmp_path / "f.avro"), **STEPS))
    pq.write_table(table_of(), tmp_path / "h.avro")
    assert "h.avro cannot be read as Avro: it does not begin as an Avro file" in fault(
        AvroData(path=str(tmp_path / "h.avro"), **STEPS)
    )
    (tmp_path / "g.avro").write_text("no table")
    assert "g.avro cannot be read as Avro" in fault(AvroData(path=str(tmp_path / "g.avro"), **STEPS))


def sql(place: Path, query: str, **keys: Any) -> SqlData:
    return SqlData(connection=f"sqlite:///{place}", query=query, **(STEPS | keys))


def test_a_query_is_answered_or_its_error_told(ray_cluster: None, tmp_path: Path) -> None:
    place = tmp_path / "plant.db"
    data = write_sql(steps(), place)
    assert "the database cannot answer data.query: no such table: nowhere" in fault(sql(place, "SELECT * FROM nowhere"))
    assert "the database cannot answer data.query: near" in fault(sql(place, "SELEKT * FROM sensors"))
    assert "there is no column 'device2'" in fault(with_keys(data, key="device2"))
    assert "the query gives no rows" in fault(sql(place, "SELECT * FROM sensors WHERE at > 1000"))
    assert "cannot answer data.query" in fault(sql(place, "DELETE FROM sensors"))
    with_colons = "SELECT *, '12:30' AS \"hour:x\" FROM sensors WHERE state <> ':run' ORDER BY at -- all of them"
    assert len(sequences(sql(place, with_colons, ignore=["hour:x"]))) == 7
    held_out = with_keys(data, held_out="SELECT * FROM sensors WHERE device < 2")
    assert len(sequences(held_out, where=held_out.held_out)) == 2
    with sqlite3.connect(place) as database:
        assert database.execute("SELECT COUNT(*) FROM sensors").fetchone() == (60,)
        database.execute("UPDATE sensors SET x = 'fast' WHERE device = 3 AND at = 2")
    assert "column 'x' of the answer holds float and str: CAST it to one type in data.query" in fault(data)
    with sqlite3.connect(place) as database:
        database.execute("UPDATE sensors SET x = 1, device = NULL WHERE device = 3 AND at = 2")
    assert "column 'device' (data.key) is empty in 1 rows" in fault(data)


@pytest.mark.parametrize("name", ["plant#new.db", "100%.db", "50%2520off.db", "a b ü.db"])
def test_a_database_is_read_whatever_its_file_is_called(ray_cluster: None, tmp_path: Path, name: str) -> None:
    write_sql(steps(14), tmp_path / "plant")
    data = write_sql(steps(21), tmp_path / name.replace("%25", "%"))
    (tmp_path / "plant").rename(tmp_path / name.replace("#", "%").partition("%")[0].removesuffix(".db"))
    data = with_keys(data, connection=f"sqlite:///{tmp_path}/{name}", query="SELECT * FROM sensors WHERE at = 2")
    assert len(sequences(data)) == 7


def test_two_columns_of_one_name_and_parameters_of_a_query_are_told(ray_cluster: None, tmp_path: Path) -> None:
    place = tmp_path / "plant.db"
    write_sql(steps(14), place)
    joined = "SELECT * FROM sensors one JOIN sensors other ON one.device = other.device AND one.at = other.at"
    told = fault(sql(place, joined))
    assert "data.query gives 2 columns 'device': name the columns that are to be read, each once" in told
    assert len(sequences(sql(place, joined.replace("*", "one.*, other.x AS other_x")))) == 7
    for parameter in (":most", "?", "@most"):
        told = fault(sql(place, f"SELECT * FROM sensors WHERE state <> ':run?' AND at < {parameter}"))
        assert told.endswith(f"a query takes no parameters, such as {parameter} seems to be: write the value")
    assert "parameters" not in fault(sql(place, "SELECT * FROM nowhere WHERE state <> ':run?' -- why?"))


def test_kinds_in_a_column_of_sqlite_are_compared_as_in_other_tables(ray_cluster: None, tmp_path: Path) -> None:
    place = tmp_path / "plant.db"
    data = write_sql(steps(14), place)
    flagged = with_keys(data, query="SELECT *, device > 4 AS late FROM sensors", ignore=["late"])
    assert [row["key"] for row in by_key(sequences(with_keys(flagged, where=[["late", "==", True]])))] == ["5", "6"]
    assert "data.where: column 'device' holds int64, and 'late' is none: due is a number" in fault(
        with_keys(data, where=[["device", "<", "late"]])
    )
    named = with_keys(data, query="SELECT 'd' || device AS name, sensors.* FROM sensors", ignore=["name"])
    assert "data.where keeps none" in fault(with_keys(named, where=[["name", "<", 3]]))
    with sqlite3.connect(place) as database:
        database.execute("INSERT INTO sensors VALUES ('many', 0, 1, 1, 'run')")
    assert "column 'device' of the answer holds int and str: CAST it" in fault(with_keys(data, where=[["at", "<", 9]]))


def test_directories_of_other_tables_are_told(ray_cluster: None, tmp_path: Path) -> None:
    delta(table_of(), tmp_path / "table")
    iceberg(table_of(), tmp_path / "lake")
    for kind in (ParquetData, OrcData):
        told = fault(kind(path=str(tmp_path / "table"), **STEPS))
        assert f"{tmp_path}/table is a Delta table" in told
        assert told.endswith("read it with source: delta")
        assert fault(kind(path=str(tmp_path / "lake"), **STEPS)).endswith("read it with source: iceberg")
    assert len(sequences(ParquetData(path=f"{tmp_path}/table/*.parquet", **STEPS))) == 2


def test_texts_of_a_query_are_sequences_in_the_order_of_their_names(ray_cluster: None, tmp_path: Path) -> None:
    place = tmp_path / "plant.db"
    with sqlite3.connect(place) as database:
        database.execute("CREATE TABLE notes (id, body, mood)")
        notes = [("b", "good", "up"), ("a", "bad", "down"), ("c", "so so", "up")]
        database.executemany("INSERT INTO notes VALUES (?, ?, ?)", notes)
    named = SqlData(connection=f"sqlite:///{place}", query="SELECT * FROM notes", key="id", text="body", label="mood")
    assert [row["text"] for row in sequences(named)] == ["bad", "good", "so so"]
    ordered = "SELECT body, mood FROM notes ORDER BY body DESC"
    numbered = SqlData(connection=f"sqlite:///{place}", query=ordered, text="body", label="mood")
    assert [(row["key"], row["text"]) for row in sequences(numbered)] == [
        *(("row:0", "so so"), ("row:1", "good"), ("row:2", "bad")),
    ]
    some = with_keys(numbered, where=[["mood", "==", "up"], ["body", "not in", ["good"]]])
    assert [row["text"] for row in sequences(some)] == ["so so"]


def test_a_database_that_is_not_there_is_told(ray_cluster: None, tmp_path: Path) -> None:
    assert f"there is no file {tmp_path / 'none.db'}" in fault(sql(tmp_path / "none.db", "SELECT 1"))
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text.db").write_text("no database at all, only some text that is long enough to be looked at")
    assert "file is not a database" in fault(sql(tmp_path / "text.db", "SELECT * FROM sensors"))
    unknown = SqlData(connection="plantdb://host/plant", query="SELECT 1", **STEPS)
    assert "no database that SQLAlchemy knows" in fault(unknown)
    with pytest.raises(UsageError, match=r"its driver psycopg is not installed here: pip install psycopg"):
        sequences(SqlData(connection="postgresql://host/plant", query="SELECT 1", **STEPS))


@pytest.mark.parametrize("shape", ["steps", "sequences"])
def test_a_delta_table_in_a_bucket_reads_as_a_local_one_does(
    ray_cluster: None, s3_environment: Store, tmp_path: Path, shape: str
) -> None:
    local = write_delta(steps() if shape == "steps" else sequence_rows(), tmp_path / "table")
    s3_environment.upload(tmp_path / "table", f"delta-{shape}")
    there = with_keys(local, path=f"s3://{s3_environment.bucket}/delta-{shape}", endpoint=s3_environment.endpoint)
    assert sequences(there) == sequences(local)
    gone = with_keys(there, path=f"s3://{s3_environment.bucket}/nowhere")
    assert "there is no directory _delta_log in it" in fault(gone)
