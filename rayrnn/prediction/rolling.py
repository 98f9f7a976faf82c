"""A run that forecasts and series -> how good it is, told at their last origins, beside the value of a season ago.

An origin is a step that is the last one known: the steps after it are forecast, and then compared with what came. The
network reads a sequence once: what it says at a step depends on no later one.

H steps ahead, F numbers of a step, K origins of a series (folds), Q levels, S steps.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import ray.data
import torch

from rayrnn.cluster import connect
from rayrnn.data.encoding import Encoding, Numbers
from rayrnn.data.rows import step_counts
from rayrnn.data.sequences import Part
from rayrnn.errors import DataError, UsageError
from rayrnn.prediction.evaluate import check_held_out, inside, interval_of, minibatches_of, part_of, shared_out_to_tasks
from rayrnn.recipe import task_of
from rayrnn.reporting.markup import Markup, facts, figure_alone, paragraph, table
from rayrnn.runs.directory import Run
from rayrnn.runs.model import Trained, outputs_of, trained
from rayrnn.tasks import Numeric
from rayrnn.tasks.forecast_measures import (
    Forecasts,
    Sums,
    naive_error,
    naive_quantiles,
    seasonal_naive,
    sums_of,
)
from rayrnn.wording import counted

NETWORK, NAIVE = "network", "seasonal_naive"
_TITLES = {
    **{"mase": "MASE", "smape": "sMAPE, %", "rmse": "RMSE", "mae": "MAE"},
    **{"crps": "CRPS", "scaled_crps": "scaled CRPS", "coverage": "coverage"},
}


@dataclass(frozen=True)
class RollingReport:
    """How good a run's forecasts are at some origins, beside those of the seasonal naive forecast."""

    #: what the user calls the series
    data: str
    num_sequences: int
    folds: int
    season: int
    #: steps ahead
    horizons: tuple[int, ...]
    #: of the interval that `coverage` is of: how much of the truth should lie in it; None without a spread
    interval: float | None
    #: windows before which nothing changed from season to season, which MASE leaves out; and all of them
    flat: int
    windows: int
    #: name -> value, of the network and of the seasonal naive forecast; NaN where there is none
    network: dict[str, float]
    seasonal_naive: dict[str, float]
    #: what the user should know of the data
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What `rayrnn evaluate --folds --json` prints; a number that does not exist is null."""
        of_both = {
            name: {key: value if math.isfinite(value) else None for key, value in values.items()}
            for name, values in ((NETWORK, self.network), (NAIVE, self.seasonal_naive))
        }
        return {
            "data": self.data,
            "sequences": self.num_sequences,
            "folds": self.folds,
            "season": self.season,
            "horizons": list(self.horizons),
            "windows": self.windows,
            "flat_windows": self.flat,
            "interval": self.interval,
            **of_both,
        }

    def to_text(self) -> str:
        """What `rayrnn evaluate --folds` prints."""
        rows = [("", NETWORK, "seasonal naive"), *self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            f"{title:<{widths[0]}}  {own:>{widths[1]}}  {naive:>{widths[2]}}".rstrip() for title, own, naive in rows
        ]
        return "".join(f"{line}\n" for line in (self._describe(), *lines))

    def __repr__(self) -> str:
        return self.to_text().rstrip("\n")

    def figures(self) -> tuple[Markup, ...]:
        """The same as parts of a page."""
        notes = (paragraph(note, class_="dim") for note in self.notes)
        head = ("measure", NETWORK, "seasonal naive")
        return (*notes, facts({"forecasts": self._describe()}), table(head, self._rows()))

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        return figure_alone(*self.figures())

    def _describe(self) -> str:
        ahead = counted(self.horizons[-1], "step") if len(self.horizons) == 1 else _range(self.horizons)
        flat = f"; {self.flat:,} of {counted(self.windows, 'window')} flat, without MASE" if self.flat else ""
        return (
            f"{self.data}: {counted(self.num_sequences, 'sequence')}, {counted(self.folds, 'origin')} of each, "
            f"{ahead} ahead, season {self.season}{flat}"
        )

    def _rows(self) -> list[tuple[str, str, str]]:
        titles = dict(_TITLES)
        if self.interval is not None:
            titles["coverage"] = inside(self.interval)
        return [
            (titles[name], _shown(name, value), _shown(name, self.seasonal_naive[name]))
            for name, value in self.network.items()
        ]


def evaluate_forecasts(
    run: Run,
    *,
    folds: int,
    season: int = 1,
    path: str | Path | None = None,
    data: ray.data.Dataset | None = None,
    address: str | None = None,
) -> RollingReport:
    """Measure a run's forecasts at the last origins of every series, the farthest step ahead between two of them.

    Args:
        folds: origins of every series.
        season: steps after which a series is like itself; 1 makes the last value the naive forecast.
        path: series that are read as the run's own data was; without it, or `data`, those that were held out.
        data: a dataset of sequences in the row schema (see rayrnn/data/rows.py).
        address: the Ray cluster; without it the one `rayrnn up` started, or a local one.

    Raises:
        UsageError: the run forecasts nothing, or nothing was held out and no series are given; or folds or season are
            less than 1.
        DataError: a series has too few steps, or the data cannot be read.
        RunError: the run has no usable model.
        ClusterError: there is no cluster at `address`.
    """
    if folds < 1 or season < 1:
        raise UsageError(f"folds is {folds} and season is {season}: both are at least 1")
    model = trained(run)
    if not model.encoding.ahead or not isinstance(task_of(model.recipe), Numeric):
        raise UsageError(
            f"{run.name} forecasts nothing (data.horizon: 0): --folds and --season are for forecasts; leave them out"
        )
    check_held_out(run, model, given=path is not None or data is not None)
    with connect(address, code=model.recipe.named_code):
        notes: list[str] = []
        name, part = part_of(run, model, path, None, data, notes)
        return _measured(model, part, name, folds, season, tuple(notes))


def _measured(model: Trained, part: Part, name: str, folds: int, season: int, notes: tuple[str, ...]) -> RollingReport:
    horizons, task = horizons_of(model.encoding), cast(Numeric, task_of(model.recipe))
    _check_lengths(part, folds, season, horizons[-1])
    shares: list[tuple[Sums, Sums]] = shared_out_to_tasks(_count, model, part, folds, season)
    network, naive = (sum(sums, Sums()) for sums in zip(*shares, strict=True))
    with_spread, levels = bool(task.levels), task.levels
    return RollingReport(
        data=name,
        num_sequences=len(part),
        folds=folds,
        season=season,
        horizons=horizons,
        interval=interval_of(levels),
        flat=int(network.flat),
        windows=int(network.windows),
        network=_of_interest(network.measures(with_spread=with_spread), levels),
        seasonal_naive=_of_interest(naive.measures(with_spread=with_spread), levels),
        notes=notes,
    )


def horizons_of(encoding: Encoding) -> tuple[int, ...]:
    """The steps ahead that are forecast, ascending: [H]. Number h * F + f of an answer is number f of the h-th."""
    return () if encoding.foretold is None else encoding.foretold.horizons


def _of_interest(measures: dict[str, float], levels: tuple[float, ...]) -> dict[str, float]:
    """Without the coverage where one level makes no interval."""
    return {name: value for name, value in measures.items() if name != "coverage" or len(levels) > 1}


def _check_lengths(part: Part, folds: int, season: int, farthest: int) -> None:
    """
    Raises:
        DataError: a series is too short, or there is none.
    """
    if not len(part):
        raise DataError("there are no series to measure forecasts of: give some, --data PATH")
    steps = part.sequences.steps[part.indices]
    due = folds * farthest + season + 1
    if (short := int((steps < due).sum())) == 0:
        return
    raise DataError(
        f"{short:,} of {counted(len(part), 'sequence')} {'is' if short == 1 else 'are'} too short, the shortest of "
        f"{counted(int(steps.min()), 'step')}: {counted(folds, 'origin')} with {counted(farthest, 'step')} ahead of "
        f"each, and a season of {season} before the first, are {due} steps; lower --folds or --season, or give longer "
        "ones"
    )


def _count(model: Trained, part: Part, rank: int, size: int, folds: int, season: int) -> tuple[Sums, Sums]:
    """Of a share of the series: the network's sums, and those of the seasonal naive forecast."""
    task, horizons = cast(Numeric, task_of(model.recipe)), horizons_of(model.encoding)
    ends = (task.levels[0], task.levels[-1]) if len(task.levels) > 1 else ()
    network, naive, ahead = Sums(), Sums(), np.array(horizons)
    for outputs_SV, series_SF in _answered(model, part, rank, size):
        origins = len(series_SF) - 1 - horizons[-1] * np.arange(folds, 0, -1)
        truths_KHF = series_SF[origins[:, None] + ahead]
        histories = [series_SF[: origin + 1] for origin in origins.tolist()]
        scales_KF = np.stack([naive_error(history, season) for history in histories])
        shape = truths_KHF.shape
        outputs_KV = torch.from_numpy(outputs_SV[origins])
        points_KHF = task.numbers(outputs_KV, torch.zeros(len(origins), math.prod(shape[1:])), model.encoding)[0]
        quantiles, interval = (
            task.quantiles(outputs_KV, levels, model.encoding).reshape(-1, *shape) for levels in (task.grid, ends)
        )
        own = Forecasts(truths_KHF, points_KHF.reshape(shape), quantiles, scales_KF)
        network += sums_of(own, task.grid, _pair(interval))
        naive_points = np.stack([seasonal_naive(history, season, horizons) for history in histories])
        quantiles, interval = (
            np.stack([naive_quantiles(history, season, horizons, levels) for history in histories], axis=1)
            for levels in (task.grid, ends)
        )
        naive += sums_of(Forecasts(truths_KHF, naive_points, quantiles, scales_KF), task.grid, _pair(interval))
    return network, naive


