"""NeuralForecast's LSTM and DeepAR on a file of series, for benchmarks/forecast.py; run by a Python that has them.

    python neural_forecasts.py data                  print the series of its own panel and of statsmodels, as JSON
    python neural_forecasts.py learn < QUESTION      learn as often as is asked, print what was forecast, as JSON

A question is {"series": [[...], ...], "horizon": H, "levels": [...], "counts": false, "models": {NAME: [STEPS, ...]}}:
of every series the steps are those to learn from. The models are made with the library's own defaults, but for the
loss.
"""

import json
import logging
import sys
import time
import warnings
from typing import Any


def main(what: str) -> None:
    """Answer one question."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    say, sys.stdout = sys.stdout, sys.stderr  # Lightning prints there
    json.dump(own_series() if what == "data" else learned(json.load(sys.stdin)), say)


def own_series() -> dict[str, list[list[float]]]:
    """Monthly passengers of two airlines; the twelve quarterly series of the United States' economy, 1959 to 2009."""
    from neuralforecast.utils import AirPassengersPanel
    from statsmodels.datasets import macrodata

    panel = AirPassengersPanel
    macro = macrodata.load_pandas().data.drop(columns=["year", "quarter"])
    return {
        "airlines": [panel[panel.unique_id == name].y.tolist() for name in panel.unique_id.unique()],
        "economy": [macro[name].tolist() for name in macro.columns],
    }


def learned(question: dict[str, Any]) -> list[dict[str, Any]]:
    """What every model forecast after so many steps: quantiles [series][H][levels], and the seconds of learning."""
    import pandas
    from neuralforecast import NeuralForecast

    rows = [
        (f"{number:04}", step, value)
        for number, series in enumerate(question["series"])
        for step, value in enumerate(series)
    ]
    frame = pandas.DataFrame(rows, columns=["unique_id", "ds", "y"])
    found = []
    for name, budgets in question["models"].items():
        for steps in budgets:
            model = make(name, question, steps)
            library = NeuralForecast(models=[model], freq=1)
            started = time.perf_counter()
            library.fit(frame)
            seconds = time.perf_counter() - started
            answers = library.predict().sort_values(["unique_id", "ds"])
            columns = sorted((column for column in answers.columns if "-" in column), key=level_of)
            assert len(columns) == len(question["levels"]), list(answers.columns)
            quantiles = answers[columns].to_numpy().reshape(len(question["series"]), question["horizon"], -1)
            found.append({"model": name, "steps": steps, "seconds": seconds, "quantiles": quantiles.tolist()})
    return found


def level_of(column: str) -> float:
    """Of a column as the library calls it: LSTM-lo-80.0, LSTM-median, LSTM-hi-80.0."""
    _, side, *width = column.split("-")
    return 0.5 + {"lo": -1, "median": 0, "hi": 1}[side] * float(*width or ["0"]) / 200


def make(name: str, question: dict[str, Any], steps: int) -> Any:
    """A model as the library makes it, that learns so many steps."""
    from neuralforecast.losses.pytorch import DistributionLoss, MQLoss
    from neuralforecast.models import LSTM, DeepAR

    quiet = {"enable_progress_bar": False, "logger": False, "enable_checkpointing": False}
    settings = {"h": question["horizon"], "max_steps": steps, "enable_model_summary": False, "accelerator": "cpu"}
    if name == "LSTM":
        return LSTM(loss=MQLoss(quantiles=question["levels"]), **settings, **quiet)
    distribution = "NegativeBinomial" if question["counts"] else "StudentT"
    return DeepAR(loss=DistributionLoss(distribution, quantiles=question["levels"]), **settings, **quiet)


if __name__ == "__main__":
    main(sys.argv[1])
