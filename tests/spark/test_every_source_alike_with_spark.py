"""The same sequences give the same minibatches whatever their source: CSV, Parquet, Spark in two shapes."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import ray.data
import torch
from rayrnn_spark import sequences

from rayrnn.data.batches import Minibatch
from rayrnn.data.fitting import fit_encoding
from rayrnn.data.sequences import gather, take
from rayrnn.data.sources import read
from rayrnn.recipe import task_named
from rayrnn.recipe.data_sections import CsvData, ParquetData
from rayrnn.tasks import Choices
from tests.asked import needs
from tests.ts_files import Labelled, find_ts, read_ts, write_csv

TASK = "classification"


@pytest.fixture(scope="module")
def vowels() -> list[Labelled]:
    """JapaneseVowels: 270 sequences of 7 to 26 steps, 12 features, 9 classes."""
    try:
        return read_ts(find_ts("JapaneseVowels")["train"])
    except FileNotFoundError as error:
        pytest.skip(str(error))


def as_rows(vowels: list[Labelled]) -> pa.Table:
    return pa.table(
        {
            "name": [f"{number:04d}.csv" for number in range(len(vowels))],
            "steps": [np.array(one.steps, np.float64).tolist() for one in vowels],
            "class": [one.label for one in vowels],
        }
    )


def as_steps(vowels: list[Labelled]) -> pa.Table:
    """One row a step, in no order."""
    steps = [
        {"name": f"{number:04d}.csv", "time": time, "class": one.label}
        | {f"feature_{place:02d}": float(cell) for place, cell in enumerate(step)}
        for number, one in enumerate(vowels)
        for time, step in enumerate(one.steps)
    ]
    return pa.Table.from_pylist(steps).take(pa.array(np.random.default_rng(1).permutation(len(steps))))


def minibatches(dataset: ray.data.Dataset) -> list[Minibatch]:
    """All sequences in the order of their keys, 32 a minibatch, scaled by what the encoding found in them."""
    found = gather(dataset, needs(TASK))
    everything = np.arange(len(found))
    encoding = fit_encoding(found, everything, task_named(TASK), Choices(), normalize="standardize")
    order = np.argsort(take(found, everything)["key"].to_numpy(zero_copy_only=False))
    return [
        task_named(TASK).minibatch(take(found, chunk), encoding)
        for chunk in np.array_split(order, range(32, len(order), 32))
    ]


@pytest.mark.slow
def test_four_sources_give_the_same_minibatches(vowels: list[Labelled], spark: Any, tmp_path: Path) -> None:
    write_csv(vowels, tmp_path / "csv")
    rows, steps = str(tmp_path / "rows.parquet"), str(tmp_path / "steps.parquet")
    pyarrow.parquet.write_table(as_rows(vowels), rows)
    pyarrow.parquet.write_table(as_steps(vowels), steps)
    a_row = {"key": "name", "values": "steps", "label": "class"}
    a_step = {"key": "name", "order_by": "time", "label": "class"}
    by_csv = minibatches(read(CsvData(path=str(tmp_path / "csv"), skip_lines=1, label_column="label"), needs(TASK)))
    assert len(by_csv) == 9
    sources = {
        "parquet, a row a sequence": read(ParquetData(path=rows, **a_row), needs(TASK)),
        "parquet, a row a step": read(ParquetData(path=steps, **a_step), needs(TASK)),
        "Spark, a row a sequence": sequences(spark.read.parquet(rows), **a_row),
        "Spark, a row a step": sequences(spark.read.parquet(steps), **a_step),
    }
    for source, dataset in sources.items():
        for ours, theirs in zip(by_csv, minibatches(dataset), strict=True):
            assert ours.keys == theirs.keys, source
            for name in ("inputs", "targets", "mask", "target_mask"):
                torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=0, atol=1e-6, msg=source)
