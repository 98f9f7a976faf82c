"""What Spark's Java throws -> errors with a reason instead of a stack trace."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rayrnn.errors import ClusterError, DataError, RayrnnError


class ExecutorLost(ClusterError):
    """An executor died while it was needed; its replacement may do better."""


@contextmanager
def translated() -> Iterator[None]:
    """Turn what leaves the block as an error of pyspark's or py4j's into one of ours, while there is a Java to ask.

    Raises:
        ExecutorLost: an executor was not there to answer.
        ClusterError: Spark's driver or, again and again, its executors died.
        DataError: anything else that Spark could not do, with its reason.
    """
    from py4j.protocol import Py4JError, Py4JJavaError  # type: ignore[import-untyped]
    from pyspark.errors import PySparkException

    try:
        yield
    except Py4JJavaError as error:
        raise _of_java(error.java_exception) from None
    except Py4JError as error:
        raise ClusterError(f"Spark's driver does not answer any more: {error}") from None
    except PySparkException as error:
        raise DataError(f"Spark: {_head(str(error))}") from None


def _of_java(error: Any) -> RayrnnError:
    kind, message = error.getClass().getName(), str(error.getMessage())
    # the second: an executor that Spark knows and Ray does not know yet
    if kind.startswith("io.ray.") or kind == "java.util.NoSuchElementException":
        return ExecutorLost(_head(message))
    if "ExecutorLostFailure" in message:
        return ClusterError(
            f"Spark's executors died too often, mostly because they have too little memory: {_head(message)}"
        )
    while error.getCause() is not None:
        error = error.getCause()
    kind, message = error.getClass().getName(), str(error.getMessage())
    return DataError(f"Spark: {_head(message)}" if kind == "java.lang.RuntimeException" else _named(kind, message))


def _named(kind: str, message: str) -> str:
    return f"Spark: {kind.rpartition('.')[2]}: {_head(message)}"


def _head(message: str) -> str:
    """The message without the stack trace or the query plan that follows it."""
    lines = message.strip().splitlines() or [""]
    return lines[0].rstrip(";")
