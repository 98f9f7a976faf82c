"""The only file that knows Ray's inside: every name that Ray does not promise to keep, behind a small function.

tests/test_ray_internals.py says what rayrnn relies on in each of them, so that moving to the next Ray is reading that
test. Ray Train's inside is the matter of rayrnn/training.
"""

import asyncio
import json
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import grpc
import ray
import ray._private.services as ray_services
import ray._private.state as ray_state
import ray._private.worker as ray_worker
import ray.autoscaler
from ray._private.grpc_utils import init_grpc_channel
from ray._private.ray_constants import (
    DEBUG_AUTOSCALING_STATUS,
    GLOBAL_GRPC_OPTIONS,
    KV_HEAD_NODE_ID_KEY,
    KV_NAMESPACE_JOB,
)
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.autoscaler._private.command_runner import SSHOptions
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.providers import _NODE_PROVIDERS
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import STATUS_UNINITIALIZED
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.core.generated.gcs_service_pb2 import CheckAliveRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
from ray.exceptions import RayError, RayTaskError
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_put
from ray.job_config import JobConfig

LOOPBACK = "127.0.0.1"
#: between two looks at a job that is starting
POLL_SECONDS = 0.1

#: a row of one of the head's tables, by Ray's own column names
Row = dict[str, Any]


# The head, asked from outside


class NoAnswer(Enum):
    """Why a head does not answer."""

    TOKEN_REFUSED = "it does not take the token"
    NO_RAY = "what answers there is no Ray, or a very different one"
    SILENT = "nobody answers"


class HeadUnavailable(Exception):
    """A head does not answer; `why`, and what the system said about it."""

    def __init__(self, why: NoAnswer, said: str) -> None:
        super().__init__(said)
        self.why = why


def version_of_head(address: str, *, timeout: float) -> str:
    """The Ray version that the head at `address` (host:port) runs; this process need not have joined it.

    Ray's own client would try for minutes where this knows in seconds.

    Raises:
        HeadUnavailable: no such answer came within `timeout` seconds.
    """
    # as Ray's own processes do: no web proxy between them, whatever http_proxy says
    with init_grpc_channel(address, options=GLOBAL_GRPC_OPTIONS) as channel:
        try:
            answer = NodeInfoGcsServiceStub(channel).CheckAlive(CheckAliveRequest(), timeout=timeout)
        except grpc.RpcError as error:
            raise HeadUnavailable(_why(error.code()), _said(error)) from None
    return str(answer.ray_version)


def _why(status: grpc.StatusCode) -> NoAnswer:
    if status == grpc.StatusCode.UNAUTHENTICATED:
        return NoAnswer.TOKEN_REFUSED
    return NoAnswer.NO_RAY if status == grpc.StatusCode.UNIMPLEMENTED else NoAnswer.SILENT


def _said(error: grpc.RpcError) -> str:
    """gRPC's sentence ends with what the system said."""
    return str(error.details() or error.code().name).rpartition(": ")[2].rstrip("]")


def find_running_head() -> str | None:
    """host:port of a Ray that was started on this machine with `ray start`, whoever did it."""
    address = ray_services.canonicalize_bootstrap_address("auto")
    return str(address) if address else None


@dataclass(frozen=True)
class HeadTables:
    """What the head knows of those who use the cluster, and of every host that was ever part of it."""

    jobs: list[Row]
    actors: list[Row]
    nodes: list[Row]


def read_tables(address: str) -> HeadTables:
    """Ask the head at `address`; this process need not have joined it."""
    state = ray_state.GlobalState()
    state._initialize_global_state(ray_services._get_gcs_client_options(address))
    try:
        return HeadTables(state.job_table(), list(state.actor_table(None).values()), state.node_table())
    finally:
        state.disconnect()


@dataclass(frozen=True)
class NodeResources:
    """Amounts by Ray's names: CPU, GPU, memory, object_store_memory."""

    total: dict[str, float]
    used: dict[str, float]


