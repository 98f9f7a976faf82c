"""What is missing or mismatched on this machine, or on the hosts of a cluster, each with its fix."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from rayrnn.cluster.capacity import places
from rayrnn.cluster.cluster_file import read_cluster_file
from rayrnn.cluster.environment import token_path
from rayrnn.cluster.inspection import HERE, Finding, Host, check, inspect_hosts, token_digest
from rayrnn.cluster.launcher import check_this_machine
from rayrnn.cluster.on_host import facts
from rayrnn.errors import ClusterError
from rayrnn.recipe import Recipe
from rayrnn.recipe.sources import plugin_sources, source_named
from rayrnn.wording import counted


@runtime_checkable
class HasChecks(Protocol):
    """A source (rayrnn/data/sources/source.py) that has something of its own to look for on the hosts."""

    def checks(
        self, hosts: Sequence[Host], recipe: Recipe | None, *, python: str | None, file: Path | None
    ) -> list[Finding]:
        """What keeps it from working there.

        Args:
            hosts: the head first, or this machine alone.
            recipe: the one that is to be trained, if it reads from this source: what it lacks is no note then.
            python: the hosts' own that has rayrnn.
            file: the cluster file of the hosts.
        """


@runtime_checkable
class HasVersions(Protocol):
    """A source that works with other programs, of which not all versions go together."""

    def describe_versions(self) -> str | None:
        """What is on this machine, and what of the source it fits; None where there is nothing."""


@dataclass(frozen=True)
class Diagnosis:
    """What was looked at, and what should be otherwise there."""

    hosts: list[Host]
    findings: list[Finding]
    #: what sources have on this machine
    versions: list[str]

    @property
    def faults(self) -> list[Finding]:
        """Those that keep rayrnn from working."""
        return [finding for finding in self.findings if not finding.tolerable]


def diagnose(file: Path | None, *, python: str | None = None, recipe: Recipe | None = None) -> Diagnosis:
    """Look at this machine, or at every host of a cluster file.

    Args:
        python: the one that has rayrnn on the hosts already.
        recipe: what is to be trained: its workers, and its source, need CPUs.

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
        hosts = inspect_hosts(cluster, python)
        findings = [*_own_token(), *check(hosts, token=token_digest(), python=python)]
    findings += _of_sources(hosts, recipe, python, file)
    told = [source.describe_versions() for source in plugin_sources() if isinstance(source, HasVersions)]
    return Diagnosis(hosts, [*findings, *(_cpus(hosts, recipe) if recipe else ())], [one for one in told if one])


def _of_sources(hosts: list[Host], recipe: Recipe | None, python: str | None, file: Path | None) -> Iterator[Finding]:
    """What the sources of plugins, and that of the recipe, find."""
    chosen = source_named(recipe.data.source, trusted=True) if recipe else None
    others = [source for source in plugin_sources() if type(source) is not type(chosen)]
    for source in (*others, chosen):
        if isinstance(source, HasChecks):
            yield from source.checks(hosts, recipe if source is chosen else None, python=python, file=file)


def _this_machine() -> Host:
    command = [sys.executable, facts.__file__, "facts", "", sys.executable, ""]
    return Host(HERE, None, json.loads(subprocess.run(command, capture_output=True, check=True).stdout))


def _for_one_machine(findings: list[Finding]) -> list[Finding]:
    """Another Ray does no harm there, and rsync is for hosts over SSH."""
    alone = [finding for finding in findings if finding.about != "another Ray"]
    return [replace(finding, tolerable=finding.tolerable or finding.about == "rsync") for finding in alone]


def _own_token() -> Iterator[Finding]:
    path = token_path()
    if path.exists() and (mode := path.stat().st_mode & 0o777) & 0o077:
        yield Finding(HERE, f"{path} has mode {mode:04o}: others may read the token", f"`chmod 600 {path}`", True)


def _cpus(hosts: list[Host], recipe: Recipe) -> Iterator[Finding]:
    """What a source computes with is free again before the workers come: each must fit, not both."""
    there = [host.facts["cpus"] for host in hosts if not host.unreachable]
    each = recipe.averaging.cpus_per_worker  # all from one host
    room = sum(places({"CPU": cpus}, {"CPU": each}) for cpus in there)
    if recipe.averaging.fewest > room:
        needed = recipe.averaging.fewest * each
        sizes = counted(recipe.averaging.fewest, "worker") + f" of {each} CPUs" * (each > 1)
        what = f"{sum(there)} CPUs in all, {recipe.name} needs {needed:,} ({sizes})"
        yield Finding("together", what, f"--set averaging.workers={max(1, room)}, or more hosts")
