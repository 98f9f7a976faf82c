"""What a run's network answers, for its report: measured on what was held out, drawn, or looked up in the run.

N answers, V numbers or classes of each.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pyarrow as pa
import torch

from rayrnn.data.encoding import Classes
from rayrnn.data.encoding import Numbers as NumberTargets
from rayrnn.data.sequences import Part
from rayrnn.errors import RayrnnError
from rayrnn.generation import Drawing, generate
from rayrnn.prediction.evaluate import Report, held_out_of, measure, minibatches_of, shared_out_to_tasks
from rayrnn.recipe import search_of, task_of
from rayrnn.recipe.sources import OWN, check_installed
from rayrnn.reporting.answer_figures import Example, Numbers, SetCounts, by_class, examples, residuals, texts
from rayrnn.reporting.markup import Markup, count, number, paragraph, picture, section, table
from rayrnn.reporting.overview import Told
from rayrnn.runs.directory import Run
from rayrnn.runs.layout import DETECT
from rayrnn.runs.model import Trained, answer, trained
from rayrnn.runs.schema import StoredDetectors, read_stored
from rayrnn.tasks import Numeric, Searching
from rayrnn.tasks.losses import counted_numbers
from rayrnn.tasks.metrics import on_cpu

#: texts, their symbols, and images that are drawn
TEXTS, SYMBOLS = 3, 300
IMAGES = 16
EXAMPLES = 10
#: answers that residuals are drawn of
MOST_ANSWERS = 20_000
ADVICE = "put the data back where it was, or leave the answers out (--no-answers)"


def with_answers(run: Run, told: Told, *, in_full: bool) -> Told:
    """The same run with what its network answers; what cannot be computed says why instead. Ray must be there.

    Args:
        in_full: not the metrics alone.
    """
    parts, metrics = list[Markup](), dict[str, float]()
    try:
        model = trained(run)
    except RayrnnError as error:
        return replace(told, answers=(_missing("Answers", str(error), id_="answers"),))
    if in_full and task_of(model.recipe).generates:
        parts.append(_drawn(run, model))
    try:
        report, further = _judged(run, model, in_full=in_full)
        metrics = {name: value for name, value in report.metrics.items() if isinstance(value, int | float)}
        parts.append(section("On what is held out", *report.figures(), *further, id_="held-out"))
    except RayrnnError as error:
        parts.append(_missing("On what is held out", str(error), id_="held-out"))
    if in_full and (model.recipe.detect is not None or (run.path / DETECT).exists()):
        parts.append(_detector(run))
    return replace(told, answers=tuple(parts), metrics=metrics)


def _missing(title: str, why: str, *, id_: str) -> Markup:
    return section(title, paragraph(f"Not here: {why}"), id_=id_)


def _drawn(run: Run, model: Trained) -> Markup:
    """Texts, or images, as `rayrnn generate` draws them."""
    title = "Drawn by the network"
    try:
        if model.recipe.data.begin_every:
            return section(title, _images(run), id_="drawn")
        pieces = list(generate(run, prime=None, length=SYMBOLS, samples=TEXTS, drawing=Drawing()))
    except RayrnnError as error:
        return _missing(title, str(error), id_="drawn")
    drawn = ["".join(sample) for sample in zip(*pieces, strict=True)]
    said = f"{TEXTS} texts of {SYMBOLS} symbols, each symbol drawn by its probability: `rayrnn generate` draws more."
    return section(title, paragraph(said, class_="dim"), texts(drawn), id_="drawn")


def _images(run: Run) -> Markup:
    """
    Raises:
        UsageError: the library that images need is not there.
    """
    check_installed(OWN["images"], "drawing images")
    pictures = importlib.import_module("rayrnn.pictures")
    images_NHWC = pictures.draw_images(run, samples=IMAGES, drawing=Drawing())
    return picture(pictures.png_of(images_NHWC)[0], title=f"{IMAGES} images that the network has drawn")


def _judged(run: Run, model: Trained, *, in_full: bool) -> tuple[Report, list[Markup]]:
    """The network's metrics on what was held out, and figures of its answers.

    Raises:
        RayrnnError: the data is not there, is other data, or nothing of it was held out.
    """
    notes = list[str]()
    part = held_out_of(run, model, notes, advice=ADVICE)
    if not len(part):
        raise RayrnnError("nothing was held out (data.held_out: 0)")
    search = search_of(model.recipe, model.encoding.num_outputs)
    report, answers = measure(model, part, f"held out of {model.recipe.data.describe()}", search)
    report = replace(report, notes=tuple(notes))
    if not in_full:
        return report, []
    targets, task = model.encoding.targets, task_of(model.recipe)
    if isinstance(task, Searching):
        return report, [examples(_examples(answers))]
    if isinstance(targets, NumberTargets):
        return report, [residuals(_numbers(model, part, targets))]
    if isinstance(targets, Classes) and targets.several:
        return report, [by_class(targets.names, _set_counts(model, part))]
    return report, []


def _examples(answers: pa.Table) -> list[Example]:
    """The first, as they come."""
    rows = islice(answers.to_pylist(), EXAMPLES)
    return [Example(row["key"], row.get("input") or "", row["answer"], row["truth"]) for row in rows]


@dataclass(frozen=True)
class _Pairs:
    """Numbers and true ones that a task has found in its share: [N, V] each, in the data's own units."""

    answers: np.ndarray
    truths: np.ndarray
    total: int


