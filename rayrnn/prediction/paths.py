"""Ways in which a series may go on, drawn step by step: what was drawn is read like a step that came (DeepAR).

Salinas, Flunkert, Gasthaus and Januschowski 2020, "DeepAR", section 3.1. N samples of a series, K steps of each, F
numbers of a step.
"""

import zlib
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
import torch

from rayrnn.data.arrow_lists import wrap
from rayrnn.data.encoding import Numbers
from rayrnn.data.rows import step_counts
from rayrnn.errors import RunError, UsageError
from rayrnn.recipe import task_of
from rayrnn.runs.model import Trained
from rayrnn.tasks import Numeric
from rayrnn.wording import listed

#: numbers of one sequence's paths
MOST = 10**8


@dataclass(frozen=True)
class Paths:
    """How many are drawn of every series, and how long."""

    samples: int
    steps: int


def paths_asked(model: Trained, samples: int | None, steps: int | None) -> Paths | None:
    """The paths that a user asks for; None where none are.

    Raises:
        UsageError: one of the two is missing, or too small or large; or nothing can be drawn with this run.
    """
    if samples is None and steps is None:
        return None
    if samples is None or steps is None:
        there, missing = ("steps", "samples") if samples is None else ("samples", "steps")
        raise UsageError(f"{there} are given and {missing} are not: paths are drawn as --samples N of --steps K each")
    if samples < 1 or steps < 1 or samples * steps > MOST:
        raise UsageError(f"samples is {samples} and steps is {steps}: both are at least 1, and their product {MOST:,}")
    if why := _why_not(model):
        raise UsageError(f"no paths can be drawn: {why}")
    return Paths(samples, steps)


def _why_not(model: Trained) -> str | None:
    encoding, task, loss = model.encoding, task_of(model.recipe), model.recipe.training.loss
    if encoding.foretold is None:
        return "this run forecasts nothing (data.horizon: 0)"
    if not (isinstance(task, Numeric) and task.draws):
        return f"training.loss is {loss}, which is no distribution (normal, student_t, negative_binomial)"
    if encoding.foretold.horizons != (1,):
        return (
            f"each step is drawn after the one before it, and this run forecasts {encoding.foretold.describe()}: train "
            "one with data.horizon: 1"
        )
    if encoding.forecast is not None or encoding.num_inputs != encoding.targets.size:
        return (
            f"the next step is drawn and read again, and this run reads {_read_alone(model)}, which it does not "
            "forecast: train one that reads nothing but what it forecasts"
        )
    return None


def _read_alone(model: Trained) -> str:
    """The columns that are read and not forecast."""
    encoding = model.encoding
    assert encoding.foretold is not None, "something is forecast"
    names = encoding.column_names
    others = [place for place in range(len(names)) if place not in encoding.foretold.columns]
    return listed([names[place] for place in others]) or "other columns"


def no_paths(model: Trained) -> pa.Table:
    """The columns of `paths_of`, without a row."""
    width = model.encoding.targets.size
    items = cast(Numeric, task_of(model.recipe)).as_answers(np.zeros((0, width)), model.encoding)
    return _table([], [], items, Paths(1, 1))


@torch.inference_mode()
def paths_of(rows: pa.Table, model: Trained, network: torch.nn.Module, paths: Paths) -> pa.Table:
    """Paths of canonical rows: `key`, `sample` (from 0 on) and `prediction`, a list of K steps in the data's own units.

    What is drawn depends on the recipe's seed and a sequence's name, not on the sequences beside it.

    Raises:
        RunError: the network carries nothing from step to step.
    """
    encoding, task = model.encoding, cast(Numeric, task_of(model.recipe))
    keys, sizes = rows["key"].to_pylist(), step_counts(rows).tolist()
    inputs, width = cast(Numbers, encoding.inputs), encoding.targets.size
    starts = np.cumsum([0, *sizes])
    steps_SF = inputs.read(rows)
    drawn = []
    for key, start, end in zip(keys, starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        if start == end:
            continue
        with torch.random.fork_rng():
            torch.manual_seed((model.recipe.seed << 32 | zlib.crc32(key.encode())) % 2**63)
            drawn.append(_drawn(steps_SF[start:end], model, network, task, paths))
    empty = [np.zeros((0, width), np.float64)]
    numbers = np.concatenate([*empty, *(one_NKF.reshape(-1, width) for one_NKF in drawn)])
    items = task.as_answers(numbers, encoding)
    return _table(keys, sizes, items, paths)


def _table(keys: list[str], sizes: list[int], items: pa.Array, paths: Paths) -> pa.Table:
    lengths = np.array([paths.steps if size else 0 for size in sizes for _ in range(paths.samples)], np.int64)
    return pa.table(
        {
            "key": pa.array([key for key in keys for _ in range(paths.samples)], pa.string()),
            "sample": pa.array(np.tile(np.arange(paths.samples), len(keys)), pa.int64()),
            "prediction": wrap(items, lengths),
        }
    )


def _drawn(steps_SF: np.ndarray, model: Trained, network: torch.nn.Module, task: Numeric, paths: Paths) -> np.ndarray:
    """What comes after the steps of one sequence, in the data's own units: float64 [N, K, F]."""
    inputs = cast(Numbers, model.encoding.inputs)
    device = next(network.parameters()).device
    # all paths share what was read; each then goes on from a state of its own
    given = torch.from_numpy(np.ascontiguousarray(steps_SF)).to(device).expand(paths.samples, *steps_SF.shape)
    there = torch.ones(given.shape[:2], dtype=torch.bool, device=device)
    outputs_NTV, state = network(given, None, there)
    if state is None:
        raise RunError("no paths can be drawn: the network carries nothing from step to step")
    found = []
    for _ in range(paths.steps):
        own_NF = task.draw(outputs_NTV[:, -1].float().cpu(), model.encoding)
        found.append(own_NF)
        following = torch.from_numpy(inputs.scaling.apply(own_NF)).to(device).unsqueeze(1)
        outputs_NTV, state = network(following, state, there[:, :1])
    return np.stack(found, axis=1)
