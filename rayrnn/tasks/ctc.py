"""CTC: the symbols of a target in order, somewhere among the steps; where they lie is learned, too.

Source: Graves, Fernandez, Gomez, Schmidhuber: Connectionist temporal classification, 2006. B batch, T steps that the
recurrent layers see, V symbols, of which the unknown one, number 0, stands for the blank: outputs are logits, B T V.
"""

from typing import cast

import numpy as np
import pyarrow as pa
import torch
from torch.nn import functional

from rayrnn.data.batches import Minibatch, inputs_of
from rayrnn.data.encoding import Encoding
from rayrnn.data.rows import step_counts
from rayrnn.data.symbols import Symbols
from rayrnn.tasks import Hypothesis, Search
from rayrnn.tasks.metrics import Metrics, on_cpu
from rayrnn.tasks.prefix_search import prefix_search
from rayrnn.tasks.target_sequences import TargetSequences

BLANK = 0
#: the logit of what cannot be
_NEVER = -1e4


class Ctc(TargetSequences):
    """Every step says a symbol or nothing (blank); what it says again without a blank between is said once."""

    right_or_wrong = False
    weighs = True
    decodes = False
    name = "ctc"

    def minibatch(self, rows: pa.Table, encoding: Encoding) -> Minibatch:
        """Targets that are too long for their steps are not there: nothing can be learned from them.

        Raises:
            DataError: a row's inputs do not fit what was learned.
        """
        symbols_BU, mask_BU = _targets(rows, encoding)
        mask_BU &= (_steps_due(symbols_BU, mask_BU) <= _frames(rows, encoding))[:, None]
        return Minibatch.of(rows, inputs_of(rows, encoding), (symbols_BU, mask_BU), per_step=False)

    def call(self, network: torch.nn.Module, segment: Minibatch, state: object) -> tuple[torch.Tensor, object]:
        """Steps that do not exist say blank, so that they change nothing."""
        logits_BTV, _ = network(segment.inputs, state, segment.mask)
        after = getattr(network, "mask_after", None)
        mask_BT = segment.mask if after is None else after(segment.mask)
        blank_V = torch.full((logits_BTV.shape[-1],), _NEVER, device=logits_BTV.device, dtype=logits_BTV.dtype)
        blank_V[BLANK] = 0
        return torch.where(mask_BT.unsqueeze(-1), logits_BTV, blank_V), None

    def loss(self, outputs: torch.Tensor, segment: Minibatch) -> tuple[torch.Tensor, torch.Tensor]:
        """The sequences' losses added up, and the symbols of their targets; one without a target counts for nothing."""
        sizes_B = segment.target_mask.sum(1)
        lengths_B = torch.full_like(sizes_B, outputs.shape[1])
        losses_B = functional.ctc_loss(
            outputs.float().log_softmax(-1).transpose(0, 1),
            segment.targets[segment.target_mask],
            lengths_B,
            sizes_B,
            blank=BLANK,
            reduction="none",
            zero_infinity=True,
        )
        losses_B = losses_B.masked_fill(sizes_B == 0, 0)
        if segment.weights is None:
            return losses_B.sum(), sizes_B.sum()
        return (losses_B * segment.weights).sum(), (sizes_B * segment.weights).sum()

    def measure(self, metrics: Metrics, outputs: torch.Tensor, segment: Minibatch, encoding: Encoding) -> None:
        outputs, segment = on_cpu(outputs, segment)
        metrics.add_loss(*self.loss(outputs, segment))

    def search(
        self, network: torch.nn.Module, minibatch: Minibatch, encoding: Encoding, search: Search
    ) -> list[list[Hypothesis]]:
        """With a beam of 1 the likeliest symbol of every step, else prefix beam search."""
        outputs, _ = self.call(network, minibatch, None)
        chances_BTV = outputs.float().log_softmax(-1).cpu().numpy()
        end = cast(Symbols, encoding.targets).vocabulary.end
        return [prefix_search(chances_TV, beam=search.beam, blank=BLANK, never=(end,)) for chances_TV in chances_BTV]

    def faults_of(self, rows: pa.Table, encoding: Encoding) -> list[str]:
        """A target needs a step for each symbol, and one more between two that are the same."""
        symbols_BU, mask_BU = _targets(rows, encoding)
        frames_B, sizes_B, due_B = _frames(rows, encoding), mask_BU.sum(axis=1), _steps_due(symbols_BU, mask_BU)
        return [
            f"sequence {rows['key'][int(row)].as_py()!r} has {frames_B[row]} steps to answer in and a target of "
            f"{sizes_B[row]} symbols, which needs {due_B[row]}: ctc says at most one symbol a step, and a blank "
            "between two that are the same; give longer sequences or shorter targets, or lower model.front_stride"
            for row in np.flatnonzero(due_B > frames_B)
        ]


def _targets(rows: pa.Table, encoding: Encoding) -> tuple[np.ndarray, np.ndarray]:
    """The symbols of every row's target, and where there is one: an unknown symbol is none that a step could say."""
    symbols_BU, mask_BU = cast(Symbols, encoding.targets).targets(rows, with_end=False)
    return symbols_BU, mask_BU & (symbols_BU != BLANK)


def _frames(rows: pa.Table, encoding: Encoding) -> np.ndarray:
    """Steps of every row in which something can be said."""
    return np.asarray(-(-step_counts(rows) // encoding.stride))


def _steps_due(symbols_BU: np.ndarray, mask_BU: np.ndarray) -> np.ndarray:
    """Steps that it takes to say every row's symbols."""
    owners, symbols = np.nonzero(mask_BU)[0], symbols_BU[mask_BU]
    again = (symbols[1:] == symbols[:-1]) & (owners[1:] == owners[:-1])
    return np.asarray(mask_BU.sum(axis=1) + np.bincount(owners[1:][again], minlength=len(mask_BU)))
