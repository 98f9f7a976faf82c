"""Bringing the hosts of a cluster file up and down, with Ray's launcher in the middle."""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rayrnn.cluster.cluster_file import ClusterFile
from rayrnn.cluster.environment import ensure_token
from rayrnn.cluster.host_keys import HostKey, known_keys, lookup_name, write_checking_ssh
from rayrnn.cluster.inspection import token_digest
from rayrnn.cluster.launcher import CHECKED, HostPackages, launch_config, run_launcher
from rayrnn.cluster.local_head import cluster_folder
from rayrnn.cluster.packages import build_wheel, packages_for_hosts
from rayrnn.cluster.plan import UpPlan, addresses_of
from rayrnn.cluster.ssh import Shell, Unreachable, last_lines, shell_of, shell_of_head, side_by_side
from rayrnn.durable import replace_durably
from rayrnn.errors import ClusterError, Interrupted
from rayrnn.wording import command_line

#: seconds until every host must have joined; the first time, rayrnn and torch are fetched by each
PATIENCE = 1800.0
#: in the cluster's folder, the hosts that have something of it
TOUCHED = "hosts"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Fault:
    """One host does not do its part, or two do not work together."""

    hosts: tuple[str, ...]
    what: str

    def __str__(self) -> str:
        return f"{' and '.join(self.hosts)} {self.what}"


