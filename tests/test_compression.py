"""Encoding for slow links: how much it may lose, that nothing stays lost, and that all decode the same bits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rayrnn.averaging.compression import (
    BLOCK,
    TOP,
    Differences,
    Message,
    Wire,
    decode,
    encode,
    num_encoded,
    weighted_mean,
)

WIRES: list[Wire] = ["bfloat16", "int8"]
#: of a float32
SMALLEST = 2.0**-149
TINY = torch.finfo(torch.float32).tiny

wires = st.sampled_from(WIRES)
#: denormal, ordinary and huge ones
finite = st.floats(-(2.0**126), 2.0**126, width=32)
#: three blocks at most, the last of them not always whole
vectors = st.builds(
    lambda few, repeats, seed: torch.tensor(few * repeats)[torch.randperm(len(few) * repeats, generator=seeded(seed))],
    st.lists(finite, min_size=1, max_size=60),
    st.integers(1, 40),
    st.integers(0, 9),
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def largest_of_block(values: torch.Tensor) -> torch.Tensor:
    """For each value the largest magnitude in its block."""
    return torch.cat([block.abs().amax().expand(len(block)) for block in values.split(BLOCK)])


@given(vectors)
def test_bfloat16_loses_at_most_a_256th_of_each_value(values: torch.Tensor) -> None:
    lost = (decode(encode(values, "bfloat16"), "bfloat16").double() - values.double()).abs()
    assert (lost <= values.double().abs() / 256 + TINY / 256).all()


@given(vectors)
def test_int8_loses_at_most_half_a_127th_of_the_largest_value_of_the_block(values: torch.Tensor) -> None:
    lost = (decode(encode(values, "int8"), "int8").double() - values.double()).abs()
    # a block whose 127th is not even a normal number is lost whole, to be fed back
    bound = largest_of_block(values).double() / TOP * 0.5001
    assert (lost <= torch.where(bound < TINY, TOP * TINY, bound)).all()


@given(vectors, wires)
def test_what_is_decoded_needs_as_many_bytes_as_said_and_is_encoded_without_loss(
    values: torch.Tensor, wire: Wire
) -> None:
    encoded = encode(values, wire)
    assert encoded.dtype == torch.uint8
    assert encoded.numel() == num_encoded(values.numel(), wire)
    once = decode(encoded, wire)
    assert once.shape == values.shape
    if wire == "bfloat16":
        assert torch.equal(decode(encode(once, wire), wire), once)


@pytest.mark.parametrize("wire", ["float32", *WIRES])
@pytest.mark.parametrize("num_values", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_any_number_of_values_can_be_encoded(wire: Wire, num_values: int) -> None:
    encoded = encode(torch.ones(num_values), wire)
    assert encoded.numel() == num_encoded(num_values, wire)
    torch.testing.assert_close(decode(encoded, wire), torch.ones(num_values))


def test_float32_loses_nothing() -> None:
    values = torch.randn(2000, generator=seeded(1))
    assert torch.equal(decode(encode(values, "float32"), "float32"), values)


def test_two_bytes_or_one_a_value_and_four_a_block_travel() -> None:
    sizes = [num_encoded(10 * BLOCK, wire) for wire in ("float32", "bfloat16", "int8")]
    assert sizes == [40 * BLOCK, 20 * BLOCK, 10 * BLOCK + 40]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("value", [0.0, -0.0, SMALLEST, -100 * SMALLEST, TINY, 1e-30, 1e30])
def test_zeros_and_numbers_at_the_ends_of_the_range_stay_what_they_are_or_zero(wire: Wire, value: float) -> None:
    decoded = decode(encode(torch.full((10,), value), wire), wire)
    assert torch.isfinite(decoded).all()
    torch.testing.assert_close(decoded, torch.full((10,), value), rtol=1 / 256, atol=TOP * TINY)


@pytest.mark.parametrize("spoilt", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_spoils_its_own_block_at_most(spoilt: float) -> None:
    values = torch.ones(2 * BLOCK)
    values[3] = spoilt
    rounded, scaled = (decode(encode(values, wire), wire) for wire in WIRES)
    assert torch.equal(rounded, values) or (rounded[3].isnan() and rounded.isnan().sum() == 1)
    assert scaled[:BLOCK].isnan().all()
    assert torch.equal(scaled[BLOCK:], values[BLOCK:])


@given(st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=50), wires, st.integers(1, 60))
def test_with_error_feedback_what_arrives_in_all_rounds_is_all_that_was_learned(
    moves: list[float], wire: Wire, rounds: int
) -> None:
    """Every round the worker moves by the same; without feedback int8 would lose the small moves every time."""
    move = torch.tensor(moves)
    differences = Differences(torch.zeros_like(move), wire=wire)
    arrived = torch.zeros_like(move)
    for _ in range(rounds):
        encoded, lost = differences.encode(differences.common + move)
        arrived += decode(encoded, wire)
        differences.settle(differences.common, lost)
    # whatever the number of rounds, no more is missing than one encoding loses
    largest = move.abs().amax()
    assert (arrived - rounds * move).abs().amax() <= largest / 100 + rounds * largest * 1e-6 + TOP * TINY


def test_without_error_feedback_small_moves_would_never_arrive() -> None:
    move = torch.tensor([1.0, 0.003])
    differences = Differences(torch.zeros(2), wire="int8")
    arrived = torch.zeros(2)
    for _ in range(1000):
        encoded, lost = differences.encode(move)
        assert decode(encode(move, "int8"), "int8")[1] == 0
        arrived += decode(encoded, "int8")
        differences.settle(torch.zeros(2), lost)
    torch.testing.assert_close(arrived / 1000, move, rtol=1e-2, atol=0)


def test_encoding_changes_nothing_until_it_is_settled() -> None:
    differences = Differences(torch.zeros(100), wire="int8")
    parameters = torch.randn(100, generator=seeded(2))
    first, second = differences.encode(parameters), differences.encode(parameters)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not differences.residual.any()


def test_parameters_that_are_not_finite_are_seen_by_what_they_lose() -> None:
    for wire in WIRES:
        for spoilt in (float("nan"), float("inf"), torch.finfo(torch.float32).max * 1.0):
            _, lost = Differences(torch.full((3,), -1e38), wire=wire).encode(torch.tensor([1.0, spoilt, 2.0]))
            assert not lost.isfinite().all()


@given(st.lists(vectors, min_size=1, max_size=3), wires)
def test_a_message_is_read_from_its_bytes_wherever_they_lie(parts: list[torch.Tensor], wire: Wire) -> None:
    encoded = encode(parts[0], wire)
    exact = parts[-1]
    own = Message(torch.tensor([7.0, 1e300, 0.1], dtype=torch.float64), exact, encoded)
    content = own.to_bytes()
    odd = torch.cat([torch.zeros(1, dtype=torch.uint8), content])[1:]
    for read in (own.split(content), own.split(odd)):
        assert torch.equal(read.numbers, own.numbers)
        assert torch.equal(read.exact, exact)
        assert torch.equal(read.encoded, encoded)
        assert torch.equal(decode(read.encoded, wire), decode(encoded, wire))


@given(st.lists(st.tuples(st.floats(-10, 10, width=32), st.integers(0, 1000)), min_size=1, max_size=5))
def test_the_mean_is_weighted(members: list[tuple[float, int]]) -> None:
    weights = [float(weight) for _, weight in members]
    if not sum(weights):
        return
    mean = weighted_mean([torch.full((3,), value) for value, _ in members], weights)
    expected = sum(value * weight for value, weight in members) / sum(weights)
    torch.testing.assert_close(mean, torch.full((3,), expected), atol=1e-4, rtol=1e-4)
