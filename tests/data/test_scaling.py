"""Scaling: what many blocks say together is what one would; constant features stay as they are."""

import json
from functools import reduce
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from rayrnn.data.arrow_lists import side_by_side, wrap
from rayrnn.data.encoding import Numbers, Scaling
from rayrnn.data.fitting import fit_scaling, merge, moments_of


def block(sequences: list[np.ndarray]) -> ray.ObjectRef:
    values = np.concatenate(sequences).astype(np.float32)
    lists = wrap(side_by_side(values.reshape(-1), values.shape[1]), np.array([len(steps) for steps in sequences]))
    return ray.put(pa.table({"values": lists}))


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=40),
    st.lists(st.integers(1, 40), max_size=4, unique=True),
)
def test_merged_moments_are_those_of_the_whole(column: list[float], cuts: list[int]) -> None:
    values = np.array(column, np.float32)[:, None]
    ends = [0, *sorted(cut for cut in cuts if cut < len(values)), len(values)]
    merged = reduce(merge, [moments_of(values[start:end]) for start, end in pairwise(ends)])
    whole = values.astype(np.float64)
    assert merged.count == len(values)
    np.testing.assert_allclose(merged.mean, whole.mean(axis=0), rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(merged.squares, whole.var(axis=0) * len(values), rtol=1e-6, atol=1e-3)
    assert (merged.lowest, merged.highest) == (values.min(), values.max())


def test_small_changes_around_a_large_mean_survive() -> None:
    random = np.random.default_rng(0)
    parts = [random.integers(0, 2, size=(1000, 1)).astype(np.float32) * 2 + 16_000_000 for _ in range(8)]
    merged = reduce(merge, map(moments_of, parts))
    assert np.sqrt(merged.squares / merged.count)[0] == pytest.approx(np.concatenate(parts).astype(np.float64).std())


def test_standardize_is_fitted_on_the_named_sequences_alone(ray_cluster: None) -> None:
    random = np.random.default_rng(0)
    sequences = [random.normal(3, 5, size=(length, 2)).astype(np.float32) for length in (4, 1, 7, 3, 9)]
    blocks, offsets = [block(sequences[:2]), block(sequences[2:])], np.array([0, 2, 5])
    scaling = fit_scaling(blocks, offsets, np.array([0, 2, 4]), kind="standardize")
    learned = np.concatenate([sequences[number] for number in (0, 2, 4)])
    scaled = scaling.apply(learned)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-6)


def test_min_max_brings_every_feature_to_zero_to_one_and_constant_ones_to_zero(ray_cluster: None) -> None:
    values = np.array([[1, 0.1], [3, 0.1], [2, 0.1]], np.float32)
    scaling = fit_scaling([block([values])], np.array([0, 1]), np.array([0]), kind="min_max")
    np.testing.assert_allclose(scaling.apply(values), [[0, 0], [1, 0], [0.5, 0]], atol=1e-7)


def test_a_constant_feature_is_not_blown_up(ray_cluster: None) -> None:
    values = np.full((999, 1), 0.1, np.float32)
    scaling = fit_scaling([block([values])], np.array([0, 1]), np.array([0]), kind="standardize")
    assert scaling.scale == (1.0,)
    np.testing.assert_allclose(scaling.apply(values), 0, atol=1e-7)


def test_none_changes_nothing(ray_cluster: None) -> None:
    values = np.array([[1, 5], [2, 9]], np.float32)
    scaling = fit_scaling([block([values])], np.array([0, 1]), np.array([0]), kind="none")
    assert scaling == Scaling("none", (0.0, 0.0), (1.0, 1.0))
    assert scaling.apply(values) is values


def test_scaling_survives_json() -> None:
    scaling = Scaling("standardize", (0.1, 1e-300), (2 / 3, 1.0))
    stored = json.dumps(Numbers(scaling).to_json())
    assert Numbers.from_json(json.loads(stored)).scaling == scaling
