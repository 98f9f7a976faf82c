"""What becomes of numbers in long runs: each test begins near the number at which a narrower kind would fail."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from rayrnn.averaging.averager import Averager
from rayrnn.data.order import Plan
from rayrnn.runs.checkpoints import name_of, newest_checkpoint, newest_name, write_checkpoint
from rayrnn.runs.directory import create_run
from rayrnn.runs.layout import belongs
from rayrnn.tasks.language_model import LanguageModel
from rayrnn.tasks.losses import cross_entropy
from rayrnn.tasks.metrics import Metrics
from rayrnn.tasks.regression import Regression
from rayrnn.training.loop import Evaluation, LearningSettings, Work, evaluate, learn_alone
from rayrnn.training.messages import Evaluated
from rayrnn.training.notes import Average, Notes, held_out_accuracy, held_out_loss, round_learned, write_notes
from rayrnn.training.progress import Length, Progress
from rayrnn.training.recorder import Recorder
from rayrnn.training.screen import Screen
from tests.crashing import checkpoint
from tests.tasks.segments import segment
from tests.together import Thread, together
from tests.training.recipes import small

#: float32 counts no further than the first, int32 than the second
EDGES = [2**24 - 1, 2**24 + 1, 2**31 + 1, 2**40 + 12345]


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("wire", ["float32", "int8"])
def test_every_member_sees_every_count_exactly(edge: int, wire: str) -> None:
    def work(group: Thread) -> list[list[float]]:
        model = torch.nn.Linear(3, 2)
        averager = Averager(model, torch.optim.SGD(model.parameters()), wire=wire)  # type: ignore[arg-type]
        notes: list[list[float]] = averager.average(group, weight=edge, notes=[edge + group.rank, 0.5]).notes.tolist()
        return notes

    assert together(3, work) == [[[edge, 0.5], [edge + 1, 0.5], [edge + 2, 0.5]]] * 3


@pytest.mark.parametrize("number", [math.inf, -math.inf, 1e300])
def test_a_number_that_is_too_large_to_travel_is_infinite_and_leaves_the_others_alone(number: float) -> None:
    def work(group: Thread) -> list[list[float]]:
        model = torch.nn.Linear(3, 2)
        notes: list[list[float]] = (
            Averager(model, torch.optim.SGD(model.parameters())).average(group, weight=1, notes=[number, 7.0]).notes
        ).tolist()
        return notes

    assert together(2, work) == [[[math.copysign(math.inf, number), 7.0]] * 2] * 2


@pytest.mark.parametrize("edge", EDGES)
def test_a_round_adds_up_the_steps_and_targets_of_all_workers_exactly(edge: int) -> None:
    notes = write_notes(Work(steps=edge, updates=1, loss_sum=2.0 * edge, num_targets=edge), stop=False, leaving=False)
    learned = round_learned(1, Average({0: notes, 1: notes}, 0), {}, generation=1, seconds=1.0, stopped=False)
    assert (learned.steps, learned.loss) == (2 * edge, 2.0)
    assert [worker.steps for worker in learned.workers] == [edge, edge]


@pytest.mark.parametrize("edge", EDGES)
def test_held_out_targets_and_losses_add_up_over_all_workers(edge: int) -> None:
    parts = {
        0: Evaluation(loss_sum=3.0 * edge, num_targets=edge, num_correct=edge - 1),
        1: Evaluation(loss_sum=3.0, num_targets=1, num_correct=1),
    }
    assert held_out_loss(parts) == 3.0
    assert held_out_accuracy(parts) == edge / (edge + 1)


@pytest.mark.parametrize("edge", EDGES)
def test_a_measurement_goes_on_counting(edge: int) -> None:
    metrics, other = Metrics({}), Metrics({})
    metrics.add_loss(torch.tensor(2.0 * edge, dtype=torch.float64), torch.tensor(edge))
    for _ in range(3):
        metrics.add_loss(torch.tensor(5.0), torch.tensor(1))
    other.add_loss(torch.tensor(5.0), torch.tensor(1))
    metrics.merge([other])
    assert metrics.num_targets == edge + 4
    assert metrics.loss == pytest.approx((2.0 * edge + 20) / (edge + 4), rel=1e-12)


def test_the_sum_of_very_many_losses_loses_none() -> None:
    metrics = Metrics({})
    metrics.add_loss(torch.tensor(1e9, dtype=torch.float64), torch.tensor(10**9))
    for _ in range(1000):
        metrics.add_loss(torch.tensor(0.001), torch.tensor(1))
    assert metrics.loss * metrics.num_targets == pytest.approx(1e9 + 1, abs=1e-3)


@pytest.mark.parametrize("cursor", [2**31 - 2, 2**31, 2**53 - 1, 2**53 + 1, 2**63 + 5])
def test_the_cursor_and_the_order_have_no_end(cursor: int) -> None:
    progress = Progress().after(cursor=cursor, broken=[False], stop=False, length=Length(2**62))
    assert Progress.from_json(json.loads(json.dumps(progress.to_json()))).cursor == cursor
    plan = Plan(np.full(10, 5), np.arange(10), batch_size=3, seed=2**63 - 1)
    first = cursor - cursor % 4
    epoch = np.concatenate([plan.minibatch(first + place) for place in range(4)])
    assert sorted(epoch.tolist()) == list(range(10))


@pytest.mark.parametrize("workers", [2, 3, 7])
@pytest.mark.parametrize("sequences", [1, 2])
def test_with_fewer_sequences_than_workers_everybody_learns_and_all_sequences_come(
    workers: int, sequences: int
) -> None:
    plan = Plan(np.full(sequences, 5), np.arange(sequences), batch_size=1, seed=1)
    cursor, seen = 0, []
    for _ in range(4 * sequences):
        shares = [plan.minibatch(cursor + rank).tolist() for rank in range(workers)]
        assert all(shares)
        seen += [number for share in shares for number in share]
        cursor += workers
    counts = np.bincount(seen, minlength=sequences)
    assert counts.max() - counts.min() <= 1


class Echo(torch.nn.Module):
    """Answers with what it has learned, whatever it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = torch.nn.Parameter(torch.zeros(3))

    def forward(self, inputs: torch.Tensor, state: object, mask: torch.Tensor) -> tuple[torch.Tensor, object]:
        return self.answer.expand(len(inputs), 1, 3), None


