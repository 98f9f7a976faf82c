"""What is asked of a DataFrame before its rows are taken over, classic or of Spark Connect: the steps in order."""

import re
from collections.abc import Sequence
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rayrnn.data.sources.grouping import Grouping
from rayrnn.errors import ClusterError, DataError, UsageError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: among which RayDP splits the steps, however few they are; a number of its own would make every machine learn another
#: order of the same sequences
_FEWEST_PARTITIONS = 8
_OTHER_TEXTS = ("FloatType", "DoubleType", "DecimalType", "DateType", "TimestampType", "TimestampNTZType")

#: of months, days and seconds together; those that Spark has now say what they are of
_OLD_INTERVAL = re.compile(r"\binterval\b(?! (year|month|day|hour|minute|second))")


class Frame:
    """A DataFrame of any session, each of its columns of vectors one of arrays.

    Raises:
        ClusterError: its session is stopped.
        UsageError: it is a stream.
    """

    def __init__(self, frame: "DataFrame") -> None:
        check_runs(frame.sparkSession)
        if frame.isStreaming:
            raise UsageError(
                "a streaming DataFrame has no end, and sequences are learned of all their steps: have Spark write the "
                "stream into a table or files (writeStream), and give what is there, spark.read..."
            )
        self._is_connect = is_connect(frame.sparkSession)
        self._functions: Any = import_module(
            "pyspark.sql.connect.functions" if self._is_connect else "pyspark.sql.functions"
        )
        #: columns whose type Arrow does not have: what Spark calls it
        self._foreign = {} if self._is_connect else _nameless(frame)
        self._frame = self._with_arrays(frame.drop(*self._foreign) if self._foreign else frame)

    @property
    def is_on_ray(self) -> bool:
        """Whether its rows can go straight into Ray's object store."""
        return is_on_ray(self._frame.sparkSession)

    @property
    def schema(self) -> pa.Schema:
        """As Arrow has it; of what it does not have `check` says so, where it is used."""
        from pyspark.errors import PySparkException
        from pyspark.sql.pandas.types import to_arrow_schema
        from pyspark.sql.types import StructType

        convert: Any = to_arrow_schema
        # Spark 4 wants one where there are timestamps; what they are in is none of what a schema is asked for here
        zone = {"timezone": "UTC"} if "timezone" in signature(convert).parameters else {}
        fields = []
        for field in self._frame.schema.fields:
            try:
                fields += convert(StructType([field]), **zone)
            except PySparkException:
                self._foreign[field.name] = field.dataType.simpleString()
        return pa.schema([*fields, *((name, pa.int64()) for name in self._foreign)])

    def check(self, columns: Sequence[str]) -> None:
        """
        Raises:
            DataError: one of the columns that are used has a type that Arrow does not have.
        """
        for name in columns:
            if name in self._foreign:
                raise DataError(
                    f"column {name!r} holds {self._foreign[name]}, which cannot be taken over: make it a number, a "
                    "time or text in the query, or leave it out (data.ignore, or data.features without it)"
                )

    def brought_together(self, grouping: Grouping) -> "DataFrame":
        """The steps of a sequence in one partition, beside each other and in order.

        Where the rows are written and read, sequences are in the order of their keys over all partitions, however many
        Spark makes of them: the same rows are learned in the same order from every Spark.
        """
        functions, key = self._functions, self._column(grouping.key)
        nowhere = functions.raise_error(functions.lit(f"column {grouping.key!r} (data.key) is empty in a row"))
        name = self._name(grouping.key)
        nameless = name.isNull() | name.isin("", *grouping.roles.target.missing)
        # of these Spark writes another text than is written for tables of all other kinds
        keyed = functions.when(nameless, nowhere).otherwise(key if self._kind(grouping.key) in _OTHER_TEXTS else name)
        chosen = [(keyed if n == grouping.key else self._column(n)).alias(n) for n in grouping.columns]
        steps = self._frame.select(*chosen)
        if self.is_on_ray:
            together = steps.repartition(max(_FEWEST_PARTITIONS, self._frame.rdd.getNumPartitions()), name)
        else:
            together = steps.repartitionByRange(name)
        return together.sortWithinPartitions(name, self._column(grouping.order_by))

    def numbered(self, key: str | None, columns: Sequence[str]) -> "DataFrame":
        """Rows that are sequences, with a key: where no column has it, their partition's number and their own in it."""
        functions = self._functions
        rows = self._frame.select(*[self._column(name) for name in columns])
        if key is None:
            number = functions.monotonically_increasing_id().bitwiseAND(2**33 - 1)
            return rows.withColumn("key", functions.concat_ws(":", functions.spark_partition_id(), number))
        return rows if self.is_on_ray else rows.repartitionByRange(self._column(key))

    def _kind(self, column: str) -> str:
        return type(self._frame.schema[column].dataType).__name__

    def _name(self, column: str) -> Any:
        """The names of sequences as text that is in the same order as those that rayrnn.data.words makes."""
        functions, key = self._functions, self._column(column)
        if self._kind(column) in ("FloatType", "DoubleType"):
            number = key.cast("double")
            is_whole = (number == functions.rint(number)) & (functions.abs(number) < 2.0**63)
            return functions.when(is_whole, number.cast("bigint").cast("string")).otherwise(number.cast("string"))
        return functions.regexp_replace(key.cast("string"), r"(?U)^\s+|\s+$", "")

    def _column(self, name: str) -> Any:
        """A column by its whole name, dots and all."""
        return self._functions.col("`" + name.replace("`", "``") + "`")

    def _with_arrays(self, frame: "DataFrame") -> "DataFrame":
        from pyspark.sql.types import ArrayType

        for field in frame.schema.fields:
            if frame.schema.names.count(field.name) > 1:  # nobody can say which is meant; whoever names it is told
                continue
            column = self._column(field.name)
            if _is_vector(field.dataType):
                frame = frame.withColumn(field.name, self._to_array(column))
            elif isinstance(field.dataType, ArrayType) and _is_vector(field.dataType.elementType):
                frame = frame.withColumn(field.name, self._functions.transform(column, self._to_array))
        return frame

    def _to_array(self, vector: Any) -> Any:
        module = "pyspark.ml.connect.functions" if self._is_connect else "pyspark.ml.functions"
        return import_module(module).vector_to_array(vector)


