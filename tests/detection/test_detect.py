"""`rayrnn detect`: from a run and sequences to scores, events and pictures."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rayrnn.anomalies.scores import MOST_SURPRISE
from rayrnn.errors import DataError, UsageError
from rayrnn.prediction.figures import Picture, draw
from rayrnn.runs.directory import Run
from tests.detection.series import (
    SERIES,
    SPIKE,
    STEPS,
    forecast,
    found_by,
    rows_of,
    sessions,
    weights_of,
    write_events,
    write_series,
)
from tests.untrained import make_run, outputs_of

pytestmark = pytest.mark.usefixtures("ray_cluster")


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
    weights = {name: torch.zeros_like(value) for name, value in weights_of(run).items()}
    run.write_model(weights)
    assert found_by(run, files / "test").normal != first.normal


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


def test_where_no_series_has_scores_enough_for_its_own_threshold_that_is_said(files: Path, tmp_path: Path) -> None:
    short = write_series(tmp_path / "short", steps=20)
    run = forecast(files, tmp_path / "run", held_out=str(short))
    found = found_by(run, files / "test", overrides=["detect.fit=each"])
    assert "its own for 0 of 6 sequences" in " ".join(found.to_text().split())


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


@pytest.mark.parametrize(("pressure", "label"), [(1013.0, "series, each scaled"), (20.5, "series")])
def test_channels_that_would_not_be_seen_on_one_axis_are_scaled(tmp_path: Path, pressure: float, label: str) -> None:
    steps = np.arange(50)
    values = np.stack([20 + np.sin(steps), pressure + np.cos(steps)], axis=1)
    nothing = np.full(50, np.nan)
    picture = Picture("a", values, ("t", "p"), nothing, nothing, found=[], known=None, unit="error")
    (drawn,) = draw([picture], tmp_path / "p.svg")
    assert f">{label}</text>" in drawn.read_text()


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


def test_series_without_a_step_are_drawn_with_the_others_and_short_ones_have_no_sum(tmp_path: Path) -> None:
    values = [[[math.sin(step)] for step in range(steps)] for steps in (40, 40, 40, 0, 1)]
    pq.write_table(pa.table({"id": list("abcde"), "values": values}), tmp_path / "rows.parquet")
    learned = {
        "source": "parquet",
        "path": str(tmp_path / "rows.parquet"),
        "key": "id",
        "values": "values",
        "horizon": 1,
    }
    run = make_run(tmp_path / "run", "regression", learned)
    found = found_by(run, tmp_path / "rows.parquet", plot=tmp_path / "p.png")
    assert found.num_sequences == 5
    assert len(found.figures) >= 4
    found = found_by(run, tmp_path / "rows.parquet", overrides=["detect.decide=sequences"])
    assert "2 sequences of 5 too short to be judged" in found.notes[-1]


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
