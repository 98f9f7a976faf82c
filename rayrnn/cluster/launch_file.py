"""What Ray's launcher is given: the user's cluster file, and in it what rayrnn adds to it."""

import ipaddress
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayrnn.cluster import install, on_host
from rayrnn.cluster.cluster_file import ClusterFile
from rayrnn.cluster.environment import settings_for_hosts, without_client_server

#: where things lie on a host
ON_HOST = "~/.rayrnn/on_host.py"
INSTALL = "~/.rayrnn/install.py"
VENV = "~/.rayrnn/venv"
TOKEN = "~/.ray/auth_token"
WHEELS = "~/.rayrnn/wheels"
#: seconds until the head gives up a host that does not answer over SSH, and between two looks at its hosts
AUTOSCALER = {"AUTOSCALER_NODE_START_WAIT_S": "60", "AUTOSCALER_UPDATE_INTERVAL_S": "2"}


@dataclass(frozen=True)
class Luggage:
    """What this machine gives to the hosts."""

    token: Path
    wheel: Path
    #: names the wheel's content
    build: str
    #: what is installed with it, as pip takes it
    packages: tuple[str, ...]
    #: a Python on the hosts that has rayrnn already; then nothing is installed
    python: str | None = None


def launch_config(file: ClusterFile, luggage: Luggage, hosts: tuple[str, ...]) -> dict[str, Any]:
    """The configuration for Ray's launcher.

    Args:
        hosts: the addresses to use in the place of the file's, the head first; empty where a cloud decides.
    """
    config = dict(file.config)
    if hosts:
        config["provider"] = {**config["provider"], "head_ip": hosts[0], "worker_ips": list(hosts[1:])}
        # whoever was chosen is waited for; Ray would start the least that it must
        config["min_workers"] = config["max_workers"] = len(hosts) - 1
    wheel = f"{WHEELS}/{luggage.build}/{luggage.wheel.name}"
    config["file_mounts"] = {
        **(config.get("file_mounts") or {}),
        TOKEN: str(luggage.token),
        ON_HOST: on_host.__file__,
        INSTALL: install.__file__,
        **({} if luggage.python else {wheel: str(luggage.wheel)}),
    }
    config["setup_commands"] = [
        *(config.get("setup_commands") or []),
        f"chmod 700 ~/.ray && chmod 600 {TOKEN}",
        f"python3 {INSTALL} {_what_to_install(luggage, wheel)}",
    ]
    for part, is_head in (("head_start_ray_commands", True), ("worker_start_ray_commands", False)):
        commands = file.complete[part]
        config[part] = [_start_command(command, file, hosts, is_head=is_head) for command in commands]
    return config


def _what_to_install(luggage: Luggage, wheel: str) -> str:
    if luggage.python:
        return f"point {VENV} {shlex.quote(luggage.python)}"
    return f"install {VENV} {luggage.build} {wheel} {shlex.join(luggage.packages)}"


def _start_command(command: str, file: ClusterFile, hosts: tuple[str, ...], *, is_head: bool) -> str:
    """One of the commands that start Ray: with the token, in rayrnn's Python, ending nobody else's Ray."""
    name = shlex.quote(file.name)
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
    options = ["--disable-usage-stats", *_address(file, hosts, is_head=is_head)]
    if is_head:
        options.append("--include-dashboard=false")
    # a Python of the user's may have no command `ray` beside it
    ours = re.sub(r"(?<![\w/.-])ray start\b", "python3 -m ray.scripts.scripts start", command)
    started = re.sub(r"\b(ray|ray\.scripts\.scripts) start\b", rf"\1 start {' '.join(options)}", ours)
    return (
        # Ray's launcher says OMP_NUM_THREADS=1, and every worker would learn with one thread
        f"unset OMP_NUM_THREADS; folder=$(python3 {ON_HOST} folder {name}) || exit 1; ulimit -n $(ulimit -Hn); "
        f"export PATH=~/.rayrnn/venv/bin:$PATH PYSPARK_PYTHON=~/.rayrnn/venv/bin/python3 RAY_TMPDIR=$folder {exports}; "
        f"{started}"
    )


def _address(file: ClusterFile, hosts: tuple[str, ...], *, is_head: bool) -> list[str]:
    """The address by which the others know this host: Ray would ask the host's name, which may say 127.0.1.1."""
    if not is_head:
        return [f"--node-ip-address=$(python3 {ON_HOST} address $RAY_HEAD_IP)"] if file.provider == "local" else []
    if not hosts:
        return []
    if is_address(hosts[0]):
        return [f"--node-ip-address={hosts[0]}"]
    return [f"--node-ip-address=$(python3 {ON_HOST} address {hosts[1]})"] if len(hosts) > 1 else []


def is_address(host: str) -> bool:
    """Whether a host is listed by address, not by name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
