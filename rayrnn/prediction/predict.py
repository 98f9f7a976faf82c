"""A run and sequences -> an answer for every sequence: a file, or a dataset.

Raised in a task, a fault would reach the user as Ray's traceback: so every row has `fault` (ends the prediction) and
`skipped` (is left out), both null where it has an answer.
"""

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch
from rich.console import Console

from rayrnn.cluster import connect, stay_connected
from rayrnn.data.arrow_lists import flat
from rayrnn.data.prepare import needs_to_read
from rayrnn.data.rows import REASONS, SYMBOLS, canonical, raise_faults
from rayrnn.data.sequences import settle
from rayrnn.data.sources import Wanted, read
from rayrnn.data.sources.given import sequences_given
from rayrnn.errors import DataError, UsageError
from rayrnn.prediction.destination import open_destination
from rayrnn.prediction.output import SUFFIXES, answers_of, texts_of, write
from rayrnn.prediction.paths import Paths, no_paths, paths_asked, paths_of
from rayrnn.recipe import search_of, task_of
from rayrnn.runs.directory import Run
from rayrnn.runs.model import Trained, found_in, outputs_of, trained
from rayrnn.tasks import Search, Searching
from rayrnn.terminal import Terminal


def answered(dataset: ray.data.Dataset, model: Trained, search: Search, paths: Paths | None = None) -> ray.data.Dataset:
    """Answers, or paths, in the order of the sequences, computed when they are consumed.

    Tasks, not actors: they run in one with what reads the sequences, wherever a CPU is free, and take the model out of
    the object store in no time.
    """
    num_gpus = 1 if ray.cluster_resources().get("GPU") else None
    answer_block = functools.partial(_answer_block, reference=ray.put(model), search=search, paths=paths)
    return settle(dataset).map_batches(answer_block, batch_size=None, batch_format="pyarrow", num_gpus=num_gpus)


def only_answers(block: pa.Table) -> pa.Table:
    """A block without its reasons.

    Raises:
        DataError: the first few faults of a block that has any.
    """
    raise_faults(block["fault"].drop_null().to_pylist())
    return block.filter(block["skipped"].is_null()).drop_columns(list(REASONS))


def told_apart(
    block: pa.Table, answer: Callable[[pa.Table], Iterator[pa.Table]], nothing: pa.Table
) -> Iterator[pa.Table]:
    """What is said of the rows of a block, each with the columns of REASONS: all null where there is an answer.

    Args:
        block: of any source; rows that have a reason already keep it.
        answer: of the other rows; the DataError that it raises is told in `fault`.
        nothing: the columns of an answer, without a row.
    """
    for name in REASONS:
        if name in block.column_names:
            reasons = flat(block[name])
            yield _with_reasons(nothing, name, reasons.drop_null())
            block = block.filter(reasons.is_null()).drop_columns([name])
    if len(block):
        try:
            for answers in answer(block):
                yield _with_reasons(answers)
        except DataError as error:
            yield _with_reasons(nothing, "fault", pa.array([str(error)]))


def _with_reasons(answers: pa.Table, name: str = "", reasons: pa.Array | None = None) -> pa.Table:
    """With the columns of reasons, all null; and below them rows that have nothing but a reason."""
    for each in REASONS:
        answers = answers.append_column(each, pa.nulls(len(answers), pa.string()))
    if reasons is None:
        return answers
    return pa.concat_tables([answers, pa.table({name: reasons})], promote_options="default")


def _answer_block(block: pa.Table, reference: ray.ObjectRef, search: Search, paths: Paths | None) -> Iterator[pa.Table]:
    model: Trained = ray.get(reference)
    answer = functools.partial(_answer_rows, model=model, search=search, paths=paths)
    yield from told_apart(block, answer, _no_answers(model) if paths is None else no_paths(model))


def _answer_rows(block: pa.Table, model: Trained, search: Search, paths: Paths | None) -> Iterator[pa.Table]:
    network = model.network()
    block = block.drop_columns([name for name in ("label", "target") if name in block.column_names])
    rows = canonical(block, needs_to_read(model.recipe, model.encoding), labelled=False)
    for piece in model.slices(rows):
        yield answers_to(piece, model, network, search) if paths is None else paths_of(piece, model, network, paths)


