"""Adds up what Spark asks of the cluster, and refuses with the sum where it would wait for ever."""

import re
import time
from collections.abc import Iterable, Mapping

import ray

from rayrnn.errors import ClusterError, UsageError
from rayrnn.wording import counted

#: for the tasks that take the sequences over from Spark's executors
CPUS_TO_CONVERT = 1

# a Spark that has just been stopped gives its CPUs back within this time
_SECONDS_TO_SETTLE = 10.0

_BYTES = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def check_room(executors: int, cores: int, memory: str) -> None:
    """Make sure that the executors and the conversion fit on the running Ray.

    Raises:
        ClusterError: they do not; the message has the sum and what there is.
        UsageError: `memory` is no size.
    """
    size = parse_memory(memory)
    needed = {"CPU": executors * cores + CPUS_TO_CONVERT, "memory": executors * size}
    _check_total(ray.cluster_resources(), needed, executors, cores, memory)
    there = places([node["Resources"] for node in ray.nodes() if node["Alive"]], cores, size)
    if there < executors:
        raise ClusterError(
            f"{counted(executors, 'executor')} of {counted(cores, 'core')} and {memory} memory do not fit on the "
            f"hosts: there is room for {there}; ask for smaller executors"
        )
    _check_free(needed, executors, cores)


def parse_memory(memory: str) -> int:
    """`512m`, `1g` or `1GB` -> bytes."""
    found = re.fullmatch(r"(\d+)\s*([kmgt])b?", memory.strip().lower())
    if found is None:
        raise UsageError(f"memory is {memory!r}; give a whole number and its unit, for example 512m or 2g")
    return int(found[1]) * _BYTES[found[2]]


def places(hosts: Iterable[Mapping[str, float]], cores: int, size: int) -> int:
    """How many executors fit on hosts with these resources, none of which shares an executor with another."""
    return int(sum(min(host.get("CPU", 0) // cores, host.get("memory", 0) // size) for host in hosts))


def _check_total(
    total: Mapping[str, float], needed: Mapping[str, float], executors: int, cores: int, memory: str
) -> None:
    if total.get("CPU", 0) < needed["CPU"]:
        raise ClusterError(
            f"Spark needs {needed['CPU']:g} CPUs ({_sum(executors, cores)}), the cluster has {total.get('CPU', 0):g}: "
            "ask for fewer executors or cores, or start a larger cluster"
        )
    if total.get("memory", 0) < needed["memory"]:
        raise ClusterError(
            f"Spark needs {_gigabytes(needed['memory'])} of memory ({counted(executors, 'executor')} x {memory}), the "
            f"cluster has {_gigabytes(total.get('memory', 0))}: ask for fewer executors or less memory"
        )


def _check_free(needed: Mapping[str, float], executors: int, cores: int) -> None:
    give_up = time.monotonic() + _SECONDS_TO_SETTLE
    while any((free := ray.available_resources()).get(name, 0) < amount for name, amount in needed.items()):
        if time.monotonic() > give_up:
            raise ClusterError(
                f"Spark needs {needed['CPU']:g} CPUs ({_sum(executors, cores)}) and {_gigabytes(needed['memory'])} of "
                f"memory; free are {free.get('CPU', 0):g} CPUs and {_gigabytes(free.get('memory', 0))}, the rest is in "
                "use: wait for the others (ray status shows them), or ask for fewer executors, cores or less memory"
            )
        time.sleep(0.2)


def _sum(executors: int, cores: int) -> str:
    return f"{counted(executors, 'executor')} x {counted(cores, 'core')} + {CPUS_TO_CONVERT} to take the sequences over"


def _gigabytes(size: float) -> str:
    return f"{size / 2**30:.1f} GB"
