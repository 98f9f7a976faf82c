"""What a message advises works: bad input, a part of the message, and what becomes of it when the advice is taken.

Of the columns and cells of CSV files there is a table of its own in test_csv_dialects.py.
"""

import gzip
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayrnn.data.files import list_files, read_bytes
from rayrnn.data.prepare import prepare
from rayrnn.errors import RayrnnError
from rayrnn.recipe import recipe_from, validate_recipe

CSV = {"source": "csv", "path": "x", "label_column": "kind", "skip_lines": 1}
PARQUET = {"source": "parquet", "path": "x.parquet", "values": "v", "label": "kind"}
STEPS = {"source": "parquet", "path": "x.parquet", "key": "id", "order_by": "at", "label": "kind"}
SPARK = {"source": "spark", "format": "parquet", "path": "x", "values": "v"}

#: a recipe's data and other keys, what is said of it, and the keys that change when the advice is taken
RECIPES: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"data": {"path": "x", "text": "y"}}, "one of the two (set the other to null)", {"data.text": None}),
    ({"data": {"path": "x", "text": "y"}}, "one of the two (set the other to null)", {"data.path": None}),
    ({"data": {"path": "x", "length": 1}}, "data.length must be 0 (whole files) or at least 2", {"data.length": 0}),
    ({"data": {"path": "x", "length": 1}}, "data.length must be 0 (whole files) or at least 2", {"data.length": 2}),
    ({"data": {"path": "x", "held_out": 1}}, "must be at least 0 and less than 1", {"data.held_out": 0.9}),
    (
        {"data": CSV | {"num_classes": 2, "classes": ["a", "b"]}},
        "classes by name need no number",
        {"data.num_classes": None},
    ),
    ({"data": CSV | {"classes": ["a", "a"]}}, "needs at least two names, every one once", {"data.classes": ["a", "b"]}),
    (
        {"data": CSV | {"labels": "y"}},
        "give data.label_column or data.labels, one of the two",
        {"data.label_column": None},
    ),
    ({"data": CSV | {"delimiter": '"'}}, "data.delimiter is one character of ASCII", {"data.delimiter": ";"}),
    (
        {"data": CSV | {"label_column": None, "held_out_labels": "y"}},
        "goes with data.labels: give both",
        {"data.labels": "z", "data.held_out": "w"},
    ),
    ({"data": CSV | {"held_out_labels": "y"}}, "or set it to null", {"data.held_out_labels": None}),
    ({"data": {"source": "parquet", "path": "x"}}, "give data.values, data.symbols or data.text", {"data.values": "v"}),
    ({"data": {"source": "parquet", "path": "x"}}, "or data.order_by", {"data.order_by": "at", "data.key": "id"}),
    (
        {"data": PARQUET | {"order_by": "at"}},
        "give data.key, and features instead of values",
        {"data.key": "id", "data.values": None, "data.features": ["v"]},
    ),
    (
        {"data": SPARK | {"table": "y"}},
        "data.format parquet takes data.path, and none of the other two",
        {"data.table": None},
    ),
    (
        {"data": SPARK | {"format": "jdbc", "path": None, "table": "y"}},
        "data.options.url, such as jdbc:...",
        {"data.options": {"url": "jdbc:sqlite:x"}},
    ),
    ({"data": SPARK, "training": {"truncate": 5}}, "training.truncate must be 0", {"training.truncate": 0}),
    (
        {"data": CSV, "task": "tagging", "training": {"truncate": 5}, "model": {"bidirectional": "sum"}},
        "training.truncate must be 0 with",
        {"training.truncate": 0},
    ),
    (
        {"data": {"path": "x"}, "model": {"bidirectional": "sum"}},
        "model.bidirectional must be none",
        {"model.bidirectional": "none"},
    ),
    (
        {"data": CSV | {"horizon": 1}, "task": "regression", "model": {"bidirectional": "sum"}},
        "model.bidirectional must be none",
        {"model.bidirectional": "none"},
    ),
    ({"data": CSV | {"horizon": 1}}, "data.horizon is for forecasts of numbers; the task is", {"task": "regression"}),
    ({"data": CSV | {"horizon": 1}}, "data.horizon is for forecasts of numbers", {"data.horizon": 0}),
    (
        {"data": CSV, "task": "regression", "training": {"class_weights": "balanced"}},
        "class_weights is for classes",
        {"training.class_weights": "none"},
    ),
    (
        {"data": CSV, "task": "language_model"},
        "its tasks are classification, tagging and regression",
        {"task": "tagging"},
    ),
    ({"data": {"path": "x"}, "task": "tagging"}, "its task is language_model", {"task": "language_model"}),
    (
        {"data": CSV, "model": {"hidden": 5, "network": "rayrnn.models.network:Network"}},
        "leave it out",
        {"model.hidden": None},
    ),
    (
        {"data": CSV, "model": {"options": {"a": 1}}},
        "model.options are for a network of your own",
        {"model.network": "a.b:C"},
    ),
    ({"data": CSV, "model": {"options": {"a": 1}}}, "there is no model.network", {"model.options": {}}),
    (
        {"data": CSV, "averaging": {"workers": {"min": 3, "max": 2}}},
        "min must not be above max",
        {"averaging.workers": {"min": 2, "max": 3}},
    ),
    ({"data": CSV | {"lable_column": "y"}}, 'did you mean "label_column"', {"data.lable_column": None}),
    (
        {"data": {"source": "cvs", "path": "x"}},
        "the sources here are audio, avro, csv, delta, given, iceberg, images, orc, pairs, parquet, spark, sql, text",
        {"data.source": "csv"},
    ),
    ({"data": CSV, "task": "clasification"}, 'did you mean "classification"', {"task": "classification"}),
]


