"""How good the answers to a task are, added up over any number of minibatches and workers.

Shapes: B batch, T time, V symbols or classes, O numbers of a regression's answer, N targets that count.
"""

import copy
import math
from collections.abc import Iterable
from typing import cast

import torch
from torchmetrics import MeanAbsoluteError, MeanMetric, MeanSquaredError, Metric, R2Score
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

from rayrnn.errors import DataError
from rayrnn.tasks.losses import counted_numbers, loss_sum


class Metrics:
    """The sums behind a task's metrics; they are plain values, so workers may send them to be merged."""

    def __init__(self, task: str, num_outputs: int) -> None:
        self.task = task
        self._loss = _alone(MeanMetric().set_dtype(torch.float64))
        self._scores = {name: _alone(score) for name, score in _scores(task, num_outputs).items()}

    def update(self, outputs: torch.Tensor, targets: torch.Tensor, target_mask: torch.Tensor) -> None:
        """Count one minibatch; shapes as in `loss_sum`."""
        outputs, targets, target_mask = outputs.detach().cpu(), targets.cpu(), target_mask.cpu()
        loss, num_targets = loss_sum(self.task, outputs, targets, target_mask)
        if not num_targets:
            return
        self._loss.update(loss.double() / num_targets, weight=num_targets)
        if self.task == "regression":
            self._update_regression(outputs, targets, counted_numbers(targets, target_mask))
        else:
            answers_N = outputs[target_mask].argmax(-1)
            for score in self._scores.values():
                score.update(answers_N, targets[target_mask])

    @property
    def num_targets(self) -> int:
        """How many targets (a regression: numbers) were counted."""
        return int(cast(torch.Tensor, self._loss.weight))

    def merge(self, others: Iterable["Metrics"]) -> None:
        """Add what other workers counted for the same task."""
        for other in others:
            if not self.num_targets:
                self._loss, self._scores = copy.deepcopy((other._loss, other._scores))
            elif other.num_targets:
                self._loss.merge_state(other._loss)
                for name, score in self._scores.items():
                    score.merge_state(other._scores[name])

    def compute(self) -> dict[str, float | list[list[int]]]:
        """The metrics of everything counted.

        Returns:
            language_model: loss (nats a symbol), perplexity, bits_per_symbol, accuracy.
            classification and tagging: loss, accuracy, macro_f1 (over the classes seen), confusion_matrix (row: the
            true class, column: the answer).
            regression: loss (the mean squared error), rmse, mae, r2 (the mean over the answer's numbers; NaN where
            one of them was seen less than twice).

        Raises:
            DataError: nothing was counted.
        """
        if not self.num_targets:
            raise DataError("there is nothing to measure: no sequence here has a target; give sequences with labels")
        loss = float(self._loss.compute())
        if self.task == "language_model":
            return {
                "loss": loss,
                "perplexity": math.exp(min(loss, 700.0)),
                "bits_per_symbol": loss / math.log(2),
                "accuracy": float(self._scores["accuracy"].compute()),
            }
        if self.task == "regression":
            return {"loss": loss, **self._regression()}
        return {
            "loss": loss,
            "accuracy": float(self._scores["accuracy"].compute()),
            "macro_f1": float(self._scores["macro_f1"].compute()),
            "confusion_matrix": self._scores["confusion_matrix"].compute().tolist(),
        }

    def _update_regression(self, outputs: torch.Tensor, targets: torch.Tensor, counted: torch.Tensor) -> None:
        outputs, targets = outputs.double(), targets.double()
        for name in ("rmse", "mae"):
            self._scores[name].update(outputs[counted], targets[counted])
        for number in range(outputs.shape[-1]):
            seen = counted[..., number]
            self._scores[f"r2 {number}"].update(outputs[..., number][seen], targets[..., number][seen])

    def _regression(self) -> dict[str, float]:
        r2 = [score for name, score in self._scores.items() if name.startswith("r2")]
        values = [float(score.compute()) if cast(torch.Tensor, score.total) >= 2 else math.nan for score in r2]
        return {
            "rmse": float(self._scores["rmse"].compute()),
            "mae": float(self._scores["mae"].compute()),
            "r2": math.fsum(values) / len(values),
        }


def metrics_for(task: str, num_outputs: int) -> Metrics:
    """Fresh metrics of the task (`language_model`, `classification`, `tagging` or `regression`)."""
    return Metrics(task, num_outputs)


def _scores(task: str, num_outputs: int) -> dict[str, Metric]:
    if task == "regression":
        scores: dict[str, Metric] = {
            "rmse": MeanSquaredError(squared=False),
            "mae": MeanAbsoluteError(),
            **{f"r2 {number}": R2Score() for number in range(num_outputs)},
        }
        return {name: score.set_dtype(torch.float64) for name, score in scores.items()}
    accuracy = MulticlassAccuracy(num_outputs, average="micro", validate_args=False)
    if task == "language_model":
        return {"accuracy": accuracy}
    return {
        "accuracy": accuracy,
        "macro_f1": MulticlassF1Score(num_outputs, average="macro", validate_args=False),
        "confusion_matrix": MulticlassConfusionMatrix(num_outputs, validate_args=False),
    }


def _alone(metric: Metric) -> Metric:
    """No exchange behind our back: a worker without held-out sequences would hang the others. No stale value either."""
    metric.sync_on_compute = False
    metric.compute_with_cache = False
    return metric
