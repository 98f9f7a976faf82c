"""Forecasts measured at the last origins of series, beside the seasonal naive forecast; runs with every loss in use."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

import rayrnn
from rayrnn.cli import app
from rayrnn.data.prepare import prepare
from rayrnn.errors import DataError, RunError, UsageError
from rayrnn.prediction.evaluate import evaluate
from rayrnn.prediction.predict import predict
from rayrnn.prediction.rolling import evaluate_forecasts
from rayrnn.recipe import remarks_on_answers, validate_recipe
from rayrnn.runs.directory import Run, open_run
from rayrnn.tasks import LOSSES, POINT_LOSSES
from tests.untrained import make_run, outputs_of

pytestmark = pytest.mark.usefixtures("ray_cluster")
SERIES, STEPS = 6, 40


def value(number: int, step: int) -> int:
    """Counts that come again every four steps, about a level of the series' own."""
    return (step % 4) * (number + 1) + (step * number) % 3


def write_series(folder: Path, steps: int = STEPS) -> Path:
    folder.mkdir()
    for number in range(SERIES):
        lines = "".join(f"{value(number, step)},{step % 4}\n" for step in range(steps))
        (folder / f"{number}.csv").write_text(lines)
    return folder


def forecast(place: Path, loss: str = "squared", *, horizon: int = 3, **data: Any) -> Run:
    series = write_series(place / "series")
    section = {"source": "csv", "path": str(series), "horizon": horizon, "normalize": "standardize"} | data
    training = {"loss": loss} | ({"quantiles": [0.05, 0.5, 0.95]} if loss == "quantile" else {})
    if loss == "negative_binomial":
        section["features"] = ["0"]
    return make_run(place / "run", "regression", {"held_out": 0.5} | section, **training)


@pytest.fixture(scope="module")
def quantiles(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Run:
    return forecast(tmp_path_factory.mktemp("quantiles"), "quantile")


def path_of(run: Run) -> str:
    return str(run.recipe.data.path)  # type: ignore[attr-defined]


def test_the_origins_are_the_last_ones_the_farthest_step_apart(tmp_path: Path) -> None:
    run = forecast(tmp_path, "squared", horizon=3)
    found = evaluate_forecasts(run, folds=2, season=4, path=path_of(run))
    errors, naive = [], []
    for key, outputs in outputs_of(run).items():
        series = np.array([[value(int(key[0]), step), step % 4] for step in range(STEPS)], float)
        said = run.encoding.targets.in_own_units(outputs.numpy())  # type: ignore[union-attr]
        for origin in (33, 36):
            errors.append(np.abs(said[origin] - series[origin + 3]))
            naive.append(np.abs(series[origin - 1] - series[origin + 3]))
    assert found.windows == len(errors) * 2 == 24
    assert found.network["mae"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert found.seasonal_naive["mae"] == pytest.approx(np.mean(naive), rel=1e-5)
    assert set(found.network) == {"mase", "smape", "rmse", "mae"}


def test_what_training_held_out_is_measured(quantiles: Run) -> None:
    found = evaluate_forecasts(quantiles, folds=1)
    assert (found.num_sequences, found.windows, found.season) == (3, 6, 1)
    assert found.data.startswith("held out of")


def test_the_table_has_the_naive_forecast_beside_the_network(quantiles: Run) -> None:
    run = str(quantiles.path)
    said = CliRunner().invoke(app, ["evaluate", run, "--folds", "2", "--season", "4", "--data", path_of(quantiles)])
    assert said.exit_code == 0, said.output
    lines = said.stdout.splitlines()
    assert lines[0].endswith(
        "6 sequences, 2 origins of each, 3 steps ahead, season 4; 16 of 24 windows flat, without MASE"
    )
    assert lines[1].split() == ["network", "seasonal", "naive"]
    titles = [line.rsplit(maxsplit=2)[0] for line in lines[2:]]
    assert titles == ["MASE", "sMAPE, %", "RMSE", "MAE", "CRPS", "scaled CRPS", "inside 90%"]


def test_json_has_the_same_of_both(quantiles: Run) -> None:
    arguments = ["evaluate", str(quantiles.path), "--folds", "1", "--data", path_of(quantiles), "--json"]
    found = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert (found["horizons"], found["folds"], found["interval"], found["sequences"]) == ([3], 1, 0.9, 6)
    names = {"mase", "smape", "rmse", "mae", "crps", "scaled_crps", "coverage"}
    assert set(found["network"]) == set(found["seasonal_naive"]) == names


def test_many_tasks_find_what_one_does(quantiles: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = evaluate_forecasts(quantiles, folds=2, path=path_of(quantiles))
    monkeypatch.setattr("rayrnn.prediction.evaluate.STEPS_A_TASK", 50)
    assert evaluate_forecasts(quantiles, folds=2, path=path_of(quantiles)).network == pytest.approx(alone.network)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"folds": 13}, r"6 of 6 sequences are too short, the shortest of 40 steps: 13 origins with 3 steps ahead of "),
        ({"folds": 12, "season": 4}, r"each, and a season of 4 before the first, are 41 steps; lower --folds"),
    ],
)
def test_too_few_steps_are_told_in_numbers(quantiles: Run, arguments: dict[str, int], words: str) -> None:
    with pytest.raises(DataError, match=words):
        evaluate_forecasts(quantiles, path=path_of(quantiles), **arguments)


