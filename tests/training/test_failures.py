"""Failures that come again and again end a run with their reason; the others do not."""

import io
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from rayrnn.recipe import validate_recipe
from rayrnn.runs.checkpoints import read_checkpoint
from rayrnn.runs.directory import Run
from rayrnn.runs.model import load_network
from rayrnn.training.driver import train
from rayrnn.training.failures import Strikes, unexpected
from rayrnn.training.messages import Lost, Restarted
from tests.training.recipes import small

RAISED = Lost(1, "raised", "TypeError: no number", 0.0)
RESTARTED = Restarted(1, "its process ended")


def ends_at(happenings: Iterable[int | Lost | Restarted], workers: int) -> int | None:
    """After which of these, from 1, a run of so many workers gives up; a number is a round that was learned."""
    strikes = Strikes(workers)
    for place, happened in enumerate(happenings, start=1):
        if isinstance(happened, int):
            strikes.forget(happened)
        elif strikes.too_many(happened):
            return place
    return None


@pytest.mark.parametrize(
    ("happenings", "workers", "end"),
    [
        ([RAISED, RAISED], 1, 2),
        ([1, 2, RAISED, 1, 2, RAISED], 1, 6),
        ([5, 6, 7, RAISED, 5, 6, 7, RAISED, 5, 6, 7, RAISED], 1, 8),
        ([3, RAISED, RAISED, 3, RAISED, RAISED], 2, 6),
        ([3, RAISED, 4, RAISED, 5, RAISED, 6, RAISED], 1, None),
        ([3, RAISED, 3, 4, RAISED, 4, 5, RAISED], 1, None),
        ([9, *[RESTARTED, 8, 9] * 4, RESTARTED], 1, 14),
        ([RAISED, RESTARTED, RESTARTED], 1, None),
    ],
)
def test_a_run_that_comes_no_further_ends(
    happenings: list[int | Lost | Restarted], workers: int, end: int | None
) -> None:
    assert ends_at(happenings, workers) == end


def test_the_reason_says_what_was_raised_and_how_far_the_run_came() -> None:
    said = str(unexpected(RAISED, 4, 1234, Run(Path("runs/one"))))
    assert "failed 4 times and came no further than round 1,234; worker 1: TypeError: no number" in said
    assert "go on from the last checkpoint with --resume" in said


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("answer", ["", pytest.param("nan", marks=pytest.mark.slow)])
def test_held_out_sequences_without_a_target_are_told_of_and_the_last_model_is_kept(
    answer: str, tmp_path: Path
) -> None:
    for folder, answers in (("learned", ["1.5", "2.5"]), ("held", [answer, answer])):
        (tmp_path / folder).mkdir()
        for number in range(4):
            rows = "".join(f"{number + step},{text}\n" for step, text in enumerate(answers))
            (tmp_path / folder / f"{number}.csv").write_text(f"x,y\n{rows}")
    data = {
        "source": "csv",
        "path": f"{tmp_path}/learned",
        "held_out": f"{tmp_path}/held",
        "label_column": "y",
        "skip_lines": 1,
    }
    values = small(averaging={"workers": 1, "rounds": 3}, training={"evaluate_every": 1}).model_dump(mode="json")
    recipe = validate_recipe(values | {"task": "regression", "data": data})
    said = io.StringIO()
    summary = train(recipe, out=tmp_path / "run", console=Console(file=said, width=300))
    assert (summary.rounds, summary.best_loss) == (3, None)
    assert said.getvalue().count("what is held out has no loss after round 1: no sequence there has a target") == 1
    assert not [line for line in summary.run.metrics() if line.get("held_out_loss") is not None]
    last = read_checkpoint(tmp_path / "run" / "checkpoints" / "round-000003").model
    assert all(torch.equal(value, last[name]) for name, value in load_network(summary.run).state_dict().items())
