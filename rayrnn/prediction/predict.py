"""A run and sequences -> an answer for every sequence: a file, or a dataset.

Raised in a task, a fault would reach the user as Ray's traceback: so every row has `fault` (ends the prediction) and
`skipped` (is left out), both null where it has an answer.
"""

import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch
from rich.console import Console

from rayrnn.cluster import connect
from rayrnn.data.arrow_lists import flat
from rayrnn.data.prepare import needs_to_read
from rayrnn.data.rows import REASONS, SYMBOLS, canonical, raise_faults, step_counts
from rayrnn.data.sequences import settle
from rayrnn.data.sources import read
from rayrnn.errors import DataError, UsageError
from rayrnn.prediction.destination import open_destination
from rayrnn.prediction.output import SUFFIXES, answers_of, texts_of, write
from rayrnn.recipe import search_of, task_of
from rayrnn.runs.directory import Run
from rayrnn.runs.model import Trained, found_in, outputs_of, trained
from rayrnn.tasks import Search, Searching
from rayrnn.terminal import Terminal

#: inputs and outputs that a task holds beside its block, about: 16 MiB
NUMBERS_A_SLICE = 2**22


def answered(dataset: ray.data.Dataset, model: Trained, search: Search) -> ray.data.Dataset:
    """Answers in the order of the sequences, computed when they are consumed.

    Tasks, not actors: they run in one with what reads the sequences, wherever a CPU is free, and take the model out of
    the object store in no time.
    """
    num_gpus = 1 if ray.cluster_resources().get("GPU") else None
    answer_block = functools.partial(_answer_block, reference=ray.put(model), search=search)
    return settle(dataset).map_batches(answer_block, batch_size=None, batch_format="pyarrow", num_gpus=num_gpus)


def only_answers(block: pa.Table) -> pa.Table:
    """A block without its reasons.

    Raises:
        DataError: the first few faults of a block that has any.
    """
    raise_faults(block["fault"].drop_null().to_pylist())
    return block.filter(block["skipped"].is_null()).drop_columns(list(REASONS))


def _answer_block(block: pa.Table, reference: ray.ObjectRef, search: Search) -> Iterator[pa.Table]:
    model: Trained = ray.get(reference)
    for name in REASONS:
        if name in block.column_names:
            reasons = flat(block[name])
            yield _unanswered(model, name, reasons.drop_null())
            block = block.filter(reasons.is_null()).drop_columns([name])
    if len(block):
        try:
            yield from _answer_rows(block, model, model.network(), search)
        except DataError as error:
            yield _unanswered(model, "fault", pa.array([str(error)]))


def _answer_rows(block: pa.Table, model: Trained, network: torch.nn.Module, search: Search) -> Iterator[pa.Table]:
    block = block.drop_columns([name for name in ("label", "target") if name in block.column_names])
    rows = canonical(block, needs_to_read(model.recipe, model.encoding), labelled=False)
    for piece in _slices(rows, model):
        answers = _answers(piece, model, network, search)
        for name in REASONS:
            answers = answers.append_column(name, pa.nulls(len(answers), pa.string()))
        yield answers


def _answers(piece: pa.Table, model: Trained, network: torch.nn.Module, search: Search) -> pa.Table:
    task = task_of(model.recipe)
    if isinstance(task, Searching):
        return texts_of(flat(piece["key"]), found_in(piece, model, network, task, search), model.encoding)
    return answers_of(piece, outputs_of(piece, model, network), task, model.encoding)


