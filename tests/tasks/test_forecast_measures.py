"""Measures of forecasts: what they are by definition, and beside the value of a season ago."""

import math

import numpy as np
import pytest

from rayrnn.tasks.forecast_measures import (
    Forecasts,
    Sums,
    naive_error,
    naive_quantiles,
    seasonal_naive,
    sums_of,
)

NOTHING = np.zeros((0, 1, 1, 1))


def one_window(truths: list[float], points: list[float], scale: float) -> Forecasts:
    shape = (1, len(truths), 1)
    return Forecasts(np.reshape(truths, shape), np.reshape(points, shape), NOTHING, np.array([[scale]]))


def test_the_measures_of_a_window_are_what_their_papers_say() -> None:
    found = sums_of(one_window([1.0, 4.0], [2.0, 2.0], 3.0), (), None).measures(with_spread=False)
    assert found["mae"] == 1.5
    assert found["rmse"] == pytest.approx(math.sqrt(2.5))
    assert found["mase"] == pytest.approx(1.5 / 3)
    assert found["smape"] == pytest.approx((200 / 3 + 400 / 6) / 2)


def test_nothing_of_nothing_is_no_error() -> None:
    assert sums_of(one_window([0.0], [0.0], 1.0), (), None).measures(with_spread=False)["smape"] == 0


def test_the_seasonal_naive_forecast_repeats_the_last_season() -> None:
    history = np.arange(10.0)[:, None]
    assert seasonal_naive(history, 1, (1, 2, 5)).ravel().tolist() == [9, 9, 9]
    assert seasonal_naive(history, 4, (1, 2, 4, 5, 9)).ravel().tolist() == [6, 7, 9, 6, 6]


@pytest.mark.parametrize("season", [1, 4, 12])
def test_the_mase_of_the_seasonal_naive_forecast_is_1_on_its_own_history(season: int) -> None:
    series = np.random.default_rng(season).normal(size=(400, 1)).cumsum(0)
    total = Sums()
    for origin in range(season, 399):
        history = series[: origin + 1]
        truths, points = series[[origin + 1]][None], seasonal_naive(history, season, (1,))[None]
        total += sums_of(Forecasts(truths, points, NOTHING, naive_error(series, season)[None]), (), None)
    assert total.measures(with_spread=False)["mase"] == pytest.approx(1, rel=0.01)


def test_a_history_that_never_changes_scales_nothing() -> None:
    assert naive_error(np.ones((9, 1)), 2).tolist() == [0]
    total = sums_of(one_window([1.0], [2.0], 0.0), (), None) + sums_of(one_window([1.0], [3.0], 4.0), (), None)
    assert (total.windows, total.flat) == (2, 1)
    assert total.measures(with_spread=False)["mase"] == 0.5
    assert math.isnan(sums_of(one_window([1.0], [2.0], 0.0), (), None).measures(with_spread=False)["mase"])


def test_the_crps_of_a_normal_distribution_is_the_known_one() -> None:
    levels = tuple((step + 0.5) / 50 for step in range(50))
    history = np.cumsum(np.random.default_rng(5).normal(size=(5000, 1)), axis=0)
    quantiles = naive_quantiles(history, 1, (1,), levels)[:, None]
    deviation = math.sqrt(((history[1:] - history[:-1]) ** 2).mean())
    truths = history[-1:][None] + 0.7 * deviation
    own = Forecasts(truths, history[-1:][None], quantiles, np.ones((1, 1)))
    found = sums_of(own, levels, (quantiles[5], quantiles[44])).measures(with_spread=True)
    z = 0.7
    density, below = math.exp(-z * z / 2) / math.sqrt(2 * math.pi), 0.5 * (1 + math.erf(z / math.sqrt(2)))
    # Gneiting and Raftery 2007, equation 21
    due = deviation * (z * (2 * below - 1) + 2 * density - 1 / math.sqrt(math.pi))
    assert found["crps"] == pytest.approx(due, rel=0.01)
    assert found["coverage"] == 1


def test_the_crps_of_a_certain_answer_is_its_absolute_error() -> None:
    levels = (0.1, 0.5, 0.9)
    certain = Forecasts(np.full((1, 1, 1), 5.0), np.full((1, 1, 1), 3.0), np.full((3, 1, 1, 1), 3.0), np.ones((1, 1)))
    assert sums_of(certain, levels, None).measures(with_spread=True)["crps"] == pytest.approx(2)


def test_the_spread_of_the_naive_forecast_grows_with_the_seasons_between() -> None:
    history = np.array([[0.0], [1.0]] * 10) + np.arange(20)[:, None]
    at_hand = naive_quantiles(history, 2, (1, 2, 3, 4, 5), (0.5, 0.9))
    assert at_hand[0].ravel().tolist() == seasonal_naive(history, 2, (1, 2, 3, 4, 5)).ravel().tolist()
    spread = (at_hand[1] - at_hand[0]).ravel()
    assert (spread / spread[0]).tolist() == pytest.approx([1, 1, math.sqrt(2), math.sqrt(2), math.sqrt(3)])