def _pair(interval: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    return (interval[0], interval[1]) if len(interval) else None


def _answered(model: Trained, part: Part, rank: int, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of every series in a share: the network's outputs at its steps, and its steps in their own units, [S, F]."""
    network = model.network()
    for _, rows in minibatches_of(model, part.sequences, part.indices[rank::size]):
        cuts = np.cumsum(step_counts(rows))[:-1]
        outputs, series = outputs_of(rows, model, network), series_of(rows, model.encoding)
        yield from zip(np.split(outputs, cuts), np.split(series, cuts), strict=True)


def series_of(rows: pa.Table, encoding: Encoding) -> np.ndarray:
    """The numbers of every step that are forecast, in the data's own units: float64 [steps of all rows, F]."""
    inputs, forecast = encoding.inputs, encoding.foretold
    assert isinstance(inputs, Numbers)
    assert forecast is not None
    scaled = inputs.read(rows)[:, list(forecast.columns)]
    return np.asarray(inputs.scaling.of(forecast.columns).undo(scaled), np.float64)


def _range(horizons: tuple[int, ...]) -> str:
    if horizons == tuple(range(horizons[0], horizons[-1] + 1)):
        return f"{horizons[0]} to {horizons[-1]} steps"
    return f"{', '.join(map(str, horizons))} steps"


def _shown(name: str, value: float) -> str:
    if not math.isfinite(value):
        return "none"
    return f"{value:.1%}" if name == "coverage" else f"{value:.4f}" if name != "smape" else f"{value:.2f}"
