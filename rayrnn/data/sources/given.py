"""Sequences that a program hands over: data frames, Arrow tables, lists, datasets of Ray's."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import ray.data

from rayrnn.data.files import list_files
from rayrnn.data.frames import is_frame, library_of, names_of_frame, table_of_frame, table_of_list, with_keys
from rayrnn.data.rows import CONTENTS, ROW
from rayrnn.data.sequences import settle
from rayrnn.data.sources.any_table import TASK_BYTES, sequences_of_dataset
from rayrnn.data.sources.csv import Csv
from rayrnn.data.sources.parquet import Parquet, columns_of
from rayrnn.data.sources.source import Wanted
from rayrnn.data.sources.text import Text
from rayrnn.errors import DataError, UsageError
from rayrnn.recipe.data_sections import CsvData, Data, ParquetData, TableData
from rayrnn.recipe.table_sections import GivenData
from rayrnn.recipe.text_sections import TextData
from rayrnn.wording import listed


class Given:
    """A recipe of it has no data of its own; other sequences of the kind are read from files: Parquet, where the recipe
    names no columns also CSV, and text."""

    section = GivenData

    def read(self, data: GivenData, wanted: Wanted) -> ray.data.Dataset:
        """The sequences at another path.

        Raises:
            DataError: there is no path: only a program has what was learned.
        """
        if wanted.where is None:
            raise DataError(
                "the recipe names no data, for a program hands it over: rayrnn.train(recipe, data=...); or say in the "
                "recipe where it is, data: {source: ..., path: ...}"
            )
        kind = "parquet" if data.names_columns else _kind_of_files(data, wanted)
        if kind == "csv":
            return Csv().read(CsvData(path=wanted.where, missing=data.missing, endpoint=data.endpoint), wanted)
        if kind == "text":
            return Text().read(TextData(path=wanted.where, units=data.units, endpoint=data.endpoint), wanted)
        return Parquet().read(_as_parquet(data, wanted), wanted)


def _kind_of_files(data: GivenData, wanted: Wanted) -> str:
    """By the end of the first one's name; what has none that is known is a text, where texts are learned."""
    assert wanted.where is not None, "there are files"
    endings = PurePosixPath(list_files(wanted.where, endpoint=data.endpoint).names[0].lower()).suffixes
    if ".csv" in endings:
        return "csv"
    takes_texts = "text" in wanted.needs.contents and not wanted.needs.is_labelled
    return "text" if takes_texts and ".parquet" not in endings else "parquet"


def _as_parquet(data: GivenData, wanted: Wanted) -> ParquetData:
    """The section by which files are read of the same columns; of the row schema's where none are named."""
    values = data.model_dump(exclude={"source"}) | {"path": wanted.where}
    if data.names_columns:
        return ParquetData.model_validate(values)
    there = columns_of(str(wanted.where), endpoint=data.endpoint)
    contents = [name for name in ("text", "symbols", "values") if name in there and name in wanted.needs.contents]
    if not contents:
        raise DataError(
            f"{wanted.where} has the columns {listed(there)}; without a word in the recipe on columns due is one of "
            "the row schema's, text, symbols or values"
        )
    named = {name: name for name in ("key", "label", "target") if name in there}
    return ParquetData.model_validate(values | {contents[0]: contents[0]} | named)


def sequences_given(given: Any, data: Data, wanted: Wanted) -> ray.data.Dataset:
    """What a program hands over to a run, in the row schema.

    Args:
        given: a data frame, an Arrow table, a list of sequences, or a dataset of Ray's. A frame has the columns that
            the run's recipe names, or those of the row schema; so has a dataset, but the columns of a recipe that says
            where its data is are those of that data.

    Raises:
        DataError: it has neither, or what they hold cannot be learned.
        UsageError: it is nothing of these.
    """
    if isinstance(given, ray.data.Dataset):
        if not isinstance(data, GivenData) or not data.names_columns:
            return given
        names = settle(given).schema().names
        return given if _are_rows(names, data, wanted) else sequences_of_dataset(given, data, wanted)
    if library_of(given) == "pyspark":
        raise UsageError("a Spark DataFrame is taken over first: rayrnn_spark.sequences(frame, ...)")
    if not is_frame(given):
        return _blocks(with_keys(table_of_list(list_of(given))))
    names = names_of_frame(given)
    if not isinstance(data, TableData) or _are_rows(names, data, wanted) or not data.names_columns:
        if not set(names) & set(CONTENTS):
            raise DataError(
                f"the data frame has the columns {listed(names)}, and none of the row schema's, {listed(CONTENTS)}: "
                "say what its columns are for, in the recipe (data: {key: ..., order_by: ...}) or by "
                "rayrnn.sequences(...)"
            )
        return _blocks(with_keys(_rows_in(given, wanted)))
    return sequences_of_dataset(_blocks(_used(given, data, wanted)), data, wanted)


