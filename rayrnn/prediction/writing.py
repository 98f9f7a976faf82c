"""Blocks of answers -> one file, block after block: the cluster makes the text, this process only joins it."""

import functools
from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
import ray.data
from ray.exceptions import RayTaskError
from rich.console import Console

from rayrnn.data.destination import Destination
from rayrnn.data.schema import REASONS
from rayrnn.errors import DataError, RayrnnError, RunError
from rayrnn.prediction.blocks import raise_faults
from rayrnn.prediction.lines import csv_header, csv_lines, json_lines

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


class Sink(Protocol):
    """Takes blocks of answers and puts them into a stream."""

    def write(self, block: pa.Table) -> int:
        """Write a block that has answers and say how many sequences they are of."""

    def close(self) -> None:
        """Write what stands at the end."""


def write(answers: ray.data.Dataset, destination: Destination, console: Console) -> tuple[int, list[str]]:
    """Write what `answered` gives, in its order.

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
    with destination.unfinished() as stream, console.status("predicting ...") as status:
        sink: Sink = ParquetSink(stream) if suffix == ".parquet" else TextSink(stream)
        for block in _blocks(answers):
            raise_faults(block)
            skipped += block["skipped"].drop_null().to_pylist()
            block = block.filter(block["skipped"].is_null()).drop_columns(list(REASONS))
            if len(block):
                count += sink.write(block)
                status.update(f"predicting: {count:,} sequences")
        sink.close()
        if not count:
            raise DataError(
                f"no sequence is left: {len(skipped)} were skipped, the first because: {skipped[0]}"
                if skipped
                else "there are no sequences to predict"
            )
    return count, skipped


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


def _blocks(answers: ray.data.Dataset) -> Iterator[pa.Table]:
    try:
        yield from answers.iter_batches(batch_size=None, batch_format="pyarrow")
    except RayTaskError as error:
        # Ray Data adds a remark on retries to the message
        message = str(error.cause).partition("\nFailed to apply UDF transform")[0]
        if isinstance(error.cause, RayrnnError):
            raise type(error.cause)(message) from None
        raise RunError(f"the prediction failed: {type(error.cause).__name__}: {message}") from error


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
