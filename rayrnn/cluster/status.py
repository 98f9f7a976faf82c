"""What a cluster has, who uses it, and the runs that train on it now."""

import json
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from rayrnn.background import NewestOnly
from rayrnn.cluster.connection import find_cluster, probe
from rayrnn.cluster.environment import prepare_environment
from rayrnn.cluster.local_head import load_head
from rayrnn.cluster.ray_internals import (
    NodeResources,
    Row,
    get_from_head_store,
    leave_in_head_store,
    put_in_head_store,
    read_head_store,
    read_tables,
    remove_from_head_store,
    resources_in_use,
)
from rayrnn.errors import ClusterError

SPACE = "rayrnn"
#: between two moments at which a run tells of itself
TELL_SECONDS = 1.0
#: for the head to forget a run; one that is gone would be waited for until Ray ends the process, after a minute
END_SECONDS = 3.0


@dataclass(frozen=True)
class LiveRun:
    """A run at one moment."""

    #: of Ray: the driver's
    job: str
    run: str
    #: rounds learned, of so many; 0 of a run that goes by minutes
    round: int
    rounds: int
    #: the workers that take part now, by number, of at most so many
    members: tuple[int, ...]
    workers: int


class Heartbeat:
    """What a run's driver tells the head now and then, and whether somebody there wants the run to end.

    It goes with the driver's job, however that ends. The head may be away: nobody waits for it here.

    Args:
        warn: takes what the user must know.
    """

    def __init__(self, run: str, *, rounds: int, workers: int, warn: Callable[[str], None]) -> None:
        self._run = run
        self._rounds = rounds
        self._workers = workers
        self._warn = warn
        self._job = ray.get_runtime_context().get_job_id()
        self._told = 0.0
        self._stop = threading.Event()
        # a head that is away is told again; any other error ends the telling, and the run goes on
        self._teller = NewestOnly(_tell, name="heartbeat", on_death=self._say_dead)

    @property
    def unanswered_seconds(self) -> float:
        """How long the head has been silent; 0 when it answered."""
        return self._teller.busy_seconds

    @property
    def stop_asked(self) -> bool:
        """Whether `ask_to_stop` was called, here or elsewhere."""
        return self._stop.is_set()

    def is_due(self) -> bool:
        """Whether it is time to tell again."""
        return time.monotonic() - self._told >= TELL_SECONDS and not self.unanswered_seconds

    def beat(self, round_number: int, members: Iterable[int]) -> None:
        """Tell this in the place of what was told before."""
        self._told = time.monotonic()
        now = LiveRun(self._job, self._run, round_number, self._rounds, tuple(members), self._workers)
        value = json.dumps(asdict(now)).encode()
        self._teller.put(lambda: self._talk(value))

    def end(self) -> None:
        """The run is over, and all that it leaves is written."""
        self._teller.put(self._forget)
        self._teller.close(END_SECONDS)

    def _talk(self, value: bytes) -> None:
        put_in_head_store(SPACE, self._job, value)
        if get_from_head_store(SPACE, _stop_key(self._job)) is not None:
            self._stop.set()

    def _forget(self) -> None:
        remove_from_head_store(SPACE, self._job)
        remove_from_head_store(SPACE, _stop_key(self._job))

    def _say_dead(self, error: BaseException) -> None:
        self._warn(f"`rayrnn status` does not see this run any more: {type(error).__name__}: {error}")


def _tell(words: Callable[[], None]) -> None:
    with suppress(RayError, RuntimeError):  # the head is away for a moment
        words()


def _stop_key(job: str) -> str:
    return f"stop-{job}"


def ask_to_stop(address: str, jobs: Iterable[str]) -> None:
    """Have the runs of these jobs finish their round, write a checkpoint and end; also one that is just starting."""
    leave_in_head_store(address, SPACE, {_stop_key(job): b"1" for job in jobs})


def read_runs(address: str, jobs: Iterable[str]) -> tuple[LiveRun, ...]:
    """The runs of these jobs, in their order.

    Args:
        address: of the head, host:port; this process need not have joined it.
    """
    return tuple(live_run(json.loads(text)) for text in read_head_store(address, SPACE, jobs))


def live_run(values: dict[str, object]) -> LiveRun:
    """From plain values, as `dataclasses.asdict` gives them."""
    return LiveRun(**(values | {"members": tuple(values["members"])}))  # type: ignore[arg-type]


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
    tables = read_tables(cluster.address)
    jobs = [_job(job, tables.actors) for job in tables.jobs if not job["IsDead"]]
    nodes = _nodes(cluster.address, tables.nodes)
    head = load_head()
    dashboard = head.dashboard if head and head.address == cluster.address else None
    runs = read_runs(cluster.address, [job.job for job in jobs])
    return ClusterStatus(cluster.address, cluster.origin, dashboard, tuple(nodes), tuple(jobs), runs)


def _nothing_there() -> str:
    head = load_head()
    if head is not None and not head.address:
        return "`rayrnn up` is just starting the cluster, or was killed in the middle: then `rayrnn up` cleans up first"
    if head is not None:
        return (
            "the cluster that `rayrnn up` started has died (the machine restarted, or its processes were ended); "
            "`rayrnn up` cleans up and starts it again"
        )
    return "no cluster is running here: `rayrnn up` starts one, --address or RAY_ADDRESS names another"


def _nodes(address: str, table: list[Row]) -> list[Node]:
    """Every host that was ever part of it; those that left are there with `alive` false and nothing to use."""
    used = resources_in_use(address)
    return [_node(row, used.get(str(row["NodeID"]))) for row in table]


def _node(row: Row, there: NodeResources | None) -> Node:
    return Node(
        id=str(row["NodeID"]),
        address=str(row["NodeManagerAddress"]),
        host_name=str(row["NodeManagerHostname"]),
        alive=there is not None,
        cpus=_usage(there, "CPU"),
        gpus=_usage(there, "GPU"),
        memory=_usage(there, "memory"),
        object_store=_usage(there, "object_store_memory"),
    )


def _usage(there: NodeResources | None, resource: str) -> Usage:
    return Usage(there.total.get(resource, 0.0), there.used.get(resource, 0.0)) if there else Usage()


def _job(row: Row, actors: list[Row]) -> Job:
    alive = [str(a["ActorClassName"]) for a in actors if a["JobID"] == row["JobID"] and a["State"] == "ALIVE"]
    return Job(
        job=str(row["JobID"]),
        command=str(row["Entrypoint"]),
        process=int(str(row["DriverPid"])),
        started=int(str(row["StartTime"])) / 1000,
        actors={name: alive.count(name) for name in sorted(set(alive))},
    )
