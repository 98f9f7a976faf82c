"""`rayrnn detect`: from a run and sequences to scores, events, measures and pictures; or one error, and no file."""

import csv
import hashlib
import io
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from rayrnn.anomalies.scores import MOST_SURPRISE
from rayrnn.cli import app
from rayrnn.errors import DataError, RayrnnError, RecipeError, RunError, UsageError
from rayrnn.prediction.detect import detect
from rayrnn.prediction.detection import Detection
from rayrnn.recipe import scores_of
from rayrnn.runs.directory import Run
from rayrnn.runs.model import load_network
from tests.untrained import make_run, outputs_of, write_files

pytestmark = pytest.mark.usefixtures("ray_cluster")

SERIES, STEPS = 6, 60
SPIKE = 40


def write_series(folder: Path, *, spikes: Sequence[int] = (), steps: int = STEPS) -> Path:
    """One CSV a series, columns `a` and `b`; series 0 has spikes at these steps."""
    folder.mkdir(parents=True)
    for number in range(SERIES):
        rows = [[math.sin(number + step / 3), math.cos(step / 5)] for step in range(steps)]
        for step in spikes if number == 0 else ():
            rows[step][0] += 50
        lines = ["a,b", *(f"{a:.4f},{b:.4f}" for a, b in rows)]
        (folder / f"{number}.csv").write_text("\n".join(lines) + "\n")
    return folder


def found_by(
    run: Run, data: Path, out: Path | None = None, *, overrides: Sequence[str] = (), **options: Any
) -> Detection:
    """What is found where every step is judged, the first ones too; `detect.` keys replace what stands here."""
    judged = ["detect.warmup=0"] if scores_of(run.recipe) else []
    return detect(run, data, out, console=Console(quiet=True), overrides=[*judged, *overrides], **options)


