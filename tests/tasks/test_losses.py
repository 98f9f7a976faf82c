"""Losses and metrics of every task: what is masked counts for nothing, and what workers counted is added up."""

import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayrnn.data.encoding import Classes, Encoding, Numbers, Scaling
from rayrnn.errors import DataError
from rayrnn.recipe import TASKS, task_named
from rayrnn.tasks import Searching
from rayrnn.tasks.losses import cross_entropy, numbers_added_up
from rayrnn.tasks.number_losses import SQUARED
from tests.tasks.segments import ONE_TO_THREE, segment

#: those with answers of one place: a sequence's, or a step's
ONE_ANSWER = sorted(name for name in TASKS if not isinstance(task_named(name), Searching))
OF_CLASSES = ["classification", "language_model", "tagging"]
THREE_NUMBERS = Numbers(Scaling.none(3))


def encoding_of(task: str) -> Encoding:
    """Answers of three numbers, or of three classes."""
    targets = THREE_NUMBERS if task == "regression" else Classes(("a", "b", "c"))
    return Encoding(THREE_NUMBERS, targets, per_step=False)


def test_cross_entropy_is_summed_over_the_targets_that_count() -> None:
    outputs = torch.tensor([[ONE_TO_THREE, ONE_TO_THREE, ONE_TO_THREE]])
    loss, count = cross_entropy(outputs, torch.tensor([[0, 1, 1]]), torch.tensor([[True, True, False]]))
    assert loss.item() == pytest.approx(math.log(4) + math.log(4 / 3))
    assert count.item() == 2


@pytest.mark.parametrize("task", OF_CLASSES)
def test_masked_classes_give_no_gradient_even_when_they_are_none_of_the_classes(task: str) -> None:
    outputs = torch.randn(4, 3, requires_grad=True)
    mask = torch.tensor([True, False, True, False])
    loss, count = task_named(task).loss(outputs, segment(torch.tensor([0, 99, 2, -7]), mask))
    loss.backward()
    assert outputs.grad is not None
    assert outputs.grad[mask].ne(0).all()
    assert outputs.grad[~mask].eq(0).all()
    assert count.item() == 2


@pytest.mark.parametrize(
    ("task", "targets"), [("tagging", torch.zeros(2, 3, dtype=torch.int64)), ("regression", torch.zeros(2, 3, 4))]
)
def test_nothing_that_counts_is_a_loss_of_zero_without_a_gradient(task: str, targets: torch.Tensor) -> None:
    outputs = torch.randn(2, 3, 4, requires_grad=True)
    loss, count = task_named(task).loss(outputs, segment(targets, torch.zeros(2, 3, dtype=torch.bool)))
    loss.backward()
    assert loss.item() == count.item() == 0
    assert outputs.grad is not None
    assert outputs.grad.eq(0).all()


def test_losses_are_computed_in_fp32_from_bf16_outputs() -> None:
    outputs, mask = torch.randn(2, 3, dtype=torch.bfloat16), torch.tensor([True, True])
    assert cross_entropy(outputs, torch.tensor([0, 2]), mask)[0].dtype == torch.float32
    assert numbers_added_up(SQUARED.losses, outputs.unsqueeze(-1), torch.zeros(2, 3), mask)[0].dtype == torch.float32


@settings(max_examples=20, deadline=None)
@given(
    name=st.sampled_from(ONE_ANSWER),
    shares=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    seed=st.integers(0, 99),
)
def test_metrics_merged_from_workers_are_those_of_all_the_data(name: str, shares: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    task, encoding = task_named(name), encoding_of(name)
    whole, workers = task.metrics(encoding), [task.metrics(encoding) for _ in shares]
    for num_rows, worker in zip([2, *shares], [workers[0], *workers], strict=True):
        outputs = torch.randn(num_rows, 3)
        targets = torch.randn(num_rows, 3) if name == "regression" else torch.randint(3, (num_rows,))
        for metrics in (whole, worker):
            task.measure(metrics, outputs, segment(targets, torch.ones(num_rows, dtype=torch.bool)), encoding)
    merged = task.metrics(encoding)
    merged.merge(pickle.loads(pickle.dumps(workers)))
    assert merged.num_targets == whole.num_targets
    merged_values, values = task.results(merged), task.results(whole)
    assert merged_values.pop("confusion_matrix", None) == values.pop("confusion_matrix", None)
    assert merged_values == pytest.approx(values, rel=1e-6)


@pytest.mark.parametrize("name", ONE_ANSWER)
def test_measuring_nothing_is_an_error_that_says_so(name: str) -> None:
    task, encoding = task_named(name), encoding_of(name)
    metrics = task.metrics(encoding)
    targets = torch.zeros(2, 3) if name == "regression" else torch.tensor([0, 1])
    task.measure(metrics, torch.randn(2, 3), segment(targets, torch.tensor([False, False])), encoding)
    with pytest.raises(DataError, match="nothing to measure"):
        task.results(metrics)
