"""What a recipe may say of stored tables: conditions, versions, and no secret."""

import datetime
from typing import Any

import pytest

from rayrnn.data.sources.conditions import with_variables
from rayrnn.errors import DataError, RecipeError
from rayrnn.recipe import Recipe, validate_recipe

CONDITIONS: dict[str, tuple[Any, str]] = {
    "no list": ("day > 3", "due is a list of conditions; a condition is"),
    "no list of lists": (["day", ">", 3], "'day' is no condition"),
    "no comparison": ([["day", "~", 3]], "'~' is no comparison; they are ==, !=, <"),
    "several of one": ([["day", "==", [3]]], "'==' of 'day' takes one value"),
    "one of several": ([["day", "in", 3]], "'in' of 'day' takes a list of values"),
    "none of several": ([["day", "in", []]], "'in' of 'day' takes at least one value, and no null"),
    "more than nothing": ([["day", "<", None]], "nothing is < null: only == and != take it"),
    "a mapping": ([["day", "==", {"a": 1}]], "a value is a number, a text, or true or false"),
    "null": (None, "due is a list of conditions"),
}
SECRETS = {
    "a token": {"source": "iceberg", "table": "a.b", "catalog": {"type": "rest", "token": "abc"}},
    "a key": {"source": "iceberg", "table": "a.b", "catalog": {"s3.secret-access-key": "abc"}},
    "a catalogue's password": {"source": "iceberg", "table": "a.b", "catalog": {"uri": "postgresql://u:p@h/d"}},
    "a password": {"source": "sql", "connection": "postgresql://u:p@h/d", "query": "SELECT 1"},
    "half a password": {"source": "sql", "connection": "postgresql://u:p${P}@h/d", "query": "SELECT 1"},
    "a password behind": {"source": "sql", "connection": "postgresql://h/d?x=1&password=p", "query": "SELECT 1"},
}


def recipe_of(**data: Any) -> Recipe:
    data = {"source": "parquet", "values": "v", "label": "l", **data}
    data |= {"path": "x"} if data["source"] in ("parquet", "delta") else {}
    return validate_recipe({"name": "t", "task": "classification", "data": data, "model": {"hidden": 4, "layers": 1}})


@pytest.mark.parametrize("case", CONDITIONS)
def test_what_is_no_condition_is_told(case: str) -> None:
    written, says = CONDITIONS[case]
    with pytest.raises(RecipeError) as told:
        recipe_of(where=written)
    assert says in str(told.value)
    assert len(str(told.value).splitlines()) == 1


def test_conditions_keep_the_types_of_their_values() -> None:
    written = [["a", "=", 1], ["b", "in", [1, 2.5, "c", True]], ["d", "==", True], ["e", "!=", None], ["f", "<", "x"]]
    recipe = recipe_of(where=written)
    kept = [list(one) for one in recipe.data.where]  # type: ignore[attr-defined]
    assert kept == [["a", "==", 1], ["b", "in", (1, 2.5, "c", True)], *written[2:]]
    assert kept[2][2] is True
    day = recipe_of(where=[["day", ">", datetime.date(2024, 1, 31)]]).data.where  # type: ignore[attr-defined]
    assert day == (("day", ">", "2024-01-31"),)
    assert type(kept[1][2][0]) is int


def test_conditions_of_what_is_held_out_need_a_place_of_its_own() -> None:
    with pytest.raises(RecipeError, match=r"data\.held_out_where goes with a place of its own in data\.held_out"):
        recipe_of(held_out_where=[["a", "==", 1]])
    data: Any = recipe_of(where=[["a", "<", 5]], held_out="x", held_out_where=[["a", ">=", 5]]).data
    assert [data.conditions(where) for where in (None, "x", "new")] == [data.where, data.held_out_where, ()]
    assert recipe_of(where=[["a", "<", 5]], held_out="y").data.conditions("y") == data.where  # type: ignore[attr-defined]


@pytest.mark.parametrize("version", ["abc", -1, True, 1.5, "true"])
def test_what_is_no_version_of_a_delta_table_is_told(version: object) -> None:
    with pytest.raises(RecipeError, match=r"version"):
        recipe_of(source="delta", version=version)
    with pytest.raises(RecipeError, match=r"data\.held_out_version goes with a place of its own"):
        recipe_of(source="delta", held_out_version=3)


def test_versions_are_numbers_times_and_names() -> None:
    versions = [recipe_of(source="delta", version=version).data.version for version in (3, "3", "2024-01-31")]  # type: ignore[attr-defined]
    assert versions == [3, 3, "2024-01-31"]
    data: Any = recipe_of(source="iceberg", table="plant.sensors", version="release-3", held_out="plant.others").data
    assert data.describe() == "iceberg plant.sensors, version release-3"
    assert data.files == {}
    assert [data.version_of(where) for where in (None, "plant.others", "new")] == ["release-3", None, None]


@pytest.mark.parametrize("case", SECRETS)
def test_a_secret_that_is_written_out_is_refused(case: str) -> None:
    with pytest.raises(RecipeError, match=r"a recipe is kept with its run, and tells nobody a secret") as told:
        recipe_of(**SECRETS[case])
    assert "abc" not in str(told.value)


def test_a_secret_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = "postgresql://u:${PLANT}@h/d"
    recipe_of(source="sql", connection=connection, query="SELECT 1")
    recipe_of(source="iceberg", table="a.b", catalog={"token": "${PLANT}"})
    monkeypatch.setenv("PLANT", "geheim")
    assert with_variables(connection, "data.connection") == "postgresql://u:geheim@h/d"
    monkeypatch.delenv("PLANT")
    with pytest.raises(DataError, match=r"data\.connection names the variable PLANT, which the environment does not"):
        with_variables(connection, "data.connection")