def _slices(rows: pa.Table, model: Trained) -> Iterator[pa.Table]:
    """Neighbouring rows whose inputs and outputs fit into memory at ease."""
    numbers_a_step = model.encoding.num_inputs + model.encoding.num_outputs
    cost = np.cumsum((step_counts(rows) + 1) * numbers_a_step)
    cuts = (np.flatnonzero(np.diff(cost // NUMBERS_A_SLICE)) + 1).tolist()
    for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        yield rows.slice(start, end - start)


def _unanswered(model: Trained, name: str, reasons: pa.Array) -> pa.Table:
    """Rows with nothing but their reason, in the columns that answers have."""
    nobody = pa.table({"key": pa.array([], pa.string()), "symbols": pa.array([], SYMBOLS)})
    if isinstance(task_of(model.recipe), Searching):
        answers = texts_of(flat(nobody["key"]), [], model.encoding)
    else:
        nothing = np.zeros((0, model.encoding.num_outputs), np.float32)
        answers = answers_of(nobody, nothing, task_of(model.recipe), model.encoding)
    for each in REASONS:
        answers = answers.append_column(each, pa.array([], pa.string()))
    return pa.concat_tables([answers, pa.table({name: reasons})], promote_options="default")


@dataclass(frozen=True)
class Written:
    """What `predict` has done."""

    path: str
    num_sequences: int
    #: why sequences were left out that could not be read (`data.on_error: skip`)
    skipped: tuple[str, ...]
    seconds: float


def predict(
    run: Run,
    path: str | Path,
    out: str | Path,
    *,
    beam: int | None = None,
    address: str | None = None,
    console: Console | None = None,
) -> Written:
    """Answer every sequence at `path`, in its order, and write the answers to one file.

    They stream through the cluster: neither this process nor a worker ever holds all of them.

    Args:
        path: read as the run's own data was, with labels or without.
        out: a new file, local, s3://, gs:// or hdfs://, that ends in .jsonl, .csv or .parquet; what it holds is said in
            answers.py and lines.py. It is there whole or, after an error, not at all.
        beam: hypotheses that are followed where an answer has a length of its own; without it the recipe's.
        address: the Ray cluster; without it the one `rayrnn up` started, or a local one.
        console: shows how far it is; without it stderr does.

    Raises:
        UsageError: the run is a language model, or has a network that is not rayrnn's and was not opened with `trust`;
            or `out` is there already or ends in something else.
        DataError: there are no sequences, or one of them cannot be used; or `out` cannot be written.
        RunError: the run has no usable model, or a task failed.
        ClusterError: there is no cluster at `address`.
    """
    model = _answering(run)
    recipe = model.recipe
    search = _search(model, beam)
    destination = open_destination(str(out), suffixes=SUFFIXES, endpoint=recipe.data.endpoint)
    num_columns, names = model.encoding.inputs.num_columns, model.encoding.column_names
    with connect(address, code=recipe.named_code):
        started = time.monotonic()
        needs, where = needs_to_read(recipe, model.encoding), str(path)
        screen = console or Terminal(stderr=True)
        sequences = read(
            recipe.data,
            needs,
            where=where,
            labelled=False,
            num_columns=num_columns,
            column_names=names,
            say=screen.print,
        )
        count, skipped = write(answered(sequences, model, search), destination, screen)
        return Written(str(out), count, tuple(skipped), time.monotonic() - started)


def predictions(run: Run, data: ray.data.Dataset) -> ray.data.Dataset:
    """Answers for a dataset of sequences, computed when they are consumed; a `label` it may have is left alone.

    Args:
        data: rows of the row schema (see rayrnn/data/rows.py).

    Returns:
        a row a sequence, as in answers.py. A sequence that cannot be used ends the consumption.

    Raises:
        UsageError: the run is a language model, or has a network that is not rayrnn's and was not opened with `trust`.
        RunError: it has no usable model.
    """
    model = _answering(run)
    return answered(data, model, _search(model, None)).map_batches(
        only_answers, batch_size=None, batch_format="pyarrow"
    )


def _search(model: Trained, beam: int | None) -> Search:
    """
    Raises:
        UsageError: there are not as many symbols as the beam has hypotheses.
    """
    if beam is not None and not isinstance(task_of(model.recipe), Searching):
        raise UsageError(f"--beam is {beam}, and the answers of {model.recipe.task} are not searched for: leave it out")
    return search_of(model.recipe, model.encoding.num_outputs, beam=beam)


def _answering(run: Run) -> Trained:
    if task_of(run.recipe).generates:
        raise UsageError(
            f"{run.name} learned a language model, which has no labels to predict: `rayrnn generate` writes with it, "
            "`rayrnn evaluate --data` measures it on other text"
        )
    return trained(run)
