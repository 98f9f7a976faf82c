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
from rayrnn.run import Run
from tests.chaos.workers import workers_among
from tests.test_cli import environment_of, run_rayrnn
from tests.training.recipes import small

pytestmark = pytest.mark.slow

ROUNDS = 600
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

    def train(self, *more: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "rayrnn.cli", "train", "recipe.yaml", "--out", "run", "--json", *more]
        environment, pipe = environment_of(self.folder), subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=pipe, stderr=pipe, text=True)

    def resume(self) -> str:
        """Go on to the end, as a user would; what was said."""
        with self.train("--resume") as process:
            try:
                out, errors = process.communicate(timeout=3 * PATIENCE)
            finally:
                process.kill()
        assert process.returncode == 0, errors
        assert json.loads(out)["rounds"] == ROUNDS
        assert [line["round"] for line in self.run.metrics()] == list(range(1, ROUNDS + 1))
        return errors

    def wait_for_rounds(self, count: int, process: "subprocess.Popen[str]") -> None:
        deadline = time.monotonic() + PATIENCE
        while len(self.run.metrics()) < count:
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
    told = home.resume()
    assert after or "there is no checkpoint to go on from: beginning with round 1" in told
    assert home.models() == undisturbed
    assert [child for child in family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []


def test_a_killed_head_costs_the_rounds_since_the_checkpoint(tmp_path: Path, undisturbed: tuple[bytes, bytes]) -> None:
    home = Home(tmp_path / "home")
    assert run_rayrnn("up", home=home.folder).returncode == 0
    try:
        with home.train() as process:
            home.wait_for_rounds(15, process)
            (told,) = json.loads(run_rayrnn("status", "--json", home=home.folder).stdout)["runs"]
            assert told["members"] == [0, 1]
            assert told["rounds"] == ROUNDS
            kill_head(home.folder)
            _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode in (1, 4)
        assert "Traceback" not in errors
        assert "--resume" in errors
        ended = run_rayrnn("up", home=home.folder)
        assert ended.returncode == 0, ended.stderr
        home.resume()
    finally:
        run_rayrnn("down", home=home.folder)
    assert home.models() == undisturbed


def wait_for_workers(process: "subprocess.Popen[str]") -> None:
    """Until Ray has started the run's actors: nothing is learned yet."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None
        if workers_among(psutil.Process(process.pid).children(recursive=True)):
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
