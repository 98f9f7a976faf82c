"""What cannot be followed is told: where it lies, the value seen, and what to do; other files go on."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from rayrnn.cli import app
from rayrnn.errors import DataError, RayrnnError, UsageError
from rayrnn.runs.directory import Run
from rayrnn.runs.layout import MODEL
from tests.streaming.streams import answers_by_key, contents, followed, rows_in, sensor_run, steps_of, write
from tests.untrained import make_run

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def sensors(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Run:
    return sensor_run(tmp_path_factory.mktemp("sensors"))


def with_cell(name: str, cell: Any) -> pa.Table:
    """Steps of which the first has another cell."""
    rows = steps_of([1]).to_pylist()
    rows[0] = rows[0] | {name: cell}
    return pa.Table.from_pylist(rows, steps_of([1]).schema)


def one_place_twice() -> pa.Table:
    table = steps_of([1])
    return pa.concat_tables([table, table.slice(0, 1)])


BAD = {
    "a key that is null": (with_cell("sensor", None), "column 'sensor' (data.key) is empty in 1 rows"),
    "a place that is null": (with_cell("time", None), "column 'time' (data.order_by) is null"),
    "NaN": (with_cell("heat", float("nan")), "column 'heat' is empty or not a number"),
    "infinity": (with_cell("heat", float("inf")), "column 'heat' is inf, which no network can learn from"),
    "a number that float32 has not": (with_cell("heat", 1e300), "heat is 1e+300, which is more than float32 holds"),
    "a column less": (
        steps_of([1]).drop_columns(["heat"]),
        "there is no column 'heat'; the columns are sensor, time, mode",
    ),
    "no key": (steps_of([1]).drop_columns(["sensor"]), "there is no column 'sensor'; the columns are time, heat, mode"),
    "no order": (steps_of([1]).drop_columns(["time"]), "there is no column 'time'"),
    "words for numbers": (
        steps_of([1]).set_column(2, "heat", pa.array(["hot"] * 12)),
        "column 'heat' holds string, no numbers",
    ),
    "one place twice": (one_place_twice(), "two steps have this place"),
    "no rows": (steps_of([1]).slice(0, 0), "it has no rows"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_table_that_does_not_fit_is_left_out_and_changes_no_state(sensors: Run, tmp_path: Path, name: str) -> None:
    table, reason = BAD[name]
    write(tmp_path / "in" / "0.parquet", steps_of([0]))
    write(tmp_path / "in" / "1.parquet", table)
    write(tmp_path / "in" / "2.parquet", steps_of([2]))
    told = followed(sensors, tmp_path / "in", tmp_path / "out")
    assert [file.path is None for file in told] == [False, True, False]
    assert reason in told[1].notes[0]
    assert "\n" not in told[1].notes[0]
    (tmp_path / "in" / "1.parquet").unlink()
    followed(sensors, tmp_path / "in", tmp_path / "without")
    assert contents(tmp_path / "out") == contents(tmp_path / "without")


FILES = {
    "empty.parquet": (b"", "it is empty"),
    "empty.csv": (b"", "it is empty"),
    "a.parquet": (b"PAR1 and no more", "it cannot be read as Parquet: "),
    "a.csv": (b"sensor,time\nx,1\ny,2,3\n", "it cannot be read as CSV: "),
    "a.jsonl": (b'{"sensor": "x"}\n{"sensor"', "line 2 is no JSON: "),
    "b.jsonl": (b"[1, 2]\n", "line 1 is list; due is an object"),
    "c.jsonl": (b'{"sensor": "x", "time": 1, "heat": NaN, "mode": "on"}\n', "line 1 is no JSON: NaN is no number"),
    "d.jsonl": (b'{"sensor": "x", "time": 1}\n{"sensor": 5, "time": 2}\n', "column 'sensor' holds values of several"),
    "a.png": (b"\x89PNG", "its name ends in none of .csv, .jsonl, .ndjson, .parquet"),
    "a.csv.gz": (b"no gzip", "cannot be read"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_none_is_left_out(sensors: Run, tmp_path: Path, name: str) -> None:
    content, reason = FILES[name]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(content)
    (told,) = followed(sensors, tmp_path / "in", tmp_path / "out")
    assert told.path is None
    assert reason in told.notes[0]
    assert contents(tmp_path / "out") == {}


def test_a_network_whose_answers_are_no_numbers_leaves_no_state(tmp_path: Path) -> None:
    run = sensor_run(tmp_path)
    run.write_model({name: tensor * float("nan") for name, tensor in load_file(run.path / MODEL).items()})
    write(tmp_path / "in" / "0.parquet", steps_of([0]))
    (told,) = followed(run, tmp_path / "in", tmp_path / "out")
    assert told.path is None
    assert told.notes[0].startswith("sequence '007': the network's answers are no finite numbers")


def test_words_that_were_not_learned_are_read_as_the_unknown_one(sensors: Run, tmp_path: Path) -> None:
    table = steps_of([0])
    write(tmp_path / "in" / "0.parquet", table.set_column(3, "mode", pa.array(["never seen"] * len(table))))
    (told,) = followed(sensors, tmp_path / "in", tmp_path / "out")
    assert (told.num_sequences, told.notes) == (3, ())


def test_columns_that_were_not_learned_are_left_alone(sensors: Run, tmp_path: Path) -> None:
    write(tmp_path / "in" / "0.parquet", steps_of([0]))
    write(tmp_path / "more" / "0.parquet", steps_of([0]).append_column("note", pa.array(["x"] * 12)))
    followed(sensors, tmp_path / "in", tmp_path / "out")
    followed(sensors, tmp_path / "more", tmp_path / "other")
    assert contents(tmp_path / "out") == contents(tmp_path / "other")


def test_an_order_of_another_kind_is_told(sensors: Run, tmp_path: Path) -> None:
    write(tmp_path / "in" / "0.parquet", steps_of([0]))
    times = pa.array([f"2030-01-01T00:{place:02d}:00" for place in range(12)])
    write(tmp_path / "in" / "1.parquet", steps_of([1]).set_column(1, "time", times.cast(pa.timestamp("s"))))
    _, told = followed(sensors, tmp_path / "in", tmp_path / "out")
    assert "data.order_by holds timestamp[ns] such as 2030-01-01" in told.notes[0]
    assert "in files before it was '3': write all files alike" in told.notes[0]


def test_rows_of_sequences_go_on_by_their_keys_and_need_them(tmp_path: Path) -> None:
    rows = [{"name": f"n{row}", "steps": [float(row + step) for step in range(9)]} for row in range(20)]
    write(tmp_path / "learned" / "all.parquet", pa.Table.from_pylist(rows))
    data = {"source": "parquet", "path": str(tmp_path / "learned"), "key": "name", "values": "steps", "horizon": 1}
    run = make_run(tmp_path / "run", "regression", data)
    write(tmp_path / "in" / "1.jsonl", pa.Table.from_pylist([{"name": "a", "steps": [1.0, 2.0]}]))
    write(tmp_path / "in" / "2.parquet", pa.Table.from_pylist([{"name": name, "steps": [3.0]} for name in "ba"]))
    write(tmp_path / "in" / "3.parquet", pa.Table.from_pylist([{"name": "a", "steps": [3.0]}] * 2))
    write(tmp_path / "in" / "4.parquet", pa.Table.from_pylist([{"name": None, "steps": [3.0]}, rows[0]]))
    _, _, twice, nameless = followed(run, tmp_path / "in", tmp_path / "out")
    assert twice.notes == ("two rows are of sequence 'a': make one of them",)
    assert nameless.notes == ("column 'name' is empty in 1 rows: it names the sequence",)
    assert answers_by_key(tmp_path / "out", "step") == {"a": [0, 1, 2], "b": [0]}


def test_tables_that_a_run_of_csv_files_gets_have_keys_or_are_one_sequence(tmp_path: Path) -> None:
    (tmp_path / "learned").mkdir()
    for number in range(12):
        lines = "".join(f"{number + step},{step}\n" for step in range(9))
        (tmp_path / "learned" / f"{number}.csv").write_text(f"heat,load\n{lines}")
    data = {"source": "csv", "path": str(tmp_path / "learned"), "skip_lines": 1, "horizon": 1}
    run = make_run(tmp_path / "run", "regression", data)
    steps = [{"heat": 1.0 + step, "load": 2.0} for step in range(3)]
    write(tmp_path / "in" / "1.parquet", pa.Table.from_pylist([step | {"key": key} for step in steps for key in "ba"]))
    write(tmp_path / "in" / "2.jsonl", pa.Table.from_pylist(steps))
    write(tmp_path / "in" / "3.csv", pa.Table.from_pylist(steps))
    write(tmp_path / "in" / "4.jsonl", pa.Table.from_pylist([{"heat": [1.0], "load": [2.0]}] * 2))
    *_, nameless = followed(run, tmp_path / "in", tmp_path / "out", format="jsonl")
    assert nameless.notes == ("it has 2 sequences without a name: name each in a column 'key'",)
    assert [(row["key"], row["step"]) for row in rows_in(tmp_path / "out")] == [
        (key, [0, 1, 2]) for key in ("b", "a", "2.jsonl", "3.csv")
    ]


def test_something_in_the_place_of_answers_ends_it_and_stays(sensors: Run, tmp_path: Path) -> None:
    write(tmp_path / "in" / "0.parquet", steps_of([0]))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "0.parquet").write_text("mine")
    with pytest.raises(UsageError, match=r"out/0\.parquet is there already.*remove it, or move it away"):
        followed(sensors, tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / "0.parquet").read_text() == "mine"
    (tmp_path / "out" / "0.parquet").unlink()
    assert len(followed(sensors, tmp_path / "in", tmp_path / "out")) == 1


PLACES = {
    "not there": ("nowhere", "out", DataError, r"there is no directory .*/nowhere: make it"),
    "a file": ("file", "out", DataError, r"/file is a file: name the directory that files come in"),
    "answers inside": ("in", "in/out", UsageError, "one lies in the other"),
    "answers in the same": ("in", "in", UsageError, "one lies in the other"),
    "answers around": ("in", ".", UsageError, "one lies in the other"),
    "answers are a file": ("in", "file", UsageError, "a file: name a directory"),
}


@pytest.mark.parametrize("name", PLACES)
def test_places_that_do_not_fit_are_refused(sensors: Run, tmp_path: Path, name: str) -> None:
    directory, out, kind, reason = PLACES[name]
    (tmp_path / "in").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(kind, match=reason):
        followed(sensors, tmp_path / directory, tmp_path / out)
    assert not (tmp_path / "in" / "out").exists()


def test_answers_in_a_store_are_refused(sensors: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--out is s3://bucket/out: .* a local directory"):
        followed(sensors, tmp_path, "s3://bucket/out")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"poll": 0}, "poll is 0"),
        ({"poll": float("nan")}, "poll is nan"),
        ({"format": "xlsx"}, "format is 'xlsx'; it can be jsonl, csv, parquet"),
        ({"on_error": "ignore"}, "on_error is 'ignore'; it can be skip or stop"),
        ({"beam": 3}, "beam is 3, and the answers of regression are not searched for"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    sensors: Run, tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(RayrnnError, match=reason):
        followed(sensors, tmp_path / "in", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "give --data PATH, or --follow DIRECTORY"),
        (["--follow", "in", "--data", "in"], "one of the two"),
        (["--data", "in", "--once"], "--once goes with --follow"),
        (["--data", "in", "--poll", "1"], "--poll goes with --follow"),
        (["--data", "in", "--forget"], "--forget goes with --follow"),
        (["--follow", "in", "--address", "auto"], "--address is auto"),
    ],
)
def test_options_of_the_command_that_do_not_go_together_are_refused(
    sensors: Run, options: list[str], reason: str
) -> None:
    ended = CliRunner().invoke(app, ["predict", str(sensors.path), "--out", "out", *options])
    assert isinstance(ended.exception, UsageError)
    assert reason in str(ended.exception)


def test_a_language_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 20)
    data = {"source": "text", "path": str(tmp_path / "text.txt"), "length": 20}
    run = make_run(tmp_path / "run", "language_model", data)
    with pytest.raises(UsageError, match="has no labels to predict"):
        followed(run, tmp_path, tmp_path / "out")


def test_the_command_prints_an_object_a_file_with_json(sensors: Run, tmp_path: Path) -> None:
    write(tmp_path / "in" / "0.parquet", steps_of([0]))
    (tmp_path / "in" / "1.parquet").write_bytes(b"")
    given = ["predict", str(sensors.path), "--follow", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--json"]
    ended = CliRunner().invoke(app, [*given, "--once", "--poll", "0.01"])
    assert ended.exit_code == 0, ended.output
    assert list(map(json.loads, ended.stdout.splitlines())) == [
        {"name": "0.parquet", "path": str(tmp_path / "out" / "0.parquet"), "sequences": 3, "steps": 12, "notes": []},
        {"name": "1.parquet", "path": None, "sequences": 0, "steps": 0, "notes": ["it is empty"]},
    ]
    assert ended.stderr.splitlines() == ["0.parquet: 3 sequences, 12 steps", "1.parquet: left out: it is empty"]
    assert pq.read_table(tmp_path / "out" / "0.parquet").num_rows == 3
