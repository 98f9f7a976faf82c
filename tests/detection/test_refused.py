"""What `rayrnn detect` refuses: one error, and no file is left."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rayrnn.errors import DataError, RayrnnError, RecipeError, RunError, UsageError
from rayrnn.runs.directory import Run
from tests.detection.series import forecast, found_by, refused, sessions, weights_of, write_series
from tests.untrained import make_run, write_files

pytestmark = pytest.mark.usefixtures("ray_cluster")


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
    run.write_model({name: torch.full_like(value, torch.nan) for name, value in weights_of(run).items()})
    refused(DataError, "not a finite number", run, files / "test", tmp_path)


def test_a_network_that_diverges_on_the_series_is_told_with_its_name(run: Run, files: Path, tmp_path: Path) -> None:
    found_by(run, files / "test")
    kept = json.loads((run.path / "detect.json").read_text())
    run.write_model({name: torch.full_like(value, torch.nan) for name, value in weights_of(run).items()})
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
