"""A network's outputs as people use them: columns, lines of text, one file. In the data's own units.

    key            string                      the sequence's name
    label          string                      the likeliest class, where the answer is one
    probabilities  struct<CLASS: float32 ...>  of every class
    prediction     float32                     a number (float64 where it was scaled); fixed_size_list<..., O> where
                                               the answer has O; struct<COLUMN+HORIZON ...> where a forecast has
                                               several horizons

    labels         list<string>                where several classes may apply (data.several): those likelier than not;
                                               in CSV one cell, `a;b`
    answer         string                      a text, where the answer has a length of its own, and
    score          float64                     the logarithm of its probability, over the length penalty

    prediction_q0.1 ...                        as `prediction`: the quantiles, where the loss knows them
    sample         int64                       where paths were drawn: the number of one of a sequence's (see paths.py)

With an answer a step, label, probabilities and prediction are lists with an item a step. A sequence without steps has
none of them.
"""

import csv
import functools
import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import pyarrow.types as kinds
import ray.data
from ray.exceptions import RayTaskError
from rich.console import Console

from rayrnn.data.arrow_lists import ends, flat, unwrap, wrap
from rayrnn.data.encoding import Encoding
from rayrnn.data.rows import REASONS, all_skipped, raise_faults, step_counts
from rayrnn.data.symbols import Symbols
from rayrnn.errors import DataError, RayrnnError, RunError
from rayrnn.prediction.destination import Destination
from rayrnn.tasks import Hypothesis, Task

SUFFIXES = (".jsonl", ".csv", ".parquet")
#: bytes of answers that become text at once, about: Python's own numbers take ten times as much
TEXT_BYTES = 4 * 2**20
_TEXT = pa.schema(
    {
        "header": pa.binary(),
        "text": pa.large_binary(),
        "sequences": pa.int64(),
        "fault": pa.string(),
        "skipped": pa.string(),
    }
)


def answers_of(rows: pa.Table, outputs: np.ndarray, task: Task, encoding: Encoding) -> pa.Table:
    """What the network says of canonical rows, in their order.

    Args:
        outputs: float32 [steps of all rows, V], or [rows, V] with one answer a row.
    """
    steps = step_counts(rows)
    unanswered = steps == 0
    columns = task.answers(outputs, encoding)
    for name, items in columns.items():
        columns[name] = wrap(items, steps) if encoding.per_step else _without(items, unanswered)
    return pa.table({"key": rows["key"], **columns})


def texts_of(keys: pa.Array, found: Sequence[Sequence[Hypothesis]], encoding: Encoding) -> pa.Table:
    """The best of what was found for every sequence, as a text; a sequence without steps has none."""
    assert isinstance(encoding.targets, Symbols), "what is found is symbols"
    best = [hypotheses[0] if hypotheses else None for hypotheses in found]
    texts = [None if one is None else encoding.targets.text_of(one.symbols) for one in best]
    scores = [None if one is None else one.score for one in best]
    return pa.table({"key": keys, "answer": pa.array(texts, pa.string()), "score": pa.array(scores, pa.float64())})


def _without(items: pa.Array, unanswered: np.ndarray) -> pa.Array:
    if not unanswered.any():
        return items
    return items.take(pa.array(np.arange(len(items)), mask=unanswered))


