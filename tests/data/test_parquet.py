"""Parquet tables become sequences, with one row a sequence or one row a step."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from rayrnn.data.rows import feature_names
from rayrnn.data.sequences import Sequences, gather, take
from rayrnn.data.sources import read
from rayrnn.errors import DataError
from rayrnn.recipe.data_sections import CsvData, ParquetData
from tests.asked import needs
from tests.ts_files import find_ts, read_ts, write_csv


def write(directory: Path, tables: Mapping[str, Mapping[str, Any]], **options: Any) -> Path:
    directory.mkdir(exist_ok=True)
    for name, columns in tables.items():
        pq.write_table(pa.table(dict(columns)), directory / name, **options)
    return directory


def rows(task: str, path: Path, **keys: Any) -> list[dict[str, Any]]:
    dataset = read(ParquetData(path=str(path), **keys), needs(task))
    return pa.concat_tables(ray.get(dataset.to_arrow_refs()), promote_options="default").to_pylist()


def by_key(task: str, path: Path, **keys: Any) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in rows(task, path, **keys)}


def fault(task: str, path: Path, **keys: Any) -> str:
    with pytest.raises(DataError) as told:
        gather(read(ParquetData(path=str(path), **keys), needs(task)), needs(task))
    return str(told.value)


def contents(sequences: Sequences) -> list[dict[str, Any]]:
    return sorted(take(sequences, np.arange(len(sequences))).to_pylist(), key=lambda row: row["key"])


STEPS = {"key": "id", "order_by": "at"}


def test_one_row_a_sequence_is_renamed(ray_cluster: None, tmp_path: Path) -> None:
    table = {"id": [7, 8], "series": [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0]]], "kind": ["up", "down"], "other": [0, 0]}
    write(tmp_path, {"a.parquet": table})
    keys = {"key": "id", "values": "series", "label": "kind"}
    sequences = gather(read(ParquetData(path=str(tmp_path), **keys), needs("classification")), needs("classification"))
    assert contents(sequences) == [
        {"key": "7", "values": [[1, 2], [3, 4]], "label": "up"},
        {"key": "8", "values": [[5, 6]], "label": "down"},
    ]


def test_rows_without_a_key_are_numbered_through_a_file(ray_cluster: None, tmp_path: Path) -> None:
    table = {"text": [f"text {number}" for number in range(5)]}
    write(tmp_path, {"a.parquet": table, "b.parquet": table}, row_group_size=2)
    read = rows("language_model", tmp_path, text="text")
    assert [row["key"] for row in read] == [f"{name}.parquet:{number}" for name in "ab" for number in range(5)]
    assert [row["text"] for row in read] == table["text"] * 2


def test_symbols_and_categorical_columns_are_lists_of_words(ray_cluster: None, tmp_path: Path) -> None:
    table = {"v": [[1.0, 2.0]], "side": [["left", "right"]], "sky": [["blue", "grey"]], "s": [["a", "b"]]}
    write(tmp_path, {"a.parquet": table})
    (row,) = rows("tagging", tmp_path, values="v", categorical=("side", "sky"))
    assert row["categories"] == [["left", "blue"], ["right", "grey"]]
    (row,) = rows("language_model", tmp_path, symbols="s")
    assert row["symbols"] == ["a", "b"]


def test_steps_of_a_key_are_brought_together_from_all_files_and_sorted(ray_cluster: None, tmp_path: Path) -> None:
    first = {"id": ["a", "b", "a"], "at": [3, 1, 1], "x": [30.0, 100.0, 10.0], "kind": ["up", "down", "up"]}
    second = {"id": ["a", "c"], "at": [2, 1], "x": [20.0, 5.0], "kind": ["up", "up"]}
    write(tmp_path, {"1.parquet": first, "2.parquet": second}, row_group_size=1)
    read = by_key("classification", tmp_path, **STEPS, label="kind", classes=("up", "down"))
    assert {key: (row["values"], row["label"]) for key, row in read.items()} == {
        "a": ([[10], [20], [30]], "up"),
        "b": ([[100]], "down"),
        "c": ([[5]], "up"),
    }


def test_a_step_table_comes_out_the_same_however_its_rows_lie(ray_cluster: None, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    ids, at = np.repeat(np.arange(100), 20), np.tile(np.arange(20), 100)
    table = {"id": ids, "at": at, "x": random.normal(size=2000), "y": random.integers(0, 9, 2000), "kind": at % 3}
    orders = [np.arange(2000), random.permutation(2000)]
    found = []
    for number, order in enumerate(orders):
        shuffled = {name: column[order] for name, column in table.items()}
        parts = {f"{part}.parquet": {n: column[part::3] for n, column in shuffled.items()} for part in range(3)}
        write(tmp_path / str(number), parts, row_group_size=97)
        found.append(by_key("tagging", tmp_path / str(number), **STEPS, label="kind"))
    assert found[0] == found[1]
    assert sorted(found[0], key=int) == [str(number) for number in range(100)]
    values = np.array(found[0]["42"]["values"])
    np.testing.assert_array_equal(values, np.stack([table["x"], table["y"]], 1)[840:860])
    assert found[0]["42"]["label"] == [str(place % 3) for place in range(20)]


def test_a_step_table_may_have_words_and_numbers_to_predict(ray_cluster: None, tmp_path: Path) -> None:
    table = {
        "id": ["a", "a"],
        "at": ["2026-01-02", "2026-01-01"],
        "x": [1, 2],
        "sky": ["blue", "grey"],
        "y": [0.5, None],
    }
    write(tmp_path, {"a.parquet": table})
    read = by_key("regression", tmp_path, **STEPS, features=("x", "sky"), categorical=("sky",), label="y")
    assert (read["a"]["values"], read["a"]["categories"]) == ([[2], [1]], [["grey"], ["blue"]])
    np.testing.assert_array_equal(read["a"]["label"], [[np.nan], [0.5]])


def test_numbers_may_be_of_other_types_from_file_to_file(ray_cluster: None, tmp_path: Path) -> None:
    kinds = [pa.int8(), pa.float64(), pa.bool_(), pa.decimal128(23, 2), pa.uint64()]
    for place, kind in enumerate(kinds):
        x = pa.array([1, 0]).cast(kind)
        write(tmp_path, {f"{place}.parquet": {"id": ["a", "a"], "at": [2 * place, 2 * place + 1], "x": x}})
    (row,) = rows("regression", tmp_path, **STEPS, horizon=1)
    assert row["values"] == [[1], [0]] * 5


def test_a_column_of_lists_is_as_many_features(ray_cluster: None, tmp_path: Path) -> None:
    table = {"id": ["a", "a"], "at": [2, 1], "v": [[1, 2], [3, 4]], "x": [0.5, 0.25]}
    write(tmp_path, {"a.parquet": table})
    dataset = read(ParquetData(path=str(tmp_path), **STEPS, horizon=1), needs("regression"))
    sequences = gather(dataset, needs("regression", 1))
    assert contents(sequences)[0]["values"] == [[3, 4, 0.25], [1, 2, 0.5]]
    assert feature_names(sequences.schema, "values") == ("v[0]", "v[1]", "x")
    write(tmp_path, {"a.parquet": table | {"v": [[1, 2], [3]]}})
    assert "sequence 'a', at 1: column 'v[1]' is empty" in fault("regression", tmp_path, **STEPS, horizon=1)


def test_columns_may_stand_in_the_names_of_directories(ray_cluster: None, tmp_path: Path) -> None:
    for number, (kind, sensor) in enumerate([("up", 7), ("going%20down", 8)]):
        place = tmp_path / f"kind={kind}" / f"sensor={sensor}"
        place.mkdir(parents=True)
        write(place, {"part-0.parquet": {"at": [1, 2], "x": [number, number + 0.5]}})
    read = by_key("classification", tmp_path, key="sensor", order_by="at", label="kind")
    assert {key: (row["values"], row["label"]) for key, row in read.items()} == {
        "7": ([[0], [0.5]], "up"),
        "8": ([[1], [1.5]], "going down"),
    }
    read = by_key("classification", tmp_path, key="sensor", order_by="at", features=("x", "sensor"), label="kind")
    assert read["8"]["values"] == [[1, 8], [1.5, 8]]


def test_a_label_of_whole_sequences_may_stand_in_the_names_of_directories(ray_cluster: None, tmp_path: Path) -> None:
    for kind in (1, 2):
        (tmp_path / f"kind={kind}").mkdir()
        write(tmp_path / f"kind={kind}", {"part-0.parquet": {"series": [[1.0, 2.0]], "id": [f"from {kind}"]}})
    read = by_key("classification", tmp_path, key="id", values="series", label="kind")
    assert {key: row["label"] for key, row in read.items()} == {"from 1": 1, "from 2": 2}


def test_text_may_be_encoded_by_a_dictionary(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.parquet": {"said": pa.array(["yes", "no", "yes"]).dictionary_encode()}})
    sequences = gather(
        read(ParquetData(path=str(tmp_path), text="said"), needs("language_model")), needs("language_model")
    )
    assert [row["text"] for row in contents(sequences)] == ["yes", "no", "yes"]


@pytest.mark.parametrize(
    "order", [pa.float16(), pa.float32(), pa.string_view(), pa.large_string(), pa.decimal256(9, 1)]
)
def test_steps_are_sorted_by_numbers_and_text_of_any_width(
    ray_cluster: None, tmp_path: Path, order: pa.DataType
) -> None:
    places = ["t3", "t2", "t1", "t4"] if "string" in str(order) else [2.5, 1.5, 0.5, 3.5]
    cells = pa.array([Decimal(place) for place in places] if "decimal" in str(order) else places, order)
    key, kind = pa.array(["a"] * 4, pa.string_view()), pa.array(["up"] * 4, pa.string_view())
    path = write(tmp_path, {"steps": {"key": key, "place": cells, "value": [3.0, 2.0, 1.0, 4.0], "kind": kind}})
    (row,) = rows("classification", path, key="key", order_by="place", label="kind")
    assert (row["key"], row["values"], row["label"]) == ("a", [[1.0], [2.0], [3.0], [4.0]], "up")


def test_a_row_a_sequence_may_hold_views_of_text(ray_cluster: None, tmp_path: Path) -> None:
    words = pa.array([["x", "y"], ["z"]], pa.list_(pa.string_view()))
    columns = {
        "key": pa.array(["a", "b"], pa.string_view()),
        "steps": words,
        "kind": pa.array(["u", "v"], pa.string_view()),
    }
    path = write(tmp_path, {"rows": columns})
    found = by_key("classification", path, key="key", symbols="steps", label="kind")
    assert [(row["symbols"], row["label"]) for row in found.values()] == [(["x", "y"], "u"), (["z"], "v")]
    text = write(tmp_path / "text", {"rows": {"said": pa.array(["hello", "you"], pa.string_view())}})
    assert [row["text"] for row in rows("language_model", text, text="said")] == ["hello", "you"]


def test_files_whose_columns_hold_something_else_are_told_with_both(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.parquet": {"series": [[1.0]]}, "b.parquet": {"series": [[[1.0, 2.0]]]}})
    told = fault("classification", tmp_path, values="series")
    assert "b.parquet: column 'series' holds list<element: list<element: double>>, in" in told
    assert "a.parquet it holds list<element: double>: all files must be alike" in told


def test_a_label_that_is_not_there_is_told_before_all_else(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.parquet": {"id": ["a"], "at": [1], "x": [1.0], "kind": ["up"]}})
    told = fault("classification", tmp_path, **STEPS, label="kinds")
    assert told.startswith("there is no column 'kinds'; the columns are id, at, x, kind; did you mean 'kind'?")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"at": [1, 1]}, "sequence 'a', at 1: two steps have this place"),
        ({"at": [1, None]}, "sequence 'a', at None: column 'at' (data.order_by) is null"),
        ({"x": [1.0, None]}, "sequence 'a', at 2: column 'x' is empty"),
        ({"x": ["1", "2"]}, "column 'x' holds string, no numbers: list it in data.categorical"),
        ({"kind": ["up", "down"]}, "sequence 'a', at 2: the label changes from 'up' to 'down'"),
        ({"kind": ["up", "sideways"]}, "sequence 'a', at 2: the label is 'sideways', which is not among data.classes"),
        ({"id": ["a", None]}, "column 'id' (data.key) is empty in 1 rows"),
    ],
)
def test_a_fault_in_a_step_table_is_told_with_its_sequence_and_place(
    ray_cluster: None, tmp_path: Path, change: dict[str, list[Any]], says: str
) -> None:
    table = {"id": ["a", "a"], "at": [1, 2], "x": [1.0, 2.0], "kind": ["up", "up"]}
    write(tmp_path, {"a.parquet": table | change})
    assert says in fault("classification", tmp_path, **STEPS, label="kind", classes=("up", "down"))


def test_a_missing_column_is_told_with_the_file_and_those_there_are(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.parquet": {"series": [[1.0]]}, "b.parquet": {"serie": [[1.0]]}})
    told = fault("classification", tmp_path, values="series")
    assert "b.parquet: there is no column 'series'; the columns are serie; did you mean 'serie'?" in told


def test_a_file_that_is_no_parquet_is_told(ray_cluster: None, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("1,2,3\n")
    assert "a.parquet cannot be read as Parquet" in fault("classification", tmp_path, values="series")


def test_a_footer_of_which_even_the_fault_is_no_text_is_told(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"a.parquet": {"x": [[1.0]]}})
    monkeypatch.setattr(pq, "read_metadata", lambda file: b"\x80".decode("utf-8"))
    assert "a.parquet cannot be read as Parquet" in fault("language_model", tmp_path, values="x")


def test_a_table_without_rows_is_told(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.parquet": {"series": pa.array([], pa.list_(pa.float64()))}})
    assert "a.parquet has no rows" in fault("classification", tmp_path, values="series")


@pytest.mark.parametrize("name", ["JapaneseVowels"])
def test_csv_and_both_shapes_of_tables_give_the_same_sequences(ray_cluster: None, tmp_path: Path, name: str) -> None:
    try:
        sequences = read_ts(find_ts(name)["train"])
    except FileNotFoundError as error:
        pytest.skip(str(error))
    write_csv(sequences, tmp_path / "csv")
    names = [f"{number:04d}.csv" for number in range(len(sequences))]
    values = [np.array(steps, float) for steps, _ in sequences]
    nested = {"id": names, "series": [value.tolist() for value in values], "kind": [label for _, label in sequences]}
    write(tmp_path / "nested", {"a.parquet": nested}, row_group_size=100)
    lengths = [len(value) for value in values]
    steps = {
        "id": np.repeat(names, lengths),
        "at": np.concatenate([np.arange(length) for length in lengths]),
        **{f"feature_{place:02d}": np.concatenate([value[:, place] for value in values]) for place in range(12)},
        "kind": np.repeat([label for _, label in sequences], lengths),
    }
    write(tmp_path / "steps", {"a.parquet": steps}, row_group_size=1000)
    nested_keys = {"key": "id", "values": "series", "label": "kind"}
    datasets = [
        read(CsvData(path=str(tmp_path / "csv"), skip_lines=1, label_column="label"), needs("classification")),
        read(ParquetData(path=str(tmp_path / "nested"), **nested_keys), needs("classification")),
        read(ParquetData(path=str(tmp_path / "steps"), **STEPS, label="kind"), needs("classification")),
    ]
    from_csv, from_nested, from_steps = (contents(gather(dataset, needs("classification"))) for dataset in datasets)
    assert len(from_csv) == 270
    assert from_csv == from_nested == from_steps


def test_a_column_that_is_there_twice_is_refused_where_it_is_used(ray_cluster: None, tmp_path: Path) -> None:
    columns = [pa.array(["a", "a"]), pa.array([1, 2]), pa.array([5.0, 6.0]), pa.array([7.0, 8.0]), pa.array(["u", "u"])]
    (tmp_path / "twice").mkdir()

    def fault_with(names: list[str], **keys: Any) -> str:
        pq.write_table(pa.Table.from_arrays(columns, names), tmp_path / "twice" / "a.parquet")
        return fault("classification", tmp_path / "twice", **keys)

    for names in (["id", "at", "x", "x", "kind"], ["id", "at", "x", "id", "kind"], ["id", "at", "x", "kind", "kind"]):
        told = fault_with(names, **STEPS, label="kind")
        assert "is there 2 times: give each a name of its own" in told
    assert "column 'x' is there 2 times" in fault_with(["id", "at", "x", "x", "kind"], key="id", values="x")
    keys: dict[str, Any] = STEPS | {"label": "kind"}
    pq.write_table(pa.Table.from_arrays(columns, ["id", "at", "x", "y", "kind"]), tmp_path / "twice" / "a.parquet")
    assert by_key("classification", tmp_path / "twice", **keys)["a"]["values"] == [[5, 7], [6, 8]]
    pq.write_table(pa.Table.from_arrays(columns, ["id", "at", "x", "x", "kind"]), tmp_path / "twice" / "a.parquet")
    with pytest.raises(DataError):
        rows("classification", tmp_path / "twice", **keys, features=["x"])
    columns.insert(2, pa.array([1.5, 2.5]))
    names = ["id", "at", "good", "x", "x", "kind"]
    pq.write_table(pa.Table.from_arrays(columns, names), tmp_path / "twice" / "a.parquet")
    for more in ({"ignore": ["x"]}, {"features": ["good"]}):
        assert by_key("classification", tmp_path / "twice", **keys, **more)["a"]["values"] == [[1.5], [2.5]]
