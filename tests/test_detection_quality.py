"""The recipes telemetry and logs on the public data that their comments name, against their bars."""

import ast
import contextlib
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rayrnn.prediction.detect import detect
from rayrnn.recipe import load_recipe
from rayrnn.training.driver import train
from tests.recipe_programs import laid_out, program_of

DATA = Path(__file__).parent.parent.parent / "shared" / "data"


def measured(recipe: str, data: str, events: str, *overrides: str) -> dict[str, Any]:
    run = train(load_recipe(recipe, overrides), out="run", console=Console(quiet=True)).run
    found = detect(run, data, events=events, console=Console(quiet=True)).to_json()
    assert found["measures"] is not None
    print(json.dumps(found["measures"]))
    return dict(found["measures"])


@pytest.mark.parametrize("recipe", ["telemetry", "logs"])
def test_the_program_in_a_recipes_comment_is_python(recipe: str) -> None:
    assert len(ast.parse(program_of(recipe)).body) > 5


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(("craft", "bar"), [("SMAP", 0.73), ("MSL", 0.46)])
def test_events_in_telemetry_are_found(tmp_path: Path, craft: str, bar: float) -> None:
    archive = DATA / "smap" / "SMAP.tar.gz"
    if not archive.exists():
        pytest.skip(f"the public data of SMAP and MSL is not at {archive}")
    with contextlib.chdir(tmp_path):
        with tarfile.open(archive) as packed:
            packed.extractall(filter="data")
        shutil.copy(DATA / "smap" / "labeled_anomalies.csv", ".")
        laid_out("telemetry", value='craft, rows = "SMAP"', other=f'craft, rows = "{craft}"')
        place = f"telemetry/{craft}"
        overrides = [f"data.path={place}/train", f"data.held_out={place}/held_out"]
        overrides += ["training.batch_size=9"] if craft == "MSL" else []
        measures = measured("telemetry", f"{place}/test", f"{place}/events.csv", *overrides)
    assert measures["f1"] >= bar, measures


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("ray_cluster")
def test_sessions_of_a_log_that_are_out_of_the_ordinary_are_found(tmp_path: Path) -> None:
    if not (DATA / "hdfs" / "normal").exists():
        pytest.skip(f"the public sessions of the HDFS log are not in {DATA / 'hdfs'}")
    with contextlib.chdir(tmp_path):
        for name in ("normal", "abnormal"):
            os.symlink(DATA / "hdfs" / name, name)
        laid_out("logs")
        measures = measured("logs", "logs/test.parquet", "logs/anomalies.csv")
    assert (measures["anomalous"], measures["normal"]) == (16838, 971)
    assert measures["recall"] >= 0.95, measures
    assert measures["false_alarm_rate"] <= 0.05, measures
