"""Sequences from Spark, and predictions back to it: rayrnn's plugin over RayDP.

with spark_session(executors=2) as spark:
    data = sequences(spark.read.parquet("steps"), key="id", order_by="time", label="class")
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayrnn_spark.section import SparkData

if TYPE_CHECKING:
    import ray.data

    from rayrnn.cluster.inspection import Finding, Host
    from rayrnn.data.sources import Wanted
    from rayrnn.recipe import Recipe
    from rayrnn_spark.answers import to_spark
    from rayrnn_spark.session import spark_session
    from rayrnn_spark.source import sequences

__all__ = ["Spark", "SparkData", "sequences", "spark_session", "to_spark"]

_MODULES = {"sequences": "source", "spark_session": "session", "to_spark": "answers"}


class Spark:
    """`source: spark`; every recipe's validation makes one, so that Ray and Spark are imported when they are needed."""

    section = SparkData
    program = "Spark"

    def read(self, data: SparkData, wanted: "Wanted") -> "ray.data.Dataset":
        """The sequences of a section, taken over from a Spark that is stopped before this returns."""
        from rayrnn_spark.source import read

        return read(data, wanted)

    def packages(self) -> tuple[str, ...]:
        """What the hosts need: all of `rayrnn[spark]` where this machine reads from Spark."""
        from rayrnn_spark.hosts import packages_for_hosts

        return packages_for_hosts()

    def settings(self, python: str) -> dict[str, str]:
        """What Ray's processes must find in their environment on a host whose Python is `python`."""
        # the executors would start the first python3 on PATH
        return {"PYSPARK_PYTHON": python}

    def checks(
        self, hosts: "Sequence[Host]", recipe: "Recipe | None", *, python: str | None, file: Path | None
    ) -> "list[Finding]":
        """What keeps a recipe that reads with Spark from the hosts."""
        from rayrnn_spark.hosts import check_cpus, check_spark

        if recipe is not None and getattr(recipe.data, "connect", None) is not None:
            return []  # a Spark that is there already
        findings = check_spark(hosts, wanted=recipe is not None, python=python, file=file)
        return findings if recipe is None else [*findings, *check_cpus(hosts, recipe)]

    def describe_versions(self) -> str | None:
        """Which Spark this machine has, and which roads from it are open."""
        from rayrnn_spark.hosts import describe_spark

        return describe_spark()


def __getattr__(name: str) -> Any:
    """Ray and Spark are imported when they are asked for: every recipe's validation loads this package."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
