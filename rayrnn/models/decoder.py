"""An encoder and a decoder: a sequence is read whole, and another one of its own length is written symbol by symbol.

Source: Luong, Pham, Manning: Effective approaches to attention-based neural machine translation, 2015,
arXiv:1508.04025. Shapes: B batch, T steps that are read, U symbols that are written, V symbols there are, H hidden.
"""

from typing import NamedTuple

import torch
from torch import nn

from rayrnn.models.attention import Attention, Memory
from rayrnn.models.cells import State, make_cell
from rayrnn.models.network import Network, pool
from rayrnn.models.state import rows_of


class Writing(NamedTuple):
    """Where a decoder stands: what its layers carry, and the vector that it is fed with its next symbol."""

    layers: list[State]
    #: BH
    fed: torch.Tensor


class EncoderDecoder(nn.Module):
    """Reads with a network that has no projection, and writes with layers that look at what was read.

    Args:
        encoder: its answers are its hidden vectors, one a step.
        num_outputs: V.
        end: the number of the symbol that ends what is written, and that stands before its first one.
        cell: of the decoder's layers.
        hidden_size: H, of the decoder's layers.
        num_layers: of the decoder.
        embedding_size: length of a written symbol's learned vector.
        attention: see `Attention`.
        input_feeding: whether a step is also fed the vector that the step before was answered from; without it all
            steps of a target are learned at once, which is faster.
        dropout: the share of activations dropped between layers while training.
    """

    def __init__(
        self,
        encoder: Network,
        *,
        num_outputs: int,
        end: int,
        cell: str,
        hidden_size: int,
        num_layers: int,
        embedding_size: int,
        attention: str = "dot",
        input_feeding: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.end = end
        self.input_feeding = input_feeding
        self.encoder = encoder
        self.bridge = nn.Linear(encoder.width, num_layers * hidden_size)
        self.embedding = nn.Embedding(num_outputs, embedding_size)
        sizes = [embedding_size + (hidden_size if input_feeding else 0)] + [hidden_size] * (num_layers - 1)
        self.layers = nn.ModuleList(make_cell(cell, size, hidden_size) for size in sizes)
        self.carried = 2 if "lstm" in cell else 1
        self.attention = Attention(attention, hidden_size, encoder.width)
        self.combination = nn.Linear(hidden_size + encoder.width, hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(hidden_size, num_outputs)

    def forward(
        self,
        inputs: torch.Tensor,
        state: None = None,
        mask: torch.Tensor | None = None,
        targets: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, None]:
        """The logits BUV of every symbol of targets BU, each after those before it (teacher forcing).

        Args:
            inputs: BT integers or BTF floats, as the encoder takes them.
            state: none: sequences are read whole.
            mask: BT, True where a step exists.
            targets: BU; without them the logits B1V of the first symbol.

        Returns:
            the logits, and no state to go on from.
        """
        memory, begin = self.read(inputs, mask)
        first_B1 = torch.full((len(inputs), 1), self.end, dtype=torch.int64, device=inputs.device)
        before_BU = first_B1 if targets is None else torch.cat([first_B1, targets[:, :-1]], dim=1)
        write = self._one_by_one if self.input_feeding else self._at_once
        return self.projection(self.dropout(write(before_BU, begin, memory))), None

    def read(self, inputs: torch.Tensor, mask: torch.Tensor | None) -> tuple[Memory, Writing]:
        """What the encoder makes of sequences, and where the decoder begins: at a projection of its mean."""
        if mask is None:
            mask = torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
        hidden_BTW, _ = self.encoder(inputs, None, mask)
        mask = self.encoder.mask_after(mask)
        assert mask is not None, "a mask has a mask behind it"
        begin = self.bridge(pool(hidden_BTW, mask, "mean")).tanh().chunk(len(self.layers), dim=-1)
        nothing = torch.zeros_like(begin[0])
        # cuDNN reads states that are contiguous
        states: list[State] = [(hidden.contiguous(), nothing)[: self.carried] for hidden in begin]
        return self.attention.remember(hidden_BTW, mask), Writing(states, nothing)

    def write(
        self, symbols_B: torch.Tensor, writing: Writing, memory: Memory
    ) -> tuple[torch.Tensor, Writing, torch.Tensor]:
        """One step: the logits BV of what follows these symbols, where the decoder then stands, the weights BT."""
        answer_BH, writing, weights_BT = self._step(self.embedding(symbols_B), writing, memory)
        return self.projection(answer_BH), writing, weights_BT

    def rows_of(self, tree: object, rows_N: torch.Tensor) -> object:
        """These rows of what `read` or `write` gave."""
        return rows_of(tree, rows_N)

    def _step(
        self, embedded_BE: torch.Tensor, writing: Writing, memory: Memory
    ) -> tuple[torch.Tensor, Writing, torch.Tensor]:
        fed = [embedded_BE, writing.fed.to(embedded_BE.dtype)] if self.input_feeding else [embedded_BE]
        hidden, states = self._through_layers(torch.cat(fed, dim=-1).unsqueeze(1), writing.layers)
        context, weights_B1T = self.attention(hidden, memory)
        answer_BH = self._combined(hidden, context).squeeze(1)
        return answer_BH, Writing(states, answer_BH), weights_B1T.squeeze(1)

    def _one_by_one(self, symbols_BU: torch.Tensor, writing: Writing, memory: Memory) -> torch.Tensor:
        answers = []
        for embedded_BE in self.embedding(symbols_BU).unbind(1):
            answer_BH, writing, _ = self._step(embedded_BE, writing, memory)
            answers.append(answer_BH)
        return torch.stack(answers, dim=1)

    def _at_once(self, symbols_BU: torch.Tensor, writing: Writing, memory: Memory) -> torch.Tensor:
        hidden, _ = self._through_layers(self.embedding(symbols_BU), writing.layers)
        context, _ = self.attention(hidden, memory)
        return self._combined(hidden, context)

    def _through_layers(self, hidden: torch.Tensor, before: list[State]) -> tuple[torch.Tensor, list[State]]:
        after = []
        for number, (layer, state) in enumerate(zip(self.layers, before, strict=True)):
            hidden, state = layer(self.dropout(hidden) if number else hidden, state)
            after.append(state)
        return hidden, after

    def _combined(self, hidden: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.combination(torch.cat([hidden, context.to(hidden.dtype)], dim=-1)))
