"""Who is to be the cluster: what the user wishes, what was found on the hosts, and whom that leaves."""

from dataclasses import dataclass

from rayrnn.cluster.checks import Finding, check
from rayrnn.cluster.cluster_file import ClusterFile
from rayrnn.cluster.launch_file import is_address
from rayrnn.cluster.survey import Host, survey, token_digest
from rayrnn.errors import ClusterError


@dataclass(frozen=True)
class Wishes:
    """What the user says beside the cluster file."""

    #: a Python on the hosts that has rayrnn already
    python: str | None = None
    #: so many workers are enough: those that cannot be reached may be left out
    min_workers: int | None = None
    max_workers: int | None = None
    #: leave a Ray that runs as it is, even where it runs another rayrnn
    no_restart: bool = False


@dataclass
class Plan:
    """What `bring_up` is going to do, and what was found on the way to it."""

    file: ClusterFile
    wishes: Wishes
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

    def refuse(self) -> None:
        """Go no further where something is in the way.

        Raises:
            ClusterError: names every fault with its fix.
        """
        if self.faults:
            raise ClusterError("\n".join(["this keeps the hosts from being a cluster:", *map(_indented, self.faults)]))


def plan(file: ClusterFile, wishes: Wishes) -> Plan:
    """Look at every host; nothing is changed there."""
    if not file.hosts:
        return Plan(file, wishes, [], [], [])
    hosts = survey(file, wishes.python)
    chosen = _choose(hosts, wishes)
    return Plan(file, wishes, hosts, check(hosts, token=token_digest(), python=wishes.python), chosen)


def addresses_of(plan: Plan) -> tuple[str, ...]:
    """How the hosts are to call each other: as listed, unless a host takes its own name for 127.0.1.1."""
    return tuple(_address(host, plan.chosen) for host in plan.chosen)


def _choose(hosts: list[Host], wishes: Wishes) -> list[Host]:
    """The head, and the workers: without those that cannot be reached where enough are left."""
    head, *workers = hosts
    reached = [host for host in workers if not host.unreachable]
    if wishes.min_workers is not None and wishes.min_workers <= len(reached):
        workers = reached
    return [head, *workers[: wishes.max_workers]]


def _address(host: Host, hosts: list[Host]) -> str:
    if is_address(host.address):
        return host.address
    seen = [other.facts["names"].get(host.address) for other in hosts]
    return next((address for address in seen if address and not address.startswith("127.")), host.address)


def _indented(finding: Finding) -> str:
    return f"  {finding}"
