"""What a program holds is learned without files: frames, tables, lists, datasets of Ray's; and measured afterwards."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.parquet
import pytest
import ray.data

import rayrnn
from rayrnn.data.sequences import gather, take
from rayrnn.errors import DataError, RecipeError, UsageError
from rayrnn.recipe import Recipe, validate_recipe
from tests.asked import needs

pytestmark = pytest.mark.usefixtures("ray_cluster")

COLUMNS: dict[str, Any] = {"key": "device", "order_by": "at", "label": "state"}


def steps(devices: int = 12, length: int = 8) -> pd.DataFrame:
    """One row a step, in no order."""
    device, at = np.repeat(np.arange(devices), length), np.tile(np.arange(length), devices)
    state = np.where(device % 2, "run", "walk")
    frame = pd.DataFrame(
        {"device": device, "at": at, "x": np.sin(at * (1.0 + device % 2)), "y": at * 0.1, "state": state}
    )
    return frame.sample(frac=1, random_state=1)


def rows_of(dataset: ray.data.Dataset, task: str = "classification") -> list[dict[str, Any]]:
    found = gather(dataset, needs(task))
    rows: list[dict[str, Any]] = take(found, np.arange(len(found))).to_pylist()
    return rows


def recipe(**data: Any) -> Recipe:
    section = {"data": data} if data else {}
    values = {
        "name": "given",
        "task": "classification",
        "model": {"hidden": 8},
        "averaging": {"rounds": 2, "workers": 1},
    }
    return validate_recipe(values | section)


@pytest.mark.parametrize("kind", ["pandas", "arrow", "ray", "reader", "indexed"])
def test_every_kind_of_table_gives_the_same_sequences(kind: str) -> None:
    frame = steps()
    held: Any = {
        "pandas": lambda: frame,
        "arrow": lambda: pa.Table.from_pandas(frame, preserve_index=False),
        "ray": lambda: ray.data.from_pandas([frame.iloc[:7], frame.iloc[7:]]),
        "reader": lambda: pa.Table.from_pandas(frame, preserve_index=False).combine_chunks(),
        "indexed": lambda: frame.set_index(["device", "at"]),
    }[kind]()
    rows = rows_of(rayrnn.sequences(held, **COLUMNS))
    assert sorted(row["key"] for row in rows) == sorted(map(str, range(12)))
    (one,) = [row for row in rows if row["key"] == "3"]
    assert one["label"] == "run"
    assert [round(step[0], 6) for step in one["values"]] == [round(float(np.sin(at * 2.0)), 6) for at in range(8)]


def test_polars_frames_are_read() -> None:
    rows = rows_of(rayrnn.sequences(polars.from_pandas(steps()), **COLUMNS))
    assert rows == rows_of(rayrnn.sequences(steps(), **COLUMNS))


def below(frame: pd.DataFrame, *names: str | None) -> pd.DataFrame:
    """The steps below an index of levels of these names."""
    levels = pd.MultiIndex.from_arrays([steps()["device"]] * len(names), names=names)
    return frame.set_axis(levels)


@pytest.mark.parametrize(
    "frame",
    [
        pd.concat({n: own.drop(columns="device") for n, own in steps().groupby("device")}, names=["device"]),
        steps().groupby("device").apply(lambda own: own[["at", "x", "y", "state"]]),
        below(steps(), None, None),
        below(steps().drop(columns="device"), None, "device", None),
        below(steps(), "device", None),
    ],
    ids=["concat", "apply", "nameless", "named", "beside"],
)
def test_a_level_of_an_index_without_a_name_is_no_feature(frame: pd.DataFrame) -> None:
    assert rows_of(rayrnn.sequences(frame, **COLUMNS)) == rows_of(rayrnn.sequences(steps(), **COLUMNS))


def with_intervals(cut: bool) -> pd.DataFrame:
    frame = steps()
    between = pd.cut(frame["x"], 3) if cut else pd.arrays.IntervalArray.from_arrays(frame["at"], frame["at"] + 1)
    return frame.assign(between=between)


@pytest.mark.parametrize("cut", [True, False])
def test_what_no_sequence_can_hold_does_not_matter_where_it_is_not_read(cut: bool) -> None:
    plain = rows_of(rayrnn.sequences(steps(), features=["x"], **COLUMNS))
    frame = with_intervals(cut).assign(things=[object()] * len(steps()))
    assert rows_of(rayrnn.sequences(frame, features=["x"], **COLUMNS)) == plain
    table = pa.Table.from_pandas(frame.drop(columns="things"), preserve_index=False)
    assert rows_of(rayrnn.sequences(table, features=["x"], **COLUMNS)) == plain
    assert rows_of(rayrnn.sequences(frame, ignore={"y", "between", "things"}, **COLUMNS)) == plain
    objects = polars.from_pandas(steps()).with_columns(o=polars.Series([object()] * len(frame), dtype=polars.Object))
    assert rows_of(rayrnn.sequences(objects, features=["x"], **COLUMNS)) == plain
    with pytest.raises(DataError, match=r"column 'between' holds struct<left: .*, right: .*>, no numbers"):
        rayrnn.sequences(with_intervals(cut), **COLUMNS)
    with pytest.raises(DataError, match=r"'between' \(data\.categorical\) holds struct"):
        rayrnn.sequences(with_intervals(cut), categorical=["between"], **COLUMNS)


def test_a_dataset_whose_blocks_arrow_does_not_give_back_is_told() -> None:
    with pytest.raises(DataError, match=r"holds what Arrow does not give back.* \(dataset\.drop_columns\)"):
        rayrnn.sequences(ray.data.from_pandas(with_intervals(cut=True)), features=["x"], **COLUMNS)


def test_categories_of_polars_are_words_and_an_order() -> None:
    frame = polars.from_pandas(steps())
    label = frame.with_columns(polars.col("state").cast(polars.Categorical))
    assert rows_of(rayrnn.sequences(label, **COLUMNS)) == rows_of(rayrnn.sequences(steps(), **COLUMNS))
    as_feature = frame.with_columns(kind=polars.col("state").cast(polars.Categorical))
    (first, *_) = rows_of(rayrnn.sequences(as_feature, categorical=["kind"], **COLUMNS))
    assert first["categories"] == [[first["label"]]] * 8
    names = ["lo", "mid", "hi", "top", "e", "d", "c", "b"]
    at = polars.Series([names[place] for place in frame["at"]], dtype=polars.Enum(names))
    ordered = rayrnn.sequences(frame.with_columns(at=at), **COLUMNS)
    assert rows_of(ordered) == rows_of(rayrnn.sequences(steps(), **COLUMNS))


@pytest.mark.parametrize(
    ("held", "task", "expected"),
    [
        ([np.arange(3.0), np.arange(2.0)], "classification", {"values": [[0.0], [1.0], [2.0]], "label": "a"}),
        ([np.ones((3, 2)), np.zeros((2, 2))], "classification", {"values": [[1.0, 1.0]] * 3, "label": "a"}),
        (np.ones((2, 3, 2)), "classification", {"values": [[1.0, 1.0]] * 3, "label": "a"}),
        (["abc", "de"], "classification", {"text": "abc", "label": "a"}),
        ([["to", "be"], ["or"]], "classification", {"symbols": ["to", "be"], "label": "a"}),
    ],
)
def test_lists_are_sequences_with_labels_beside_them(held: list[Any], task: str, expected: dict[str, Any]) -> None:
    rows = rows_of(rayrnn.sequences(held, labels=["a", "b"], task=task), task)
    assert rows[0] == {"key": "0"} | expected
    assert rows[1]["label"] == "b"


def test_mappings_are_rows() -> None:
    held = [{"key": "one", "values": [[1.0], [2.0]], "label": "a"}, {"key": "two", "values": [[3.0]], "label": "b"}]
    assert [row["key"] for row in rows_of(rayrnn.sequences(held))] == ["one", "two"]


@pytest.mark.parametrize(
    ("held", "how", "kind", "told"),
    [
        (steps(), {}, RecipeError, "say what the columns are for"),
        (steps(), {"key": "device"}, RecipeError, "say what the columns are for"),
        (steps(), {"order_by": "at"}, RecipeError, "data.key"),
        (steps(), {"key": "devise", "order_by": "at", "label": "state"}, DataError, "did you mean 'device'"),
        (steps(), COLUMNS | {"labels": ["a"]}, UsageError, "labels are of a list"),
        (steps().iloc[:0], COLUMNS, DataError, "no rows"),
        ([], {}, DataError, "no sequences"),
        (["a", [1.0]], {}, UsageError, "all of one kind"),
        ([5], {}, UsageError, "all of one kind"),
        ([[1.0]], {"labels": ["a", "b"]}, UsageError, "there are 1 sequences"),
        ([{"values": [[1.0]]}], {"labels": ["a"]}, UsageError, "mappings have their own"),
        ([[1.0]], {"key": "a"}, UsageError, "a list has none"),
        (5, COLUMNS, UsageError, "the data is int"),
        ("abc", COLUMNS, UsageError, "the data is str"),
        (np.array(5.0), {}, UsageError, "the data is ndarray"),
        ({"a": [1.0], "b": [2.0]}, {}, UsageError, r"the data is dict.* a table by pa\.table\(data\) or pd\.DataFrame"),
        ({"device": [1], "at": [0], "x": [1.0]}, COLUMNS, UsageError, r"the data is dict.* a table by"),
        ([[1.0], [2.0]], {"labels": {"a", "b"}}, UsageError, "labels is set; due is a list"),
        ([[1.0], [2.0]], {"labels": {"a": 1, "b": 2}}, UsageError, "labels is dict; due is a list"),
        ([[1.0], [2.0]], {"labels": (label for label in "ab")}, UsageError, "labels is generator; due is a list"),
        ([[1.0], [2.0]], {"labels": "ab"}, UsageError, "labels is str; due is a list"),
        ([[1.0], [2.0]], {"labels": pd.DataFrame({"y": [1, 2]})}, UsageError, "labels is DataFrame; due is a list"),
        ([[1.0], [2.0]], {"labels": 2}, UsageError, "labels is int; due is a list"),
        (steps(), COLUMNS | {"features": {"x", "y"}}, UsageError, r"features is \{.*such as features=\['x'\]"),
        (steps(), COLUMNS | {"features": "x"}, UsageError, r"features is 'x'; due is a list, such as features=\['x'\]"),
        (steps(), COLUMNS | {"ignore": "x"}, UsageError, r"ignore is 'x'; due is a list, such as ignore=\['x'\]"),
        ([np.array(["2020-01-01"], "datetime64[D]")], {}, DataError, "an array holds times"),
        (pa.table({"device": [{"a": 1}], "at": [1], "x": [1.0], "state": ["a"]}), COLUMNS, DataError, "it takes text"),
    ],
)
def test_what_cannot_be_learned_is_told(held: Any, how: dict[str, Any], kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told):
        rows_of(rayrnn.sequences(held, **how))


def test_columns_are_named_by_all_that_has_an_order() -> None:
    plain = rows_of(rayrnn.sequences(steps(), features=["x"], **COLUMNS))
    for named_by in (steps().columns[2:3], np.array(["x"]), (name for name in ["x"])):
        assert rows_of(rayrnn.sequences(steps(), features=named_by, **COLUMNS)) == plain  # type: ignore[arg-type]


def test_a_dict_is_not_learned_from_by_its_keys(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the data is dict.* a table by pa\.table\(data\)"):
        rayrnn.train(recipe(), data={"values": [[1.0]], "label": ["a"]}, out=tmp_path / "run")


def test_a_run_is_trained_without_a_path_and_measured_on_what_was_held_out(tmp_path: Path) -> None:
    data = rayrnn.sequences(steps(), **COLUMNS)
    rayrnn.train(recipe(), data=data, out=tmp_path / "run")
    run = rayrnn.open_run(tmp_path / "run")
    assert run.recipe.data.source == "given"
    with pytest.raises(UsageError, match=r"what a program handed over, which nobody else has; .*data=\.\.\."):
        rayrnn.evaluate(run)
    report = rayrnn.evaluate(run, data=rayrnn.sequences(steps(), **COLUMNS))
    assert (report.data, report.num_sequences) == ("held out of the dataset", 1)
    others = rayrnn.evaluate(run, data=rayrnn.sequences(steps(devices=5), **COLUMNS))
    assert (others.data, others.num_sequences) == ("the dataset", 5)
    answers = rayrnn.predictions(run, rayrnn.sequences(steps(devices=3), **COLUMNS)).take_all()
    assert sorted(answer["key"] for answer in answers) == ["0", "1", "2"]
    again = rayrnn.train(recipe(), data=rayrnn.sequences(steps(), **COLUMNS), out=tmp_path / "run", resume=True)
    assert again.run.path == run.path
    with pytest.raises(UsageError, match=r"is not what .* began with"):
        rayrnn.train(recipe(), data=rayrnn.sequences(steps(devices=5), **COLUMNS), out=tmp_path / "run", resume=True)


@pytest.mark.slow
def test_a_recipe_says_what_the_columns_of_a_frame_are_for(tmp_path: Path) -> None:
    rayrnn.train(recipe(held_out=0.25, **COLUMNS | {"source": "given"}), data=steps(), out=tmp_path / "run")
    run = rayrnn.open_run(tmp_path / "run")
    assert rayrnn.evaluate(run, data=steps()).num_sequences == 3
    assert len(rayrnn.predictions(run, steps(devices=4)).take_all()) == 4
    pa.parquet.write_table(pa.Table.from_pandas(steps(devices=4)), tmp_path / "steps.parquet")
    assert rayrnn.evaluate(run, path=tmp_path / "steps.parquet").num_sequences == 4


def test_files_in_the_row_schema_are_read_where_no_column_is_named(tmp_path: Path) -> None:
    rayrnn.train(
        recipe(), data=[{"values": [[float(n)], [1.0]], "label": "ab"[n % 2]} for n in range(8)], out=tmp_path / "run"
    )
    rows = pa.table({"values": [[[1.0], [2.0]]], "label": ["a"]})
    pa.parquet.write_table(rows, tmp_path / "rows.parquet")
    run = rayrnn.open_run(tmp_path / "run")
    assert rayrnn.evaluate(run, path=tmp_path / "rows.parquet").num_sequences == 1
    pa.parquet.write_table(pa.table({"a": [1]}), tmp_path / "others.parquet")
    with pytest.raises(DataError, match="due is one of the row schema's"):
        rayrnn.evaluate(run, path=tmp_path / "others.parquet")


def test_a_recipe_without_data_needs_a_program(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a program hands it over: rayrnn\.train\(recipe, data=\.\.\.\)"):
        rayrnn.train(recipe(), out=tmp_path / "run")
    with pytest.raises(DataError, match="none of the row schema's"):
        rayrnn.train(recipe(), data=steps(), out=tmp_path / "run2")
    with pytest.raises(RecipeError, match=r"data\.held_out is a path"):
        recipe(source="given", held_out="elsewhere")


def test_a_run_whose_data_a_program_had_answers_rows_and_frames_of_the_row_schema(tmp_path: Path) -> None:
    """Whose label is a probability, and which refuses what is none."""
    chance = np.random.default_rng(1)
    rows = [
        {"key": str(n), "values": (x := chance.normal(size=(6, 2))).tolist(), "label": (x[:, :1] > 0).tolist()}
        for n in range(20)
    ]
    for row in rows:
        row["label"] = [[float(one) for one in step] for step in row["label"]]
    values: dict[str, Any] = {
        "name": "judges",
        "task": "regression",
        "data": {"held_out": 0.2},
        "model": {"hidden": 8, "layers": 1},
        "training": {"batch_size": 8, "learning_rate": 0.05, "loss": "bernoulli"},
        "averaging": {"workers": 1, "rounds": 20},
    }
    rayrnn.train(validate_recipe(values), data=rows, out=tmp_path / "run")
    run = rayrnn.open_run(tmp_path / "run")
    given = [{"key": "a", "values": [[3.0, 0.0], [-3.0, 0.0]]}]
    (answer,) = run.predict(given)
    high, low = np.ravel(answer["prediction"])
    assert 0 <= low < 0.3 < 0.7 < high <= 1
    (framed,) = run.predict(pd.DataFrame(given)).to_dict("records")
    np.testing.assert_allclose(np.ravel(list(framed["prediction"])).astype(float), [high, low])
    rows[3]["label"] = [[2.0]] * 6
    with pytest.raises(DataError, match=r"sequence '3' is to answer 2, and training\.loss bernoulli"):
        rayrnn.train(validate_recipe(values), data=rows, out=tmp_path / "other")
    with pytest.raises(DataError, match=r"rayrnn.sequences\(frame, key=..., order_by=...\)"):
        run.predict(steps())
