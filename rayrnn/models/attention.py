"""Where a decoder looks: weights over the steps that an encoder has read, and their weighted mean.

Shapes: B batch, T steps that were read, U steps of the decoder, W width of what was read, H hidden.
"""

from typing import NamedTuple

import torch
from torch import nn

#: what a recipe can ask for
KINDS = ("dot", "additive")


class Memory(NamedTuple):
    """What an encoder has read, made ready to be looked at."""

    #: BTW
    values: torch.Tensor
    #: BTH
    keys: torch.Tensor
    #: BT, True where there is a step
    mask: torch.Tensor


class Attention(nn.Module):
    """Weights for every query of a decoder over the steps of a memory.

    Args:
        kind: `dot` multiplies queries with projected steps (Luong et al. 2015, arXiv:1508.04025, "general");
            `additive` adds them and projects a tanh (Bahdanau et al. 2014, arXiv:1409.0473).
        query_size: H, of the decoder.
        value_size: W, of the encoder.
    """

    def __init__(self, kind: str, query_size: int, value_size: int) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"attention is {kind!r}; it can be {', '.join(KINDS)}")
        self.keys = nn.Linear(value_size, query_size, bias=False)
        self.queries = nn.Linear(query_size, query_size) if kind == "additive" else None
        self.scores = nn.Linear(query_size, 1, bias=False) if kind == "additive" else None

    def remember(self, values_BTW: torch.Tensor, mask_BT: torch.Tensor) -> Memory:
        """What was read; its steps are projected once, however often it is looked at."""
        return Memory(values_BTW, self.keys(values_BTW), mask_BT)

    def forward(self, queries_BUH: torch.Tensor, memory: Memory) -> tuple[torch.Tensor, torch.Tensor]:
        """The context BUW of every query, and the weights BUT that it was made with; padding has weight 0."""
        if self.queries is None or self.scores is None:
            scores_BUT = queries_BUH @ memory.keys.transpose(1, 2)
        else:
            both = self.queries(queries_BUH).unsqueeze(2) + memory.keys.unsqueeze(1)
            scores_BUT = self.scores(both.tanh()).squeeze(-1)
        lowest = torch.finfo(scores_BUT.dtype).min
        weights_BUT = scores_BUT.masked_fill(~memory.mask.unsqueeze(1), lowest).softmax(-1)
        return weights_BUT.to(memory.values.dtype) @ memory.values, weights_BUT