@dataclass
class Verification:
    """What the head found out about its hosts."""

    joined: list[str] = field(default_factory=list)
    #: address -> what the head's log says about it
    absent: dict[str, list[str]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    #: address -> with what
    computes: dict[str, str] = field(default_factory=dict)
    #: two addresses, seconds of a round trip, bits a second
    pairs: list[tuple[str, str, float, float]] = field(default_factory=list)
    #: it was up before
    was_up: bool = False


def bring_up(plan: UpPlan, say: Say) -> Verification:
    """Install what is missing, start what does not run, wait for everybody, and have them prove themselves.

    Raises:
        ClusterError: a host is absent, does not compute, or two cannot talk; names them, with what the log says.
        Interrupted: the user stopped it; says how it goes on, and how it is undone.
    """
    try:
        return _bring_up(plan, say)
    except KeyboardInterrupt:
        up, down = (command_line("rayrnn", verb, plan.file.path) for verb in ("up", "down"))
        raise Interrupted(f"stopped in the middle: `{up}` goes on, `{down}` ends what was begun on the hosts") from None


def _bring_up(plan: UpPlan, say: Say) -> Verification:
    file, options = plan.file, plan.options
    ensure_token()
    folder = cluster_folder(file.name)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # before anything is there: `down` must know of every host that has something of the cluster
        _remember(folder, [host.address for host in plan.chosen])
        wheel, build = build_wheel(folder)
    except OSError as error:
        raise ClusterError(f"{folder} cannot be written: {error.strerror or error}; no host was touched") from None
    checked = folder / CHECKED
    host_packages = HostPackages(_token_file(folder), wheel, build, packages_for_hosts(), checked, options.python)
    addresses = addresses_of(plan)
    new_keys = bool(addresses) and write_checking_ssh(checked, _names_and_keys(plan, addresses))
    text = yaml.safe_dump(launch_config(file, host_packages, addresses), sort_keys=False)
    given = folder / "launch.yaml"
    same = not new_keys and given.exists() and given.read_text(encoding="utf-8") == text
    failed = folder / "failed"
    why = why_restart(plan, host_packages, failed=failed.exists())
    refuse_restart(plan, why)
    restart = bool(why) or not (plan.head_runs_ray if plan.chosen else options.no_restart)
    if restart or not same or not all(host.runs_ray for host in plan.chosen):
        if restart:
            shutil.rmtree(folder / "ray", ignore_errors=True)  # what the launcher remembers of an earlier cluster
        given.write_text(text, encoding="utf-8")
        _claim_tokens(plan)
        if plan.chosen and not restart:
            shell_of(file, plan.chosen[0].address).ask("add_workers", file.name, *addresses[1:])
        run_launcher("up", file, given, say, _options(plan, restart=restart))
    try:
        verification = verify_hosts(file, addresses, say)
    except ClusterError:
        failed.touch()
        raise
    failed.unlink(missing_ok=True)
    verification.was_up = not restart
    return verification


def take_down(file: ClusterFile, say: Say) -> list[str]:
    """End the cluster on every host and remove its token there, also what a failed `bring_up` has left.

    Returns:
        the addresses on which something was ended.

    Raises:
        ClusterError: a host cannot be reached, or a process there does not end.
    """
    folder = cluster_folder(file.name)
    given = folder / "launch.yaml"
    if not file.hosts:
        run_launcher("down", file, given if given.exists() else file.path, say)
        shutil.rmtree(folder, ignore_errors=True)
        return []
    touched = _touched(folder)
    head, *workers = hosts = list(dict.fromkeys([*file.hosts, *touched]))

    def end(host: str) -> Any:
        # one that was left out may be away: it has nothing of the cluster
        return _end(file, host, may_be_away=bool(touched) and host not in touched)

    # the head first: it would start its workers again
    answers = [*side_by_side([head], end), *side_by_side(workers, end)]
    failed = [str(answer) for answer in answers if isinstance(answer, ClusterError)]
    if failed:
        listed = "\n".join(f"  {line}" for line in failed)
        down = command_line("rayrnn", "down", file.path)
        again = f"its processes and its token may remain there: `{down}` again when it can be reached"
        raise ClusterError(f"not every host could be taken down; {again}\n{listed}")
    shutil.rmtree(folder, ignore_errors=True)
    return [host for host, answer in zip(hosts, answers, strict=True) if answer["ended"]]


def verify_hosts(file: ClusterFile, addresses: tuple[str, ...], say: Say) -> Verification:
    """Wait on the head until every host has joined, and has proved that it computes and talks.

    Raises:
        ClusterError: somebody is absent or not able; names who, with what the head's log says.
    """
    verification = Verification()
    head = shell_of_head(file)
    for word, value in _listen(head, file.name, addresses):
        if word == "joined":
            verification.joined = value
            say(f"{len(value)} of {len(addresses) or 'the'} hosts have joined")
        elif word == "absent":
            verification.absent = value
        elif word == "fault":
            verification.faults.append(Fault(tuple(value[0]), value[1]))
        elif word == "computes":
            verification.computes[value[0]] = value[1]
            say(f"{value[0]} computes")
        elif word == "pair":
            verification.pairs.append((value[0], value[1], value[2], value[3]))
            say(f"{value[0]} and {value[1]} talk")
    if verification.absent or verification.faults:
        raise ClusterError(_what_is_wrong(verification, file))
    return verification


def why_restart(plan: UpPlan, host_packages: HostPackages, *, failed: bool) -> str:
    """Why the Ray that runs on the head has to be started again; empty where none runs, or that can stay.

    Args:
        failed: the last `up` found that a host had not joined or was not able to do its part.
    """
    if not plan.head_runs_ray or plan.options.no_restart:
        return ""
    if failed:
        return "a host did not do its part after the last `rayrnn up`, and Ray never tries such a host again"
    facts = plan.chosen[0].facts
    same = facts["build"] == host_packages.build and set(host_packages.packages) <= set(facts["installed"])
    return "" if same or plan.options.python else "it runs another rayrnn than this machine's, or lacks a package"


def refuse_restart(plan: UpPlan, why: str) -> None:
    """Have nobody's Ray started again below them.

    Raises:
        ClusterError: it would be; names the programs that use it.
    """
    users = [(host.address, user) for host in plan.chosen for user in host.facts.get("users", [])]
    if why and users:
        listed = "\n".join(f"  process {user['process']} on {where}: {user['command'][:200]}" for where, user in users)
        down = command_line("rayrnn", "down", plan.file.path)
        raise ClusterError(
            f"the cluster's Ray has to be started again ({why}), and it is in use:\n{listed}\n"
            f"wait for them; or `{down}`, which lets runs write a checkpoint first; or --no-restart"
        )


def _token_file(folder: Path) -> Path:
    """This user's token; a copy where only the environment has it."""
    path = ensure_token()
    if path is not None:
        return path
    path = folder / "auth_token"
    replace_durably(path, os.environ["RAY_AUTH_TOKEN"].encode(), mode=0o600)
    return path


def _names_and_keys(plan: UpPlan, addresses: tuple[str, ...]) -> list[tuple[list[str], list[HostKey]]]:
    """Of the chosen hosts, which are all known: what they are called, here and among each other, and their keys."""
    found = []
    for host, address in zip(plan.chosen, addresses, strict=True):
        listed, called = (shell_of(plan.file, name) for name in (host.address, address))
        ours = [lookup_name(shell.target, shell.options) for shell in (listed, called)]
        names = list(dict.fromkeys([host.address, address, *ours]))
        found.append((names, known_keys(listed.target, listed.options)))
    return found


def _claim_tokens(plan: UpPlan) -> None:
    """Where there is no token yet, the one that comes now will go with the last cluster that uses it."""
    name, digest = plan.file.name, str(token_digest())
    for answer in side_by_side(plan.chosen, lambda host: shell_of(plan.file, host.address).ask("claim", name, digest)):
        if isinstance(answer, ClusterError):
            raise answer


def _options(plan: UpPlan, *, restart: bool) -> Iterator[str]:
    if not restart:
        yield "--no-restart"
    # where the hosts are listed, those that are chosen are all that the launcher hears of
    for option, number in (("--min-workers", plan.options.min_workers), ("--max-workers", plan.options.max_workers)):
        if not plan.file.hosts and number is not None:
            yield f"{option}={number}"


def _listen(head: Shell, name: str, addresses: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """What rayrnn/cluster/on_host/verify.py says on the head, as it says it."""
    script = f"exec python3 -P -m rayrnn.cluster.on_host.verify {shlex.join([name, str(PATIENCE), *addresses])}"
    with subprocess.Popen(
        head.command(script), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        last = None
        for line in process.stdout:
            if line.startswith("{"):
                ((last, value),) = json.loads(line).items()
                yield last, value
        said = process.stderr.read()
    if last not in ("done", "fault"):
        raise ClusterError(f"the head {head.address} could not verify the hosts:\n{last_lines(said)}")


def _what_is_wrong(verification: Verification, file: ClusterFile) -> str:
    lines = []
    for address, words in verification.absent.items():
        lines.append(f"{address} has not joined the cluster; the head's log says")
        lines += [f"    {word}" for word in words[-8:]] or ["    nothing about it"]
    lines += map(str, verification.faults)
    if any(len(fault.hosts) > 1 for fault in verification.faults):
        lines.append("  the hosts must reach each other on every TCP port: look at the firewalls between them")
    there = ", ".join(verification.joined) or "nobody"
    up, down = command_line("rayrnn", "up", file.path), command_line("rayrnn", "down", file.path)
    lines.append(f"  joined: {there}; mend it and type `{up}` again, or `{down}`")
    return "\n".join(lines)


def _remember(folder: Path, hosts: list[str]) -> None:
    """That these have something of the cluster, until it is taken down."""
    replace_durably(folder / TOUCHED, "\n".join(dict.fromkeys([*_touched(folder), *hosts])).encode())


def _touched(folder: Path) -> list[str]:
    path = folder / TOUCHED
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def _end(file: ClusterFile, address: str, *, may_be_away: bool) -> Any:
    try:
        return shell_of(file, address).ask("end", file.name, timeout=60)
    except Unreachable:
        if may_be_away:
            return {"ended": 0}
        raise
