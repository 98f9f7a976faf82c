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

from rayrnn.cluster.sessions import processes_of
from rayrnn.runs.checkpoints import newest_checkpoint
from rayrnn.runs.directory import Run
from tests.chaos.workers import workers_among
from tests.test_cli import environment_of, run_rayrnn
from tests.training.recipes import small

pytestmark = pytest.mark.slow

ROUNDS = 600
PATIENCE = 120.0
#: more rounds than a test lives to see
ENDLESS = 1_000_000
LOST = "Ray's head, or a process of the run beside it, was lost or does not answer"


class Home:
    """A user's home in which runs of one recipe are started, killed and resumed."""

    def __init__(self, folder: Path, rounds: int = ROUNDS, every: int = 10) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        training = {"evaluate_every": every, "checkpoint_every": every}
        recipe = small(training=training, averaging={"workers": 2, "rounds": rounds})
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
            kill_head(home.folder, "gcs_server", "raylet")
            _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1
        assert "Traceback" not in errors
        ended = run_rayrnn("up", home=home.folder)
        assert ended.returncode == 0, ended.stderr
        home.resume()
    finally:
        run_rayrnn("down", home=home.folder)
    assert home.models() == undisturbed


@pytest.mark.parametrize(
    ("servers", "exit_code", "told"),
    [
        (["raylet"], 1, LOST),
        (["gcs_server", "raylet"], 1, LOST),
        (["gcs_server"], 4, "Ray's head has not answered for 20 s: the run stopped after a checkpoint"),
    ],
    ids=["raylet", "both", "gcs"],
)
def test_a_run_that_loses_its_head_says_so_before_ray_ends_it(
    servers: list[str], exit_code: int, told: str, tmp_path: Path
) -> None:
    # Ray ends a driver without a word that reads the object store when it goes: this one has next to nothing to read
    home = Home(tmp_path / "home", rounds=ENDLESS, every=ENDLESS)
    assert run_rayrnn("up", home=home.folder).returncode == 0
    try:
        with home.train() as process:
            home.wait_for_rounds(15, process)
            kill_head(home.folder, *servers)
            _, errors = process.communicate(timeout=PATIENCE)
    finally:
        run_rayrnn("down", home=home.folder)
    assert process.returncode == exit_code, errors
    assert told in errors
    assert "go on" in errors
    if exit_code == 4:
        newest, damages = newest_checkpoint(home.run.checkpoints)
        assert newest is not None
        assert damages == []
        assert newest.progress["round"] == len(home.run.metrics())


def wait_for_workers(process: "subprocess.Popen[str]") -> None:
    """Until Ray has started the run's actors: nothing is learned yet."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None
        if workers_among(psutil.Process(process.pid).children(recursive=True)):
            return
        time.sleep(0.05)
    raise AssertionError("no worker came")


def kill_head(home: Path, *names: str) -> None:
    """End these servers of the cluster that `rayrnn up` started in this home, and nothing else."""
    record = json.loads(next(home.rglob("head.json")).read_text())
    servers = [process for process in processes_of(record["folder"]) if process.name() in names]
    assert len(servers) == len(names)
    for process in servers:
        process.kill()