def resources_in_use(address: str) -> dict[str, NodeResources]:
    """Node id -> what that node has and what of it is taken, for the nodes that are alive."""
    status = get_cluster_status(address)
    return {
        node.node_id: NodeResources(node.total_resources(), node.used_resources())
        for node in [*status.active_nodes, *status.idle_nodes]
    }


# The head's store of small values


def put_in_head_store(space: str, key: str, value: bytes) -> None:
    """Replace a value; this process has joined the cluster."""
    _internal_kv_put(key, value, overwrite=True, namespace=space)


def remove_from_head_store(space: str, key: str) -> None:
    """Remove a value; this process has joined the cluster."""
    _internal_kv_del(key, namespace=space)


def get_from_head_store(space: str, key: str) -> bytes | None:
    """A value, where there is one; this process has joined the cluster."""
    value: bytes | None = _internal_kv_get(key, namespace=space)
    return value


def leave_in_head_store(address: str, space: str, values: Mapping[str, bytes]) -> None:
    """Replace values by their keys; this process need not have joined the cluster."""
    client = GcsClient(address=address)
    for key, value in values.items():
        client.internal_kv_put(key.encode(), value, True, namespace=space.encode())


def read_head_store(address: str, space: str, keys: Iterable[str]) -> list[bytes]:
    """Those of the values that are there, in the order of their keys; this process need not have joined the cluster."""
    client = GcsClient(address=address)
    values = [client.internal_kv_get(key.encode(), namespace=space.encode()) for key in keys]
    return [value for value in values if value]


# The cluster that this process has joined


def available_resources_per_node() -> dict[str, dict[str, float]]:
    """Node id -> what nobody uses there now."""
    there: dict[str, dict[str, float]] = ray_state.available_resources_per_node()
    return there


def draining_nodes() -> set[str]:
    """The ids of the nodes that were told to leave soon."""
    return set(ray_state.state.get_draining_nodes())


def hosts_being_started() -> set[str]:
    """The hosts that Ray's autoscaler is at work on now."""
    status = _internal_kv_get(DEBUG_AUTOSCALING_STATUS)
    report = (json.loads(status) if status else {}).get("autoscaler_report") or {}
    # one that has failed once is listed for ever as not begun, and never tried again
    return {row[0] for row in report.get("pending_nodes", []) if row[2] != STATUS_UNINITIALIZED}


def node_address() -> str:
    """The address that Ray uses on this host; its public function names one that the network can reach."""
    return str(ray_worker._global_node.node_ip_address)


def session_folder() -> Path:
    """Where the Ray of this process keeps its files; `logs` is in it."""
    return Path(ray_worker._global_node.get_session_dir_path())


def said_by_dead_workers() -> list[str]:
    """What worker processes on this host wrote before they were anybody's, which those do that cannot start."""
    try:
        with (session_folder() / "logs" / "raylet.err").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 10_000))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:  # the head runs in a container, or as another user
        return []
    return [line for line in lines if line.strip()]


def owner_of(reference: "ray.ObjectRef[Any]") -> bytes:
    """The address of the process that owns an object, as Ray's Java side wants it."""
    address: bytes = ray_worker.global_worker.core_worker.get_owner_address(reference)
    return address


def allow_other_languages() -> None:
    """Let this process call actors that are written in another language."""
    ray_worker.global_worker.set_load_code_from_local(True)


def reason_of(error: RayError) -> str:
    """Why a task, or a call of an actor, failed, in one line: what it raised, or what Ray says of its end."""
    cause = error.cause if isinstance(error, RayTaskError) else None
    if cause is not None:
        return f"{type(cause).__name__}: {cause}"
    # Ray's own account ends with the cause
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)


