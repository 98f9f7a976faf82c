"""Sequences from Spark, and predictions back to it: rayrnn's plugin over RayDP.

with spark_session(executors=2) as spark:
    data = sequences(spark.read.parquet("steps"), key="id", order_by="time", label="class")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rayrnn_spark.answers import to_spark
    from rayrnn_spark.section import SparkData
    from rayrnn_spark.session import spark_session
    from rayrnn_spark.source import sequences

__all__ = ["SparkData", "sequences", "spark_session", "to_spark"]

_MODULES = {"SparkData": "section", "sequences": "source", "spark_session": "session", "to_spark": "answers"}


def __getattr__(name: str) -> Any:
    """Ray and Spark are imported when they are asked for: every recipe's validation loads this package."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
