"""The network: symbols or numbers in, layers of one cell, one way or both, one answer a step or a sequence out.

Shapes: B batch, T time, F features, V symbols, classes or numbers of the answer, H hidden.
"""

import torch
from torch import nn

from rayrnn.models.cells import State, make_cell


def pool(steps: torch.Tensor, mask: torch.Tensor | None, how: str, backward: bool = False) -> torch.Tensor:
    """One vector_BH a row from the existing steps of steps_BTH; zeros where a row has none.

    Args:
        mask: BT, True where a step exists; None: everywhere.
        how: `last` (the step that has read the whole row), `mean` or `max`.
        backward: the steps were read from the end, so that the first step has read the whole row.
    """
    if mask is None:
        mask = torch.ones(steps.shape[:2], dtype=torch.bool, device=steps.device)
    count = mask.sum(1)
    if how == "mean":
        return steps.masked_fill(~mask.unsqueeze(-1), 0).sum(1) / count.clamp(min=1).unsqueeze(-1)
    if how == "max":
        lowest = torch.finfo(steps.dtype).min
        pooled = steps.masked_fill(~mask.unsqueeze(-1), lowest).amax(1)
    else:
        rows = torch.arange(len(steps), device=steps.device)
        pooled = steps[rows, torch.zeros_like(count) if backward else (count - 1).clamp(min=0)]
    return pooled.masked_fill((count == 0).unsqueeze(-1), 0)


class BothDirections(nn.Module):
    """Two cells, the second over each row reversed within its own length, so that padding stays at the end."""

    def __init__(self, cell: str, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.forwards = make_cell(cell, input_size, hidden_size)
        self.backwards = make_cell(cell, input_size, hidden_size)

    def forward(self, inputs: torch.Tensor, mask: torch.Tensor | None) -> list[torch.Tensor]:
        """Both directions' outputs_BTH, each at the step it belongs to: the second has seen that step and all after."""
        ahead, _ = self.forwards(inputs)
        back, _ = self.backwards(reverse(inputs, mask))
        return [ahead, reverse(back, mask)]


def reverse(steps: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Turn the existing steps of each row (BT or BTF) around; padding stays where it is. Twice is nothing."""
    if mask is None:
        return steps.flip(1)
    position = torch.arange(mask.shape[1], device=mask.device)
    mirrored = mask.sum(1, keepdim=True) - 1 - position
    index = torch.where(mirrored >= 0, mirrored, position)
    return steps.gather(1, index.reshape(index.shape + (1,) * (steps.dim() - 2)).expand_as(steps))


def merge(directions: list[torch.Tensor], how: str) -> torch.Tensor:
    """Join the directions along features (`concat`) or add them (`sum`); a single one stays as it is."""
    if len(directions) == 1:
        return directions[0]
    return torch.cat(directions, dim=-1) if how == "concat" else directions[0] + directions[1]


class Network(nn.Module):
    """Embed -> layers -> pool -> project.

    Args:
        num_inputs: symbols in the vocabulary, or features of a step.
        num_outputs: symbols, classes or numbers in an answer.
        symbols: whether a step is a symbol (an integer) or `num_inputs` numbers.
        cell: `rnn`, `lstm`, `gru` or `graves_lstm`.
        embedding_size: length of a symbol's learned vector; 0 feeds symbols one-hot.
        dropout: the share of activations dropped between layers while training.
        bidirectional: `none`, or how two directions become one: `sum` or `concat`.
        pooling: None for an answer at every step; `last`, `mean` or `max` for one answer a sequence.

    Raises:
        ValueError: a word that names no cell, direction or pooling; an embedding of numbers.
    """

    def __init__(
        self,
        *,
        num_inputs: int,
        num_outputs: int,
        symbols: bool,
        cell: str,
        hidden_size: int,
        num_layers: int,
        embedding_size: int = 0,
        dropout: float = 0.0,
        bidirectional: str = "none",
        pooling: str | None = None,
    ) -> None:
        super().__init__()
        _check_word("bidirectional", bidirectional, ("none", "sum", "concat"))
        _check_word("pooling", pooling, (None, "last", "mean", "max"))
        if embedding_size and not symbols:
            raise ValueError(
                f"only symbols can be embedded: embedding_size is {embedding_size}, the inputs are numbers"
            )
        self.bidirectional = bidirectional
        self.pooling = pooling
        self.embedding = nn.Embedding(num_inputs, embedding_size) if embedding_size else None
        width = 2 * hidden_size if bidirectional == "concat" else hidden_size
        sizes = [embedding_size or num_inputs] + [width] * (num_layers - 1)
        layer = make_cell if bidirectional == "none" else BothDirections
        self.layers = nn.ModuleList(layer(cell, size, hidden_size) for size in sizes)
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(width, num_outputs)

    def forward(
        self, inputs: torch.Tensor, state: list[State] | None = None, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, list[State] | None]:
        """Answer every step, or every sequence when the network pools.

        Args:
            inputs: BT integers when the network takes symbols, else BTF floats.
            state: what the call before returned for the steps before these; None starts at zero.
            mask: BT, True where a step exists; padding stands at the end of a row. None: every step exists.

        Returns:
            Answers, BTV, or BV when the network pools; and the state after the last step, one entry a layer (None when
            the network is bidirectional: it needs whole sequences). Pooling is over the steps of this call. At padded
            steps and in the state of rows that have ended the values mean nothing.

        Raises:
            ValueError: a bidirectional network was handed a state.
        """
        if mask is not None:
            inputs = inputs.masked_fill(~mask.reshape(mask.shape + (1,) * (inputs.dim() - 2)), 0)
        if self.embedding is not None:
            inputs = self.embedding(inputs)
        if self.bidirectional == "none":
            directions, after = self._one_way(inputs, state)
        elif state is None:
            directions, after = self._both_ways(inputs, mask), None
        else:
            raise ValueError("a bidirectional network reads whole sequences; it cannot go on from a state")
        hidden = merge(directions, self.bidirectional) if self.pooling is None else self._pool(directions, mask)
        return self.projection(hidden), after

    def _one_way(self, hidden: torch.Tensor, state: list[State] | None) -> tuple[list[torch.Tensor], list[State]]:
        before = state if state is not None else [None] * len(self.layers)
        after = []
        for number, (layer, layer_state) in enumerate(zip(self.layers, before, strict=True)):
            hidden, layer_state = layer(self.dropout(hidden) if number else hidden, layer_state)
            after.append(layer_state)
        return [hidden], after

    def _both_ways(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> list[torch.Tensor]:
        directions: list[torch.Tensor] = []
        for number, layer in enumerate(self.layers):
            hidden = self.dropout(merge(directions, self.bidirectional)) if number else hidden
            directions = layer(hidden, mask)
        return directions

    def _pool(self, directions: list[torch.Tensor], mask: torch.Tensor | None) -> torch.Tensor:
        return merge(
            [pool(steps, mask, str(self.pooling), backward=index == 1) for index, steps in enumerate(directions)],
            self.bidirectional,
        )


def _check_word(name: str, word: str | None, known: tuple[str | None, ...]) -> None:
    if word not in known:
        raise ValueError(f"{name} is {word!r}; it can be {', '.join(map(str, known))}")
