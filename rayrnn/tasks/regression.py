"""Regression: one number or several, for a sequence or at every step; or the series itself some steps ahead.

B batch, T time, F features, O numbers of an answer, P outputs of the network for each, V = O x P.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from torchmetrics import MeanAbsoluteError, MeanMetric, MeanSquaredError, Metric, R2Score

from rayrnn.anomalies.scores import absolute_errors
from rayrnn.data.arrow_lists import depth
from rayrnn.data.batches import Minibatch, inputs_of, label_targets
from rayrnn.data.beside_steps import roles_of
from rayrnn.data.encoding import Classes, Encoding, Numbers, Scaling, Survey
from rayrnn.data.forecast import Forecast
from rayrnn.data.rows import Label, Needs
from rayrnn.data.symbols import Symbols
from rayrnn.errors import DataError
from rayrnn.tasks import Choices
from rayrnn.tasks.losses import counted_numbers, numbers_added_up
from rayrnn.tasks.metrics import Metrics, Results, on_cpu
from rayrnn.tasks.number_losses import SQUARED, Chances, Likelihood, NumberLoss, check_loss, loss_named


class Regression:
    """Numbers that stand beside the sequence are learned as they are, forecasts scaled as their inputs are."""

    generates = False
    holds_out_last = False
    right_or_wrong = False
    weighs = True

    def __init__(self, loss: NumberLoss = SQUARED) -> None:
        self._loss = loss
        self.loss_name = loss.name
        self.unit = loss.unit
        self.parameters, self.levels, self.grid = loss.parameters, loss.levels, loss.grid
        self.draws = isinstance(loss, Likelihood)

    def with_loss(self, name: str, quantiles: tuple[float, ...] | None) -> "Regression":
        loss = loss_named(name, quantiles)
        kind = Counting if loss.counts else Judging if isinstance(loss, Chances) else Regression
        return kind(loss)

    def meaning(self) -> dict[str, Any]:
        return self._loss.meaning()

    def faults(self, choices: Choices) -> list[str]:
        if choices.horizon and choices.bidirectional:
            return ["model.bidirectional must be none with data.horizon: a forecast must not see what it forecasts"]
        return []

    def needs(self, choices: Choices) -> Needs:
        if choices.horizon:
            return Needs("regression", ahead=choices.horizon, forecasts=True)
        return Needs("regression", Label.NUMBERS)

    def encoding(self, inputs: Symbols | Numbers, found: Survey, choices: Choices) -> Encoding:
        check_loss(self._loss.name)
        return replace(self._encoding(inputs, found, choices), parameters=self.parameters)

    def _encoding(self, inputs: Symbols | Numbers, found: Survey, choices: Choices) -> Encoding:
        if not choices.horizon:
            kind = found.schema.field("label").type
            per_step = depth(kind) == 2
            width = (kind.value_type if per_step else kind).list_size
            return Encoding(inputs, Numbers(Scaling.none(width)), per_step)
        if not isinstance(inputs, Numbers) or not inputs.scaling.width:
            raise DataError(f"data.horizon is {choices.horizon}, but these sequences hold no numbers to forecast")
        roles, width = roles_of(found.schema), inputs.scaling.width
        forecast = Forecast(choices.horizons or (choices.horizon,), roles.forecast or tuple(range(width)), roles.known)
        targets, more = inputs.forecast(forecast), None if forecast.is_plain(width) else forecast
        return Encoding(inputs, targets, per_step=True, ahead=forecast.nearest, forecast=more)

    def minibatch(self, rows: pa.Table, encoding: Encoding) -> Minibatch:
        inputs, forecast = inputs_of(rows, encoding), encoding.foretold
        targets = label_targets(rows, encoding) if forecast is None else forecast.targets(*inputs)
        return Minibatch.of(rows, inputs, targets, per_step=encoding.per_step)

    def call(self, network: torch.nn.Module, segment: Minibatch, state: object) -> tuple[torch.Tensor, object]:
        numbers, state = network(segment.inputs, state, segment.mask)
        return numbers, state

    def loss(self, outputs: torch.Tensor, segment: Minibatch) -> tuple[torch.Tensor, torch.Tensor]:
        return numbers_added_up(
            self._loss.losses, self._split(outputs), segment.targets, segment.target_mask, segment.weights
        )

    def describe_loss(self, loss: float) -> str:
        return self._loss.describe(loss)

    def metrics(self, encoding: Encoding) -> Metrics:
        scores: dict[str, Metric] = {
            "rmse": MeanSquaredError(squared=False),
            "mae": MeanAbsoluteError(),
            **{f"r2 {number}": R2Score() for number in range(encoding.targets.size)},
            **({"coverage": MeanMetric()} if len(self.levels) > 1 else {}),
        }
        return Metrics({name: score.set_dtype(torch.float64) for name, score in scores.items()})

    def measure(self, metrics: Metrics, outputs: torch.Tensor, segment: Minibatch, encoding: Encoding) -> None:
        """Count the errors in the data's own units."""
        outputs, segment = on_cpu(outputs, segment)
        scale_O = torch.tensor(_scaling_of(encoding).scale, dtype=torch.float64)

        def losses(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return self._loss.rescaled(self._loss.losses(outputs, targets).double(), scale_O)

        metrics.add_loss(*numbers_added_up(losses, self._split(outputs), segment.targets, segment.target_mask))
        answers, truths = (torch.from_numpy(numbers) for numbers in self.numbers(outputs, segment.targets, encoding))
        counted = counted_numbers(segment.targets, segment.target_mask)
        if counted.any():
            _count_errors(metrics, answers, truths, counted)
            if len(self.levels) > 1:
                low, high = self._loss.quantiles(self._split(outputs), (self.levels[0], self.levels[-1])).unbind(-1)
                inside = (low <= segment.targets) & (segment.targets <= high)
                metrics.scores["coverage"].update(inside[counted].double())

    def results(self, metrics: Metrics) -> Results:
        """`loss` is the mean squared error, `r2` the mean over the answer's numbers; NaN where one was seen once."""
        r2 = [score for name, score in metrics.scores.items() if name.startswith("r2")]
        values = [float(score.compute()) if cast(torch.Tensor, score.total) >= 2 else math.nan for score in r2]
        found: Results = {
            "loss": metrics.loss,
            "rmse": metrics.value("rmse"),
            "mae": metrics.value("mae"),
            "r2": math.fsum(values) / len(values),
        }
        return found | ({"coverage": metrics.value("coverage")} if "coverage" in metrics.scores else {})

    def higher_is_better(self) -> Mapping[str, bool]:
        return {"rmse": False, "mae": False, "r2": True}

    def answers(self, outputs: np.ndarray, encoding: Encoding) -> dict[str, pa.Array]:
        """The number itself, and beside it the quantiles where the loss knows them: `prediction_q0.1` ..."""
        assert isinstance(encoding.targets, Numbers)
        targets, split = self._as_learned(encoding.targets), self._split(torch.from_numpy(outputs))
        columns = targets.answers(self._loss.points(split).numpy())
        quantiles = self._loss.quantiles(split, self.levels).unbind(-1)
        for level, numbers in zip(self.levels, quantiles, strict=True):
            columns |= {f"{name}_q{level:g}": items for name, items in targets.answers(numbers.numpy()).items()}
        return columns

    def numbers(
        self, outputs: torch.Tensor, targets: torch.Tensor, encoding: Encoding
    ) -> tuple[np.ndarray, np.ndarray]:
        own = self._as_learned(encoding.targets)
        points = self._loss.points(self._split(outputs))
        answers, truths = (own.in_own_units(learned.float().numpy()) for learned in (points, targets))
        return answers.astype(np.float64), truths.astype(np.float64)

    def quantiles(self, outputs: torch.Tensor, levels: Sequence[float], encoding: Encoding) -> np.ndarray:
        found = self._loss.quantiles(self._split(outputs), levels).movedim(-1, 0)
        return self._as_learned(encoding.targets).in_own_units(found.numpy()).astype(np.float64)

    def draw(self, outputs: torch.Tensor, encoding: Encoding) -> np.ndarray:
        assert isinstance(self._loss, Likelihood), "only distributions can be drawn from"
        drawn = self._loss.samples(self._split(outputs)).numpy()
        return self._as_learned(encoding.targets).in_own_units(drawn).astype(np.float64)

    def as_answers(self, numbers: np.ndarray, encoding: Encoding) -> pa.Array:
        assert isinstance(encoding.targets, Numbers)
        return replace(encoding.targets, scaling=Scaling.none(encoding.targets.size)).answers(numbers)["prediction"]

    def _split(self, outputs: torch.Tensor) -> torch.Tensor:
        """[..., V] -> [..., O, P]: the outputs for a number stand together."""
        return outputs.reshape(*outputs.shape[:-1], outputs.shape[-1] // self.parameters, self.parameters)

    def _as_learned(self, targets: Numbers | Symbols | Classes) -> Numbers:
        """The numbers as the network answers them: counts are never scaled."""
        assert isinstance(targets, Numbers)
        return replace(targets, scaling=Scaling.none(targets.scaling.width)) if self._loss.counts else targets

    def scores(self, choices: Choices) -> tuple[str, ...]:
        return ("error",) if choices.horizon else ()

    def score(self, kind: str, outputs: torch.Tensor, segment: Minibatch) -> np.ndarray:
        """The error of every number of a forecast, in the units in which it was learned."""
        assert kind == "error", kind
        outputs, segment = on_cpu(outputs, segment)
        return absolute_errors(self._loss.points(self._split(outputs)).float().numpy(), segment.targets.numpy())


class Counting(Regression):
    """Counts of something: whole numbers, learned as they are, also where the inputs are scaled."""

    def minibatch(self, rows: pa.Table, encoding: Encoding) -> Minibatch:
        """What is no count is no target."""
        scaled = super().minibatch(rows, encoding)
        numbers, are_counts = _rounded(scaled.targets, encoding)
        return replace(scaled, targets=numbers.masked_fill(~are_counts, torch.nan))

    def faults_of(self, rows: pa.Table, encoding: Encoding) -> list[str]:
        faults = []
        for row in range(len(rows)):
            scaled = super().minibatch(rows.slice(row, 1), encoding)
            wrong = ~_rounded(scaled.targets, encoding)[1] & counted_numbers(scaled.targets, scaled.target_mask)
            if wrong.any():
                number = _scaling_of(encoding).undo(scaled.targets.double().numpy())[wrong.numpy()][0]
                faults.append(
                    f"sequence {scaled.keys[0]!r} is to answer {number:g}, and training.loss {self._loss.name} is for "
                    "counts, whole numbers from 0 on: give counts, or take another training.loss, such as student_t"
                )
        return faults


class Judging(Regression):
    """Whether something is so: 0 or 1, or a share between."""

    def faults_of(self, rows: pa.Table, encoding: Encoding) -> list[str]:
        faults = []
        for row in range(len(rows)):
            own = self.minibatch(rows.slice(row, 1), encoding)
            counted = counted_numbers(own.targets, own.target_mask)
            wrong = counted & ((own.targets < 0) | (own.targets > 1))
            if wrong.any():
                faults.append(
                    f"sequence {own.keys[0]!r} is to answer {float(own.targets[wrong][0]):g}, and training.loss "
                    f"{self._loss.name} is for numbers from 0 to 1: give such, or take another training.loss"
                )
        return faults


def _rounded(scaled: torch.Tensor, encoding: Encoding) -> tuple[torch.Tensor, torch.Tensor]:
    """The whole numbers next to targets in their own units, which float32 may have rounded; and which are counts."""
    own = _scaling_of(encoding).undo(scaled.double().numpy())
    whole = np.round(own)
    are_counts = (whole >= 0) & (np.abs(own - whole) <= 1e-3 + 1e-6 * np.abs(own))
    return torch.from_numpy(whole.astype(np.float32)), torch.from_numpy(are_counts)


def _scaling_of(encoding: Encoding) -> Scaling:
    assert isinstance(encoding.targets, Numbers)
    return encoding.targets.scaling


def _count_errors(metrics: Metrics, outputs: torch.Tensor, targets: torch.Tensor, counted: torch.Tensor) -> None:
    for name in ("rmse", "mae"):
        metrics.scores[name].update(outputs[counted], targets[counted])
    for number in range(outputs.shape[-1]):
        seen = counted[..., number]
        metrics.scores[f"r2 {number}"].update(outputs[..., number][seen], targets[..., number][seen])
