"""A run and labelled sequences -> a report on how good its model is, measured by tasks all over the cluster."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data

from rayrnn.cluster import connect
from rayrnn.data.encoding import Classes
from rayrnn.data.prepare import prepare
from rayrnn.data.sequences import Part, gather, results, take
from rayrnn.data.sources import read
from rayrnn.errors import UsageError
from rayrnn.recipe import needs_of, task_of
from rayrnn.runs.directory import Run
from rayrnn.runs.model import Trained, answer, trained
from rayrnn.runs.same_data import check_data, check_origin
from rayrnn.tasks.metrics import Metrics, Results
from rayrnn.wording import counted

#: a confusion matrix of more classes than this is told by its largest errors
MATRIX_CLASSES = 16
LARGEST_ERRORS = 20
#: of metrics that are not called by their names
_TITLES = {"bits_per_symbol": "bits a symbol", "macro_f1": "macro F1", "rmse": "RMSE", "mae": "MAE", "r2": "R2"}
_TITLE_WIDTH = 15
#: steps that are worth a task of their own
STEPS_A_TASK = 200_000


@dataclass(frozen=True)
class Report:
    """How good a model is on some sequences."""

    #: what the user calls them
    data: str
    task: str
    num_sequences: int
    #: without padding
    steps: int
    #: of all steps that were computed
    padding_share: float
    #: see `Task.results`
    metrics: Results
    #: of the loss
    unit: str
    #: those of the confusion matrix's rows and columns, in order
    classes: tuple[str, ...]
    #: sequences left out: without a step or a label, or (`data.on_error: skip`) unreadable
    num_left_out: int = 0
    #: what the user should know of the data
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What `rayrnn evaluate --json` prints; a number that does not exist (R2 of one answer, the loss of answers
        that are not finite) is null."""
        finite = {name: value if _is_there(value) else None for name, value in self.metrics.items()}
        values = {
            "data": self.data,
            "task": self.task,
            "sequences": self.num_sequences,
            "left_out": self.num_left_out,
            "steps": self.steps,
            "padding_share": self.padding_share,
            **finite,
        }
        return values | ({"classes": list(self.classes)} if self.classes else {})

    def to_text(self) -> str:
        """What `rayrnn evaluate` prints."""
        lines = [("data", self._describe_data()), ("loss", self._describe_loss())]
        scores = [name for name, value in self.metrics.items() if name != "loss" and not isinstance(value, list)]
        lines += [(_TITLES.get(name, name.replace("_", " ")), self._show(name)) for name in scores]
        text = "".join(f"{title:<{_TITLE_WIDTH}}{value}\n" for title, value in lines)
        matrix = self.metrics.get("confusion_matrix")
        return text + ("\n" + _confusions(self.classes, matrix) if isinstance(matrix, list) else "")

    def _describe_data(self) -> str:
        left_out = f" ({self.num_left_out:,} left out)" if self.num_left_out else ""
        return (
            f"{self.data}: {counted(self.num_sequences, 'sequence')}{left_out}, {counted(self.steps, 'step')}; "
            f"{self.padding_share:.1%} padding"
        )

    def _describe_loss(self) -> str:
        if _is_there(self.metrics["loss"]):
            return f"{self._show('loss')} {self.unit}"
        return "none: some of the network's answers are not finite, and what follows means little"

    def _show(self, name: str) -> str:
        value = self.metrics[name]
        return f"{value:.4f}" if name in ("accuracy", "macro_f1") else f"{value:.5g}"


