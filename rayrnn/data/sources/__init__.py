"""From the recipe's `data` section to a dataset of sequences, whatever their source."""

from importlib.metadata import entry_points

import ray.data

from rayrnn.data.files import list_files, read_bytes
from rayrnn.data.sequences import quiet_ray_data
from rayrnn.data.sources.csv import read_csv
from rayrnn.data.sources.csv_columns import layout_of, several
from rayrnn.data.sources.labels import Target
from rayrnn.data.sources.parquet import read_parquet
from rayrnn.data.sources.text import read_text
from rayrnn.errors import DataError
from rayrnn.recipe.data_sections import Column, CsvData, Data, ParquetData, TableData, TextData


def read(data: Data, task: str, *, labelled: bool = True) -> ray.data.Dataset:
    """The sequences that `data` names, in the row schema (see rayrnn/data/rows.py).

    Args:
        labelled: whether labels are wanted; without it `data` is a section that `unlabelled` made.

    A plugin registers its section's class under its source's name in the entry point group `rayrnn.sources`, and a
    function (data, task) -> Dataset under the same name in `rayrnn.readers`.

    Raises:
        DataError: there are no sequences there, or they are malformed.
    """
    quiet_ray_data()
    if isinstance(data, TextData):
        return read_text(data)
    if isinstance(data, CsvData):
        return read_csv(data, task, labelled=labelled)
    if isinstance(data, ParquetData):
        return read_parquet(data, task)
    for point in entry_points(group="rayrnn.readers", name=data.source):
        dataset: ray.data.Dataset = point.load()(data, task)
        return dataset
    raise DataError(f"nothing here reads data.source {data.source!r}: install the plugin that brings it")


def section_at(data: Data, path: str) -> Data:
    """The section that reads sequences of the same kind from another path (a table or query, where it names one)."""
    place = next((name for name in ("path", "table", "query") if getattr(data, name, None) is not None), "path")
    others = {"text": None} if isinstance(data, TextData) else {}
    return data.model_copy(update={place: path, "held_out": 0.0} | others)


def held_out_section(data: Data) -> Data | None:
    """The section that reads the held-out sequences, where `data.held_out` is a path to some of their own."""
    return section_at(data, data.held_out) if isinstance(data.held_out, str) else None


def unlabelled(data: Data, num_columns: int) -> Data:
    """The section that reads the same sequences without their labels, whether these are there or not.

    Args:
        num_columns: that the model learned from.
    """
    if isinstance(data, CsvData):
        ignored = (*data.ignore, *_label_columns(data, num_columns))
        return data.model_copy(update={"label_column": None, "ignore": ignored})
    if isinstance(data, TableData):
        ignored = data.ignore if data.label is None else (*data.ignore, data.label)
        return data.model_copy(update={"label": None, "ignore": ignored})
    return data


def _label_columns(data: CsvData, num_columns: int) -> tuple[Column, ...]:
    """The label's columns; none where they are known by their places, and the first file has only what was learned."""
    columns = several(data.label_column)
    if not any(isinstance(column, int) for column in columns):
        return columns
    listing = list_files(data.path, endpoint=data.endpoint)
    bare = data.model_copy(update={"label_column": None})
    try:
        roles = layout_of(read_bytes(listing, 0), listing.names[0], bare, Target("classification")).roles
    except DataError:
        # what is wrong with this file is told, or passed over, when it is read
        return columns
    return () if len(roles.numbers) + len(roles.words) == num_columns else columns
