"""Ways in which a series may go on: drawn step by step, the same again by the same seed, refused where none can be."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from rayrnn.cli import app
from rayrnn.errors import UsageError
from rayrnn.prediction.predict import predict
from rayrnn.runs.directory import Run
from rayrnn.runs.model import load_network
from tests.untrained import make_run

pytestmark = pytest.mark.usefixtures("ray_cluster")


def write_series(folder: Path, count: int = 3) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number}.csv").write_text("".join(f"{(step * (number + 2)) % 7}\n" for step in range(9)))
    return folder


def forecast(place: Path, loss: str = "normal", **data: Any) -> Run:
    path = str(write_series(place / "series"))
    section = {"source": "csv", "path": path, "horizon": 1, "normalize": "standardize", "held_out": 0} | data
    return make_run(place / "run", "regression", section, loss=loss)


def drawn(run: Run, series: Path, out: Path, *, samples: int, steps: int) -> dict[tuple[str, int], list[float]]:
    predict(run, series, out, samples=samples, steps=steps)
    return {(row["key"], row["sample"]): row["prediction"] for row in pq.read_table(out).to_pylist()}


def test_every_series_goes_on_in_as_many_ways_as_are_asked_for(tmp_path: Path) -> None:
    run, series = forecast(tmp_path), tmp_path / "series"
    found = drawn(run, series, tmp_path / "paths.parquet", samples=4, steps=5)
    assert list(found) == [(f"{number}.csv", sample) for number in range(3) for sample in range(4)]
    assert all(len(path) == 5 for path in found.values())
    assert len({tuple(path) for path in found.values()}) == 12


def test_the_same_is_drawn_again_whatever_stands_beside_it(tmp_path: Path) -> None:
    run = forecast(tmp_path)
    all_of_them = drawn(run, tmp_path / "series", tmp_path / "one.parquet", samples=3, steps=4)
    alone = drawn(run, tmp_path / "series" / "1.csv", tmp_path / "other.parquet", samples=3, steps=4)
    assert alone == {place: path for place, path in all_of_them.items() if place[0] == "1.csv"}


def test_a_path_is_drawn_from_what_the_network_says_of_the_steps_before(tmp_path: Path) -> None:
    run, samples = forecast(tmp_path), 2000
    found = drawn(run, tmp_path / "series" / "0.csv", tmp_path / "paths.parquet", samples=samples, steps=2)
    paths = np.array(list(found.values()))
    network, scaling = load_network(run), run.encoding.targets.scaling  # type: ignore[union-attr]
    series = np.array([[(step * 2) % 7] for step in range(9)], float)
    read = np.concatenate([np.tile(series, (samples, 1, 1)), paths[:, :1, None]], axis=1)
    with torch.no_grad():
        outputs = network(torch.from_numpy(scaling.apply(read)), None, torch.ones(samples, 10, dtype=torch.bool))[0]
    for step, place in ((0, 8), (1, 9)):
        due = scaling.undo(outputs[:, place, :1].double().numpy())[:, 0]
        spread = paths[:, step].std() / samples**0.5
        assert paths[:, step].mean() == pytest.approx(due.mean(), abs=4 * spread)


def test_paths_of_counts_are_counts_and_stand_in_lines(tmp_path: Path) -> None:
    run = forecast(tmp_path, "negative_binomial")
    out = str(tmp_path / "paths.csv")
    command = ["predict", str(run.path), "--data", str(tmp_path / "series"), "--out", out]
    said = CliRunner().invoke(app, [*command, "--samples", "2", "--steps", "3"])
    assert said.exit_code == 0, said.output
    assert "3 sequences answered" in said.stderr
    with Path(out).open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["sample"], line["step"]) for line in lines[:6]] == [
        (str(s), str(t)) for s in (0, 1) for t in (0, 1, 2)
    ]
    assert len(lines) == 18
    assert all(float(line["prediction"]) >= 0 and float(line["prediction"]).is_integer() for line in lines)


def test_paths_are_lines_of_json_too(tmp_path: Path) -> None:
    run = forecast(tmp_path, "student_t")
    predict(run, tmp_path / "series", tmp_path / "paths.jsonl", samples=1, steps=2)
    first = json.loads((tmp_path / "paths.jsonl").read_text().splitlines()[0])
    assert (first["key"], first["sample"], len(first["prediction"])) == ("0.csv", 0, 2)


@pytest.mark.parametrize(
    ("loss", "data", "asked", "words"),
    [
        ("normal", {}, {"samples": 3}, "samples are given and steps are not"),
        ("normal", {}, {"steps": 3}, "steps are given and samples are not"),
        ("normal", {}, {"samples": 0, "steps": 3}, "both are at least 1"),
        ("normal", {}, {"samples": 10**6, "steps": 10**6}, "their product 100,000,000"),
        ("quantile", {}, {"samples": 2, "steps": 2}, "training.loss is quantile, which is no distribution"),
        ("normal", {"horizon": 2}, {"samples": 2, "steps": 2}, "this run forecasts 2 steps ahead"),
        ("normal", {"horizon": "1..3"}, {"samples": 2, "steps": 2}, "this run forecasts 1 to 3 steps ahead"),
    ],
)
def test_paths_that_cannot_be_drawn_are_refused(
    loss: str, data: dict[str, Any], asked: dict[str, int], words: str, tmp_path: Path
) -> None:
    run = forecast(tmp_path, loss, **data)
    with pytest.raises(UsageError, match=words):
        predict(run, tmp_path / "series", tmp_path / "paths.csv", **asked)  # type: ignore[arg-type]
    assert not (tmp_path / "paths.csv").exists()
