"""DataFrames -> sequences: from a recipe, with a Spark of its own; or from a session that is there."""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray.data

from rayrnn.data.sequences import quiet_ray_data
from rayrnn.data.sources import Wanted
from rayrnn.data.sources.beside_values import with_features_beside
from rayrnn.data.sources.grouping import Grouping, group, grouping_of
from rayrnn.data.sources.tables import check_columns, rows_of_sequences
from rayrnn.recipe import task_named
from rayrnn.recipe.data_sections import TableData
from rayrnn.tasks import Choices
from rayrnn_spark.section import SparkData, table_columns
from rayrnn_spark.session import spark_session
from rayrnn_spark.transfer import to_blocks, translated

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: among which the steps are split, however few they are; a number of its own would make every machine learn another
#: order of the same sequences
_FEWEST_PARTITIONS = 8
_CSV_OPTIONS = {"header": "true", "inferSchema": "true"}


def read(data: SparkData, wanted: Wanted) -> ray.data.Dataset:
    """The sequences of a recipe's `data` section, taken over from a Spark that is stopped before this returns.

    Raises:
        ClusterError: Spark does not fit on the cluster, did not start, or died.
        DataError: Spark cannot read what the section names, or its columns do not fit.
    """
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
) -> ray.data.Dataset:
    """Take a DataFrame's sequences over into Ray, where they outlive Spark: `rayrnn.train(recipe, data=...)`.

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

    Returns:
        rows of the row schema (see rayrnn/data/rows.py).

    Raises:
        RecipeError: the columns contradict each other.
        DataError: a column is missing or does not fit, or Spark could not compute the DataFrame.
    """
    columns = table_columns(
        key=key,
        order_by=order_by,
        features=None if features is None else tuple(features),
        values=values,
        symbols=symbols,
        text=text,
        categorical=tuple(categorical),
        ignore=tuple(ignore),
        label=label,
        target=target,
        missing=tuple(missing),
        forecast=None if forecast is None else tuple(forecast),
        known_ahead=tuple(known_ahead),
        static=tuple(static),
        weight=weight,
    )
    return sequences_of(frame, columns, Wanted(task_named(task).needs(Choices())))


def sequences_of(frame: "DataFrame", data: TableData, wanted: Wanted) -> ray.data.Dataset:
    """Take over the columns that `data` names, and that a task needs."""
    quiet_ray_data()
    with translated():
        frame = with_arrays(frame)
        schema = _arrow_schema(frame)
        if data.order_by is not None:
            grouping = grouping_of(data, wanted, schema)
            steps = to_blocks(_brought_together(frame, grouping))
            convert: Any = functools.partial(group, grouping=grouping)
        else:
            asked = {"labelled": wanted.labelled, "weighed": wanted.weighed}
            columns, names = data.columns(**asked), data.names(**asked)
            check_columns(schema, columns)
            steps = to_blocks(_numbered(frame, data.key, columns))
            convert = functools.partial(_renamed, names={"key": "key"} | names, data=data)
    return steps.map_batches(convert, batch_size=None, batch_format="pyarrow")


def with_arrays(frame: "DataFrame") -> "DataFrame":
    """The same DataFrame, each column of vectors or of arrays of vectors one of arrays; the others as they are."""
    from pyspark.sql import functions
    from pyspark.sql.types import ArrayType

    for field in frame.schema.fields:
        if frame.schema.names.count(field.name) > 1:  # nobody can say which is meant; whoever names it is told
            continue
        column = functions.col("`" + field.name.replace("`", "``") + "`")
        if _is_vector(field.dataType):
            frame = frame.withColumn(field.name, _to_array(column))
        elif isinstance(field.dataType, ArrayType) and _is_vector(field.dataType.elementType):
            frame = frame.withColumn(field.name, functions.transform(column, _to_array))
    return frame


def _is_vector(kind: Any) -> bool:
    return type(kind).__name__ == "VectorUDT"


def _to_array(vector: Any) -> Any:
    from pyspark.ml.functions import vector_to_array

    return vector_to_array(vector)


def _arrow_schema(frame: "DataFrame") -> pa.Schema:
    from pyspark.sql.pandas.types import to_arrow_schema

    return to_arrow_schema(frame.schema)


def _brought_together(frame: "DataFrame", grouping: Grouping) -> "DataFrame":
    """The steps of a sequence in one partition, beside each other and in order."""
    from pyspark.sql import functions

    nowhere = functions.raise_error(functions.lit(f"column {grouping.key!r} (data.key) is empty in a row"))
    name = functions.regexp_replace(_column(grouping.key).cast("string"), r"(?U)^\s+|\s+$", "")
    nameless = name.isNull() | name.isin("", *grouping.roles.target.missing)
    keyed = functions.when(nameless, nowhere).otherwise(name)
    steps = frame.select(*[(keyed if name == grouping.key else _column(name)).alias(name) for name in grouping.columns])
    partitions = max(_FEWEST_PARTITIONS, frame.rdd.getNumPartitions())
    together = steps.repartition(partitions, _column(grouping.key))
    return together.sortWithinPartitions(_column(grouping.key), _column(grouping.order_by))


def _numbered(frame: "DataFrame", key: str | None, columns: Sequence[str]) -> "DataFrame":
    """Rows that are sequences, with a key: their partition's number and their own in it where no column names them."""
    from pyspark.sql import functions

    rows = frame.select(*[_column(name) for name in columns])
    if key is not None:
        return rows
    number = functions.monotonically_increasing_id().bitwiseAND(2**33 - 1)
    return rows.withColumn("key", functions.concat_ws(":", functions.spark_partition_id(), number))


def _column(name: str) -> Any:
    """A column by its whole name, dots and all."""
    from pyspark.sql import functions

    return functions.col("`" + name.replace("`", "``") + "`")


def _renamed(rows: pa.Table, names: dict[str, str], data: TableData) -> pa.Table:
    """Rows of sequences in the order of their keys: Spark's own order may differ from one time to the next."""
    renamed = rows_of_sequences(rows, names, data.categorical_lists, data.no_value)
    return with_features_beside(renamed, rows, data).sort_by("key")
