"""Thresholds: the quantile of normal scores, and the dynamic one that follows a series."""

import numpy as np
import pytest

from rayrnn.anomalies.intervals import intervals
from rayrnn.anomalies.thresholds import DynamicThreshold, quantile_of

PAPER = DynamicThreshold(window=2100, lowest_z=2.5, highest_z=12.0, pruning=0.13, buffer=0)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 1.0])
def test_at_least_the_share_of_the_scores_is_not_above_their_quantile(share: float) -> None:
    scores = np.random.default_rng(0).exponential(size=137)
    threshold = quantile_of(scores, share)
    assert np.mean(scores <= threshold) >= share
    assert threshold in scores
    assert not (share == 1.0 and threshold != scores.max())


def series(steps: int = 3000) -> np.ndarray:
    return np.random.default_rng(3).uniform(0.9, 1.1, steps)


def test_a_burst_of_errors_stands_out_and_nothing_else() -> None:
    scores = series()
    scores[2500:2520] = 5.0
    thresholds, above = PAPER.apply(scores, floor=0.0)
    assert intervals(above) == [(2500, 2519)]
    assert (thresholds[2500:2520] < 5.0).all()


def test_a_series_whose_errors_are_large_throughout_has_a_higher_threshold() -> None:
    scores = np.concatenate([series(), 10 * series()])
    thresholds, _ = PAPER.apply(scores, floor=0.0)
    assert thresholds[-1] > 10 > thresholds[0]


def test_nothing_below_the_floor_is_out_of_the_ordinary() -> None:
    scores = series()
    scores[2500:2520] = 5.0
    thresholds, above = PAPER.apply(scores, floor=6.0)
    assert not above.any()
    assert thresholds.min() >= 6.0


def test_an_event_that_hardly_stands_out_is_pruned() -> None:
    scores = np.ones(3000)
    scores[1000], scores[2000] = 5.0, 1.1
    low = DynamicThreshold(window=3000, lowest_z=0.5, highest_z=0.5, pruning=0.13, buffer=0)
    assert intervals(low.apply(scores, floor=0.0)[1]) == [(1000, 1000)]
    unpruned = DynamicThreshold(window=3000, lowest_z=0.5, highest_z=0.5, pruning=0.05, buffer=0)
    assert intervals(unpruned.apply(scores, floor=0.0)[1]) == [(1000, 1000), (2000, 2000)]


@pytest.mark.parametrize("scores", [np.ones(500), np.zeros(500), np.array([7.0]), np.array([1.0, 9.0])])
def test_scores_that_never_change_have_nothing_out_of_the_ordinary(scores: np.ndarray) -> None:
    thresholds, above = PAPER.apply(scores, floor=0.0)
    assert len(thresholds) == len(above) == len(scores)
    assert not above.any()


@pytest.mark.parametrize("steps", [1, 69, 70, 2099, 2100, 2101, 2171, 4000])
def test_every_step_has_a_threshold_whatever_the_length(steps: int) -> None:
    thresholds, above = PAPER.apply(series(steps), floor=0.5)
    assert (thresholds >= 0.5).all()
    assert (len(thresholds), len(above)) == (steps, steps)


def test_a_step_after_the_first_window_is_judged_by_no_later_window() -> None:
    scores = series(4000)
    whole, _ = PAPER.apply(scores, floor=0.0)
    changed = scores.copy()
    changed[3500:] = 50.0
    again, _ = PAPER.apply(changed, floor=0.0)
    np.testing.assert_array_equal(whole[:3400], again[:3400])
