"""Recurrent layers in forms that leave Python: ONNX's own LSTM, GRU and RNN, or a scan over time (torch.export).

torch.export would unroll a layer of torch.nn over the steps of its example, and so freeze their number
(https://github.com/pytorch/pytorch/issues/191855).

Shapes: B batch, T time, F features, H hidden, G gates times H; in torch's order i f g o (LSTM), r z n (GRU).
"""

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import nn
from torch._higher_order_ops.scan import scan
from torch.nn import functional

from rayrnn.models.graves_lstm import GravesLSTM

State = tuple[torch.Tensor, ...]
Pair = tuple[torch.Tensor, torch.Tensor]
Step = Callable[[State, torch.Tensor], tuple[State, torch.Tensor]]

#: a layer's gates in ONNX's order, by their places in torch's
_ONNX_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
#: of ONNX, since which its layers are as they are
_ONNX_VERSION = 14


class Direction(nn.Module):
    """One layer in one direction: `scanned`, or ONNX's own.

    Args:
        kind: LSTM, GRU or RNN, as torch.nn has them; an LSTM may have peepholes (Graves), rows i, f, o.
        activation: of an RNN, tanh or relu.
    """

    #: GF, GH, G, G, and 3H
    input_weights: torch.Tensor
    recurrent_weights: torch.Tensor
    input_bias: torch.Tensor
    recurrent_bias: torch.Tensor
    peepholes: torch.Tensor | None

    def __init__(
        self,
        kind: str,
        weights: Pair,
        biases: Pair,
        *,
        peepholes: torch.Tensor | None = None,
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        self.kind, self.activation = kind, activation
        self.hidden_size = weights[1].shape[1]
        self.num_carried = 2 if kind == "LSTM" else 1
        names = ("input_weights", "recurrent_weights", "input_bias", "recurrent_bias", "peepholes")
        for name, value in zip(names, (*weights, *biases, peepholes), strict=True):
            self.register_buffer(name, None if value is None else value.detach().clone())

    def forward(self, steps_TBF: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """The outputs TBH and the state after; each part of a state is BH."""
        raise NotImplementedError


class ScannedDirection(Direction):
    """One function a step, which torch.export keeps as such; what reads the file needs torch alone."""

    def forward(self, steps_TBF: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """The outputs TBH and the state after; each part of a state is BH."""
        bias = self.input_bias if self.kind == "GRU" else self.input_bias + self.recurrent_bias
        projected_TBG = functional.linear(steps_TBF, self.input_weights, bias)
        step = {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[self.kind]
        after, outputs_TBH = scan(step, tuple(part.contiguous() for part in state), projected_TBG)
        return outputs_TBH, tuple(after)

    def _lstm(self, before: State, projected_BG: torch.Tensor) -> tuple[State, torch.Tensor]:
        hidden, memory = before
        i, f, g, o = (projected_BG + hidden @ self.recurrent_weights.t()).chunk(4, -1)
        if self.peepholes is not None:
            i, f = i + self.peepholes[0] * memory, f + self.peepholes[1] * memory
        memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
        if self.peepholes is not None:
            o = o + self.peepholes[2] * memory
        hidden = o.sigmoid() * memory.tanh()
        return (hidden, memory), hidden.clone()

    def _gru(self, before: State, projected_BG: torch.Tensor) -> tuple[State, torch.Tensor]:
        (hidden,) = before
        read = functional.linear(hidden, self.recurrent_weights, self.recurrent_bias)
        (r, z, n), (read_r, read_z, read_n) = projected_BG.chunk(3, -1), read.chunk(3, -1)
        update = (z + read_z).sigmoid()
        hidden = (1 - update) * (n + (r + read_r).sigmoid() * read_n).tanh() + update * hidden
        return (hidden,), hidden.clone()

    def _rnn(self, before: State, projected_BG: torch.Tensor) -> tuple[State, torch.Tensor]:
        total = projected_BG + before[0] @ self.recurrent_weights.t()
        hidden = total.relu() if self.activation == "relu" else total.tanh()
        return (hidden,), hidden.clone()


class OnnxDirection(Direction):
    """An operator of ONNX, weights in its order; torch can only trace it."""

    def __init__(
        self,
        kind: str,
        weights: Pair,
        biases: Pair,
        *,
        peepholes: torch.Tensor | None = None,
        activation: str = "tanh",
    ) -> None:
        super().__init__(kind, weights, biases, peepholes=peepholes, activation=activation)
        self.register_buffer("onnx_input_weights", self._ordered(self.input_weights))
        self.register_buffer("onnx_recurrent_weights", self._ordered(self.recurrent_weights))
        both = [self._ordered(bias) for bias in (self.input_bias, self.recurrent_bias)]
        self.register_buffer("onnx_biases", torch.cat(both, dim=1))
        # ONNX has them in the order i, o, f
        in_a_row = None if self.peepholes is None else self.peepholes[[0, 2, 1]].reshape(1, -1)
        self.register_buffer("onnx_peepholes", in_a_row)

    def forward(self, steps_TBF: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """The outputs TBH and the state after; each part of a state is BH."""
        T, B = steps_TBF.shape[:2]
        weights = (self.onnx_input_weights, self.onnx_recurrent_weights, self.onnx_biases)
        inputs = [steps_TBF, *weights, None, *(part.unsqueeze(0) for part in state)]
        if self.onnx_peepholes is not None:
            inputs.append(self.onnx_peepholes)
        attributes: dict[str, int | str | list[str]] = {"hidden_size": self.hidden_size}
        if self.kind == "GRU":
            attributes["linear_before_reset"] = 1  # as torch has it
        if self.activation == "relu":
            attributes["activations"] = ["Relu"]
        outputs, *after = torch.onnx.ops.symbolic_multi_out(
            self.kind,
            cast(list[torch.Tensor | None], inputs),
            attributes,  # type: ignore[arg-type]
            dtypes=[torch.float32] * (1 + self.num_carried),
            shapes=[(T, 1, B, self.hidden_size)] + [(1, B, self.hidden_size)] * self.num_carried,
            version=_ONNX_VERSION,
        )
        return outputs.squeeze(1), tuple(part.squeeze(0) for part in after)

    def _ordered(self, gates: torch.Tensor) -> torch.Tensor:
        parts = gates.chunk(len(_ONNX_GATES[self.kind]), dim=0)
        return torch.cat([parts[place] for place in _ONNX_GATES[self.kind]]).unsqueeze(0)


class TorchRecurrence(nn.Module):
    """What a `torch.nn.LSTM`, `GRU` or `RNN` computes when it does not learn, called as these are.

    Raises:
        ValueError: a layer with a projection (`proj_size`); here, and in a call, what is not Python's to hand over.
    """

    def __init__(self, original: nn.RNNBase, form: type[Direction]) -> None:
        super().__init__()
        if original.proj_size:
            raise ValueError(f"a {type(original).__name__} with proj_size={original.proj_size} has no form outside")
        self.input_size, self.hidden_size = original.input_size, original.hidden_size
        self.batch_first = original.batch_first
        self.is_lstm = isinstance(original, nn.LSTM)
        self.num_directions = 2 if original.bidirectional else 1
        kind = "LSTM" if self.is_lstm else "GRU" if isinstance(original, nn.GRU) else "RNN"
        activation = "relu" if original.mode == "RNN_RELU" else "tanh"
        self.directions = nn.ModuleList(
            form(kind, weights, biases, activation=activation) for weights, biases in _values_of(original)
        )

    @property
    def weight_ih_l0(self) -> torch.Tensor:
        """As torch's layers have it."""
        return cast(Direction, self.directions[0]).input_weights

    def flatten_parameters(self) -> None:
        """Nothing: there is no cuDNN to do it for."""

    def forward(
        self, steps: torch.Tensor, state: torch.Tensor | State | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | State]:
        """As torch.nn's: outputs, and a state that has an axis of layers and directions before BH."""
        if not isinstance(steps, torch.Tensor) or steps.dim() != 3:
            raise ValueError("a recurrent layer is called with other inputs than a batch of sequences in one tensor")
        hidden = steps.transpose(0, 1) if self.batch_first else steps
        parts = self._begin(hidden) if state is None else state if isinstance(state, tuple) else (state,)
        after: list[State] = []
        for first in range(0, len(self.directions), self.num_directions):
            outputs = []
            for number in range(first, first + self.num_directions):
                back = number > first
                direction = self.directions[number]
                read, own = direction(hidden.flip(0) if back else hidden, tuple(part[number] for part in parts))
                outputs.append(read.flip(0) if back else read)
                after.append(own)
            hidden = torch.cat(outputs, dim=-1) if len(outputs) > 1 else outputs[0]
        stacked = tuple(torch.stack(part) for part in zip(*after, strict=True))
        return hidden.transpose(0, 1) if self.batch_first else hidden, stacked if self.is_lstm else stacked[0]

    def _begin(self, steps_TBF: torch.Tensor) -> State:
        zeros = steps_TBF.new_zeros(len(self.directions), steps_TBF.shape[1], self.hidden_size)
        return (zeros, zeros.clone()) if self.is_lstm else (zeros,)


def _values_of(layer: nn.RNNBase) -> Iterator[tuple[Pair, Pair]]:
    """Weights and biases of every layer and direction, zeros where it has no biases."""
    for own in layer.all_weights:
        weights: list[torch.Tensor] = list(own[:2])
        biases: list[torch.Tensor] = list(own[2:]) or [weights[0].new_zeros(len(weights[0]))] * 2
        yield (weights[0], weights[1]), (biases[0], biases[1])


class Peepholes(nn.Module):
    """What a `GravesLSTM` computes when it does not learn, called as it is."""

    def __init__(self, original: GravesLSTM, form: type[Direction]) -> None:
        super().__init__()
        self.input_size, self.hidden_size = original.input_size, original.hidden_size
        weights = original.input_weights.t().contiguous(), original.recurrent_weights.t().contiguous()
        biases = original.bias, torch.zeros_like(original.bias)
        self.direction = form("LSTM", weights, biases, peepholes=original.peepholes)

    def forward(self, inputs: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """Map BTF floats (or BT integers, meant one-hot) and the state before them to outputs_BTH and the state."""
        if not inputs.is_floating_point():
            inputs = functional.one_hot(inputs, self.input_size).to(torch.float32)
        if state is None:
            zeros = inputs.new_zeros(inputs.shape[0], self.hidden_size)
            state = (zeros, zeros.clone())
        outputs_TBH, after = self.direction(inputs.transpose(0, 1), state)
        return outputs_TBH.transpose(0, 1), after
