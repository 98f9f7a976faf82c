"""The recipe's section for Spark says what is wrong with it."""

from typing import Any

import pytest
import yaml
from rayrnn_spark import SparkData
from rayrnn_spark.source import load

from rayrnn.errors import DataError, RecipeError, UsageError
from rayrnn.recipe import Recipe, validate_recipe
from rayrnn.remote.upload import gather
from rayrnn.runs.kept_recipe import check_trust


def recipe(**data: Any) -> Recipe:
    section = {"source": "spark", "key": "id", "order_by": "time", "label": "class", **data}
    return validate_recipe({"name": "from-spark", "task": "classification", "data": section})


def test_a_recipe_names_spark_as_its_source() -> None:
    data = recipe(format="parquet", path="steps", executors=2, memory="2g").data
    assert isinstance(data, SparkData)
    assert data.describe() == "spark parquet steps"
    assert (data.executors, data.cores, data.memory) == (2, 1, "2g")


def test_settings_and_options_become_what_spark_writes() -> None:
    data = recipe(format="csv", path="s", options={"header": False}, config={"spark.sql.shuffle.partitions": 8}).data
    assert isinstance(data, SparkData)
    assert (data.options, data.config) == ({"header": "false"}, {"spark.sql.shuffle.partitions": "8"})


def test_the_stored_recipe_reads_back_the_same() -> None:
    written = recipe(format="jdbc", query="select 1", options={"url": "jdbc:derby:x"})
    assert validate_recipe(yaml.safe_load(written.to_yaml())) == written


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"format": "csv", "path": "s", "config": {"spark.driver.extraJavaOptions": "-javaagent:evil.jar"}}, "config"),
        ({"format": "sql", "query": "select java_method('java.lang.Runtime', 'getRuntime')"}, "query"),
        ({"format": "jdbc", "table": "t", "options": {"url": "jdbc:h2:mem:;INIT=RUNSCRIPT FROM 'x'"}}, "options"),
    ],
)
def test_somebody_elses_run_has_no_programs_run_without_trust(data: dict[str, Any], key: str) -> None:
    with pytest.raises(UsageError, match=rf"the run has data\.{key} for spark, .*--trust"):
        check_trust(recipe(**data), trusted=False, where="the run")
    check_trust(recipe(**data), trusted=True, where="the run")
    assert recipe(**data).asks_for_trust
    check_trust(recipe(format="csv", path="s", options={"header": False}), trusted=False, where="the run")


def test_held_out_sequences_may_be_another_table(spark: Any) -> None:
    data = recipe(format="table", table="learned", held_out="kept").data
    assert isinstance(data, SparkData)
    for name, number in (("learned", 1), ("kept", 2)):
        spark.sql(f"select {number} as x").createOrReplaceTempView(name)
    assert [load(spark, data, where).first()[0] for where in (None, "kept")] == [1, 2]


def test_a_table_is_no_file_that_travels_and_a_path_is_read_by_the_hosts() -> None:
    assert recipe(format="table", table="learned", held_out="kept").data.files == {}
    with pytest.raises(DataError, match=r"data\.path is steps, on this machine, and data\.source spark reads on"):
        gather(recipe(format="parquet", path="steps"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"path": "x"}, '"data.format" is missing'),
        ({"format": "excel", "path": "x"}, "'parquet', 'csv', 'json', 'orc', 'jdbc', 'table' or 'sql'"),
        ({"format": "csv"}, "data.format csv takes data.path, and none of the other two"),
        ({"format": "csv", "path": "x", "table": "y"}, "data.format csv takes data.path"),
        ({"format": "sql", "table": "y"}, "data.format sql takes data.query"),
        ({"format": "table", "query": "y"}, "data.format table takes data.table"),
        ({"format": "jdbc", "path": "y"}, "data.format jdbc takes data.query or data.table"),
        ({"format": "jdbc", "table": "y"}, "needs the database's address: data.options.url"),
        ({"format": "orc", "path": "x", "memory": "much"}, '"data.memory" is'),
        ({"format": "orc", "path": "x", "executors": 0}, '"data.executors" is 0'),
        ({"format": "orc", "path": "x", "executer": 1}, 'did you mean "executors"'),
        ({"format": "orc", "path": "x", "values": "v"}, "with data.order_by every row is one step"),
    ],
)
def test_a_section_that_does_not_fit_is_refused(data: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecipeError) as refused:
        recipe(**data)
    assert reason in str(refused.value)
