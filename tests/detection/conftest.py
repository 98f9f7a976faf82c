"""Runs that `rayrnn detect` judges with."""

from pathlib import Path

import pytest

from rayrnn.runs.directory import Run
from tests.detection.series import SPIKE, forecast, sessions, write_series
from tests.untrained import make_run


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train`, and `test` with a spike."""
    folder = tmp_path_factory.mktemp("series")
    write_series(folder / "train")
    write_series(folder / "test", spikes=[SPIKE])
    return folder


@pytest.fixture
def run(files: Path, tmp_path: Path) -> Run:
    return forecast(files, tmp_path / "run")


@pytest.fixture
def logs(tmp_path: Path) -> Run:
    rows = [["open", *["read"] * (number % 3 + 1), "close"] for number in range(40)]
    path = sessions(tmp_path / "normal.parquet", rows)
    data = {"source": "parquet", "path": str(path), "key": "id", "symbols": "events", "held_out": 0.5}
    return make_run(tmp_path / "logs", "language_model", data)
