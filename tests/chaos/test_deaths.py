"""The death of any worker costs at most its own round, and nobody else restarts."""

import json
import math
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.chaos.faults import LEARNED, Fault
from tests.chaos.story import PATIENCE, ROUNDS, assert_finished, kinds, recipe, run_under


@cache
def undisturbed(folder: Path) -> tuple[float, float]:
    """The mean and the spread of the best held-out loss over five seeds without any fault."""
    losses = []
    for seed in range(5):
        story = run_under([], folder / f"seed-{seed}", recipe(seed=seed))
        losses.append(story.outcome["best_held_out_loss"])
    mean = sum(losses) / 5
    return mean, math.sqrt(sum((loss - mean) ** 2 for loss in losses) / 4)


def test_a_killed_worker_costs_its_round_and_comes_back(tmp_path: Path) -> None:
    story = run_under([Fault(worker=1, round=12, act="kill", where="1")], tmp_path, recipe())
    assert_finished(story)
    assert "killed" in kinds(story, worker=1)
    assert "killed" not in kinds(story, worker=0)
    assert "worker 1 was lost (killed" in story.screen
    went_on = [event for event in story.membership() if event["kind"] == "went_on"]
    assert went_on
    assert all(event["seconds"] < PATIENCE / 3 for event in went_on)
    assert len(story.metrics[11]["workers"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("where", ["0", "before", "inside", "after"])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_may_be_killed_at_any_point(victim: int, where: str, tmp_path: Path) -> None:
    story = run_under([Fault(worker=victim, round=15, act="kill", where=where)], tmp_path, recipe())
    assert_finished(story)
    assert "killed" in kinds(story, worker=victim)


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "where"), [(1, "inside"), (0, "0"), (0, "inside"), (1, "before")])
def test_a_worker_may_be_killed_while_its_average_travels(victim: int, where: str, tmp_path: Path) -> None:
    kill = Fault(worker=victim, round=15, act="kill", where=where)
    # long enough for the one that comes in its place
    story = run_under([kill], tmp_path, recipe(overlap=1, rounds=200), pause=0.05)
    assert_finished(story, rounds=200)
    assert kinds(story, worker=victim) == ["killed", "joined"]
    assert "killed" not in kinds(story, worker=1 - victim)


@pytest.mark.slow
@pytest.mark.parametrize("act", ["stop", "nan"])
def test_who_hangs_or_breaks_while_averages_travel_goes_on_with_the_others(act: str, tmp_path: Path) -> None:
    patience = 8.0
    fault = Fault(worker=1, round=13, act=act, where="0", seconds=3 * patience)
    story = run_under([fault], tmp_path, recipe(patience=patience, overlap=1))
    assert_finished(story)
    broken = [line["round"] for line in story.metrics if line["broken"]]
    assert (broken, "late" in kinds(story, worker=1)) == (([13], False) if act == "nan" else ([], True))


@pytest.mark.slow
def test_a_stopped_worker_is_not_waited_for_longer_than_the_patience_and_comes_back(tmp_path: Path) -> None:
    patience = 8.0
    stop = Fault(worker=1, round=10, act="stop", where="before", seconds=3 * patience)
    story = run_under([stop], tmp_path, recipe(patience=patience))
    assert_finished(story)
    assert "late" in kinds(story, worker=1)
    (went_on,) = [event for event in story.membership() if event["kind"] == "went_on"]
    assert patience / 2 < went_on["seconds"] < patience + 2


@pytest.mark.slow
def test_an_exception_in_the_loop_replaces_the_worker_and_is_shown(tmp_path: Path) -> None:
    story = run_under([Fault(worker=0, round=9, act="raise", where="1")], tmp_path, recipe())
    assert_finished(story)
    assert "worker 0 was lost (failed: ValueError: a fault of the test in round 9)" in story.screen


@pytest.mark.slow
@pytest.mark.parametrize("where", ["1", "inside"])
def test_a_death_loses_the_sequences_of_its_round_and_no_others(where: str, tmp_path: Path) -> None:
    chosen = recipe()
    text = chosen.data.model_copy(update={"text": None, "path": "sysconfig:stdlib/json/*.py", "length": 200})
    story = run_under(
        [Fault(worker=1, round=12, act="kill", where=where)], tmp_path, chosen.model_copy(update={"data": text})
    )
    assert_finished(story, learned=0.9)
    took_part = {line["round"]: {member["worker"] for member in line["workers"]} for line in story.metrics}
    minibatches = [json.loads(line) for line in (tmp_path / LEARNED).read_text().splitlines()]
    # a round that is added up again is learned once; the process that replaces another learns no round twice
    counted = [m for m in minibatches if m["worker"] in took_part.get(m["round"], ())]
    times = Counter(sequence for minibatch in counted for sequence in minibatch["sequences"])
    everything = {sequence for minibatch in minibatches for sequence in minibatch["sequences"]}
    epochs = sum(times.values()) // len(everything)
    assert epochs >= 1
    lost = sum(epochs - times[sequence] for sequence in everything if times[sequence] < epochs)
    assert max(times.values()) <= epochs + 1
    assert lost <= chosen.averaging.frequency * chosen.training.batch_size


@pytest.mark.slow
def test_two_of_three_workers_may_die_at_once(tmp_path: Path) -> None:
    faults = [Fault(worker=number, round=8, act="kill", where="1") for number in (0, 2)]
    story = run_under(faults, tmp_path, recipe(workers=3))
    assert_finished(story)
    assert len(story.metrics[7]["workers"]) == 1
    assert kinds(story, worker=1) == [], "the survivor goes on as if nothing had happened"


@pytest.mark.slow
def test_all_workers_may_die_at_once_and_the_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    faults = [Fault(worker=number, round=25, act="kill", where="1") for number in (0, 1)]
    story = run_under(faults, tmp_path, recipe())
    assert_finished(story)


@pytest.mark.slow
def test_a_worker_may_die_while_a_checkpoint_is_made(tmp_path: Path) -> None:
    story = run_under([Fault(worker=1, round=20, act="kill", where="after")], tmp_path, recipe())
    assert_finished(story)


@pytest.mark.slow
def test_a_worker_may_die_while_the_object_store_is_full(tmp_path: Path) -> None:
    faults = [Fault(worker=1, round=12, act="kill", where="1")]
    large = recipe(rounds=150)
    # a state that does not fit into a message
    large = large.model_copy(update={"model": large.model.model_copy(update={"hidden": 256})})
    # a round lasts long enough that the run does not end before the worker is replaced
    story = run_under(faults, tmp_path, large, pause=0.05, full=True)
    assert_finished(story, rounds=150)
    assert kinds(story, worker=1) == ["killed", "joined"]


@pytest.mark.slow
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
