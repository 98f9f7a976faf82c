"""Regression: one number or several, for a sequence or at every step; or the series itself some steps ahead.

B batch, T time, F features, O numbers of an answer.
"""

import math
from collections.abc import Mapping
from typing import cast

import numpy as np
import pyarrow as pa
import torch
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, R2Score

from rayrnn.anomalies.scores import absolute_errors
from rayrnn.data.arrow_lists import depth
from rayrnn.data.batches import Minibatch, inputs_of, label_targets
from rayrnn.data.beside_steps import roles_of
from rayrnn.data.encoding import Encoding, Numbers, Scaling, Survey
from rayrnn.data.forecast import Forecast
from rayrnn.data.rows import Label, Needs
from rayrnn.data.symbols import Symbols
from rayrnn.errors import DataError
from rayrnn.tasks import Choices
from rayrnn.tasks.losses import counted_numbers, squared_errors
from rayrnn.tasks.metrics import Metrics, Results, on_cpu


class Regression:
    """Numbers that stand beside the sequence are learned as they are, forecasts scaled as their inputs are."""

    generates = False
    holds_out_last = False
    right_or_wrong = False
    weighs = True
    unit = "(mean squared error)"

    def faults(self, choices: Choices) -> list[str]:
        if choices.horizon and choices.bidirectional:
            return ["model.bidirectional must be none with data.horizon: a forecast must not see what it forecasts"]
        return []

    def needs(self, choices: Choices) -> Needs:
        if choices.horizon:
            return Needs("regression", ahead=choices.horizon, forecasts=True)
        return Needs("regression", Label.NUMBERS)

    def encoding(self, inputs: Symbols | Numbers, found: Survey, choices: Choices) -> Encoding:
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
        return squared_errors(outputs, segment.targets, segment.target_mask, segment.weights)

    def describe_loss(self, loss: float) -> str:
        return f"{loss:.4f} squared error = {math.sqrt(loss):.4f} RMSE"

    def metrics(self, encoding: Encoding) -> Metrics:
        scores: dict[str, Metric] = {
            "rmse": MeanSquaredError(squared=False),
            "mae": MeanAbsoluteError(),
            **{f"r2 {number}": R2Score() for number in range(encoding.num_outputs)},
        }
        return Metrics({name: score.set_dtype(torch.float64) for name, score in scores.items()})

    def measure(self, metrics: Metrics, outputs: torch.Tensor, segment: Minibatch, encoding: Encoding) -> None:
        """Count the errors in the data's own units."""
        outputs, segment = on_cpu(outputs, segment)
        outputs, targets = _in_own_units(outputs, encoding), _in_own_units(segment.targets, encoding)
        metrics.add_loss(*squared_errors(outputs, targets, segment.target_mask))
        counted = counted_numbers(targets, segment.target_mask)
        if counted.any():
            _count_errors(metrics, outputs.double(), targets.double(), counted)

    def results(self, metrics: Metrics) -> Results:
        """`loss` is the mean squared error, `r2` the mean over the answer's numbers; NaN where one was seen once."""
        r2 = [score for name, score in metrics.scores.items() if name.startswith("r2")]
        values = [float(score.compute()) if cast(torch.Tensor, score.total) >= 2 else math.nan for score in r2]
        return {
            "loss": metrics.loss,
            "rmse": metrics.value("rmse"),
            "mae": metrics.value("mae"),
            "r2": math.fsum(values) / len(values),
        }

    def higher_is_better(self) -> Mapping[str, bool]:
        return {"rmse": False, "mae": False, "r2": True}

    def answers(self, outputs: np.ndarray, encoding: Encoding) -> dict[str, pa.Array]:
        assert isinstance(encoding.targets, Numbers)
        return encoding.targets.answers(outputs)

    def scores(self, choices: Choices) -> tuple[str, ...]:
        return ("error",) if choices.horizon else ()

    def score(self, kind: str, outputs: torch.Tensor, segment: Minibatch) -> np.ndarray:
        """The error of every number of a forecast, in the units in which it was learned."""
        assert kind == "error", kind
        outputs, segment = on_cpu(outputs, segment)
        return absolute_errors(outputs.float().numpy(), segment.targets.numpy())


def _in_own_units(numbers: torch.Tensor, encoding: Encoding) -> torch.Tensor:
    assert isinstance(encoding.targets, Numbers)
    return torch.from_numpy(encoding.targets.in_own_units(numbers.numpy()))


def _count_errors(metrics: Metrics, outputs: torch.Tensor, targets: torch.Tensor, counted: torch.Tensor) -> None:
    for name in ("rmse", "mae"):
        metrics.scores[name].update(outputs[counted], targets[counted])
    for number in range(outputs.shape[-1]):
        seen = counted[..., number]
        metrics.scores[f"r2 {number}"].update(outputs[..., number][seen], targets[..., number][seen])
