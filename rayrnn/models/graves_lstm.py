"""Graves' LSTM with peepholes, its gradient written by hand.

Shapes: B batch, T time, F features, H hidden, G = 4H gates in the order i, f, g, o (input, forget, candidate, output).
"""

from contextlib import suppress
from functools import cache
from importlib import import_module
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

    Parameters: input_weights (F x G), recurrent_weights (H x G), peepholes (3 x H: i, f, o), bias (G).
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

        The state is (hidden_BH, memory_BH); None stands for zeros. Under autocast everything is computed in its dtype.
        """
        B, T = inputs.shape[:2]
        dtype = self._compute_dtype()
        projected = self._project(inputs, dtype)
        if state is None:
            zeros = projected.new_zeros(B, self.hidden_size)
            state = (zeros, zeros)
        hidden, memory = (part.to(dtype) for part in state)
        _, outputs_TBH, memory = _Recurrence.apply(  # type: ignore[no-untyped-call]
            projected, self.recurrent_weights.to(dtype), self.peepholes.to(dtype), hidden, memory, T
        )
        return outputs_TBH.transpose(0, 1), (outputs_TBH[-1], memory)

    def _initialise(self) -> None:
        fan_in, fan_out = self.hidden_size, self.input_size + self.hidden_size
        deviation = (2.0 / (fan_in + fan_out)) ** 0.5
        for weights in (self.input_weights, self.recurrent_weights, self.peepholes):
            nn.init.normal_(weights, std=deviation)
        nn.init.zeros_(self.bias)
        nn.init.ones_(self.bias[self.hidden_size : 2 * self.hidden_size])

    def _compute_dtype(self) -> torch.dtype:
        device = self.bias.device.type
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.bias.dtype

    def _project(self, inputs: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """All steps' input projections at once, (T * B) x G with all rows of one step together."""
        if inputs.is_floating_point():
            flat = inputs.transpose(0, 1).reshape(-1, self.input_size)
            return torch.addmm(self.bias.to(dtype), flat.to(dtype), self.input_weights.to(dtype))
        # a one-hot vector times the weights is one of their rows; the bias joins the smaller side of the look-up
        flat = inputs.t().reshape(-1)
        if len(flat) > self.input_size:
            return functional.embedding(flat, self.input_weights + self.bias).to(dtype)
        return (functional.embedding(flat, self.input_weights) + self.bias).to(dtype)


