"""One recurrent layer over whole sequences: `rnn`, `lstm` and `gru` are torch's, `graves_lstm` is ours.

Shapes: B batch, T time, F features, H hidden.
"""

from importlib import import_module
from typing import cast

import torch
from torch import nn

from rayrnn.models import CELLS

#: what one layer carries from step to step, each B x H: (hidden,), or (hidden, memory) for the LSTMs
State = tuple[torch.Tensor, ...]


def make_cell(name: str, input_size: int, hidden_size: int) -> nn.Module:
    """One layer of the named cell, freshly initialised from torch's global random state.

    The layer maps `(inputs, state | None)` to `(outputs_BTH, state)`. Inputs are BTF floats, or BT integers that stand
    for one-hot vectors of `input_size` features. Forget gates start at a bias of 1.

    Raises:
        ValueError: no cell has this name.
    """
    if name not in CELLS:
        raise ValueError(f"cell {name!r} is unknown; the cells are {', '.join(CELLS)}")
    module, _, make = CELLS[name].partition(":")
    return cast(nn.Module, getattr(import_module(module), make)(input_size, hidden_size))


def rnn(input_size: int, hidden_size: int) -> "TorchCell":
    """torch's plain layer, with tanh."""
    return TorchCell(nn.RNN(input_size, hidden_size, batch_first=True))


def gru(input_size: int, hidden_size: int) -> "TorchCell":
    """torch's GRU."""
    return TorchCell(nn.GRU(input_size, hidden_size, batch_first=True))


def lstm(input_size: int, hidden_size: int) -> "TorchCell":
    """torch's LSTM, which adds two biases for each gate and orders the gates i, f, g, o."""
    layer = nn.LSTM(input_size, hidden_size, batch_first=True)
    forget = slice(hidden_size, 2 * hidden_size)
    with torch.no_grad():
        cast(nn.Parameter, layer.bias_ih_l0)[forget] = 1.0
        cast(nn.Parameter, layer.bias_hh_l0)[forget] = 0.0
    return TorchCell(layer)


class TorchCell(nn.Module):
    """One unidirectional layer of `torch.nn`, called as ours are."""

    def __init__(self, recurrence: nn.RNNBase) -> None:
        super().__init__()
        self.recurrence = recurrence

    def forward(self, inputs: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """Map BTF floats (or BT integers, meant one-hot) and the state before them to outputs_BTH and the state after.

        One-hot costs nothing measurable up to some hundred symbols; from a thousand on, give the network an embedding.
        """
        if not inputs.is_floating_point():
            inputs = self._one_hot(inputs)
        outputs, after = self.recurrence(inputs, self._with_layer_axis(state))
        return outputs, tuple(part.squeeze(0) for part in (after if isinstance(after, tuple) else (after,)))

    def _one_hot(self, symbols: torch.Tensor) -> torch.Tensor:
        weight = cast(nn.Parameter, self.recurrence.weight_ih_l0)
        vectors = weight.new_zeros(*symbols.shape, self.recurrence.input_size)
        return vectors.scatter_(-1, symbols.unsqueeze(-1), 1.0)

    def _with_layer_axis(self, state: State | None) -> torch.Tensor | State | None:
        if state is None:
            return None
        parts = tuple(part.unsqueeze(0) for part in state)
        return parts if len(parts) == 2 else parts[0]
