"""Forecasts beside NeuralForecast's LSTM and DeepAR: how good, and after how many seconds, on the same data.

    python -m venv neural && neural/bin/pip install torch==2.13.0 neuralforecast==3.3.0 statsmodels==0.15.0
    python -m benchmarks.forecast --neural neural/bin/python [--sets airlines economy monthly counts] [--out FILE.json]

NeuralForecast lives in an environment of its own, whose Python is told: rayrnn does not need it. Four sets of series:
`airlines` (2, monthly; NeuralForecast's own panel), `economy` (12, quarterly; statsmodels' macrodata), and two that are
made here, `monthly` (60, with a trend and a season, at levels from 10 to 10,000) and `counts` (60, daily, with weeks).
The last steps of every series are what is forecast, and are learned by nobody.

All answer the levels .1 to .9, from which MASE (of the median) and CRPS over the MASE's scale are computed here, the
same way for all, and for the seasonal naive forecast with its interval. NeuralForecast's models are made with its own
defaults. rayrnn's recipe is below, the same for all sets but for its loss; every series is divided by the mean of its
history first, which NeuralForecast does by itself in every window. Everything is learned anew for every budget: the
seconds are those of `fit`, and of `rayrnn.train`, each in a process that has loaded its libraries, Ray running.
"""

import argparse
import json
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import rayrnn
from rayrnn.cluster.connection import connect
from rayrnn.recipe import validate_recipe
from rayrnn.tasks.forecast_measures import Forecasts, Sums, naive_error, naive_quantiles, seasonal_naive, sums_of

LEVELS = tuple(round(0.1 * place, 1) for place in range(1, 10))
#: updates of NeuralForecast, and rounds of rayrnn, that are learned; the default of the first is 1,000, which takes its
#: DeepAR 20 minutes for each set on two cores
STEPS = (50, 200, 1000)
DEEPAR_STEPS = (100,)
ROUNDS = (20, 80, 240)
PLACE = Path(__file__).parent


@dataclass(frozen=True)
class Set:
    """Some series of one kind, and what is asked of them."""

    name: str
    series: list[np.ndarray]
    horizon: int
    season: int
    counts: bool = False

    @property
    def histories(self) -> list[np.ndarray]:
        """What may be learned."""
        return [series[: -self.horizon] for series in self.series]


@dataclass(frozen=True)
class Result:
    """One way, one set, one budget."""

    set: str
    way: str
    budget: int
    seconds: float
    mase: float
    crps: float
    coverage: float


def sets_of(names: list[str], neural: str) -> Iterator[Set]:
    """The sets of these names."""
    own = json.loads(asked(neural, "data"))
    for name, horizon, season in (("airlines", 12, 12), ("economy", 8, 4)):
        if name in names:
            yield Set(name, [np.array(series) for series in own[name]], horizon, season)
    chance = np.random.default_rng(1)
    if "monthly" in names:
        yield Set("monthly", [monthly(chance) for _ in range(60)], 12, 12)
    if "counts" in names:
        yield Set("counts", [daily_counts(chance) for _ in range(60)], 14, 7, counts=True)


def monthly(chance: np.random.Generator) -> np.ndarray:
    """Eleven years of a level, a trend, a season and noise that multiply."""
    steps = np.arange(132)
    level, trend = math.exp(chance.uniform(math.log(10), math.log(10_000))), chance.normal(0, 0.004)
    season = chance.normal(0, 0.2, 12)
    wander = chance.normal(0, 0.02, len(steps)).cumsum()
    wander += chance.normal(0, 0.05, len(steps))
    values: np.ndarray = level * np.exp(trend * steps + season[steps % 12] + wander)
    return values


def daily_counts(chance: np.random.Generator) -> np.ndarray:
    """Half a year of counts, more of them on some days of the week, of a mean from .5 to 30."""
    steps = np.arange(182)
    mean = math.exp(chance.uniform(math.log(0.5), math.log(30))) * np.exp(chance.normal(0, 0.5, 7))[steps % 7]
    failures = math.exp(chance.uniform(0, 3))
    values: np.ndarray = chance.negative_binomial(failures, failures / (failures + mean)).astype(float)
    return values


