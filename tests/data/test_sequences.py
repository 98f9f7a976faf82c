"""Sequences are gathered from any dataset, checked, kept in the object store, and taken by number."""

import gc
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ray
import ray.data
from hypothesis import given
from hypothesis import strategies as st

from rayrnn.data.rows import canonical
from rayrnn.data.sequences import Blocks, Sequences, gather, results, split, take
from rayrnn.errors import ClusterError, DataError
from tests.asked import needs

pytestmark = pytest.mark.usefixtures("ray_cluster")


def dataset(*blocks: dict[str, Any]) -> ray.data.Dataset:
    return ray.data.from_arrow([pa.table(block) for block in blocks])


def numbered_texts(count: int, a_block: int) -> ray.data.Dataset:
    """Sequence n is the text of n, as often as n % 5 + 1."""
    numbers = [range(start, min(start + a_block, count)) for start in range(0, count, a_block)]
    return dataset(*({"key": [str(n) for n in own], "text": [f"{n} " * (n % 5 + 1) for n in own]} for own in numbers))


def taken(sequences: Sequences, indices: list[int]) -> list[dict[str, Any]]:
    return list(take(sequences, np.array(indices, np.int64)).to_pylist())


def test_any_sequences_are_taken_in_any_order_from_many_blocks() -> None:
    sequences = gather(numbered_texts(97, 5), needs("language_model"))
    assert len(sequences) == 97
    assert len(sequences.blocks) == 20
    assert sequences.offsets.tolist() == [*range(0, 97, 5), 97]
    order = np.random.default_rng(1).permutation(97)
    assert take(sequences, order)["key"].to_pylist() == [str(n) for n in order]
    assert taken(sequences, [3, 3, 96, 0])[2] == {"key": "96", "text": "96 96 "}
    assert taken(sequences, []) == []
    assert sequences.steps.tolist() == [len(f"{n} ") * (n % 5 + 1) - 1 for n in range(97)]


def test_the_blocks_outlive_the_dataset() -> None:
    source = numbered_texts(20, 4)
    sequences = gather(source, needs("language_model"))
    del source
    gc.collect()
    assert taken(sequences, [19])[0]["key"] == "19"


def test_sequences_travel_to_other_processes() -> None:
    sequences = gather(numbered_texts(20, 4), needs("language_model"))
    take(sequences, np.arange(20))

    @ray.remote
    def keys(travelled: Sequences, indices: np.ndarray) -> list[str]:
        return list(take(travelled, indices)["key"].to_pylist())

    assert ray.get(keys.remote(sequences, np.array([17, 2]))) == ["17", "2"]


def test_a_process_keeps_no_more_blocks_than_it_may() -> None:
    tables = [pa.table({"key": [str(number)], "text": ["x" * 1000]}) for number in range(6)]
    references = [ray.put(table) for table in tables]
    blocks = Blocks(kept_bytes=3 * tables[0].nbytes)
    for number in (0, 1, 2, 0, 3, 4, 5, 0, 0):
        assert blocks.fetch(references[number]) == tables[number]
        assert blocks.num_bytes <= 3 * tables[0].nbytes
    smallest = Blocks(kept_bytes=1)
    assert [smallest.fetch(reference) for reference in references] == tables
    assert smallest.num_bytes == tables[-1].nbytes


def test_a_dataset_that_is_still_to_be_computed_keeps_its_order() -> None:
    lazy = numbered_texts(60, 3).map_batches(
        lambda table: table.append_column("more", table["key"]), batch_format="pyarrow", batch_size=None
    )
    assert take(gather(lazy, needs("language_model")), np.arange(60))["key"].to_pylist() == [str(n) for n in range(60)]


