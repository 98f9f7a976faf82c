"""What a DataFrame holds arrives as sequences, and predictions go back as a DataFrame."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import ray.data
from rayrnn_spark import SparkData, sequences, spark_session, to_spark
from rayrnn_spark.source import load
from rayrnn_spark.spark_errors import translated

from rayrnn.data.beside_steps import ColumnRoles, roles_of
from rayrnn.data.rows import feature_names
from rayrnn.data.sequences import gather, take
from rayrnn.data.sources import read
from rayrnn.errors import ClusterError, DataError, RecipeError, UsageError
from rayrnn.recipe.data_sections import ParquetData
from tests.asked import needs

STEPS = """
    select concat('k', id % 5) as series, id as moment, id * 0.5D as first, cast(id as int) as second,
           concat('w', id % 3) as word, concat('class ', id % 5) as class, id * 2 as answer
    from range(0, 103, 1, 7)
"""


def rows_of(dataset: ray.data.Dataset, task: str = "classification") -> list[dict[str, Any]]:
    found = gather(dataset, needs(task))
    rows: list[dict[str, Any]] = take(found, np.arange(len(found))).to_pylist()
    return sorted(rows, key=lambda row: str(row["key"]))


def section(**values: Any) -> SparkData:
    return SparkData.model_validate({"key": "series", "order_by": "moment", **values})


def test_steps_become_sequences_grouped_by_key_and_in_order(spark: Any) -> None:
    rows = rows_of(sequences(spark.sql(STEPS), key="series", order_by="moment", label="class", categorical=["word"]))
    assert [row["key"] for row in rows] == ["k0", "k1", "k2", "k3", "k4"]
    for number, row in enumerate(rows):
        moments = range(number, 103, 5)
        assert row["values"] == [[0.5 * moment, moment, 2 * moment] for moment in moments]
        assert row["categories"] == [[f"w{moment % 3}"] for moment in moments]
        assert row["label"] == f"class {number}"


@pytest.mark.parametrize("kind", ["double", "float", "decimal(20, 2)", "date", "timestamp_ntz"])
def test_sequences_are_called_as_those_of_the_same_table_in_parquet(spark: Any, tmp_path: Path, kind: str) -> None:
    key = f"cast(id % 5 as {kind})"
    if kind in ("date", "timestamp_ntz"):
        key = f"cast(date_add(date'2024-01-05', cast(id % 5 as int)) as {kind})"
    elif kind == "double":
        key = "12345678901234D + id % 5"
    frame = spark.sql(f"select {key} series, id moment, id * 0.5D as first, 'a' class from range(20)")
    taken = rows_of(sequences(frame, key="series", order_by="moment", label="class"))
    frame.write.parquet(str(tmp_path / "table"))
    stored = ParquetData(path=str(tmp_path / "table"), key="series", order_by="moment", label="class")
    assert taken == rows_of(read(stored, needs("classification")))
    assert len(taken) == 5
    assert kind != "double" or taken[0]["key"] == "12345678901234"


def test_only_the_named_features_are_learned(spark: Any) -> None:
    chosen = sequences(spark.sql(STEPS), key="series", order_by="moment", features=["second"], label="class")
    assert rows_of(chosen)[1]["values"][:2] == [[1.0], [6.0]]


def test_words_that_stand_where_there_is_no_value_are_none(spark: Any) -> None:
    steps = spark.sql(STEPS)
    taken = sequences(
        steps, key="series", order_by="moment", features=["first"], label="word", missing=["w1"], task="tagging"
    )
    assert rows_of(taken, "tagging")[2]["label"][:3] == ["w2", None, "w0"]


def test_labels_of_steps_serve_tagging_and_regression(spark: Any) -> None:
    steps = spark.sql(STEPS)
    tagged = sequences(steps, key="series", order_by="moment", features=["first"], label="word", task="tagging")
    assert rows_of(tagged, "tagging")[2]["label"][:3] == ["w2", "w1", "w0"]
    answered = sequences(steps, key="series", order_by="moment", features=["first"], label="answer", task="regression")
    assert rows_of(answered, "regression")[3]["label"][:2] == [[6.0], [16.0]]


@pytest.mark.slow
def test_vectors_of_spark_ml_are_arrays_of_numbers(spark: Any) -> None:
    from pyspark.ml.linalg import Vectors, VectorUDT
    from pyspark.sql.types import ArrayType, LongType, StringType, StructField, StructType

    kinds = {"id": StringType(), "at": LongType(), "v": VectorUDT(), "vs": ArrayType(VectorUDT()), "kind": StringType()}
    dense, sparse = Vectors.dense(1.0, 2.0), Vectors.sparse(2, {1: 4.0})
    steps = [("a", 2, sparse, [dense, sparse], "up"), ("a", 1, dense, [dense], "up"), ("b", 1, dense, [sparse], "down")]
    frame = spark.createDataFrame(steps, StructType([StructField(name, kind) for name, kind in kinds.items()]))
    of_steps = gather(sequences(frame, key="id", order_by="at", features=["v"], label="kind"), needs("classification"))
    values = {row["key"]: row["values"] for row in take(of_steps, np.arange(2)).to_pylist()}
    assert values == {"a": [[1, 2], [0, 4]], "b": [[1, 2]]}
    assert feature_names(of_steps.schema, "values") == ("v[0]", "v[1]")
    nested = rows_of(sequences(frame.where("at = 2 or id = 'b'"), key="id", values="vs", label="kind"))
    assert [row["values"] for row in nested] == [[[1, 2], [0, 4]], [[0, 4]]]
    flat = rows_of(sequences(frame.where("at = 2 or id = 'b'"), key="id", values="v", label="kind"))
    assert [row["values"] for row in flat] == [[[0], [4]], [[1], [2]]]


@pytest.mark.parametrize(
    ("column", "cells", "expected"),
    [
        ("values", "array(1D, 2.5D, 3D)", [[1.0], [2.5], [3.0]]),
        ("values", "array(array(1D, 2D), array(3D, 4D))", [[1.0, 2.0], [3.0, 4.0]]),
        ("values", "array(array(1.5, 2.0))", [[1.5, 2.0]]),
        ("symbols", "array(3, 1, 2)", ["3", "1", "2"]),
        ("symbols", "array('to', 'be', 'ü')", ["to", "be", "ü"]),
        ("text", "'a naïve text'", "a naïve text"),
    ],
)
def test_one_row_a_sequence_is_taken_as_it_is(spark: Any, column: str, cells: str, expected: object) -> None:
    frame = spark.sql(f"select 7 as id, {cells} as content, 'yes' as answer")
    rows = rows_of(sequences(frame, key="id", label="answer", **{column: "content"}))
    assert rows == [{"key": "7", column: expected, "label": "yes"}]


@pytest.mark.parametrize(
    ("cells", "expected"), [("'one two'", list("one two")), ("array('one', 'two')", ["one", "two"])]
)
@pytest.mark.parametrize("column", ["text", "symbols", "values"])
def test_targets_of_a_length_of_their_own_come_with_their_rows(
    spark: Any, column: str, cells: str, expected: object
) -> None:
    inputs = {"text": "'a b'", "symbols": "array('a', 'b')", "values": "array(1.0D, 2.0D)"}[column]
    frame = spark.sql(f"select id as name, {inputs} as input, {cells} as answer from range(3)")
    named: dict[str, Any] = {column: "input"}
    rows = rows_of(sequences(frame, key="name", target="answer", task="transduction", **named), "transduction")
    assert [row["target"] for row in rows] == [expected] * 3


def test_rows_without_a_key_are_numbered_by_partition_and_place(spark: Any) -> None:
    frame = spark.range(5, numPartitions=2).selectExpr("array(cast(id as double)) as content", "id as answer")
    rows = rows_of(sequences(frame, values="content", label="answer"))
    assert [(row["key"], row["label"]) for row in rows] == [
        ("0:0", "0"),
        ("0:1", "1"),
        ("1:0", "2"),
        ("1:1", "3"),
        ("1:2", "4"),
    ]


def test_ragged_arrays_stay_arrow_lists(spark: Any) -> None:
    frame = spark.range(100).selectExpr(
        "id", "transform(sequence(0, id), step -> array(cast(step as double), 1D)) as steps", "'text' as label"
    )
    (reference, *_) = sequences(frame, key="id", values="steps", label="label").to_arrow_refs()
    assert ray.get(reference).schema.field("values").type == pa.list_(
        pa.field("element", pa.list_(pa.field("element", pa.float64(), nullable=False)), nullable=False)
    )


def test_the_same_frame_gives_the_same_sequences_in_the_same_order(spark: Any) -> None:
    found = [
        gather(
            sequences(
                spark.sql(STEPS), key="series", order_by="moment", features=["first"], label="answer", task="regression"
            ),
            needs("regression"),
        )
        for _ in range(2)
    ]
    first, second = (take(one, np.arange(len(one))) for one in found)
    assert first.equals(second)
    assert found[0].offsets.tolist() == found[1].offsets.tolist()


def test_a_second_session_in_the_same_process_is_refused(spark: Any) -> None:
    with pytest.raises(ClusterError, match="this process has a Spark session already"), spark_session():
        pass


@pytest.mark.parametrize(
    "kind",
    ["csv", "sql", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("parquet", "json", "orc", "table"))],
)
def test_every_format_of_spark_is_read(spark: Any, kind: str, tmp_path: Path) -> None:
    written = "parquet" if kind in ("table", "sql") else kind
    options = {"header": True} if kind == "csv" else {}
    spark.sql(STEPS).write.format(written).options(**options).save(str(tmp_path / "steps"))
    origin = {
        "table": {"table": f"parquet.`{tmp_path}/steps`"},
        "sql": {"query": f"select * from parquet.`{tmp_path}/steps` where moment < 1000"},
    }.get(kind, {"path": str(tmp_path / "steps")})
    series = load(spark, section(format=kind, **origin)).where("series = 'k4'").orderBy("moment").collect()
    assert [(row.moment, row["first"]) for row in series] == [(moment, moment * 0.5) for moment in range(4, 103, 5)]


def test_a_database_is_read_over_jdbc(spark: Any, tmp_path: Path) -> None:
    # Spark ships Derby; a database inside a zip file can be read by the driver and the executors at the same time
    database = tmp_path / "database"
    drivers = spark._jvm.java.sql.DriverManager
    spark._jvm.java.lang.Class.forName("org.apache.derby.jdbc.EmbeddedDriver")
    statement = drivers.getConnection(f"jdbc:derby:{database};create=true").createStatement()
    statement.executeUpdate("create table steps (series varchar(9), moment int, amount double)")
    statement.executeUpdate("insert into steps values ('b', 2, 4.0), ('a', 1, 1.5), ('b', 1, 3.0)")
    with pytest.raises(Exception, match="08006"):  # so Derby says that it closed a database
        drivers.getConnection(f"jdbc:derby:{database};shutdown=true")
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path, "database")
    options = {"url": f"jdbc:derby:jar:({archive})database", "driver": "org.apache.derby.jdbc.EmbeddedDriver"}
    for origin in ({"table": "steps"}, {"query": "select * from steps where amount > 0"}):
        frame = load(spark, section(format="jdbc", options=options, **origin))
        rows = rows_of(sequences(frame, key="SERIES", order_by="MOMENT", features=["AMOUNT"], label="SERIES"))
        assert [row["values"] for row in rows] == [[[1.5]], [[3.0], [4.0]]]


def test_a_column_that_a_join_leaves_twice_is_refused_with_what_helps(spark: Any) -> None:
    steps = spark.sql("select id % 2 as id, id as at, id * 1.5D as x from range(6)")
    kinds = spark.sql("select id, concat('k', id) as kind from range(2)")
    twice = steps.join(kinds, steps.id == kinds.id)
    for features in (None, ["x"]):
        with pytest.raises(DataError, match="column 'id' is there 2 times: give each a name of its own"):
            sequences(twice, key="id", order_by="at", features=features, label="kind")
    other = kinds.toDF("its_id", "kind")
    for once in (steps.join(kinds, "id"), twice.drop(kinds.id), steps.join(other, steps.id == other.its_id)):
        rows = rows_of(sequences(once, key="id", order_by="at", features=["x"], label="kind"))
        assert [(row["values"], row["label"]) for row in rows] == [
            ([[0], [3], [6]], "k0"),
            ([[1.5], [4.5], [7.5]], "k1"),
        ]
    double = steps.join(kinds, "id").selectExpr("id", "at", "kind", "x", "x * 2 as x")
    with pytest.raises(DataError, match="column 'x' is there 2 times"):
        sequences(double, key="id", order_by="at", label="kind")
    twice_and_once = double.withColumn("y", double.at * 2)
    (first, _) = rows_of(sequences(twice_and_once, key="id", order_by="at", ignore=["x"], label="kind"))
    assert first["values"] == [[0], [4], [8]]


def test_what_does_not_fit_is_said_without_a_stack_trace(spark: Any, tmp_path: Path) -> None:
    steps = spark.sql(STEPS)
    with pytest.raises(DataError, match=r"there is no column 'momet'; .*; did you mean 'moment'\?"):
        sequences(steps, key="series", order_by="momet")
    with pytest.raises(DataError, match=r"column 'word' holds string, no numbers: list it in data.categorical"):
        sequences(steps, key="series", order_by="moment", label="class")
    with pytest.raises(DataError, match=r"^Spark: column 'series' \(data.key\) is empty in a row$"):
        sequences(steps.selectExpr("nullif(series, 'k3') series", "moment", "first"), key="series", order_by="moment")
    with pytest.raises(DataError, match="sequence 'k0', moment 0: two steps have this place"):
        rows_of(sequences(steps.union(steps), key="series", order_by="moment", features=["first"], label="class"))
    with pytest.raises(DataError, match="DataFrame has no rows"):
        sequences(steps.where("moment < 0"), key="series", order_by="moment", features=["first"])
    late = steps.selectExpr("series", "if(moment < 9, moment, raise_error('too late')) as moment", "first")
    with pytest.raises(DataError, match=r"^Spark: too late$"):
        sequences(late, key="series", order_by="moment")
    with pytest.raises(DataError, match=r"^Spark: \[PATH_NOT_FOUND\] Path does not exist: .*nowhere"):
        sequences_of_path(spark, tmp_path / "nowhere")
    with pytest.raises(RecipeError, match=r"with data.order_by every row is one step"):
        sequences(steps, key="series", order_by="moment", values="first")


def sequences_of_path(spark: Any, path: Path) -> None:
    with translated():
        sequences(load(spark, section(format="orc", path=str(path))), key="series", order_by="moment")


BESIDE = {"interval year to month": "make_ym_interval(1)", "interval": "make_interval(1)"}


@pytest.mark.parametrize("kind", BESIDE)
def test_what_arrow_does_not_have_may_stand_beside_what_is_read(spark: Any, kind: str) -> None:
    steps = spark.sql(f"select *, {BESIDE[kind]} as `time.left` from ({STEPS})")
    chosen: dict[str, Any] = {"key": "series", "order_by": "moment", "label": "class"}
    plain = rows_of(sequences(spark.sql(STEPS), features=["first"], **chosen))
    assert rows_of(sequences(steps, features=["first"], **chosen)) == plain
    ignored = sequences(steps, ignore=["second", "word", "answer", "time.left"], **chosen)
    assert rows_of(ignored) == plain
    told = rf"column 'time.left' holds {kind}, which cannot be taken over: .* or leave it out \(data.ignore"
    with pytest.raises(DataError, match=told):
        sequences(steps, ignore=["second", "word", "answer"], **chosen)


def test_a_stream_is_refused_before_anything_is_written(spark: Any) -> None:
    stream = spark.readStream.format("rate").load().selectExpr("'a' series", "value moment", "value x")
    with pytest.raises(UsageError, match="a streaming DataFrame has no end"):
        sequences(stream, key="series", order_by="moment")


def test_what_a_python_function_raised_is_told(spark: Any) -> None:
    def divide(number: int) -> float:
        return 1 / (number - number)

    def refuse(number: int) -> float:
        raise ValueError(f"{number} is bad:\nreally")

    for function, told in (
        (divide, "ZeroDivisionError: division by zero"),
        (refuse, "ValueError: [0-9]+ is bad: really"),
    ):
        spark.udf.register("broken", function, "double")
        steps = spark.sql("select 'a' series, id moment, broken(id) x from range(5)")
        with pytest.raises(DataError, match=f"Spark: a Python function of the query raised {told}$"):
            sequences(steps, key="series", order_by="moment")


ANCIENT = """An error occurred:
writing dates before 1582-10-15 can be dangerous. You can set "spark.sql.parquet.datetimeRebaseModeInWrite"
to "CORRECTED" to write them as they are.
\tat org.apache.spark.sql.errors.QueryExecutionErrors$.some(QueryExecutionErrors.scala:775)
"""
PLAN = "[UNRESOLVED_COLUMN] A column cannot be resolved.;\n'Project ['nope]\n+- LogicalRDD [device#0L], false"
QUERY = "[DIVIDE_BY_ZERO] Division by zero.\n== SQL(line 1, position 1) ==\nx/0\n^^^"


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ANCIENT, r"^Spark: An error occurred: writing dates .* \"CORRECTED\" to write them as they are\.$"),
        (PLAN, r"^Spark: \[UNRESOLVED_COLUMN\] A column cannot be resolved\.$"),
        (QUERY, r"^Spark: \[DIVIDE_BY_ZERO\] Division by zero\.$"),
    ],
)
def test_advice_that_stands_below_is_kept_and_traces_and_plans_are_not(raised: str, told: str) -> None:
    from pyspark.errors import PySparkException

    with pytest.raises(DataError, match=told), translated():
        raise PySparkException(message=raised)


def test_a_format_without_a_table_is_refused(spark: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="format is 'delta', of a table that keeps the predictions: give table"):
        to_spark(tmp_path / "answers.parquet", spark, format="delta")


def test_predictions_come_back_keyed_like_the_input(spark: Any, tmp_path: Path) -> None:
    answers = pa.table({"key": ["k1", "k0"], "label": ["yes", "no"], "probabilities": [[0.25, 0.75], [0.5, 0.5]]})
    narrow = answers.set_column(2, "probabilities", answers["probabilities"].cast(pa.list_(pa.float32(), 2)))
    (tmp_path / "directory").mkdir()
    pyarrow.parquet.write_table(answers, tmp_path / "directory" / "part.parquet")
    pyarrow.parquet.write_table(answers, tmp_path / "answers.parquet")
    (tmp_path / "answers.jsonl").write_text(answers_as_lines(answers), encoding="utf-8")
    inputs = spark.sql("select distinct series from (select concat('k', id) as series from range(3))")
    places = [tmp_path / "directory", tmp_path / "answers.parquet", str(tmp_path / "answers.jsonl")]
    for predictions in [*places, ray.data.from_arrow(narrow)]:
        frame = to_spark(predictions, spark)
        joined = inputs.join(frame, inputs.series == frame.key).orderBy("series").collect()
        assert [(row.series, row.label, list(row.probabilities)) for row in joined] == [
            ("k0", "no", [0.5, 0.5]),
            ("k1", "yes", [0.25, 0.75]),
        ]


def test_predictions_that_are_not_there_are_missed_before_spark_looks(spark: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"there are no predictions at {tmp_path / 'nothing'}"):
        to_spark(tmp_path / "nothing", spark)


def answers_as_lines(answers: pa.Table) -> str:
    return "".join(json.dumps(row) + "\n" for row in answers.to_pylist())


SALES = """
    select concat('s', id % 2) as shop, id div 2 as day, if(id < 8, id * 1.0D, null) as sales, id % 3 as offer,
           (id % 2) * 10 as size, if(id % 2 = 0, 'north', 'south') as region, 0.5D as count
    from range(0, 12, 1, 3)
