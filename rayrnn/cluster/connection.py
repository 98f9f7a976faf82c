"""The way to a Ray: one that is named, the one `rayrnn up` started, or one inside this process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
import ray._private.services as ray_services
from ray.exceptions import RayError

from rayrnn.cluster.environment import loopback_kept, prepare_environment
from rayrnn.cluster.folder import run_folder
from rayrnn.cluster.head import running_head
from rayrnn.cluster.logs import quiet_ray
from rayrnn.cluster.probe import probe
from rayrnn.errors import ClusterError


@dataclass(frozen=True)
class Connection:
    """The Ray that this process works with."""

    #: host:port
    address: str
    #: who named it: `--address`, `RAY_ADDRESS`, `rayrnn up`, `this process`
    origin: str
    #: it was started by `connect` and ends with it
    embedded: bool = False


@contextmanager
def connect(
    address: str | None = None, *, log_file: Path | None = None, num_cpus: int | None = None
) -> Iterator[Connection]:
    """Inside, Ray is there: at `address`, else RAY_ADDRESS, else where `rayrnn up` started it, else in this process.

    A Ray that this process has joined already is used and left as it is.

    Args:
        address: host:port, or "local" for a Ray of this process alone.
        log_file: takes what Ray says; None drops it.
        num_cpus: how many CPUs a Ray of this process offers; None counts the machine's.

    Raises:
        ClusterError: the address does not answer, does not take the token, or runs another version.
    """
    with quiet_ray(log_file):
        if ray.is_initialized():
            yield Connection(ray.get_runtime_context().gcs_address, "this process")
            return
        prepare_environment()
        cluster = find_cluster(address)
        with _joined(cluster) if cluster else _embedded(num_cpus) as connection:
            yield connection


def find_cluster(address: str | None = None) -> Connection | None:
    """Where a running Ray should be, by the order that `connect` names; None means that nobody named one.

    Raises:
        ClusterError: the address has no form that Ray's own port could have.
    """
    if address:
        return _named(address, "--address")
    if from_environment := os.environ.get("RAY_ADDRESS"):
        return _named(from_environment, "RAY_ADDRESS")
    head = running_head()
    return Connection(head.address, "rayrnn up") if head else None


def _named(address: str, origin: str) -> Connection | None:
    if address == "auto":
        address = ray_services.canonicalize_bootstrap_address(address) or "local"
    if address == "local":
        return None
    host, colon, port = address.rpartition(":")
    if "://" in address or not (host and colon and port.isdigit()):
        raise ClusterError(
            f"{origin} is {address!r}; rayrnn takes host:port of Ray itself, such as 127.0.0.1:6379 "
            "(no http:// address of a dashboard, no ray:// address of Ray Client)"
        )
    return Connection(address, origin)


@contextmanager
def _joined(connection: Connection) -> Iterator[Connection]:
    probe(connection.address, connection.origin)
    _init(connection.address)
    try:
        yield connection
    finally:
        ray.shutdown()


@contextmanager
def _embedded(num_cpus: int | None) -> Iterator[Connection]:
    with run_folder() as folder:
        try:
            _init(
                "local",
                num_cpus=num_cpus,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                _temp_dir=f"{folder}/ray",
            )
            yield Connection(ray.get_runtime_context().gcs_address, "this process", embedded=True)
        finally:
            ray.shutdown(wait_for_processes=True)


def _init(address: str, **options: object) -> None:
    try:
        with loopback_kept():
            ray.init(address=address, log_to_driver=False, configure_logging=False, **options)
    except (RayError, RuntimeError, ConnectionError, ValueError) as error:
        what = "Ray did not start in this process" if address == "local" else f"Ray at {address} cannot be joined"
        raise ClusterError(f"{what}: {error}") from error
