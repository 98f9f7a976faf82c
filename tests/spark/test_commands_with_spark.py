"""Spark in processes of their own: from a recipe on a running head, and interrupted in the middle of a job."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

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

ENDLESS = """
import sys, time
import psutil
from rayrnn.cluster import connect
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
    finally:
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
        assert trained.stderr.count("spark: its own ports cannot be authenticated") == 1
        assert (tmp_path / "runs" / "from-spark" / "model.safetensors").exists()
        assert javas_of(home) == []
    finally:
        assert rayrnn("down", folder=tmp_path, home=home).returncode == 0


def test_ctrl_c_in_the_middle_of_a_job_ends_everything_that_was_started(tmp_path: Path, home: dict[str, str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS],
        cwd=tmp_path,
        env=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        addresses = list(iter(process.stdout.readline, "running\n"))
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=120)
    assert stdout == "left 0\n", stderr
    assert stderr.rstrip().endswith("KeyboardInterrupt")
    assert javas_of(home) == []
    assert len(addresses) == 4, "the driver, the master's launcher, the master and one executor"
    for line in addresses:
        anywhere = [address for address in line.split() if address.removeprefix("::ffff:") != "127.0.0.1"]
        assert not anywhere, line
