"""Graves' LSTM with peepholes, its gradient written by hand.

Shapes: B batch, T time, F features, H hidden; 4 gates in the order i, f, g, o.
"""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class GravesLSTM(nn.Module):
    """One layer of the LSTM of Graves (2013, "Generating sequences with recurrent neural networks", equations 7-11).

        i = sigmoid(W_i x + R_i h' + p_i c' + b_i)      c = f c' + i g
        f = sigmoid(W_f x + R_f h' + p_f c' + b_f)      o = sigmoid(W_o x + R_o h' + p_o c + b_o)
        g = tanh   (W_g x + R_g h'          + b_g)      h = o tanh(c)

    where h', c' come from the step before. All weights, peepholes too, start Gaussian with Xavier's variance
    2 / (fan_in + fan_out), where fan_in = H and fan_out = F + H as in DL4J's GravesLSTM; the forget gate's bias starts
    at 1, all others at 0.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.input_weights = nn.Parameter(torch.empty(input_size, 4 * hidden_size))
        self.recurrent_weights = nn.Parameter(torch.empty(hidden_size, 4 * hidden_size))
        self.peepholes = nn.Parameter(torch.empty(3, hidden_size))
        self.bias = nn.Parameter(torch.empty(4 * hidden_size))
        self._initialise()

    def forward(
        self, inputs: torch.Tensor, state: tuple[torch.Tensor, ...] | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Map BTF floats (or BT integers, meant one-hot) and the state before them to outputs_BTH and the state after.

        The state is (hidden_BH, memory_BH); None stands for zeros.
        """
        projected_TBG = self._project(inputs)
        if state is None:
            zeros = projected_TBG.new_zeros(projected_TBG.shape[1], self.hidden_size)
            state = (zeros, zeros)
        hidden, memory = state
        outputs_TBH, memory = _Recurrence.apply(  # type: ignore[no-untyped-call]
            projected_TBG, self.recurrent_weights, self.peepholes, hidden, memory
        )
        return outputs_TBH.transpose(0, 1), (outputs_TBH[-1], memory)

    def _initialise(self) -> None:
        fan_in, fan_out = self.hidden_size, self.input_size + self.hidden_size
        deviation = (2.0 / (fan_in + fan_out)) ** 0.5
        for weights in (self.input_weights, self.recurrent_weights, self.peepholes):
            nn.init.normal_(weights, std=deviation)
        nn.init.zeros_(self.bias)
        nn.init.ones_(self.bias[self.hidden_size : 2 * self.hidden_size])

    def _project(self, inputs: torch.Tensor) -> torch.Tensor:
        """All steps' input projections at once; a one-hot vector times the weights is one of their rows."""
        if inputs.is_floating_point():
            return functional.linear(inputs.transpose(0, 1), self.input_weights.t(), self.bias)
        return functional.embedding(inputs.transpose(0, 1), self.input_weights) + self.bias


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, projected: Any, weights: Any, peepholes: Any, hidden: Any, memory: Any) -> Any:
        T, B, _ = projected.shape
        H = hidden.shape[1]
        gates = projected.new_empty(T, B, 4, H)
        hiddens = projected.new_empty(T + 1, B, H)
        memories = projected.new_empty(T + 1, B, H)
        tanhs = projected.new_empty(T, B, H)
        hiddens[0], memories[0] = hidden, memory
        for t in range(T):
            torch.addmm(projected[t], hiddens[t], weights, out=gates[t].view(B, 4 * H))
            i_f, g, o = gates[t, :, :2], gates[t, :, 2], gates[t, :, 3]
            i_f.addcmul_(memories[t].unsqueeze(1), peepholes[:2]).sigmoid_()
            g.tanh_()
            torch.mul(i_f[:, 1], memories[t], out=memories[t + 1]).addcmul_(i_f[:, 0], g)
            o.addcmul_(memories[t + 1], peepholes[2]).sigmoid_()
            torch.tanh(memories[t + 1], out=tanhs[t])
            torch.mul(o, tanhs[t], out=hiddens[t + 1])
        ctx.save_for_backward(weights, peepholes, gates, hiddens, memories, tanhs)
        return hiddens[1:].clone(), memories[T].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Any, d_memory: Any) -> Any:
        weights, peepholes, gates, hiddens, memories, tanhs = ctx.saved_tensors
        T, B, _, H = gates.shape
        i, f, g, o = gates.unbind(2)
        d_gates = torch.empty_like(gates)
        d_o = o * (1 - o) * tanhs
        through_output = o * (1 - tanhs * tanhs) + d_o * peepholes[2]
        torch.mul(i * (1 - i), g, out=d_gates[:, :, 0])
        torch.mul(f * (1 - f), memories[:-1], out=d_gates[:, :, 1])
        torch.mul(1 - g * g, i, out=d_gates[:, :, 2])
        d_gates[:, :, 3] = d_o
        through_memory = f + d_gates[:, :, 0] * peepholes[0] + d_gates[:, :, 1] * peepholes[1]
        d_memory = d_memory.clone()
        d_hidden = d_outputs[T - 1].clone()
        transposed = weights.t()
        for t in range(T - 1, -1, -1):
            d_memory.addcmul_(d_hidden, through_output[t])
            d_gates[t, :, 3].mul_(d_hidden)
            d_gates[t, :, :3].mul_(d_memory.unsqueeze(1))
            d_memory.mul_(through_memory[t])
            if t:
                torch.addmm(d_outputs[t - 1], d_gates[t].view(B, 4 * H), transposed, out=d_hidden)
        d_flat = d_gates.view(T * B, 4 * H)
        d_weights = hiddens[:-1].reshape(T * B, H).t() @ d_flat
        d_peepholes = torch.stack(
            [
                (d_gates[:, :, 0] * memories[:-1]).sum((0, 1)),
                (d_gates[:, :, 1] * memories[:-1]).sum((0, 1)),
                (d_gates[:, :, 3] * memories[1:]).sum((0, 1)),
            ]
        )
        return d_gates.view(T, B, 4 * H), d_weights, d_peepholes, d_gates[0].view(B, 4 * H) @ transposed, d_memory