def test_as_many_origins_as_the_steps_allow(quantiles: Run) -> None:
    assert evaluate_forecasts(quantiles, folds=12, season=3, path=path_of(quantiles)).windows == 6 * 12 * 2


@pytest.mark.parametrize("wrong", [{"folds": 0}, {"folds": 1, "season": 0}, {"folds": -2}])
def test_folds_and_season_are_at_least_1(quantiles: Run, wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="both are at least 1"):
        evaluate_forecasts(quantiles, **wrong)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--season", "4"], "it goes with --folds"),
        (["--folds", "2", "--beam", "3"], "do not go with --folds"),
        (["--folds", "2", "--season", "0"], "both are at least 1"),
    ],
)
def test_the_command_refuses_what_does_not_fit(quantiles: Run, arguments: list[str], words: str) -> None:
    said = CliRunner().invoke(app, ["evaluate", str(quantiles.path), *arguments])
    assert isinstance(said.exception, UsageError)
    assert words in str(said.exception)


def test_a_run_that_forecasts_nothing_has_no_origins(tmp_path: Path) -> None:
    series = write_series(tmp_path / "series")
    section = {"source": "csv", "path": str(series), "label_column": 1}
    run = make_run(tmp_path / "run", "regression", section)
    with pytest.raises(UsageError, match=r"run forecasts nothing \(data\.horizon: 0\)"):
        evaluate_forecasts(run, folds=1)


def test_a_run_that_held_nothing_out_asks_for_series(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"held nothing out.*--data PATH"):
        evaluate_forecasts(forecast(tmp_path, held_out=0), folds=1)


@pytest.mark.parametrize("loss", ["squared", "normal"])
def test_all_steps_between_two_origins_are_measured(loss: str, tmp_path: Path) -> None:
    run = forecast(tmp_path, loss, horizon="1..4", forecast=["0"])  # type: ignore[arg-type]
    found = evaluate_forecasts(run, folds=2, season=4, path=path_of(run))
    assert (found.horizons, found.windows) == ((1, 2, 3, 4), 6 * 2)
    errors = []
    for key, outputs in outputs_of(run).items():
        series = np.array([value(int(key[0]), step) for step in range(STEPS)], float)
        means = outputs.reshape(STEPS, 4, -1)[..., 0].numpy()
        said = run.encoding.targets.in_own_units(means)  # type: ignore[union-attr]
        errors += [np.abs(said[origin] - series[origin + 1 : origin + 5]) for origin in (31, 35)]
    assert found.network["mae"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert found.seasonal_naive["mae"] < found.network["mae"]
    predict(run, path_of(run), tmp_path / "answers.csv")
    with (tmp_path / "answers.csv").open() as file:
        header = next(csv.reader(file))
    assert header[:3] == ["key", "step", "prediction_0+1"]
    assert ("prediction_q0.9_0+4" in header) == (loss == "normal")


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != "bernoulli"])
def test_a_run_with_any_loss_is_measured_and_answers(loss: str, tmp_path: Path) -> None:
    run = forecast(tmp_path, loss, horizon=1)
    report = evaluate(run, path=path_of(run))
    assert all(isinstance(number, float) and math.isfinite(number) for number in report.metrics.values())
    assert ("coverage" in report.metrics) == (loss not in POINT_LOSSES)
    interval = {"quantile": 0.9}.get(loss, None if loss in POINT_LOSSES else 0.8)
    assert report.to_json().get("interval") == interval
    assert ("inside" in report.to_text()) == (interval is not None)
    assert interval is None or f"inside {interval:.0%} " in report.to_text()
    rolled = evaluate_forecasts(run, folds=2, season=4, path=path_of(run))
    assert {"mase", "crps"} <= set(rolled.network) or loss in POINT_LOSSES
    rows = {name: tmp_path / f"answers.{name}" for name in ("csv", "jsonl", "parquet")}
    for file in rows.values():
        predict(run, path_of(run), file)
    levels = {"squared": [], "absolute": [], "quantile": ["0.05", "0.5", "0.95"]}.get(loss, ["0.1", "0.5", "0.9"])
    columns = ["prediction", *(f"prediction_q{level}" for level in levels)]
    assert pq.read_table(rows["parquet"]).column_names == ["key", *columns]
    first = json.loads(rows["jsonl"].read_text().splitlines()[0])
    assert list(first) == ["key", *columns]
    with rows["csv"].open() as file:
        lines = list(csv.DictReader(file))
    places = [""] if loss == "negative_binomial" else ["_0", "_1"]
    assert list(lines[0]) == ["key", "step", *(f"{column}{place}" for column in columns for place in places)]
    if levels:
        assert all(float(lines[0][f"{columns[1]}{p}"]) <= float(lines[0][f"{columns[-1]}{p}"]) for p in places)


