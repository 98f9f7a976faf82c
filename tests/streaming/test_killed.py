"""A following that is killed, at any moment, goes on as if nothing had been: each file answered once, bit for bit."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rayrnn.runs.directory import Run
from tests.streaming.streams import contents, followed, sensor_run, steps_of, write, write_minutes

pytestmark = pytest.mark.usefixtures("ray_cluster")
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def sensors(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Run:
    return sensor_run(tmp_path_factory.mktemp("sensors"), cell="lstm")


@pytest.mark.parametrize("every", [pytest.param(9), pytest.param(1, marks=pytest.mark.slow)])
def test_killed_before_any_step_it_goes_on_bit_for_bit(sensors: Run, tmp_path: Path, every: int) -> None:
    directory = write_minutes(tmp_path / "in", 2)
    (directory / "00b.parquet").write_bytes(b"no table")
    command = [sys.executable, "-m", "tests.streaming.dying", sensors.path, directory, tmp_path / "out", str(every)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert said.returncode == 0, said.stderr
    told = [json.loads(line) for line in said.stdout.splitlines()]
    whole, *killed, lived = told
    due = {name: hashlib.sha256(content).hexdigest() for name, content in contents(tmp_path / "out" / "whole").items()}
    assert list(due) == ["00.parquet", "01.parquet"]
    assert (lived["killed"], lived["end"]) == (False, whole["end"])
    assert len(killed) * every > 40
    for one in killed:
        assert one["killed"]
        # what stands there is whole, and is what it will be
        assert one["left"].items() <= due.items()
        assert (one["end"], one["drafts"]) == (whole["end"], 0)
    assert {len(one["left"]) for one in killed} >= {0, 1}


@pytest.mark.slow
def test_the_command_is_killed_stopped_and_begun_again(sensors: Run, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    followed(sensors, write_minutes(tmp_path / "all", 5), tmp_path / "due")
    command = [sys.executable, "-m", "rayrnn.cli", "predict", sensors.path, "--follow", folder, "--out", out]
    write(folder / "00.parquet", steps_of([0]))
    with started([*command, "--poll", "0.02"]) as killed:
        assert line_of(killed) == str(out / "00.parquet")
        for minute in (1, 2):
            write(folder / f"0{minute}.parquet", steps_of([minute]))
        assert line_of(killed) == str(out / "01.parquet")
        killed.send_signal(signal.SIGKILL)
    write(folder / "03.parquet", steps_of([3]))
    with started([*command, "--poll", "0.02"]) as stopped:
        while line_of(stopped) != str(out / "03.parquet"):
            pass
        stopped.send_signal(signal.SIGTERM)
        assert stopped.wait(60) == 130
        assert stopped.stderr is not None
        said = stopped.stderr.read().splitlines()
    assert said[-1].startswith("stopped after ")
    assert "03.parquet: 3 sequences, 12 steps" in said
    write(folder / "04.parquet", steps_of([4]))
    ended = subprocess.run([*command, "--once"], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == [str(out / "04.parquet")]
    assert ended.stderr.splitlines() == ["04.parquet: 3 sequences, 12 steps"]
    assert contents(out) == contents(tmp_path / "due")


def started(command: list[object]) -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def line_of(process: "subprocess.Popen[str]") -> str:
    """Its next line; it must not end before."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr and process.stderr.read()
    return line.rstrip("\n")