def test_rows_without_a_step_are_dropped_and_counted() -> None:
    source = dataset({"key": ["a", "b", "c", "d"], "text": ["abc", "x", "", None]}, {"key": ["e"], "text": ["y"]})
    sequences = gather(source, needs("language_model"))
    assert (sequences.steps.tolist(), sequences.num_dropped, len(sequences.blocks)) == ([2], 4, 1)
    assert gather(source.map(lambda row: row | {"label": 1}), needs("classification")).steps.tolist() == [3, 1, 1]
    with pytest.raises(DataError, match="none of the 1 sequences has a step"):
        gather(dataset({"key": ["a"], "text": ["x"]}), needs("language_model"))


def test_sequences_no_longer_than_the_horizon_are_dropped() -> None:
    values = [[[1.0]] * 5, [[1.0]] * 3, [[1.0]] * 4]
    sequences = gather(dataset({"key": ["a", "b", "c"], "values": values}), needs("regression", 3))
    assert (sequences.steps.tolist(), sequences.num_dropped) == ([5, 4], 1)
    with pytest.raises(DataError, match=r"none of the 3 sequences is longer than data\.horizon, 7 steps"):
        gather(dataset({"key": ["a", "b", "c"], "values": values}), needs("regression", 7))


def test_sequences_without_a_class_are_dropped_from_classification() -> None:
    source = dataset({"key": ["a", "b"], "values": [[1.0], [2.0]], "label": [None, 3]})
    sequences = gather(source, needs("classification"))
    assert (taken(sequences, [0])[0]["label"], sequences.num_dropped) == ("3", 1)


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.list_(pa.float64())),
        pa.large_list(pa.large_list(pa.int32())),
        pa.list_(pa.list_(pa.float32(), 2)),
        pa.list_(pa.list_(pa.float16())),
    ],
    ids=str,
)
def test_values_of_every_list_type_become_the_same(kind: pa.DataType) -> None:
    values = pa.array([[[1, 2], [3, 4], [5, 6]], [[7, 8]]], pa.list_(pa.list_(pa.int64()))).cast(kind)
    table = canonical(pa.table({"key": ["a", "b"], "values": values}), needs("regression"), labelled=False)
    assert table.schema.field("values").type == pa.list_(pa.list_(pa.float64(), 2))
    assert table["values"].to_pylist() == [[[1, 2], [3, 4], [5, 6]], [[7, 8]]]


def test_arrays_of_ray_data_and_frames_of_pandas_are_understood() -> None:
    ragged = ray.data.from_items([{"key": str(n), "values": np.full((n + 1, 2), n), "label": n % 2} for n in range(4)])
    sequences = gather(ragged, needs("classification"))
    assert sequences.steps.tolist() == [1, 2, 3, 4]
    assert taken(sequences, [2])[0] == {"key": "2", "values": [[2, 2]] * 3, "label": "0"}
    flat = ray.data.from_items([{"key": str(n), "values": np.full(n + 1, n), "label": 0.0} for n in range(4)])
    assert taken(gather(flat, needs("classification")), [1])[0] == {"key": "1", "values": [[1], [1]], "label": "0"}
    frame = pd.DataFrame({"key": [1, 2], "values": [[1.0, 2.0], [3.0]], "label": ["x", "y"]})
    assert taken(gather(ray.data.from_pandas(frame), needs("classification")), [0, 1]) == [
        {"key": "1", "values": [[1], [2]], "label": "x"},
        {"key": "2", "values": [[3]], "label": "y"},
    ]


@given(
    st.lists(
        st.lists(
            st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3), max_size=5
        ),
        min_size=1,
        max_size=6,
    )
)
def test_ragged_values_stay_what_they_are(values: list[list[list[float]]]) -> None:
    keys = [str(number) for number in range(len(values))]
    table = pa.table({"key": keys, "values": pa.array(values, pa.list_(pa.list_(pa.float32())))})
    found = canonical(table, needs("regression"), labelled=False)["values"].to_pylist()
    assert found == values


