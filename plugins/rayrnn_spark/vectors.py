"""Spark ML's vectors, dense or sparse, as arrays of numbers: what a DataFrame of features mostly holds."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def with_arrays(frame: "DataFrame") -> "DataFrame":
    """The same DataFrame, each column of vectors or of arrays of vectors one of arrays; the others as they are."""
    from pyspark.sql import functions
    from pyspark.sql.types import ArrayType

    for field in frame.schema.fields:
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
