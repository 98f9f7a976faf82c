"""Intervals: runs of steps, found, widened, sifted and merged."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayrnn.anomalies.intervals import flags, intervals, merged, overlap, widened, without_short

FLAGS = st.lists(st.booleans(), max_size=40).map(lambda values: np.array(values, bool))


@given(FLAGS)
def test_intervals_and_flags_are_inverse(some: np.ndarray) -> None:
    np.testing.assert_array_equal(flags(intervals(some), len(some)), some)


@given(FLAGS, st.integers(0, 5))
def test_widened_is_true_near_every_true(some: np.ndarray, buffer: int) -> None:
    near = [some[max(0, step - buffer) : step + buffer + 1].any() for step in range(len(some))]
    assert widened(some, buffer).tolist() == near


@given(FLAGS, st.integers(1, 5))
def test_only_short_runs_are_taken_out(some: np.ndarray, shortest: int) -> None:
    kept = [(start, end) for start, end in intervals(some) if end - start + 1 >= shortest]
    assert intervals(without_short(some, shortest)) == kept


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ([], []),
        ([(5, 9), (1, 2)], [(1, 2), (5, 9)]),
        ([(1, 5), (5, 9), (7, 8)], [(1, 9)]),
        ([(1, 4), (5, 9)], [(1, 4), (5, 9)]),
        ([(3, 3), (3, 3)], [(3, 3)]),
    ],
)
def test_intervals_that_share_a_step_become_one(given_: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    assert merged(given_) == expected


@pytest.mark.parametrize(
    ("other", "share"), [((0, 4), False), ((0, 5), True), ((7, 7), True), ((9, 12), True), ((10, 12), False)]
)
def test_both_ends_belong_to_an_interval(other: tuple[int, int], share: bool) -> None:
    assert overlap((5, 9), other) is share
    assert overlap(other, (5, 9)) is share