@pytest.mark.parametrize("task", [LanguageModel(), Regression()], ids=["classes", "numbers"])
def test_minibatches_without_a_target_are_learned_and_measured_as_nothing(task: LanguageModel | Regression) -> None:
    targets = torch.zeros(2, 1, 3) * math.nan if isinstance(task, Regression) else torch.zeros(2, 1, dtype=torch.long)
    nothing = segment(targets, torch.zeros(2, 1, dtype=torch.bool))
    model = Echo()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    work = learn_alone(model, optimizer, iter([nothing]), task=task, settings=LearningSettings(0, 1.0, "norm"))
    assert (work.num_targets, work.loss_sum, work.broken_at) == (0, 0, 0)
    assert bool(model.answer.isfinite().all())
    measured = evaluate(model, [nothing], task=task, settings=LearningSettings(0, 1.0, "norm"))
    assert held_out_loss({0: measured}) == math.inf
    assert held_out_accuracy({0: measured}) is None


def test_a_round_without_a_target_has_no_loss_and_is_shown(tmp_path: Path) -> None:
    notes = Notes(10, 0, 1, 0.0, 0.0, 1.0, 0.0, 0, 0, 0)
    learned = round_learned(2**31 + 1, Average({0: notes}, 0), {}, generation=1, seconds=1.0, stopped=False)
    said = io.StringIO()
    screen = Screen(Console(file=said, width=100), small())
    screen.start(0)
    screen.round(replace(learned, round=1))
    assert "loss -" in said.getvalue()
    run = create_run(tmp_path / "run")
    recorder = Recorder(run, pytest.fail)
    recorder.take_round(learned)
    recorder.take_evaluation(Evaluated(2**31 + 1, 1, 0.5, None))
    recorder.close()
    assert [(line["round"], line["loss"], line["held_out_loss"]) for line in run.metrics()] == [(2**31 + 1, None, 0.5)]


def test_the_newest_checkpoint_is_the_one_with_the_largest_number(tmp_path: Path) -> None:
    for number in (999_998, 999_999, 1_000_000, 2**31 + 7):
        write_checkpoint(tmp_path, number, checkpoint(number))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round-1000000", f"round-{2**31 + 7}"]
    found, damages = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.progress["round"], damages) == (2**31 + 7, [])
    assert newest_name(tmp_path) == name_of(2**31 + 7)
    assert belongs(f"checkpoints/{name_of(2**31 + 7)}/MANIFEST.json")


def test_a_loss_of_very_many_targets_is_their_sum() -> None:
    logits, targets = torch.zeros(1, 2**18, 2), torch.zeros(1, 2**18, dtype=torch.long)
    total, count = cross_entropy(logits, targets, torch.ones(1, 2**18, dtype=torch.bool))
    assert float(total) / float(count) == pytest.approx(math.log(2), rel=1e-6)
