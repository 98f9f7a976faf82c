"""A dataset of Ray's becomes the same sequences however many blocks the cluster has made of it."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ray
import ray.data

from rayrnn.data.sequences import Sequences, gather, take
from rayrnn.data.sources import any_table
from rayrnn.data.sources.any_table import sequences_of_dataset
from rayrnn.data.sources.source import Wanted
from rayrnn.errors import DataError
from rayrnn.recipe.data_sections import TableData
from tests.asked import needs

STEPS = {"key": "device", "order_by": "at", "label": "state"}


def section(**keys: Any) -> TableData:
    return TableData.model_validate({"source": "table", **keys})


def sequences(dataset: ray.data.Dataset, task: str = "classification", **keys: Any) -> Sequences:
    return gather(sequences_of_dataset(dataset, section(**keys), Wanted(needs(task))), needs(task))


def contents(found: Sequences) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = take(found, np.arange(len(found))).to_pylist()
    return rows


def blocks(table: pa.Table, *ends: int) -> ray.data.Dataset:
    cuts = [0, *ends, len(table)]
    return ray.data.from_arrow([table.slice(a, b - a) for a, b in pairwise(cuts)])


def fault(dataset: ray.data.Dataset, task: str = "classification", **keys: Any) -> str:
    with pytest.raises(DataError) as told:
        sequences(dataset, task, **keys)
    return str(told.value)


def steps(count: int = 60) -> pa.Table:
    device, at = np.arange(count) % 7, np.arange(count) // 7
    state = np.where(device % 2, "run", "walk")
    table = pa.table({"device": device, "at": at, "x": at * 0.5 + device, "state": state})
    return table.take(np.random.default_rng(1).permutation(count))


def test_steps_come_in_the_same_order_from_any_blocks(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sequences(blocks(steps()), **STEPS)
    cut = sequences(blocks(steps(), 1, 1, 20, 59), **STEPS)
    assert contents(cut) == contents(whole)
    assert cut.offsets.tolist() == whole.offsets.tolist()
    assert contents(whole)[0]["values"][:2] != contents(whole)[1]["values"][:2]
    assert sorted(row["key"] for row in contents(whole)) == list("0123456")
    monkeypatch.setattr(any_table, "TASK_BYTES", 128)  # many tasks
    many = contents(sequences(blocks(steps(), 30), **STEPS))
    assert sorted(many, key=lambda row: row["key"]) == sorted(contents(whole), key=lambda row: row["key"])


def test_rows_keep_their_order_and_are_numbered_through_all_blocks(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(any_table, "TASK_BYTES", 64)
    table = pa.table({"series": [[float(number)] * (1 + number % 3) for number in range(9)], "kind": list("ababababa")})
    found = [sequences(blocks(table, *ends), values="series", label="kind") for ends in ((), (4,), (1, 2, 8))]
    assert [row["key"] for row in contents(found[0])] == [f"row:{number}" for number in range(9)]
    assert [row["values"][0][0] for row in contents(found[0])] == list(range(9))
    assert contents(found[0]) == contents(found[1]) == contents(found[2])
    assert len(found[0].blocks) > 1
    assert found[0].offsets.tolist() == found[1].offsets.tolist() == found[2].offsets.tolist()


def test_frames_and_tensors_are_tables_too(ray_cluster: None) -> None:
    frame = pd.DataFrame({"device": ["a", "a", "b"], "at": [1, 0, 0], "state": ["up", "up", "down"]}, index=[5, 6, 7])
    frame["x"] = [np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.array([5.0, 6.0])]
    rows = contents(sequences(ray.data.from_pandas(frame), **STEPS))
    assert {row["key"]: row["values"] for row in rows} == {"a": [[3, 4], [1, 2]], "b": [[5, 6]]}
    tensors = ray.data.from_items([{"device": "a", "at": n, "state": "up", "x": np.full(2, n)} for n in range(3)])
    (row,) = contents(sequences(tensors, **STEPS))
    assert row["values"] == [[0, 0], [1, 1], [2, 2]]


def test_a_column_that_is_empty_in_the_first_block_has_the_type_of_the_others(ray_cluster: None) -> None:
    one = pa.table({"device": ["a"], "at": [0], "x": pa.nulls(1), "state": ["up"]})
    other = pa.table({"device": ["b"], "at": [0], "x": [1.5], "state": ["up"]})
    assert "'a', at 0: column 'x' is empty" in fault(ray.data.from_arrow([one, other]), **STEPS)


def test_blocks_that_differ_and_a_dataset_of_nothing_are_told(ray_cluster: None) -> None:
    one = pa.table({"device": ["a"], "at": [0], "x": [1.5], "state": ["up"]})
    other = one.set_column(2, "x", pa.array(["1.5"]))
    assert "row 1 and those after it: column 'x' holds string" in fault(ray.data.from_arrow([one, other]), **STEPS)
    assert "there is no column 'x'" in fault(ray.data.from_arrow([one, one.drop_columns("x")]), **STEPS)
    assert fault(ray.data.from_arrow(one.slice(0, 0)), **STEPS) == "the dataset has no rows"
