"""A run and labelled sequences -> a report on how good its model is, measured by tasks all over the cluster."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from rayrnn.cluster import connect
from rayrnn.data.arrow_lists import flat, unwrap
from rayrnn.data.encoding import Classes, Encoding
from rayrnn.data.fitting import faults_of_targets
from rayrnn.data.prepare import divided, needs_to_read, prepare
from rayrnn.data.rows import step_counts
from rayrnn.data.sequences import Part, Sequences, gather, results, take
from rayrnn.data.sources import Wanted, read
from rayrnn.data.sources.given import sequences_given
from rayrnn.data.symbols import Symbols
from rayrnn.dl4j.updates import added_up_as_dl4j, penalties_of
from rayrnn.errors import DataError, UsageError
from rayrnn.prediction.destination import open_destination
from rayrnn.prediction.output import SUFFIXES, texts_of, write_table
from rayrnn.recipe import remarks_on_answers, search_of, task_of
from rayrnn.reporting.answer_figures import confusions
from rayrnn.reporting.markup import NOTHING, Markup, facts, figure_alone, paragraph
from rayrnn.runs.directory import Run
from rayrnn.runs.model import Trained, answer, found_in, trained
from rayrnn.runs.same_data import check_data, check_origin, described, versions_of, was_handed_over
from rayrnn.tasks import Hypothesis, Numeric, Search, Searching
from rayrnn.tasks.metrics import Metrics, Results
from rayrnn.wording import counted

#: a confusion matrix of more classes than this is told by its largest errors
MATRIX_CLASSES = 16
LARGEST_ERRORS = 20
#: of metrics that are not called by their names
_TITLES = {
    **{"bits_per_symbol": "bits a symbol", "macro_f1": "macro F1", "micro_f1": "micro F1"},
    **{"dl4j_score": "DL4J's score"},
    **{"rmse": "RMSE", "mae": "MAE", "r2": "R2", "bleu": "BLEU", "chrf": "chrF"},
    **{"mean_average_precision": "mAP", "hit_at_1": "hit@1"},
    **{"word_error_rate": "word errors", "character_error_rate": "char. errors", "symbol_accuracy": "symbol acc."},
}
_TITLE_WIDTH = 15
#: shares of something, which people read with so many digits
_SHARES = {
    *("accuracy", "macro_f1", "micro_f1", "mean_average_precision", "hit_at_1", "symbol_accuracy"),
    *("exact_match", "word_error_rate", "character_error_rate"),
}
Share = TypeVar("Share")
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
    #: of which `coverage` is: how much of the truth should lie in it; None without a spread
    interval: float | None = None

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
        values |= {"interval": self.interval} if self.interval is not None else {}
        return values | ({"classes": list(self.classes)} if self.classes else {})

    def to_text(self) -> str:
        """What `rayrnn evaluate` prints."""
        text = "".join(f"{title:<{_TITLE_WIDTH}}{value}\n" for title, value in self._lines().items())
        matrix = self.metrics.get("confusion_matrix")
        return text + ("\n" + _confusions(self.classes, matrix) if isinstance(matrix, list) else "")

    def __repr__(self) -> str:
        return self.to_text().rstrip("\n")

    def figures(self) -> tuple[Markup, ...]:
        """The same as parts of a page."""
        matrix = self.metrics.get("confusion_matrix")
        shown = confusions(self.classes, matrix) if isinstance(matrix, list) and self.classes else NOTHING
        return (*(paragraph(note, class_="dim") for note in self.notes), facts(self._lines()), shown)

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        return figure_alone(*self.figures())

    def _lines(self) -> dict[str, str]:
        lines = {"data": self._describe_data(), "loss": self._describe_loss()}
        scores = [name for name, value in self.metrics.items() if name != "loss" and not isinstance(value, list)]
        titles = _TITLES | ({} if self.interval is None else {"coverage": inside(self.interval)})
        return lines | {titles.get(name, name.replace("_", " ")): self._show(name) for name in scores}

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
        if name == "coverage":
            return f"{value:.1%}"
        return f"{value:.4f}" if name in _SHARES else f"{value:.5g}"


def interval_of(levels: Sequence[float]) -> float | None:
    """How much of the truth should lie between the lowest and the highest level; None where there are no two."""
    return round(levels[-1] - levels[0], 9) if len(levels) > 1 else None


def inside(interval: float) -> str:
    """What the share of the truth that lies in an interval is called, which should be as large as the interval."""
    return f"inside {interval:.0%}"


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
    data: Any = None,
    out: str | Path | None = None,
    beam: int | None = None,
    address: str | None = None,
) -> Report:
    """Measure a run's best model on what training held out; or on the sequences at `path`, or on those of `data`.

    Args:
        path: read as the run's own data was, labels and all.
        labels: where the labels of those are, if they lie beside them (as in `data.labels`).
        data: a dataset of sequences in the row schema, or another thing that a program holds (see
            rayrnn/data/sources/given.py). Where it is what the run was trained on, the part of it that was held out.
        out: a new file for every answer beside its truth, where answers have a length of their own; see `compared`.
        beam: hypotheses that are followed to find these; without it the recipe's.
        address: the Ray cluster; without it the one `rayrnn up` started, or a local one.

    Raises:
        UsageError: nothing was held out, and there is neither `path` nor `data`; `labels` go with nothing; or `out`
            or `beam` are given where answers have no length of their own.
        DataError: the data cannot be read, or has no labels, or one that was not learned.
        RunError: the run has no usable model.
        ClusterError: there is no cluster at `address`.
    """
    if labels is not None and path is None:
        raise UsageError(
            f"labels are given, {labels}, and no sequences that they belong to: give these too, --data PATH"
        )
    model = trained(run)
    check_held_out(run, model, given=path is not None or data is not None)
    search = _search(model, out, beam)
    destination = None
    if out is not None:
        destination = open_destination(str(out), suffixes=SUFFIXES, endpoint=model.recipe.data.endpoint)
    with connect(address, code=model.recipe.named_code):
        notes: list[str] = []
        name, part = part_of(run, model, path, labels, data, notes)
        report, answers = measure(model, part, name, search)
        if destination is not None:
            write_table(answers, destination)
        return replace(report, notes=tuple(notes))


def _search(model: Trained, out: str | Path | None, beam: int | None) -> Search:
    """
    Raises:
        UsageError: there are no answers to look for, or fewer symbols than the beam has hypotheses.
    """
    if (out is not None or beam is not None) and not isinstance(task_of(model.recipe), Searching):
        raise UsageError(
            f"out and beam are for answers with a length of their own; the task is {model.recipe.task}: "
            "`rayrnn predict` writes its answers"
        )
    return search_of(model.recipe, model.encoding.num_outputs, beam=beam)


def check_held_out(run: Run, model: Trained, *, given: bool) -> None:
    """
    Args:
        given: whether there are other sequences to measure on.

    Raises:
        UsageError: nothing was held out.
    """
    if not given and not model.recipe.data.held_out:
        raise UsageError(
            f"{run.name} held nothing out (data.held_out: 0): give it sequences to be measured on, --data PATH"
        )


def part_of(
    run: Run,
    model: Trained,
    path: str | Path | None,
    labels: str | Path | None,
    data: Any,
    notes: list[str],
) -> tuple[str, Part]:
    """The sequences to measure on, and their name; and what the user should know of them."""
    recipe = model.recipe
    notes += remarks_on_answers(recipe)
    if data is None and path is None:
        return f"held out of {described(run, recipe.data)}", held_out_of(run, model, notes)
    needs, name = replace(needs_to_read(recipe, model.encoding), weighed=False), "the dataset"
    num_columns, names = model.encoding.inputs.num_columns, model.encoding.column_names
    if data is None:
        name, own = str(path), None if labels is None else str(labels)
        found = read(
            recipe.data,
            needs,
            where=name,
            labels=own,
            num_columns=num_columns,
            column_names=names,
            say=notes.append,
        )
    else:
        wanted = Wanted(needs, num_columns=num_columns, column_names=names, say=notes.append)
        found = sequences_given(data, recipe.data, wanted)
    sequences = gather(found, needs)
    if data is not None and recipe.data.held_out and (same := _as_handed_over(run, model, data, sequences)):
        return "held out of the dataset", divided(recipe, same)[1]
    if faults := faults_of_targets(sequences, task_of(recipe), model.encoding):
        which = counted(len(faults), "target")
        notes.append(f"{which} cannot be answered rightly, and the loss leaves out such ones: {faults[0]}")
    return name, Part(sequences, np.arange(len(sequences)))


def _as_handed_over(run: Run, model: Trained, data: Any, sequences: Sequences) -> Sequences | None:
    """The sequences that a program hands over, if they are those of the training; with their weights, if those had any.

    Args:
        sequences: without weights.
    """
    needs = needs_to_read(model.recipe, model.encoding)
    if needs.weighed:
        with suppress(DataError):  # others may have none
            sequences = gather(sequences_given(data, model.recipe.data, Wanted(needs, say=lambda _: None)), needs)
    return sequences if was_handed_over(run, sequences) else None


def held_out_of(
    run: Run,
    model: Trained,
    notes: list[str],
    *,
    advice: str = "give sequences to be measured on, --data PATH (in Python data=...)",
) -> Part:
    """What training held out; read again, and seen to be the same.

    Args:
        advice: what the user may do where it is not.

    Raises:
        UsageError: the data is not what the run began with.
    """
    advice = f"what was held out cannot be found again: {advice}"
    check_origin(run, handed_over=False, advice=advice)
    prepared = prepare(model.recipe, encoding=model.encoding, versions=versions_of(run))
    notes += check_data(run, prepared, advice=advice)
    return prepared.held_out


def shared_out_to_tasks(work: Callable[..., Share], subject: object, part: Part, *more: object) -> list[Share]:
    """What tasks all over the cluster make of their shares of a part, as many of them as its steps are worth.

    Args:
        work: called with the subject, the part, a rank, the number of tasks, and `more`; its share are the part's
            indices [rank::number].
        subject: large, and the same for all of them.
    """
    num_tasks = max(1, min(int(ray.cluster_resources().get("CPU", 1)), math.ceil(part.num_steps / STEPS_A_TASK)))
    task = ray.remote(num_gpus=1 if ray.cluster_resources().get("GPU") else 0)(work)
    reference = ray.put(subject)
    return results([task.remote(reference, part, rank, num_tasks, *more) for rank in range(num_tasks)])


def measure(model: Trained, part: Part, name: str, search: Search) -> tuple[Report, pa.Table]:
    """Add up what tasks count, each in its share; and what was answered, if it was looked for. Ray must be there.

    Raises:
        DataError: no sequence of the part has a target.
    """
    counts: list[_Counted] = shared_out_to_tasks(_count, model, part, search)
    metrics: Metrics = counts[0].metrics
    metrics.merge(other.metrics for other in counts[1:])
    tables = [one.answers for one in counts if len(one.answers)] or [_NO_ANSWERS]
    answers = pa.concat_tables(tables).sort_by("number").drop_columns(["number"])
    sequences, task, targets = part.sequences, task_of(model.recipe), model.encoding.targets
    report = Report(
        data=name,
        task=model.recipe.task,
        num_sequences=len(part),
        # of a part nobody knows which of those left out would have been in it
        num_left_out=sequences.num_dropped + len(sequences.skipped) if len(part) == len(sequences) else 0,
        steps=part.num_steps,
        padding_share=1 - part.num_steps / sum(one.computed for one in counts),
        metrics=task.results(metrics) | _as_dl4j(model, math.fsum(one.dl4j for one in counts), len(part)),
        unit=task.unit,
        classes=targets.names if isinstance(targets, Classes) else (),
        interval=interval_of(task.levels) if isinstance(task, Numeric) else None,
    )
    return report, answers


@dataclass(frozen=True)
class _Counted:
    """What one task has found in its share."""

    metrics: Metrics
    #: steps, padding too
    computed: int
    #: see `compared`, and the sequences' numbers
    answers: pa.Table
    #: the losses as DL4J adds them up, where the run follows its rules
    dl4j: float


def _as_dl4j(model: Trained, losses: float, num_sequences: int) -> Results:
    """DL4J's score, where the run follows its rules: the losses a sequence, and the penalties on the weights."""
    training = model.recipe.training
    if training.dl4j is None:
        return {}
    has_penalties = training.l2 or training.dl4j.l1
    penalties = penalties_of(model.network(), training) if has_penalties else 0.0
    divided = num_sequences if training.dl4j.version == "0.9.1" else 1
    return {"dl4j_score": losses / num_sequences + penalties / divided}


