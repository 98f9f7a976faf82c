"""DataFrames -> sequences: from a recipe, with a Spark of its own; or from a session that is there."""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray.data

from rayrnn.data.sequences import quiet_ray_data
from rayrnn.data.sources import Wanted
from rayrnn.data.sources.beside_values import with_features_beside
from rayrnn.data.sources.grouping import group, grouping_of
from rayrnn.data.sources.tables import check_columns, rows_of_sequences
from rayrnn.recipe import task_named
from rayrnn.recipe.data_sections import TableData
from rayrnn.recipe.table_sections import section_of
from rayrnn.tasks import Choices
from rayrnn_spark.connect import connected
from rayrnn_spark.frames import Frame
from rayrnn_spark.section import SparkData
from rayrnn_spark.session import spark_session
from rayrnn_spark.spark_errors import translated
from rayrnn_spark.staging import staged_blocks
from rayrnn_spark.transfer import to_blocks

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_CSV_OPTIONS = {"header": "true", "inferSchema": "true"}


def read(data: SparkData, wanted: Wanted) -> ray.data.Dataset:
    """The sequences of a recipe's `data` section, taken over from a Spark that is stopped before this returns, or from
    the one that answers at `data.connect`.

    Raises:
        ClusterError: Spark does not fit on the cluster, did not start, or died.
        DataError: Spark cannot read what the section names, or its columns do not fit.
    """
    if data.connect is not None:
        with connected(data.connect) as spark:
            return sequences_of(load(spark, data, wanted.where), data, wanted, data.staging)
    store = {} if data.endpoint is None else {"spark.hadoop.fs.s3a.endpoint": data.endpoint}
    with spark_session(
        executors=data.executors, cores=data.cores, memory=data.memory, config=store | data.config
    ) as spark:
        return sequences_of(load(spark, data, wanted.where), data, wanted)


def load(spark: "SparkSession", data: SparkData, where: str | None = None) -> "DataFrame":
    """The DataFrame that a section names, or one of the same kind at another path (or table, or query)."""
    if data.format == "table":
        return spark.table(where or str(data.table))
    if data.format == "sql":
        return spark.sql(where or str(data.query))
    options = (_CSV_OPTIONS if data.format == "csv" else {}) | data.options
    if data.format == "jdbc":
        origin = {"dbtable": where or data.table} if data.table is not None else {"query": where or data.query}
        return spark.read.format("jdbc").options(**options, **origin).load()
    path = where or data.path or ()
    paths = [path] if isinstance(path, str) else list(path)
    return spark.read.format(data.format).options(**options).load(paths)


def sequences(
    frame: "DataFrame",
    *,
    key: str | None = None,
    order_by: str | None = None,
    features: Sequence[str] | None = None,
    values: str | None = None,
    symbols: str | None = None,
    text: str | None = None,
    categorical: Sequence[str] = (),
    ignore: Sequence[str] = (),
    label: str | None = None,
    target: str | None = None,
    missing: Sequence[str] = (),
    forecast: Sequence[str | Mapping[str, int]] | None = None,
    known_ahead: Sequence[str] = (),
    static: Sequence[str] = (),
    weight: str | None = None,
    task: str = "classification",
    staging: str | None = None,
) -> ray.data.Dataset:
    """Take a DataFrame's sequences over into Ray, where they outlive Spark: `rayrnn.train(recipe, data=...)`.

    The DataFrame may be of any session, classic or of Spark Connect. From executors on this Ray (`spark_session`,
    RayDP) its rows go straight into Ray's object store. Any other Spark writes them as Parquet, from where they are
    read and which is then removed.

    Give `key` and `order_by` where every row is one step: Spark brings the steps of a sequence together and in order.
    Without `order_by` every row is one sequence, and one of `values`, `symbols` and `text` names its column.

    Args:
        key: the column that names a sequence; rows that are sequences are numbered without it.
        order_by: the column that orders a sequence's steps.
        features: one row a step: the columns to learn from, of numbers, arrays or Spark ML's vectors; without a word
            all but key, order_by and label.
        values: the column of numbers, `array<double>` or `array<array<double>>` (Spark ML's vectors are arrays too).
        symbols: the column of words or whole numbers, `array<string>` or `array<int>`.
        text: the column of text.
        categorical: those of the features that hold words (one row a sequence: columns of lists of words).
        ignore: one row a step: columns that are no features even without a word on features.
        label: the label's column.
        target: one row a sequence: the column of targets with a length of their own, text or lists of words.
        missing: words that stand where there is no value, such as `NA`.
        forecast: those of the features that are forecast (one row a sequence: their places in `values`, such as
            `{"place": 0}`); without a word all but those known ahead and static.
        known_ahead: features that are known of later steps, too.
        static: features that are the same at every step of a sequence.
        weight: the column of numbers that say how much a sequence or step counts.
        task: what the labels of steps are for: one class a sequence (classification), one a step (tagging), or numbers.
        staging: where another Spark writes: a directory that its hosts and this Ray's share, or s3://, gs://, hdfs://;
            without a word a temporary directory of this host, for a Spark that runs here.

    Returns:
        rows of the row schema (see rayrnn/data/rows.py).

    Raises:
        RecipeError: the columns contradict each other.
        UsageError: several columns are given as one text, or without an order; or the DataFrame is a stream.
        DataError: a column is missing or does not fit, Spark could not compute the DataFrame or write it, or what it
            wrote is not to be found here.
        ClusterError: Spark does not answer, or is stopped.
    """
    columns = {
        **{"key": key, "order_by": order_by, "values": values, "symbols": symbols, "text": text, "label": label},
        **{"target": target, "categorical": categorical, "ignore": ignore, "missing": missing, "features": features},
        **{"weight": weight, "static": static, "forecast": forecast, "known_ahead": known_ahead},
    }
    section = section_of(TableData, {"source": "spark", **columns})
    return sequences_of(frame, section, Wanted(task_named(task).needs(Choices())), staging)


def sequences_of(frame: "DataFrame", data: TableData, wanted: Wanted, staging: str | None = None) -> ray.data.Dataset:
    """Take over the columns that `data` names, and that a task needs."""
    quiet_ray_data()
    with translated():
        asked = Frame(frame)
        schema = asked.schema
        if data.order_by is not None:
            grouping = grouping_of(data, wanted, schema)
            asked.check(grouping.columns)
            taken = asked.brought_together(grouping)
            convert: Any = functools.partial(group, grouping=grouping)
        else:
            wishes = {"labelled": wanted.labelled, "weighed": wanted.weighed}
            columns, names = data.columns(**wishes), data.names(**wishes)
            check_columns(schema, columns)
            asked.check(columns)
            taken = asked.numbered(data.key, columns)
            convert = functools.partial(_renamed, names={"key": "key"} | names, data=data)
        steps = to_blocks(taken) if asked.is_on_ray else staged_blocks(taken, staging)
    return steps.map_batches(convert, batch_size=None, batch_format="pyarrow")


def _renamed(rows: pa.Table, names: dict[str, str], data: TableData) -> pa.Table:
    """Rows of sequences in the order of their keys: Spark's own order may differ from one time to the next."""
    renamed = rows_of_sequences(rows, names, data.categorical_lists, data.no_value)
    return with_features_beside(renamed, rows, data).sort_by("key")
