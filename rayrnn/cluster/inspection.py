"""Looks at hosts, all at once, and says what keeps rayrnn from working there, each with its fix."""

import hashlib
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

from rayrnn.cluster.cluster_file import ClusterFile
from rayrnn.cluster.environment import token_path
from rayrnn.cluster.launcher import is_ip_address
from rayrnn.cluster.programs import sources_on_hosts
from rayrnn.cluster.ssh import Unreachable, UntrustedHost, shell_of, side_by_side
from rayrnn.errors import ClusterError
from rayrnn.wording import GIBIBYTE, gibibytes

#: what this machine is called among hosts
HERE = "here"
#: Ray's own port, on the head
PORT = 6379
#: seconds that a host may take to look at itself
SURVEY_SECONDS = 90.0
#: bytes that rayrnn, Ray and torch take on a disk, and that Ray's files take beside them
ROOM_TO_INSTALL = 6 * GIBIBYTE
ROOM_TO_RUN = GIBIBYTE
#: of its memory, what Ray wants as shared memory for objects
SHARED_FRACTION = 0.3
CLOCK_SECONDS = 5.0


@dataclass(frozen=True)
class Host:
    """One host as it found itself."""

    address: str
    #: why nothing else is known, when nothing is
    unreachable: str | None
    #: the answer of rayrnn/cluster/on_host/facts.py
    facts: dict[str, Any]
    #: seconds that its clock is ahead of this machine's, at least
    clock: float = 0.0
    #: what to do about it, where nothing is known
    fix: str = "start the host, or mend the address, the user or the key in the cluster file"

    @property
    def runs_ray(self) -> bool:
        """Whether this cluster's Ray runs there."""
        return any(ray["ours"] for ray in self.facts.get("rays", []))


def inspect_hosts(file: ClusterFile, python: str | None = None) -> list[Host]:
    """Ask every host that the file lists, in the file's order.

    Args:
        python: the one that has rayrnn on the hosts already.
    """
    names = [host for host in file.hosts if not is_ip_address(host)]
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
    except UntrustedHost as error:
        return Host(address, error.fault.what, {}, fix=error.fault.fix)
    except Unreachable as error:
        return Host(address, str(error), {})
    except ClusterError as error:
        return Host(address, f"{address} is reached, but has no Python 3 that answers: {error}", {})
    return Host(address, None, facts, _ahead(facts["time"], started, time.time()))


def _ahead(there: float, before: float, after: float) -> float:
    """Their clock was read at some moment between two of ours."""
    return there - after if there > after else there - before if there < before else 0.0


@dataclass(frozen=True)
class Finding:
    """One thing that should be otherwise."""

    host: str
    what: str
    #: what to do about it
    fix: str
    #: it works in spite of that, in a way that the words tell
    tolerable: bool = False
    #: what it is about, where somebody has to know
    about: Literal["another Ray", "rsync"] | None = None

    def __str__(self) -> str:
        return f"{self.host}: {self.what}; {self.fix}"


def check(hosts: Sequence[Host], *, token: str | None, python: str | None = None) -> list[Finding]:
    """Everything that keeps the hosts from being one cluster, or will hurt there.

    Args:
        hosts: the head first.
        token: SHA-256 of this user's token.
        python: the one that should have rayrnn on the hosts; None when `rayrnn up` installs it.
    """
    findings: list[Finding] = []
    for number, host in enumerate(hosts):
        if host.unreachable:
            findings.append(Finding(host.address, host.unreachable, host.fix))
            continue
        findings += [*_python(host, python), *_room(host, python), *_other_rays(host), *_names(host, hosts)]
        findings += [*_token(host, token), *_clock(host)]
        if number == 0 and host.facts["busy_ports"] and not host.runs_ray:
            fix = f"end what listens there (`ss -ltnp sport = {PORT}`), or give `ray start` another --port"
            findings.append(Finding(host.address, f"port {PORT}, Ray's own, is taken", fix))
    return findings


