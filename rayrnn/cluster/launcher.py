"""Ray's own cluster launcher as a program: `ray up` and `ray down` with the user's file and what rayrnn adds."""

import ipaddress
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayrnn.cluster.cluster_file import ClusterFile
from rayrnn.cluster.environment import settings_for_hosts, token_path
from rayrnn.cluster.on_host import facts, install
from rayrnn.cluster.programs import settings_of_programs
from rayrnn.cluster.ray_internals import without_client_server
from rayrnn.errors import ClusterError
from rayrnn.wording import path_of

#: Ray's own settings for hosts that exist already; the user's go first
FOR_HOSTS = {
    # seconds until a host that does not answer over SSH is given up; Ray would wait 15 minutes, as for a new machine
    "AUTOSCALER_NODE_START_WAIT_S": "60",
    # with hosts over SSH, Ray 2.60's new autoscaler never starts the workers
    "RAY_UP_enable_autoscaler_v2": "0",
}
#: a line of the launcher's log of itself
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+\s+[A-Z]+ ")
#: what a line ends with where the terminal would be told to go back or change its colour
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\x07]")
#: where things lie on a host
ON_HOST = f"~/{facts.PROGRAM}"
INSTALL = f"~/{facts.INSTALLER}"
VENV = f"~/{facts.VENV}"
HOST_PYTHON = f"$HOME/{facts.VENV}/bin/python3"
TOKEN = f"~/{facts.TOKEN}"
WHEELS = f"~/{facts.WHEELS}"
#: in the cluster's folder here: the ssh that checks keys, and the keys
CHECKED = "ssh"
#: seconds until the head gives up a host that does not answer over SSH, and between two looks at its hosts
AUTOSCALER = {"AUTOSCALER_NODE_START_WAIT_S": "60", "AUTOSCALER_UPDATE_INTERVAL_S": "2"}


def check_this_machine(file: ClusterFile) -> None:
    """What the launcher needs here: ssh, rsync, and the files that the cluster file names.

    Raises:
        ClusterError: something is missing, or a key is no secret; names all of it.
    """
    missing = [f"{tool} is not installed on this machine" for tool in ("ssh", "rsync") if not shutil.which(tool)]
    for key, path in file.local_files.items():
        here = path_of(path)
        if not here.exists() and here != token_path():
            missing.append(f'{file.path}: "{key}" names {path}, which is not on this machine')
        elif key == "auth.ssh_private_key" and _is_open(here):
            missing.append(
                f'{file.path}: "{key}" names {path}, which others may read: ssh refuses it; `chmod 600 {path}`'
            )
    if missing:
        raise ClusterError("\n".join(missing))


def _is_open(key: Path) -> bool:
    """Whether ssh takes a key for no secret."""
    about = key.stat()
    return about.st_uid == os.getuid() and bool(about.st_mode & 0o077)


