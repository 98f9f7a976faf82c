"""What a running cluster has and who uses it."""

from dataclasses import asdict, dataclass
from typing import Any

from ray._private.services import _get_gcs_client_options
from ray._private.state import GlobalState
from ray.autoscaler.v2.schema import NodeInfo
from ray.autoscaler.v2.sdk import get_cluster_status

from rayrnn.cluster.connection import find_cluster
from rayrnn.cluster.environment import prepare_environment
from rayrnn.cluster.probe import probe
from rayrnn.cluster.runs import LiveRun, live_run, read_runs
from rayrnn.cluster.state import load_head
from rayrnn.errors import ClusterError


@dataclass(frozen=True)
class Usage:
    """An amount of something: CPUs, GPUs, or bytes of memory."""

    total: float = 0.0
    used: float = 0.0


@dataclass(frozen=True)
class Node:
    """One host's share of the cluster; memory in bytes, as Ray accounts for it."""

    #: Ray's, as `ray drain-node --node-id` takes it
    id: str
    address: str
    host_name: str
    alive: bool
    cpus: Usage
    gpus: Usage
    memory: Usage
    object_store: Usage


@dataclass(frozen=True)
class Job:
    """A program that uses the cluster, and the actors that it keeps there by class."""

    job: str
    command: str
    process: int
    #: seconds since 1970
    started: float
    actors: dict[str, int]


@dataclass(frozen=True)
class ClusterStatus:
    """A cluster at one moment."""

    address: str
    #: who named the address: `--address`, `RAY_ADDRESS` or `rayrnn up`
    origin: str
    dashboard: str | None
    nodes: tuple[Node, ...]
    jobs: tuple[Job, ...]
    runs: tuple[LiveRun, ...]

    def to_json(self) -> dict[str, object]:
        """The same as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ClusterStatus":
        """What `to_json` gave, on another host."""
        usages = ("cpus", "gpus", "memory", "object_store")
        nodes = [node | {name: Usage(**node[name]) for name in usages} for node in values["nodes"]]
        jobs = tuple(Job(**job) for job in values["jobs"])
        runs = tuple(live_run(run) for run in values["runs"])
        return cls(**(values | {"nodes": tuple(Node(**node) for node in nodes), "jobs": jobs, "runs": runs}))


def read_status(address: str | None = None) -> ClusterStatus:
    """Ask the cluster at `address`, else RAY_ADDRESS, else the one `rayrnn up` started, without joining it.

    Raises:
        ClusterError: there is none, or it does not answer.
    """
    prepare_environment()
    cluster = find_cluster(address)
    if cluster is None:
        raise ClusterError(_nothing_there())
    probe(cluster.address, cluster.origin)
    state = GlobalState()
    state._initialize_global_state(_get_gcs_client_options(cluster.address))
    try:
        jobs = [_job(job, state.actor_table(None)) for job in state.job_table() if not job["IsDead"]]
        nodes = _nodes(cluster.address, state.node_table())
    finally:
        state.disconnect()
    head = load_head()
    dashboard = head.dashboard if head and head.address == cluster.address else None
    runs = read_runs(cluster.address, [job.job for job in jobs])
    return ClusterStatus(cluster.address, cluster.origin, dashboard, tuple(nodes), tuple(jobs), runs)


def _nothing_there() -> str:
    if load_head() is not None:
        return (
            "the cluster that `rayrnn up` started has died (the machine restarted, or its processes were ended); "
            "`rayrnn up` cleans up and starts it again"
        )
    return "no cluster is running here: `rayrnn up` starts one, --address or RAY_ADDRESS names another"


def _nodes(address: str, table: list[dict[str, object]]) -> list[Node]:
    """Every host that was ever part of it; those that left are there with `alive` false and nothing to use."""
    status = get_cluster_status(address)
    used = {node.node_id: node for node in [*status.active_nodes, *status.idle_nodes]}
    return [_node(row, used.get(str(row["NodeID"]))) for row in table]


def _node(row: dict[str, object], info: NodeInfo | None) -> Node:
    return Node(
        id=str(row["NodeID"]),
        address=str(row["NodeManagerAddress"]),
        host_name=str(row["NodeManagerHostname"]),
        alive=info is not None,
        cpus=_usage(info, "CPU"),
        gpus=_usage(info, "GPU"),
        memory=_usage(info, "memory"),
        object_store=_usage(info, "object_store_memory"),
    )


def _usage(info: NodeInfo | None, resource: str) -> Usage:
    if info is None:
        return Usage()
    return Usage(info.total_resources().get(resource, 0.0), info.used_resources().get(resource, 0.0))


def _job(row: dict[str, object], actors: dict[str, dict[str, object]]) -> Job:
    alive = [str(a["ActorClassName"]) for a in actors.values() if a["JobID"] == row["JobID"] and a["State"] == "ALIVE"]
    return Job(
        job=str(row["JobID"]),
        command=str(row["Entrypoint"]),
        process=int(str(row["DriverPid"])),
        started=int(str(row["StartTime"])) / 1000,
        actors={name: alive.count(name) for name in sorted(set(alive))},
    )
