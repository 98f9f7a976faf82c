"""What is forecast, what is known ahead, what is the same at every step: the same for every source of numbers."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rayrnn.data.batches import Minibatch
from rayrnn.data.encoding import Encoding
from rayrnn.data.prepare import Prepared, needs_to_read, prepare
from rayrnn.data.rows import canonical
from rayrnn.data.sequences import take
from rayrnn.data.sources import Wanted, read
from rayrnn.data.sources.beside_values import with_features_beside
from rayrnn.data.sources.grouping import group, grouping_of
from rayrnn.data.sources.tables import rows_of_sequences
from rayrnn.errors import DataError, RecipeError
from rayrnn.recipe import Recipe, needs_of, task_of, validate_recipe
from rayrnn.recipe.data_sections import ParquetData
from rayrnn.runs.schema import StoredEncoding

pytestmark = pytest.mark.usefixtures("ray_cluster")
NAN = float("nan")
ROLES = {"forecast": ["load"], "known_ahead": ["holiday"], "static": ["size", "region"], "horizon": [1, 3]}

#: of every sequence: load and wind at each step, holiday at each and at those to come, size, region
SEQUENCES: dict[str, tuple[list[float], list[float], list[float], float, str]] = {
    "a": ([1, 2, 3, 4, 5], [0, 1, 0, 1, 0], [0, 0, 1, 0, 0, 1, 1, 0], 10, "north"),
    "b": ([9, 8, 7, 6], [2, 2, 2, 2], [1, 1, 0, 0, 1, 0, 1], 20, "south"),
}


def steps_of(key: str, *, future: bool) -> list[dict[str, Any]]:
    load, wind, holiday, size, region = SEQUENCES[key]
    rows = []
    for step in range(len(holiday) if future else len(load)):
        past = step < len(load)
        row = {"key": key, "at": step, "load": load[step] if past else None, "wind": wind[step] if past else None}
        rows.append(
            row | {"holiday": holiday[step], "size": size if past else None, "region": region if past else None}
        )
    return rows


def write_steps(path: Path, *, future: bool = False) -> dict[str, Any]:
    """Parquet, one row a step, in no order."""
    table = pa.Table.from_pylist([row for key in SEQUENCES for row in steps_of(key, future=future)])
    order = np.random.default_rng(0).permutation(len(table))
    pq.write_table(table.take(pa.array(order)), path)
    return {"source": "parquet", "path": str(path), "key": "key", "order_by": "at", "categorical": ["region"]}


def write_csv(folder: Path, *, future: bool = False) -> dict[str, Any]:
    folder.mkdir()
    names = ["load", "wind", "holiday", "size", "region"]
    for key in SEQUENCES:
        lines = [
            ",".join("" if row[name] is None else str(row[name]) for name in names)
            for row in steps_of(key, future=future)
        ]
        (folder / key).write_text("\n".join([",".join(names), *lines]) + "\n")
    return {"source": "csv", "path": str(folder), "skip_lines": 1, "categorical": ["region"]}


def write_sequences(path: Path, *, future: bool = False) -> dict[str, Any]:
    """Parquet, one row a sequence."""
    rows = [
        {
            "key": key,
            "series": np.array([load, wind]).T.tolist(),
            "holiday": holiday if future else holiday[: len(load)],
            "size": size,
            "region": region,
        }
        for key, (load, wind, holiday, size, region) in SEQUENCES.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return {"source": "parquet", "path": str(path), "key": "key", "values": "series", "forecast": [{"place": 0}]}


WRITERS = {"steps": write_steps, "csv": write_csv, "sequences": write_sequences}


def recipe_of(data: dict[str, Any], **more: Any) -> Recipe:
    values = {"name": "x", "task": "regression", "data": {"held_out": 0, **ROLES, **data, **more}}
    return validate_recipe(values)


def minibatch_of(done: Prepared, recipe: Recipe) -> Minibatch:
    """All sequences, in the order of their keys."""
    rows = take(done.training.sequences, np.arange(len(done.training))).sort_by("key")
    return task_of(recipe).minibatch(rows, done.encoding)


@pytest.mark.parametrize("future", [False, True])
@pytest.mark.parametrize("source", WRITERS)
def test_every_source_says_the_same(source: str, future: bool, tmp_path: Path) -> None:
    recipe = recipe_of(WRITERS[source](tmp_path / "data", future=future))
    done = prepare(recipe)
    minibatch = minibatch_of(done, recipe)
    # load, wind, holiday, size, region north and south; holiday 1 and 3 steps later
    assert done.encoding.num_inputs == 4 + 2 + 2
    load, wind, holiday, size, _ = SEQUENCES["b"]
    known = [*holiday, 0, 0, 0] if future else [*holiday[:4], 0, 0, 0]
    for step in range(4):
        due = [load[step], wind[step], holiday[step], size, 0, 1, known[step + 1], known[step + 3]]
        assert minibatch.inputs[1, step].tolist() == due
    assert minibatch.inputs[1, 4].eq(0).all()
    # load 1 step later, and 3
    torch.testing.assert_close(minibatch.targets[1, :3], torch.tensor([[8.0, 6], [7, NAN], [6, NAN]]), equal_nan=True)
    assert minibatch.target_mask[1].tolist() == [True, True, True, False, False]
    assert done.encoding.describe() == "6 features, 2 numbers to predict, 1 and 3 steps ahead"
    stored = StoredEncoding.model_validate_json(json.dumps(done.encoding.to_json()))
    assert Encoding.from_json(stored.model_dump()) == done.encoding


def test_answers_are_called_by_their_column_and_horizon(tmp_path: Path) -> None:
    recipe = recipe_of(write_csv(tmp_path / "data"), forecast=["wind", "load"], normalize="standardize")
    encoding = prepare(recipe).encoding
    answers = task_of(recipe).answers(np.zeros((1, 4), np.float32), encoding)["prediction"].to_pylist()
    assert list(answers[0]) == ["load+1", "wind+1", "load+3", "wind+3"]
    assert answers[0]["load+3"] == pytest.approx(5.0)
    assert answers[0]["wind+1"] == pytest.approx(10 / 9)


@pytest.mark.parametrize(
    ("horizon", "said"),
    [
        ([1, 4], None),
        ([1, 5], "forecasts of 5 steps ahead are never learned"),
        ("1..9", "the longest sequence has 5 steps: forecasts of 5 to 9 steps ahead are never learned"),
    ],
)
def test_horizons_beyond_the_longest_sequence_are_told_of(horizon: Any, said: str | None, tmp_path: Path) -> None:
    notes = prepare(recipe_of(write_csv(tmp_path / "data"), horizon=horizon)).notes
    told = [note for note in notes if "never learned" in note]
    assert len(told) == (said is not None)
    assert all(str(said) in note for note in told)


def test_without_a_word_all_is_forecast_that_is_neither_known_ahead_nor_static(tmp_path: Path) -> None:
    recipe = recipe_of(write_csv(tmp_path / "data"), forecast=None, horizon=2)
    encoding = prepare(recipe).encoding
    assert encoding.targets.size == 2
    assert encoding.foretold is not None
    assert [encoding.column_names[place] for place in encoding.foretold.columns] == ["load", "wind"]


def test_one_horizon_of_all_numbers_is_kept_as_it_always_was(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "data") | {"categorical": [], "features": ["load", "wind"]}
    plain = recipe_of(data, forecast=None, known_ahead=[], static=[], horizon=2)
    assert set(prepare(plain).encoding.to_json()) == {"version", "inputs", "targets", "per_step", "ahead"}
    assert (
        prepare(recipe_of(data, forecast=None, known_ahead=[], static=[], horizon=[2])).encoding
        == prepare(plain).encoding
    )


@pytest.mark.parametrize("source", WRITERS)
def test_an_answer_needs_what_is_known_ahead_up_to_the_last_horizon(source: str, tmp_path: Path) -> None:
    recipe = recipe_of(WRITERS[source](tmp_path / "data"))
    encoding = prepare(recipe).encoding
    needs = needs_to_read(recipe, encoding)
    columns = {"labelled": False, "num_columns": encoding.inputs.num_columns, "column_names": encoding.column_names}
    for future in (False, True):
        where = WRITERS[source](tmp_path / f"{future}", future=future)["path"]
        blocks = list(
            read(recipe.data, needs, where=where, **columns).iter_batches(batch_size=None, batch_format="pyarrow")
        )
        table = pa.concat_tables([block for block in blocks if len(block)])
        if future:
            rows = canonical(
                table.drop_columns([n for n in ("fault",) if n in table.column_names]), needs, labelled=False
            )
            assert sorted(rows["future"].combine_chunks().value_lengths().to_pylist()) == [3, 3]
        else:
            with pytest.raises(
                DataError,
                match=r"sequence '.' ends at step ., .* holiday \(data.known_ahead\) must be known for 3 more",
            ):
                canonical(table, needs, labelled=False)


def changed(path: Path, **cells: Any) -> dict[str, Any]:
    """Steps with the future, in which `cells`, by column, are what stands at step 5 or 2 of the first sequence."""
    rows = [row for key in SEQUENCES for row in steps_of(key, future=True)]
    for name, (step, value) in cells.items():
        rows[step][name] = value
    pq.write_table(pa.Table.from_pylist(rows), path)
    return {"source": "parquet", "path": str(path), "key": "key", "order_by": "at", "categorical": ["region"]}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"holiday": (6, None)}, r"sequence 'a', at 6: column 'holiday' is empty"),
        ({"holiday": (2, None)}, r"sequence 'a', at 2: column 'holiday' is empty"),
        ({"load": (2, None)}, r"sequence 'a', at 2: column 'load' is empty"),
        ({"load": (7, 1.0)}, r"sequence 'a', at 5: column 'load' is empty"),
        ({"size": (2, 11.0)}, r"sequence 'a', at 2: column 'size' \(data.static\) changes from 10.0 to 11.0"),
        ({"region": (3, "south")}, r"sequence 'a', at 3: column 'region' \(data.static\) changes from north to south"),
        ({"size": (2, None)}, r"sequence 'a', at 2: column 'size' is empty"),
    ],
)
def test_a_step_that_does_not_fit_is_told_of(cells: dict[str, Any], message: str, tmp_path: Path) -> None:
    recipe = recipe_of(changed(tmp_path / "data", **cells))
    (fault,) = filter(None, grouped(recipe, pq.read_table(tmp_path / "data"))["fault"].to_pylist())
    assert re.search(message, fault)


def grouped(recipe: Recipe, table: pa.Table) -> pa.Table:
    """Rows of sequences, with what is wrong."""
    data = recipe.data
    assert isinstance(data, ParquetData)
    return group(table, grouping=grouping_of(data, Wanted(needs_of(recipe)), table.schema))


def test_a_sequence_without_a_past_is_told_of(tmp_path: Path) -> None:
    rows = [row | {"load": None, "wind": None} for row in steps_of("a", future=True)] + steps_of("b", future=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data")
    data = {"source": "parquet", "path": str(tmp_path / "data"), "key": "key", "order_by": "at"}
    faults = grouped(recipe_of(data, categorical=["region"]), pq.read_table(tmp_path / "data"))["fault"].to_pylist()
    assert "sequence 'a', at 0: no step has a value of load, wind: there is nothing to go on from" in faults


def test_a_csv_names_the_line_where_a_static_column_changes(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "data")
    (tmp_path / "data" / "a").write_text("load,wind,holiday,size,region\n1,1,0,5,x\n2,1,0,6,x\n")
    with pytest.raises(DataError, match=r"a:3: column 'size' \(data.static\) changes from 5.0 to 6.0"):
        prepare(recipe_of(data))


@pytest.mark.parametrize(
    ("column", "cells", "message"),
    [
        ("holiday", [[0.0, 1], [1.0] * 4], "has 5 steps, and column 'holiday' .* 2 numbers"),
        ("holiday", [[0.0, None, 1, 1, 1], [1.0] * 4], "sequence 'a', step 1: column 'holiday' .* is empty"),
        ("holiday", [1.0, 2.0], "column 'holiday' .* holds double; where a row is a sequence it is a list"),
        ("size", [None, 1.0], "sequence 'a': column 'size' .* is empty"),
        ("region", [["x"], ["y"]], "column 'region' .* one number or one word a sequence"),
    ],
)
def test_a_column_beside_the_values_that_does_not_fit_is_told_of(
    column: str, cells: list[Any], message: str, tmp_path: Path
) -> None:
    data = write_sequences(tmp_path / "data")
    table = pq.read_table(tmp_path / "data")
    table = table.set_column(table.column_names.index(column), column, pa.array(cells))
    with pytest.raises(DataError, match=message):
        beside(recipe_of(data), table)


def beside(recipe: Recipe, table: pa.Table) -> pa.Table:
    data = recipe.data
    assert isinstance(data, ParquetData)
    return with_features_beside(rows_of_sequences(table, data.names(labelled=False)), table, data)


def test_what_is_known_ahead_is_equally_long_in_a_sequence(tmp_path: Path) -> None:
    data = write_sequences(tmp_path / "data", future=True)
    table = pq.read_table(tmp_path / "data")
    price = pa.array([[1.0] * 8, [1.0] * 9])
    with pytest.raises(DataError, match=r"sequence 'b': column 'holiday' .* 3 steps to come, 'price' for 5"):
        beside(recipe_of(data, known_ahead=["holiday", "price"]), table.append_column("price", price))


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"static": ["size", "load"]}, RecipeError, "column 'load' is in data.forecast and in data.static"),
        ({"known_ahead": ["region"]}, RecipeError, "column 'region' is in data.known_ahead and in data.static"),
        ({"known_ahead": ["region"], "static": []}, RecipeError, "data.known_ahead names column 'region', .* words"),
        ({"forecast": ["region"], "static": []}, RecipeError, "data.forecast names column 'region', .* words"),
        ({"features": ["wind"]}, RecipeError, "data.forecast names column 'load', which is not among the features"),
        (
            {"forecast": None, "known_ahead": ["load", "wind", "holiday"]},
            RecipeError,
            "every feature is known ahead or static",
        ),
        ({"forecast": ["lode"]}, DataError, "there is no column 'lode'"),
        ({"static": ["lode"]}, DataError, "there is no column 'lode'"),
    ],
)
def test_columns_that_contradict_each_other_are_refused(
    more: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    recipe = recipe_of(write_steps(tmp_path / "data"), **more)
    with pytest.raises(error, match=message):
        grouped(recipe, pq.read_table(tmp_path / "data"))


def test_columns_of_values_are_forecast_by_their_places(tmp_path: Path) -> None:
    data = write_sequences(tmp_path / "data")
    for column in ({"place": 2}, "load"):
        with pytest.raises(
            DataError, match=r"data.forecast names .*, and a step has series\[0\], series\[1\]: give their"
        ):
            beside(recipe_of(data, forecast=[column]), pq.read_table(tmp_path / "data"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"text": "t", "static": ["size"]}, "data.static goes with numbers at steps"),
        ({"key": "id", "order_by": "at", "forecast": [{"place": 0}], "horizon": 1}, "are given by their names"),
    ],
)
def test_columns_that_a_table_cannot_have_are_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        validate_recipe({"name": "x", "task": "regression", "data": {"source": "parquet", "path": "x", **data}})


@pytest.mark.parametrize(
    ("horizon", "horizons"),
    [(3, (3,)), ("3", (3,)), ([1, 6, 24], (1, 6, 24)), ("1..4", (1, 2, 3, 4)), ("2..2", (2,)), ([5], (5,)), (0, ())],
)
def test_a_horizon_is_one_number_several_or_a_range(horizon: object, horizons: tuple[int, ...]) -> None:
    data = {"source": "csv", "path": "x", "horizon": horizon, "label_column": None if horizons else "y"}
    recipe = validate_recipe({"name": "x", "task": "regression", "data": data})
    assert recipe.data.horizons == horizons  # type: ignore[attr-defined]
    assert validate_recipe(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    "horizon", [-1, "x", [0, 1], [2, 1], [1, 1], "4..1", "0..3", [1, "b"], 1.5, "1..2..3", "1..99999", True, []]
)
def test_other_horizons_are_refused(horizon: object) -> None:
    data = {"source": "csv", "path": "x", "horizon": horizon}
    with pytest.raises(RecipeError, match=r"data\.horizon"):
        validate_recipe({"name": "x", "task": "regression", "data": data})


@pytest.mark.parametrize("key", ["forecast", "known_ahead"])
def test_columns_of_forecasts_go_with_a_horizon(key: str) -> None:
    data = {"source": "csv", "path": "x", "label_column": "y", key: ["load"]}
    with pytest.raises(RecipeError, match=f"data.{key} is for forecasts: set data.horizon"):
        validate_recipe({"name": "x", "task": "regression", "data": data})


def test_features_of_a_sequence_are_for_any_task(tmp_path: Path) -> None:
    data = write_sequences(tmp_path / "data") | {"label": "region", "static": ["size"]}
    recipe = validate_recipe({"name": "x", "task": "classification", "data": {"held_out": 0, **data, "forecast": None}})
    done = prepare(recipe)
    assert done.encoding.column_names == ("series[0]", "series[1]", "size")
    assert minibatch_of(done, recipe).inputs[1, :4, 2].tolist() == [20.0] * 4
