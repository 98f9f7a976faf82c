"""What README's "On a cluster" says, typed on the laptop in its order: up, train, generate, status, down."""

import json

import pytest

from tests.cluster.bed import Bed
from tests.cluster.disk import ROOT
from tests.cluster.test_training import RECIPE, TRAIN

pytestmark = pytest.mark.slow


def test_a_cluster_is_brought_up_trains_and_is_taken_down(bed: Bed) -> None:
    laptop = bed.laptop
    (laptop.home / "cluster.yaml").write_text((ROOT / "cluster.yaml").read_text())
    (laptop.home / "words.yaml").write_text(RECIPE % 60)
    (laptop.home / "words.txt").write_text("abcdefgh ijkl mnop " * 6000)
    up = laptop.run("rayrnn", "up", "cluster.yaml", "--yes", timeout=400)
    assert up.returncode == 0, up.stderr
    trained = laptop.run(*TRAIN, "--json", timeout=300)
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["rounds"] == 60
    wrote = laptop.run("rayrnn", "generate", "runs/words", "--prime", "abc")
    assert wrote.returncode == 0, wrote.stderr
    status = laptop.run("rayrnn", "status", "cluster.yaml")
    assert status.returncode == 0, status.stderr
    assert all(host.name in status.stdout for host in bed.hosts)
    assert "no run lies on the head" in status.stdout
    down = laptop.run("rayrnn", "down", "cluster.yaml", "--yes", timeout=300)
    assert down.returncode == 0, down.stderr
    assert [process.name() for host in bed.hosts for process in host.processes()] == []
