"""Classification: which of some classes a sequence is. B batch, V classes."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch

from rayrnn.data.batches import Minibatch, inputs_of, label_targets
from rayrnn.data.encoding import Classes, Encoding, Numbers, Survey, Symbols
from rayrnn.data.rows import Label, Needs
from rayrnn.tasks import Choices
from rayrnn.tasks.losses import balanced_weights, cross_entropy
from rayrnn.tasks.metrics import Metrics, Results, class_metrics, class_results, count_answers, on_cpu


@dataclass(frozen=True)
class Classification:
    """The label of a sequence is its target, once it has been read to its end."""

    #: V factors of the losses; None weighs all alike
    class_weights: torch.Tensor | None = None

    generates = False
    holds_out_last = False
    right_or_wrong = True
    unit = "nats"

    def faults(self, choices: Choices) -> list[str]:
        if choices.truncate:
            return ["training.truncate must be 0: a classification has one label, at the sequence's end"]
        return []

    def needs(self, choices: Choices) -> Needs:
        return Needs("classification", Label.CLASS)

    def encoding(self, inputs: Symbols | Numbers, found: Survey, choices: Choices) -> Encoding:
        return Encoding(inputs, Classes.fit(found, choices.classes), per_step=False)

    def minibatch(self, rows: pa.Table, encoding: Encoding) -> Minibatch:
        targets = label_targets(rows, encoding)
        return Minibatch.of(rows, inputs_of(rows, encoding), targets, per_step=False)

    def call(self, network: torch.nn.Module, segment: Minibatch, state: object) -> tuple[torch.Tensor, object]:
        logits_BV, state = network(segment.inputs, state, segment.mask)
        return logits_BV, state

    def loss(self, outputs: torch.Tensor, segment: Minibatch) -> tuple[torch.Tensor, torch.Tensor]:
        return cross_entropy(outputs, segment.targets, segment.target_mask, self.class_weights)

    def balanced(self, encoding: Encoding, device: torch.device) -> "Classification":
        return replace(self, class_weights=balanced_weights(encoding, device))

    def describe_loss(self, loss: float) -> str:
        return f"{loss:.4f} nats"

    def metrics(self, encoding: Encoding) -> Metrics:
        return class_metrics(encoding.num_outputs)

    def measure(self, metrics: Metrics, outputs: torch.Tensor, segment: Minibatch, encoding: Encoding) -> None:
        outputs, segment = on_cpu(outputs, segment)
        metrics.add_loss(*self.loss(outputs, segment))
        count_answers(metrics, outputs, segment.targets, segment.target_mask)

    def results(self, metrics: Metrics) -> Results:
        return class_results(metrics)

    def answers(self, outputs: np.ndarray, encoding: Encoding) -> dict[str, pa.Array]:
        assert isinstance(encoding.targets, Classes)
        return encoding.targets.answers(outputs)
