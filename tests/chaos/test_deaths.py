"""The death of any worker costs at most its own round, and nobody else restarts."""

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rayrnn.checkpoints import newest_checkpoint
from rayrnn.recipe import Recipe
from rayrnn.run import open_run
from tests.chaos.faults import Fault, variables
from tests.training.recipes import small

ROOT = Path(__file__).parents[2]
ROUNDS = 40
PATIENCE = 4.0


@dataclass(frozen=True)
class Story:
    """How a run under faults went."""

    outcome: dict[str, Any]
    screen: str
    metrics: list[dict[str, Any]]
    out: Path

    def attendance(self) -> list[dict[str, Any]]:
        return [event for line in self.metrics for event in line.get("attendance", [])]


def recipe(workers: int = 2, seed: int = 7) -> Recipe:
    quick = small(
        training={"evaluate_every": 10, "checkpoint_every": 10},
        averaging={"workers": workers, "rounds": ROUNDS, "patience": PATIENCE},
    )
    return quick.model_copy(update={"seed": seed})


def run_under(faults: list[Fault], folder: Path, chosen: Recipe) -> Story:
    folder.mkdir(exist_ok=True)
    job, out = folder / "job.json", folder / "run"
    values = {"recipe": chosen.model_dump(mode="json"), "out": str(out), "variables": variables(faults, folder)}
    job.write_text(json.dumps(values))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(folder)}
    command = [sys.executable, "-m", "tests.chaos.run", str(job)]
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    return Story(json.loads(process.stdout), process.stderr, open_run(out).metrics(), out)


@cache
def undisturbed(folder: Path) -> tuple[float, float]:
    """The mean and the spread of the best held-out loss over five seeds without any fault."""
    losses = []
    for seed in range(5):
        story = run_under([], folder / f"seed-{seed}", recipe(seed=seed))
        losses.append(story.outcome["best_held_out_loss"])
    mean = sum(losses) / 5
    return mean, math.sqrt(sum((loss - mean) ** 2 for loss in losses) / 4)


def assert_finished(story: Story, rounds: int = ROUNDS) -> None:
    """The right number of rounds, each once, and a last checkpoint that all members made together."""
    assert story.outcome["reason"] == "finished"
    assert [line["round"] for line in story.metrics] == list(range(1, rounds + 1))
    checkpoint, damages = newest_checkpoint(story.out / "checkpoints")
    assert checkpoint is not None
    assert not damages
    assert checkpoint.progress["round"] == rounds
    assert story.metrics[-1]["loss"] < story.metrics[0]["loss"] / 2


def kinds(story: Story, worker: int | None = None) -> list[str]:
    return [event["kind"] for event in story.attendance() if worker in (None, event.get("worker"))]


def test_a_killed_worker_costs_its_round_and_comes_back(tmp_path: Path) -> None:
    story = run_under([Fault(worker=1, round=12, act="kill", where="1")], tmp_path, recipe())
    assert_finished(story)
    assert "died" in kinds(story, worker=1)
    assert "died" not in kinds(story, worker=0)
    assert "worker 1 died" in story.screen
    went_on = [event for event in story.attendance() if event["kind"] == "went_on"]
    assert went_on
    assert all(event["seconds"] < PATIENCE for event in went_on)
    assert len(story.metrics[11]["workers"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("where", ["0", "before", "inside", "after"])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_may_be_killed_at_any_point(victim: int, where: str, tmp_path: Path) -> None:
    story = run_under([Fault(worker=victim, round=15, act="kill", where=where)], tmp_path, recipe())
    assert_finished(story)
    assert "died" in kinds(story, worker=victim)


@pytest.mark.slow
def test_a_stopped_worker_is_not_waited_for_longer_than_the_patience_and_comes_back(tmp_path: Path) -> None:
    stop = Fault(worker=1, round=10, act="stop", where="before", seconds=3 * PATIENCE)
    story = run_under([stop], tmp_path, recipe())
    assert_finished(story)
    assert "late" in kinds(story, worker=1)
    (went_on,) = [event for event in story.attendance() if event["kind"] == "went_on"]
    assert went_on["seconds"] < PATIENCE + 2


@pytest.mark.slow
def test_an_exception_in_the_loop_replaces_the_worker_and_is_shown(tmp_path: Path) -> None:
    story = run_under([Fault(worker=0, round=9, act="raise", where="1")], tmp_path, recipe())
    assert_finished(story)
    assert "worker 0 failed: ValueError: a fault of the test in round 9" in story.screen


@pytest.mark.slow
def test_two_of_three_workers_may_die_at_once(tmp_path: Path) -> None:
    faults = [Fault(worker=number, round=8, act="kill", where="1") for number in (0, 2)]
    story = run_under(faults, tmp_path, recipe(workers=3))
    assert_finished(story)
    assert len(story.metrics[7]["workers"]) == 1


@pytest.mark.slow
def test_all_workers_may_die_at_once_and_the_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    faults = [Fault(worker=number, round=25, act="kill", where="1") for number in (0, 1)]
    story = run_under(faults, tmp_path, recipe())
    assert_finished(story)


@pytest.mark.slow
def test_a_worker_may_die_while_a_checkpoint_is_made(tmp_path: Path) -> None:
    story = run_under([Fault(worker=1, round=20, act="kill", where="after")], tmp_path, recipe())
    assert_finished(story)


def test_parameters_that_are_not_finite_on_one_worker_are_kept_out_of_the_mean(tmp_path: Path) -> None:
    story = run_under([Fault(worker=1, round=6, act="nan", where="1")], tmp_path, recipe())
    assert_finished(story)
    assert story.metrics[5]["broken"] == [1]
    assert [line["broken"] for line in story.metrics[6:]] == [[]] * (ROUNDS - 6)
    assert "worker 1 was not finite in round 6" in story.screen


@pytest.mark.slow
def test_the_loss_after_deaths_is_that_of_undisturbed_runs(tmp_path: Path) -> None:
    faults = [Fault(worker=number % 2, round=6 + 6 * number, act="kill", where="1") for number in range(5)]
    story = run_under(faults, tmp_path / "disturbed", recipe())
    assert_finished(story)
    mean, spread = undisturbed(tmp_path)
    assert abs(story.outcome["best_held_out_loss"] - mean) <= 3 * spread
