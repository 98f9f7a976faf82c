"""Runs that are served, and one server for all tests that do not end it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from rayrnn.prediction.detect import detect
from rayrnn.runs.directory import Run
from tests.detection.series import forecast, write_series
from tests.serving.commands import Started, started
from tests.untrained import make_run, wave, write_files

TEXT = "abc def ghi\n"


@pytest.fixture(scope="package")
def served_runs(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> dict[str, Run]:
    """A language model, one class a sequence, one a step, and a forecast with a fitted detector; none was trained."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "text.txt").write_text(TEXT * 80)
    waves = write_files(folder / "waves", lambda number, step: [*wave(number, step), "abc"[number % 3]], "x,y,kind")
    write_series(folder / "train")
    write_series(folder / "test", spikes=[40])
    table = {"source": "csv", "path": str(waves), "skip_lines": 1, "label_column": "kind"}
    predicted = forecast(folder, folder / "series", normalize="standardize")
    detect(predicted, folder / "test", folder / "scores.jsonl", console=Console(quiet=True))
    return {
        "text": make_run(
            folder / "text", "language_model", {"source": "text", "path": str(folder / "text.txt"), "length": 40}
        ),
        "kinds": make_run(folder / "kinds", "classification", table, {"pooling": "last"}),
        "both": make_run(folder / "both", "tagging", table, {"bidirectional": "concat"}),
        "series": predicted,
    }


@pytest.fixture(scope="package")
def server(served_runs: dict[str, Run], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    home = tmp_path_factory.mktemp("home")
    paths = [run.name for run in served_runs.values()]
    with started(home, *paths, "--max-body", "1", "--max-sessions", "20") as one:
        yield one


@pytest.fixture(scope="package")
def waves(served_runs: dict[str, Run]) -> Path:
    return Path(served_runs["kinds"].path).parent / "waves"
