"""A session of Spark Connect, as a context manager that ends it; the server is somebody else's and stays."""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rayrnn.errors import ClusterError, UsageError
from rayrnn_spark.spark_errors import translated

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: in the place of an address: the one that this variable of the environment has, as Spark's own tools read it
VARIABLE = "SPARK_REMOTE"
_SECONDS_TO_ANSWER = 10.0
_PORT = 15002
#: what Spark's client of Connect imports
_MODULES = ("pyspark", "grpc", "grpc_status", "google.rpc", "pandas")


@contextmanager
def connected(address: str) -> Iterator["SparkSession"]:
    """A session at a Spark Connect server.

    Args:
        address: `sc://host:port`, or SPARK_REMOTE for what that variable says, which may have a token in it.

    Raises:
        UsageError: the address is none.
        ClusterError: nothing answers there, or a part of the client is missing.
    """
    where = os.environ.get(VARIABLE, "") if address == VARIABLE else address
    if address == VARIABLE and not where:
        raise UsageError(f"data.connect is {VARIABLE}, and the environment has no such variable: set it to sc://HOST")
    _check_client()
    _check_answers(where)
    with translated():
        from pyspark.sql import SparkSession

        spark: SparkSession = SparkSession.builder.remote(where).create()
        try:
            yield spark
        finally:
            with suppress(Exception):  # a server that is gone has no session to end
                spark.stop()


def _check_client() -> None:
    missing = [name for name in _MODULES if not _is_there(name)]
    if missing:
        raise ClusterError(
            f'Spark Connect needs {", ".join(missing)}: install it with pip install "rayrnn[spark4]" (or, beside '
            'RayDP, "rayrnn[spark]")'
        )


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of what it is in
        return False


def _check_answers(where: str) -> None:
    """The client itself would try for minutes."""
    found = re.match(r"sc://(\[[^\]]+\]|[^:/;]+)(?::(\d+))?", where)
    if found is None:
        raise UsageError(f"{where!r} is no address of Spark Connect: due is sc://HOST or sc://HOST:PORT")
    host, port = found[1].strip("[]"), int(found[2] or _PORT)
    try:
        socket.create_connection((host, port), timeout=_SECONDS_TO_ANSWER).close()
    except OSError as error:
        reason = error.strerror or str(error)
        told = f"no Spark Connect server answers at {host}:{port}: {reason}; is it running there?"
        raise ClusterError(told) from None