def _numbers(model: Trained, part: Part, targets: NumberTargets) -> Numbers:
    shares: list[_Pairs] = shared_out_to_tasks(_pairs, model, part, MOST_ANSWERS)
    answers_NV = np.concatenate([share.answers for share in shares])
    truths_NV = np.concatenate([share.truths for share in shares])
    return Numbers(answers_NV, truths_NV, sum(share.total for share in shares), targets.names)


def _pairs(model: Trained, part: Part, rank: int, size: int, most: int) -> _Pairs:
    """Of the answers in a share, evenly chosen ones: of every so many one, more of them left out the more there are."""
    answers, truths, total, every = list[np.ndarray](), list[np.ndarray](), 0, 1
    for outputs_NV, targets_NV in _answered(model, part, rank, size):
        chosen = np.arange(-total % every, len(outputs_NV), every)
        answers_NV, truths_NV = _in_own_units(model, outputs_NV[chosen], targets_NV[chosen])
        answers.append(answers_NV)
        truths.append(truths_NV)
        total += len(outputs_NV)
        while sum(map(len, answers)) > most // size:
            joint = np.concatenate(answers)[::2], np.concatenate(truths)[::2]
            answers, truths, every = [joint[0]], [joint[1]], 2 * every
    nothing = np.zeros((0, model.encoding.targets.size))
    return _Pairs(np.concatenate([nothing, *answers]), np.concatenate([nothing, *truths]), total)


def _in_own_units(model: Trained, outputs_NV: np.ndarray, targets_NV: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float64 [N, numbers] each; of a network's outputs the numbers that they answer."""
    task, targets = task_of(model.recipe), model.encoding.targets
    if isinstance(task, Numeric):
        return task.numbers(torch.from_numpy(outputs_NV), torch.from_numpy(targets_NV), model.encoding)
    assert isinstance(targets, NumberTargets)
    return tuple(targets.in_own_units(numbers).astype(np.float64) for numbers in (outputs_NV, targets_NV))  # type: ignore[return-value]


def _set_counts(model: Trained, part: Part) -> SetCounts:
    counts_3V = sum(shared_out_to_tasks(_counted_sets, model, part))
    return SetCounts(*np.asarray(counts_3V, np.int64).tolist())


def _counted_sets(model: Trained, part: Part, rank: int, size: int) -> np.ndarray:
    """Hits, false alarms and misses of every class in a share, int64 [3, V]."""
    counts_3V = np.zeros((3, model.encoding.num_outputs), np.int64)
    for logits_NV, sets_NV in _answered(model, part, rank, size):
        said_NV, due_NV = logits_NV > 0, sets_NV > 0.5
        counts_3V += np.stack([(said_NV & due_NV).sum(0), (said_NV & ~due_NV).sum(0), (~said_NV & due_NV).sum(0)])
    return counts_3V


def _answered(model: Trained, part: Part, rank: int, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield outputs and targets that count, [N, V] each, minibatch after minibatch."""
    network, encoding, task = model.network(), model.encoding, task_of(model.recipe)
    for _, rows in minibatches_of(model, part.sequences, part.indices[rank::size]):
        minibatch = task.minibatch(rows, encoding)
        for segment, outputs in answer(network, minibatch, task=task, truncate=model.recipe.training.truncate):
            outputs, segment = on_cpu(outputs, segment)
            there = counted_numbers(segment.targets, segment.target_mask).any(-1)
            yield outputs[there].float().numpy(), segment.targets[there].float().numpy()


def _detector(run: Run) -> Markup:
    """What `rayrnn detect` takes for normal, as the run keeps it."""
    title, id_ = "Anomalies", "anomalies"
    try:
        fits = read_stored(run.path, DETECT, StoredDetectors).fits
    except FileNotFoundError:
        why = "no threshold is kept with the run; `rayrnn detect` fits one, and keeps it in a run directory"
        return _missing(title, why, id_=id_)
    except RayrnnError as error:
        return _missing(title, str(error), id_=id_)
    rows = [
        (
            fit.kind,
            str(fit.settings.get("decide", "")),
            number(fit.together.threshold),
            count(fit.together.num_scores),
            count(fit.sequences),
            count(fit.steps),
        )
        for fit in reversed(fits)
    ]
    head = ("score", "decides about", "threshold", "scores it is of", "sequences", "steps")
    said = paragraph("What is normal, as `rayrnn detect` has fitted it on what is held out; the newest first.")
    return section(title, said, table(head, rows, words=2), id_=id_)