async def start_job(submission: str, entrypoint: str, has_begun: Callable[[], bool]) -> str | None:
    """Run a program as one of Ray's jobs on the head, without a dashboard, and wait until it has begun or ended.

    Returns:
        None when it has begun; what Ray says of one that has ended.
    """
    # 20 MB and a moment that only this function needs
    from ray.dashboard.modules.job.job_manager import JobManager

    client = ray_worker.global_worker.gcs_client
    # the manager puts a job's driver on the head, whose name a dashboard would have left here
    node = ray_worker._global_node.node_id.encode()
    client.internal_kv_put(KV_HEAD_NODE_ID_KEY, node, True, namespace=KV_NAMESPACE_JOB)
    manager = JobManager(client, str(session_folder() / "logs"))
    await manager.submit_job(submission_id=submission, entrypoint=entrypoint)
    while True:
        info = await manager.get_job_info(submission)
        assert info is not None
        if info.status.is_terminal():
            return str(info.message)
        if info.status == "RUNNING" and has_begun():
            return None
        await asyncio.sleep(POLL_SECONDS)


# How Ray starts


def read_settings_again() -> None:
    """Ray reads RAY_... from the environment when it is imported; have it look again."""
    ray._config.initialize("")


def own_place(folder: str) -> dict[str, Any]:
    """What `ray.init` takes so that a Ray of this process listens on the loopback and writes below `folder`."""
    return {"_node_ip_address": LOOPBACK, "_temp_dir": f"{folder}/ray"}


def code_from(folders: Iterable[str]) -> JobConfig:
    """What `ray.init` takes so that the workers look for modules in these folders first.

    Ray would add the current directory in any case. Here they look there only if this process does, before all else.
    """
    config = JobConfig()
    config._py_driver_sys_path = _Folders(folders)
    return config


class _Folders(list[str]):
    def extend(self, added: Iterable[str]) -> None:
        """Take of what Ray adds that in which this process looks before it looks for Python's own."""
        first = sys.path[: sys.path.index(sysconfig.get_path("stdlib"))]
        super().extend({*added} & {os.path.abspath(folder) for folder in first})


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
    """The same for `ray start`, which calls this function where RAY_START_HOOK names it."""
    assert head
    parameters.node_ip_address = LOOPBACK
    parameters.node_name = LOOPBACK
    without_client_server(parameters, head)


def without_client_server(parameters: Any, head: bool) -> None:
    """Leave the Ray Client's server out: it listens on every interface, and rayrnn does not use it."""
    parameters.ray_client_server_port = None


@contextmanager
def lines_of_others_taken(take: Callable[[str], None]) -> Iterator[None]:
    """Inside, what processes on other hosts print goes to `take`, line by line.

    Ray prints it to stdout (a worker died), whatever its logging is told.
    """

    def take_all(batch: dict[str, Any], ignore_prefix: bool) -> None:
        for line in batch["lines"]:
            take(line)

    printed = ray_worker.print_to_stdstream
    ray_worker.print_to_stdstream = take_all
    try:
        yield
    finally:
        ray_worker.print_to_stdstream = printed


# Ray's cluster launcher


def launcher_schema() -> dict[str, Any]:
    """The JSON schema of a cluster file."""
    path = Path(ray.autoscaler.__file__).parent / "ray-schema.json"
    schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return schema


def launcher_providers() -> tuple[str, ...]:
    """What `provider.type` of a cluster file may be."""
    return tuple(_NODE_PROVIDERS)


def complete_launcher_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A cluster file with Ray's defaults for what it leaves out.

    Raises:
        ValueError, KeyError, RuntimeError, jsonschema.ValidationError: its parts do not fit together.
    """
    complete: dict[str, Any] = prepare_config(config)
    validate_config(complete)
    return complete


def cloud_login(config: Mapping[str, Any]) -> dict[str, Any]:
    """How the launcher logs in on the hosts of a cloud (a cluster file's `auth`), with keys that it has made itself."""
    auth: dict[str, Any] = _bootstrap_config(config)["auth"]
    return auth


def ssh_options(key: str | None, *, timeout: int, **others: str | None) -> tuple[str, ...]:
    """What the launcher gives to ssh, but asking nobody and saying little.

    Args:
        others: options of ssh, in the place of the launcher's; None leaves one to ssh.
    """
    options = SSHOptions(key, **{"LogLevel": "ERROR", "BatchMode": "yes"} | others)
    return tuple(options.to_ssh_options_list(timeout=timeout))
