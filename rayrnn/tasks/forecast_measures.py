"""How good forecasts are, beside those that anybody can make: the value of a season ago.

K origins of a series, H steps ahead of each, F numbers of a step, Q levels, S steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch


@dataclass(frozen=True)
class Forecasts:
    """Of some origins of one series: what came, and what was said of it."""

    #: [K, H, F]
    truths: np.ndarray
    points: np.ndarray
    #: quantiles [Q, K, H, F] that never fall with their level; none of an answer that has no spread
    quantiles: np.ndarray
    #: the error that one may expect of the value of a season ago, see `naive_error` [K, F]
    scales: np.ndarray


@dataclass(frozen=True)
class Sums:
    """Sums over windows: a window is one number of a step, ahead of one origin of one series."""

    windows: float = 0
    #: windows before which the series never changed from season to season: nothing can be scaled by that
    flat: float = 0
    numbers: float = 0
    squared: float = 0
    absolute: float = 0
    #: of windows
    symmetric: float = 0
    scaled: float = 0
    crps: float = 0
    scaled_crps: float = 0
    #: numbers inside of their interval
    inside: float = 0

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(Sums)))

    def measures(self, *, with_spread: bool) -> dict[str, float]:
        """By name, as `rayrnn evaluate --json` has them; NaN where there is nothing to divide by."""
        sloping = self.windows - self.flat
        found = {
            "mase": _ratio(self.scaled, sloping),
            "smape": _ratio(self.symmetric, self.windows),
            "rmse": _ratio(self.squared, self.numbers) ** 0.5,
            "mae": _ratio(self.absolute, self.numbers),
        }
        spread = {
            "crps": _ratio(self.crps, self.numbers),
            "scaled_crps": _ratio(self.scaled_crps, sloping),
            "coverage": _ratio(self.inside, self.numbers),
        }
        return found | (spread if with_spread else {})


def sums_of(forecasts: Forecasts, levels: Sequence[float], interval: tuple[np.ndarray, np.ndarray] | None) -> Sums:
    """Add up how far forecasts are from what came.

    MASE is the mean over windows of the mean absolute error, divided by the window's scale; sMAPE the mean of
    200 |y - f| / (|y| + |f|), in percent (Makridakis, Spiliotis and Assimakopoulos 2020, "The M4 Competition",
    section 2.4). CRPS is twice the pinball loss in the mean over the levels (Gneiting and Raftery 2007, section 4.2).

    Args:
        levels: of the quantiles.
        interval: between which the truth is expected: [K, H, F] each.
    """
    truths, points = forecasts.truths, forecasts.points
    errors = np.abs(truths - points)
    size = np.abs(truths) + np.abs(points)
    symmetric = np.divide(200 * errors, size, out=np.zeros_like(errors), where=size > 0)
    costs = np.zeros_like(errors)
    if len(levels):
        own = np.reshape(levels, (-1, 1, 1, 1))
        below = truths - forecasts.quantiles
        costs = 2 * np.maximum(own * below, (own - 1) * below).mean(axis=0)
    sloping = forecasts.scales > 0
    scales = np.where(sloping, forecasts.scales, 1.0)
    inside = 0 if interval is None else ((interval[0] <= truths) & (truths <= interval[1])).sum()
    return Sums(
        windows=float(sloping.size),
        flat=float((~sloping).sum()),
        numbers=float(errors.size),
        squared=float((errors**2).sum()),
        absolute=float(errors.sum()),
        symmetric=float(symmetric.mean(axis=1).sum()),
        scaled=float((errors.mean(axis=1) / scales)[sloping].sum()),
        crps=float(costs.sum()),
        scaled_crps=float((costs.mean(axis=1) / scales)[sloping].sum()),
        inside=float(inside),
    )


def naive_error(history_SF: np.ndarray, season: int) -> np.ndarray:
    """The mean absolute difference from the value of a season ago, [F]: what MASE is scaled by.

    This is the in-sample error of the seasonal naive forecast (Hyndman and Koehler 2006, "Another look at measures of
    forecast accuracy", equation 5 for season 1), as M4 has it.
    """
    differences: np.ndarray = np.abs(history_SF[season:] - history_SF[:-season]).mean(axis=0)
    return differences


def seasonal_naive(history_SF: np.ndarray, season: int, ahead: Sequence[int]) -> np.ndarray:
    """The value of the same place of the last season that is known, so many steps ahead: [H, F]."""
    steps = np.array(ahead)
    behind = season * np.ceil(steps / season).astype(int)
    found: np.ndarray = history_SF[len(history_SF) - 1 + steps - behind]
    return found


def naive_quantiles(history_SF: np.ndarray, season: int, ahead: Sequence[int], levels: Sequence[float]) -> np.ndarray:
    """Quantiles of a normal distribution around `seasonal_naive`: [Q, H, F].

    Its standard deviation is that of the differences from a season ago, times the square root of the seasons that lie
    between (Hyndman and Athanasopoulos, "Forecasting: Principles and Practice", 3rd edition, section 5.5).
    """
    differences = history_SF[season:] - history_SF[:-season]
    deviation_F = np.sqrt((differences**2).mean(axis=0))
    seasons_H = (np.array(ahead) - 1) // season + 1
    standard_Q = torch.special.ndtri(torch.tensor(levels, dtype=torch.float64)).numpy()
    spread_HF = np.sqrt(seasons_H)[:, None] * deviation_F
    found: np.ndarray = seasonal_naive(history_SF, season, ahead) + standard_Q[:, None, None] * spread_HF
    return found


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