def sequences_of(given: Any, data: TableData, wanted: Wanted, labels: Sequence[Any] | None) -> ray.data.Dataset:
    """The same by columns that the program names; of a list without any.

    Raises:
        DataError, UsageError: as above.
    """
    if isinstance(given, ray.data.Dataset):
        return sequences_of_dataset(given, data, wanted)
    if is_frame(given):
        return sequences_of_dataset(_blocks(_used(given, data, wanted)), data, wanted)
    return _blocks(with_keys(table_of_list(given, labels)))


def _rows_in(frame: Any, wanted: Wanted) -> pa.Table:
    """The row schema's columns of a frame; all where the answer is missing, so that it can be told what there is."""
    is_whole = not wanted.needs.is_labelled or wanted.needs.column in names_of_frame(frame)
    return table_of_frame(frame, ROW if is_whole else None)


def _used(frame: Any, data: TableData, wanted: Wanted) -> pa.Table:
    """Those of a frame's columns that are used; all where one is missing, so that it can be told what there is."""
    names = names_of_frame(frame)
    own = data.named_columns(labelled=wanted.labelled, weighed=wanted.weighed)
    if data.order_by is not None and data.features is None:
        own |= set(names) - set(data.ignore)
    return table_of_frame(frame, own if own <= set(names) else None)


def _blocks(table: pa.Table) -> ray.data.Dataset:
    """In blocks of a size that one task can have, cut by the rows alone."""
    size = max(1, len(table) * TASK_BYTES // max(1, table.nbytes))
    return ray.data.from_arrow([table.slice(start, size) for start in range(0, len(table), size)])


def _are_rows(names: Sequence[str], data: TableData, wanted: Wanted) -> bool:
    """Whether columns are those of the row schema, and not those that a section names."""
    own = data.named_columns(labelled=wanted.labelled, weighed=wanted.weighed)
    return not own <= set(names) and bool(set(names) & set(CONTENTS))


def list_of(given: Any) -> list[Any]:
    """The sequences of what has no columns: a list, an array, a column.

    Raises:
        UsageError: it is nothing of these.
    """
    found = _as_list(given)
    if found is not None:
        return found
    columns = isinstance(given, Mapping)
    hint = ": a dict of columns becomes a table by pa.table(data) or pd.DataFrame(data)" if columns else ""
    raise UsageError(
        f"the data is {type(given).__name__}; due is a data frame, an Arrow table, a list of sequences, or a dataset "
        f"of Ray's{hint}"
    )


def labels_of(given: Any) -> list[Any]:
    """The labels of a list's sequences, in their order.

    Raises:
        UsageError: it has none, as a set has.
    """
    found = None if is_frame(given) else _as_list(given)
    if found is None:
        raise UsageError(
            f"labels is {type(given).__name__}; due is a list, an array or a column: a label for each sequence, in the "
            "order of the sequences"
        )
    return found


def _as_list(given: Any) -> list[Any] | None:
    """Of what has an order and an end; None for anything else."""
    if isinstance(given, pa.Array | pa.ChunkedArray):
        return list(given.to_pylist())
    if hasattr(given, "to_list"):  # a column of a frame
        return list(given.to_list())
    if isinstance(given, str | bytes | Mapping) or getattr(given, "ndim", 1) == 0:
        return None
    return list(given) if hasattr(given, "__len__") and hasattr(given, "__getitem__") else None