def by_neural(data: Set, neural: str, budgets: tuple[int, ...], deepar: tuple[int, ...]) -> Iterator[Result]:
    """What NeuralForecast's models forecast."""
    question = {
        "series": [history.tolist() for history in data.histories],
        "horizon": data.horizon,
        "levels": LEVELS,
        "counts": data.counts,
        "models": {"LSTM": budgets, "DeepAR": deepar},
    }
    for found in json.loads(asked(neural, "learn", json.dumps(question))):
        way = f"NeuralForecast {found['model']}"
        yield measured(data, way, found["steps"], found["seconds"], np.array(found["quantiles"]))


def asked(neural: str, *arguments: str) -> str:
    """What the other Python answers; it has none of our paths."""
    *words, given = (*arguments, "") if len(arguments) == 1 else arguments
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [neural, str(PLACE / "neural_forecasts.py"), *words],
        input=given,
        env=environment,
        cwd=tempfile.gettempdir(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def by_rayrnn(data: Set, loss: str, budgets: tuple[int, ...], settings: dict[str, Any]) -> Iterator[Result]:
    """What the recipe below forecasts, with this loss."""
    # of counts the mean must stay in their own units
    scales = [1.0 if loss == "negative_binomial" else max(1e-9, np.abs(one).mean()) for one in data.histories]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "series")
        place.mkdir()
        for number, (history, scale) in enumerate(zip(data.histories, scales, strict=True)):
            np.savetxt(place / f"{number:04}.csv", history / scale, fmt="%.9g")
        for rounds in budgets:
            recipe = validate_recipe(recipe_of(data, loss, rounds, str(place), settings))
            run = Path(folder, f"run-{rounds}")
            started = time.perf_counter()
            outcome = rayrnn.train(recipe, out=str(run))
            seconds = time.perf_counter() - started
            rayrnn.predict(outcome.run, str(place), Path(folder, f"{rounds}.parquet"))
            answers = pq.read_table(Path(folder, f"{rounds}.parquet")).sort_by("key").to_pylist()
            quantiles = [
                [[row[f"prediction_q{level:g}"][-1][f"0+{ahead}"] for level in LEVELS] for ahead in steps_of(data)]
                for row in answers
            ]
            own = np.array(quantiles) * np.reshape(scales, (-1, 1, 1))
            yield measured(data, f"rayrnn {loss}", rounds, seconds, own)


def steps_of(data: Set) -> range:
    """Ahead of the origin."""
    return range(1, data.horizon + 1)


