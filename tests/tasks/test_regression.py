"""A regression learns numbers a sequence or a step, or what comes some steps later."""

import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from rayrnn.data.encoding import Encoding, Numbers, Scaling, Survey
from rayrnn.data.symbols import Symbols
from rayrnn.data.vocabulary import Vocabulary
from rayrnn.errors import DataError
from rayrnn.tasks import Choices
from rayrnn.tasks.regression import Regression
from tests.asked import rows
from tests.tasks.segments import segment

TASK = Regression()
TWO_NUMBERS = Numbers(Scaling.none(2))
NAN = float("nan")


def numbers(width: int, *, per_step: bool = True) -> Encoding:
    return Encoding(TWO_NUMBERS, Numbers(Scaling.none(width)), per_step)


def forecast(scaling: Scaling, ahead: int) -> Encoding:
    return Encoding(Numbers(scaling), Numbers(scaling), per_step=True, ahead=ahead)


def test_regression_has_numbers_a_sequence() -> None:
    table = rows("regression", values=[[[1, 2]], [[3, 4]], [[5, 6]]], label=[[0.5, 1.5], [2.5, None], None])
    minibatch = TASK.minibatch(table, numbers(2, per_step=False))
    assert minibatch.targets.tolist() == [[0.5, 1.5], [0, 0], [0, 0]]
    assert minibatch.target_mask.tolist() == [True, False, False]


def test_regression_has_numbers_a_step() -> None:
    table = rows("regression", values=[[[1, 2], [3, 4]], [[5, 6]]], label=[[[1.0], [NAN]], [[3.0]]])
    minibatch = TASK.minibatch(table, numbers(1))
    assert minibatch.targets.tolist() == [[[1], [0]], [[3], [0]]]
    assert minibatch.target_mask.tolist() == [[True, False], [True, False]]


def test_rows_without_numbers_have_no_targets() -> None:
    minibatch = TASK.minibatch(rows("regression", values=[[[1, 2], [3, 4]], [[5, 6]]]), numbers(3))
    assert minibatch.targets.shape == (2, 2, 3)
    assert not minibatch.target_mask.any()


def test_a_forecast_is_the_series_itself_so_many_steps_ahead() -> None:
    encoding = forecast(Scaling("standardize", (1.0, 0.0), (2.0, 1.0)), 2)
    table = rows("regression", horizon=2, values=[[[1, 0], [3, 1], [5, 2], [7, 3]], [[1, 5], [1, 6], [9, 7]]])
    minibatch = TASK.minibatch(table, encoding)
    assert minibatch.inputs.tolist() == [[[0, 0], [1, 1], [2, 2], [3, 3]], [[0, 5], [0, 6], [4, 7], [0, 0]]]
    assert minibatch.targets.tolist() == [[[2, 2], [3, 3], [0, 0], [0, 0]], [[4, 7], [0, 0], [0, 0], [0, 0]]]
    assert minibatch.target_mask.tolist() == [[True, True, False, False], [True, False, False, False]]
    answers = TASK.answers(minibatch.targets.numpy()[0], encoding)["prediction"].to_pylist()
    assert answers[:2] == [[5, 2], [7, 3]]


def test_a_sequence_no_longer_than_the_horizon_has_no_target() -> None:
    table = rows("regression", horizon=5, values=[[[1, 0], [3, 1]]])
    assert not TASK.minibatch(table, forecast(Scaling.none(2), 5)).target_mask.any()


def test_a_label_beside_a_series_that_is_forecast_is_left_alone() -> None:
    table = rows("regression", horizon=1, values=[[[1, 0], [3, 1]]], label=["nonsense"])
    assert table.column_names == ["key", "values"]


def test_what_the_numbers_are_is_read_off_the_labels_type() -> None:
    triple = pa.list_(pa.float32(), 3)
    whole = TASK.encoding(TWO_NUMBERS, Survey(pa.schema({"label": triple})), Choices())
    steps = TASK.encoding(TWO_NUMBERS, Survey(pa.schema({"label": pa.list_(triple)})), Choices())
    assert (whole.num_outputs, whole.per_step) == (steps.num_outputs, False) == (3, False)
    assert steps.per_step


def test_there_must_be_numbers_to_forecast() -> None:
    symbols = Symbols(Vocabulary(("a", "b")))
    with pytest.raises(DataError, match=r"data\.horizon is 1, but these sequences hold no numbers to forecast"):
        TASK.encoding(symbols, Survey(pa.schema([])), Choices(horizon=1))


def test_squared_errors_are_added_up_over_the_numbers_that_are_there() -> None:
    outputs = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    targets = torch.tensor([[0.0, NAN], [1.0, 1.0], [100.0, 100.0]])
    loss, count = TASK.loss(outputs, segment(targets, torch.tensor([True, True, False])))
    assert loss.item() == 1 + 4 + 9
    assert count.item() == 3


def test_masked_targets_give_no_gradient_even_when_they_are_nan() -> None:
    outputs = torch.randn(2, 3, 2, requires_grad=True)
    targets = torch.randn(2, 3, 2)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    targets[~mask] = NAN
    loss, _ = TASK.loss(outputs, segment(targets, mask))
    loss.backward()
    assert outputs.grad is not None
    torch.testing.assert_close(outputs.grad[mask], 2 * (outputs - targets)[mask])
    assert outputs.grad[~mask].eq(0).all()


def test_a_regression_is_measured_by_rmse_mae_and_the_mean_r2_of_its_numbers() -> None:
    metrics = TASK.metrics(numbers(2))
    outputs = torch.tensor([[[1.0, 0.0], [2.0, 2.0], [2.0, 9.0], [9.0, 9.0]]])
    targets = torch.tensor([[[1.0, 1.0], [2.0, 3.0], [3.0, NAN], [NAN, NAN]]])
    TASK.measure(metrics, outputs, segment(targets, torch.tensor([[True, True, True, False]])), numbers(2))
    values = TASK.results(metrics)
    assert values["loss"] == pytest.approx(3 / 5)
    assert values["rmse"] == pytest.approx(math.sqrt(3 / 5))
    assert values["mae"] == pytest.approx(3 / 5)
    first, second = 1 - 1 / 2, 1 - 2 / 2
    assert values["r2"] == pytest.approx((first + second) / 2)
    assert TASK.describe_loss(0.25) == "0.2500 squared error = 0.5000 RMSE"


def test_a_forecasts_errors_are_in_the_datas_own_units() -> None:
    encoding = forecast(Scaling("standardize", (100.0,), (10.0,)), 1)
    metrics = TASK.metrics(encoding)
    targets, mask = torch.tensor([[[1.0], [2.0]]]), torch.ones(1, 2, dtype=torch.bool)
    TASK.measure(metrics, targets + 0.5, segment(targets, mask), encoding)
    values = TASK.results(metrics)
    assert (values["loss"], values["mae"]) == (pytest.approx(25), pytest.approx(5))


def test_one_number_is_answered_as_a_number_and_several_as_a_list() -> None:
    one = TASK.answers(np.array([[1.5], [2.5]], np.float32), numbers(1))
    two = TASK.answers(np.array([[1.5, 2.5]], np.float32), numbers(2))
    assert (one["prediction"].to_pylist(), two["prediction"].to_pylist()) == ([1.5, 2.5], [[1.5, 2.5]])


def test_a_forecast_must_not_see_what_it_forecasts() -> None:
    assert TASK.faults(Choices(bidirectional=True)) == []
    assert TASK.faults(Choices(horizon=2, truncate=5)) == []
    (fault,) = TASK.faults(Choices(horizon=2, bidirectional=True))
    assert "model.bidirectional must be none" in fault