@pytest.mark.parametrize(("keys", "advice", "taken"), RECIPES)
def test_what_is_said_of_a_recipe_helps(keys: dict[str, Any], advice: str, taken: dict[str, Any]) -> None:
    values = {"name": "x", "task": "language_model" if "source" not in keys["data"] else "classification"} | keys
    with pytest.raises(RayrnnError) as refused:
        validate_recipe(values)
    assert advice in str(refused.value)
    validate_recipe(changed(values, taken))


def changed(values: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """The values with other ones at these keys, such as `data.path`; None takes a key out."""
    result: dict[str, Any] = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()
    }
    for key, value in keys.items():
        section, _, leaf = key.rpartition(".")
        inner = result.setdefault(section, {}) if section else result
        if value is None:
            inner.pop(leaf, None)
        else:
            inner[leaf] = value
    return result


@pytest.mark.parametrize(
    ("wrong", "advice", "right"),
    [
        (
            "training.batch_size",
            "--set takes key=value, for example training.learning_rate=1e-3",
            "training.batch_size=5",
        ),
        ("training.batch_size", "for example training.learning_rate=1e-3", "training.learning_rate=1e-3"),
        ("name.first=y", "'name' holds a value, it is no section", "name=y"),
    ],
)
def test_what_is_said_of_an_override_helps(wrong: str, advice: str, right: str) -> None:
    text = "{name: x, data: {path: x}}"
    with pytest.raises(RayrnnError) as refused:
        recipe_from(text, "x.yaml", [wrong])
    assert advice in str(refused.value)
    recipe_from(text, "x.yaml", [right])


def sequences(**more: list[Any]) -> dict[str, list[Any]]:
    return {"v": [[1.0, 2.0], [3.0], [4.0, 5.0]], "kind": ["a", "b", "a"]} | more


def steps(**more: list[Any]) -> dict[str, list[Any]]:
    return {"id": ["k", "k", "l", "m"], "at": [0, 1, 0, 0], "x": [1.0, 2, 3, 4], "kind": ["a", "a", "b", "a"]} | more


Files = dict[str, str | bytes | dict[str, list[Any]]]
TWO: Files = {"x/a.csv": "x,kind\n1,up\n", "x/b.csv": "x,kind\n2,down\n"}
BESIDE = CSV | {"label_column": None, "labels": "y", "skip_lines": 0}
TEXT = {"path": "x.txt", "length": 10}

