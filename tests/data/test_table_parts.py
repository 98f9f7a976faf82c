"""Files of one table that keep a column in several types, or have not all columns, are read as one table or told."""

import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayrnn.data.arrow_lists import flat
from rayrnn.data.words import words
from rayrnn.recipe.data_sections import ParquetData
from rayrnn.recipe.table_sections import IcebergData
from tests.data.test_stored_tables import STEPS, by_key, catalog_at, catalog_of, fault, sequences, with_keys

EAN = 4_006_381_333_931
ORDERED = pa.array(["up", "down"]).dictionary_encode().cast(pa.dictionary(pa.int32(), pa.string(), ordered=True))


def steps(first: int, **columns: Any) -> pa.Table:
    """Two steps each of two devices, from a place in the order on."""
    plain = {"device": [EAN, EAN, EAN + 1, EAN + 1], "at": [first, first + 1] * 2, "x": [1.0, 2.0, 3.0, 4.0]}
    return pa.table({**plain, "state": ["up", "up", "down", "down"], **columns})


def parquet(place: Path, *tables: pa.Table, **keys: Any) -> ParquetData:
    place.mkdir()
    for number, table in enumerate(tables):
        pq.write_table(table, place / f"{number}.parquet")
    return ParquetData(path=str(place), **(STEPS | keys))


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (pa.array([1.0, 1e10, float(EAN), -0.0, 2.0**63, -1e22]), ["1", "10000000000", str(EAN), "0"]),
        (pa.array([1.5, 1e-7, float("nan"), float("inf"), 1e300]), ["1.5", "1e-7", None, "inf", "1e+300"]),
        (pa.array([1.5, 2.0], pa.float16()), ["1.5", "2"]),
        (pa.array([Decimal("5.00"), Decimal("5.10"), None], pa.decimal128(30, 12)), ["5", "5.1", None]),
        (pa.array([Decimal(1200)], pa.decimal128(10, -2)), ["1200"]),
        (pa.array([1e10, 1e10]).dictionary_encode(), ["10000000000"] * 2),
    ],
)
def test_a_number_is_spelled_alike_in_every_type(cells: pa.Array, expected: list[str | None]) -> None:
    assert words(cells).to_pylist()[: len(expected)] == expected
    assert words(pa.array([2.0**63, -1e22])).to_pylist() == [str(2**63), "-1" + "0" * 22]


def test_a_uuid_is_its_text() -> None:
    names = [uuid.uuid4(), None, uuid.UUID(int=7)]
    cells = pa.array([name and name.bytes for name in names], pa.uuid())
    due = [name and str(name) for name in names]
    assert flat(cells).to_pylist() == words(cells).to_pylist() == due
    assert flat(pa.chunked_array([cells[1:], cells])).to_pylist() == due[1:] + due
    assert flat(cells[:0]).to_pylist() == []


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.float64(), pa.decimal128(20, 0), pa.decimal128(22, 2), pa.uint64(), pa.string()),
        pa.dictionary(pa.int32(), pa.int64()),
    ],
)
def test_a_key_in_several_types_is_one_sequence(ray_cluster: None, tmp_path: Path, kind: pa.DataType) -> None:
    device = pa.array([EAN, EAN, EAN + 1, EAN + 1])
    other = device.dictionary_encode() if pa.types.is_dictionary(kind) else device.cast(kind)
    first = steps(0, device=device.cast(kind).dictionary_encode()) if pa.types.is_string(kind) else steps(0)
    rows = by_key(sequences(parquet(tmp_path / "table", first, steps(2, device=other, state=["down"] * 4)), "tagging"))
    assert [row["key"] for row in rows] == [str(EAN), str(EAN + 1)]
    assert [row["label"] for row in rows] == [["up", "up", "down", "down"], ["down"] * 4]


def test_keys_beyond_floating_point_keep_their_digits(ray_cluster: None, tmp_path: Path) -> None:
    keys = [2**53 + 1, 2**53 + 1, 2**53 + 2, 2**53 + 2]
    others = steps(2, device=pa.array([1.0] * 4)).slice(0, 2)
    rows = sequences(parquet(tmp_path / "table", steps(0, device=keys), others))
    assert [row["key"] for row in by_key(rows)] == ["1", str(2**53 + 1), str(2**53 + 2)]


def test_classes_and_categories_in_several_types_are_the_same_words(ray_cluster: None, tmp_path: Path) -> None:
    codes = pa.array([10**10, 10**10, 10**10 + 1, 10**10 + 1])
    one, other = steps(0, state=codes, x=codes), steps(2, state=codes.cast(pa.float64()), x=codes.cast(pa.float64()))
    rows = by_key(sequences(parquet(tmp_path / "table", one, other, categorical=["x"])))
    assert [row["label"] for row in rows] == ["10000000000", "10000000001"]
    assert rows[1]["symbols"] == ["10000000001"] * 4
    text = parquet(
        tmp_path / "text", steps(0), steps(2, state=pa.array(["up", "up", "down", "down"]).dictionary_encode())
    )
    assert [row["label"] for row in by_key(sequences(text))] == ["up", "down"]


