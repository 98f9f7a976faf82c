"""A network that does not keep the contract is told what came and what was expected, before anything is learned."""

import random
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from examples.minimal_gru import MinimalGRU
from rayrnn.errors import RecipeError
from rayrnn.models import CELLS
from rayrnn.models.contract import Form, check_contract, construct, widest
from rayrnn.models.network import Network

NUMBERS = Form(num_inputs=3, num_outputs=4, symbols=False, per_step=True)
SYMBOLS = Form(num_inputs=9, num_outputs=9, symbols=True, per_step=True)
ONE_ANSWER = Form(num_inputs=3, num_outputs=4, symbols=False, per_step=False)


class Good(nn.Module):
    """A GRU that keeps the contract; what the bad ones do otherwise stands below."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.layer = nn.GRU(num_inputs, 6, batch_first=True)
        self.out = nn.Linear(6, num_outputs)

    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
        hidden, after = self.layer(inputs, state)
        return self.out(hidden), after


class Buffered(Good):
    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__(num_inputs, num_outputs)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
        hidden, after = self.layer(inputs, state)
        return self.out(self.norm(hidden.transpose(1, 2)).transpose(1, 2)), after


class OfTheMinibatch(Buffered):
    """BatchNorm that keeps no statistics: those of the minibatch, also when it answers."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__(num_inputs, num_outputs)
        self.norm = nn.BatchNorm1d(6, track_running_stats=False)


class Counting(Good):
    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__(num_inputs, num_outputs)
        self.register_buffer("mean", torch.zeros(num_inputs), persistent=False)

    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
        self.mean += 0.1 * (inputs.mean((0, 1)) - self.mean)
        return super().forward(inputs, state, mask)


class OtherClasses(Good):
    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__(num_inputs, num_outputs + 1)


class LastStep(Good):
    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
        answers, after = super().forward(inputs, state, mask)
        return answers[:, 1:], after


class Integers(Good):
    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
        answers, after = super().forward(inputs, state, mask)
        return answers.round().long(), after


class NoState(Good):
    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
        return super().forward(inputs, state, mask)[0]


class ForgetsState(Good):
    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
        return super().forward(inputs, None, mask)[0], None


class OddState(Good):
    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
        answers, after = super().forward(inputs, None, mask)
        return answers, {"hidden": after, "step": 7}


class NanState(Good):
    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
        answers, after = super().forward(inputs, None, mask)
        return answers, after / 0 - after / 0


class NanAnswers(Good):
    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
        answers, after = super().forward(inputs, state, mask)
        return answers.log(), after


class NanGradient(Good):
    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
        answers, after = super().forward(inputs, state, mask)
        return answers + (0 * answers).abs().sqrt(), after


class Raises(Good):
    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
        raise KeyError("hidden")


class NeedsState(Good):
    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
        return super().forward(inputs, state + 0, mask)


class TakesNoMask(Good):
    def forward(self, inputs: torch.Tensor, state: Any) -> Any:  # type: ignore[override]
        return super().forward(inputs, state, torch.ones(1))


class MixesRows(Good):
    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
        return super().forward(inputs - inputs.mean(0, keepdim=True), state, mask)


class ReadsPadding(Good):
    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
        answers, after = super().forward(inputs, state, mask)
        return answers + inputs.sum((1, 2), keepdim=True), after


class CountsPadding(Good):
    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
        answers, after = super().forward(inputs, state, mask)
        return answers * inputs.shape[1], after


class LooksAhead(Good):
    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
        answers, after = super().forward(inputs, state, mask)
        return answers + (inputs * mask.unsqueeze(-1)).sum((1, 2), keepdim=True), after


class KeepsToItself(Good):
    calls = 0

    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
        self.calls += 1
        answers, after = super().forward(inputs, state, mask)
        return answers * self.calls, after


class Frozen(Good):
    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__(num_inputs, num_outputs)
        self.requires_grad_(False)


class Cut(Good):
    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
        answers, after = super().forward(inputs, state, mask)
        return answers.detach(), after