def run_launcher(
    verb: str, file: ClusterFile, given: Path, say: Callable[[str], None], options: Iterable[str] = ()
) -> None:
    """Run `ray up` or `ray down`; each of its lines goes to `say` as it comes.

    Args:
        file: the user's.
        given: what the launcher reads in its place; its folder takes what the launcher remembers of listed hosts.

    Raises:
        ClusterError: the launcher failed; the message has what it said last.
    """
    command = [sys.executable, "-P", "-m", "ray.scripts.scripts", verb, str(given), "--yes", *options]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
    if file.provider == "local":
        environment = FOR_HOSTS | {"RAY_TMPDIR": str(given.parent), "TMPDIR": str(given.parent)} | environment
        environment["PATH"] = os.pathsep.join([str(given.parent / CHECKED), environment.get("PATH", os.defpath)])
    with subprocess.Popen(
        [*command, "--log-style=pretty", "--log-color=false"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            said = [_passed_on(line, say) for line in _readable(process.stdout)]
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)  # with its ssh
            raise
    if process.returncode != 0:
        last = "\n".join(f"  {line}" for line in said[-12:])
        raise ClusterError(f"Ray's launcher could not bring {verb} {file.path}; it said last\n{last}")


def _readable(lines: Iterable[str]) -> Iterator[str]:
    """What the launcher says to people: each thing once, without its log of itself and the frames of a traceback."""
    said: set[str] = set()
    in_traceback = False
    for raw in lines:
        line = CONTROL.sub("", raw)
        in_traceback = "Traceback (most recent call last)" in line or (in_traceback and line.startswith(" "))
        words = line.strip()
        if not (in_traceback or words in said or words in ("", "!!!") or LOG_LINE.match(line)):
            said.add(words)
            yield line.rstrip()


def _passed_on(line: str, say: Callable[[str], None]) -> str:
    say(line)
    return line


@dataclass(frozen=True)
class HostPackages:
    """What this machine gives to the hosts."""

    token: Path
    wheel: Path
    #: names the wheel's content
    build: str
    #: what is installed with it, as pip takes it
    packages: tuple[str, ...]
    #: the folder of the ssh with which the head reaches the others, and their keys
    checked: Path
    #: a Python on the hosts that has rayrnn already; then nothing is installed
    python: str | None = None


def launch_config(file: ClusterFile, host_packages: HostPackages, hosts: tuple[str, ...]) -> dict[str, Any]:
    """The configuration for Ray's launcher.

    Args:
        hosts: the addresses to use in the place of the file's, the head first; empty where a cloud decides.
    """
    config = dict(file.config)
    if hosts:
        config["provider"] = {**config["provider"], "head_ip": hosts[0], "worker_ips": list(hosts[1:])}
        # whoever was chosen is waited for; Ray would start the least that it must
        config["min_workers"] = config["max_workers"] = len(hosts) - 1
    wheel = f"{WHEELS}/{host_packages.build}/{host_packages.wheel.name}"
    config["file_mounts"] = {
        **(config.get("file_mounts") or {}),
        TOKEN: str(host_packages.token),
        ON_HOST: facts.__file__,
        INSTALL: install.__file__,
        **({} if host_packages.python else {wheel: str(host_packages.wheel)}),
        **{f"{_checked(file)}/{name}": str(host_packages.checked / name) for name in ("ssh", "known_hosts") if hosts},
    }
    config["setup_commands"] = [
        *(config.get("setup_commands") or []),
        f"chmod 700 ~/.ray && chmod 600 {TOKEN}",
        f"python3 {INSTALL} {_what_to_install(host_packages, wheel)}",
    ]
    for part, is_head in (("head_start_ray_commands", True), ("worker_start_ray_commands", False)):
        commands = file.complete[part]
        config[part] = [_start_command(command, file, hosts, is_head=is_head) for command in commands]
    return config


def _checked(file: ClusterFile) -> str:
    return f"~/{facts.CHECKED}/{file.name}"


def _what_to_install(host_packages: HostPackages, wheel: str) -> str:
    if host_packages.python:
        return f"point {VENV} {shlex.quote(host_packages.python)}"
    return f"install {VENV} {host_packages.build} {wheel} {shlex.join(host_packages.packages)}"


def _start_command(command: str, file: ClusterFile, hosts: tuple[str, ...], *, is_head: bool) -> str:
    """One of the commands that start Ray: with the token, in rayrnn's Python, ending nobody else's Ray."""
    name = shlex.quote(file.name)
    first = f"{_checked(file)}:" if is_head and hosts else ""
    if re.search(r"\bray stop\b", command):
        return f"python3 {ON_HOST} clear {name}"
    if not re.search(r"\bray start\b", command):
        return command
    variables = settings_for_hosts() | (AUTOSCALER if is_head else {})
    if is_head:
        variables["RAY_START_HOOK"] = f"{without_client_server.__module__}.{without_client_server.__name__}"
    if file.provider == "local":
        # with hosts over SSH, Ray 2.60's new autoscaler never starts the workers
        variables["RAY_enable_autoscaler_v2"] = "0"
    exports = " ".join(f"{key}={shlex.quote(value)}" for key, value in variables.items())
    # in these quotes the host's shell puts its own home directory
    programs = " ".join(f'{key}="{value}"' for key, value in settings_of_programs(HOST_PYTHON).items())
    options = ["--disable-usage-stats", *_address(file, hosts, is_head=is_head)]
    if is_head:
        options.append("--include-dashboard=false")
    # a Python of the user's may have no command `ray` beside it
    ours = re.sub(r"(?<![\w/.-])ray start\b", "python3 -m ray.scripts.scripts start", command)
    started = re.sub(r"\b(ray|ray\.scripts\.scripts) start\b", rf"\1 start {' '.join(options)}", ours)
    return (
        # Ray's launcher says OMP_NUM_THREADS=1, and every worker would learn with one thread
        f"unset OMP_NUM_THREADS; folder=$(python3 {ON_HOST} folder {name}) || exit 1; ulimit -n $(ulimit -Hn); "
        f"export PATH={first}{VENV}/bin:$PATH {programs} RAY_TMPDIR=$folder {exports}; "
        f"{started}"
    )


def _address(file: ClusterFile, hosts: tuple[str, ...], *, is_head: bool) -> list[str]:
    """The address by which the others know this host: Ray would ask the host's name, which may say 127.0.1.1."""
    if not is_head:
        return [f"--node-ip-address=$(python3 {ON_HOST} address $RAY_HEAD_IP)"] if file.provider == "local" else []
    if not hosts:
        return []
    if is_ip_address(hosts[0]):
        return [f"--node-ip-address={hosts[0]}"]
    return [f"--node-ip-address=$(python3 {ON_HOST} address {hosts[1]})"] if len(hosts) > 1 else []


def is_ip_address(host: str) -> bool:
    """Whether a host is listed by address, not by name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