def recipe_of(data: Set, loss: str, rounds: int, path: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One layer that reads the whole of a series; every step of it is an origin, from which a change is forecast."""
    return {
        "name": "forecast",
        "task": "regression",
        "data": {
            "source": "csv",
            "path": path,
            "horizon": f"1..{data.horizon}",
            "normalize": "standardize",
            "held_out": 0,
        },
        "model": {
            **{"cell": "lstm", "hidden": 64, "layers": 1, "dropout": 0.3, "dropout_at": ["last"]},
            # a mean of counts is no change of one
            "residual": loss != "negative_binomial",
        },
        "training": {
            "loss": loss,
            "quantiles": LEVELS,
            "learning_rate": 0.005,
            "schedule": "cosine",
            "batch_size": 8,
            "clip": 1.0,
            **settings,
        },
        "averaging": {"workers": min(2, len(data.series)), "frequency": 5, "rounds": rounds},
        "track": "none",
    }


def measured(data: Set, way: str, budget: int, seconds: float, quantiles: np.ndarray) -> Result:
    """Measures of quantiles [series, H, levels], in the data's own units."""
    total = Sums()
    for series, history, own_HQ in zip(data.series, data.histories, np.sort(quantiles, -1), strict=True):
        forecast = np.moveaxis(own_HQ, -1, 0)[:, None, :, None]
        scale = naive_error(history[:, None], data.season)[None]
        truth = series[-data.horizon :][None, :, None]
        total += sums_of(Forecasts(truth, forecast[4], forecast, scale), LEVELS, (forecast[0], forecast[-1]))
    found = total.measures(with_spread=True)
    return Result(data.name, way, budget, seconds, found["mase"], found["scaled_crps"], found["coverage"])


def by_naive(data: Set) -> Result:
    """The value of a season ago, with its interval."""
    ahead = tuple(steps_of(data))
    quantiles = [naive_quantiles(history[:, None], data.season, ahead, LEVELS)[..., 0].T for history in data.histories]
    points = [seasonal_naive(history[:, None], data.season, ahead)[:, 0] for history in data.histories]
    assert np.allclose(np.array(quantiles)[..., 4], points)
    return measured(data, "seasonal naive", 0, 0.0, np.array(quantiles))


def line_of(one: Result) -> str:
    """As a line of the table."""
    numbers = f"{one.budget:>8,}{one.seconds:>9.1f}{one.mase:>8.3f}{one.crps:>8.3f}{one.coverage:>7.0%}"
    return f"{one.set:<10}{one.way:<28}{numbers}"


def table(results: list[Result]) -> str:
    """All of them, a line each, and when each way was first as good as the other's best."""
    lines = [f"{'set':<10}{'way':<28}{'budget':>8}{'seconds':>9}{'MASE':>8}{'CRPS':>8}{'80 %':>7}"]
    lines += map(line_of, results)
    lines += ["", "the best of each, and the first that is as good (within 2 %) as the worse of both bests, by CRPS"]
    for name in dict.fromkeys(one.set for one in results):
        sides = [
            [one for one in results if one.set == name and one.way.startswith(side)] for side in ("rayrnn", "Neural")
        ]
        if not all(sides):
            continue
        bests = [min(side, key=lambda one: one.crps) for side in sides]
        due = 1.02 * max(best.crps for best in bests)
        for side, best in zip(sides, bests, strict=True):
            first = min((one for one in side if one.crps <= due), key=lambda one: one.seconds)
            said = f"best {best.crps:.3f} ({best.way}, {best.budget:,}); {due:.3f} after {first.seconds:.1f} s"
            lines.append(f"{name:<10}{said} ({first.way}, {first.budget:,})")
    means = {way: [one for one in results if one.way == way] for way in dict.fromkeys(one.way for one in results)}
    lines += ["", "the mean over the sets, each way at its largest budget"]
    for way, own in means.items():
        names = dict.fromkeys(one.set for one in own)
        last = [max((one for one in own if one.set == name), key=lambda one: one.budget) for name in names]
        mase, crps = (np.mean([getattr(one, key) for one in last]) for key in ("mase", "crps"))
        lines.append(f"{way:<28}{mase:>8.3f}{crps:>8.3f}   ({len(last)} sets)")
    return "\n".join(lines)


def main() -> None:
    """Learn all there is, one after the other, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neural", required=True, help="the Python of the environment that has neuralforecast")
    parser.add_argument("--sets", nargs="+", default=["airlines", "economy", "monthly", "counts"])
    parser.add_argument("--steps", nargs="+", type=int, default=STEPS)
    parser.add_argument("--deepar-steps", nargs="+", type=int, default=DEEPAR_STEPS)
    parser.add_argument("--rounds", nargs="+", type=int, default=ROUNDS)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of the recipe's training section")
    parser.add_argument("--out", type=Path, help="every result, as JSON")
    asked_for = parser.parse_args()
    settings = dict(one.split("=", 1) for one in asked_for.set)
    results: list[Result] = []
    with connect(None):
        for data in sets_of(asked_for.sets, asked_for.neural):
            losses = ("quantile", "negative_binomial" if data.counts else "student_t")
            ours = (by_rayrnn(data, loss, tuple(asked_for.rounds), settings) for loss in losses)
            budgets = tuple(asked_for.steps), tuple(asked_for.deepar_steps)
            theirs = [by_neural(data, asked_for.neural, *budgets)] if any(asked_for.steps) else []
            for one in chain([by_naive(data)], *ours, *theirs):
                results.append(one)
                print(line_of(one), flush=True)
            print(table(results), flush=True)
            if asked_for.out is not None:
                asked_for.out.write_text(json.dumps([asdict(one) for one in results], indent=1))


if __name__ == "__main__":
    main()
