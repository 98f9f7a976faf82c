"""Losses and metrics against values worked out by hand; what is masked counts for nothing."""

import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayrnn.errors import DataError
from rayrnn.tasks.losses import has_steps, loss_sum
from rayrnn.tasks.metrics import metrics_for

NAN = float("nan")
#: logits whose softmax is (1/4, 3/4)
ONE_TO_THREE = [0.0, math.log(3)]


def test_cross_entropy_is_summed_over_the_targets_that_count() -> None:
    outputs = torch.tensor([[ONE_TO_THREE, ONE_TO_THREE, ONE_TO_THREE]])
    loss, count = loss_sum("tagging", outputs, torch.tensor([[0, 1, 1]]), torch.tensor([[True, True, False]]))
    assert loss.item() == pytest.approx(math.log(4) + math.log(4 / 3))
    assert count.item() == 2


def test_class_weights_scale_the_losses_of_their_class() -> None:
    outputs = torch.tensor([ONE_TO_THREE, ONE_TO_THREE])
    weights = torch.tensor([2.0, 0.5])
    loss, count = loss_sum("classification", outputs, torch.tensor([0, 1]), torch.tensor([True, True]), weights)
    assert loss.item() == pytest.approx(2 * math.log(4) + 0.5 * math.log(4 / 3))
    assert count.item() == 2


def test_a_regression_adds_squared_errors_of_the_numbers_that_are_there() -> None:
    outputs = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    targets = torch.tensor([[0.0, NAN], [1.0, 1.0], [100.0, 100.0]])
    loss, count = loss_sum("regression", outputs, targets, torch.tensor([True, True, False]))
    assert loss.item() == 1 + 4 + 9
    assert count.item() == 3


def test_masked_targets_give_no_gradient_even_when_they_are_nan() -> None:
    outputs = torch.randn(2, 3, 2, requires_grad=True)
    targets = torch.randn(2, 3, 2)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    targets[~mask] = NAN
    loss, _ = loss_sum("regression", outputs, targets, mask)
    loss.backward()
    assert outputs.grad is not None
    torch.testing.assert_close(outputs.grad[mask], 2 * (outputs - targets)[mask])
    assert outputs.grad[~mask].eq(0).all()


@pytest.mark.parametrize("task", ["language_model", "tagging", "classification"])
def test_masked_classes_give_no_gradient_even_when_they_are_none_of_the_classes(task: str) -> None:
    outputs = torch.randn(4, 3, requires_grad=True)
    mask = torch.tensor([True, False, True, False])
    loss, count = loss_sum(task, outputs, torch.tensor([0, 99, 2, -7]), mask)
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
    loss, count = loss_sum(task, outputs, targets, torch.zeros(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == count.item() == 0
    assert outputs.grad is not None
    assert outputs.grad.eq(0).all()


def test_losses_are_computed_in_fp32_from_bf16_outputs() -> None:
    outputs = torch.randn(2, 3, dtype=torch.bfloat16)
    for task, targets in (("classification", torch.tensor([0, 2])), ("regression", torch.zeros(2, 3))):
        assert loss_sum(task, outputs, targets, torch.tensor([True, True]))[0].dtype == torch.float32


def test_which_tasks_answer_at_every_step() -> None:
    assert has_steps("language_model")
    assert has_steps("tagging")
    assert not has_steps("classification")
    assert not has_steps("regression")
    assert has_steps("regression", per_step=True)


def test_a_language_model_is_measured_in_nats_bits_and_perplexity() -> None:
    metrics = metrics_for("language_model", 2)
    outputs = torch.tensor([[ONE_TO_THREE, ONE_TO_THREE, ONE_TO_THREE]])
    metrics.update(outputs, torch.tensor([[0, 1, 0]]), torch.tensor([[True, True, False]]))
    loss = (math.log(4) + math.log(4 / 3)) / 2
    assert metrics.compute() == pytest.approx(
        {"loss": loss, "perplexity": math.exp(loss), "bits_per_symbol": loss / math.log(2), "accuracy": 0.5}
    )


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_classes_are_measured_by_accuracy_macro_f1_and_the_confusion_matrix(task: str) -> None:
    metrics = metrics_for(task, 3)
    answers, targets = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 2, 2, 0])
    outputs = torch.nn.functional.one_hot(answers, 3).float()
    mask = torch.tensor([True, True, True, True, True, False])
    metrics.update(outputs[:2], targets[:2], mask[:2])
    metrics.update(outputs[2:], targets[2:], mask[2:])
    values = metrics.compute()
    assert values["confusion_matrix"] == [[1, 0, 0], [1, 1, 0], [0, 0, 2]]
    assert values["accuracy"] == pytest.approx(4 / 5)
    assert values["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    right, wrong = math.log(2 + math.e) - 1, math.log(2 + math.e)
    assert values["loss"] == pytest.approx((4 * right + wrong) / 5)


def test_a_regression_is_measured_by_rmse_mae_and_the_mean_r2_of_its_numbers() -> None:
    metrics = metrics_for("regression", 2)
    outputs = torch.tensor([[[1.0, 0.0], [2.0, 2.0], [2.0, 9.0], [9.0, 9.0]]])
    targets = torch.tensor([[[1.0, 1.0], [2.0, 3.0], [3.0, NAN], [NAN, NAN]]])
    metrics.update(outputs, targets, torch.tensor([[True, True, True, False]]))
    values = metrics.compute()
    assert values["loss"] == pytest.approx(3 / 5)
    assert values["rmse"] == pytest.approx(math.sqrt(3 / 5))
    assert values["mae"] == pytest.approx(3 / 5)
    first, second = 1 - 1 / 2, 1 - 2 / 2
    assert values["r2"] == pytest.approx((first + second) / 2)


@settings(max_examples=20, deadline=None)
@given(
    task=st.sampled_from(["language_model", "classification", "regression"]),
    shares=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    seed=st.integers(0, 99),
)
def test_metrics_merged_from_workers_are_those_of_all_the_data(task: str, shares: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    whole, workers = metrics_for(task, 3), [metrics_for(task, 3) for _ in shares]
    for num_rows, worker in zip([2, *shares], [workers[0], *workers], strict=True):
        outputs = torch.randn(num_rows, 3)
        targets = torch.randn(num_rows, 3) if task == "regression" else torch.randint(3, (num_rows,))
        mask = torch.ones(num_rows, dtype=torch.bool)
        for metrics in (whole, worker):
            metrics.update(outputs, targets, mask)
    merged = metrics_for(task, 3)
    merged.merge(pickle.loads(pickle.dumps(workers)))
    assert merged.num_targets == whole.num_targets
    merged_values, values = merged.compute(), whole.compute()
    assert merged_values.pop("confusion_matrix", None) == values.pop("confusion_matrix", None)
    assert merged_values == pytest.approx(values, rel=1e-6)


def test_measuring_nothing_is_an_error_that_says_so() -> None:
    metrics = metrics_for("classification", 3)
    metrics.update(torch.randn(2, 3), torch.tensor([0, 1]), torch.tensor([False, False]))
    with pytest.raises(DataError, match="nothing to measure"):
        metrics.compute()
