"""Spark in processes of their own: from a recipe on a running head, and interrupted in the middle of a job."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet
import pytest

RECIPE = """
name: from-spark
task: classification
data:
  source: spark
  format: parquet
  path: {path}
  key: series
  order_by: moment
  label: kind
  executors: 2
  memory: 512m
model: {{hidden: 8, layers: 1}}
training: {{batch_size: 8, evaluate_every: 5}}
averaging: {{workers: 2, frequency: 1, rounds: 10}}
"""

#: what must never reach a user's screen
NOISE = re.compile(r"\bWARN|\bERROR|Traceback|\(raylet|log4j|SLF4J|at org\.|\bat java|Exception|Deprecat|Stage \d")

#: said once
PORTS = "spark: its own ports cannot be authenticated (RayDP 1.6.5); use it where you trust the network and users"

ENDLESS = """
import sys, time
import psutil
from rayrnn.cluster import connect
from rayrnn.errors import ClusterError
from rayrnn_spark import spark_session

def listening():
    for process in psutil.Process().children(recursive=True):
        if process.name() == "java":
            yield [c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN]

def forever(batches):
    time.sleep(3600)
    yield from batches

with connect("local", num_cpus=4):
    try:
        with spark_session(executors=1, memory="512m") as spark:
            assert spark.sparkContext.uiWebUrl is None
            for addresses in listening():
                print(*addresses)
            print("running", flush=True)
            spark.range(1).mapInArrow(forever, "id long").count()
    except (KeyboardInterrupt, ClusterError) as error:
        print(type(error).__name__, error)
        left = [p for p in psutil.Process().children(recursive=True) if p.name() == "java"]
        print("left", sum(p.status() != psutil.STATUS_ZOMBIE for p in left), flush=True)
"""


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment whose token and state are not the user's, and that has no Java to offer."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "XDG_", "JAVA_"))}
    (tmp_path / "home" / "bin").mkdir(parents=True)
    java = tmp_path / "home" / "bin" / "java"
    java.write_text("#!/bin/sh\nexit 9\n")
    java.chmod(0o755)
    path = f"{java.parent}{os.pathsep}{kept['PATH']}"
    return kept | {"HOME": str(tmp_path / "home"), "PATH": path, "COLUMNS": "100"}


def rayrnn(*arguments: str, folder: Path, home: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rayrnn.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=home, capture_output=True, text=True, timeout=500, check=False)


def javas_of(home: dict[str, str]) -> list[psutil.Process]:
    """Every Java that runs with this home."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.name() == "java" and process.environ().get("HOME") == home["HOME"]
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def write_steps(path: Path) -> None:
    moments, series = np.tile(np.arange(12), 40), np.repeat(np.arange(40), 12)
    wave = np.sin(moments * np.where(series % 2, 0.5, 2.0)).round(4)
    kind = np.where(series % 2, "slow", "fast")
    table = pa.table({"series": series, "moment": moments, "wave": wave, "kind": kind})
    pyarrow.parquet.write_table(table.take(pa.array(np.random.default_rng(2).permutation(len(table)))), path)


@pytest.mark.slow
def test_a_recipe_trains_on_sequences_from_spark_after_spark_is_gone(tmp_path: Path, home: dict[str, str]) -> None:
    write_steps(tmp_path / "steps.parquet")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(path=tmp_path / "steps.parquet"))
    up = rayrnn("up", "--cpus", "4", folder=tmp_path, home=home)
    assert up.returncode == 0, up.stderr
    try:
        trained = rayrnn("train", "recipe.yaml", folder=tmp_path, home=home)
        assert trained.returncode == 0, trained.stderr
        assert trained.stdout == ""
        assert not [line for line in trained.stderr.splitlines() if NOISE.search(line)], trained.stderr
        assert trained.stderr.splitlines().count(PORTS) == 1
        assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "recipe.yaml", "runs", "steps.parquet"]
        assert (tmp_path / "runs" / "from-spark" / "model.safetensors").exists()
        assert javas_of(home) == []
    finally:
        assert rayrnn("down", folder=tmp_path, home=home).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "told"),
    [
        pytest.param(lambda process: process.send_signal(signal.SIGINT), "KeyboardInterrupt", id="Ctrl-C"),
        pytest.param(
            lambda process: driver_of(process).kill(),
            "ClusterError Spark's driver does not answer any more",
            id="the death of its driver",
        ),
    ],
)
def test_it_ends_everything_that_spark_started(
    end: Callable[[psutil.Popen], None], told: str, tmp_path: Path, home: dict[str, str]
) -> None:
    with psutil.Popen(
        [sys.executable, "-c", ENDLESS], cwd=tmp_path, env=home, stdout=PIPE, stderr=PIPE, text=True
    ) as process:
        addresses = list(iter(process.stdout.readline, "running\n"))
        wait_for_python_in(process)
        end(process)
        stdout, stderr = process.communicate(timeout=200)
    assert stdout.startswith(told), stdout + stderr
    assert stdout.endswith("left 0\n")
    assert stderr.splitlines() == [PORTS]
    assert javas_of(home) == []
    assert len(addresses) == 4, "the driver, the master's launcher, the master and one executor"
    for line in addresses:
        anywhere = [address for address in line.split() if address.removeprefix("::ffff:") != "127.0.0.1"]
        assert not anywhere, line


def driver_of(process: psutil.Process) -> psutil.Process:
    """The Java beside this Python."""
    return next(child for child in process.children() if child.name() == "java")


def wait_for_python_in(process: psutil.Process) -> None:
    """Until an executor has started the Python that the job runs in."""
    while not any("pyspark.daemon" in " ".join(command_of(child)) for child in process.children(recursive=True)):
        assert process.is_running()
        time.sleep(0.2)


def command_of(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []
