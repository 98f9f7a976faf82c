"""Transduction: a sequence is read whole, and another one of its own length is written as its answer.

B batch, U symbols of a target with its end, V symbols: outputs are logits, B U V.
"""

from collections.abc import Mapping
from typing import Protocol, cast

import pyarrow as pa
import torch

from rayrnn.data.batches import Minibatch, inputs_of
from rayrnn.data.encoding import Encoding
from rayrnn.data.symbols import Symbols
from rayrnn.tasks import Hypothesis, Search, beam_search
from rayrnn.tasks.losses import cross_entropy
from rayrnn.tasks.metrics import Metrics, accuracy, on_cpu
from rayrnn.tasks.target_sequences import TargetSequences


class Transduction(TargetSequences):
    """Each symbol of the target is learned after those before it; answers are found by beam search."""

    right_or_wrong = True
    weighs = True
    decodes = True
    name = "transduction"

    def minibatch(self, rows: pa.Table, encoding: Encoding) -> Minibatch:
        targets = cast(Symbols, encoding.targets).targets(rows)
        return Minibatch.of(rows, inputs_of(rows, encoding), targets, per_step=False)

    def call(self, network: torch.nn.Module, segment: Minibatch, state: object) -> tuple[torch.Tensor, object]:
        logits_BUV, state = network(segment.inputs, state, segment.mask, segment.targets)
        return logits_BUV, state

    def loss(self, outputs: torch.Tensor, segment: Minibatch) -> tuple[torch.Tensor, torch.Tensor]:
        return cross_entropy(outputs, segment.targets, segment.target_mask, weights=segment.weights)

    def metrics(self, encoding: Encoding) -> Metrics:
        return Metrics({"symbol_accuracy": accuracy(encoding.num_outputs)} | self.text_scores())

    def measure(self, metrics: Metrics, outputs: torch.Tensor, segment: Minibatch, encoding: Encoding) -> None:
        """Count what is said of each symbol when all before it are right."""
        outputs, segment = on_cpu(outputs, segment)
        metrics.add_loss(*self.loss(outputs, segment))
        if segment.target_mask.any():
            answers_N = outputs[segment.target_mask].argmax(-1)
            metrics.scores["symbol_accuracy"].update(answers_N, segment.targets[segment.target_mask])

    def higher_is_better(self) -> Mapping[str, bool]:
        return {"symbol_accuracy": True} | dict(super().higher_is_better())

    def search(
        self, network: torch.nn.Module, minibatch: Minibatch, encoding: Encoding, search: Search
    ) -> list[list[Hypothesis]]:
        targets = cast(Symbols, encoding.targets)
        writer = _Writer(cast(Decoder, network), minibatch)
        symbols = beam_search.Writable(targets.vocabulary.end, targets.never_written, targets.most_written)
        return beam_search.beam_search(writer, symbols, search, num_rows=len(minibatch.keys))


class Decoder(Protocol):
    """The contract of the task's networks, beside `network(inputs, state, mask, targets) -> logits BUV, None`."""

    def read(self, inputs: torch.Tensor, mask: torch.Tensor | None) -> tuple[object, object]:
        """What sequences say, to be looked at, and where writing begins: trees of tensors of B rows."""

    def write(
        self, symbols_B: torch.Tensor, writing: object, memory: object
    ) -> tuple[torch.Tensor, object, torch.Tensor]:
        """The logits BV of what follows these symbols, where writing then stands, the weights BT over what was read."""

    def rows_of(self, tree: object, rows_N: torch.Tensor) -> object:
        """These rows of such a tree."""


class _Writer:
    """A decoder with what it has read, and where it stands."""

    def __init__(self, decoder: Decoder, minibatch: Minibatch) -> None:
        self._decoder = decoder
        self._device = minibatch.inputs.device
        self._memory, self._writing = decoder.read(minibatch.inputs, minibatch.mask)
        self._is_spread = False

    def step(self, symbols_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits_NV, self._writing, weights_NT = self._decoder.write(
            symbols_N.to(self._device), self._writing, self._memory
        )
        return logits_NV, weights_NT

    def keep(self, rows_N: torch.Tensor) -> None:
        rows_N = rows_N.to(self._device)
        self._writing = self._decoder.rows_of(self._writing, rows_N)
        if not self._is_spread:  # from then on a hypothesis goes on from one of the same sequence
            self._memory, self._is_spread = self._decoder.rows_of(self._memory, rows_N), True