#: files, a recipe's data, what is said of it, and the files or keys that change when the advice is taken
DATA: list[tuple[Files, dict[str, Any], str, Files | dict[str, Any]]] = [
    # one sequence
    (
        {"x.txt": "ab" * 9},
        TEXT | {"length": 17, "held_out": 0.1},
        "one sequence, and data.held_out 0.1 of it",
        {"data.held_out": 0},
    ),
    ({"x.txt": "ab" * 20}, TEXT | {"length": 39}, "or set data.length to 3", {"data.length": 3}),
    (
        {"x.txt": "ab" * 20, "y.txt": "baab" * 19},
        TEXT | {"length": 39},
        "or to a path of its own",
        {"data.held_out": "y.txt"},
    ),
    (
        {"x/a.csv": "x,kind\n1,up\n2,down\n"},
        CSV | {"task": "tagging"},
        "or give more sequences",
        {"x/b.csv": "x,kind\n1,up\n3,down\n"},
    ),
    ({"x/a.csv": "x,kind\n1,up\n2,down\n"}, CSV | {"task": "tagging"}, "set data.held_out to 0", {"data.held_out": 0}),
    # text
    ({"x.txt": "abcdef"}, TEXT, "or set data.length to 2 (0 keeps a text whole)", {"data.length": 2}),
    ({"x.txt": "abcdef"}, TEXT | {"held_out": 0}, "(0 keeps a text whole)", {"data.length": 0}),
    (
        {f"x/{n}.txt": "a" for n in range(30)},
        TEXT | {"path": "x"},
        "set data.length to 0, which keeps every text whole",
        {"data.length": 0},
    ),
    (
        {f"x/{n}.txt": "a" for n in range(3)},
        TEXT | {"path": "x"},
        "or put the texts into one file",
        {"x/0.txt": "a" * 30},
    ),
    ({"x.txt": "abcdef"}, TEXT, "needs 11: give more text", {"x.txt": "abcdef" * 5}),
    (
        {"x.txt": "grün ".encode("latin1") * 9},
        TEXT,
        "save it as UTF-8 (iconv -f ITS-ENCODING -t UTF-8)",
        {"x.txt": "grün " * 9},
    ),
    ({"x.txt": ("grün " * 9).encode("utf-16")}, TEXT, "(iconv -f UTF-16 -t UTF-8)", {"x.txt": "grün " * 9}),
    (
        {"x/a.txt": "good " * 9, "x/b.png": b"\x89PNG"},
        TEXT | {"path": "x"},
        "with a pattern such as x/*.txt",
        {"data.path": "x/*.txt"},
    ),
    (
        {"x/a.txt": "good " * 9, "x/b.txt": b"\x89PNG"},
        TEXT | {"path": "x"},
        "or leave it out of data.path",
        {"data.path": "x/a.txt"},
    ),
    ({"texts/x.txt": "good " * 9}, TEXT | {"path": "text/x.txt"}, '/texts"?', {"data.path": "texts/x.txt"}),
    (
        {"x.txt": "good " * 9},
        TEXT | {"path": []},
        "give a file, a directory or a glob pattern",
        {"data.path": ["*.txt"]},
    ),
    (
        {"x.txt": "a" * 50},
        TEXT | {"path": "sysconfig:stdlb/this.py"},
        "write sysconfig:stdlib/",
        {"data.path": "sysconfig:stdlib/this.py"},
    ),
    # CSV
    ({"x/a.csv": "x,kind\n1,up\n2,down\n"}, CSV | {"held_out": 0}, "set task: tagging", {"task": "tagging"}),
    (
        TWO | {"x/c.png": b"\x89PNG\r\n\x1a\n\0\n"},
        CSV,
        "leave other files than CSV out of data.path",
        {"data.path": "x/*.csv"},
    ),
    (
        TWO | {"x/b.csv": "x,kind\n2,dünn\n".encode("latin1")},
        CSV,
        "save it as UTF-8",
        {"x/b.csv": "x,kind\n2,dünn\n"},
    ),
    (TWO | {"x/b.csv": "x,kind\n2,up\n"}, CSV, "give sequences of other classes too", TWO),
    (
        TWO | {"x/b.csv": "x,kind\n2,up\n"},
        CSV,
        "or see whether this is the right column",
        {"data.label_column": "x", "data.categorical": ["kind"]},
    ),
    (TWO | {"x/b.csv": "x,kind\n,down\n"}, CSV, "fill it in", TWO),
    (
        {"x/a.csv": "x,y,kind\n1,,up\n", "x/b.csv": "x,y,kind\n2,3,down\n"},
        CSV,
        "or with data.ignore",
        {"data.ignore": ["y"]},
    ),
    (
        {"x/a.csv": "x,y,kind\n1,,up\n", "x/b.csv": "x,y,kind\n2,3,down\n"},
        CSV | {"features": ["x", "y"]},
        "of data.features",
        {"data.features": ["x"]},
    ),
    (
        {"x/a.csv": "x,kind\n1,1\n"},
        CSV | {"task": "regression", "horizon": 2, "held_out": 0},
        "lower it",
        {"data.horizon": 0},
    ),
    (
        {"x/a.csv": "x,kind\n1,1\n"},
        CSV | {"task": "regression", "horizon": 2, "held_out": 0},
        "or give longer sequences",
        {"x/a.csv": "x,kind\n" + "1,1\n" * 4},
    ),
    # labels beside the sequences
    (
        {"x/a.csv": "1\n", "x/b.csv": "2\n", "y": "a,up\nb,down\n"},
        BESIDE | {"task": "tagging"},
        "from data.label_column or from a directory of label files",
        {"y/a.csv": "up\n", "y/b.csv": "down\n"},
    ),
    (
        {"x/a.csv": "1\n2\n", "x/b.csv": "2\n", "y/a.csv": "up\n", "y/b.csv": "down\n"},
        BESIDE | {"task": "tagging"},
        "data.align: start or end allows that",
        {"data.align": "end"},
    ),
    (
        {"x/1/a.csv": "1\n", "x/2/a.csv": "2\n", "y": "a,up\n"},
        BESIDE,
        "name labels with as many of the directories",
        {"y": "1/a,up\n2/a,down\n"},
    ),
    (
        {"x/a.csv": "1\n", "x/b.csv": "2\n", "y": "a,up\na,down\nb,up\n"},
        BESIDE,
        "leave one of the two lines out",
        {"y": "a,down\nb,up\n"},
    ),
    (
        {"x/a.csv": "1\n", "x/b.csv": "2\n", "y": "a,up\nb,down\n", "z/a.csv": "3\n"},
        BESIDE | {"held_out": "z"},
        "with data.held_out_labels in a recipe",
        {"data.held_out_labels": "y"},
    ),
    # Parquet
    (
        {"x.parquet": sequences(kind=[1.0, 2.0, 3.0])},
        PARQUET | {"task": "regression", "training": {"truncate": 1}},
        "at its end: set it to 0",
        {"training.truncate": 0},
    ),
    (
        {"x.parquet": sequences(v=[[1.0, None], [3.0], [4.0]])},
        PARQUET,
        "fill them in, or leave the sequence out",
        {"x.parquet": sequences(v=[[1.0, 0.0], [3.0], [4.0]])},
    ),
    (
        {"x.parquet": sequences()},
        PARQUET | {"values": "w", "label": "kinds"},
        "the columns are v, kind",
        {"data.values": "v", "data.label": "kind"},
    ),
    ({"x.parquet": sequences()}, PARQUET | {"label": "kinds"}, "did you mean 'kind'?", {"data.label": "kind"}),
    ({"x.parquet": steps(x=["r", "g", "g", "r"])}, STEPS, "list it in data.categorical", {"data.categorical": ["x"]}),
    ({"x.parquet": steps(y=["r", "g", "g", "r"])}, STEPS, "leave it out with data.ignore: [y]", {"data.ignore": ["y"]}),
    (
        {"x.parquet": steps(y=[{"a": 1}] * 4)},
        STEPS,
        "no numbers: leave it out with data.ignore: [y]",
        {"data.ignore": ["y"]},
    ),
    (
        {"x.parquet": steps(y=[{"a": 1}] * 4)},
        STEPS | {"features": ["y.a"]},
        "'y' has fields, which are not read: give 'y.a' a column of its own",
        {"x.parquet": steps(**{"y.a": [1] * 4})},
    ),
    (
        {"x.parquet": steps(y=[{"a": 1}] * 4)},
        STEPS,
        "or give its fields columns of their own",
        {"x.parquet": steps(a=[1] * 4)},
    ),
    (
        {"x.parquet": steps(y=["r", "g", "g", "r"])},
        STEPS | {"features": ["x", "y"]},
        "leave it out of data.features",
        {"data.features": ["x"]},
    ),
    ({"x.parquet": steps(at=[0, 0, 0, 0])}, STEPS, "make data.order_by tell them apart", {"x.parquet": steps()}),
    (
        {"x.parquet": steps(x=[1.0, None, 3.0, 4.0])},
        STEPS,
        "or the column",
        {"data.ignore": ["x"], "data.features": ["at"]},
    ),
]


