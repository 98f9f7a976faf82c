"""The shipped recipes with convolutions on real data: better than the same network without them, or at their bar."""

import contextlib
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from rayrnn.cli import app
from rayrnn.recipe import load_recipe
from rayrnn.training.driver import train
from tests.recipe_programs import laid_out
from tests.ts_files import find_ts, read_ts, write_csv

pytestmark = pytest.mark.usefixtures("ray_cluster")

#: public, not of this project: see the recipe's comment
TRACKS = Path(__file__).parent.parent.parent / "shared" / "data" / "gestures" / "point_history.csv"


def accuracy(recipe: str, learned: Path, test: Path, out: Path, *overrides: str) -> float:
    run = train(load_recipe(recipe, [f"data.path={learned}", *overrides]), out=out, console=Console(quiet=True)).run
    ended = CliRunner().invoke(app, ["evaluate", str(run.path), "--data", str(test), "--json"], catch_exceptions=False)
    assert ended.exit_code == 0, ended.stderr
    return float(json.loads(ended.stdout)["accuracy"])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["ItalyPowerDemand", "ACSF1"])
def test_convolutions_beside_the_recurrent_layer_tell_series_apart_better_than_it_does_alone(
    name: str, tmp_path: Path
) -> None:
    try:
        files = find_ts(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    for part, file in files.items():
        write_csv(read_ts(file), tmp_path / part)
    found = {
        parallel: accuracy(
            "series", tmp_path / "train", tmp_path / "test", tmp_path / parallel, f"model.parallel={parallel}"
        )
        for parallel in ("conv", "none")
    }
    assert found["conv"] > found["none"], found


@pytest.mark.skipif(not TRACKS.exists(), reason="the tracks of gestures are not on this machine")
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_gestures_are_told_apart(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        Path("point_history.csv").symlink_to(TRACKS)
        laid_out("gestures")
    data = tmp_path / "gestures"
    assert accuracy("gestures", data / "train.parquet", data / "test.parquet", tmp_path / "run") >= 0.97
