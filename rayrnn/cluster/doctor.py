"""What is missing or mismatched on this machine, or on the hosts of a cluster, each with its fix."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rayrnn.cluster.cluster_file import read_cluster_file
from rayrnn.cluster.environment import token_path
from rayrnn.cluster.inspection import HERE, Finding, Host, check, survey, token_digest
from rayrnn.cluster.launcher import check_this_machine
from rayrnn.cluster.on_host import facts
from rayrnn.cluster.spark import check_spark
from rayrnn.errors import ClusterError
from rayrnn.recipe import Recipe
from rayrnn.wording import counted

#: while Spark computes, one CPU takes the sequences over from it
CPUS_BESIDE_SPARK = 1


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
        findings = _for_one_machine(check(hosts, token=token_digest(), python=sys.executable))
    else:
        cluster = read_cluster_file(file)
        check_this_machine(cluster)
        if not cluster.hosts:
            raise ClusterError(f"{file} lists no hosts: {cluster.provider} decides where they are; `rayrnn up` asks it")
        hosts = survey(cluster, python)
        findings = [*_own_token(), *check(hosts, token=token_digest(), python=python)]
    wanted = recipe is not None and recipe.data.source == "spark"
    spark = check_spark(hosts, wanted=wanted, python=python, file=file)
    return Diagnosis(hosts, [*findings, *spark, *(_cpus(hosts, recipe) if recipe else ())])


def _this_machine() -> Host:
    command = [sys.executable, facts.__file__, "facts", "", sys.executable, ""]
    return Host(HERE, None, json.loads(subprocess.run(command, capture_output=True, check=True).stdout))


def _for_one_machine(findings: list[Finding]) -> list[Finding]:
    """Another Ray does no harm there, and rsync is for hosts over SSH."""
    alone = [finding for finding in findings if "another Ray" not in finding.what]
    return [replace(finding, tolerable=finding.tolerable or "rsync" in finding.what) for finding in alone]


def _own_token() -> Iterator[Finding]:
    path = token_path()
    if path.exists() and (mode := path.stat().st_mode & 0o777) & 0o077:
        yield Finding(HERE, f"{path} has mode {mode:04o}: others may read the token", f"`chmod 600 {path}`", True)


def _cpus(hosts: list[Host], recipe: Recipe) -> Iterator[Finding]:
    """Spark is gone before the workers come: each must fit, not both."""
    there = [host.facts["cpus"] for host in hosts if not host.unreachable]
    each = recipe.averaging.cpus_per_worker  # all from one host
    places = sum(cpus // each for cpus in there)
    if recipe.averaging.fewest > places:
        needed = recipe.averaging.fewest * each
        sizes = counted(recipe.averaging.fewest, "worker") + f" of {each} CPUs" * (each > 1)
        what = f"{sum(there)} CPUs in all, {recipe.name} needs {needed:,} ({sizes})"
        yield Finding("together", what, f"--set averaging.workers={max(1, places)}, or more hosts")
    if recipe.data.source == "spark":
        yield from _spark_cpus(there, recipe)


def _spark_cpus(there: list[int], recipe: Recipe) -> Iterator[Finding]:
    """An executor takes all its cores from one host."""
    executors, cores = getattr(recipe.data, "executors", 1), getattr(recipe.data, "cores", 1)
    needed = executors * cores + CPUS_BESIDE_SPARK
    wanted = f"{counted(executors, 'executor')} of {counted(cores, 'CPU')}"
    places = sum(cpus // cores for cpus in there)
    if needed > sum(there):
        parts = f"{wanted}, {CPUS_BESIDE_SPARK} to take the sequences over"
        what = f"{sum(there)} CPUs in all, Spark needs {needed:,} ({parts})"
    elif executors > places:
        what = f"{recipe.name} asks for {wanted}, the hosts have room for {places}"
    else:
        return
    most = min(places, (sum(there) - CPUS_BESIDE_SPARK) // cores)
    fix = f"--set data.executors={most}" if most > 0 else "--set data.cores=1"
    yield Finding("together", what, f"{fix}, or more hosts")
