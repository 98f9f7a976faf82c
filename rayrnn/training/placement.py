"""Where on the cluster another worker finds room, and which nodes are about to leave."""

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass

import ray

from rayrnn.cluster.capacity import places
from rayrnn.cluster.ray_internals import available_resources_per_node, draining_nodes
from rayrnn.errors import ClusterError
from rayrnn.recipe.sections import Averaging

#: between two questions
LOOK_SECONDS = 1.0


#: node id -> how many workers it could take
Places = dict[str, int]


@dataclass(frozen=True)
class Need:
    """What one worker takes of its host."""

    cpus: int
    gpus: int = 0

    @property
    def device(self) -> str:
        """The type of what it computes on."""
        return "cuda" if self.gpus else "cpu"

    def resources(self) -> dict[str, int]:
        """The same in Ray's words."""
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})


def find_need(averaging: Averaging) -> Need:
    """What a worker takes here: a GPU too, where there is one for each of the fewest workers."""
    with_gpu = ray.cluster_resources().get("GPU", 0) >= averaging.fewest
    return Need(averaging.cpus_per_worker, 1 if with_gpu else 0)


def check_room(averaging: Averaging) -> None:
    """Refuse workers that can never start.

    Raises:
        ClusterError: the cluster has fewer CPUs than the fewest workers ask for; says the sum.
    """
    there, each = int(ray.cluster_resources().get("CPU", 0)), averaging.cpus_per_worker
    needed = averaging.fewest * each
    if needed > there:
        raise ClusterError(
            f"{averaging.fewest} workers with {each} CPU each need {needed} CPUs, the cluster "
            f"has {there}: set averaging.workers to {there // each} or fewer, or add nodes"
        )


def count_workers(averaging: Averaging) -> int:
    """How many workers a run begins with: as many as the cluster holds, within the recipe's bounds if it has some."""
    if averaging.fewest == averaging.most:
        return averaging.most
    need = find_need(averaging)
    nodes = {str(node["NodeID"]): node["Resources"] for node in ray.nodes() if node["Alive"]}
    return max(averaging.fewest, min(averaging.most, sum(_places(nodes, need).values())))


def most_workers(averaging: Averaging, begins_with: int) -> int:
    """How many it may have later."""
    return begins_with if averaging.workers == "auto" else averaging.most


def free_places(need: Need, *, spared_cpus: int = 0) -> Places:
    """How many more workers each node could take now; nodes that are about to leave take none.

    Args:
        spared_cpus: of every node, for others.
    """
    available = available_resources_per_node()
    nodes = {node: there | {"CPU": there.get("CPU", 0) - spared_cpus} for node, there in available.items()}
    leaving = draining_nodes()
    return {node: places for node, places in _places(nodes, need).items() if node not in leaving}


def _places(nodes: dict[str, dict[str, float]], need: Need) -> Places:
    return {node: places(there, need.resources()) for node, there in nodes.items()}


class DrainWatch:
    """Asks Ray now and then whether this node is about to leave, in a thread of its own; use it as a context.

    The thread asks again whatever a question raises. Should it end all the same, the worker is killed with its node,
    and is replaced like any other that dies.
    """

    def __init__(self) -> None:
        self._node = ray.get_runtime_context().get_node_id()
        self._noticed = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, name="drain watch", daemon=True)

    @property
    def noticed(self) -> bool:
        """Whether the node is about to leave; never waits."""
        return self._noticed

    def __enter__(self) -> "DrainWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join(LOOK_SECONDS)

    def _look(self) -> None:
        while not self._noticed and not self._closed.wait(LOOK_SECONDS):
            with suppress(Exception):  # the head is away for a moment
                self._noticed = self._node in draining_nodes()


class HomeNode:
    """The node of this process: whether its Ray still answers.

    A process that has lost its node is ended by Ray a few seconds later, without a word.
    """

    def __init__(self) -> None:
        own = ray.get_runtime_context().get_node_id()
        (self._socket,) = (str(node["RayletSocketName"]) for node in ray.nodes() if node["NodeID"] == own)

    def answers(self) -> bool:
        """Asks the system, and not Ray: never waits for what is gone."""
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(self._socket) == 0
