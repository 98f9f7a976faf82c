"""How good answers are: sums over any number of minibatches and workers, and what tasks of classes make of them.

B batch, T time, V symbols or classes, N targets that count.
"""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import cast

import torch
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

from rayrnn.data.batches import Minibatch
from rayrnn.errors import DataError

#: name -> a number, or a confusion matrix (row: the true class, column: the answer)
Results = dict[str, float | list[list[int]]]


class Metrics:
    """The mean loss and further scores by name; they are plain values, so workers may send them to be merged."""

    def __init__(self, scores: Mapping[str, Metric]) -> None:
        self._loss = _alone(MeanMetric().set_dtype(torch.float64))
        #: targets in minibatches whose loss is NaN, which MeanMetric leaves out
        self._num_broken = 0
        #: scores that have counted something elsewhere; see `add_sums`
        self._added: set[str] = set()
        self.scores = {name: _alone(score) for name, score in scores.items()}

    @property
    def num_targets(self) -> int:
        """How many targets were counted."""
        return int(cast(torch.Tensor, self._loss.weight)) + self._num_broken

    @property
    def loss(self) -> float:
        """The mean loss a target; NaN where that of one minibatch is.

        Raises:
            DataError: nothing was counted.
        """
        if not self.num_targets:
            raise DataError("there is nothing to measure: no sequence here has a target; give sequences with labels")
        return math.nan if self._num_broken else float(self._loss.compute())

    def add_loss(self, loss_sum: torch.Tensor, num_targets: torch.Tensor) -> None:
        """Count the losses of some targets."""
        if loss_sum.isnan():
            self._num_broken += int(num_targets)
        elif num_targets:
            self._loss.update(loss_sum.double() / num_targets, weight=num_targets)

    def value(self, name: str) -> float:
        """What a score says; NaN where it has counted nothing."""
        score = self.scores[name]
        return float(score.compute()) if score.update_called or name in self._added else math.nan

    def merge(self, others: Iterable["Metrics"]) -> None:
        """Add what other workers counted for the same task."""
        for other in others:
            if not self.num_targets:
                self._loss, self._num_broken, self.scores = copy.deepcopy(
                    (other._loss, other._num_broken, other.scores)
                )
            elif other.num_targets:
                self._loss.merge_state(other._loss)
                self._num_broken += other._num_broken
                for name, score in self.scores.items():
                    score.merge_state(other.scores[name])

    def sums(self, *, rows: int, width: int) -> torch.Tensor:
        """All that was counted as plain float64 numbers, as many as from any other worker that says the same.

        Args:
            rows: sequences that any worker has counted, at most.
            width: numbers of one answer, for scores that keep every answer.
        """
        numbers = [torch.tensor([self._num_broken], dtype=torch.float64)]
        for score in (self._loss, *self.scores.values()):
            numbers.append(torch.tensor([score.update_called], dtype=torch.float64))
            numbers += [_numbers(state, rows, width) for state in score.metric_state.values()]
        return torch.cat(numbers)

    def add_sums(self, sums: torch.Tensor, *, rows: int, width: int) -> None:
        """Add what `sums` of another worker gave, in place."""
        self._num_broken += int(sums[0])
        left = sums[1:]
        for name, score in (("", self._loss), *self.scores.items()):
            if left[0]:
                self._added.add(name)
            left, state = _state(left[1:], score, rows, width)
            score.merge_state(state)


def _numbers(state: torch.Tensor | list[torch.Tensor], rows: int, width: int) -> torch.Tensor:
    if isinstance(state, torch.Tensor):
        return state.detach().double().flatten()
    padded_NV = torch.zeros(rows, width, dtype=torch.float64)
    kept = torch.cat(state) if state else padded_NV[:0]
    padded_NV[: len(kept)] = kept
    return torch.cat([torch.tensor([len(kept)], dtype=torch.float64), padded_NV.flatten()])


def _state(
    numbers: torch.Tensor, score: Metric, rows: int, width: int
) -> tuple[torch.Tensor, dict[str, torch.Tensor | list[torch.Tensor]]]:
    """The state of a score that `numbers` begin with, and the numbers behind it."""
    found: dict[str, torch.Tensor | list[torch.Tensor]] = {}
    for name, own in score.metric_state.items():
        if isinstance(own, torch.Tensor):
            found[name] = numbers[: own.numel()].reshape(own.shape).to(own.dtype)
            numbers = numbers[own.numel() :]
        else:
            kept_NV = numbers[1 : 1 + rows * width].reshape(rows, width)[: int(numbers[0])]
            found[name] = [kept_NV] if len(kept_NV) else []
            numbers = numbers[1 + rows * width :]
    return numbers, found


def on_cpu(outputs: torch.Tensor, segment: Minibatch) -> tuple[torch.Tensor, Minibatch]:
    """Outputs and targets where sums are kept, without a graph."""
    targets, target_mask = segment.targets.cpu(), segment.target_mask.cpu()
    return outputs.detach().cpu(), replace(segment, targets=targets, target_mask=target_mask)


def accuracy(num_classes: int) -> Metric:
    """The share of answers that are right."""
    return MulticlassAccuracy(num_classes, average="micro", validate_args=False)


def class_metrics(num_classes: int) -> Metrics:
    """Accuracy, macro F1 (over the classes seen) and the confusion matrix."""
    return Metrics(
        {
            "accuracy": accuracy(num_classes),
            "macro_f1": MulticlassF1Score(num_classes, average="macro", validate_args=False),
            "confusion_matrix": MulticlassConfusionMatrix(num_classes, validate_args=False),
        }
    )


def count_answers(metrics: Metrics, outputs: torch.Tensor, targets: torch.Tensor, target_mask: torch.Tensor) -> None:
    """Count the largest outputs (BTV or BV) as answers in every score."""
    if target_mask.any():
        answers_N = outputs[target_mask].argmax(-1)
        for score in metrics.scores.values():
            score.update(answers_N, targets[target_mask])


def class_results(metrics: Metrics) -> Results:
    """What `class_metrics` counted."""
    return {
        "loss": metrics.loss,
        "accuracy": metrics.value("accuracy"),
        "macro_f1": metrics.value("macro_f1"),
        "confusion_matrix": metrics.scores["confusion_matrix"].compute().tolist(),
    }


def _alone(metric: Metric) -> Metric:
    """No exchange behind our back: a worker without held-out sequences would hang the others. No stale value either."""
    metric.sync_on_compute = False
    metric.compute_with_cache = False
    return metric