class _Recurrence(torch.autograd.Function):
    """Turns `gates` (the projections, (T * B) x G) into the gates' activations in place, and goes through time."""

    @staticmethod
    def forward(
        ctx: Any,
        gates: torch.Tensor,
        weights: torch.Tensor,
        peepholes: torch.Tensor,
        hidden: torch.Tensor,
        memory: torch.Tensor,
        num_steps: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        B, H = hidden.shape
        hiddens = gates.new_empty(num_steps, B, H)
        memories = gates.new_empty(num_steps + 1, B, H)  # the first is the one before
        memories[0] = memory
        go_forward = _forward_compiled if _can_be_compiled(gates) else _forward
        go_forward(gates.view(num_steps, B, 4 * H), weights, peepholes, hidden, hiddens, memories)
        ctx.mark_dirty(gates)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(weights, peepholes, hidden, gates, hiddens, memories)
        return gates, hiddens, memories[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, _: None, d_hiddens: torch.Tensor | None, d_memory: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        weights, peepholes, hidden, gates, hiddens, memories = ctx.saved_tensors
        T, B, H = hiddens.shape
        d_hiddens = torch.zeros_like(hiddens) if d_hiddens is None else d_hiddens
        d_memory = hidden.new_zeros(B, H) if d_memory is None else d_memory.clone(memory_format=torch.contiguous_format)
        d_gates = torch.empty_like(gates)
        d_peepholes = peepholes.new_zeros(3, H, dtype=torch.promote_types(gates.dtype, torch.float32))
        # a copy: multiplying by a transposed view is a quarter slower, at every step
        transposed = weights.t().contiguous()
        go_back = _backward_compiled if _can_be_compiled(gates) else _backward
        views = gates.view(T, B, 4 * H), d_gates.view(T, B, 4 * H)
        go_back(*views, transposed, peepholes, memories, d_hiddens, d_memory, d_peepholes)
        d_weights = torch.mm(hidden.t(), d_gates[:B]).addmm_(hiddens[:-1].view(-1, H).t(), d_gates[B:])
        return d_gates, d_weights, d_peepholes.to(gates.dtype), d_gates[:B] @ transposed, d_memory, None


def _can_be_compiled(gates: torch.Tensor) -> bool:
    """Whether numba is there, and its steps are for tensors of this kind."""
    return gates.is_cpu and gates.dtype == torch.float32 and compiled_steps() is not None


@cache  # no other cell waits for numba
def compiled_steps() -> Any:
    """rayrnn/models/graves_steps.py; None where there is no numba, or nowhere to keep what it compiles."""
    with suppress(ImportError, RuntimeError):
        return import_module("rayrnn.models.graves_steps")
    return None


def _forward(
    gates: torch.Tensor,
    weights: torch.Tensor,
    peepholes: torch.Tensor,
    hidden: torch.Tensor,
    hiddens: torch.Tensor,
    memories: torch.Tensor,
) -> None:
    """Go through time: turns `gates` (T x B x G) into the activations, fills `hiddens` and all but memories[0]."""
    T, B, H = hiddens.shape
    split = gates.view(T, B, 4, H)
    steps = zip(
        *(gates, split[:, :, :2], *split.unbind(2), hiddens),
        *(memories[:-1], memories[:-1].unsqueeze(2), memories[1:]),
        strict=True,
    )
    before, peep_i_and_f, peep_o = hidden, peepholes[:2], peepholes[2]
    for all_gates, i_and_f, i, f, g, o, h, c_before, c_before_twice, c in steps:
        all_gates.addmm_(before, weights)
        i_and_f.addcmul_(c_before_twice, peep_i_and_f).sigmoid_()
        g.tanh_()
        torch.mul(f, c_before, out=c).addcmul_(i, g)
        o.addcmul_(c, peep_o).sigmoid_()
        before = torch.tanh(c, out=h).mul_(o)


def _forward_compiled(
    gates: torch.Tensor,
    weights: torch.Tensor,
    peepholes: torch.Tensor,
    hidden: torch.Tensor,
    hiddens: torch.Tensor,
    memories: torch.Tensor,
) -> None:
    """What `_forward` does, with one call for each step's product and one for all the rest of it."""
    arrays = [part.detach().numpy() for part in (gates, memories, hiddens, peepholes.contiguous())]
    for t, (all_gates, before) in enumerate(zip(gates, (hidden, *hiddens[:-1]), strict=True)):
        all_gates.addmm_(before, weights)
        compiled_steps().forward(t, *arrays)


def _backward(
    gates: torch.Tensor,
    d_gates: torch.Tensor,
    transposed: torch.Tensor,
    peepholes: torch.Tensor,
    memories: torch.Tensor,
    d_hiddens: torch.Tensor,
    d_memory: torch.Tensor,
    d_peepholes: torch.Tensor,
) -> None:
    """Go back through time: fills `d_gates`, adds to `d_peepholes`, turns `d_memory` into that of the first memory."""
    T, B, H = d_hiddens.shape
    d_hidden, d_later = torch.empty_like(d_memory), gates.new_zeros(B, 4 * H)
    split, d_split = gates.view(T, B, 4, H), d_gates.view(T, B, 4, H)
    d_memory_thrice = d_memory.unsqueeze(1)
    block_length = max(1, 32768 // max(1, B * H)) if gates.is_cpu else T  # values that stay in a core's cache
    scratch = gates.new_empty(3, min(T, block_length), B, H)
    for stop in range(T, 0, -block_length):
        block = slice(max(0, stop - block_length), stop)
        d_block, c_before, c = d_split[block], memories[:-1][block], memories[1:][block]
        slopes = _local_slopes(split[block], d_block, c_before, c, peepholes, scratch[:, : len(c)])
        steps = list(zip(d_hiddens[block], d_gates[block], d_block[:, :, :3], d_block[:, :, 3], *slopes, strict=True))
        for d_output, d_all, d_ifg, d_o, slope_h, slope_c in reversed(steps):
            torch.addmm(d_output, d_later, transposed, out=d_hidden)
            d_memory.addcmul_(d_hidden, slope_h)
            d_o.mul_(d_hidden)
            d_ifg.mul_(d_memory_thrice)
            d_memory.mul_(slope_c)
            d_later = d_all
        for row, gate, by in ((0, 0, c_before), (1, 1, c_before), (2, 3, c)):
            d_peepholes[row] += torch.mul(d_block[:, :, gate], by, out=scratch[0, : len(c)]).sum((0, 1))


def _backward_compiled(
    gates: torch.Tensor,
    d_gates: torch.Tensor,
    transposed: torch.Tensor,
    peepholes: torch.Tensor,
    memories: torch.Tensor,
    d_hiddens: torch.Tensor,
    d_memory: torch.Tensor,
    d_peepholes: torch.Tensor,
) -> None:
    """What `_backward` does, with one call for each step's product and one for all the rest of it."""
    d_hidden, d_later = torch.empty_like(d_memory), gates.new_zeros(gates.shape[1:])
    tensors = gates, memories, peepholes.contiguous(), d_hidden, d_memory, d_gates, d_peepholes
    arrays = [part.detach().numpy() for part in tensors]
    steps = list(enumerate(zip(d_hiddens, d_gates, strict=True)))
    for t, (d_output, d_all) in reversed(steps):
        torch.addmm(d_output, d_later, transposed, out=d_hidden)
        compiled_steps().backward(t, *arrays)
        d_later = d_all


def _local_slopes(
    gates: torch.Tensor,
    d_gates: torch.Tensor,
    c_before: torch.Tensor,
    c: torch.Tensor,
    peepholes: torch.Tensor,
    scratch: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Everything about the derivatives that needs no going through time.

    Fills `d_gates` (T x B x 4 x H) with the slopes of c by the inputs of gates i, f, g and of h by the input of gate o.
    Returns the slopes of h by c, and of c by the c before it (T x B x H), in the scratch memory (3 x T x B x H).
    """
    sigmoid_backward, tanh_backward = (
        torch.ops.aten.sigmoid_backward.grad_input,
        torch.ops.aten.tanh_backward.grad_input,
    )
    (i, f, g, o), (d_i, d_f, d_g, d_o) = gates.unbind(2), d_gates.unbind(2)
    squashed = torch.tanh(c, out=scratch[0])
    sigmoid_backward(g, i, grad_input=d_i)
    sigmoid_backward(c_before, f, grad_input=d_f)
    tanh_backward(i, g, grad_input=d_g)
    sigmoid_backward(squashed, o, grad_input=d_o)
    slope_h = tanh_backward(o, squashed, grad_input=scratch[1]).addcmul_(d_o, peepholes[2])
    slope_c = torch.addcmul(f, d_i, peepholes[0], out=scratch[2]).addcmul_(d_f, peepholes[1])
    return slope_h, slope_c