def _is_there(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _confusions(classes: Sequence[str], matrix: list[list[int]]) -> str:
    if len(classes) > MATRIX_CLASSES:
        return _largest_errors(classes, matrix)
    names = [name if len(name) <= 12 else f"{name[:11]}…" for name in classes]
    rows = [["true \\ answer", *names]]
    rows += [[name, *(f"{n:,}" if n else "." for n in row)] for name, row in zip(names, matrix, strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first = widths[0]
    return "".join(
        row[0].ljust(first)
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        + "\n"
        for row in rows
    )


def _largest_errors(classes: Sequence[str], matrix: list[list[int]]) -> str:
    counts = np.array(matrix)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:LARGEST_ERRORS]
    errors = [(int(counts[place]), *place) for place in zip(*np.unravel_index(order, counts.shape), strict=True)]
    lines = [f"{count:>9,}  {classes[true]} taken for {classes[said]}\n" for count, true, said in errors if count]
    return "the most frequent errors (--json has the whole confusion matrix):\n" + "".join(lines) if lines else ""


def evaluate(
    run: Run,
    *,
    path: str | Path | None = None,
    labels: str | Path | None = None,
    data: ray.data.Dataset | None = None,
    address: str | None = None,
) -> Report:
    """Measure a run's best model on what training held out; or on the sequences at `path`, or on those of `data`.

    Args:
        path: read as the run's own data was, labels and all.
        labels: where the labels of those are, if they lie beside them (as in `data.labels`).
        data: a dataset of sequences in the row schema (see rayrnn/data/rows.py).
        address: the Ray cluster; without it the one `rayrnn up` started, or a local one.

    Raises:
        UsageError: nothing was held out, and there is neither `path` nor `data`; or `labels` go with nothing.
        DataError: the data cannot be read, or has no labels, or one that was not learned.
        RunError: the run has no usable model.
        ClusterError: there is no cluster at `address`.
    """
    if labels is not None and path is None:
        raise UsageError(
            f"labels are given, {labels}, and no sequences that they belong to: give these too, --data PATH"
        )
    model = trained(run)
    if path is None and data is None and not model.recipe.data.held_out:
        raise UsageError(
            f"{run.name} held nothing out (data.held_out: 0): give it sequences to be measured on, --data PATH"
        )
    with connect(address, code=model.recipe.named_code):
        notes: list[str] = []
        name, part = _part(run, model, path, labels, data, notes)
        return replace(_measure(model, part, name), notes=tuple(notes))


def _part(
    run: Run,
    model: Trained,
    path: str | Path | None,
    labels: str | Path | None,
    data: ray.data.Dataset | None,
    notes: list[str],
) -> tuple[str, Part]:
    """The sequences to measure on, and their name; and what the user should know of them."""
    recipe = model.recipe
    if data is None and path is None:
        return f"held out of {recipe.data.describe()}", _held_out(run, model, notes)
    needs, name = needs_of(recipe), "the dataset"
    if data is None:
        name, own = str(path), None if labels is None else str(labels)
        names = model.encoding.column_names
        data = read(recipe.data, needs, where=name, labels=own, column_names=names, say=notes.append)
    sequences = gather(data, needs)
    return name, Part(sequences, np.arange(len(sequences)))


def _held_out(run: Run, model: Trained, notes: list[str]) -> Part:
    """What training held out; read again, and seen to be the same."""
    advice = "what was held out cannot be found again: give sequences to be measured on, --data PATH"
    check_origin(run, handed_over=False, advice=advice)
    prepared = prepare(model.recipe, encoding=model.encoding)
    notes += check_data(run, prepared, advice=advice)
    return prepared.held_out


def _measure(model: Trained, part: Part, name: str) -> Report:
    """Share the sequences out to tasks, and add up what they count."""
    steps = int(part.sequences.steps[part.indices].sum())
    num_tasks = max(1, min(int(ray.cluster_resources().get("CPU", 1)), math.ceil(steps / STEPS_A_TASK)))
    count = ray.remote(num_gpus=1 if ray.cluster_resources().get("GPU") else 0)(_count)
    reference = ray.put(model)
    counts = results([count.remote(reference, part, rank, num_tasks) for rank in range(num_tasks)])
    metrics: Metrics = counts[0][0]
    metrics.merge(other for other, _ in counts[1:])
    sequences, task, targets = part.sequences, task_of(model.recipe), model.encoding.targets
    return Report(
        data=name,
        task=model.recipe.task,
        num_sequences=len(part),
        # of a part nobody knows which of those left out would have been in it
        num_left_out=sequences.num_dropped + len(sequences.skipped) if len(part) == len(sequences) else 0,
        steps=steps,
        padding_share=1 - steps / sum(computed for _, computed in counts),
        metrics=task.results(metrics),
        unit=task.unit,
        classes=targets.names if isinstance(targets, Classes) else (),
    )


def _count(model: Trained, part: Part, rank: int, size: int) -> tuple[Metrics, int]:
    """The sums of one task's share, and how many steps were computed, padding too."""
    network, encoding, task = model.network(), model.encoding, task_of(model.recipe)
    metrics = task.metrics(encoding)
    own = part.indices[rank::size]
    computed = 0
    for chosen in model.minibatches(part.sequences.steps[own]):
        minibatch = task.minibatch(take(part.sequences, own[chosen]), encoding)
        computed += minibatch.mask.numel()
        for segment, outputs in answer(network, minibatch, task=task, truncate=model.recipe.training.truncate):
            task.measure(metrics, outputs, segment, encoding)
    return metrics, computed
