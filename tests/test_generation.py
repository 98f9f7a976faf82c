"""How symbols are drawn."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rayrnn.errors import UsageError
from rayrnn.generation import Drawing, draw_symbols

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0], [0.0, 3.0, 0.0, 0.0]])


def draws(drawing: Drawing, count: int = 400) -> set[int]:
    """The symbols that are drawn from the first row of the logits."""
    random = torch.Generator().manual_seed(1)
    return {int(draw_symbols(LOGITS, drawing, random)[0]) for _ in range(count)}


def test_temperature_zero_takes_the_likeliest_symbol() -> None:
    assert draw_symbols(LOGITS, Drawing(temperature=0), torch.Generator()).tolist() == [0, 1]


def test_top_k_draws_only_the_k_likeliest() -> None:
    assert draws(Drawing(top_k=2)) == {0, 1}


def test_top_p_draws_only_the_likeliest_that_reach_the_share() -> None:
    # softmax of the first row: 0.644, 0.237, 0.087, 0.032
    assert draws(Drawing(top_p=0.6)) == {0}
    assert draws(Drawing(top_p=0.7)) == {0, 1}
    assert draws(Drawing(top_p=1.0)) == {0, 1, 2, 3}


def test_low_temperature_is_safer() -> None:
    random = torch.Generator().manual_seed(0)
    cold = [int(draw_symbols(LOGITS, Drawing(temperature=0.1), random)[0]) for _ in range(200)]
    hot = [int(draw_symbols(LOGITS, Drawing(temperature=10), random)[0]) for _ in range(200)]
    assert cold.count(0) == 200
    assert hot.count(0) < 100


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-300])
def test_the_smaller_the_temperature_the_more_it_is_zero(temperature: float) -> None:
    assert draws(Drawing(temperature=temperature), count=20) == {0}


@given(st.floats(0.01, 1), st.integers(1, 5), st.floats(0.1, 5))
def test_something_is_always_drawn(top_p: float, top_k: int, temperature: float) -> None:
    drawing = Drawing(temperature=temperature, top_k=top_k, top_p=top_p)
    drawn = draw_symbols(LOGITS, drawing, torch.Generator().manual_seed(0))
    assert all(0 <= symbol < 4 for symbol in drawn.tolist())


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.5},
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(values))):
        Drawing(**values)  # type: ignore[arg-type]
