"""What the driver makes of the workers' events: metrics, and checkpoints that all members made together."""

from pathlib import Path

import pytest
import torch

from rayrnn.errors import RunError
from rayrnn.runs.checkpoints import Tensors, pack
from rayrnn.runs.directory import Run, create_run
from rayrnn.training.messages import CheckpointPart, Common, Evaluated, Lost, RoundLearned
from rayrnn.training.recorder import Recorder
from tests.crashing import progress_of


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(tmp_path / "run")


def round_learned(number: int) -> RoundLearned:
    return RoundLearned(
        round=number,
        generation=number,
        loss=1.0,
        learning_rate=0.1,
        steps=10,
        padding_share=0.0,
        seconds=1.0,
        bytes=0,
        broken=(),
        workers=(),
    )


def evaluated(number: int, loss: float, model: Tensors | None = None) -> Evaluated:
    return Evaluated(number, number, loss, None, pack(model) if model else None)


def part(worker: int, *, generation: int = 4, digest: str = "same", number: int = 4) -> CheckpointPart:
    return CheckpointPart(
        round=number,
        generation=generation,
        worker=worker,
        members=(0, 1),
        digest=digest,
        optimizer=pack({"moment": torch.full((1,), float(worker))}),
        common=Common(pack({"weight": torch.ones(2)}), pack({}), progress_of(number)),
    )


def test_a_line_is_there_at_once_and_its_evaluation_follows(run: Run) -> None:
    recorder = Recorder(run, print)
    for number in (1, 2):
        recorder.take_round(round_learned(number))
    recorder.take_evaluation(evaluated(1, 0.5))
    assert [line.get("held_out_loss") for line in run.metrics()] == [0.5, None]


def test_a_round_that_is_learned_anew_replaces_what_was_said_of_it(run: Run) -> None:
    recorder = Recorder(run, print)
    for number in (1, 2, 3, 2):
        recorder.take_round(round_learned(number))
    assert [line["round"] for line in run.metrics()] == [1, 2]


def test_a_checkpoint_waits_for_all_parts(run: Run) -> None:
    recorder = Recorder(run, print)
    recorder.take_checkpoint_part(part(0))
    assert recorder.write_checkpoint() is None
    recorder.take_checkpoint_part(part(1))
    checkpoint = recorder.write_checkpoint()
    assert checkpoint is not None
    assert [optimizer["moment"].item() for optimizer in checkpoint.optimizers] == [0.0, 1.0]


def test_a_checkpoint_does_without_the_part_of_a_worker_that_is_lost(run: Run) -> None:
    recorder = Recorder(run, print)
    recorder.take_membership(Lost(1, "killed", "", 0.0))
    recorder.take_checkpoint_part(part(0))
    checkpoint = recorder.write_checkpoint()
    assert checkpoint is not None
    assert len(checkpoint.optimizers) == 1


def test_parts_of_two_generations_of_a_round_are_kept_apart(run: Run) -> None:
    recorder = Recorder(run, print)
    recorder.take_checkpoint_part(part(0, generation=4))
    recorder.take_checkpoint_part(part(1, generation=5))
    assert recorder.write_checkpoint() is None


def test_workers_that_hold_different_models_stop_the_run(run: Run) -> None:
    recorder = Recorder(run, print)
    recorder.take_checkpoint_part(part(0))
    recorder.take_checkpoint_part(part(1, digest="another"))
    with pytest.raises(RunError, match="worker 1 and worker 0 hold different models"):
        recorder.write_checkpoint()
    assert not list(run.checkpoints.iterdir())


@pytest.mark.parametrize("late", [1, 0])
@pytest.mark.parametrize("old", [(4, 4), (4, 7), (6, 6), (8, 8)], ids=["older", "made again", "just before", "itself"])
def test_a_late_part_of_an_older_checkpoint_changes_nothing(run: Run, late: int, old: tuple[int, int]) -> None:
    recorder = Recorder(run, print)
    number, generation = old
    recorder.take_checkpoint_part(part(1 - late, number=number, generation=generation))
    recorder.take_checkpoint_part(part(0, number=8, generation=8))
    recorder.take_checkpoint_part(part(1, number=8, generation=8))
    assert recorder.write_checkpoint() is not None
    # it stalled after the vote, wakes now, and is the only one of its checkpoint that is not lost
    recorder.take_membership(Lost(1 - late, "killed", "", 0.0))
    recorder.take_checkpoint_part(part(late, number=number, generation=generation))
    assert recorder.write_checkpoint() is None
    assert [path.name for path in run.checkpoints.iterdir()] == ["round-000008"]
    assert len(list((run.checkpoints / "round-000008").glob("optimizer-*"))) == 2


def test_a_worker_that_is_late_may_still_send_its_part(run: Run) -> None:
    recorder = Recorder(run, print)
    recorder.take_membership(Lost(1, "late", "", 0.0))
    recorder.take_checkpoint_part(part(0))
    assert recorder.write_checkpoint() is None


def test_what_changes_the_members_stands_in_the_line_of_the_next_round(run: Run) -> None:
    recorder = Recorder(run, print)
    recorder.take_membership(Lost(1, "raised", "ValueError: chosen", 0.0, traceback="of many lines"))
    recorder.take_round(round_learned(1))
    lost = {"kind": "lost", "worker": 1, "reason": "raised", "detail": "ValueError: chosen", "time": 0.0}
    assert run.metrics()[0]["membership"] == [lost]
