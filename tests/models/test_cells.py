"""Cells: the same numbers as their written-out equations, exact gradients, and a state that can be carried."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayrnn.models import CELLS, graves_lstm
from rayrnn.models.cells import State, make_cell
from rayrnn.models.graves_lstm import GravesLSTM

ALL_CELLS = pytest.mark.parametrize("name", CELLS)


def written_out(cell: GravesLSTM, inputs_BTF: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
    """Graves' equations, one gate and one step at a time."""
    W_i, W_f, W_g, W_o = cell.input_weights.chunk(4, dim=1)
    R_i, R_f, R_g, R_o = cell.recurrent_weights.chunk(4, dim=1)
    b_i, b_f, b_g, b_o = cell.bias.chunk(4)
    p_i, p_f, p_o = cell.peepholes
    h, c = state
    outputs = []
    for x in inputs_BTF.unbind(1):
        i = torch.sigmoid(x @ W_i + h @ R_i + p_i * c + b_i)
        f = torch.sigmoid(x @ W_f + h @ R_f + p_f * c + b_f)
        g = torch.tanh(x @ W_g + h @ R_g + b_g)
        c = f * c + i * g
        o = torch.sigmoid(x @ W_o + h @ R_o + p_o * c + b_o)
        h = o * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs, dim=1), (h, c)


def graves(input_size: int, hidden_size: int, seed: int = 1) -> GravesLSTM:
    """A cell in float64 whose every parameter matters."""
    torch.manual_seed(seed)
    cell = GravesLSTM(input_size, hidden_size).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_()
    return cell


def a_state(B: int, H: int, requires_grad: bool = False) -> State:
    return tuple(torch.randn(B, H, dtype=torch.float64, requires_grad=requires_grad) for _ in range(2))


def gradients(cell: GravesLSTM, outputs: torch.Tensor, state: State) -> list[torch.Tensor]:
    """Of a loss in which every output and both parts of the last state count differently."""
    loss = (outputs * torch.linspace(1, 2, outputs.numel(), dtype=outputs.dtype).view(outputs.shape)).sum()
    loss = loss + state[0].sin().sum() + (3 * state[1]).cos().sum()
    return list(torch.autograd.grad(loss, list(cell.parameters())))


@settings(max_examples=25, deadline=None)
@given(B=st.integers(1, 4), T=st.integers(1, 6), F=st.integers(1, 4), H=st.integers(1, 5), seed=st.integers(0, 99))
def test_graves_lstm_and_its_gradients_are_those_of_the_written_out_equations(
    B: int, T: int, F: int, H: int, seed: int
) -> None:
    cell = graves(F, H, seed)
    inputs, state = torch.randn(B, T, F, dtype=torch.float64), a_state(B, H)
    outputs, after = cell(inputs, state)
    expected, expected_after = written_out(cell, inputs, state)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(after, expected_after)
    torch.testing.assert_close(gradients(cell, outputs, after), gradients(cell, expected, expected_after))


def test_graves_lstm_has_exact_gradients_when_its_steps_fill_several_blocks() -> None:
    cell = graves(3, 40)
    inputs, state = torch.randn(200, 11, 3, dtype=torch.float64), a_state(200, 40)
    outputs, after = cell(inputs, state)
    torch.testing.assert_close(gradients(cell, outputs, after), gradients(cell, *written_out(cell, inputs, state)))