class Double(Good):
    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__(num_inputs, num_outputs)
        self.double()


class Transposed(Good):
    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__(num_inputs, num_outputs)
        self.out.weight = nn.Parameter(torch.randn(6, num_outputs).t())


class Lazy(Good):
    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__(num_inputs, num_outputs)
        self.out = nn.LazyLinear(num_outputs)  # type: ignore[assignment]


class NumpyValues(Good):
    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__(num_inputs, num_outputs)
        nn.init.constant_(self.out.bias, random.random() + np.random.default_rng().random())


class ExtraState(Good):
    def get_extra_state(self) -> object:
        return {"version": 3}

    def set_extra_state(self, state: object) -> None:
        pass


class Exits(nn.Module):
    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.out = nn.Linear(num_inputs, num_outputs)

    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
        sys.exit(4)


class SparseGradient(nn.Module):
    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_inputs, num_outputs, sparse=True)

    def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
        return self.table(inputs), None


def check(network: Callable[..., object], form: Form = NUMBERS, **more: bool) -> None:
    check_contract(lambda: construct(network, form, {}, name="mine:Net"), form, name="mine:Net", **more)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Buffered, r"changed norm\.running_mean, which is no parameter .*LayerNorm"),
        (OfTheMinibatch, r"a row's answers changed with the other rows of its minibatch"),
        (Counting, r"changed mean, which is no parameter"),
        (OtherClasses, r"answers are float32 \[3, 5, 5\] .*expected: floats \[3, 5, 4\], an answer a step"),
        (LastStep, r"answers are float32 \[3, 4, 4\] for inputs of 3 rows and 5 steps; expected: floats \[3, 5, 4\]"),
        (Integers, r"answers are int64 \[3, 5, 4\]"),
        (NoState, r"returned Tensor; expected: two things: answers, and a state or None"),
        (OddState, r"a state in which int is neither a tensor nor"),
        (NanState, r"a state that is not finite"),
        (NanAnswers, r"answers that are not finite"),
        (NanGradient, r"the gradient of .* is not finite"),
        (Raises, r"it raised KeyError: 'hidden' \(.*test_contract\.py:\d+\), for inputs float32 \[3, 5, 3\]"),
        (Exits, r"it raised SystemExit: 4 \(.*test_contract\.py:\d+\)"),
        (NeedsState, r"it raised TypeError: .*'NoneType'.* and no state"),
        (TakesNoMask, r"it raised TypeError: .*takes 3 positional arguments but 4 were given"),
        (MixesRows, r"a row's answers changed with the other rows of its minibatch \(by up to"),
        (ReadsPadding, r"what stands at padded steps \(mask False\) changed answers"),
        (CountsPadding, r"a row's answers changed with the padding after it"),
        (KeepsToItself, r"the same call twice gave different answers in eval mode"),
        (Frozen, r"6 parameters, none of which can be trained; expected: at least one"),
        (Cut, r"answers that no gradient flows through"),
        (Double, r"parameter layer\.weight_ih_l0 is torch\.float64; expected: contiguous torch\.float32"),
        (Transposed, r"parameter out\.weight is not contiguous"),
        (Lazy, r"parameter out\.weight has no shape before the first call"),
        (NumpyValues, r"out\.bias differs between two networks made after the same torch\.manual_seed"),
        (ExtraState, r"state_dict\(\) has a dict as _extra_state; expected: nothing but tensors"),
    ],
)
def test_a_network_that_breaks_the_contract_is_told_how(network: type[nn.Module], words: str) -> None:
    with pytest.raises(RecipeError, match=rf"model\.network mine:Net does not keep the contract .*{words}"):
        check(network)


def test_gradients_of_an_embedding_must_be_dense() -> None:
    with pytest.raises(RecipeError, match=r"the gradient of table\.weight is sparse"):
        check(SparseGradient, SYMBOLS)


def test_a_network_that_answers_every_step_is_none_for_one_answer_a_sequence() -> None:
    with pytest.raises(RecipeError, match=r"answers are float32 \[3, 5, 4\] .*floats \[3, 4\], an answer a sequence"):
        check(Good, ONE_ANSWER)


