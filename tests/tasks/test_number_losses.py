"""What answers that are numbers cost: errors, quantiles, likelihoods; and what is answered then."""

import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn.functional import softplus

from rayrnn.data.encoding import Encoding, Numbers, Scaling, Survey
from rayrnn.errors import RecipeError
from rayrnn.recipe import Recipe, task_of, validate_recipe
from rayrnn.tasks import LOSSES, POINT_LOSSES, Choices
from rayrnn.tasks.number_losses import FLOOR, GRID, loss_named, pinball
from rayrnn.tasks.regression import Regression
from tests.asked import rows
from tests.tasks.segments import segment

SPREAD = LOSSES[len(POINT_LOSSES) :]
SCALED = Scaling("standardize", (100.0, -3.0), (10.0, 0.5))


def task(loss: str, *quantiles: float) -> Regression:
    return Regression().with_loss(loss, quantiles or None)


def forecast(own: Regression, scaling: Scaling = SCALED, ahead: int = 1) -> Encoding:
    """Of as many numbers as the scaling has, with as many outputs as the task's loss wants."""
    encoding = Encoding(Numbers(scaling), Numbers(scaling), True, ahead, parameters=own.parameters)
    assert encoding.num_outputs == scaling.width * own.parameters
    return encoding


def outputs_for(own: Regression, *shape: int) -> torch.Tensor:
    torch.manual_seed(3)
    return torch.randn(*shape[:-1], shape[-1] * own.parameters)


def there(targets: torch.Tensor) -> torch.Tensor:
    return torch.ones(targets.shape[:-1], dtype=torch.bool)


def test_the_pinball_loss_of_the_median_is_half_the_absolute_error() -> None:
    outputs, targets = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    absolute, count = task("absolute").loss(outputs, segment(targets, there(targets)))
    half, same = task("quantile", 0.5).loss(outputs, segment(targets, there(targets)))
    assert half.item() == pytest.approx(absolute.item() / 2, rel=1e-6)
    assert count.item() == same.item() == 30
    assert absolute.item() == pytest.approx((outputs - targets).abs().sum().item(), rel=1e-6)


def test_the_squared_error_is_what_it_was_bit_for_bit() -> None:
    outputs = torch.randn(2, 5, 3, requires_grad=True)
    targets, mask = torch.randn(2, 5, 3), torch.rand(2, 5) > 0.3
    targets[0, 0, 0] = torch.nan
    counted = mask.unsqueeze(-1) & ~targets.isnan()
    by_hand = (outputs.float() - targets).masked_fill(~counted, 0.0).square().sum()
    (due,) = torch.autograd.grad(by_hand, outputs)
    loss, _ = Regression().loss(outputs, segment(targets, mask))
    (gradient,) = torch.autograd.grad(loss, outputs)
    assert loss.item() == by_hand.item()
    assert torch.equal(gradient, due)


def test_what_lies_above_a_high_quantile_costs_more_than_what_lies_below() -> None:
    quantiles, levels = torch.tensor([[[1.0, 1.0]]]), (0.1, 0.9)
    assert pinball(quantiles, torch.tensor([[3.0]]), levels).flatten().tolist() == pytest.approx([0.2, 1.8])
    assert pinball(quantiles, torch.tensor([[0.0]]), levels).flatten().tolist() == pytest.approx([0.9, 0.1])


def test_the_loss_of_a_normal_distribution_is_torchs() -> None:
    outputs, targets = torch.randn(4, 6, 2), torch.randn(4, 6, 1)
    loss, _ = task("normal").loss(outputs, segment(targets, there(targets)))
    scale = softplus(outputs[..., 1]) + FLOOR
    due = torch.nn.functional.gaussian_nll_loss(outputs[..., 0], targets[..., 0], scale**2, full=True, reduction="sum")
    assert loss.item() == pytest.approx(due.item(), rel=1e-5)


def test_a_student_with_many_degrees_of_freedom_is_a_normal_distribution() -> None:
    outputs, targets = torch.randn(4, 6, 2), torch.randn(4, 6, 1)
    normal, _ = task("normal").loss(outputs, segment(targets, there(targets)))
    heavy = torch.cat([outputs, torch.full((4, 6, 1), 1e7)], dim=-1)
    student, _ = task("student_t").loss(heavy, segment(targets, there(targets)))
    assert student.item() == pytest.approx(normal.item(), rel=1e-3)


def test_a_negative_binomial_of_many_failures_counts_like_poisson() -> None:
    log_mean, targets = torch.rand(3, 4, 1) * 2, torch.randint(0, 9, (3, 4, 1)).float()
    outputs = torch.cat([log_mean, torch.full((3, 4, 1), 1e6)], dim=-1)
    loss, _ = task("negative_binomial").loss(outputs, segment(targets, there(targets)))
    due = -torch.distributions.Poisson(log_mean.exp()).log_prob(targets).sum()
    assert loss.item() == pytest.approx(due.item(), rel=1e-4)


