"""The way to a Ray: one that is named, the one `rayrnn up` started, or one inside this process.

A probe asks first: is there a Ray at that address, of our version, that takes our token?
"""

import atexit
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayrnn.cluster.environment import prepare_environment, quiet_ray
from rayrnn.cluster.local_head import running_head
from rayrnn.cluster.ray_internals import (
    HeadUnavailable,
    NoAnswer,
    code_from,
    find_running_head,
    loopback_kept,
    own_place,
    reason_of,
    said_by_dead_workers,
    version_of_head,
)
from rayrnn.cluster.sessions import run_folder
from rayrnn.errors import ClusterError
from rayrnn.user_code import found_by_workers

#: seconds to wait for an answer
PATIENCE = 5.0
#: seconds for a worker's process to start; where one has said why it ended, as many as it may take to say so
START_SECONDS = 300.0
FAILED_SECONDS = 40.0


def probe(address: str, origin: str) -> None:
    """Return when the Ray at `address` (host:port) can be worked with.

    Asked here, a wrong address or token is known in seconds; Ray's own client tries for minutes.

    Args:
        origin: where the address came from, for the message: `--address`, `RAY_ADDRESS`, `rayrnn up`.

    Raises:
        ClusterError: nobody answers, it is no Ray, its version differs, or it does not take the token.
    """
    try:
        theirs = version_of_head(address, timeout=PATIENCE)
    except HeadUnavailable as error:
        raise ClusterError(_explain(error, address, origin)) from None
    if theirs != ray.__version__:
        raise ClusterError(
            f"the cluster at {address} ({origin}) runs Ray {theirs}, here is Ray {ray.__version__}: "
            "install the same version on both sides"
        )


def _explain(error: HeadUnavailable, address: str, origin: str) -> str:
    """What it means to the user."""
    if error.why is NoAnswer.TOKEN_REFUSED:
        return (
            f"the cluster at {address} ({origin}) does not take this token: copy the cluster's ~/.ray/auth_token "
            "to this machine (mode 0600), or set RAY_AUTH_TOKEN_PATH to where it is"
        )
    if error.why is NoAnswer.NO_RAY:
        return f"what answers at {address} ({origin}) is not the Ray that this rayrnn works with, Ray {ray.__version__}"
    return (
        f"no Ray answers at {address} ({origin}): {error}; start one with `rayrnn up`, or give the right host:port "
        "(Ray's own port, 6379 where none was chosen)"
    )


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
    address: str | None = None,
    *,
    log_file: Path | None = None,
    num_cpus: int | None = None,
    say: Callable[[str], None] | None = None,
    code: Iterable[str] = (),
) -> Iterator[Connection]:
    """Inside, Ray is there: at `address`, else RAY_ADDRESS, else where `rayrnn up` started it, else in this process.

    A Ray that this process has joined already is used and left as it is.

    Args:
        address: host:port, or "local" for a Ray of this process alone.
        log_file: takes what Ray says; None drops it.
        num_cpus: how many CPUs a Ray of this process offers; None counts the machine's.
        say: is told when a Ray is started, which takes seconds.
        code: what a recipe names, `package.module:Name` each: functions of its modules can be run as Ray's tasks on
            this machine. Nothing else of the current directory is looked at.

    Raises:
        ClusterError: the address does not answer, does not take the token, or runs another version.
    """
    with quiet_ray(log_file):
        if ray.is_initialized():
            yield Connection(ray.get_runtime_context().gcs_address, "this process")
            return
        prepare_environment()
        cluster = find_cluster(address)
        if say and not cluster:
            say("starting Ray on this machine ...")
        with (
            found_by_workers(code) as folders,
            _joined(cluster, folders) if cluster else _embedded(num_cpus, folders) as connection,
        ):
            yield connection


def stay_connected() -> None:
    """Have Ray for as long as this process lives: what is in its object store outlives whoever put it there.

    Raises:
        ClusterError: as `connect`.
    """
    if not ray.is_initialized():
        ray_of_this_process = ExitStack()
        ray_of_this_process.enter_context(connect())
        atexit.register(ray_of_this_process.close)


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
        address = find_running_head() or "local"
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
def _joined(connection: Connection, code: Iterable[str]) -> Iterator[Connection]:
    probe(connection.address, connection.origin)
    _init(connection.address, job_config=code_from(code))
    try:
        yield connection
    finally:
        ray.shutdown()


@contextmanager
def _embedded(num_cpus: int | None, code: Iterable[str]) -> Iterator[Connection]:
    with run_folder() as folder:
        try:
            options = {"num_cpus": num_cpus, "include_dashboard": False, "job_config": code_from(code)}
            _init("local", **options, **own_place(folder))
            yield Connection(ray.get_runtime_context().gcs_address, "this process", embedded=True)
        finally:
            ray.shutdown(wait_for_processes=True)


def _init(address: str, **options: object) -> None:
    handlers = logging.getLogger("ray").handlers
    kept = handlers[:]
    try:
        with loopback_kept(), _terminal_kept_away(), _end_as_before():
            ray.init(address=address, log_to_driver=False, configure_logging=False, **options)
        handlers[:] = kept  # which Ray has taken away, where it is not to configure them
        _wait_for_a_worker()
    except (RayError, RuntimeError, ConnectionError, ValueError) as error:
        what = "Ray did not start in this process" if address == "local" else f"Ray at {address} cannot be joined"
        raise ClusterError(f"{what}: {error}") from error


def _wait_for_a_worker() -> None:
    """Have processes started for what is to come, as many as this host has CPUs, and wait for the first of them.

    Raises:
        ClusterError: none starts: Ray itself would try again for ever. Or it cannot import rayrnn.
    """
    node = ray.get_runtime_context().get_node_id()
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    greeting = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=here)(_is_there)
    num_cpus = next((host["Resources"].get("CPU", 0.0) for host in ray.nodes() if host["NodeID"] == node), 0.0)
    answers = [greeting.remote() for _ in range(max(1, int(num_cpus)))]
    started = time.monotonic()
    while not (ready := ray.wait(answers, timeout=1.0)[0]):
        waited, said = time.monotonic() - started, said_by_dead_workers()
        if waited > START_SECONDS or (said and waited > FAILED_SECONDS):
            last = "\n".join(f"  {line}" for line in said[-10:]) or "  nothing"
            raise ClusterError(
                f"no worker process of Ray has started within {waited:.0f} s; those that tried said:\n{last}"
            )
    try:
        ray.get(ready)
    except RayError as error:
        raise ClusterError(f"a worker process of Ray cannot use this rayrnn: {reason_of(error)}") from error


def _is_there() -> None:
    """Says that a worker's process has started, and finds rayrnn."""


@contextmanager
def _end_as_before() -> Iterator[None]:
    """Ray takes SIGTERM for itself, in Python and below it: what it meant to this process it means again afterwards."""
    handler = signal.getsignal(signal.SIGTERM)
    in_main_thread = threading.current_thread() is threading.main_thread()
    try:
        yield
    except SystemExit:  # so Ray takes it meanwhile
        if not (in_main_thread and callable(handler)):
            raise
        handler(signal.SIGTERM, None)
    finally:
        if in_main_thread and handler is not None:
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def _terminal_kept_away() -> Iterator[None]:
    """Processes that are started inside do not hear that the terminal is closed: a run ends them when it has finished.

    Whoever started them hears of it at the end of the block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
