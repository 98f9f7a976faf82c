"""Workers come when there is room and go when it is gone; the others go on."""

from pathlib import Path

import pytest

from tests.chaos.story import assert_finished, kinds, recipe, run_under

pytestmark = pytest.mark.slow


def test_training_grows_with_the_nodes_that_join_and_shrinks_with_those_that_leave(tmp_path: Path) -> None:
    chosen = recipe(workers={"min": 1, "max": 3}, rounds=1500)
    story = run_under([], tmp_path, chosen, nodes=["add", "add", "remove", "add"], pause=0.02)
    assert_finished(story, rounds=1500)
    sizes = [len(line["workers"]) for line in story.metrics]
    changes = [size for before, size in zip([0, *sizes], sizes, strict=False) if size != before]
    assert changes == [1, 2, 3, 2, 3]
    assert kinds(story, worker=0) == [], "the first worker never restarts"
    assert "of 1 to 3" in story.screen


def test_the_workers_of_a_drained_node_leave_between_two_rounds(tmp_path: Path) -> None:
    chosen = recipe(workers={"min": 1, "max": 2}, rounds=1200)
    story = run_under([], tmp_path, chosen, nodes=["add", "drain", "add"], pause=0.03)
    assert_finished(story, rounds=1200)
    sizes = [len(line["workers"]) for line in story.metrics]
    changes = [size for before, size in zip([0, *sizes], sizes, strict=False) if size != before]
    assert changes == [1, 2, 1, 2]
    assert "killed" not in kinds(story)
    (drained,) = [event for event in story.membership() if event.get("reason") == "drained"]
    assert drained["detail"] == "its node leaves the cluster"
    assert "worker 1 was lost (drained: its node leaves the cluster) in round" in story.screen


def test_a_run_does_not_take_more_workers_than_its_most(tmp_path: Path) -> None:
    story = run_under([], tmp_path, recipe(workers={"min": 1, "max": 2}), nodes=None)
    assert_finished(story)
    assert {len(line["workers"]) for line in story.metrics} <= {1, 2}
