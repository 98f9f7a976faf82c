"""Searches of a few small runs, on a real Ray: what they find, write, survive, and refuse."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import ray
from rich.console import Console

from rayrnn.cli import tuning_command
from rayrnn.errors import DataError, Interrupted, RunError, UsageError
from rayrnn.recipe import load_recipe
from rayrnn.runs.directory import open_run
from rayrnn.training.progress import Monitor
from rayrnn.tuning.ranges import read_varied
from rayrnn.tuning.search import Found, Wanted, tune
from rayrnn.tuning.study import Study
from rayrnn.tuning.table import Row, TrialTable
from tests.training.recipes import small

pytestmark = pytest.mark.timeout(1200)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe whose trials take one CPU and a few seconds."""
    chosen = small(averaging={"workers": 1, "rounds": 4}, training={"evaluate_every": 1, "monitor": "accuracy"})
    (tmp_path / "small.yaml").write_text(chosen.to_yaml())
    return tmp_path / "small.yaml"


def wanted(recipe: Path, *vary: str, **changes: object) -> Wanted:
    first = Wanted(str(recipe), vary, out=recipe.parent / "out", trials=2, at_once=2)
    return replace(first, **changes)  # type: ignore[arg-type]


def searched(asked: Wanted) -> tuple[Found, str]:
    console = quiet()
    found = tune(asked, console)
    return found, console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("ray_cluster")
def test_a_search_finds_the_best_of_a_list_and_every_trial_is_a_run(recipe: Path) -> None:
    asked = wanted(recipe, "training.learning_rate=1e-9,0.02", trials=20)
    found, said = searched(asked)
    assert found.best is not None
    assert found.best.values == {"training.learning_rate": "0.02"}
    assert {row.state for row in found.rows} <= {"finished", "stopped early"}
    assert len(found.rows) == 2, "there are two combinations, and each is tried once"
    out = recipe.parent / "out"
    best = load_recipe(out / "best.yaml")
    assert best.training.learning_rate == 0.02
    assert best == open_run(out / found.best.folder).recipe
    words = (out / "best.yaml").read_text()
    assert f"accuracy of {found.best.folder} was {found.best.best:.6g}" in words
    assert "#   training.learning_rate: 0.02" in words
    assert said.splitlines()[-1] == f"next      rayrnn evaluate {out / found.best.folder}"
    assert json.loads(json.dumps(found.to_json()))["best"]["run"] == str(out / found.best.folder)
    assert not list(out.rglob("*.pkl"))
    with pytest.raises(UsageError, match="holds a search already: go on with it by --resume"):
        tune(asked, quiet())
    with pytest.raises(UsageError, match=r"is a search with --vary training\.learning_rate=1e-9,0\.02"):
        tune(replace(asked, vary=("model.hidden=8,16",), resume=True), quiet())
    again, said = searched(replace(asked, resume=True))
    assert "2 trials" in said
    assert len(list(out.glob("trial-*/recipe.yaml"))) == 2
    assert again.best == found.best
    recipe.write_text(recipe.read_text() + "\n# changed\n")
    with pytest.raises(UsageError, match="is a search of another recipe"):
        tune(replace(asked, resume=True), quiet())


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_trial_that_is_killed_goes_on_from_its_checkpoint(recipe: Path) -> None:
    asked = wanted(recipe, "training.learning_rate=0.01,0.02", at_once=1, overrides=("averaging.rounds=60",))
    killed: list[int] = []

    def kill() -> None:
        folder = recipe.parent / "out" / "trial-000"
        while not list(folder.glob("checkpoints/round-*/MANIFEST.json")):
            time.sleep(0.05)
        process = int((folder / ".lock").read_text())
        os.kill(process, signal.SIGKILL)
        killed.append(process)

    thread = threading.Thread(target=kill)
    thread.start()
    found, said = searched(asked)
    thread.join()
    assert killed
    assert "trial-000 has died, and is tried again" in said
    assert {row.state for row in found.rows} <= {"finished", "stopped early"}
    assert "going on after round" in (recipe.parent / "out" / "trial-000.log").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_the_trials_of_a_search_that_is_killed_end_in_order(recipe: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "rayrnn.cli", "tune", str(recipe), "--out", str(tmp_path / "out")]
    long = ["--set", "averaging.rounds=100000", "--set", "training.evaluate_every=20"]
    command = [*program, *long, "--vary", "model.hidden=8..64", "--at-once", "1"]
    folder = tmp_path / "out" / "trial-000"
    command += ["--address", ray.get_runtime_context().gcs_address]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as one:
        while not list(folder.glob("checkpoints/round-*/MANIFEST.json")):
            assert one.poll() is None
            time.sleep(0.1)
        trial = psutil.Process(int((folder / ".lock").read_text()))
        one.kill()
    trial.wait(120)
    assert "--resume" in (tmp_path / "out" / "trial-000.log").read_text().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_what_diverges_is_told_and_the_search_goes_on(recipe: Path) -> None:
    found, said = searched(wanted(recipe, "training.learning_rate=1e38,0.01", overrides=("training.clip=0",)))
    states = {row.values["training.learning_rate"]: row.state for row in found.rows}
    assert states["1e38"] == "diverged"
    assert "its loss is not finite" in said
    assert found.best is not None
    assert found.best.values["training.learning_rate"] == "0.01"


