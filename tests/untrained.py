"""Runs whose network was never trained: what comes of a network does not depend on whether it knows anything."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rayrnn.data.prepare import prepare
from rayrnn.data.sequences import gather, take
from rayrnn.data.sources import read
from rayrnn.recipe import needs_of, task_of, validate_recipe
from rayrnn.runs.directory import Run, create_run
from rayrnn.runs.model import build_network, load_network

COUNT = 30


def make_run(path: Path, task: str, data: dict[str, Any], model: dict[str, Any] | None = None, **training: Any) -> Run:
    """A run directory with all that answering needs; the network has the values it was born with."""
    recipe = validate_recipe(
        {
            "name": "untrained",
            "task": task,
            "data": data,
            "model": {"cell": "gru", "hidden": 8, "layers": 1} | (model or {}),
            "training": {"batch_size": 4} | training,
        }
    )
    encoding = prepare(recipe).encoding
    run = create_run(path)
    run.write_recipe(recipe)
    run.write_encoding(encoding)
    torch.manual_seed(0)
    run.write_model(build_network(recipe, encoding).state_dict())
    return run


def lengths() -> list[int]:
    return [1 + (7 * number) % 12 for number in range(COUNT)]


def write_files(directory: Path, columns: Callable[[int, int], list[object]], header: str = "") -> Path:
    """One CSV a sequence: a line a step, `columns(sequence, step)`."""
    directory.mkdir()
    for number, length in enumerate(lengths()):
        lines = [",".join(map(str, columns(number, step))) for step in range(length)]
        (directory / f"{number:02d}.csv").write_text("\n".join([*filter(None, [header]), *lines]) + "\n")
    return directory


def wave(number: int, step: int) -> list[object]:
    return [round(math.sin(number + step), 4), 100 + number * step]


def outputs_of(run: Run) -> dict[str, torch.Tensor]:
    """What the network says of every sequence by itself, without padding: key -> TV, or V."""
    recipe, encoding, network = run.recipe, run.encoding, load_network(run)
    sequences = gather(read(recipe.data, needs_of(recipe)), needs_of(recipe))
    outputs = {}
    for number in range(len(sequences)):
        minibatch = task_of(recipe).minibatch(take(sequences, np.array([number])), encoding)
        with torch.no_grad():
            outputs[minibatch.keys[0]] = network(minibatch.inputs, None, minibatch.mask)[0][0]
    return outputs
