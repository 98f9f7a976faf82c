"""Whether every host knows every host by its name: where one does not, Spark waits for ever without a word."""

import socket
from collections.abc import Iterable

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayrnn.errors import ClusterError

_SECONDS_TO_ANSWER = 60.0


def check_names() -> None:
    """Look every host's name up on every host.

    Raises:
        ClusterError: a name is unknown somewhere; the message has both hosts and the way out.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    names = sorted({node["NodeManagerHostname"] for node in nodes})
    if len(nodes) == 1:
        missing = {names[0]: unresolved([socket.gethostname()])}
    else:
        here = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
        tasks = [_unresolved.options(scheduling_strategy=strategy).remote(names) for strategy in here]
        answers = ray.get(tasks, timeout=_SECONDS_TO_ANSWER)
        missing = {node["NodeManagerHostname"]: answer for node, answer in zip(nodes, answers, strict=True)}
    faults = [f"{host} does not know {', '.join(unknown)}" for host, unknown in missing.items() if unknown]
    if faults:
        raise ClusterError(f"Spark finds hosts by their names, and {'; '.join(faults)}: add them to /etc/hosts there")


def unresolved(names: Iterable[str]) -> list[str]:
    """Those of the names that this host has no address for."""
    return [name for name in names if not _resolves(name)]


@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
def _unresolved(names: list[str]) -> list[str]:
    return unresolved([*names, socket.gethostname()])


def _resolves(name: str) -> bool:
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return False
    return True
