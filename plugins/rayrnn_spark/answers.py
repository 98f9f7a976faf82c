"""Predictions, back to where the data lives: as a Spark DataFrame with the keys of what was predicted."""

from pathlib import Path
from typing import TYPE_CHECKING

import ray.data

from rayrnn.errors import DataError
from rayrnn_spark.failures import translated

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def to_spark(predictions: ray.data.Dataset | Path | str, spark: "SparkSession") -> "DataFrame":
    """Predictions as a DataFrame: column `key` is the input's, so that the two can be joined.

    Args:
        predictions: a dataset, or what `rayrnn predict --out` wrote: a file or directory of Parquet, JSONL or CSV.
            Every executor reads it, so that with several hosts it must lie where all of them can.

    Raises:
        DataError: there is nothing at the path, or Spark cannot read it.
    """
    with translated():
        if isinstance(predictions, ray.data.Dataset):
            return predictions.to_spark(spark)
        path = str(predictions)
        if "://" not in path:
            path = _local(Path(path))
        if path.endswith((".jsonl", ".json")):
            return spark.read.json(path)
        if path.endswith(".csv"):
            return spark.read.csv(path, header=True, inferSchema=True)
        return spark.read.parquet(path)


def _local(path: Path) -> str:
    if not path.exists():
        raise DataError(f"there are no predictions at {path}")
    return path.absolute().as_uri()
