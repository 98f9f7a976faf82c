"""Where on the cluster another worker finds room, and which nodes are about to leave."""

import threading
from contextlib import suppress
from dataclasses import dataclass

import ray
from ray.exceptions import RayError

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
    """How many workers a run begins with: as many as the cluster holds, within the recipe's bounds."""
    if averaging.fewest == averaging.most:
        return averaging.most
    need = find_need(averaging)
    nodes = {str(node["NodeID"]): node["Resources"] for node in ray.nodes() if node["Alive"]}
    return max(averaging.fewest, min(averaging.most, sum(_places(nodes, need).values())))


def free_places(need: Need) -> Places:
    """How many more workers each node could take now; nodes that are about to leave take none."""
    nodes = available_resources_per_node()
    leaving = draining_nodes()
    return {node: places for node, places in _places(nodes, need).items() if node not in leaving}


def _places(nodes: dict[str, dict[str, float]], need: Need) -> Places:
    return {node: places(there, need.resources()) for node, there in nodes.items()}


class Notice:
    """Asks Ray now and then, in a thread of its own; use it as a context."""

    def __init__(self) -> None:
        self._node = ray.get_runtime_context().get_node_id()
        self._given = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, name="notice", daemon=True)

    @property
    def given(self) -> bool:
        """Whether the node is about to leave; never waits."""
        return self._given

    def __enter__(self) -> "Notice":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._given and not self._closed.wait(LOOK_SECONDS):
            with suppress(RayError, RuntimeError):  # the head is away for a moment
                self._given = self._node in draining_nodes()