@pytest.mark.usefixtures("ray_cluster")
def test_data_that_cannot_be_read_ends_the_search_at_once(recipe: Path) -> None:
    asked = wanted(recipe, "model.hidden=8..64", trials=9, at_once=1)
    lines = (f"data.path={recipe.parent / 'nowhere.txt'}", "data.text=null")
    with pytest.raises(DataError, match=r"trial-000 cannot read the data, and no other will: .*nowhere\.txt"):
        tune(replace(asked, overrides=lines), quiet())
    assert not (recipe.parent / "out" / "trial-001").exists()


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.slow
def test_ctrl_c_and_minutes_that_are_over_end_a_search_in_order_and_it_goes_on(recipe: Path) -> None:
    rounds = ("averaging.rounds=100000", "training.evaluate_every=50")
    asked = wanted(recipe, "model.hidden=8..64", at_once=1, overrides=rounds, trials=3)
    folder = recipe.parent / "out" / "trial-000"

    def press() -> None:
        while not list(folder.glob("checkpoints/round-*")):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(Interrupted, match="the search was stopped") as stopped:
        tune(asked, quiet())
    thread.join()
    assert "rayrnn tune" in str(stopped.value)
    learned = len(open_run(folder).metrics())
    found, said = searched(replace(asked, minutes=0.02, resume=True))
    (row,) = found.rows
    assert (row.folder, row.state) == ("trial-000", "to go on")
    assert len(open_run(folder).metrics()) >= learned
    assert "--resume" in said


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trials": 0}, "--trials is 0: give a number above 0"),
        ({"minutes": 0.0}, "--minutes is 0.0"),
        ({"at_once": 0}, "--at-once is 0"),
        ({"vary": ()}, "there is nothing to search"),
        ({"vary": ("training.lerning_rate=1..2",)}, 'did you mean "learning_rate"'),
        ({"overrides": ("data.held_out=0", "training.monitor=loss")}, "holds nothing out"),
        ({"resume": True}, "holds no search to go on with"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_ray_is_looked_for(
    recipe: Path, changes: dict[str, object], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        tune(wanted(recipe, "model.hidden=8,16", **changes), quiet())
    assert not (recipe.parent / "out").exists()


def test_a_directory_with_other_things_is_left_alone(recipe: Path) -> None:
    (recipe.parent / "out").mkdir()
    (recipe.parent / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something already"):
        tune(wanted(recipe, "model.hidden=8,16"), quiet())


def test_without_optuna_the_extra_is_named(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayrnn.recipe.sources.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install 'rayrnn\[tune\]'"):
        tuning_command.tune(str(recipe), ["model.hidden=8,16"])


def test_asha_stops_the_worse_ones_and_a_study_goes_on_where_it_was(tmp_path: Path) -> None:
    varied = read_varied(["training.learning_rate=1e-4..1e-1", "model.cell=lstm,gru"])
    make = {"trials": 9, "evaluations": 9, "seed": 1}
    study = Study(tmp_path / "study.jsonl", varied, Monitor(), **make)
    first = [study.ask() for _ in range(4)]
    assert [one.folder for one in first] == [f"trial-{number:03d}" for number in range(4)]
    stopped = {one.folder for number, one in enumerate(first) for _ in range(3) if study.report(one, 1.0 + number)}
    assert stopped == {"trial-001", "trial-002", "trial-003"}
    for one in first[:3]:
        study.finish(one)
    again = Study(tmp_path / "study.jsonl", varied, Monitor(), **make)
    assert [one.folder for one in again.settled] == ["trial-000", "trial-001", "trial-002"]
    assert [one.best for one in again.settled] == [1.0, 2.0, 3.0]
    resumed = again.ask()
    assert (resumed.folder, resumed.values) == (first[3].folder, first[3].values)
    assert again.ask().folder == "trial-004"
    (tmp_path / "damaged.jsonl").write_text('{"what": \n')
    with pytest.raises(RunError, match=r"damaged\.jsonl cannot be gone on from"):
        Study(tmp_path / "damaged.jsonl", varied, Monitor(), **make)


def test_a_table_on_a_terminal_shows_every_trial() -> None:
    console = Console(file=io.StringIO(), width=100, height=30, force_terminal=True)
    rows = [
        Row("trial-000", {"model.hidden": "64", "training.learning_rate": "0.00123456"}, "finished", 40, 0.5),
        Row("trial-001", {"model.hidden": "128", "training.learning_rate": "0.1"}, "diverged"),
    ]
    with TrialTable(console, ["model.hidden", "training.learning_rate"], "accuracy") as table:
        table.tell(rows[0])
        table.draw(rows, of=20)
    table.finish(rows, of=20)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for word in ("trial-000", "0.001235", "diverged", "0.5000", "2 of 20 trials"):
        assert word in shown
