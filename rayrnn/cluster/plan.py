"""Who is to be the cluster: what the user asks for, what was found on the hosts, and whom that leaves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rayrnn.cluster.cluster_file import ClusterFile
from rayrnn.cluster.inspection import Finding, Host, check, inspect_hosts, token_digest
from rayrnn.cluster.launcher import is_ip_address
from rayrnn.errors import ClusterError, UsageError


@dataclass(frozen=True)
class UpOptions:
    """What the user says beside the cluster file."""

    #: a Python on the hosts that has rayrnn already
    python: str | None = None
    #: so many workers are enough: those that cannot be reached may be left out
    min_workers: int | None = None
    max_workers: int | None = None
    #: leave a Ray that runs as it is, even where it runs another rayrnn
    no_restart: bool = False


@dataclass
class UpPlan:
    """What `bring_up` is going to do, and what was found on the way to it."""

    file: ClusterFile
    options: UpOptions
    #: as listed, the head first; empty where a cloud decides
    hosts: list[Host]
    findings: list[Finding]
    #: those that are to be the cluster
    chosen: list[Host]

    @property
    def faults(self) -> list[Finding]:
        """What keeps the chosen hosts from being a cluster."""
        chosen = {host.address for host in self.chosen}
        return [finding for finding in self.findings if finding.host in chosen and not finding.tolerable]

    @property
    def left_out(self) -> list[str]:
        """The addresses of those that are listed, and are not to be part of it."""
        return [host.address for host in self.hosts if host not in self.chosen]

    @property
    def head_runs_ray(self) -> bool:
        """Whether this cluster's Ray runs on the head already."""
        return bool(self.chosen) and self.chosen[0].runs_ray

    def refuse(self) -> None:
        """Go no further where something is in the way.

        Raises:
            ClusterError: names every fault with its fix.
        """
        if self.faults:
            raise ClusterError("\n".join(["this keeps the hosts from being a cluster:", *map(_indented, self.faults)]))


def plan_up(file: ClusterFile, options: UpOptions) -> UpPlan:
    """Look at every host; nothing is changed there.

    Raises:
        UsageError: more workers are asked for at least than there are, or than are asked for at most.
    """
    if not file.hosts:
        return UpPlan(file, options, [], [], [])
    least, most = _limits(file, options)
    hosts = inspect_hosts(file, options.python)
    chosen = choose(hosts, least=least, most=most)
    findings = check(hosts, token=token_digest(), python=options.python)
    return UpPlan(file, options, hosts, [*findings, *_in_excess(hosts, chosen)], chosen)


def choose(hosts: Sequence[Host], *, least: int | None, most: int) -> list[Host]:
    """The head and at most so many workers, those before that run already, and those that are not reached last.

    Args:
        least: so many workers are enough, where others are not reached; None wants all.
    """
    head, *workers = hosts
    reached = [host for host in workers if not host.unreachable]
    enough = least is not None and least <= len(reached)
    wanted = sorted(reached if enough else workers, key=lambda host: (bool(host.unreachable), not host.runs_ray))
    return [head, *(host for host in workers if host in wanted[:most])]


def addresses_of(plan: UpPlan) -> tuple[str, ...]:
    """How the hosts are to call each other: as listed, unless a host takes its own name for 127.0.1.1."""
    return tuple(_address(host, plan.chosen) for host in plan.chosen)


def _limits(file: ClusterFile, options: UpOptions) -> tuple[int | None, int]:
    """The fewest workers and the most; what the user types goes before what the file says."""
    listed = len(file.hosts) - 1
    most = file.max_workers if options.max_workers is None else min(options.max_workers, listed)
    if options.min_workers is not None and options.min_workers > most:
        raise UsageError(
            f"--min-workers {options.min_workers}, but there are {most} at most ({file.path} lists {listed})"
        )
    least = file.config.get("min_workers") if options.min_workers is None else options.min_workers
    return least if least is None else min(least, most), most


def _in_excess(hosts: list[Host], chosen: list[Host]) -> Iterator[Finding]:
    """Ray would end as many as are too many, and none in particular."""
    for host in hosts:
        if host.runs_ray and host not in chosen:
            what = f"{host.address} is at work in this cluster, and --max-workers leaves it out"
            yield Finding(chosen[0].address, what, "`rayrnn down` first, or let more take part")


def _address(host: Host, hosts: list[Host]) -> str:
    if is_ip_address(host.address):
        return host.address
    seen = [other.facts["names"].get(host.address) for other in hosts]
    return next((address for address in seen if address and not address.startswith("127.")), host.address)


def _indented(finding: Finding) -> str:
    return f"  {finding}"