def _python(host: Host, python: str | None) -> Iterator[Finding]:
    ours, theirs = platform.python_version(), host.facts["python"]
    target = host.facts["target"]
    if python:
        if target is None:
            yield Finding(host.address, f"there is no Python {python}", "mend --python, or leave it out to install one")
            return
        theirs = target["python"]
        yield from _versions(host, target["packages"], python)
    if _minor(ours) != _minor(theirs):
        fix = f"install Python {_minor(ours)} there (first on PATH as python3), or use {_minor(theirs)} here"
        yield Finding(host.address, f"Python {theirs}, here is {ours}: Ray needs the same on both sides", fix)
    if python is None and target is None and not host.facts["can_make_venv"]:
        fix = f"apt-get install python{_minor(theirs)}-venv (or your system's package of that kind)"
        yield Finding(host.address, "its Python cannot make a venv", fix)
    if "rsync" not in host.facts["tools"]:
        yield Finding(host.address, "rsync is not installed", "apt-get install rsync", about="rsync")


def _versions(host: Host, packages: dict[str, str], python: str) -> Iterator[Finding]:
    for package in ("ray", "rayrnn"):
        ours, theirs = version(package), packages.get(package)
        if theirs != ours:
            fix = f"`{python} -m pip install {package}=={ours}` there, or leave out --python: `rayrnn up` installs it"
            yield Finding(host.address, f"{package} {theirs or 'is missing'} in {python}, here is {ours}", fix)


def _room(host: Host, python: str | None) -> Iterator[Finding]:
    needed = ROOM_TO_RUN if python or host.facts["build"] else ROOM_TO_INSTALL
    for (place, free), least in zip(host.facts["disk"].items(), (needed, ROOM_TO_RUN), strict=True):
        if free < least:
            what = f"{gibibytes(free)} GiB are free on {place}, {gibibytes(least, 0)} are needed"
            yield Finding(host.address, what, "make room there")
    shared, wanted = host.facts["shared_memory"], SHARED_FRACTION * host.facts["memory"]
    if shared < wanted:
        what = f"/dev/shm has {gibibytes(shared)} GiB, Ray wants {gibibytes(wanted)} (objects will lie on the disk)"
        fix = f"`mount -o remount,size={gibibytes(wanted + GIBIBYTE, 0)}G /dev/shm` there"
        yield Finding(host.address, what, fix, tolerable=True)


def _other_rays(host: Host) -> Iterator[Finding]:
    """Somebody else's Ray: its objects, ports and CPUs would be ours too."""
    others = [ray for ray in host.facts["rays"] if not ray["ours"]]
    if not host.facts["folder_is_free"]:
        yield Finding(host.address, "Ray's folder there belongs to somebody else", "give the cluster another name")
    if others:
        listed = ", ".join(f"{ray['name']} (process {ray['process']}, user number {ray['user']})" for ray in others)
        fix = (
            "whoever started it ends it: with `rayrnn down` or `ray stop`; rayrnn ends nothing that it has not started"
        )
        yield Finding(host.address, f"another Ray runs there: {listed}", fix, about="another Ray")


def _names(host: Host, hosts: Sequence[Host]) -> Iterator[Finding]:
    """Training goes by addresses; the programs of sources do not."""
    programs = " and ".join(source.program for source in sources_on_hosts())
    if not programs:
        return
    names = {other.facts["host_name"]: other for other in hosts if not other.unreachable}
    for name, address in host.facts["names"].items():
        other = names.get(name)
        where = other.address if other else name
        if address is None:
            what = f"does not know the name {name}"
        elif address.startswith("127.") and len(hosts) > 1:
            what = f"the name {name} means {address}"
        else:
            continue
        line = f"`{where} {name}` in /etc/hosts there"
        yield Finding(host.address, what, f"training goes by address, but {programs} needs {line}", tolerable=True)


def _token(host: Host, token: str | None) -> Iterator[Finding]:
    theirs = host.facts["token"]
    if theirs["sha256"] and theirs["sha256"] != token:
        fix = "move it away there, or copy it here if the hosts' token is the right one (mode 0600)"
        yield Finding(host.address, "~/.ray/auth_token is another one than here", fix)
    elif theirs["sha256"] and theirs["mode"] & 0o077:
        what = f"~/.ray/auth_token has mode {theirs['mode']:04o}"
        yield Finding(host.address, what, "`rayrnn up` makes it 0600", tolerable=True)


def _clock(host: Host) -> Iterator[Finding]:
    if abs(host.clock) > CLOCK_SECONDS:
        what = f"its clock is {abs(host.clock):.0f} s {'ahead of' if host.clock > 0 else 'behind'} this machine's"
        yield Finding(host.address, what, "`timedatectl set-ntp true` there", tolerable=True)


def _minor(python: str) -> str:
    return ".".join(python.split(".")[:2])