def check_runs(spark: "SparkSession") -> None:
    """
    Raises:
        ClusterError: the session is stopped.
    """
    context = None if is_connect(spark) else spark.sparkContext
    java = None if context is None else context._jsc
    is_stopped = getattr(spark, "is_stopped", False) if context is None else java is None or java.sc().isStopped()
    if is_stopped:
        raise ClusterError(
            "the Spark session is stopped, and what it had is gone: start one, and make the DataFrame anew; sequences "
            "that were taken over before stay"
        )


def is_connect(spark: "SparkSession") -> bool:
    """Whether a session speaks to a Spark Connect server."""
    return type(spark).__module__.startswith("pyspark.sql.connect")


def is_on_ray(spark: "SparkSession") -> bool:
    """Whether a session's executors are actors on this Ray, by RayDP: Spark's address of its master says so."""
    return not is_connect(spark) and str(spark.sparkContext.master).startswith("ray")


def _is_vector(kind: Any) -> bool:
    return type(kind).__name__ == "VectorUDT"


def _nameless(frame: "DataFrame") -> dict[str, str]:
    """Columns of a type that Spark's own Python cannot name, so that it tells of no column: intervals of old."""
    from pyspark.errors import PySparkException

    try:
        frame.schema  # noqa: B018
    except PySparkException:
        fields = [(field.name(), field.dataType().simpleString()) for field in frame._jdf.schema().fields()]
        return {name: kind for name, kind in fields if _OLD_INTERVAL.search(kind)}
    return {}
