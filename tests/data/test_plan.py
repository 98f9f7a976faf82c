"""What is learned when: every sequence once an epoch, the same for everybody who asks, with little padding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayrnn.data.order import WINDOW, Plan, epoch_plan, padding_share, windows_of


def plan_of(steps: np.ndarray, *, batch_size: int, seed: int = 1, indices: np.ndarray | None = None) -> Plan:
    chosen = np.arange(len(steps)) if indices is None else indices
    return Plan(steps, chosen, batch_size=batch_size, seed=seed)


def epoch(plan: Plan, number: int = 0) -> list[np.ndarray]:
    count = plan.minibatches_an_epoch
    return [plan.minibatch(number * count + place) for place in range(count)]


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=300),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 9),
    number=st.integers(0, 3),
)
def test_every_sequence_is_learned_once_an_epoch(lengths: list[int], batch_size: int, seed: int, number: int) -> None:
    plan = plan_of(np.array(lengths), batch_size=batch_size, seed=seed)
    minibatches = epoch(plan, number)
    assert sorted(np.concatenate(minibatches).tolist()) == list(range(len(lengths)))
    assert all(1 <= len(minibatch) <= batch_size for minibatch in minibatches)
    assert sum(len(minibatch) < batch_size for minibatch in minibatches) <= 1


@given(
    lengths=st.lists(st.integers(1, 9), min_size=2, max_size=80), seed=st.integers(0, 99), number=st.integers(0, 200)
)
def test_two_workers_that_ask_for_the_same_minibatch_get_the_same(lengths: list[int], seed: int, number: int) -> None:
    steps = np.array(lengths)
    asked, fresh = plan_of(steps, batch_size=3, seed=seed), plan_of(steps, batch_size=3, seed=seed)
    for other in (0, number + 50, 7):
        asked.minibatch(other)
    assert asked.minibatch(number).tolist() == fresh.minibatch(number).tolist()


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    steps = np.full(100, 5)
    plan = plan_of(steps, batch_size=10)
    first, second = np.concatenate(epoch(plan, 0)), np.concatenate(epoch(plan, 1))
    other_seed = np.concatenate(epoch(plan_of(steps, batch_size=10, seed=2)))
    assert first.tolist() != sorted(first.tolist())
    assert first.tolist() != second.tolist()
    assert first.tolist() != other_seed.tolist()


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_workers_side_by_side_learn_what_one_worker_with_the_joined_minibatch_learns(workers: int) -> None:
    steps = np.full(workers * 8 * 5, 7)
    many, one = plan_of(steps, batch_size=8), plan_of(steps, batch_size=8 * workers)
    for round_number in range(12):
        cursor = round_number * workers
        joined = np.concatenate([many.minibatch(cursor + member) for member in range(workers)])
        assert joined.tolist() == one.minibatch(round_number).tolist()


def test_only_the_chosen_sequences_are_learned() -> None:
    chosen = np.array([1, 4, 6, 7, 12])
    plan = plan_of(np.arange(1, 21), batch_size=2, indices=chosen)
    assert sorted(np.concatenate(epoch(plan)).tolist()) == chosen.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_padding_stays_under_a_tenth_on_lengths_like_japanese_vowels(seed: int) -> None:
    steps = np.random.default_rng(seed).integers(7, 30, 270)
    plan = plan_of(steps, batch_size=16, seed=seed)
    assert padding_share(steps, epoch(plan)) < 0.1
    in_order = [np.arange(start, min(start + 16, 270)) for start in range(0, 270, 16)]
    assert padding_share(steps, in_order) > 0.3


@settings(max_examples=30)
@given(
    longest=st.integers(2, 2000),
    count=st.integers(400, 5000),
    batch_size=st.sampled_from([8, 16]),
    seed=st.integers(0, 9),
)
def test_padding_stays_small_however_the_lengths_lie(longest: int, count: int, batch_size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    steps = 1 + (random.pareto(2.0, count) * longest / 4).astype(int).clip(max=longest)
    assert padding_share(steps, epoch(plan_of(steps, batch_size=batch_size, seed=seed))) < 0.2


def test_the_padding_share_counts_computed_steps() -> None:
    steps = np.array([4, 2, 3, 3])
    assert padding_share(steps, [np.array([0, 1]), np.array([2, 3])]) == pytest.approx(2 / 14)
    assert padding_share(steps, []) == 0


def test_minibatches_of_like_length_do_not_come_in_the_order_of_their_lengths() -> None:
    steps = np.repeat(np.arange(1, 41), 4)
    longest = [int(steps[minibatch].max()) for minibatch in epoch(plan_of(steps, batch_size=4))]
    assert sorted(longest) != longest
    assert sorted(longest, reverse=True) != longest


def test_large_data_is_shuffled_within_windows_of_neighbours() -> None:
    indices = np.arange(300_000)[np.arange(300_000) % 10 != 3]
    windows = windows_of(indices)
    assert [len(window) for window in windows] == [67_500] * 4
    assert np.concatenate(windows).tolist() == indices.tolist()
    minibatches = epoch_plan(np.full(300_000, 5), windows, batch_size=100, seed=1, epoch=0)
    # a minibatch reads few blocks: all minibatches of a window follow one another
    window_of = np.searchsorted([0, 75_000, 150_000, 225_000], np.concatenate(minibatches), side="right")
    assert np.count_nonzero(np.diff(window_of)) == 3
    assert sorted(np.concatenate(minibatches).tolist()) == indices.tolist()


def test_data_smaller_than_two_windows_is_shuffled_as_a_whole() -> None:
    assert len(windows_of(np.arange(2 * WINDOW - 1))) == 1
    assert len(windows_of(np.array([5]))) == 1


def test_a_million_sequences_are_planned_in_few_operations() -> None:
    steps = np.random.default_rng(1).integers(7, 30, 1_000_000)
    plan = Plan(steps, np.arange(1_000_000), batch_size=32, seed=1)
    minibatches = epoch(plan)
    assert np.bincount(np.concatenate(minibatches)).tolist() == [1] * 1_000_000
    assert padding_share(steps, minibatches) < 0.02
