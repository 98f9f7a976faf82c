"""What must be settled in the environment before Ray starts or is spoken to."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray._private.services as ray_services

from rayrnn.cluster.token import ensure_token


def prepare_environment() -> None:
    """Set what Ray and the workers it starts read from the environment; what the user has set stays.

    Raises:
        ClusterError: the token file cannot be used.
    """
    ensure_token()
    for name, value in _settings().items():
        os.environ.setdefault(name, value)
    ray._config.initialize("")  # Ray read its settings when it was imported; this makes it look again


def _settings() -> dict[str, str]:
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        # the coming default, and without it a warning in every worker that has no GPU
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # how soon Ray Train replaces a dead worker, and one that hangs for good
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "60",
        # how long a worker waits for one place before it looks for another
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "5",
        # Spark's executors would start the first python3 on PATH
        "PYSPARK_PYTHON": sys.executable,
    }


def settings_for_hosts() -> dict[str, str]:
    """What Ray on another host must find in its environment; the path of Python there is the host's own matter."""
    return {name: value for name, value in _settings().items() if name != "PYSPARK_PYTHON"}


@contextmanager
def loopback_kept() -> Iterator[None]:
    """Inside, 127.0.0.1 means 127.0.0.1.

    Ray 2.60 replaces it by an address that the network can reach, and then listens on every interface.
    """
    replace = ray_services.resolve_ip_for_localhost
    ray_services.resolve_ip_for_localhost = lambda host: host
    try:
        yield
    finally:
        ray_services.resolve_ip_for_localhost = replace


def bind_to_loopback(parameters: Any, head: bool) -> None:
    """The same for `ray start`, which calls this function because RAY_START_HOOK names it."""
    assert head
    parameters.node_ip_address = "127.0.0.1"
    parameters.node_name = "127.0.0.1"
    without_client_server(parameters, head)


def without_client_server(parameters: Any, head: bool) -> None:
    """Leave the Ray Client's server out: it listens on every interface, and rayrnn does not use it."""
    parameters.ray_client_server_port = None
