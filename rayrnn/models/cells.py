"""One recurrent layer over whole sequences: `rnn`, `lstm` and `gru` are torch's, `graves_lstm` is ours.

Shapes: B batch, T time, F features, H hidden.
"""

from typing import cast

import torch
from torch import nn

from rayrnn.models.graves_lstm import GravesLSTM

#: what one layer carries from step to step, each B x H: (hidden,), or (hidden, memory) for the LSTMs
State = tuple[torch.Tensor, ...]

CELLS = ("rnn", "lstm", "gru", "graves_lstm")


def make_cell(name: str, input_size: int, hidden_size: int) -> nn.Module:
    """One layer of the named cell, freshly initialised from torch's global random state.

    The layer maps `(inputs, state | None)` to `(outputs_BTH, state)`. Inputs are BTF floats, or BT integers that stand
    for one-hot vectors of `input_size` features. Forget gates start at a bias of 1.

    Raises:
        ValueError: no cell has this name.
    """
    if name == "graves_lstm":
        return GravesLSTM(input_size, hidden_size)
    if name in CELLS:
        return TorchCell(name, input_size, hidden_size)
    raise ValueError(f"cell {name!r} is unknown; the cells are {', '.join(CELLS)}")


class TorchCell(nn.Module):
    """One unidirectional layer of `torch.nn`'s RNN (tanh), LSTM or GRU."""

    def __init__(self, name: str, input_size: int, hidden_size: int) -> None:
        super().__init__()
        layer = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[name]
        self.recurrence = layer(input_size, hidden_size, batch_first=True)
        if name == "lstm":
            self._open_forget_gate()

    def forward(self, inputs: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """Map BTF floats (or BT integers, meant one-hot) and the state before them to outputs_BTH and the state after.

        One-hot costs nothing measurable up to some hundred symbols; from a thousand on, give the network an embedding.
        """
        if not inputs.is_floating_point():
            inputs = self._one_hot(inputs)
        outputs, after = self.recurrence(inputs, self._with_layer_axis(state))
        return outputs, tuple(part.squeeze(0) for part in (after if isinstance(after, tuple) else (after,)))

    def _open_forget_gate(self) -> None:
        """torch adds two biases for each gate and orders the gates i, f, g, o."""
        forget = slice(self.recurrence.hidden_size, 2 * self.recurrence.hidden_size)
        with torch.no_grad():
            cast(nn.Parameter, self.recurrence.bias_ih_l0)[forget] = 1.0
            cast(nn.Parameter, self.recurrence.bias_hh_l0)[forget] = 0.0

    def _one_hot(self, symbols: torch.Tensor) -> torch.Tensor:
        weight = cast(nn.Parameter, self.recurrence.weight_ih_l0)
        vectors = weight.new_zeros(*symbols.shape, self.recurrence.input_size)
        return vectors.scatter_(-1, symbols.unsqueeze(-1), 1.0)

    def _with_layer_axis(self, state: State | None) -> torch.Tensor | State | None:
        if state is None:
            return None
        parts = tuple(part.unsqueeze(0) for part in state)
        return parts if len(parts) == 2 else parts[0]
