"""Predictions, back to where the data lives: as a Spark DataFrame with the keys of what was predicted."""

import atexit
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.types as kinds
import ray
import ray.data

from rayrnn.cluster.ray_internals import owner_of
from rayrnn.data.arrow_lists import is_list
from rayrnn.data.sequences import settle
from rayrnn.errors import DataError, UsageError
from rayrnn_spark.frames import check_runs, is_on_ray
from rayrnn_spark.spark_errors import translated
from rayrnn_spark.staging import read_back, staging_at

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def to_spark(
    predictions: ray.data.Dataset | Path | str,
    spark: "SparkSession",
    *,
    table: str | None = None,
    format: str | None = None,
    staging: str | None = None,
) -> "DataFrame":
    """Predictions as a DataFrame of any session: column `key` is the input's, so that the two can be joined.

    Args:
        predictions: a dataset, or what `rayrnn predict --out` wrote: a file or directory of Parquet, JSONL or CSV.
            Every executor reads such a path, so that with several hosts it must lie where all of them can.
        table: a new table of Spark's catalog that keeps them; the DataFrame is that table.
        format: of the table: parquet (without a word), delta, iceberg, or another that this Spark writes.
        staging: where a dataset is written for a Spark that is not on this Ray: a directory that its hosts share with
            these, or s3://, gs://, hdfs://; without a word a temporary directory of this host. It goes when the table
            is written, or else when this process ends.

    Raises:
        DataError: there is nothing at the path, Spark cannot read it, or the table is there already.
        UsageError: there is a format, and no table that has it.
        ClusterError: the session is stopped, or does not answer.
    """
    if format is not None and table is None:
        raise UsageError(f"format is {format!r}, of a table that keeps the predictions: give table, or leave it out")
    with translated():
        check_runs(spark)
    with ExitStack() as places:
        frame = _frame_of(predictions, spark, staging, places)
        if table is None:
            atexit.register(places.pop_all().close)
            return frame
        with translated():
            frame.write.format(format or "parquet").saveAsTable(table)
            return spark.table(table)


def _frame_of(
    predictions: ray.data.Dataset | Path | str, spark: "SparkSession", staging: str | None, places: ExitStack
) -> "DataFrame":
    if isinstance(predictions, ray.data.Dataset) and not is_on_ray(spark):
        return read_back(spark, settle(predictions), places.enter_context(staging_at(staging)))
    with translated():
        if isinstance(predictions, ray.data.Dataset):
            return _of_dataset(predictions, spark)
        path = _address(str(predictions))
        if path.endswith((".jsonl", ".json")):
            return spark.read.json(path)
        if path.endswith(".csv"):
            return spark.read.csv(path, header=True, inferSchema=True)
        return spark.read.parquet(path)


def _address(path: str) -> str:
    if "://" in path:
        return path
    if not Path(path).exists():
        raise DataError(f"there are no predictions at {path}")
    return Path(path).absolute().as_uri()


def _of_dataset(dataset: ray.data.Dataset, spark: "SparkSession") -> "DataFrame":
    """The executors take the rows out of Ray's object store as Arrow, with RayDP's Java side.

    RayDP's Python side (`Dataset.to_spark`) would join Ray from a process of each executor, and go through pandas.
    """
    from pyspark.sql import DataFrame
    from pyspark.sql.pandas.types import from_arrow_schema

    answers = [_as_stream.remote(block) for block in settle(dataset).to_arrow_refs()]
    if not answers:
        raise DataError("the dataset of predictions has no rows")
    streams = [stream for stream, _ in answers]
    schema = ray.get(answers[0][1])
    ray.wait(streams, num_returns=len(streams), fetch_local=False)
    # the session's actor keeps the rows for as long as the session, and with it the DataFrame, is there
    master = ray.get_actor(f"{spark.sparkContext.appName}_SPARK_MASTER")
    ray.get(master.add_objects.remote(uuid.uuid4(), streams))
    owners = [owner_of(stream) for stream in streams]
    java: Any = spark.sparkContext._jvm
    rows = java.org.apache.spark.rdd.RayDatasetRDD(
        spark.sparkContext._jsc, [bytearray(stream.binary()) for stream in streams], [bytearray(o) for o in owners]
    )
    reader = java.org.apache.spark.sql.raydp.ObjectStoreReader
    return DataFrame(reader.RayDatasetToDataFrame(spark._jsparkSession, rows, from_arrow_schema(schema).json()), spark)


@ray.remote(num_returns=2)  # type: ignore[untyped-decorator]
def _as_stream(table: pa.Table) -> tuple[bytes, pa.Schema]:
    """A block as the bytes that Spark reads, and its schema."""
    schema = pa.schema([pa.field(field.name, _for_spark(field.type)) for field in table.schema])
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, schema) as writer:
        writer.write_table(table.cast(schema))
    return stream.getvalue().to_pybytes(), schema


def _for_spark(kind: pa.DataType) -> pa.DataType:
    """Spark knows one kind of list, and one of string."""
    if is_list(kind):
        return pa.list_(_for_spark(kind.value_type))
    return pa.string() if kinds.is_large_string(kind) else kind