"""


def test_what_is_known_ahead_and_what_belongs_to_the_sequence_comes_from_spark_too(spark: Any) -> None:
    roles: dict[str, Any] = {"known_ahead": ["offer"], "static": ["size", "region"], "weight": "count"}
    steps = sequences(spark.sql(SALES), key="shop", order_by="day", categorical=["region"], **roles, task="tagging")
    from pyspark.sql import functions

    lists = (
        spark.sql(SALES)
        .groupBy("shop")
        .agg(
            *(functions.expr(sorted_by_day(name)) for name in ("sales", "offer")),
            *(functions.first(name).alias(name) for name in ("size", "region", "count")),
        )
    )
    lists = lists.withColumn("sales", functions.expr("filter(sales, x -> x is not null)"))
    whole = sequences(lists, key="shop", values="sales", **roles, task="tagging")
    due = [
        {"key": "s0", "values": [[0, 0, 0], [2, 2, 0], [4, 1, 0], [6, 0, 0]], "future": [[2], [1]]},
        {"key": "s1", "values": [[1, 1, 10], [3, 0, 10], [5, 2, 10], [7, 1, 10]], "future": [[0], [2]]},
    ]
    for found in (steps, whole):
        rows = pa.concat_tables(found.iter_batches(batch_format="pyarrow"), promote_options="default").sort_by("key")
        assert rows.select(["key", "values", "future"]).to_pylist() == due
        assert {word for row in rows["categories"].to_pylist() for (word,) in row} == {"north", "south"}
        assert roles_of(rows.schema) == ColumnRoles((0,), (1,))
    assert steps.take(1)[0]["weight"] == [0.5] * 4


def sorted_by_day(name: str) -> str:
    pairs = f"sort_array(collect_list(struct(day, {name})))"
    return f"transform({pairs}, pair -> pair.{name}) as {name}"
