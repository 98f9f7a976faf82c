"""What any Spark session must give that rayrnn did not start: run by test_foreign_sessions.py, a process a session.

SESSION in the environment is a master, such as local-cluster[2,1,640], or the address of a Spark Connect server.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from rayrnn_spark import sequences, to_spark
from rayrnn_spark.frames import is_connect

import rayrnn
from rayrnn.data.sequences import gather, take
from rayrnn.errors import ClusterError, DataError
from rayrnn.recipe import validate_recipe
from tests.asked import needs

SESSION = os.environ["SESSION"]
STEPS = """
    select concat('k', id % 5) as series, id as moment, id * 0.5D as first, cast(id as decimal(10, 2)) as second,
           concat('w', id % 3) as word, concat('class ', id % 5) as class, id * 2 as answer,
           timestamp_seconds(id) as at, array(id, id * 2) as pair, named_struct('a', id) as record
    from range(0, 103, 1, 7)
"""


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    from pyspark.sql import SparkSession

    ray.init(num_cpus=2, include_dashboard=False)
    builder: Any = SparkSession.builder
    if SESSION.startswith("sc://"):
        session = builder.remote(SESSION).create()
    else:
        folder = os.environ["WAREHOUSE"]
        session = (
            builder.master(SESSION)
            .config("spark.ui.enabled", "false")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.sql.warehouse.dir", folder)
            .config("spark.executor.memory", "512m")
            .getOrCreate()
        )
    yield session
    ray.shutdown()


@pytest.fixture
def staging(tmp_path: Path) -> Iterator[str]:
    place = tmp_path / "staging"
    place.mkdir()
    yield str(place)
    assert list(place.iterdir()) == [], "what was staged is gone"


def rows_of(dataset: ray.data.Dataset, task: str = "classification") -> list[dict[str, Any]]:
    found = gather(dataset, needs(task))
    rows: list[dict[str, Any]] = take(found, np.arange(len(found))).to_pylist()
    return rows


@pytest.mark.parametrize("order_by", ["moment", "at"])
def test_steps_become_sequences_in_the_order_of_their_keys(spark: Any, staging: str, order_by: str) -> None:
    chosen: dict[str, Any] = {"features": ["first", "second", "pair", "word"], "categorical": ["word"]}
    rows = rows_of(
        sequences(spark.sql(STEPS), key="series", order_by=order_by, label="class", staging=staging, **chosen)
    )
    assert [row["key"] for row in rows] == ["k0", "k1", "k2", "k3", "k4"]
    for number, row in enumerate(rows):
        moments = range(number, 103, 5)
        assert row["values"] == [[0.5 * moment, moment, moment, 2 * moment] for moment in moments]
        assert row["categories"] == [[f"w{moment % 3}"] for moment in moments]
        assert row["label"] == f"class {number}"


def test_the_order_is_the_same_however_spark_splits_the_rows(spark: Any, staging: str) -> None:
    orders = []
    for partitions in ("3", "50"):
        spark.conf.set("spark.sql.shuffle.partitions", partitions)
        spark.conf.set("spark.sql.adaptive.enabled", str(partitions == "3").lower())
        frame = spark.sql("select md5(cast(id % 200 as string)) key, id, id x, 'a' class from range(1000)")
        orders.append([row["key"] for row in rows_of(sequences(frame, key="key", order_by="id", label="class"))])
    assert orders[0] == orders[1] == sorted(orders[0])
    assert len(orders[0]) == 200
    whole = "select 1e9 * (id % 30) key, id, id x, 'a' class from range(300)"
    orders = []
    for partitions in ("2", "7"):
        spark.conf.set("spark.sql.shuffle.partitions", partitions)
        frame = spark.sql(whole)
        orders.append([row["key"] for row in rows_of(sequences(frame, key="key", order_by="id", label="class"))])
    assert orders[0] == orders[1] == sorted(str(number * 10**9) for number in range(30))


def test_one_row_a_sequence_is_taken_as_it_is(spark: Any, staging: str) -> None:
    frame = spark.sql("select id, array(array(id, 2D), array(3D, 4D)) as content, 'yes' as answer from range(3)")
    rows = rows_of(sequences(frame, key="id", values="content", label="answer", staging=staging))
    assert [row["key"] for row in rows] == ["0", "1", "2"]
    assert rows[1] == {"key": "1", "values": [[1, 2], [3, 4]], "label": "yes"}
    numbered = rows_of(sequences(frame, values="content", label="answer", staging=staging))
    assert len({row["key"] for row in numbered}) == 3


def test_a_key_with_very_many_steps_is_one_sequence(spark: Any, staging: str) -> None:
    frame = spark.sql(
        "select if(id < 100000, 'large', cast(id as string)) key, id moment, id x, 'a' class from range(100010)"
    )
    rows = gather(
        sequences(frame, key="key", order_by="moment", label="class", staging=staging), needs("classification")
    )
    assert sorted(rows.steps.tolist()) == [1] * 10 + [100_000]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        (
            "select null as series, id moment, id x, 'a' class from range(3)",
            "series.* holds|'series' .data.key. is empty",
        ),
        (
            "select if(id = 1, null, 'a') series, id moment, id x, 'a' class from range(3)",
            "'series' .data.key. is empty",
        ),
        (
            "select named_struct('a', id) series, id moment, id x, 'a' class from range(3)",
            "column 'series' .* takes text",
        ),
        ("select 'a' series, 7 moment, id x, 'a' class from range(3)", "two steps have this place"),
        ("select 'a' series, id moment, id x, 'a' class from range(3) where id > 5", "has no rows"),
        ("select 'a' series, id moment, raise_error('broken') x, 'a' class from range(3)", "broken|holds null"),
        ("select 'a' series, id moment, named_struct('a', id) x, 'a' class from range(3)", "column 'x' holds struct"),
    ],
)
def test_what_cannot_be_learned_is_told(spark: Any, staging: str, query: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        rows_of(sequences(spark.sql(query), key="series", order_by="moment", label="class", staging=staging))


def test_a_place_that_is_none_is_told(spark: Any, tmp_path: Path) -> None:
    frame = spark.sql(STEPS).select("series", "moment", "first", "class")
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "nowhere"):
        with pytest.raises(DataError, match="choose another place with staging"):
            sequences(frame, key="series", order_by="moment", label="class", staging=str(place))


def test_what_was_taken_over_is_learned_and_comes_back(spark: Any, staging: str, tmp_path: Path) -> None:
    chosen: dict[str, Any] = {"key": "series", "order_by": "moment", "features": ["first"], "label": "class"}
    data = sequences(spark.sql(STEPS), staging=staging, **chosen)
    values = {
        "name": "foreign",
        "task": "classification",
        "data": {"source": "parquet", "path": "unused", "held_out": 0.4, **chosen},
        "model": {"hidden": 8},
        "averaging": {"rounds": 2},
    }
    rayrnn.train(validate_recipe(values), data=data, out=tmp_path / "run")
    run = rayrnn.open_run(tmp_path / "run")
    frame = to_spark(rayrnn.predictions(run, data=data), spark)
    named = spark.sql(STEPS).select("series").distinct().withColumnRenamed("series", "key")
    assert frame.join(named, "key").count() == 5
    table = f"answers_{os.getpid()}"
    kept = to_spark(rayrnn.predictions(run, data=data), spark, table=table, staging=staging)
    assert sorted(row["key"] for row in kept.collect()) == ["k0", "k1", "k2", "k3", "k4"]
    with pytest.raises(DataError, match=table):
        to_spark(rayrnn.predictions(run, data=data), spark, table=table, staging=staging)


def test_a_session_that_dies_while_it_writes_leaves_nothing(spark: Any, staging: str) -> None:
    """The last one: there is no session after it."""
    if is_connect(spark):
        pytest.skip("the server is shared by the other tests")
    gateway = spark.sparkContext._gateway
    threading.Timer(3, gateway.proc.kill).start()
    frame = spark.sql("select 'a' series, id moment, hash(repeat(uuid(), 20000)) x, 'a' class from range(4000000)")
    with pytest.raises(ClusterError, match="does not answer"):
        sequences(frame, key="series", order_by="moment", label="class", staging=staging)
    with suppress(Exception):  # it has no Java any more
        spark.sparkContext.stop()
    with pytest.raises(ClusterError, match="the Spark session is stopped"):
        sequences(frame, key="series", order_by="moment", label="class", staging=staging)
    with pytest.raises(ClusterError, match="the Spark session is stopped"):
        to_spark("answers.parquet", spark)
