"""The elementwise part of one step of GravesLSTM and of its gradient, each one pass over memory, compiled by numba.

Shapes and names are those of `graves_lstm`: gates T x B x 4H in the order i, f, g, o, memories (T + 1) x B x H of which
the first is the one before, hiddens T x B x H, peepholes 3 x H. All are contiguous float32. The exponential is written
out so that LLVM vectorises the loops; what they compute is within some units in the last place of torch's.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float32]

_F = np.float32  # with a Python float in it numba would compute in float64
_ONE, _TWO, _HALF = _F(1), _F(2), _F(0.5)
_LARGEST = _F(87)  # exp(87) and exp(-87) are still normal numbers
_LOG2_E = _F(1 / np.log(2))
_LN2_HIGH = _F(355 / 512)  # so few bits that its product with n is exact
_LN2_LOW = _F(np.log(2) - 355 / 512)
_ROUNDER = _F(1.5 * 2**23)  # adding it rounds to an integer, which is then in the lowest bits
_C3, _C4, _C5, _C6, _C7 = (_F(1 / n) for n in (6, 24, 120, 720, 5040))

# "reassoc" is missing since _ROUNDER must be added and subtracted, "nnan" since what is not a number must stay so
_compile = njit(fastmath={"contract", "nsz"}, error_model="numpy", cache=True)


@_compile
def _scale_and_rest(x):  # type: ignore[no-untyped-def]
    """2^n and exp(r) - 1, where x = n ln 2 + r and |r| <= ln 2 / 2."""
    rounded = x * _LOG2_E + _ROUNDER
    n = rounded - _ROUNDER
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    exponent = (_F(rounded).view(np.int32) << 23) + (127 << 23)
    taylor = r + r * r * (_HALF + r * (_C3 + r * (_C4 + r * (_C5 + r * (_C6 + r * _C7)))))
    return np.int32(exponent).view(np.float32), taylor


@_compile
def _sigmoid(x):  # type: ignore[no-untyped-def]
    x = -_LARGEST if x < -_LARGEST else x
    scale, rest = _scale_and_rest(-_LARGEST if x > _LARGEST else -x)
    return _ONE / (_ONE + scale + scale * rest)


@_compile
def _tanh(x):  # type: ignore[no-untyped-def]
    doubled = -_TWO * abs(x)
    scale, rest = _scale_and_rest(-_LARGEST if doubled < -_LARGEST else doubled)
    minus = scale * rest + (scale - _ONE)  # exp(-2 |x|) - 1, exact near 0 too
    y = minus / (_TWO + minus)
    return y if x < 0 else -y


@_compile  # type: ignore[untyped-decorator]
def forward(t: int, gates: Array, memories: Array, hiddens: Array, peepholes: Array) -> None:
    """Turn the gates' inputs at step t into their activations in place, and write the step's memory and hidden."""
    _, B, H = hiddens.shape
    p_i, p_f, p_o = peepholes[0], peepholes[1], peepholes[2]
    for b in range(B):
        all_gates, c_before, c, h = gates[t, b], memories[t, b], memories[t + 1, b], hiddens[t, b]
        i, f, g, o = all_gates[:H], all_gates[H : 2 * H], all_gates[2 * H : 3 * H], all_gates[3 * H :]
        for j in range(H):
            i_j, f_j, g_j = _sigmoid(i[j] + p_i[j] * c_before[j]), _sigmoid(f[j] + p_f[j] * c_before[j]), _tanh(g[j])
            c_j = f_j * c_before[j] + i_j * g_j
            o_j = _sigmoid(o[j] + p_o[j] * c_j)
            i[j], f[j], g[j], o[j], c[j], h[j] = i_j, f_j, g_j, o_j, c_j, o_j * _tanh(c_j)


@_compile  # type: ignore[untyped-decorator]
def backward(
    t: int,
    gates: Array,
    memories: Array,
    peepholes: Array,
    d_hidden: Array,
    d_memory: Array,
    d_gates: Array,
    d_peepholes: Array,
) -> None:
    """Write d_gates of step t, take d_memory (B x H) one step back, and add to d_peepholes what the step gives."""
    B, H = d_hidden.shape
    p_i, p_f, p_o = peepholes[0], peepholes[1], peepholes[2]
    d_p_i, d_p_f, d_p_o = d_peepholes[0], d_peepholes[1], d_peepholes[2]
    for b in range(B):
        all_gates, d_all, c_before, c = gates[t, b], d_gates[t, b], memories[t, b], memories[t + 1, b]
        i, f, g, o = all_gates[:H], all_gates[H : 2 * H], all_gates[2 * H : 3 * H], all_gates[3 * H :]
        d_i, d_f, d_g, d_o = d_all[:H], d_all[H : 2 * H], d_all[2 * H : 3 * H], d_all[3 * H :]
        d_h, d_c = d_hidden[b], d_memory[b]
        for j in range(H):
            squashed = _tanh(c[j])
            d_o_j = d_h[j] * squashed * o[j] * (_ONE - o[j])
            d_c_j = d_c[j] + d_h[j] * o[j] * (_ONE - squashed * squashed) + d_o_j * p_o[j]
            d_i_j = d_c_j * g[j] * i[j] * (_ONE - i[j])
            d_f_j = d_c_j * c_before[j] * f[j] * (_ONE - f[j])
            d_p_i[j] += d_i_j * c_before[j]
            d_p_f[j] += d_f_j * c_before[j]
            d_p_o[j] += d_o_j * c[j]
            d_c[j] = d_c_j * f[j] + d_i_j * p_i[j] + d_f_j * p_f[j]
            d_g[j] = d_c_j * i[j] * (_ONE - g[j] * g[j])
            d_i[j], d_f[j], d_o[j] = d_i_j, d_f_j, d_o_j