def test_an_answer_must_not_look_ahead_where_the_next_step_is_to_be_predicted() -> None:
    check(LooksAhead)
    with pytest.raises(RecipeError, match="a step's answers changed with the step after it"):
        check(LooksAhead, causal=True)


def test_a_state_must_carry_what_segments_need() -> None:
    check(ForgetsState)
    with pytest.raises(RecipeError, match="step by step, each with the state that the one before returned"):
        check(ForgetsState, in_pieces=True)


@pytest.mark.parametrize(
    ("network", "options", "words"),
    [
        (
            Good,
            {"hiden": 3},
            r"cannot be called with num_inputs=3, num_outputs=4, hiden=3 .*unexpected.*'hiden'",
        ),
        (nn.GRU, {}, r"cannot be made: it raised"),
        (nn.Linear, {}, r"cannot be called with num_inputs=3, num_outputs=4 .*missing a required argument"),
        (lambda num_inputs, num_outputs: [num_inputs], {}, r"made \[3\]; a torch\.nn\.Module is expected"),
        (lambda num_inputs, num_outputs: 1 // 0, {}, r"cannot be made: it raised ZeroDivisionError"),
        (lambda num_inputs, num_outputs: sys.exit(3), {}, r"cannot be made: it raised SystemExit: 3"),
    ],
)
def test_what_cannot_be_made_is_told(network: Callable[..., object], options: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=rf"model\.network mine:Net .*{words}"):
        construct(network, NUMBERS, options, name="mine:Net")


def test_a_network_is_told_what_its_inputs_and_answers_are_if_it_wants_to_know() -> None:
    def everything(**arguments: object) -> nn.Module:
        assert arguments == {"num_inputs": 3, "num_outputs": 4, "symbols": False, "per_step": True, "depth": 2}
        return nn.Identity()

    construct(everything, NUMBERS, {"depth": 2}, name="mine:Net")
    assert isinstance(construct(Good, NUMBERS, {}, name="mine:Net"), Good)


@pytest.mark.parametrize("form", [NUMBERS, SYMBOLS, ONE_ANSWER])
def test_the_example_keeps_the_contract(form: Form) -> None:
    check(MinimalGRU, form, causal=form.per_step, in_pieces=form.per_step)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", ["none", "concat"])
@pytest.mark.parametrize("form", [NUMBERS, SYMBOLS, ONE_ANSWER])
def test_our_own_network_keeps_the_contract(cell: str, bidirectional: str, form: Form) -> None:
    def ours() -> nn.Module:
        return Network(
            num_inputs=form.num_inputs,
            num_outputs=form.num_outputs,
            symbols=form.symbols,
            cell=cell,
            hidden_size=5,
            num_layers=2,
            dropout=0.3,
            bidirectional=bidirectional,
            pooling=None if form.per_step else "mean",
        )

    one_way = bidirectional == "none" and form.per_step
    check_contract(ours, form, name="ours", causal=one_way, in_pieces=one_way)


def test_the_check_leaves_chance_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check(Good)
    assert torch.equal(torch.rand(3), expected)


def test_the_widest_of_a_network_is_what_its_gates_or_its_modules_hold_of_a_step() -> None:
    lstm = Network(num_inputs=3, num_outputs=2, symbols=False, cell="lstm", hidden_size=50, num_layers=1)
    assert widest(lstm, NUMBERS) == 4 * 50

    class Wide(Good):
        """Its parameters are small, what it computes with them is not."""

        def __init__(self, num_inputs: int, num_outputs: int) -> None:
            super().__init__(num_inputs, num_outputs)
            self.spread = nn.Upsample(scale_factor=100)

        def forward(self, inputs: torch.Tensor, state: Any, mask: torch.Tensor) -> Any:
            hidden, after = self.layer(inputs, state)
            return self.out(self.spread(hidden)[..., :6]), after

    assert widest(Wide(3, 4), NUMBERS) == 600
