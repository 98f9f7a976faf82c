"""What tasks share that answer with one of some classes, whether for a sequence or for each step. V classes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
import torch

from rayrnn.data.batches import Minibatch
from rayrnn.data.encoding import Classes, Encoding
from rayrnn.tasks.losses import balanced_weights, cross_entropy
from rayrnn.tasks.metrics import Metrics, Results, class_metrics, class_results, count_answers, on_cpu


@dataclass(frozen=True)
class ClassAnswers:
    """Logits over classes: their loss, what it is measured by, and what is said for them."""

    #: V factors of the losses; None weighs all alike
    class_weights: torch.Tensor | None = None

    generates = False
    holds_out_last = False
    right_or_wrong = True
    weighs = True
    unit = "nats"

    def call(self, network: torch.nn.Module, segment: Minibatch, state: object) -> tuple[torch.Tensor, object]:
        logits, state = network(segment.inputs, state, segment.mask)
        return logits, state

    def loss(self, outputs: torch.Tensor, segment: Minibatch) -> tuple[torch.Tensor, torch.Tensor]:
        return cross_entropy(outputs, segment.targets, segment.target_mask, self.class_weights, segment.weights)

    def balanced(self, encoding: Encoding, device: torch.device) -> Self:
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

    def higher_is_better(self) -> Mapping[str, bool]:
        return {"accuracy": True, "macro_f1": True}

    def answers(self, outputs: np.ndarray, encoding: Encoding) -> dict[str, pa.Array]:
        assert isinstance(encoding.targets, Classes)
        return encoding.targets.answers(outputs)