@pytest.mark.parametrize("name", SPREAD)
def test_what_is_masked_gives_no_gradient_and_far_numbers_give_a_finite_one(name: str) -> None:
    own = task(name)
    outputs = (100 * outputs_for(own, 2, 4, 2)).requires_grad_()
    targets, mask = torch.randint(0, 1000, (2, 4, 2)).float(), torch.tensor([[True] * 3 + [False]] * 2)
    targets[~mask] = torch.nan
    targets[0, 0, 1] = torch.nan
    loss, count = own.loss(outputs, segment(targets, mask))
    loss.backward()
    assert outputs.grad is not None
    assert loss.isfinite()
    assert count.item() == 11
    assert outputs.grad.isfinite().all()
    assert outputs.grad[~mask].eq(0).all()
    assert outputs.grad[mask].ne(0).any()


@pytest.mark.parametrize("name", SPREAD)
def test_quantiles_never_cross_and_half_of_what_was_drawn_lies_below_the_median(name: str) -> None:
    own, loss = task(name, 0.1, 0.5, 0.9), loss_named(name, (0.1, 0.5, 0.9))
    outputs = outputs_for(own, 50, 1)
    answers = loss.quantiles(outputs.reshape(50, 1, -1), (0.1, 0.5, 0.9))
    assert (answers.diff(dim=-1) >= 0).all()
    if name == "quantile":
        assert torch.equal(answers[:, 0], outputs.sort(-1).values)
        return
    torch.manual_seed(0)
    drawn = loss.samples(outputs.reshape(50, 1, -1).expand(4000, 50, 1, -1))  # type: ignore[attr-defined]
    below, to_it = (drawn[..., None] < answers).float().mean(0), (drawn[..., None] <= answers).float().mean(0)
    levels = torch.tensor([0.1, 0.5, 0.9])
    assert (below <= levels + 0.04).all()
    assert (to_it >= levels - 0.04).all()
    # of few and far draws the mean is not much like the distribution's
    mean = loss.points(outputs.reshape(50, 1, -1)).median().item()
    assert drawn.mean(0).median().item() == pytest.approx(mean, abs=0.3)


def test_the_number_beside_quantiles_is_the_median_that_they_surround() -> None:
    outputs = torch.tensor([[[4.0, 1.0, 3.0]]])
    assert loss_named("quantile", (0.1, 0.5, 0.9)).points(outputs).item() == 3
    assert loss_named("quantile", (0.1, 0.2, 0.8)).points(outputs).item() == 3.5
    assert loss_named("quantile", (0.7, 0.8, 0.9)).points(outputs).item() == 1


def test_answers_are_in_the_datas_own_units_with_a_column_a_quantile() -> None:
    own = task("quantile", 0.25, 0.5)
    columns = own.answers(np.array([[0.0, 1.0, 2.0, -2.0]], np.float32), forecast(own))
    assert {name: column.to_pylist() for name, column in columns.items()} == {
        "prediction": [[110.0, -2.0]],
        "prediction_q0.25": [[100.0, -4.0]],
        "prediction_q0.5": [[110.0, -2.0]],
    }
    alone = forecast(own, Scaling.none(1))
    assert own.answers(np.array([[2.0, 1.0]], np.float32), alone)["prediction_q0.25"].to_pylist() == [1.0]
    assert list(task("absolute").answers(np.zeros((1, 1), np.float32), alone)) == ["prediction"]


def test_a_distribution_answers_its_mean_and_the_usual_quantiles() -> None:
    own = task("normal")
    columns = own.answers(np.array([[1.0, 0.5]], np.float32), forecast(own, Scaling("standardize", (5.0,), (2.0,))))
    assert list(columns) == ["prediction", "prediction_q0.1", "prediction_q0.5", "prediction_q0.9"]
    assert columns["prediction"].to_pylist() == [pytest.approx(7)]
    spread = 2 * (math.log1p(math.exp(0.5)) + FLOOR)
    assert columns["prediction_q0.9"].to_pylist() == [pytest.approx(7 + 1.2815516 * spread, rel=1e-5)]


def test_the_share_of_a_known_distribution_inside_its_interval_is_the_intervals() -> None:
    own = task("normal", 0.1, 0.9)
    encoding, (raw,) = forecast(own, Scaling("standardize", (7.0,), (3.0,))), torch.tensor([math.log(math.e - 1)])
    outputs = torch.stack([torch.zeros(1, 20_000), raw.expand(1, 20_000)], dim=-1)
    torch.manual_seed(1)
    metrics, targets = own.metrics(encoding), torch.randn(1, 20_000, 1)
    own.measure(metrics, outputs, segment(targets, there(targets)), encoding)
    found = own.results(metrics)
    assert found["coverage"] == pytest.approx(0.8, abs=0.01)
    # the entropy of a normal distribution of this scale, in the data's own units
    assert found["loss"] == pytest.approx(0.5 * math.log(2 * math.pi * math.e) + math.log(3), abs=0.02)


