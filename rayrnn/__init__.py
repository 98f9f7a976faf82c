"""Recurrent networks trained on a Ray cluster by periodic parameter averaging.

What a program needs stands here, loaded when it is first asked for: `import rayrnn` loads neither torch nor Ray.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rayrnn.dl4j.importing import import_dl4j
    from rayrnn.generation import Drawing, generate
    from rayrnn.given_data import sequences
    from rayrnn.pictures import Begun, draw_images
    from rayrnn.prediction.detect import detect
    from rayrnn.prediction.evaluate import evaluate
    from rayrnn.prediction.predict import predict, predictions
    from rayrnn.prediction.rolling import evaluate_forecasts
    from rayrnn.recipe import load_recipe
    from rayrnn.reporting.report import write_report
    from rayrnn.runs.directory import open_run
    from rayrnn.streaming.following import follow
    from rayrnn.training.driver import train

_HOMES = {
    "Begun": "rayrnn.pictures",
    "Drawing": "rayrnn.generation",
    "detect": "rayrnn.prediction.detect",
    "draw_images": "rayrnn.pictures",
    "evaluate": "rayrnn.prediction.evaluate",
    "evaluate_forecasts": "rayrnn.prediction.rolling",
    "follow": "rayrnn.streaming.following",
    "generate": "rayrnn.generation",
    "import_dl4j": "rayrnn.dl4j.importing",
    "load_recipe": "rayrnn.recipe",
    "open_run": "rayrnn.runs.directory",
    "predict": "rayrnn.prediction.predict",
    "predictions": "rayrnn.prediction.predict",
    "sequences": "rayrnn.given_data",
    "train": "rayrnn.training.driver",
    "write_report": "rayrnn.reporting.report",
}

__all__ = [
    "Begun",
    "Drawing",
    "detect",
    "draw_images",
    "evaluate",
    "evaluate_forecasts",
    "follow",
    "generate",
    "import_dl4j",
    "load_recipe",
    "open_run",
    "predict",
    "predictions",
    "sequences",
    "train",
    "write_report",
]


# in `python -m rayrnn.cli` the current directory comes first, where a user's own numpy.py may lie
_IS_COMMAND = sys.argv[:1] == ["-m"] and "rayrnn.cli" in sys.orig_argv and not sys.flags.safe_path
if _IS_COMMAND and not __file__.startswith(f"{sys.path[0]}{os.sep}"):
    del sys.path[0]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'rayrnn' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