@pytest.mark.parametrize(("files", "data", "advice", "taken"), DATA)
def test_what_is_said_of_data_helps(
    ray_cluster: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: Files,
    data: dict[str, Any],
    advice: str,
    taken: Files | dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    task = data.get("task", "classification" if "source" in data else "language_model")
    values: dict[str, Any] = {"name": "x", "task": task, "training": data.get("training", {})}
    values["data"] = {key: value for key, value in data.items() if key not in ("task", "training")}
    write(files)
    with pytest.raises(RayrnnError) as refused:
        prepare(validate_recipe(values))
    assert advice in str(refused.value)
    write({name: content for name, content in taken.items() if is_file(name)})
    prepare(validate_recipe(changed(values, {key: value for key, value in taken.items() if not is_file(key)})))


def is_file(key: str) -> bool:
    return key[:1] in "xyz"


def write(files: Mapping[str, Any]) -> None:
    for name, content in files.items():
        path = Path(name)
        if path.parent.is_file():
            path.parent.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            pq.write_table(pa.table(content), path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_a_pipe_is_read_from_the_file_that_has_what_it_gives(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RayrnnError, match="write what it gives into a file"):
        list_files(str(tmp_path / "pipe"))
    (tmp_path / "file").write_bytes(b"abc")
    assert read_bytes(list_files(str(tmp_path / "file")), 0) == b"abc"


def test_a_file_that_is_packed_too_well_is_read_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayrnn.data.contents.SMALL_BYTES", 1000)
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(10**6)))
    with pytest.raises(RayrnnError, match="unpack it, and cut it into several files"):
        read_bytes(list_files(f"{tmp_path}/a.gz"), 0)
    (tmp_path / "a").write_bytes(bytes(10**6))
    assert len(read_bytes(list_files(f"{tmp_path}/a"), 0)) == 10**6