def test_whole_numbers_are_words_and_labels_are_strings() -> None:
    source = dataset({"key": ["a"], "symbols": [[3, 10, 3]], "label": [[1, None, 0]]})
    assert taken(gather(source, needs("tagging")), [0]) == [
        {"key": "a", "symbols": ["3", "10", "3"], "label": ["1", None, "0"]}
    ]


def test_one_answer_a_sequence_may_be_a_bare_number() -> None:
    source = dataset({"key": ["a", "b"], "values": [[1.0], [2.0]], "label": [3, None]})
    sequences = gather(source, needs("regression"))
    assert sequences.schema.field("label").type == pa.list_(pa.float64(), 1)
    first, second = (row["label"] for row in taken(sequences, [0, 1]))
    assert first == [3]
    assert np.isnan(second).all()


def test_rows_that_a_source_skipped_are_listed() -> None:
    nothing = pa.nulls(1, pa.list_(pa.list_(pa.float32(), 1)))
    usable = {"key": ["a"], "values": [[[1.0], [2.0]]], "label": ["x"]}
    broken = {"key": ["b"], "values": nothing, "label": pa.nulls(1, pa.string()), "skipped": ["b.csv:3: no number"]}
    alone = {"key": ["c"], "skipped": ["c.csv is empty"]}
    tables = [pa.concat_tables([pa.table(usable), pa.table(broken)], promote_options="permissive"), pa.table(alone)]
    sequences = gather(ray.data.from_arrow(tables), needs("classification"))
    assert (len(sequences), sequences.skipped) == (1, ("b.csv:3: no number", "c.csv is empty"))
    with pytest.raises(DataError, match=r"no sequence is left: 1 were skipped, the first because: c\.csv is empty"):
        gather(dataset(alone), needs("classification"))


