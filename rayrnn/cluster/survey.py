"""What each host of a cluster file is like, asked over SSH all at once, before anything is changed there."""

import hashlib
import os
import time
from dataclasses import dataclass
from typing import Any

from rayrnn.cluster.cluster_file import ClusterFile
from rayrnn.cluster.launch_file import is_address
from rayrnn.cluster.shell import Unreachable, shell_of, side_by_side
from rayrnn.cluster.token import token_path
from rayrnn.errors import ClusterError

#: what this machine is called among hosts
HERE = "here"
#: Ray's own port, on the head
PORT = 6379
#: seconds that a host may take to look at itself
SURVEY_SECONDS = 90.0


@dataclass(frozen=True)
class Host:
    """One host as it found itself."""

    address: str
    #: why nothing else is known, when nothing is
    unreachable: str | None
    #: the answer of rayrnn/cluster/on_host.py
    facts: dict[str, Any]
    #: seconds that its clock is ahead of this machine's, at least
    clock: float = 0.0

    @property
    def runs_ray(self) -> bool:
        """Whether this cluster's Ray runs there."""
        return any(ray["ours"] for ray in self.facts.get("rays", []))


def survey(file: ClusterFile, python: str | None = None) -> list[Host]:
    """Ask every host that the file lists, in the file's order.

    Args:
        python: the one that has rayrnn on the hosts already.
    """
    names = [host for host in file.hosts if not is_address(host)]
    hosts: list[Host] = side_by_side(file.hosts, lambda host: _ask(file, host, python or "", names))
    # now that every host has said its name, whether the others know it
    known = [host.facts["host_name"] for host in hosts if not host.unreachable]
    return side_by_side(hosts, lambda host: _ask(file, host.address, python or "", [*names, *known], host))


def token_digest() -> str | None:
    """SHA-256 of this user's token; None while there is none."""
    text = os.environ.get("RAY_AUTH_TOKEN")
    if text is None and token_path().exists():
        text = token_path().read_text(encoding="utf-8")
    return hashlib.sha256(text.strip().encode()).hexdigest() if text and text.strip() else None


def _ask(file: ClusterFile, address: str, python: str, names: list[str], before: Host | None = None) -> Host:
    if before and (before.unreachable or set(names) <= set(before.facts["names"])):
        return before
    port = str(PORT) if address == file.hosts[0] else ""
    started = time.time()
    try:
        facts = shell_of(file, address).ask("facts", file.name, python, port, *names, timeout=SURVEY_SECONDS)
    except Unreachable as error:
        return Host(address, str(error), {})
    except ClusterError as error:
        return Host(address, f"{address} is reached, but has no Python 3 that answers: {error}", {})
    return Host(address, None, facts, _ahead(facts["time"], started, time.time()))


def _ahead(there: float, before: float, after: float) -> float:
    """Their clock was read at some moment between two of ours."""
    return there - after if there > after else there - before if there < before else 0.0