def test_keys_of_rows_that_are_sequences_are_spelled_alike(ray_cluster: None, tmp_path: Path) -> None:
    rows = {"values": [[1.0], [2.0]], "state": ["up", "down"]}
    one, other = pa.table({"device": [EAN, EAN + 1], **rows}), pa.table({"device": [EAN + 2.0, None], **rows})
    data = ParquetData(path=str(tmp_path / "table"), key="device", values="values", label="state")
    parquet(tmp_path / "table", one, other)
    assert [row["key"] for row in sequences(data)] == [str(EAN), str(EAN + 1), str(EAN + 2), ""]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.array([0, 1, 0, 1]), pa.array([Decimal("1.5"), Decimal("0.5")] * 2, pa.decimal128(5, 2))),
        (pa.array([0, 2, 0, 2]), pa.array([2**64 - 1, 1] * 2, pa.uint64())),
        (
            pa.array([2**60, 2**60 + 2] * 2),
            pa.array([Decimal(2**60 + 3), Decimal(2**60 + 1)] * 2, pa.decimal128(38, 0)),
        ),
        (pa.array([0, 2, 0, 2], pa.int32()), pa.array([3.5, 1.5] * 2, pa.float32())),
        (pa.array(["t1", "t3"] * 2), pa.array(["t4", "t2"] * 2).dictionary_encode()),
    ],
)
def test_places_in_the_order_are_compared_over_types(
    ray_cluster: None, tmp_path: Path, one: pa.Array, other: pa.Array
) -> None:
    data = parquet(tmp_path / "table", steps(0, at=one), steps(2, at=other, x=[5.0, 6.0, 7.0, 8.0]))
    assert [row["values"] for row in by_key(sequences(data))] == [[[1], [6], [2], [5]], [[3], [8], [4], [7]]]


def test_places_that_one_type_does_not_tell_apart_are_told(ray_cluster: None, tmp_path: Path) -> None:
    late = [2**60, 2**60 + 1] * 2
    data = parquet(tmp_path / "table", steps(0, at=late), steps(2, at=[0.0, 1.0] * 2))
    told = fault(data)
    assert "0.parquet: column 'at' (data.order_by) holds int64 beyond 2**53, and " in told
    assert "1.parquet has it as floating-point numbers" in told
    data = parquet(tmp_path / "ordered", steps(0, at=["t1", "t2"] * 2), steps(2, at=ORDERED.take([0, 1, 0, 1])))
    assert "has an ordered dictionary, and none in " in fault(data)


def test_a_column_that_only_later_files_have_is_told(ray_cluster: None, tmp_path: Path) -> None:
    data = parquet(tmp_path / "table", steps(0), steps(2, y=[0.0] * 4, z=[0.0] * 4))
    said: list[str] = []
    assert len(sequences(data, say=said.append)) == 2
    assert [note.replace(f"{tmp_path}/table/", "") for note in said] == [
        "1.parquet has 2 columns that 0.parquet has not: y, z; only what all files have is learned"
    ]
    for quiet in (with_keys(data, ignore=["y", "z"]), with_keys(data, features=["x"])):
        said.clear()
        assert len(sequences(quiet, say=said.append)) == 2
        assert said == []
    for keys in ({"features": ["x", "y"]}, {"where": [["y", "==", 0]]}, {"order_by": "y"}):
        told = fault(with_keys(data, **keys))
        assert "0.parquet: there is no column 'y', and " in told
        assert "1.parquet has it: all files must be alike" in told
    fewer = parquet(tmp_path / "fewer", steps(0), steps(2).drop_columns(["x"]))
    assert "1.parquet: there is no column 'x'" in fault(fewer)
    assert "1.parquet: data.where: there is no column 'x'" in fault(with_keys(fewer, where=[["x", ">", 0]]))


def test_uuids_name_sequences(ray_cluster: None, tmp_path: Path) -> None:
    names = [uuid.UUID(int=int.from_bytes(b"abcdefgh12345678", "big") + number) for number in (0, 0, 1, 1)]
    table = steps(0, device=pa.array([name.bytes for name in names], pa.uuid()))
    catalog_of(tmp_path / "lake").create_table("plant.sensors", table.schema).append(table)
    lake = IcebergData(table="plant.sensors", catalog=catalog_at(tmp_path / "lake"), **STEPS)
    for data in (parquet(tmp_path / "table", table), lake):
        assert [row["key"] for row in by_key(sequences(data))] == [str(names[0]), str(names[2])]
        assert len(sequences(with_keys(data, where=[["device", "==", str(names[0])]]))) == 1
    unnamed = steps(0, device=pa.array([name.bytes for name in names], pa.binary(16)))
    assert "(data.key) holds fixed_size_binary[16]" in fault(parquet(tmp_path / "bytes", unnamed))