def test_faults_that_a_source_found_end_the_run_with_the_first_few(capfd: pytest.CaptureFixture[str]) -> None:
    faults = [{"key": [f"{number}"], "fault": [f"{number}.csv is empty"]} for number in range(5)]
    with pytest.raises(DataError) as caught:
        gather(dataset(*faults, {"key": ["a"], "text": ["abc"]}), needs("language_model"))
    assert str(caught.value) == "0.csv is empty\n1.csv is empty\n2.csv is empty\nand 2 more"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("columns", "task", "message"),
    [
        ({"key": ["a"], "words": ["b"]}, "tagging", "the columns are key, words; a row of sequences has `key`"),
        ({"text": ["a"]}, "language_model", "the columns are text; a row of sequences has `key`"),
        ({"key": ["a"], "text": ["x"], "values": [[1]]}, "language_model", "one of `text`, `symbols` and `values`"),
        ({"key": ["a"], "values": [[1]]}, "language_model", "a language model learns `text` or `symbols`"),
        (
            {"key": ["a"], "values": [[1]]},
            "classification",
            "classification needs labels, a column `label` of each row",
        ),
        ({"key": ["a"], "text": [1]}, "language_model", "column `text` holds int64, not strings"),
        ({"key": ["a"], "symbols": ["x"]}, "language_model", "column `symbols` holds string; every row must be a list"),
        ({"key": ["a"], "symbols": [[1.5]]}, "language_model", "column `symbols` holds double, not words"),
        ({"key": ["a"], "symbols": [["x", None]]}, "language_model", "sequence 'a', step 1: `symbols` is empty"),
        (
            {"key": ["a"], "values": [["x"]], "label": [1]},
            "classification",
            "column `values` holds string, not numbers",
        ),
        ({"key": ["a"], "values": [1.0], "label": [1]}, "classification", "its rows must be lists or lists of lists"),
        (
            {"key": ["a", "b"], "values": [[[1, 2]], [[1, 2], [3]]], "label": [1, 1]},
            "classification",
            "sequence 'b', step 1: `values` holds 1 items, the first step has 2",
        ),
        (
            {"key": ["a", "b"], "values": [[1.0], [2.0, None]], "label": [1, 1]},
            "classification",
            r"sequence 'b', step 1: `values` holds \[nan\]",
        ),
        (
            {"key": ["a"], "symbols": [["x", "y"]], "label": [["A"]]},
            "tagging",
            "sequence 'a' has 2 steps, but `label` has 1 items",
        ),
        (
            {"key": ["a"], "symbols": [["x"]], "label": ["A"]},
            "tagging",
            "column `label` holds string; its rows must be",
        ),
        ({"key": ["a"], "symbols": [["x"]], "label": [["A"]]}, "classification", "takes one class a sequence"),
        ({"key": ["a"], "values": [[1]], "label": [1.5]}, "classification", "column `label` holds double, not words"),
        ({"key": ["a"], "values": [[1]], "label": ["x"]}, "regression", "column `label` holds string, not numbers"),
        (
            {"key": ["a", "b"], "values": [[1], [1]], "label": [[1, 2], [1]]},
            "regression",
            "sequence 'b', step 0: `label` holds 1 items, the first step has 2",
        ),
        (
            {"key": ["a"], "values": [[1]], "categories": [[["x"], ["y"]]], "label": ["x"]},
            "classification",
            "sequence 'a' has 1 steps, but `categories` has 2 items",
        ),
    ],
)
def test_rows_that_do_not_fit_are_refused_with_the_reason(columns: dict[str, Any], task: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        gather(dataset(columns), needs(task))


def test_blocks_that_differ_are_refused() -> None:
    first = {"key": ["a"], "values": [[[1.0, 2.0]]], "label": [1]}
    second = {"key": ["b"], "values": [[[1.0, 2.0, 3.0]]], "label": [1]}
    message = r"sequence 'a' holds values: .*\[2\].*, sequence 'b' holds values: .*\[3\].*: all must be alike"
    with pytest.raises(DataError, match=message):
        gather(dataset(first, second), needs("classification"))


def test_a_dataset_without_rows_is_refused() -> None:
    with pytest.raises(DataError, match="the dataset holds no sequences"):
        gather(dataset({"key": pa.array([], pa.string()), "text": pa.array([], pa.string())}), needs("language_model"))


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("held_out", [0.0, 0.02, 0.1, 0.5, 0.99])
def test_the_held_out_part_and_the_rest_are_the_whole(held_out: float, last: bool) -> None:
    sequences = gather(numbered_texts(20, 7), needs("language_model"))
    learned, kept = split(sequences, held_out, seed=3, last=last)
    assert sorted([*learned, *kept]) == list(range(20))
    assert len(kept) == {0.0: 0, 0.02: 1, 0.1: 2, 0.5: 10, 0.99: 19}[held_out]
    assert learned.tolist() == sorted(learned)
    assert kept.tolist() == sorted(kept)
    if last:
        assert learned.tolist() == list(range(len(learned)))
    again = split(sequences, held_out, seed=3, last=last)
    assert (again[0].tolist(), again[1].tolist()) == (learned.tolist(), kept.tolist())


def test_held_out_sequences_are_drawn_by_the_seed() -> None:
    sequences = gather(numbered_texts(100, 50), needs("language_model"))
    drawn = [split(sequences, 0.2, seed=seed, last=False)[1].tolist() for seed in range(3)]
    assert drawn[0] != drawn[1] != drawn[2]


def without_library(name: str) -> None:
    raise ModuleNotFoundError(f"No module named '{name}'", name=name.partition(".")[0])


@pytest.mark.parametrize(
    ("module", "due"),
    [("deltalake.table", "no deltalake, .*'rayrnn\\[delta\\]'"), ("plantlib", "no plantlib, .* plantlib ")],
)
def test_a_host_without_a_library_is_told(module: str, due: str) -> None:
    with pytest.raises(ClusterError, match=rf"^host [\w.:]+ has {due}"):
        results([ray.remote(without_library).remote(module)])
    rows = ray.data.range(2).map_batches(lambda _: without_library(module))
    with pytest.raises(ClusterError, match=due):
        gather(rows, needs("classification"))
