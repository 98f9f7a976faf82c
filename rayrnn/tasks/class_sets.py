"""What tasks share that answer with any number of some classes. B batch, V classes: outputs are logits, B V."""

from collections.abc import Mapping
from typing import cast

import numpy as np
import pyarrow as pa
import torch
from torch.nn import functional
from torchmetrics import MeanMetric
from torchmetrics.classification import MultilabelAveragePrecision, MultilabelF1Score
from torchmetrics.utilities import dim_zero_cat

from rayrnn.data.batches import Minibatch
from rayrnn.data.encoding import Classes, Encoding
from rayrnn.tasks.losses import added_up
from rayrnn.tasks.metrics import Metrics, Results, on_cpu


class MeanAveragePrecision(MultilabelAveragePrecision):
    """The mean over the classes that apply to some sequence: of others nothing can be found."""

    def compute(self) -> torch.Tensor:  # type: ignore[override]
        applies_V = (dim_zero_cat(self.target) == 1).any(dim=0)
        return super().compute()[applies_V].mean()


class MacroF1(MultilabelF1Score):
    """The mean over the classes that apply to some sequence, or are an answer to one."""

    def compute(self) -> torch.Tensor:
        seen_V = torch.stack([cast(torch.Tensor, counts) for counts in (self.tp, self.fp, self.fn)]).any(dim=0)
        return super().compute()[seen_V].mean()


class ClassSets:
    """Each class is a question of its own: does it apply? The loss is the binary cross-entropy of every answer."""

    generates = False
    holds_out_last = False
    right_or_wrong = False
    weighs = True
    unit = "nats"

    def loss(self, outputs: torch.Tensor, segment: Minibatch) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean over the classes, added up over the sequences: a target is a set."""
        losses_BV = functional.binary_cross_entropy_with_logits(outputs.float(), segment.targets, reduction="none")
        losses_B = losses_BV.mean(-1).masked_fill(~segment.target_mask, 0)
        return added_up(losses_B, segment.target_mask, segment.weights)

    def describe_loss(self, loss: float) -> str:
        return f"{loss:.4f} nats a class"

    def metrics(self, encoding: Encoding) -> Metrics:
        size = encoding.num_outputs
        return Metrics(
            {
                "mean_average_precision": MeanAveragePrecision(size, average=None, validate_args=False),
                "micro_f1": MultilabelF1Score(size, average="micro", validate_args=False),
                "macro_f1": MacroF1(size, average=None, validate_args=False),
                "hit_at_1": MeanMetric(),
            }
        )

    def measure(self, metrics: Metrics, outputs: torch.Tensor, segment: Minibatch, encoding: Encoding) -> None:
        outputs, segment = on_cpu(outputs, segment)
        metrics.add_loss(*self.loss(outputs, segment))
        there = segment.target_mask
        if not there.any():
            return
        chances_NV, sets_NV = outputs[there].float().sigmoid(), segment.targets[there].long()
        for name in ("mean_average_precision", "micro_f1", "macro_f1"):
            metrics.scores[name].update(chances_NV, sets_NV)
        likeliest_N1 = chances_NV.argmax(-1, keepdim=True)
        metrics.scores["hit_at_1"].update(sets_NV.gather(1, likeliest_N1).float())

    def results(self, metrics: Metrics) -> Results:
        """`hit_at_1` is the share of sequences whose likeliest class applies."""
        return {"loss": metrics.loss, **{name: metrics.value(name) for name in metrics.scores}}

    def higher_is_better(self) -> Mapping[str, bool]:
        return dict.fromkeys(("mean_average_precision", "micro_f1", "macro_f1", "hit_at_1"), True)

    def answers(self, outputs: np.ndarray, encoding: Encoding) -> dict[str, pa.Array]:
        return cast(Classes, encoding.targets).answers(outputs)
