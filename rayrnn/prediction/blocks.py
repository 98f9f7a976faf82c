"""Blocks of sequences -> blocks of answers, by Ray Data; what cannot be used is told in the rows themselves.

Raised in a task, a fault would reach the user as Ray's traceback: so every row has `fault` (ends the prediction) and
`skipped` (is left out), both null where it has an answer.
"""

import functools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import ray
import ray.data

from rayrnn.data.quiet import settle
from rayrnn.data.ragged import flat
from rayrnn.data.schema import REASONS, SYMBOLS, canonical, step_counts
from rayrnn.errors import DataError
from rayrnn.models.network import Network
from rayrnn.prediction.answers import answers_of
from rayrnn.prediction.trained import Trained, outputs_of

#: inputs and outputs that a task holds beside its block, about: 16 MiB
NUMBERS_A_SLICE = 2**22


def answered(dataset: ray.data.Dataset, model: Trained) -> ray.data.Dataset:
    """Answers in the order of the sequences, computed when they are consumed.

    Tasks, not actors: they run in one with what reads the sequences, wherever a CPU is free, and take the model out of
    the object store in no time.
    """
    num_gpus = 1 if ray.cluster_resources().get("GPU") else None
    answer_block = functools.partial(_answer_block, reference=ray.put(model))
    return settle(dataset).map_batches(answer_block, batch_size=None, batch_format="pyarrow", num_gpus=num_gpus)


def only_answers(block: pa.Table) -> pa.Table:
    """A block without its reasons.

    Raises:
        DataError: the first few faults of a block that has any.
    """
    raise_faults(block)
    return block.filter(block["skipped"].is_null()).drop_columns(list(REASONS))


def raise_faults(block: pa.Table) -> None:
    """
    Raises:
        DataError: the first few faults of a block that has any.
    """
    faults = block["fault"].drop_null().to_pylist()
    if faults:
        more = [f"and {len(faults) - 3} more"] if len(faults) > 3 else []
        raise DataError("\n".join(faults[:3] + more))


def _answer_block(block: pa.Table, reference: ray.ObjectRef) -> Iterator[pa.Table]:
    model: Trained = ray.get(reference)
    for name in REASONS:
        if name in block.column_names:
            reasons = flat(block[name])
            yield _unanswered(model, name, reasons.drop_null())
            block = block.filter(reasons.is_null()).drop_columns([name])
    if len(block):
        try:
            yield from _answer_rows(block, model, model.network())
        except DataError as error:
            yield _unanswered(model, "fault", pa.array([str(error)]))


def _answer_rows(block: pa.Table, model: Trained, network: Network) -> Iterator[pa.Table]:
    if "label" in block.column_names:
        block = block.drop_columns(["label"])
    rows = canonical(block, model.recipe.task, labelled=False)
    for piece in _slices(rows, model):
        answers = answers_of(piece, outputs_of(piece, model, network), model.encoding)
        for name in REASONS:
            answers = answers.append_column(name, pa.nulls(len(answers), pa.string()))
        yield answers


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
    answers = answers_of(nobody, np.zeros((0, model.encoding.num_outputs), np.float32), model.encoding)
    for each in REASONS:
        answers = answers.append_column(each, pa.array([], pa.string()))
    return pa.concat_tables([answers, pa.table({name: reasons})], promote_options="default")