def answers_to(piece: pa.Table, model: Trained, network: torch.nn.Module, search: Search) -> pa.Table:
    """What the network answers to canonical rows that fit into memory together: the columns of output.py."""
    task = task_of(model.recipe)
    if isinstance(task, Searching):
        return texts_of(flat(piece["key"]), found_in(piece, model, network, task, search), model.encoding)
    return answers_of(piece, outputs_of(piece, model, network), task, model.encoding)


def _no_answers(model: Trained) -> pa.Table:
    """The columns that answers have, without a row."""
    nobody = pa.table({"key": pa.array([], pa.string()), "symbols": pa.array([], SYMBOLS)})
    if isinstance(task_of(model.recipe), Searching):
        return texts_of(flat(nobody["key"]), [], model.encoding)
    nothing = np.zeros((0, model.encoding.num_outputs), np.float32)
    return answers_of(nobody, nothing, task_of(model.recipe), model.encoding)


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
    samples: int | None = None,
    steps: int | None = None,
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
        samples: draw so many ways in which every sequence may go on, in the place of an answer; see paths.py.
        steps: steps of each of them.
        address: the Ray cluster; without it the one `rayrnn up` started, or a local one.
        console: shows how far it is; without it stderr does.

    Raises:
        UsageError: the run is a language model, or has a network that is not rayrnn's and was not opened with `trust`;
            or nothing can be drawn with it; or `out` is there already or ends in something else.
        DataError: there are no sequences, or one of them cannot be used; or `out` cannot be written.
        RunError: the run has no usable model, or a task failed.
        ClusterError: there is no cluster at `address`.
    """
    model = _answering(run)
    recipe = model.recipe
    search, paths = search_for(model, beam), paths_asked(model, samples, steps)
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
        count, skipped = write(answered(sequences, model, search, paths), destination, screen)
        count //= 1 if paths is None else paths.samples
        return Written(str(out), count, tuple(skipped), time.monotonic() - started)


def predictions(run: Run, data: Any) -> ray.data.Dataset:
    """Answers for a dataset of sequences, computed when they are consumed; a `label` it may have is left alone.

    Args:
        data: a dataset in the row schema (`rayrnn.sequences`), or a data frame, an Arrow table or a list (see
            rayrnn/data/sources/given.py).

    Returns:
        a row a sequence, as in answers.py. A sequence that cannot be used ends the consumption.

    Raises:
        UsageError: the run is a language model, or has a network that is not rayrnn's and was not opened with `trust`.
        RunError: it has no usable model.
    """
    model = _answering(run)
    inputs, needs = model.encoding.inputs, needs_to_read(model.recipe, model.encoding)
    stay_connected()
    names = model.encoding.column_names
    wanted = Wanted(needs, labelled=False, num_columns=inputs.num_columns, column_names=names, say=lambda _: None)
    given = sequences_given(data, model.recipe.data, wanted)
    return answered(given, model, search_for(model, None)).map_batches(
        only_answers, batch_size=None, batch_format="pyarrow"
    )


def search_for(model: Trained, beam: int | None) -> Search:
    """How the answers of a run are searched for.

    Raises:
        UsageError: there are not as many symbols as the beam has hypotheses; or nothing is searched for.
    """
    if beam is not None and not isinstance(task_of(model.recipe), Searching):
        raise UsageError(f"beam is {beam}, and the answers of {model.recipe.task} are not searched for: leave it out")
    return search_of(model.recipe, model.encoding.num_outputs, beam=beam)


def check_answers(run: Run) -> None:
    """
    Raises:
        UsageError: the run is a language model.
    """
    if task_of(run.recipe).generates:
        raise UsageError(
            f"{run.name} learned a language model, which has no labels to predict: `rayrnn generate` writes with it, "
            "`rayrnn evaluate --data` measures it on other text"
        )


def _answering(run: Run) -> Trained:
    check_answers(run)
    return trained(run)
