"""What is measured where somebody knows the events; or one error that says what is wrong with them."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayrnn.errors import DataError
from rayrnn.runs.directory import Run
from tests.detection.series import SPIKE, found_by, refused, sessions, write_events
from tests.typed import said

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_known_events_are_measured_by_detect_and_by_evaluate(
    run: Run, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = write_events(tmp_path / "events.csv", f"0.csv,{SPIKE - 1},{SPIKE + 1}", "3.csv,5,9")
    options = ("--data", files / "test", "--events", events, "--json")
    stdout = said(capsys, "detect", run.path, *options, "--set", "detect.margin=3", "--set", "detect.quantile=1")
    found = json.loads(stdout)
    measures = found["measures"]
    assert (measures["events"], measures["found"], measures["false_alarms"]) == (2, 1, 0)
    assert (measures["precision"], measures["recall"]) == (1.0, 0.5)
    assert measures["auroc"] is not None
    assert measures["ucr_hit"] == pytest.approx(1.0)
    assert found["events"] == [{"series": "0.csv", "start": SPIKE, "end": SPIKE, "score": found["events"][0]["score"]}]
    stdout = said(capsys, "evaluate", run.path, *options)
    assert json.loads(stdout)["measures"]["auroc"] == measures["auroc"]
    stdout = said(capsys, "evaluate", run.path, *options[:-1])
    assert "F1" in stdout
    assert "misleading" in stdout.splitlines()[-1]


def test_whole_sessions_are_measured_by_their_names(logs: Run, tmp_path: Path) -> None:
    data = sessions(tmp_path / "test.parquet", [["open", "read", "close"], ["open", "explode", "close"]])
    events = write_events(tmp_path / "events.csv", "s1", header="key")
    measures = found_by(logs, data, events=events).measures
    assert measures is not None
    assert (measures["recall"], measures["false_alarm_rate"], measures["auroc"]) == (1.0, 0.0, 1.0)


def test_events_that_overlap_are_one(run: Run, files: Path, tmp_path: Path) -> None:
    events = write_events(tmp_path / "events.csv", "0.csv,30,45", "0.csv,40,50", "0.csv,40,50", "", "1.csv,3,3")
    measures = found_by(run, files / "test", events=events).measures
    assert measures is not None
    assert measures["events"] == 2


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "has no event"),
        ("series,start,end\n", "has no event"),
        ("0.csv,1,2\n", "has no column series"),
        ("series,from,to\n0.csv,1,2\n", "has no column start, end"),
        ("series,start,end\n0.csv,1,60\n", r"from step 1 to 60, and the sequence ends at step 59"),
        ("series,start,end\n0.csv,-1,6\n", "line 2: start is '-1'"),
        ("series,start,end\n0.csv,2024-01-01,6\n", "the number of a step \\(no time\\)"),
        ("series,start,end,is_anomaly\n0.csv,1,6,maybe\n", "'maybe' says neither that this is an anomaly"),
        ("series,start,end\n0.csv,1.5,6\n", "line 2: start is '1.5'"),
        ("series,start,end\n0.csv,1\n", "line 2: end is ''"),
        ("series,start,end\n0.csv,1," + "9" * 40 + "\n", "line 2: end is"),
        ("series,start,end\n0.csv,9,6\n", "line 2: the event ends at step 6, before it starts at step 9"),
        ("series,start,end\n,9,16\n", "line 2: the event names no sequence"),
        ("series,start,end\n0.cvs,9,16\n7.csv,1,2\n", r"events of '0\.cvs' \(and 1 others\).* did you mean"),
        ("series,start,end\n\xff", "is not UTF-8"),
        ('series,start,end\n"0.csv', "names no sequence|no CSV file|start is"),
    ],
)
def test_events_that_cannot_be_are_told(run: Run, files: Path, tmp_path: Path, content: str, match: str) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(content.encode("latin-1"))
    refused(DataError, match, run, files / "test", tmp_path, events=path)


def test_events_in_a_file_that_is_not_there_are_told(run: Run, files: Path, tmp_path: Path) -> None:
    refused(DataError, "no-such.csv", run, files / "test", tmp_path, events=tmp_path / "no-such.csv")


def test_events_of_a_name_that_two_sequences_have_are_told(logs: Run, tmp_path: Path) -> None:
    table = pa.table({"id": ["twin", "twin"], "events": [["open", "close"], ["open", "read"]]})
    pq.write_table(table, tmp_path / "twins.parquet")
    events = write_events(tmp_path / "events.csv", "twin", header="series")
    refused(DataError, "several sequences of this name", logs, tmp_path / "twins.parquet", tmp_path, events=events)


def test_a_file_of_events_may_be_of_more_series_and_say_which_lines_are_events(
    run: Run, files: Path, tmp_path: Path
) -> None:
    lines = [f"0;{SPIKE - 1}.0;{SPIKE + 1};1", "1;3;5;0", "elsewhere.csv;3;5;1"]
    events = write_events(tmp_path / "events.csv", *lines, header="series;start;end;is_anomaly")
    found = found_by(run, files / "test", events=events)
    assert found.measures is not None
    assert found.measures["events"] == 1
    assert "events of 1 sequence that are not here, such as 'elsewhere.csv': these do not count" in found.notes[-1]


def test_sessions_that_a_label_calls_normal_are_normal(logs: Run, tmp_path: Path) -> None:
    data = sessions(tmp_path / "test.parquet", [["open", "read", "close"], ["open", "explode", "close"]])
    events = write_events(tmp_path / "events.csv", "s0,Normal", "s1,Anomaly", header="key,label")
    measures = found_by(logs, data, events=events).measures
    assert measures is not None
    assert (measures["anomalous"], measures["normal"], measures["recall"]) == (1, 1, 1.0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ("", "no sequences that they lie in"),
        ("--data . --out o.csv", "--out and --beam do not go with --events"),
        ("--data . --labels labels.csv", "two ways to measure"),
    ],
)
def test_evaluate_with_events_needs_the_sequences_and_nothing_else(
    run: Run, capsys: pytest.CaptureFixture[str], options: str, match: str
) -> None:
    assert match in said(capsys, "evaluate", run.path, "--events", "events.csv", *options.split(), exits=2)