def test_a_quantile_that_is_not_the_middle_is_said_to_be_none(tmp_path: Path) -> None:
    series = write_series(tmp_path / "series")
    section = {"source": "csv", "path": str(series), "horizon": 3, "held_out": 0.5}
    run = make_run(tmp_path / "run", "regression", section, loss="quantile", quantiles=[0.8, 0.9])
    (said,) = prepare(run.recipe).notes
    assert said.startswith(
        "training.quantiles has no level at or around 0.5: `prediction` is the quantile 0.8, and RMSE"
    )
    assert said in evaluate(run).notes
    assert said in evaluate_forecasts(run, folds=1).notes


@pytest.mark.parametrize(("levels", "told"), [([0.1, 0.2], "quantile 0.2"), ([0.5], ""), ([0.2, 0.7], ""), (None, "")])
def test_levels_on_both_sides_surround_the_middle(levels: list[float] | None, told: str) -> None:
    training = {"loss": "quantile", "quantiles": levels}
    asked = {"source": "csv", "path": "series", "horizon": 3}
    recipe = validate_recipe({"name": "run", "task": "regression", "data": asked, "training": training})
    said = remarks_on_answers(recipe)
    assert len(said) == bool(told)
    assert told in "".join(said)


def test_answers_of_a_quantile_loss_are_the_networks_sorted_outputs(quantiles: Run, tmp_path: Path) -> None:
    predict(quantiles, path_of(quantiles), tmp_path / "answers.jsonl")
    rows = {row["key"]: row for row in map(json.loads, (tmp_path / "answers.jsonl").read_text().splitlines())}
    scaling = quantiles.encoding.targets.scaling  # type: ignore[union-attr]
    for key, outputs_TV in outputs_of(quantiles).items():
        due = scaling.undo(outputs_TV.reshape(STEPS, 2, 3).sort(-1).values.movedim(-1, 0).numpy().astype(float))
        for place, level in enumerate(("0.05", "0.5", "0.95")):
            assert np.allclose(rows[key][f"prediction_q{level}"], due[place], rtol=1e-5)
        assert np.allclose(rows[key]["prediction"], due[1], rtol=1e-5)


def test_an_encoding_with_another_number_of_outputs_does_not_fit_the_run(quantiles: Run, tmp_path: Path) -> None:
    run = forecast(tmp_path, "quantile")
    stored = json.loads((run.path / "vocabulary.json").read_text())
    assert stored["parameters"] == 3
    (run.path / "vocabulary.json").write_text(json.dumps(stored | {"parameters": 2}))
    with pytest.raises(RunError, match=r"vocabulary\.json.* does not fit this run"):
        evaluate(open_run(run.path), path=path_of(run))


def test_counts_that_are_none_are_refused_before_training(tmp_path: Path) -> None:
    series = write_series(tmp_path / "series")
    (series / "3.csv").write_text("1\n2\n2.5\n3\n")
    for number in (0, 1, 2, 4, 5):
        (series / f"{number}.csv").write_text("1\n2\n3\n")
    section = {"source": "csv", "path": str(series), "horizon": 1, "held_out": 0.5}
    with pytest.raises(DataError, match=r"sequence '3\.csv' is to answer 2\.5, and training\.loss negative_binomial"):
        make_run(tmp_path / "run", "regression", section, loss="negative_binomial")
    run = make_run(tmp_path / "left", "regression", section | {"on_error": "skip"}, loss="negative_binomial")
    report = evaluate(run, path=series)
    assert "the loss leaves out such ones: sequence '3.csv' is to answer 2.5" in report.notes[0]


def test_training_by_quantiles_learns_them(tmp_path: Path) -> None:
    """Noise has nothing to foretell but its quantiles."""
    chance = np.random.default_rng(0)
    folder = tmp_path / "noise"
    folder.mkdir()
    for number in range(20):
        np.savetxt(folder / f"{number:02}.csv", chance.exponential(size=60), fmt="%.4f")
    recipe = rayrnn.load_recipe("series", ["name=noise"])
    values: dict[str, Any] = recipe.model_dump(mode="json") | {
        "task": "regression",
        "data": {"source": "csv", "path": str(folder), "horizon": 1, "held_out": 0.2},
        "model": {"cell": "gru", "hidden": 4, "layers": 1},
        "training": {"loss": "quantile", "learning_rate": 0.03, "batch_size": 8},
        "averaging": {"workers": 1, "rounds": 40, "frequency": 2},
    }
    torch.manual_seed(0)
    outcome = rayrnn.train(validate_recipe(values), out=str(tmp_path / "run"))
    report = evaluate(outcome.run, path=folder)
    assert report.metrics["coverage"] == pytest.approx(0.8, abs=0.06)
    # the least there is: the mean of -(1 - q) ln(1 - q) over the levels
    assert report.metrics["loss"] == pytest.approx(0.224, abs=0.03)
