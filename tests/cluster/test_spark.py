"""A recipe that reads with Spark, typed on the laptop: `rayrnn up` brought Spark, executors are on the hosts."""

import json
import subprocess
import threading
from contextlib import suppress
from importlib.util import find_spec

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.cluster.bed import Bed, Host
from tests.cluster.disk import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("raydp") is None, reason="pip install rayrnn[spark]"),
]

#: each executor takes both CPUs of a host, so that no two are on one
RECIPE = """
name: steps
task: classification
data:
  source: spark
  format: parquet
  path: file://{path}
  key: series
  order_by: moment
  label: kind
  executors: 2
  cores: 2
  memory: 512m
model: {{hidden: 8, layers: 1}}
training: {{batch_size: 8, evaluate_every: 5}}
averaging: {{workers: 2, frequency: 1, rounds: 10}}
"""


def write_steps(bed: Bed) -> None:
    """The same table on every host's own disk, at the same place."""
    moments, series = np.tile(np.arange(12), 40), np.repeat(np.arange(40), 12)
    wave = np.sin(moments * np.where(series % 2, 0.5, 2.0)).round(4)
    kind = np.where(series % 2, "slow", "fast")
    table = pa.table({"series": series, "moment": moments, "wave": wave, "kind": kind})
    for host in bed.hosts:
        pyarrow.parquet.write_table(table, host.home / "steps.parquet")


class Watch:
    """Notes on which hosts a Java has run."""

    def __init__(self, bed: Bed) -> None:
        self.seen: set[str] = set()
        self._bed = bed
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(1.0):
            self.seen |= {host.name for host in self._bed.hosts if "java" in names_on(host)}


def names_on(host: Host) -> list[str]:
    names = []
    for process in host.processes():
        with suppress(psutil.Error):  # it has ended meanwhile
            names.append(process.name())
    return names


def rayrnn(bed: Bed, *words: str, timeout: float) -> "subprocess.CompletedProcess[str]":
    return bed.laptop.run("rayrnn", *words, timeout=timeout)


def test_a_recipe_that_reads_with_spark_trains_on_the_cluster(bed: Bed) -> None:
    (bed.laptop.home / "cluster.yaml").write_text((ROOT / "cluster.yaml").read_text())
    (bed.laptop.home / "steps.yaml").write_text(RECIPE.format(path=bed.home / "steps.parquet"))
    write_steps(bed)
    up = rayrnn(bed, "up", "cluster.yaml", "--yes", timeout=280)
    assert up.returncode == 0, up.stderr
    try:
        found = rayrnn(bed, "doctor", "cluster.yaml", "--recipe", "steps.yaml", timeout=120)
        assert found.returncode == 0, found.stderr
        with Watch(bed) as watch:
            trained = rayrnn(bed, "train", "steps.yaml", "--cluster", "cluster.yaml", "--json", timeout=280)
        assert trained.returncode == 0, trained.stderr
        assert json.loads(trained.stdout)["rounds"] == 10
        assert "local file" not in trained.stderr, "no file of the laptop is needed there"
        assert len(watch.seen) >= 2, "each executor takes a whole host"
        assert not [host.name for host in bed.hosts if "java" in names_on(host)]
    finally:
        down = rayrnn(bed, "down", "cluster.yaml", "--yes", timeout=280)
    assert down.returncode == 0, down.stderr