@pytest.mark.parametrize(("name", "factor"), [("absolute", 10), ("squared", 100), ("quantile", 10)])
def test_an_error_is_measured_in_the_datas_own_units(name: str, factor: float) -> None:
    own = task(name)
    scaling = Scaling("standardize", (100.0,), (10.0,))
    targets = torch.tensor([[[1.0], [2.0]]])
    outputs = (targets + 0.5).repeat(1, 1, own.parameters)
    learned, count = own.loss(outputs, segment(targets, there(targets)))
    metrics = own.metrics(forecast(own, scaling))
    own.measure(metrics, outputs, segment(targets, there(targets)), forecast(own, scaling))
    assert own.results(metrics)["loss"] == pytest.approx(factor * (learned / count).item(), rel=1e-6)
    assert own.results(metrics)["mae"] == pytest.approx(5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_says_what_it_is(name: str) -> None:
    said = task(name).describe_loss(0.25)
    assert said.startswith("0.2500 ")
    words = {"squared": "RMSE", "absolute": "absolute error", "quantile": "pinball loss"}
    assert words.get(name, "nats a ") in said
    assert task(name).unit


def test_counts_are_learned_as_they_are_though_the_inputs_are_scaled() -> None:
    own = task("negative_binomial")
    scaling = Scaling("standardize", (37.3,), (11.7,))
    encoding = forecast(own, scaling)
    table = rows("regression", horizon=1, values=[[[0], [3], [123_456]], [[5], [6]]])
    minibatch = own.minibatch(table, encoding)
    assert minibatch.targets[minibatch.target_mask].flatten().tolist() == [3, 123_456, 6]
    assert minibatch.inputs[0, 0, 0].item() == pytest.approx(-37.3 / 11.7)
    answers = own.answers(np.array([[math.log(12), 5.0]], np.float32), encoding)
    assert answers["prediction"].to_pylist() == [pytest.approx(12, rel=1e-5)]
    assert own.faults_of(table, encoding) == []


@pytest.mark.parametrize(("number", "said"), [(-1, "-1"), (2.5, "2.5")])
def test_what_is_no_count_is_refused_with_its_sequence_and_never_learned(number: float, said: str) -> None:
    own = task("negative_binomial")
    encoding = forecast(own, Scaling.none(1))
    table = rows("regression", horizon=1, values=[[[1], [2]], [[4], [number], [3]]])
    (fault,) = own.faults_of(table, encoding)
    assert fault.startswith(f"sequence 'row 1' is to answer {said}, and training.loss negative_binomial is for counts")
    loss, count = own.loss(torch.zeros(2, 3, 2), own.minibatch(table, encoding))
    assert count.item() == 2
    assert loss.isfinite()


def test_numbers_of_labels_are_counts_too() -> None:
    own = task("negative_binomial")
    table = rows("regression", values=[[[1.0], [2.0]]], label=[[7.0]])
    encoding = own.encoding(
        Numbers(Scaling.none(1)), Survey(pa.schema({"label": pa.list_(pa.float32(), 1)})), Choices()
    )
    assert (encoding.num_outputs, encoding.parameters) == (2, 2)
    assert own.minibatch(table, encoding).targets.tolist() == [[7.0]]


def test_the_levels_of_a_distribution_are_even() -> None:
    assert np.allclose(np.diff((0 - 0.01, *GRID, 1.01)), 0.02)


def recipe(**training: object) -> Recipe:
    data = {"source": "csv", "path": "x", "horizon": 1}
    return validate_recipe({"name": "x", "task": "regression", "data": data, "training": training})


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"loss": "gauss"}, "training.loss"),
        ({"loss": "quantile", "quantiles": [0.5, 0.1]}, "quantiles ascend"),
        ({"loss": "quantile", "quantiles": [0.5, 0.5]}, "quantiles ascend"),
        ({"loss": "quantile", "quantiles": []}, "at least 1"),
        ({"loss": "quantile", "quantiles": [0.0, 0.5]}, "greater than 0"),
        ({"loss": "quantile", "quantiles": [0.5, 1.0]}, "less than 1"),
        ({"quantiles": [0.1, 0.9]}, "training.quantiles are those of training.loss quantile, normal"),
        ({"loss": "absolute", "quantiles": [0.1, 0.9]}, "it is absolute, whose answers have no spread"),
    ],
)
def test_a_loss_that_cannot_be_is_refused(training: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        recipe(**training)


def test_a_loss_of_numbers_is_for_numbers() -> None:
    values = {"name": "x", "data": {"text": "abc"}, "training": {"loss": "normal"}}
    with pytest.raises(RecipeError, match=r"training\.loss normal is for numbers \(regression\); the task is language"):
        validate_recipe(values)


def test_the_recipes_task_has_the_recipes_loss() -> None:
    own = task_of(recipe(loss="quantile", quantiles=[0.2, 0.8]))
    assert isinstance(own, Regression)
    assert (own.parameters, own.levels, own.unit) == (2, (0.2, 0.8), "(mean pinball loss)")
    assert task_of(recipe()).unit == "(mean squared error)"
