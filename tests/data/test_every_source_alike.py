"""The same sequences give the same minibatches whatever their source: CSV files, and Parquet in two shapes."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rayrnn.data.batches import Minibatch
from rayrnn.data.fitting import fit_encoding
from rayrnn.data.order import Plan
from rayrnn.data.sequences import Sequences, gather, take
from rayrnn.data.sources import read
from rayrnn.recipe import task_named
from rayrnn.recipe.data_sections import CsvData, Data, ParquetData
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


@pytest.fixture(scope="module")
def sources(vowels: list[Labelled], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Data]:
    place = tmp_path_factory.mktemp("sources")
    write_csv(vowels, place / "csv")
    names = [f"{number:04d}.csv" for number in range(len(vowels))]
    values = [np.array(steps, np.float64).tolist() for steps, _ in vowels]
    rows = pa.table({"name": names, "series": values, "kind": [label for _, label in vowels]})
    pq.write_table(rows, place / "rows.parquet", row_group_size=100)
    steps = [
        {"name": name, "time": time, "kind": label} | {f"x{place:02d}": cell for place, cell in enumerate(step)}
        for name, series, (_, label) in zip(names, values, vowels, strict=True)
        for time, step in enumerate(series)
    ]
    shuffled = np.random.default_rng(1).permutation(len(steps))
    pq.write_table(pa.Table.from_pylist(steps).take(pa.array(shuffled)), place / "steps.parquet")
    return {
        "csv": CsvData(path=str(place / "csv"), skip_lines=1, label_column="label"),
        "rows": ParquetData(path=str(place / "rows.parquet"), key="name", values="series", label="kind"),
        "steps": ParquetData(path=str(place / "steps.parquet"), key="name", order_by="time", label="kind"),
    }


def epoch(sequences: Sequences) -> list[Minibatch]:
    """The first epoch that training would learn, were the sequences numbered in the order of their keys."""
    numbers = np.arange(len(sequences))
    by_key = np.argsort(take(sequences, numbers)["key"].to_numpy(zero_copy_only=False))
    encoding = fit_encoding(sequences, numbers, task_named(TASK), Choices(), normalize="standardize")
    plan = Plan(sequences.steps[by_key], numbers, batch_size=8, seed=1)
    chosen = (by_key[plan.minibatch(number)] for number in range(plan.minibatches_an_epoch))
    return [task_named(TASK).minibatch(take(sequences, indices), encoding) for indices in chosen]


@pytest.mark.parametrize("source", ["rows", "steps"])
def test_parquet_leads_to_the_minibatches_that_csv_files_lead_to(
    ray_cluster: None, sources: dict[str, Data], source: str
) -> None:
    by_csv, by_parquet = (epoch(gather(read(sources[name], needs(TASK)), needs(TASK))) for name in ("csv", source))
    assert len(by_csv) == 34
    for ours, theirs in zip(by_csv, by_parquet, strict=True):
        assert ours.keys == theirs.keys
        torch.testing.assert_close(ours.inputs, theirs.inputs, rtol=0, atol=1e-6)
        for name in ("targets", "mask", "target_mask"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


def test_one_row_a_sequence_in_the_order_of_the_files_is_equal_bit_for_bit(
    ray_cluster: None, sources: dict[str, Data]
) -> None:
    by_csv, by_rows = (gather(read(sources[name], needs(TASK)), needs(TASK)) for name in ("csv", "rows"))
    everything = np.arange(len(by_csv))
    assert take(by_csv, everything).combine_chunks().equals(take(by_rows, everything).combine_chunks())


def test_a_minibatch_of_sequences_of_unequal_length_has_little_padding(
    ray_cluster: None, sources: dict[str, Data]
) -> None:
    minibatches = epoch(gather(read(sources["csv"], needs(TASK)), needs(TASK)))
    steps = sum(minibatch.steps for minibatch in minibatches)
    computed = sum(minibatch.mask.numel() for minibatch in minibatches)
    assert 1 - steps / computed < 0.1