@pytest.mark.parametrize(("B", "T"), [(3, 5), (1, 4), (3, 1), (1, 1)])
def test_graves_lstm_passes_gradcheck_also_for_its_first_state(B: int, T: int) -> None:
    cell = graves(2, 3)
    names = [name for name, _ in cell.named_parameters()]
    inputs = torch.randn(B, T, 2, dtype=torch.float64, requires_grad=True)

    def run(x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        parameters = dict(zip(names, values, strict=True))
        outputs, after = torch.func.functional_call(cell, parameters, (x, (h, c)))
        return outputs, *after

    assert torch.autograd.gradcheck(run, (inputs, *a_state(B, 3, requires_grad=True), *cell.parameters()))


def test_graves_lstm_passes_gradcheck_over_symbols() -> None:
    cell = graves(4, 3)
    symbols = torch.tensor([[0, 3, 3], [1, 0, 3]])
    names = [name for name, _ in cell.named_parameters()]

    def run(*values: torch.Tensor) -> torch.Tensor:
        outputs, _ = torch.func.functional_call(cell, dict(zip(names, values, strict=True)), (symbols,))
        return outputs

    assert torch.autograd.gradcheck(run, tuple(cell.parameters()))


def test_graves_lstm_takes_inputs_that_are_not_contiguous() -> None:
    cell = graves(3, 4)
    strided = torch.randn(5, 6, 2, dtype=torch.float64).permute(1, 0, 2).repeat(1, 1, 3)[:, ::2, ::2]
    assert not strided.is_contiguous()
    torch.testing.assert_close(cell(strided)[0], cell(strided.contiguous())[0])


def test_graves_lstm_gives_the_same_numbers_without_gradients() -> None:
    cell, inputs = graves(3, 4), torch.randn(2, 5, 3, dtype=torch.float64)
    with torch.no_grad():
        outputs, after = cell(inputs)
    assert not outputs.requires_grad
    expected, expected_after = cell(inputs)
    assert outputs.equal(expected)
    assert all(part.equal(other) for part, other in zip(after, expected_after, strict=True))


def test_graves_lstm_can_go_back_twice_through_a_kept_graph() -> None:
    cell = graves(3, 4)
    outputs, _ = cell(torch.randn(2, 5, 3, dtype=torch.float64))
    first = torch.autograd.grad(outputs.sum(), list(cell.parameters()), retain_graph=True)
    second = torch.autograd.grad(outputs.sum(), list(cell.parameters()))
    assert all(one.equal(other) for one, other in zip(first, second, strict=True))


def test_graves_lstm_computes_in_bf16_under_autocast_and_keeps_its_gradients_in_fp32() -> None:
    torch.manual_seed(1)
    cell, inputs = GravesLSTM(6, 16), torch.randn(4, 7, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs, after = cell(inputs, (torch.zeros(4, 16), torch.zeros(4, 16)))
    assert outputs.dtype == after[1].dtype == torch.bfloat16
    outputs.float().square().sum().backward()
    low = [parameter.grad for parameter in cell.parameters()]
    exact = torch.autograd.grad(cell(inputs)[0].square().sum(), list(cell.parameters()))
    for gradient, expected in zip(low, exact, strict=True):
        assert gradient is not None
        assert gradient.dtype == torch.float32
        assert (gradient - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize(("B", "T", "H"), [(3, 7, 37), (1, 1, 1), (40, 11, 64)])
def test_graves_lstm_gives_the_same_numbers_compiled(B: int, T: int, H: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    torch.manual_seed(1)
    cell = GravesLSTM(5, H)
    # states whose memory does not lie row after row
    inputs, state = torch.randn(B, T, 5), tuple(torch.randn(H, B).t().requires_grad_() for _ in range(2))
    runs = []
    for steps in (graves_lstm.compiled_steps(), None):
        monkeypatch.setattr(graves_lstm, "compiled_steps", lambda steps=steps: steps)
        outputs, after = cell(inputs, state)
        loss = outputs.square().sum() + after[0].sin().sum() + after[1].t().contiguous().cos().sum()
        runs.append([outputs, *after, *torch.autograd.grad(loss, [*state, *cell.parameters()])])
    torch.testing.assert_close(runs[0], runs[1], rtol=1e-4, atol=1e-5)


def test_graves_lstm_hides_no_nan_when_compiled() -> None:
    cell = graves(5, 16).float()
    with torch.no_grad():
        cell.recurrent_weights[3] = math.nan
    outputs, _ = cell(torch.randn(2, 3, 5))
    assert outputs.isnan().all()


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="there is no accelerator here")
def test_graves_lstm_gives_the_same_numbers_on_an_accelerator() -> None:
    device = torch.accelerator.current_accelerator()
    torch.manual_seed(1)
    cell, inputs = GravesLSTM(6, 16), torch.randn(4, 7, 6)
    outputs, after = cell(inputs)
    expected = gradients(cell, outputs, after)
    there = GravesLSTM(6, 16).to(device)
    there.load_state_dict(cell.state_dict())
    outputs_there, after_there = there(inputs.to(device))
    torch.testing.assert_close(outputs_there.cpu(), outputs, rtol=1e-4, atol=1e-5)
    found = torch.autograd.grad(
        (outputs_there.cpu() * torch.linspace(1, 2, outputs.numel()).view(outputs.shape)).sum()
        + after_there[0].sin().sum().cpu()
        + (3 * after_there[1]).cos().sum().cpu(),
        list(there.parameters()),
    )
    for gradient, other in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient.cpu(), other, rtol=1e-3, atol=1e-4)


def test_graves_lstm_starts_with_xavier_weights_and_an_open_forget_gate() -> None:
    torch.manual_seed(1)
    cell = GravesLSTM(300, 200)
    deviation = math.sqrt(2 / (200 + 300 + 200))
    for weights in (cell.input_weights, cell.recurrent_weights, cell.peepholes):
        assert weights.std().item() == pytest.approx(deviation, rel=0.1)
        assert abs(weights.mean().item()) < deviation / 5
    i, f, g, o = cell.bias.chunk(4)
    assert f.eq(1).all()
    assert all(bias.eq(0).all() for bias in (i, g, o))


def test_the_lstm_of_torch_starts_with_an_open_forget_gate() -> None:
    parameters = dict(make_cell("lstm", 3, 4).named_parameters())
    total = parameters["recurrence.bias_ih_l0"] + parameters["recurrence.bias_hh_l0"]
    assert total[4:8].eq(1).all()


@ALL_CELLS
def test_symbols_count_as_one_hot_vectors(name: str) -> None:
    for num_symbols in (5, 50):  # fewer and more symbols than steps
        torch.manual_seed(1)
        cell = make_cell(name, num_symbols, 6)
        symbols = torch.randint(num_symbols, (3, 7))
        vectors = torch.nn.functional.one_hot(symbols, num_symbols).float()
        outputs, expected = cell(symbols)[0], cell(vectors)[0]
        torch.testing.assert_close(outputs, expected)
        parameters = list(cell.parameters())
        torch.testing.assert_close(
            torch.autograd.grad(outputs.square().sum(), parameters),
            torch.autograd.grad(expected.square().sum(), parameters),
        )


@ALL_CELLS
def test_step_by_step_is_the_whole_sequence(name: str) -> None:
    torch.manual_seed(1)
    cell, inputs = make_cell(name, 3, 4), torch.randn(2, 6, 3)
    whole, end = cell(inputs)
    state, steps = None, []
    for step in inputs.split(1, dim=1):
        outputs, state = cell(step, state)
        steps.append(outputs)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole)
    torch.testing.assert_close(state, end)


@ALL_CELLS
def test_gradients_reach_the_state_a_segment_began_with(name: str) -> None:
    torch.manual_seed(1)
    cell, inputs = make_cell(name, 3, 4).double(), torch.randn(2, 6, 3, dtype=torch.float64)
    parameters = list(cell.parameters())
    expected = torch.autograd.grad(cell(inputs)[0].sin().sum(), parameters)
    first, state = cell(inputs[:, :2])
    second, _ = cell(inputs[:, 2:], state)
    found = torch.autograd.grad(first.sin().sum() + second.sin().sum(), parameters)
    torch.testing.assert_close(found, expected)


@ALL_CELLS
def test_the_same_seed_gives_the_same_cell(name: str) -> None:
    def values() -> list[torch.Tensor]:
        torch.manual_seed(7)
        return list(make_cell(name, 3, 4).parameters())

    assert all(one.equal(other) for one, other in zip(values(), values(), strict=True))


def test_an_unknown_cell_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'lstn' is unknown; the cells are rnn, lstm, gru, graves_lstm"):
        make_cell("lstn", 3, 4)
