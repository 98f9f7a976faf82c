"""What docs/cluster.md says, typed on the laptop word for word: up, train, generate, status, down."""

import json
import re
import subprocess

import pytest

from tests.cluster.bed import Bed
from tests.cluster.disk import ROOT
from tests.cluster.test_training import RECIPE

SECTION = (ROOT / "docs" / "cluster.md").read_text().partition("\n## On several hosts\n")[2].partition("\n## ")[0]


def typed() -> list[str]:
    """The commands that the section shows, in its order; down comes last, where training stands after it."""
    commands = re.findall(r"^\$ (rayrnn .*)$", SECTION, re.MULTILINE)
    return [command for command in commands if " down " not in command] + [
        command for command in commands if " down " in command
    ]


def test_the_section_shows_a_cluster_from_up_to_down() -> None:
    assert [command.split()[1] for command in typed()] == ["up", "train", "generate", "down"]


def test_the_section_shows_the_hosts_of_the_shipped_file() -> None:
    shown = re.search(r"```yaml\n(.*?)```", SECTION, re.DOTALL)
    assert shown is not None
    without_comments = re.sub(r"\s*#.*", "", (ROOT / "cluster.yaml").read_text())
    assert shown[1].split() == without_comments.split()


@pytest.mark.slow
def test_a_cluster_is_brought_up_trains_and_is_taken_down(bed: Bed) -> None:
    home = bed.laptop.home
    (home / "cluster.yaml").write_text((ROOT / "cluster.yaml").read_text())
    (home / "words.yaml").write_text(RECIPE % 60)
    (home / "words.txt").write_text("abcdefgh ijkl mnop " * 6000)
    *commands, down = typed()
    said = [run(bed, command).stderr for command in commands]
    assert "rayrnn is up\n" in said[0]
    assert "fetching the run to runs/words ..." in said[1]
    assert len((home / "runs" / "words" / "metrics.jsonl").read_text().splitlines()) == 60
    status = run(bed, "rayrnn status cluster.yaml")
    assert all(host.name in status.stdout for host in bed.hosts)
    assert "no run lies on the head" in status.stdout
    assert json.loads(run(bed, "rayrnn status cluster.yaml --json").stdout)["runs"] == []
    run(bed, down)
    assert [process.name() for host in bed.hosts for process in host.processes()] == []


def run(bed: Bed, command: str) -> "subprocess.CompletedProcess[str]":
    ended = bed.laptop.run("sh", "-c", command, timeout=280)
    assert ended.returncode == 0, ended.stderr
    return ended
