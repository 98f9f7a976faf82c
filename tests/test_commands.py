"""The commands as a user types them, each in a process of its own."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from rayrnn.recipe import load_recipe
from rayrnn.runs.checkpoints import newest_checkpoint, read_checkpoint
from rayrnn.training.driver import train

RAYRNN = (sys.executable, "-m", "rayrnn.cli")
#: long enough to be stopped in the middle, short enough to be finished afterwards
ROUNDS = 100
RECIPE = """
name: stopped
data: {text: "%s", length: 40, held_out: 0.1}
model: {hidden: 24, layers: 1}
training: {batch_size: 4, truncate: 20, evaluate_every: 10, checkpoint_every: 1000}
averaging: {workers: 2, frequency: 2, rounds: %d}
"""


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment whose token and state are not the user's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "XDG_"))}
    (tmp_path / "home").mkdir()
    return kept | {"HOME": str(tmp_path / "home"), "COLUMNS": "100"}


def rayrnn(*arguments: str, folder: Path, home: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RAYRNN, *arguments], cwd=folder, env=home, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.slow
def test_recite_learns_a_string_by_heart_and_recites_it(tmp_path: Path, home: dict[str, str]) -> None:
    text = "Fischers Fritz fischt frische Fische; frische Fische fischt Fischers Fritz."
    trained = rayrnn("train", "recite", "--set", f"data.text={text}", folder=tmp_path, home=home)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout == ""
    recited = rayrnn("generate", "runs/recite", "--prime", "F", "--temperature", "0", folder=tmp_path, home=home)
    assert recited.stdout == text + "\n"
    assert recited.stderr == ""


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_and_the_same_command_with_resume_goes_on(
    tmp_path: Path, home: dict[str, str]
) -> None:
    recipe = tmp_path / "stopped.yaml"
    recipe.write_text(RECIPE % ("abcdefgh ijkl mnop " * 60, ROUNDS))
    averaged = "averaging.optimizer_state=average"
    command = ["train", str(recipe), "--out", "run", "--json", "--set", averaged]
    with subprocess.Popen(
        [*RAYRNN, *command], cwd=tmp_path, env=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for_rounds(tmp_path / "run" / "metrics.jsonl", 5)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert "--resume" in stderr.splitlines()[-1]
    assert stderr.splitlines()[0] == "starting Ray on this machine ..."
    assert "error" not in stderr, "it is what the user asked for"
    checkpoint, _ = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    assert 5 <= checkpoint.progress["round"] < ROUNDS
    resumed = rayrnn(*command, "--resume", folder=tmp_path, home=home)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["rounds"] == ROUNDS
    train(load_recipe(recipe, [averaged]), out=tmp_path / "whole", console=Console(quiet=True))
    assert last_model(tmp_path / "run") == last_model(tmp_path / "whole")


@pytest.mark.parametrize(
    ("stage", "after"),
    [("starting Ray", 1.0), pytest.param("starting Ray", 2.0, marks=pytest.mark.slow), ("starting the workers", 1.0)],
)
def test_sigterm_before_a_round_ends_as_the_user_wished_and_leaves_no_process(
    tmp_path: Path, home: dict[str, str], stage: str, after: float
) -> None:
    (tmp_path / "long.yaml").write_text(RECIPE % ("abcdefgh ijkl mnop " * 60, 3000))
    with subprocess.Popen(
        [*RAYRNN, "train", "long.yaml"], cwd=tmp_path, env=home, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while stage not in process.stderr.readline():
            pass
        time.sleep(after)
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
        assert process.wait(timeout=120) == 130, said
    assert not psutil.wait_procs(started, timeout=5)[1]
    assert "Traceback" not in said
    assert "SIGTERM received" not in said, "as Ray would tell of it"
    if stage == "starting the workers":
        assert "stopped before a round was learned" in said
        assert "--resume" in said.splitlines()[-1]


@pytest.mark.slow
def test_a_terminal_that_is_closed_leaves_a_checkpoint_and_nothing_else(tmp_path: Path, home: dict[str, str]) -> None:
    (tmp_path / "long.yaml").write_text(RECIPE % ("abcdefgh ijkl mnop " * 60, 3000))
    with subprocess.Popen(
        [*RAYRNN, "train", "long.yaml", "--out", "run", "--set", "averaging.overlap=1"],
        cwd=tmp_path,
        env=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # the tests may run under nohup
    ) as process:
        wait_for_rounds(tmp_path / "run" / "metrics.jsonl", 3)
        for _ in range(2):  # the kernel says it to all that belong to the terminal, and so does the shell
            os.killpg(process.pid, signal.SIGHUP)
        assert process.wait(timeout=120) == 130
    checkpoint, _ = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    assert 3 <= checkpoint.progress["round"] < 3000
    deadline = time.monotonic() + 20  # Ray's own processes end a moment after the command
    while left := [other.pid for other in psutil.process_iter() if session_of(other.pid) == process.pid]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def session_of(process: int) -> int:
    with suppress(OSError):
        return os.getsid(process)
    return -1


@pytest.mark.slow
def test_neither_a_terminal_that_is_closed_nor_a_reader_that_goes_ends_a_run_under_nohup(
    tmp_path: Path, home: dict[str, str]
) -> None:
    (tmp_path / "short.yaml").write_text(RECIPE % ("abcdefgh ijkl mnop " * 60, ROUNDS))
    with subprocess.Popen(
        ["nohup", *RAYRNN, "train", "short.yaml", "--out", "run"],
        cwd=tmp_path,
        env=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.stderr.close()
        wait_for_rounds(tmp_path / "run" / "metrics.jsonl", 3)
        os.killpg(process.pid, signal.SIGHUP)
        assert process.wait(timeout=200) == 0
    assert last_model(tmp_path / "run")
    generate = f"{shlex.join(RAYRNN)} generate run --length 5"
    for command, code in ((f"{generate} >&-", 1), (f"{generate} 2>&-", 0)):
        ended = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=home, capture_output=True, text=True)
        assert (ended.returncode, "Traceback" in ended.stderr) == (code, False), ended.stderr


def wait_for_rounds(metrics: Path, count: int) -> None:
    deadline = time.monotonic() + 200
    while not metrics.exists() or len(metrics.read_bytes().splitlines()) < count:
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.05)


def last_model(run: Path) -> dict[str, list[float]]:
    model = read_checkpoint(run / "checkpoints" / f"round-{ROUNDS:06d}").model
    return {name: values.flatten().tolist() for name, values in model.items()}


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["train", "recite", "--set", "model.hiden=3"], 2, 'did you mean "hidden"'),
        (["train", "nowhere.yaml"], 2, "nowhere.yaml"),
        # with a Ray of its own; in that of the tests, tests/test_bad_input.py
        pytest.param(["train", "charlm", "--set", "data.path=nowhere.txt"], 3, "nowhere.txt", marks=pytest.mark.slow),
        (["generate", "nowhere"], 2, "is no run"),
        (["generate", "nowhere", "--temperature", "-1"], 2, "temperature is -1"),
    ],
)
def test_a_users_mistake_is_one_message_and_an_exit_code_without_a_traceback(
    arguments: list[str], exit_code: int, message: str, tmp_path: Path, home: dict[str, str]
) -> None:
    result = rayrnn(*arguments, folder=tmp_path, home=home)
    assert result.returncode == exit_code, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_generating_imports_no_ray() -> None:
    program = (
        "import rayrnn.generation, rayrnn.runs.directory, sys; print([name for name in sys.modules if name == 'ray'])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
