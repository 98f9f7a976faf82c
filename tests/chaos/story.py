"""Runs a recipe under faults in a process of its own, and tells how it went."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayrnn.recipe import Recipe
from rayrnn.runs.checkpoints import newest_checkpoint
from rayrnn.runs.directory import open_run
from tests.chaos.faults import Fault, variables
from tests.training.recipes import small

ROOT = Path(__file__).parents[2]
ROUNDS = 40
#: with less, a worker that is slow to start is not waited for, and misses the fault that is planned for it
PATIENCE = 30.0


@dataclass(frozen=True)
class Story:
    """How a run under faults went."""

    outcome: dict[str, Any]
    screen: str
    metrics: list[dict[str, Any]]
    out: Path

    def membership(self) -> list[dict[str, Any]]:
        return [event for line in self.metrics for event in line.get("membership", [])]


def recipe(
    workers: int | dict[str, int] = 2,
    seed: int = 7,
    rounds: int = ROUNDS,
    patience: float = PATIENCE,
    overlap: int = 0,
) -> Recipe:
    quick = small(
        training={"evaluate_every": 10, "checkpoint_every": 10},
        averaging={"workers": workers, "rounds": rounds, "patience": patience, "overlap": overlap},
    )
    return quick.model_copy(update={"seed": seed})


def run_under(
    faults: list[Fault],
    folder: Path,
    chosen: Recipe,
    nodes: list[str] | None = None,
    pause: float = 0.0,
    kill: dict[str, float] | None = None,
    full: bool = False,
    timeout: float = 500,
) -> Story:
    """Train `chosen` in `folder`.

    Args:
        nodes: `add`, `drain` and `remove`, for a cluster that begins with one node of one CPU; without it one of four
            CPUs.
        pause: seconds that every minibatch takes longer.
        full: others have filled the object store.
        kill: a random worker `every` so many seconds, `until` so many have passed.
    """
    folder.mkdir(exist_ok=True)
    job, out = folder / "job.json", folder / "run"
    values = {"recipe": chosen.model_dump(mode="json"), "out": str(out)}
    values |= {"variables": variables(faults, folder, pause), "nodes": nodes or [], "kill": kill or {}, "full": full}
    job.write_text(json.dumps(values))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(folder)}
    command = [sys.executable, "-m", "tests.chaos.run", str(job)]
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)
    assert process.returncode == 0, process.stderr
    return Story(json.loads(process.stdout), process.stderr, open_run(out).metrics(), out)


def assert_finished(story: Story, rounds: int = ROUNDS, learned: float = 0.5) -> None:
    """The right number of rounds, each once, and a last checkpoint that all members made together.

    Args:
        learned: the last round's loss is below this part of the first one's.
    """
    assert story.outcome["reason"] == "finished"
    assert [line["round"] for line in story.metrics] == list(range(1, rounds + 1))
    checkpoint, damages = newest_checkpoint(story.out / "checkpoints")
    assert checkpoint is not None
    assert not damages
    assert checkpoint.progress["round"] == rounds
    assert story.metrics[-1]["loss"] < story.metrics[0]["loss"] * learned


def kinds(story: Story, worker: int | None = None) -> list[str]:
    """What happened to the members, by the reason where one was lost."""
    return [event.get("reason", event["kind"]) for event in story.membership() if worker in (None, event.get("worker"))]
