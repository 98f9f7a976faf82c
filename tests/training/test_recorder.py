"""What the driver makes of the workers' events: metrics, and checkpoints that all members made together."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rayrnn.errors import RunError
from rayrnn.runs.directory import Run, create_run
from rayrnn.training.recorder import Recorder


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(tmp_path / "run")


def round_event(number: int) -> dict[str, Any]:
    return {"kind": "round", "round": number, "edition": number, "loss": 1.0, "learning_rate": 0.1} | {
        "steps": 10,
        "seconds": 1.0,
    }


def part(worker: int, *, edition: int = 4, digest: str = "same") -> dict[str, Any]:
    common = {"model": {"weight": torch.ones(2)}, "outer": {}, "progress": {"round": 4}}
    own = {"kind": "checkpoint", "round": 4, "edition": edition, "number": worker, "numbers": [0, 1]}
    return own | {"digest": digest, "optimizer": {"moment": torch.full((1,), float(worker))}} | common


def test_a_line_is_there_at_once_and_its_evaluation_follows(run: Run) -> None:
    recorder = Recorder(run, print)
    for number in (1, 2):
        recorder.take_round(round_event(number))
    recorder.take_evaluation({"round": 1, "held_out_loss": 0.5, "held_out_accuracy": None})
    assert [line.get("held_out_loss") for line in run.metrics()] == [0.5, None]


def test_a_round_that_is_learned_anew_replaces_what_was_said_of_it(run: Run) -> None:
    recorder = Recorder(run, print)
    for number in (1, 2, 3, 2):
        recorder.take_round(round_event(number))
    assert [line["round"] for line in run.metrics()] == [1, 2]


def test_a_checkpoint_waits_for_all_parts(run: Run) -> None:
    recorder = Recorder(run, print)
    recorder.take_checkpoint_part(part(0))
    assert recorder.write_checkpoint() is None
    recorder.take_checkpoint_part(part(1))
    checkpoint = recorder.write_checkpoint()
    assert checkpoint is not None
    assert [optimizer["moment"].item() for optimizer in checkpoint.optimizers] == [0.0, 1.0]


def test_a_checkpoint_does_without_the_part_of_a_worker_that_died(run: Run) -> None:
    recorder = Recorder(run, print)
    recorder.take_attendance({"kind": "died", "worker": 1, "round": 4})
    recorder.take_checkpoint_part(part(0))
    checkpoint = recorder.write_checkpoint()
    assert checkpoint is not None
    assert len(checkpoint.optimizers) == 1


def test_parts_of_two_editions_of_a_round_are_kept_apart(run: Run) -> None:
    recorder = Recorder(run, print)
    recorder.take_checkpoint_part(part(0, edition=4))
    recorder.take_checkpoint_part(part(1, edition=5))
    assert recorder.write_checkpoint() is None


def test_workers_that_hold_different_models_stop_the_run(run: Run) -> None:
    recorder = Recorder(run, print)
    recorder.take_checkpoint_part(part(0))
    recorder.take_checkpoint_part(part(1, digest="another"))
    with pytest.raises(RunError, match="worker 1 and worker 0 hold different models"):
        recorder.write_checkpoint()
    assert not list(run.checkpoints.iterdir())
