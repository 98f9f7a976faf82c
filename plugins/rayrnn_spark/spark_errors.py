"""What Spark raises -> an error with a reason: of its Java, through py4j, or of a Spark Connect server."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rayrnn.errors import ClusterError, DataError, RayrnnError

#: begins what stands behind a message: where in Java it was raised, the text of the query, or its plan
_BEHIND = re.compile(r"\s*(at [\w.$]+\(|\.\.\. \d+ more|==|[+:]- |Caused by:|(Driver|JVM) stacktrace:)")


class ExecutorLost(ClusterError):
    """An executor died while it was needed; its replacement may do better."""


class RowRefused(DataError):
    """A row of the DataFrame is none that can be learned, as the query itself says (`raise_error`)."""


@contextmanager
def translated() -> Iterator[None]:
    """Turn what leaves the block as an error of Spark's into one of ours, while there is a Java to ask.

    Raises:
        ExecutorLost: an executor was not there to answer.
        ClusterError: Spark's driver or, again and again, its executors died.
        DataError: anything else that Spark could not do, with its reason.
    """
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as error:
        raise _of_pyspark(error) from None
    except Exception as error:
        # py4j and grpc are there only where a session speaks through them
        kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
        if "py4j.protocol.Py4JJavaError" in kinds:
            raise _of_java(error.java_exception) from None  # type: ignore[attr-defined]
        if "py4j.protocol.Py4JError" in kinds:
            raise ClusterError(f"Spark's driver does not answer any more: {error}") from None
        if "grpc.RpcError" in kinds:
            raise ClusterError(f"the Spark Connect server does not answer any more: {_head(str(error))}") from None
        raise


def _of_pyspark(error: Any) -> RayrnnError:
    message = str(error)
    # what its client raises where grpc has no word of the server's
    if "SparkConnectGrpcException" in {kind.__name__ for kind in type(error).__mro__} and "status =" in message:
        details = re.search(r'details = "(.*)"', message)
        return ClusterError(
            f"the Spark Connect server does not answer any more: {details[1] if details else _head(message)}"
        )
    return _refused(message) or _raised(message) or DataError(f"Spark: {_head(message)}")


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
    if kind == "java.lang.RuntimeException":  # what raise_error throws in Spark 3
        return RowRefused(f"Spark: {_head(message)}")
    return _refused(message) or _raised(message) or DataError(f"Spark: {kind.rpartition('.')[2]}: {_head(message)}")


def _refused(message: str) -> RowRefused | None:
    """What `raise_error` of Spark 4 said, if that is what has happened."""
    said = re.search(r"\[USER_RAISED_EXCEPTION\] (.*?)(?: SQLSTATE: \w+)?$", _head(message))
    return RowRefused(f"Spark: {said[1]}") if said else None


def _raised(message: str) -> DataError | None:
    """What a Python function of the query raised, if that is what has happened: the end of its last traceback."""
    _, found, trace = message.rpartition("Traceback (most recent call last):")
    lines = [line for line in trace.splitlines() if line.strip()]
    # the frames are indented, and what was raised is not
    first = next((place for place, line in enumerate(lines) if not line[0].isspace()), None)
    if not found or first is None:
        return None
    said = _head("\n".join(lines[first:]))
    return DataError(f"Spark: a Python function of the query raised {said}")


def _head(message: str) -> str:
    """The message, all of its lines, without the stack trace or the query plan that follows it."""
    said = []
    for line in message.strip().splitlines():
        if not line.strip() or _BEHIND.match(line):
            break
        said.append(line.strip())
        if line.endswith(";"):  # a query plan comes
            break
    return " ".join(said).rstrip(";")
