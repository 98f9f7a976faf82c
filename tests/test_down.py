"""`rayrnn down` while somebody uses the cluster: a real head, a run and a program that has joined."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rayrnn.runs.checkpoints import newest_checkpoint
from tests.test_cli import environment_of, run_rayrnn
from tests.training.recipes import small

NOTEBOOK = """
from rayrnn.cluster import connect
with connect():
    print("joined", flush=True)
    input()
"""


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A program that has joined the head of this home."""
    assert run_rayrnn("up", "--cpus", "2", "--memory", "1GB", home=tmp_path).returncode == 0
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", NOTEBOOK]
    with subprocess.Popen(command, env=environment_of(tmp_path), stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "joined\n"
        yield process
        process.kill()
    run_rayrnn("down", "--yes", home=tmp_path)


@pytest.fixture
def training(tmp_path: Path, notebook: "subprocess.Popen[str]") -> Iterator["subprocess.Popen[str]"]:
    """A run that learns on that head, and would for hours."""
    (tmp_path / "small.yaml").write_text(
        small(averaging={"rounds": 10**6}, training={"checkpoint_every": 10**6}).to_yaml()
    )
    command = [sys.executable, "-m", "rayrnn.cli", "train", "small.yaml", "--out", "run"]
    said = (tmp_path / "said").open("w+")
    with said, subprocess.Popen(command, cwd=tmp_path, env=environment_of(tmp_path), stderr=said) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / "metrics.jsonl").exists() or not (tmp_path / "run" / "metrics.jsonl").read_text():
            assert process.poll() is None, (tmp_path / "said").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield process
        process.kill()


def test_a_cluster_in_use_ends_only_when_the_user_says_so_and_its_run_has_written_a_checkpoint(
    tmp_path: Path, notebook: "subprocess.Popen[str]", training: "subprocess.Popen[str]"
) -> None:
    refused = run_rayrnn("down", home=tmp_path)
    assert refused.returncode == 2
    assert "nobody can answer" in refused.stderr
    assert "--yes" in refused.stderr
    for named in (f"process {notebook.pid}", f"process {training.pid}", "run", "of 1,000,000"):
        assert named in refused.stderr
    command = [sys.executable, "-m", "rayrnn.cli", "down"]
    answered = subprocess.run(
        command, cwd=tmp_path, env=environment_of(tmp_path), input="n\n", capture_output=True, text=True, timeout=120
    )
    assert answered.returncode == 1
    assert "nothing was ended" in answered.stderr
    jobs = json.loads(run_rayrnn("status", "--json", home=tmp_path).stdout)["jobs"]
    assert {job["process"] for job in jobs} == {notebook.pid, training.pid}

    ended = run_rayrnn("down", "--yes", home=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "rayrnn is down" in ended.stderr
    assert training.wait(60) == 130
    assert "the cluster is being taken down: finishing the round" in (tmp_path / "said").read_text()
    checkpoint, damages = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    assert damages == []
    assert notebook.poll() is None, "what `up` has not started goes on"
