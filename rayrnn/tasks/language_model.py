"""Language model: what the next symbol is, at every step. B batch, T time, V symbols."""

import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch

from rayrnn.anomalies.scores import ranks, surprises
from rayrnn.data.batches import Minibatch, inputs_of
from rayrnn.data.encoding import Encoding, Numbers, Survey
from rayrnn.data.rows import Needs
from rayrnn.data.symbols import Symbols
from rayrnn.tasks import Choices
from rayrnn.tasks.losses import cross_entropy
from rayrnn.tasks.metrics import Metrics, Results, accuracy, count_answers, on_cpu


class LanguageModel:
    """A symbol's target is the next one, so that the last symbol of a sequence is no step."""

    generates = True
    holds_out_last = True
    right_or_wrong = True
    weighs = True
    unit = "nats a symbol"

    def faults(self, choices: Choices) -> list[str]:
        if choices.bidirectional:
            return ["model.bidirectional must be none: a language model must not see the symbol it predicts"]
        return []

    def needs(self, choices: Choices) -> Needs:
        return Needs("a language model", contents=("text", "symbols"), ahead=1, reads_last=False, every_symbol=True)

    def encoding(self, inputs: Symbols | Numbers, found: Survey, choices: Choices) -> Encoding:
        return Encoding(inputs, inputs, per_step=True)

    def minibatch(self, rows: pa.Table, encoding: Encoding) -> Minibatch:
        symbols_BT, mask_BT = inputs_of(rows, encoding)
        mask_BT = mask_BT[:, 1:]
        read, following = np.where(mask_BT, symbols_BT[:, :-1], 0), np.where(mask_BT, symbols_BT[:, 1:], 0)
        return Minibatch.of(rows, (read, mask_BT), (following, mask_BT))

    def call(self, network: torch.nn.Module, segment: Minibatch, state: object) -> tuple[torch.Tensor, object]:
        logits_BTV, state = network(segment.inputs, state, segment.mask)
        return logits_BTV, state

    def loss(self, outputs: torch.Tensor, segment: Minibatch) -> tuple[torch.Tensor, torch.Tensor]:
        return cross_entropy(outputs, segment.targets, segment.target_mask, weights=segment.weights)

    def describe_loss(self, loss: float) -> str:
        return f"{loss:.4f} nats a step = {loss / math.log(2):.3f} bits"

    def metrics(self, encoding: Encoding) -> Metrics:
        return Metrics({"accuracy": accuracy(encoding.num_outputs)})

    def measure(self, metrics: Metrics, outputs: torch.Tensor, segment: Minibatch, encoding: Encoding) -> None:
        outputs, segment = on_cpu(outputs, segment)
        metrics.add_loss(*self.loss(outputs, segment))
        count_answers(metrics, outputs, segment.targets, segment.target_mask)

    def results(self, metrics: Metrics) -> Results:
        return {
            "loss": metrics.loss,
            "perplexity": math.exp(min(metrics.loss, 700.0)),
            "bits_per_symbol": metrics.loss / math.log(2),
            "accuracy": metrics.value("accuracy"),
        }

    def higher_is_better(self) -> Mapping[str, bool]:
        return {"perplexity": False, "bits_per_symbol": False, "accuracy": True}

    def answers(self, outputs: np.ndarray, encoding: Encoding) -> dict[str, pa.Array]:
        raise AssertionError("a language model draws symbols, it does not answer rows")

    def scores(self, choices: Choices) -> tuple[str, ...]:
        return ("surprise", "rank")

    def score(self, kind: str, outputs: torch.Tensor, segment: Minibatch) -> np.ndarray:
        """How little, or how late among all symbols, the one that came was expected."""
        measure = {"surprise": surprises, "rank": ranks}[kind]
        outputs, segment = on_cpu(outputs, segment)
        return measure(outputs.float().numpy(), segment.targets.numpy())[..., None]