def _count(model: Trained, part: Part, rank: int, size: int, search: Search) -> _Counted:
    network, encoding, task = model.network(), model.encoding, task_of(model.recipe)
    metrics = task.metrics(encoding)
    own = part.indices[rank::size]
    computed, answers, dl4j = 0, [_NO_ANSWERS], 0.0
    for numbers, rows in minibatches_of(model, part.sequences, own):
        minibatch = task.minibatch(rows, encoding)
        computed += minibatch.mask.numel()
        for segment, outputs in answer(network, minibatch, task=task, truncate=model.recipe.training.truncate):
            task.measure(metrics, outputs, segment, encoding)
            if model.recipe.training.dl4j is not None:
                total, _ = task.loss(outputs, segment)
                dl4j += float(added_up_as_dl4j(total, task, outputs, segment.targets))
        if isinstance(task, Searching):
            found = compared(rows, found_in(rows, model, network, task, search), encoding)
            task.count_answers(metrics, found["answer"].to_pylist(), found["truth"].to_pylist())
            answers.append(found.append_column("number", pa.array(numbers, pa.int64())))
    return _Counted(metrics, computed, pa.concat_tables(answers, promote_options="default"), dl4j)


def minibatches_of(model: Trained, sequences: Sequences, own: np.ndarray) -> Iterator[tuple[np.ndarray, pa.Table]]:
    """Numbers and rows of sequences that fit into memory at ease, with their targets, which may be the longer ones."""
    for chosen in model.minibatches(sequences.steps[own]):
        rows = take(sequences, own[chosen])
        if "target" not in rows.column_names:
            yield own[chosen], rows
            continue
        lengths, _ = unwrap(flat(rows["target"]))
        for few in model.minibatches(np.maximum(step_counts(rows), lengths + 1)):
            yield own[chosen][few], rows.take(pa.array(few))


def compared(rows: pa.Table, found: Sequence[Sequence[Hypothesis]], encoding: Encoding) -> pa.Table:
    """What was found for canonical rows beside what was due: `key`, `input` (where it is a text), `answer`, `truth`."""
    inputs, targets = encoding.inputs, encoding.targets
    assert isinstance(targets, Symbols), "what is found is symbols"
    answers = texts_of(flat(rows["key"]), found, encoding)
    columns = {"key": rows["key"]}
    if "text" in rows.column_names:
        columns["input"] = rows["text"]
    elif isinstance(inputs, Symbols):
        columns["input"] = pa.array(
            [inputs.units.join(symbols) for symbols in rows["symbols"].to_pylist()], pa.string()
        )
    # of a network that has diverged nothing is the likeliest: this is no answer
    said = pc.fill_null(answers["answer"], "")
    truths = pa.array([targets.units.join(symbols) for symbols in rows["target"].to_pylist()], pa.string())
    return pa.table(columns | {"answer": said, "truth": truths})


_NO_ANSWERS = pa.table({"number": pa.array([], pa.int64())})
