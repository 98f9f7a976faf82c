"""From the recipe's `data` section to a dataset of sequences, whatever their source."""

from collections.abc import Callable, Mapping
from typing import Any
from warnings import warn

import ray.data

from rayrnn.data.rows import Needs
from rayrnn.data.sequences import quiet_ray_data
from rayrnn.data.sources.source import Source, Wanted
from rayrnn.errors import DataError, UsageError
from rayrnn.recipe.data_sections import Data
from rayrnn.recipe.sources import source_named
from rayrnn.recipe.table_sections import VersionedTable

__all__ = ["Source", "Wanted", "pinned", "read"]


def read(
    data: Data,
    needs: Needs,
    *,
    where: str | None = None,
    labels: str | None = None,
    labelled: bool = True,
    num_columns: int | None = None,
    column_names: tuple[str, ...] = (),
    say: Callable[[str], None] = warn,
) -> ray.data.Dataset:
    """The sequences that `data` names, in the row schema (see rayrnn/data/rows.py).

    Args:
        where: sequences of the same kind at another path (or table, or query) than the section's own.
        labels: where the labels of these are, if they lie beside them.
        labelled: whether labels are wanted; without it they are left alone, whether they are there or not.
        num_columns: how many columns a model learned from, where there is one.
        column_names: what the columns were called that a model learned from, where there is one and they had names.
        say: how the user is told of what lies there and is not read.

    Raises:
        UsageError: `labels` are given, and this source has none beside the sequences.
        DataError: there are no sequences there, or they are malformed.
    """
    quiet_ray_data()
    source: Source = _source_of(data)
    if labels is not None and not {"labels", "targets"} & set(type(data).model_fields):
        raise UsageError(
            f"data.source {data.source} has no labels beside the sequences, such as {labels}: they are read with these"
        )
    return source.read(data, Wanted(needs, where, labels, labelled, num_columns, column_names, say))


def pinned(data: Data, versions: Mapping[str, int]) -> Data:
    """The same section, with the versions at which its tables are read, so that they are what they were.

    Args:
        versions: those that a run began with, by the keys of the section; without any the ones that it names, or the
            newest.

    Raises:
        DataError: there is no such table or version.
    """
    if not isinstance(data, VersionedTable):
        return data
    known: VersionedTable = _source_of(data.at(versions)).pinned(data.at(versions))
    return known


def _source_of(data: Data) -> Any:
    try:
        # a foreign section was made only where its code is trusted
        return source_named(data.source, trusted=True)
    except ValueError as error:
        raise DataError(f"nothing here reads data.source {data.source!r}: {error}") from None