def rows_of(out: Path) -> list[dict[str, Any]]:
    if out.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(out).to_pylist()
        return rows
    if out.suffix == ".jsonl":
        return [json.loads(line) for line in out.read_text().splitlines()]
    return list(csv.DictReader(io.StringIO(out.read_text())))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train`, and `test` with a spike."""
    folder = tmp_path_factory.mktemp("series")
    write_series(folder / "train")
    write_series(folder / "test", spikes=[SPIKE])
    return folder


def forecast(files: Path, path: Path, **data: Any) -> Run:
    section = {"source": "csv", "path": str(files / "train"), "skip_lines": 1, "horizon": 2, "held_out": 0.5}
    return make_run(path, "regression", section | {"normalize": "standardize"} | data)


@pytest.fixture
def run(files: Path, tmp_path: Path) -> Run:
    return forecast(files, tmp_path / "run")


def sessions(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    pq.write_table(pa.table({"id": [f"s{number}" for number in range(len(rows))], "events": list(rows)}), path)
    return path


@pytest.fixture
def logs(tmp_path: Path) -> Run:
    rows = [["open", *["read"] * (number % 3 + 1), "close"] for number in range(40)]
    path = sessions(tmp_path / "normal.parquet", rows)
    data = {"source": "parquet", "path": str(path), "key": "id", "symbols": "events", "held_out": 0.5}
    return make_run(tmp_path / "logs", "language_model", data)


def write_events(path: Path, *lines: str, header: str = "series,start,end") -> Path:
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_a_step_is_scored_by_the_error_of_the_forecast_that_was_made_for_it(
    run: Run, files: Path, tmp_path: Path
) -> None:
    rows = rows_of(_scores(run, files / "train", tmp_path / "out.jsonl"))
    scales = json.loads((run.path / "detect.json").read_text())["fits"][0]["together"]["scales"]
    for row in rows:
        # what the network said two steps before, and what came, both as they were learned
        table = np.loadtxt(files / "train" / row["key"], delimiter=",", skiprows=1)
        values = run.encoding.targets.scaling.apply(table)  # type: ignore[union-attr]
        errors = np.abs(outputs_of(run)[row["key"]].numpy()[:-2] - values[2:])
        expected = (errors / scales).mean(axis=1)
        assert row["score"][:2] == [None, None]
        np.testing.assert_allclose(row["score"][2:], expected, rtol=1e-4)


def _scores(run: Run, data: Path, out: Path, **options: Any) -> Path:
    found_by(run, data, out, **options)
    return out


def test_the_normal_error_is_one_on_average(run: Run, files: Path) -> None:
    found_by(run, files / "test")
    fit = json.loads((run.path / "detect.json").read_text())["fits"][0]
    assert fit["sequences"] == 3
    assert fit["steps"] == fit["together"]["num_scores"] == 3 * (STEPS - 2)


def test_a_spike_is_found_and_nothing_else(run: Run, files: Path, tmp_path: Path) -> None:
    found = found_by(run, files / "test", tmp_path / "out.parquet", overrides=["detect.quantile=1", "detect.margin=3"])
    assert [(event.series, event.start, event.end) for event in found.events] == [("0.csv", SPIKE, SPIKE)]
    (row, *others) = rows_of(tmp_path / "out.parquet")
    assert [step for step, flag in enumerate(row["anomaly"]) if flag] == [SPIKE]
    assert row["score"][SPIKE] == found.events[0].score > row["threshold"][SPIKE]
    assert not any(flag for other in others for flag in other["anomaly"])
    assert "1 event in 1 sequence" in found.to_text()


def test_the_three_formats_say_the_same_in_the_order_of_the_sequences(run: Run, files: Path, tmp_path: Path) -> None:
    objects, lines, table = (
        rows_of(_scores(run, files / "test", tmp_path / f"out{suffix}")) for suffix in (".jsonl", ".csv", ".parquet")
    )
    assert [row["key"] for row in objects] == [f"{number}.csv" for number in range(SERIES)]
    assert objects == table
    assert [(line["key"], int(line["step"])) for line in lines] == [
        (row["key"], step) for row in objects for step in range(STEPS)
    ]
    scores = [score for row in objects for score in row["score"]]
    assert [float(line["score"]) if line["score"] else None for line in lines] == pytest.approx(scores)
    flags = [flag for row in objects for flag in row["anomaly"]]
    assert [line["anomaly"] == "true" for line in lines] == flags


def test_only_the_channels_that_count_are_scored(run: Run, files: Path, tmp_path: Path) -> None:
    options = ("[b]", "[{place: -1}]")
    by_name, by_place = (
        rows_of(
            _scores(
                run,
                files / "test",
                tmp_path / f"{number}.jsonl",
                overrides=[f"detect.channels={channels}", "detect.margin=3"],
            )
        )
        for number, channels in enumerate(options)
    )
    assert [row["score"] for row in by_name] == [row["score"] for row in by_place]
    assert not by_name[0]["anomaly"][SPIKE]  # the spike is in the other


def test_smoothing_weighs_the_scores_before(run: Run, files: Path, tmp_path: Path) -> None:
    plain, smooth = (
        rows_of(_scores(run, files / "test", tmp_path / f"{span}.jsonl", overrides=[f"detect.smoothing={span}"]))
        for span in (0, 9)
    )
    after = plain[0]["score"][SPIKE + 1], smooth[0]["score"][SPIKE + 1]
    assert after[0] < after[1] < smooth[0]["score"][SPIKE] < plain[0]["score"][SPIKE]


def test_what_was_fitted_is_kept_with_the_run_and_used_again(files: Path, tmp_path: Path) -> None:
    write_series(tmp_path / "own" / "train")
    run = forecast(tmp_path / "own", tmp_path / "run")
    first = found_by(run, files / "test")
    for path in (tmp_path / "own" / "train").iterdir():
        path.unlink()  # so that nothing can be fitted again
    assert found_by(run, files / "test").normal == first.normal
    with pytest.raises(DataError):
        found_by(run, files / "test", overrides=["detect.quantile=0.5"])


def test_other_settings_and_another_network_are_fitted_anew(run: Run, files: Path) -> None:
    first = found_by(run, files / "test")
    loose = found_by(run, files / "test", overrides=["detect.quantile=0.5"])
    assert loose.normal.threshold < first.normal.threshold
    assert found_by(run, files / "test").normal == first.normal
    assert len(json.loads((run.path / "detect.json").read_text())["fits"]) == 2
    weights = {name: torch.zeros_like(value) for name, value in _weights(run).items()}
    run.write_model(weights)
    assert found_by(run, files / "test").normal != first.normal


def _weights(run: Run) -> dict[str, torch.Tensor]:
    return load_network(run).state_dict()


def test_the_threshold_does_not_know_of_events(run: Run, files: Path, tmp_path: Path) -> None:
    alone = found_by(run, files / "test")
    events = write_events(tmp_path / "events.csv", f"0.csv,{SPIKE},{SPIKE}")
    (run.path / "detect.json").unlink()
    measured = found_by(run, files / "test", events=events)
    assert (measured.normal, measured.events) == (alone.normal, alone.events)


def test_series_of_one_name_are_fitted_each(files: Path, tmp_path: Path) -> None:
    run = forecast(files, tmp_path / "run", held_out=str(files / "train"))
    found = found_by(run, files / "test", overrides=["detect.fit=each", "detect.quantile=1"])
    assert found.num_each == SERIES
    stored = json.loads((run.path / "detect.json").read_text())["fits"][0]["each"]
    assert set(stored) == {f"{number}.csv" for number in range(SERIES)}
    again = found_by(run, files / "test", overrides=["detect.fit=each", "detect.quantile=1"])
    assert (again.events, again.num_each) == (found.events, found.num_each)


def test_a_session_is_scored_by_the_sum_of_its_surprises(logs: Run, tmp_path: Path) -> None:
    data = sessions(tmp_path / "test.parquet", [["open", "read", "close"], ["close", "close", "open", "read"]])
    rows = rows_of(_scores(logs, data, tmp_path / "out.jsonl"))
    other = make_run(tmp_path / "other", "language_model", logs.recipe.data.model_dump() | {"path": str(data)})
    assert [row["key"] for row in rows] == ["s0", "s1"]
    vocabulary = logs.encoding.vocabulary
    assert other.encoding.vocabulary == vocabulary  # so that the same seed gives the same network
    for row, symbols in zip(rows, pq.read_table(data)["events"].to_pylist(), strict=True):
        numbers = torch.from_numpy(vocabulary.encode_words(pa.array(symbols, pa.string())))
        outputs = outputs_of(other)[row["key"]]
        expected = torch.nn.functional.cross_entropy(outputs, numbers[1:], reduction="sum")
        assert row["score"] == pytest.approx(float(expected), rel=1e-4)
        assert row["anomaly"] is (row["score"] > row["threshold"])


@pytest.mark.parametrize("score", ["surprise", "rank"])
def test_a_symbol_that_was_never_seen_is_as_strange_as_can_be(logs: Run, tmp_path: Path, score: str) -> None:
    data = sessions(tmp_path / "test.parquet", [["open", "read", "close"], ["open", "explode", "close"]])
    steps = rows_of(
        _scores(logs, data, tmp_path / "steps.jsonl", overrides=[f"detect.score={score}", "detect.decide=steps"])
    )
    most = MOST_SURPRISE if score == "surprise" else len(logs.encoding.vocabulary) + 1
    assert steps[1]["score"][1] == most > max(steps[0]["score"][1:])
    whole = found_by(logs, data, overrides=[f"detect.score={score}", "detect.top=3"])
    assert (whole.by_sequence, whole.num_flagged) == (True, 1)


def test_a_character_that_was_never_seen_is_surprising_too(tmp_path: Path) -> None:
    data = {"source": "text", "text": "abcab" * 40, "length": 20, "held_out": 0.5}
    run = make_run(tmp_path / "run", "language_model", data)
    (tmp_path / "test.txt").write_text("abcabcabcaxcabcabcabc")
    (row,) = rows_of(_scores(run, tmp_path / "test.txt", tmp_path / "out.jsonl", overrides=["detect.decide=steps"]))
    assert [step for step, value in enumerate(row["score"]) if value == MOST_SURPRISE] == [10]


def said(*arguments: object) -> tuple[int, str, str]:
    ended = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return ended.exit_code, ended.stdout, ended.stderr


def test_known_events_are_measured_by_detect_and_by_evaluate(run: Run, files: Path, tmp_path: Path) -> None:
    events = write_events(tmp_path / "events.csv", f"0.csv,{SPIKE - 1},{SPIKE + 1}", "3.csv,5,9")
    options = ("--data", files / "test", "--events", events, "--json")
    _, stdout, _ = said("detect", run.path, *options, "--set", "detect.margin=3", "--set", "detect.quantile=1")
    found = json.loads(stdout)
    measures = found["measures"]
    assert (measures["events"], measures["found"], measures["false_alarms"]) == (2, 1, 0)
    assert (measures["precision"], measures["recall"]) == (1.0, 0.5)
    assert measures["auroc"] is not None
    assert measures["ucr_hit"] == pytest.approx(1.0)
    assert found["events"] == [{"series": "0.csv", "start": SPIKE, "end": SPIKE, "score": found["events"][0]["score"]}]
    _, stdout, _ = said("evaluate", run.path, *options)
    assert json.loads(stdout)["measures"]["auroc"] == measures["auroc"]
    _, stdout, _ = said("evaluate", run.path, *options[:-1])
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


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_every_series_is_drawn(run: Run, files: Path, tmp_path: Path, suffix: str) -> None:
    events = write_events(tmp_path / "events.csv", f"0.csv,{SPIKE},{SPIKE}")
    found = found_by(run, files / "test", events=events, plot=tmp_path / f"p{suffix}")
    assert [Path(name).name for name in found.figures] == [f"p-{number}.csv{suffix}" for number in range(SERIES)]
    content = Path(found.figures[0]).read_bytes()
    if suffix == ".png":
        assert int.from_bytes(content[16:20], "big") == 1200
    else:
        for word in ("0.csv", "threshold", "score (multiples of the normal error)", "found", "known", "step"):
            assert f">{word}" in content.decode(), word


def test_one_series_is_drawn_where_it_was_asked_for(run: Run, files: Path, tmp_path: Path) -> None:
    found_by(run, files / "test" / "0.csv", plot=tmp_path / "p.png")
    assert (tmp_path / "p.png").exists()
    with pytest.raises(UsageError, match=r"there are figures of this name already, p\.png"):
        found_by(run, files / "test" / "0.csv", plot=tmp_path / "p.png")


def test_sessions_are_drawn_with_their_symbols(logs: Run, tmp_path: Path) -> None:
    data = sessions(tmp_path / "test.parquet", [["open", "read$", "close"], ["open"]])
    found = found_by(logs, data, plot=tmp_path / "p.svg")
    text = Path(found.figures[0]).read_text()
    assert "read$" in text
    assert "score (nats)" in text


def test_where_matplotlib_is_missing_the_command_that_installs_it_is_told(
    run: Run, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"pip install 'rayrnn\[plot\]'"):
        found_by(run, files / "test", plot=tmp_path / "p.png")


def test_series_that_are_too_short_for_a_forecast_have_no_score(run: Run, tmp_path: Path) -> None:
    short = write_series(tmp_path / "short", steps=2)
    found = found_by(run, short, tmp_path / "out.jsonl")
    assert {tuple(row["score"]) for row in rows_of(tmp_path / "out.jsonl")} == {(None, None)}
    assert (found.num_scored, found.events) == (0, ())
    assert "6 sequences of 6 too short to be judged" in found.notes[-1]


def test_series_within_the_warm_up_have_no_score_and_that_is_said(run: Run, tmp_path: Path) -> None:
    short = write_series(tmp_path / "short", steps=8)
    events = write_events(tmp_path / "events.csv", "0.csv,3,5")
    overrides = ["detect.warmup=10"]
    found = found_by(run, short, tmp_path / "out.jsonl", events=events, overrides=overrides)
    assert {tuple(row["score"]) for row in rows_of(tmp_path / "out.jsonl")} == {(None,) * 8}
    assert found.num_scored == 0
    assert any("detect.warmup are 10 more" in note for note in found.notes)
    assert any("1 known event at steps that are not judged" in note for note in found.notes)


def test_a_session_of_one_symbol_has_no_score_and_that_is_said(logs: Run, tmp_path: Path) -> None:
    data = sessions(tmp_path / "test.parquet", [["open"], ["open", "explode", "close"]])
    found = found_by(logs, data, tmp_path / "out.jsonl")
    assert [row["score"] is None for row in rows_of(tmp_path / "out.jsonl")] == [True, False]
    assert "1 sequence of 2 with one symbol, which nothing foretells" in found.notes[-1]


def refused(expected: type[RayrnnError], match: str, run: Run, data: Path, tmp_path: Path, **options: Any) -> None:
    """One error of the right kind; and no file is left, but where all was judged before."""
    out = tmp_path / "refused.jsonl"
    with pytest.raises(expected, match=match):
        found_by(run, data, out, **options)
    assert not out.exists() or len(rows_of(out)) > 1


@pytest.mark.parametrize(
    ("task", "data"),
    [("classification", {"label_column": "b", "classes": ["x", "y"]}), ("regression", {"label_column": "b"})],
)
def test_a_task_whose_sequences_show_no_error_is_refused(files: Path, tmp_path: Path, task: str, data: Any) -> None:
    labelled = write_files(tmp_path / "files", lambda n, t: [t, "xy"[n % 2] if task == "classification" else n])
    section = {"source": "csv", "path": str(labelled), **data, "label_column": -1}
    run = make_run(tmp_path / "run", task, section)
    refused(UsageError, f"learned {task}, .* with data.horizon", run, files / "test", tmp_path)
    with pytest.raises(RecipeError, match="detect is for forecasts"):
        found_by(run, files / "test", overrides=["detect.quantile=0.9"])


def test_without_a_held_out_part_there_is_no_threshold(files: Path, tmp_path: Path) -> None:
    run = forecast(files, tmp_path / "run", held_out=0)
    refused(UsageError, r"held nothing out .* train a run with data\.held_out: 0\.1", run, files / "test", tmp_path)


def test_held_out_series_that_are_too_short_are_told(files: Path, tmp_path: Path) -> None:
    short = write_series(tmp_path / "short", steps=2)
    run = forecast(files, tmp_path / "run", held_out=0.5)
    recipe = run.recipe.model_copy(update={"data": run.recipe.data.model_copy(update={"held_out": str(short)})})
    run.write_recipe(recipe)
    refused(DataError, "longer than data.horizon", run, files / "test", tmp_path)


def test_a_network_that_has_diverged_is_told(run: Run, files: Path, tmp_path: Path) -> None:
    run.write_model({name: torch.full_like(value, torch.nan) for name, value in _weights(run).items()})
    refused(DataError, "not a finite number", run, files / "test", tmp_path)


def test_a_network_that_diverges_on_the_series_is_told_with_its_name(run: Run, files: Path, tmp_path: Path) -> None:
    found_by(run, files / "test")
    kept = json.loads((run.path / "detect.json").read_text())
    run.write_model({name: torch.full_like(value, torch.nan) for name, value in _weights(run).items()})
    kept["fits"][0]["model"] = hashlib.sha256((run.path / "model.safetensors").read_bytes()).hexdigest()
    (run.path / "detect.json").write_text(json.dumps(kept))
    refused(DataError, r"sequence '0\.csv': the network's answer is not a finite number", run, files / "test", tmp_path)


def test_a_file_that_is_there_stays(run: Run, files: Path, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        found_by(run, files / "test", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"out": "out.txt"}, UsageError, r"must end in \.jsonl, \.csv or \.parquet"),
        ({"plot": "p.pdf"}, UsageError, r"--plot is .*p\.pdf: its name must end in \.png or \.svg"),
        ({"plot": "missing/p.png"}, DataError, "there is no directory"),
        ({"overrides": ["training.batch_size=3"]}, RecipeError, "takes keys of the recipe's detect section"),
        ({"overrides": ["detect.quantil=1"]}, RecipeError, 'unknown; did you mean "quantile"'),
        ({"overrides": ["detect.quantile=2"]}, RecipeError, "less than or equal to 1"),
        ({"overrides": ["detect.score=rank"]}, RecipeError, "steps of this task are scored by error"),
        ({"overrides": ["detect.channels=[c]"]}, UsageError, "names 'c', .* it forecasts a, b"),
        ({"overrides": ["detect.channels=[{place: 2}]"]}, UsageError, "names place 2, .* it forecasts a, b"),
        ({"overrides": ["detect.channels=[]"]}, RecipeError, "names none"),
        ({"overrides": ["detect.lowest_z=20"]}, RecipeError, "lowest_z must not be above"),
        ({"overrides": ["detect.threshold=dynamic", "detect.decide=sequences"]}, RecipeError, "is for steps"),
        ({"overrides": ["detect.fit=each", "detect.decide=sequences"]}, RecipeError, "each is for steps"),
    ],
)
def test_an_option_that_does_not_fit_is_told(
    run: Run, files: Path, tmp_path: Path, options: dict[str, Any], error: type[RayrnnError], match: str
) -> None:
    placed = {name: tmp_path / value if name in ("out", "plot") else value for name, value in options.items()}
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=match):
        found_by(run, files / "test", **placed)
    assert sorted(tmp_path.rglob("*")) == before


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
    ("overrides", "error", "match"),
    [
        (["detect.threshold=dynamic"], RecipeError, "dynamic is for steps: set detect.decide: steps"),
        (["detect.fit=each"], RecipeError, "each is for steps"),
        (["detect.score=rank"], UsageError, "detect.top is 9 and .*logs knows 3 symbols: none could ever be unlikely"),
    ],
)
def test_what_is_for_steps_alone_is_refused_where_sequences_are_judged(
    logs: Run, tmp_path: Path, overrides: list[str], error: type[RayrnnError], match: str
) -> None:
    data = sessions(tmp_path / "test.parquet", [["open", "close"]])
    refused(error, match, logs, data, tmp_path, overrides=overrides)


def test_evaluate_with_events_needs_the_sequences(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no sequences that they lie in"):
        said("evaluate", run.path, "--events", tmp_path / "events.csv")
    with pytest.raises(UsageError, match="--out and --beam do not go with --events"):
        said("evaluate", run.path, "--events", tmp_path / "e.csv", "--data", tmp_path, "--out", tmp_path / "o.csv")
    with pytest.raises(UsageError, match="two ways to measure"):
        said("evaluate", run.path, "--events", tmp_path / "e.csv", "--data", tmp_path, "--labels", tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("version", 2, "version"),
        ("fits.0.together.threshold", "NaN", "fits.0.together.threshold"),
        ("fits.0.together.scales", [0.0], "fits.0.together.scales"),
        ("fits.0.each", {"a": {"scales": [1.0, 1.0, 1.0], "threshold": 1.0, "num_scores": 1}}, "scales"),
        ("fits.0.model", "abc", "fits.0.model"),
        ("fits.0.together.scales", [1.0, 1.0, 1.0], "scales of 3 numbers, and 2 are scored"),
        ("extra", 1, "extra"),
    ],
)
def test_a_damaged_detector_is_told_by_its_key(
    run: Run, files: Path, tmp_path: Path, key: str, value: Any, match: str
) -> None:
    found_by(run, files / "test")
    stored = json.loads((run.path / "detect.json").read_text())
    *way, last = key.split(".")
    place: Any = stored
    for part in way:
        place = place[int(part)] if isinstance(place, list) else place[part]
    place[last] = value
    (run.path / "detect.json").write_text(json.dumps(stored))
    refused(RunError, match, run, files / "test", tmp_path)


def test_a_run_directory_that_cannot_be_written_still_detects(
    run: Run, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run.path / ".detect.json.unfinished").mkdir()  # so that no draft can be written there, whoever asks
    found = found_by(run, files / "test")
    assert "will be fitted again" in found.notes[-1]
    assert not (run.path / "detect.json").exists()


def test_a_run_of_before_detection_is_read(run: Run, files: Path) -> None:
    text = (run.path / "recipe.yaml").read_text()
    assert "\ndetect: null\n" in text
    (run.path / "recipe.yaml").write_text(text.replace("\ndetect: null\n", "\n"))
    assert found_by(run, files / "test").num_sequences == SERIES
