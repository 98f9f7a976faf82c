"""Labels that lie beside sequences belong to one data set: no other gets them, and no two sequences share one."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from rayrnn.data.sources import read
from rayrnn.errors import DataError, RayrnnError, RecipeError, UsageError
from rayrnn.recipe import validate_recipe
from rayrnn.recipe.data_sections import CsvData, ParquetData
from rayrnn.recipe.text_sections import TextData
from tests.asked import needs

NUMBERS = range(4)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """DL4J's: the same file names in train and test, with labels of their own. Even ones are up in train, down in test;
    what a file holds says where it is: 10 .. 13 in train, 20 .. 23 in test."""
    for part, first, kinds in (("train", 10, ("up", "down")), ("test", 20, ("down", "up"))):
        lines = []
        for number in NUMBERS:
            write(tmp_path / part / "features" / f"{number}.csv", f"{first + number}\n")
            write(tmp_path / part / "labels" / f"{number}.csv", f"{kinds[number % 2]}\n")
            lines.append(f"{number}.csv,{kinds[number % 2]}\n")
        write(tmp_path / f"{part}.csv", "".join(lines))
        write(tmp_path / f"{part}_with_directories.csv", "".join(f"{part}/features/{line}" for line in lines))
    both = [(tmp_path / f"{part}_with_directories.csv").read_text() for part in ("train", "test")]
    write(tmp_path / "both.csv", "".join(both))
    write(tmp_path / "elsewhere" / "0.csv", "30\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def learned(where: str | None = None, own: str | None = None, **keys: Any) -> dict[int, str]:
    """What each sequence holds -> its label; `own` are given with the sequences at `where`."""
    data = CsvData.model_validate({"path": "train/features", "labels": "train/labels"} | keys)
    dataset = read(data, needs("classification"), where=where, labels=own)
    rows = pa.concat_tables(ray.get(dataset.to_arrow_refs()), promote_options="default").to_pylist()
    assert [row["fault"] for row in rows] == [None] * len(rows)
    return {int(row["values"][0][0]): row["label"] for row in rows}


TRAIN = {10: "up", 11: "down", 12: "up", 13: "down"}
TEST = {20: "down", 21: "up", 22: "down", 23: "up"}
HELD_OUT = {"held_out": "test/features", "held_out_labels": "test/labels"}


@pytest.mark.parametrize(
    ("where", "labels", "keys", "due"),
    [
        (None, None, {}, TRAIN),
        (None, None, {"labels": "train.csv"}, TRAIN),
        (None, None, HELD_OUT, TRAIN),
        # the held-out part's own
        ("test/features", None, HELD_OUT, TEST),
        ("test/features", None, HELD_OUT | {"held_out_labels": "test.csv"}, TEST),
        ("test/features", None, HELD_OUT | {"labels": "both.csv", "held_out_labels": "both.csv"}, TEST),
        ("test/features/[01].csv", None, HELD_OUT, {20: "down", 21: "up"}),
        # given with the sequences
        ("test/features", "test/labels", {}, TEST),
        ("test/features", "test.csv", {}, TEST),
        ("test/features", "test/labels", HELD_OUT, TEST),
        ("test/features/2.csv", "both.csv", {}, {22: "down"}),
        ("train/features", "train.csv", HELD_OUT, TRAIN),
        # a part of those that were learned
        ("train/features", None, {}, TRAIN),
        ("train/features", None, HELD_OUT, TRAIN),
        ("train/features/*", None, {"labels": "train.csv"}, TRAIN),
        ("train/features/3.csv", None, {}, {13: "down"}),
        ("./test/../train/features", None, {}, TRAIN),
        ("train/features/0.csv", None, {"held_out": "train/features/0.csv"}, {10: "up"}),
    ],
)
def test_every_data_set_gets_its_own_labels(
    ray_cluster: None, layout: Path, where: str | None, labels: str | None, keys: dict[str, Any], due: dict[int, str]
) -> None:
    assert learned(where, labels, **keys) == due
    if where is not None:  # the same with the whole path
        assert learned(f"{layout}/{where}", labels, **keys) == due


@pytest.mark.parametrize(
    ("where", "keys"),
    [
        ("test/features", {}),
        ("test/features", {"labels": "train.csv"}),
        ("test/features", {"labels": "train/labels/*.csv"}),
        ("test/features", {"held_out": "test/features"}),
        ("elsewhere", HELD_OUT),
        ("*/features/*.csv", {}),
        ("*/features/*.csv", HELD_OUT),
        # those that were learned are gone: nobody knows whether these are the same
        ("test/features", {"path": "gone"}),
    ],
)
def test_labels_of_another_data_set_are_refused_with_what_to_give(
    ray_cluster: None, layout: Path, where: str, keys: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match=r"labels of other sequences are never used: .*data\.held_out_labels.*--labels"):
        learned(where, None, **keys)


def test_without_labels_any_sequences_are_read_and_no_label_file_is_taken_for_one(
    ray_cluster: None, layout: Path
) -> None:
    data = CsvData(path="train/features", labels="elsewhere/labels.csv")
    write(layout / "elsewhere" / "labels.csv", "0.csv,up\n")
    dataset = read(data, needs("classification"), where="elsewhere", labelled=False)
    assert [row["key"] for row in dataset.take_all()] == ["0.csv"]


@pytest.mark.parametrize(
    ("sequences", "labels", "says"),
    [
        (["a/0.csv", "b/0.csv"], {"y/0.csv": "up"}, "y/0.csv would be the label of two sequences, x/a/0.csv and x/b/0"),
        (["a/0.csv", "b/0.csv"], {"y.csv": "0.csv,up"}, "y.csv:1 would be the label of two sequences"),
        (["a/0.csv", "b/0.csv"], {"y.csv": "a/0.csv,up\n0,down\nb/0,up\n0,up"}, "y.csv:4: 0 has another label in line"),
        (["0.csv", "0.txt"], {"y.csv": "0,up"}, "y.csv:1 would be the label of two sequences, x/0.csv and x/0.txt"),
    ],
)  # fmt: skip
def test_a_label_of_two_sequences_is_refused(
    ray_cluster: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sequences: list[str],
    labels: dict[str, str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in sequences:
        write(tmp_path / "x" / name, "1\n")
    for name, content in labels.items():
        write(tmp_path / name, content)
    with pytest.raises(DataError) as refused:
        learned(path="x", labels="y.csv" if "y.csv" in labels else "y")
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "labels",
    [
        {"y/a/0.csv": "up", "y/b/0.csv": "down"},
        {"y/a/0.txt": "up", "y/b/0.txt": "down", "y/0.csv": "sideways"},
        {"y.csv": "a/0.csv,up\nb/0.csv,down\n"},
        {"y.csv": "a/0,up\nb/0,down\nb/0,down\n0.csv,sideways\n"},
    ],
)
def test_the_directories_in_a_labels_name_tell_sequences_apart(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "x" / "a" / "0.csv", "1\n")
    write(tmp_path / "x" / "b" / "0.csv", "2\n")
    for name, content in labels.items():
        write(tmp_path / name, content)
    assert learned(path="x", labels="y.csv" if "y.csv" in labels else "y") == {1: "up", 2: "down"}


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"labels": "a", "held_out_labels": "b"}, "data.held_out_labels goes with a path in data.held_out"),
        ({"labels": "a", "held_out_labels": "b", "held_out": "0.2"}, "goes with a path in data.held_out"),
        ({"held_out": "x", "held_out_labels": "b"}, "data.held_out_labels goes with data.labels"),
        ({"held_out": "x", "held_out_labels": "b", "label_column": 1}, "data.held_out_labels goes with data.labels"),
    ],
)
def test_held_out_labels_go_with_a_held_out_path_and_labels(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        validate_recipe({"name": "x", "task": "classification", "data": {"source": "csv", "path": "files"} | keys})


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (CsvData(path="x", label_column=1), r"labels are given, y, .* they come from data\.label_column"),
        (CsvData(path="x"), "labels are given, y, but in this recipe they are not learned: leave them out"),
        (ParquetData(path="x", values="v"), r"data\.source parquet has no labels beside the sequences, such as y"),
        (TextData(path="x"), r"data\.source text has no labels beside the sequences, such as y"),
    ],
)  # fmt: skip
def test_labels_that_a_source_does_not_use_are_refused(
    ray_cluster: None, tmp_path: Path, data: CsvData | ParquetData | TextData, says: str
) -> None:
    write(tmp_path / "x", "1,up\n")
    with pytest.raises(RayrnnError, match=says) as refused:
        read(data, needs("classification"), where=str(tmp_path / "x"), labels="y")
    assert isinstance(refused.value, UsageError)
