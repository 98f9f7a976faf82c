"""From the recipe's `data` section to a dataset of sequences, whatever their source."""

from importlib.metadata import entry_points

import ray.data

from rayrnn.data.csv_files import read_csv
from rayrnn.data.parquet import read_parquet
from rayrnn.data.quiet import quiet_ray_data
from rayrnn.data.text import read_text
from rayrnn.errors import DataError
from rayrnn.recipe_data import CsvData, Data, ParquetData, TextData


def read(data: Data, task: str) -> ray.data.Dataset:
    """The sequences that `data` names, in the row schema (see rayrnn/data/schema.py).

    A plugin registers its section's class under its source's name in the entry point group `rayrnn.sources`, and a
    function (data, task) -> Dataset under the same name in `rayrnn.readers`.

    Raises:
        DataError: there are no sequences there, or they are malformed.
    """
    quiet_ray_data()
    if isinstance(data, TextData):
        return read_text(data)
    if isinstance(data, CsvData):
        return read_csv(data, task)
    if isinstance(data, ParquetData):
        return read_parquet(data, task)
    for point in entry_points(group="rayrnn.readers", name=data.source):
        dataset: ray.data.Dataset = point.load()(data, task)
        return dataset
    raise DataError(f"nothing here reads data.source {data.source!r}: install the plugin that brings it")


def held_out_section(data: Data) -> Data | None:
    """The section that reads the held-out sequences, where `data.held_out` is a path to some of their own."""
    if not isinstance(data.held_out, str):
        return None
    others = {"text": None} if isinstance(data, TextData) else {}
    return data.model_copy(update={"path": data.held_out, "held_out": 0.0} | others)
