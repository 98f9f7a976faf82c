"""Numbers are scaled in float64 and narrowed after; what is one number then, and was two before, is said."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data

from rayrnn.data.encoding import Numbers, Scaling
from rayrnn.data.narrowing import lost_in_float32, lost_in_float64
from rayrnn.data.prepare import Prepared, prepare
from rayrnn.data.sequences import take
from rayrnn.errors import DataError
from rayrnn.recipe import validate_recipe

#: milliseconds of the year 2023
EPOCH = 1_700_000_000_000
STEPS = 5


def files(place: Path, column: list[Any], label: str = "{number}") -> dict[str, Any]:
    """A `data` section: each CSV file holds the whole column, one value a step."""
    place.mkdir()
    for number in range(6):
        lines = "".join(f"{value},{label.format(number=number % 2)}\n" for value in column)
        (place / f"{number}.csv").write_text(f"t,y\n{lines}")
    return {"source": "csv", "path": str(place), "skip_lines": 1, "label_column": "y"}


def table(place: Path, column: pa.Array) -> dict[str, Any]:
    """The same as a Parquet table with one row a step."""
    place.mkdir()
    count = len(column)
    ids = [number for number in range(6) for _ in range(count)]
    columns = {"id": ids, "step": list(range(count)) * 6, "t": pa.concat_arrays([column] * 6)}
    pq.write_table(pa.table(columns | {"y": [str(number % 2) for number in ids]}), place / "steps.parquet")
    return {"source": "parquet", "path": str(place), "key": "id", "order_by": "step", "label": "y"}


def prepared(data: dict[str, Any], task: str = "classification", **more: Any) -> Prepared:
    recipe = {"name": "narrow", "task": task, "data": data | {"held_out": 0.3} | more}
    return prepare(validate_recipe(recipe))


def learned(done: Prepared) -> np.ndarray:
    """What a network reads of the first sequence, its first feature."""
    inputs = done.encoding.inputs
    assert isinstance(inputs, Numbers)
    return inputs.read(take(done.training.sequences, np.array([0])))[:, 0]


@pytest.mark.parametrize("normalize", ["standardize", "min_max"])
@pytest.mark.parametrize("source", ["csv", "parquet"])
def test_milliseconds_of_an_epoch_are_told_apart(
    ray_cluster: None, tmp_path: Path, source: str, normalize: str
) -> None:
    column = [EPOCH + step for step in range(STEPS)]
    data = files(tmp_path / "x", column) if source == "csv" else table(tmp_path / "x", pa.array(column))
    done = prepared(data, normalize=normalize)
    expected = np.linspace(0, 1, STEPS) if normalize == "min_max" else (np.arange(STEPS) - 2) / np.sqrt(2)
    np.testing.assert_allclose(learned(done), expected, atol=1e-6)
    assert done.notes == ()


def test_a_forecast_is_scaled_as_its_inputs_are_and_told_in_its_own_units(ray_cluster: None, tmp_path: Path) -> None:
    data = files(tmp_path / "x", [EPOCH + step for step in range(STEPS)]) | {"label_column": None, "features": ["t"]}
    done = prepared(data, "regression", horizon=1, normalize="standardize")
    targets = done.encoding.targets
    assert isinstance(targets, Numbers)
    answers = targets.answers(learned(done)[:, None])["prediction"]
    assert np.round(answers.to_numpy()).tolist() == [EPOCH + step for step in range(STEPS)]


@pytest.mark.parametrize(
    ("column", "normalize", "says"),
    [
        ([EPOCH + step for step in range(STEPS)], "none", "one in float32, in which networks compute: set data.norm"),
        (
            [2**24 + step for step in range(STEPS)],
            "none",
            "such as 16777216.0 and 16777217.0, which are one in float32",
        ),
        ([0, 1, 2, 10**12], "standardize", "such as 0.0 and 1.0, which are one in float32"),
        (
            [-1e12, 0.25, 0.5, 0.75, 1e12],
            "min_max",
            "one in float32, in which networks compute: leave out what",
        ),
        ([1.7e9 + step / 8 for step in range(STEPS)], "none", "one in float32"),
        ([2**53 + step for step in range(STEPS)], "standardize", f"such as {2**53} and {2**53 + 1}, which are one in"),
        ([10**30 + step for step in range(STEPS)], "standardize", f"such as {10**30} and {10**30 + 1}, which are one"),
    ],
)
def test_what_is_not_told_apart_any_more_is_said(
    ray_cluster: None, tmp_path: Path, column: list[Any], normalize: str, says: str
) -> None:
    notes = prepared(files(tmp_path / "x", column), normalize=normalize).notes
    assert notes[0].startswith("column 't' holds")
    assert says in notes[0]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**53, 2**53 + 1, 2**60]),
        pa.array([2**63, 2**63 + 1], pa.uint64()),
        pa.array([Decimal("12345678901234567.1"), Decimal("12345678901234567.2")]),
    ],
)
def test_what_a_table_loses_is_said(ray_cluster: None, tmp_path: Path, column: pa.Array) -> None:
    (note, *_) = prepared(table(tmp_path / "x", column), normalize="standardize").notes
    assert f"column 't' holds whole numbers such as {column[0]} and {column[1]}, which are one in float64" in note


def test_a_dataset_of_ones_own_has_the_same_rules(ray_cluster: None) -> None:
    rows = [{"key": str(n), "values": [EPOCH + step for step in range(STEPS)], "label": str(n % 2)} for n in range(6)]
    recipe = validate_recipe({"name": "own", "task": "classification", "data": {"source": "csv", "path": "x"}})
    assert "feature 0 holds numbers such as" in prepare(recipe, ray.data.from_items(rows)).notes[0]
    large = [{**row, "values": [2**53, 2**53 + 1]} for row in rows]
    assert f"such as {2**53} and {2**53 + 1}" in prepare(recipe, ray.data.from_items(large)).notes[0]


def test_labels_that_are_one_in_float32_are_said(ray_cluster: None, tmp_path: Path) -> None:
    data = files(tmp_path / "x", [1, 2, 3], label=f"{EPOCH}" + "{number}")
    assert "the label holds numbers such as" in prepared(data, "regression").notes[0]


@pytest.mark.parametrize(
    ("column", "normalize", "says"),
    [
        ([1e39, 1], "none", "t is 1e+39, which is more than float32 holds"),
        ([1e300, -1e300], "standardize", "column 't' is between -1e+300 and 1e+300, too large to be scaled"),
        ([1.7e308, -1.7e308], "min_max", "column 't' is between -1.7e+308 and 1.7e+308, too large to be scaled"),
    ],
)
def test_numbers_that_are_too_large_are_refused(
    ray_cluster: None, tmp_path: Path, column: list[Any], normalize: str, says: str
) -> None:
    with pytest.raises(DataError) as told:
        prepared(files(tmp_path / "x", column), normalize=normalize)
    assert says in str(told.value)


def test_differences_too_small_to_be_squared_are_said(ray_cluster: None, tmp_path: Path) -> None:
    done = prepared(files(tmp_path / "x", [1e-200, 2e-200]), normalize="standardize")
    assert np.isfinite(learned(done)).all()
    assert "such as 1e-200 and 2e-200" in done.notes[0]


@pytest.mark.parametrize("seed", range(3))
def test_fractions_with_more_digits_than_float32_has_are_no_matter(seed: int) -> None:
    numbers = np.random.default_rng(seed).normal(20, 5, size=100_000)
    assert lost_in_float32(numbers, Scaling.none(1).apply(numbers), 1.0) is None


@pytest.mark.parametrize(
    "cells", [[1, 2**53 - 1, 2**53], [None, None], [], [2**60, 2**60], [-(2**53), 2**53, None]], ids=str
)
def test_whole_numbers_that_stay_apart_are_not_told_of(cells: list[int | None]) -> None:
    assert lost_in_float64(pa.array(cells, pa.int64())) is None
    assert lost_in_float64(pa.array([None if cell is None else str(cell) for cell in cells], pa.string())) is None