def json_lines(answers: pa.Table) -> bytes:
    """One object a sequence, as in answers.py; probabilities are an object from class to number."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in plain_rows(answers)).encode()


def plain_rows(answers: pa.Table) -> list[dict[str, Any]]:
    """One dictionary a row, of Python's own values as JSON takes them."""
    names = answers.column_names
    rows = zip(*(_plain(flat(column)) for column in answers.columns), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def csv_lines(answers: pa.Table) -> bytes:
    """One line a sequence, or with an answer a step one line a step, which `step` numbers from 0."""
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(_flattened(answers), buffer, pyarrow.csv.WriteOptions(include_header=False))
    return buffer.getvalue()


def csv_header(answers: pa.Table) -> bytes:
    """The columns' names: key, step, label, probability_CLASS ... or prediction, or prediction_0 ..., or
    prediction_COLUMN+HORIZON ..."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(_flattened(answers.slice(0, 0)).column_names)
    return line.getvalue().encode()


def _plain(cells: pa.Array) -> list[Any]:
    """Python's own values, as JSON takes them."""
    if kinds.is_struct(cells.type):
        names = [field.name for field in cells.type]
        rows = zip(*(_plain(field) for field in cells.flatten()), strict=True)
        valid = cells.is_valid().to_pylist()
        return [dict(zip(names, row, strict=True)) if there else None for row, there in zip(rows, valid, strict=True)]
    if kinds.is_list(cells.type) or kinds.is_fixed_size_list(cells.type):
        sizes, items = unwrap(cells)
        places, values = ends(sizes).tolist(), _plain(items)
        valid = cells.is_valid().to_pylist()
        pairs = zip(places, places[1:], valid, strict=False)
        return [values[start:end] if there else None for start, end, there in pairs]
    return _shortest(cells) if kinds.is_float32(cells.type) else list(cells.to_pylist())


def _shortest(cells: pa.Array) -> list[float | None]:
    """Numbers with the digits that tell them apart as float32, not as float64; JSON knows neither NaN nor infinity."""
    values = cells.cast(pa.string()).cast(pa.float64()).to_pylist()
    return [value if value is not None and math.isfinite(value) else None for value in values]


def _flattened(answers: pa.Table) -> pa.Table:
    """A column a number."""
    columns: dict[str, pa.Array] = {}
    for name, column in zip(answers.column_names, map(flat, answers.columns), strict=True):
        if name == "labels":
            column = pc.binary_join(column, ";")
        if kinds.is_list(column.type):
            sizes, column = unwrap(column)
            if "step" not in columns:
                owners = pa.array(np.repeat(np.arange(len(sizes)), sizes))
                columns = {other: cells.take(owners) for other, cells in columns.items()}
                columns["step"] = pa.array(np.arange(sizes.sum()) - np.repeat(ends(sizes)[:-1], sizes))
        if kinds.is_struct(column.type):
            called = "probability" if name == "probabilities" else name
            fields = zip(column.type, column.flatten(), strict=True)
            columns |= {f"{called}_{field.name}": cells for field, cells in fields}
        elif kinds.is_fixed_size_list(column.type):
            columns |= {f"{name}_{place}": pc.list_element(column, place) for place in range(column.type.list_size)}
        else:
            columns[name] = column
    return pa.table(columns)


class Sink(Protocol):
    """Takes blocks of answers and puts them into a stream."""

    def write(self, block: pa.Table) -> int:
        """Write a block that has answers and say how many sequences they are of."""

    def close(self) -> None:
        """Write what stands at the end."""


def write(
    answers: ray.data.Dataset, destination: Destination, console: Console, *, verb: str = "predict"
) -> tuple[int, list[str]]:
    """Write what `answered` gives, in its order.

    Args:
        verb: what is done with the sequences, as messages call it.

    Returns:
        how many sequences have an answer, and why others were left out.

    Raises:
        DataError: a sequence cannot be used, or there is none, or the file cannot be written; nothing is left of it.
    """
    suffix = destination.name[destination.name.rindex(".") :]
    if suffix != ".parquet":
        as_text = functools.partial(_as_text, suffix=suffix)
        answers = answers.map_batches(as_text, batch_size=None, batch_format="pyarrow")
    count = 0
    skipped: list[str] = []
    with destination.unfinished() as stream, console.status(f"{verb}ing ...") as status:
        sink: Sink = ParquetSink(stream) if suffix == ".parquet" else TextSink(stream)
        for block in blocks_of(answers):
            raise_faults(block["fault"].drop_null().to_pylist())
            skipped += block["skipped"].drop_null().to_pylist()
            block = block.filter(block["skipped"].is_null()).drop_columns(list(REASONS))
            if len(block):
                count += sink.write(block)
                status.update(f"{verb}ing: {count:,} sequences")
        sink.close()
        if not count:
            raise all_skipped(skipped) if skipped else DataError(f"there are no sequences to {verb}")
    return count, skipped


def write_table(table: pa.Table, destination: Destination) -> None:
    """Write rows of text that this process holds, as `write` writes answers.

    Raises:
        DataError: the file cannot be written.
    """
    with destination.unfinished() as stream:
        if destination.name.endswith(".parquet"):
            pyarrow.parquet.write_table(table, stream)
        elif destination.name.endswith(".csv"):
            stream.write(csv_header(table) + csv_lines(table))
        else:
            stream.write(json_lines(table))


class TextSink:
    """A header, and then the text of every block."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream
        self._begun = False

    def write(self, block: pa.Table) -> int:
        for row in block.to_pylist():
            if not self._begun:
                self._stream.write(row["header"])
                self._begun = True
            self._stream.write(row["text"])
        return int(sum(block["sequences"].to_pylist()))

    def close(self) -> None:
        """Text has no end of its own."""


class ParquetSink:
    """A row group a block."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream
        self._writer: pyarrow.parquet.ParquetWriter | None = None

    def write(self, block: pa.Table) -> int:
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self._stream, block.schema)
        self._writer.write_table(block)
        return len(block)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def computed(answers: ray.data.Dataset) -> ray.data.Dataset:
    """The same answers in Ray's object store, so that they can be read more than once.

    Raises:
        RayrnnError: what a task raised; RunError where it is no error of ours.
    """
    try:
        return answers.materialize()
    except RayTaskError as error:
        raise _own_error(error) from error


def blocks_of(answers: ray.data.Dataset) -> Iterator[pa.Table]:
    """The answers block by block, in their order.

    Raises:
        RayrnnError: as above.
    """
    try:
        yield from answers.iter_batches(batch_size=None, batch_format="pyarrow")
    except RayTaskError as error:
        raise _own_error(error) from error


def _own_error(error: RayTaskError) -> RayrnnError:
    # Ray Data adds a remark on retries to the message
    message = str(error.cause).partition("\nFailed to apply UDF transform")[0]
    if isinstance(error.cause, RayrnnError):
        return type(error.cause)(message)
    return RunError(f"the task failed: {type(error.cause).__name__}: {message}")


def _as_text(block: pa.Table, suffix: str) -> Iterator[pa.Table]:
    """Rows of text, each of many answers; and the rows that have no answer as they are."""
    reasons = block.select(list(REASONS))
    unusable = pc.or_(reasons["fault"].is_valid(), reasons["skipped"].is_valid())
    yield pa.concat_tables([_TEXT.empty_table(), reasons.filter(unusable)], promote_options="default")
    answers = block.filter(pc.invert(unusable)).drop_columns(list(REASONS))
    at_once = max(1, len(answers) * TEXT_BYTES // max(1, answers.nbytes))
    for start in range(0, len(answers), at_once):
        piece = answers.slice(start, at_once)
        header, text = (csv_header(piece), csv_lines(piece)) if suffix == ".csv" else (b"", json_lines(piece))
        row = {"header": header, "text": text, "sequences": len(piece), "fault": None, "skipped": None}
        yield pa.Table.from_pylist([row], _TEXT)
