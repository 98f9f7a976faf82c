"""SIGKILL for the driver or for Ray's head: the same command with --resume ends with the very model."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rayrnn.checkpoints import newest_checkpoint
from rayrnn.cluster.processes import processes_of
from rayrnn.run import METRICS, Run
from tests.chaos.story import ROOT
from tests.training.recipes import small

pytestmark = pytest.mark.slow

ROUNDS = 60
PATIENCE = 120.0


class Home:
    """A user's home in which runs of one recipe are started, killed and resumed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        training = {"evaluate_every": 10, "checkpoint_every": 10}
        recipe = small(training=training, averaging={"workers": 2, "rounds": ROUNDS})
        (folder / "recipe.yaml").write_text(recipe.to_yaml())
        self.run = Run(folder / "run")
        unwanted = ("RAY_ADDRESS", "XDG_STATE_HOME")
        self._environment = {name: value for name, value in os.environ.items() if name not in unwanted}
        self._environment |= {"HOME": str(folder), "PYTHONPATH": str(ROOT)}

    def popen(self, *arguments: str) -> "subprocess.Popen[str]":
        """A rayrnn command."""
        command = [sys.executable, "-m", "rayrnn.cli", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=self._environment, stdout=pipe, stderr=pipe, text=True)

    def rayrnn(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A rayrnn command, to its end."""
        with self.popen(*arguments) as process:
            try:
                out, errors = process.communicate(timeout=3 * PATIENCE)
            finally:
                process.kill()
        return subprocess.CompletedProcess(arguments, process.returncode, out, errors)

    def train(self, *more: str) -> "subprocess.Popen[str]":
        return self.popen("train", "recipe.yaml", "--out", "run", "--json", *more)

    def resume(self) -> None:
        """Go on to the end, as a user would."""
        ended = self.rayrnn("train", "recipe.yaml", "--out", "run", "--json", "--resume")
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)["rounds"] == ROUNDS
        assert [line["round"] for line in self.run.metrics()] == list(range(1, ROUNDS + 1))

    def wait_for_rounds(self, count: int, process: "subprocess.Popen[str]") -> None:
        deadline = time.monotonic() + PATIENCE
        while sum(1 for _ in lines_of(self.run.path / METRICS)) < count:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline, "the run does not come that far"
            time.sleep(0.02)

    def models(self) -> tuple[bytes, bytes]:
        """The best model and the one of the last checkpoint, bit for bit."""
        newest, damages = newest_checkpoint(self.run.checkpoints)
        assert newest is not None
        assert damages == []
        assert newest.progress["round"] == ROUNDS
        last = self.run.checkpoints / f"round-{ROUNDS:06d}" / "model.safetensors"
        return (self.run.path / "model.safetensors").read_bytes(), last.read_bytes()


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """The models of a run that nobody kills."""
    home = Home(tmp_path_factory.mktemp("undisturbed"))
    with home.train() as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    return home.models()


@pytest.mark.parametrize("after", [0, 1, 35])
def test_a_killed_driver_costs_the_rounds_since_the_checkpoint(
    after: int, tmp_path: Path, undisturbed: tuple[bytes, bytes]
) -> None:
    home = Home(tmp_path / "home")
    with home.train() as process:
        if after:
            home.wait_for_rounds(after, process)
        else:
            wait_for_workers(process)
        family = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
    home.resume()
    assert home.models() == undisturbed
    assert [child for child in family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []


def test_a_killed_head_costs_the_rounds_since_the_checkpoint(tmp_path: Path, undisturbed: tuple[bytes, bytes]) -> None:
    home = Home(tmp_path / "home")
    assert home.rayrnn("up").returncode == 0
    try:
        with home.train() as process:
            home.wait_for_rounds(15, process)
            (told,) = json.loads(home.rayrnn("status", "--json").stdout)["runs"]
            assert told["members"] == [0, 1]
            assert told["rounds"] == ROUNDS
            kill_head(home.folder)
            _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode in (1, 4)
        assert "Traceback" not in errors
        assert "--resume" in errors
        ended = home.rayrnn("up")
        assert ended.returncode == 0, ended.stderr
        home.resume()
    finally:
        home.rayrnn("down")
    assert home.models() == undisturbed


def wait_for_workers(process: "subprocess.Popen[str]") -> None:
    """Until Ray has started the run's actors: nothing is learned yet."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None
        names = [" ".join(child.cmdline()) for child in psutil.Process(process.pid).children(recursive=True)]
        if any("RayTrainWorker" in name for name in names):
            return
        time.sleep(0.05)
    raise AssertionError("no worker came")


def kill_head(home: Path) -> None:
    """End Ray's servers of the cluster that `rayrnn up` started in this home, and nothing else."""
    record = json.loads(next(home.rglob("head.json")).read_text())
    servers = [process for process in processes_of(record["folder"]) if process.name() in ("gcs_server", "raylet")]
    assert len(servers) == 2
    for process in servers:
        process.kill()
