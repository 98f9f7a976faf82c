"""A run and labelled sequences -> how good its model is, measured by tasks all over the cluster."""

import math
from pathlib import Path

import numpy as np
import ray
import ray.data
import torch

from rayrnn.cluster import connect
from rayrnn.data.batches import collate
from rayrnn.data.encoding import Encoding
from rayrnn.data.remote import results
from rayrnn.data.sequences import gather, take
from rayrnn.data.sources import read, section_at
from rayrnn.errors import UsageError
from rayrnn.models.metrics import Metrics, metrics_for
from rayrnn.prediction.report import Report
from rayrnn.prediction.trained import Trained, answer, trained
from rayrnn.run import Run
from rayrnn.training.assignment import Part
from rayrnn.training.material import horizon, prepare

#: steps that are worth a task of their own
STEPS_A_TASK = 200_000


def evaluate(
    run: Run, *, path: str | Path | None = None, data: ray.data.Dataset | None = None, address: str | None = None
) -> Report:
    """Measure a run's best model on what training held out; or on the sequences at `path`, or on those of `data`.

    Args:
        path: read as the run's own data was, labels and all.
        data: a dataset of sequences in the row schema (see rayrnn/data/schema.py).
        address: the Ray cluster; without it the one `rayrnn up` started, or a local one.

    Raises:
        UsageError: nothing was held out, and there is neither `path` nor `data`.
        DataError: the data cannot be read, or has no labels, or one that was not learned.
        RunError: the run has no usable model.
        ClusterError: there is no cluster at `address`.
    """
    model = trained(run)
    if path is None and data is None and not model.recipe.data.held_out:
        raise UsageError(
            f"{run.name} held nothing out (data.held_out: 0): give it sequences to be measured on, --data PATH"
        )
    with connect(address):
        name, part = _part(run, model, path, data)
        return _measure(model, part, name)


def _part(run: Run, model: Trained, path: str | Path | None, data: ray.data.Dataset | None) -> tuple[str, Part]:
    """The sequences to measure on, and their name."""
    recipe = model.recipe
    if data is None and path is None:
        return f"held out of {recipe.data.describe()}", prepare(recipe, run=run).held_out
    dataset = data if data is not None else read(section_at(recipe.data, str(path)), recipe.task)
    sequences = gather(dataset, task=recipe.task, horizon=horizon(recipe))
    return "the dataset" if data is not None else str(path), Part(sequences, np.arange(len(sequences)))


def _measure(model: Trained, part: Part, name: str) -> Report:
    """Share the sequences out to tasks, and add up what they count."""
    steps = int(part.sequences.steps[part.indices].sum())
    num_tasks = max(1, min(int(ray.cluster_resources().get("CPU", 1)), math.ceil(steps / STEPS_A_TASK)))
    count = ray.remote(num_gpus=1 if ray.cluster_resources().get("GPU") else 0)(_count)
    reference = ray.put(model)
    counts = results([count.remote(reference, part, rank, num_tasks) for rank in range(num_tasks)])
    metrics: Metrics = counts[0][0]
    metrics.merge(other for other, _ in counts[1:])
    sequences = part.sequences
    return Report(
        data=name,
        task=model.recipe.task,
        num_sequences=len(part),
        # of a part nobody knows which of those left out would have been in it
        num_left_out=sequences.num_dropped + len(sequences.skipped) if len(part) == len(sequences) else 0,
        steps=steps,
        padding_share=1 - steps / sum(computed for _, computed in counts),
        metrics=metrics.compute(),
        classes=model.encoding.classes or (),
    )


def _count(model: Trained, part: Part, rank: int, size: int) -> tuple[Metrics, int]:
    """The sums of one task's share, and how many steps were computed, padding too."""
    network, encoding = model.network(), model.encoding
    metrics = metrics_for(encoding.task, encoding.num_outputs)
    own = part.indices[rank::size]
    computed = 0
    for chosen in model.minibatches(part.sequences.steps[own]):
        minibatch = collate(take(part.sequences, own[chosen]), encoding)
        computed += minibatch.mask.numel()
        for segment, outputs in answer(network, minibatch, truncate=model.recipe.training.truncate):
            metrics.update(
                _in_own_units(outputs, encoding), _in_own_units(segment.targets, encoding), segment.target_mask
            )
    return metrics, computed


def _in_own_units(numbers: torch.Tensor, encoding: Encoding) -> torch.Tensor:
    return torch.from_numpy(encoding.in_own_units(numbers.cpu().numpy())) if encoding.horizon else numbers
