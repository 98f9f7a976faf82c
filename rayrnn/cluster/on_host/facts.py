"""What rayrnn does on a host over SSH, before and after it is installed there: `python3 on_host.py VERB ...`.

Needs nothing but Python's own library, and any Python 3 from 3.7 on: a wrong version must still be able to say so.
Linux alone: it looks into /proc.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

#: where things lie on a host, from the user's home
PROGRAM = ".rayrnn/on_host.py"
INSTALLER = ".rayrnn/install.py"
VENV = ".rayrnn/venv"
WHEELS = ".rayrnn/wheels"
#: the token of this home comes from rayrnn: its SHA-256; and the clusters that use it, for hosts may share their home
CLAIM = ".rayrnn/token"
CLUSTERS = ".rayrnn/clusters"
#: of a head, the ssh with which it reaches the other hosts, and their keys, by clusters
CHECKED = ".rayrnn/ssh"
#: of a head, its runs by their jobs
RUNS = ".rayrnn/runs"
#: copies of other hosts' runs
KEPT = ".rayrnn/kept"
#: Ray's own
TOKEN = ".ray/auth_token"
#: Ray's launcher leaves these on the head: the key to the other hosts, and what to start there
LEFT_ON_HEAD = ("ray_bootstrap_key.pem", "ray_bootstrap_config.yaml")
#: the processes that no Ray node can do without
RAY = ("gcs_server", "raylet")
#: what the titles and the commands of Ray's other processes have in them; a program that has joined has none of it
RAY_TITLES = re.compile(r"(ray::|ray-dashboard-)")
RAY_PROGRAMS = re.compile(r"/ray/(_private|dashboard|autoscaler)/[\w/]+\.py\0|\0io\.ray\.")
#: Ray names the log of a program that uses it so
OF_A_USER = "-core-driver-"
#: prints the versions of all packages that a Python has
VERSIONS = """
import importlib.metadata as m, json, sys
found = {}
for package in m.distributions():
    found.setdefault(package.metadata["Name"], package.version)
print(json.dumps({"python": sys.version.split()[0], "packages": found}))
"""


def main(verb: str, arguments: list[str]) -> int:
    """Do one thing; what it found is one line of JSON on stdout."""
    verbs: list[Callable[..., int | None]] = [facts, folder, add_workers, address, claim, clear, end]
    return next(known for known in verbs if known.__name__ == verb)(*arguments) or 0


def facts(name: str, python: str, ports: str, *others: str) -> None:
    """Print what decides whether this host can be part of the cluster `name`.

    `python` is empty for the one that rayrnn makes, `ports` have commas between, `others` are hosts' names.
    """
    ours = at_home(VENV, "bin", "python3")
    target = os.path.expanduser(python) or (ours if os.path.exists(ours) else "")
    # rayrnn/cluster/on_host/install.py writes it
    record = (_read(at_home(VENV, "rayrnn-build")) or "").splitlines()
    print(
        json.dumps(
            {
                "time": time.time(),
                "python": sys.version.split()[0],
                "can_make_venv": importlib.util.find_spec("ensurepip") is not None,
                "target": _versions(target) if target else None,
                "build": record[0] if record else None,
                "installed": record[1:],
                "host_name": socket.gethostname(),
                "names": {other: _resolve(other) for other in (socket.gethostname(), *others)},
                "cpus": len(os.sched_getaffinity(0)),
                "gpus": len(glob.glob("/dev/nvidia[0-9]*")),
                "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
                "shared_memory": _size("/dev/shm")[0],
                "disk": {place: _size(place)[1] for place in (at_home(), "/tmp")},
                "busy_ports": [int(port) for port in ports.split(",") if port and _is_busy(int(port))],
                "rays": _rays(folder_of(name)),
                "users": users(folder_of(name)),
                "token": _token(),
                "java": {"home": os.environ.get("JAVA_HOME"), "version": java_version(os.environ.get("JAVA_HOME", ""))},
                "folder_is_free": _is_free(folder_of(name)),
                "tools": [tool for tool in ("rsync", "java", "bash") if shutil.which(tool)],
            }
        )
    )


def folder(name: str) -> int:
    """Print the folder of Ray's files, which only this user can enter; its processes are known by it."""
    place = folder_of(name)
    if not _is_free(place):
        print(f"{place} belongs to somebody else: give the cluster another name", file=sys.stderr)
        return 1
    os.makedirs(place, 0o700, exist_ok=True)
    os.chmod(place, 0o700)
    print(place)
    return 0


def add_workers(name: str, *workers: str) -> None:
    """On the head: have the Ray that runs know of workers that were not listed when it was started."""
    place = f"{folder_of(name)}/ray/cluster-{name}"
    with open(place + ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as Ray does
        known = json.loads(_read(place + ".state") or "{}")
        for worker in workers:
            known.setdefault(worker, {"tags": {"ray-node-type": "worker"}, "state": "terminated"})
        with open(place + ".state", "w") as file:
            json.dump(known, file)
    print("{}")


def address(other: str) -> None:
    """Print this host's own address on the way to another; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((other, 9))
        print(probe.getsockname()[0])


def claim(name: str, token: str) -> None:
    """Remember that the token of this home is used by the cluster, and, where it is not there yet, comes from rayrnn.

    The token is named by its SHA-256. It goes with the last cluster that uses it.
    """
    os.makedirs(at_home(CLUSTERS), exist_ok=True)
    if _token()["sha256"] is None:
        with open(at_home(CLAIM), "w") as file:
            file.write(token)
    with open(at_home(CLUSTERS, name), "w") as file:
        file.write(token)
    print("{}")


def clear(name: str) -> int:
    """End what is left of this cluster; refuse where another Ray runs."""
    folder = folder_of(name)
    for other in _rays(folder):
        if not other["ours"]:
            who = "{name} (process {process} of user number {user})".format(**other)
            print(f"{who} is another Ray's, and rayrnn ends nothing that it has not started", file=sys.stderr)
            return 1
    for state in glob.glob(folder + "/ray/cluster-*"):
        os.unlink(state)  # of a head that believes its workers to be there
    return 1 if end_processes(folder) else 0


def end(name: str) -> int:
    """End every process of the cluster here and remove its files and its token."""
    folder = folder_of(name)
    was_there = len(members(folder))
    left = end_processes(folder)
    if f'"folder": "{folder}"' in (_read(record_of_head()) or ""):
        os.unlink(record_of_head())
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(at_home(CHECKED, name), ignore_errors=True)
    for file in _of_no_other_cluster(name):
        with suppress(FileNotFoundError):
            os.unlink(at_home(file))
    print(json.dumps({"ended": was_there, "left": left}))
    return 1 if left else 0


def _of_no_other_cluster(name: str) -> list[str]:
    """What this home has for this cluster alone, now that it ends."""
    own = os.path.join(CLUSTERS, name)
    others = [other for other in _names_in(at_home(CLUSTERS)) if other != name]
    if others:
        return [own]
    claimed = _read(at_home(CLAIM))
    # a head that `rayrnn up` has started on this machine, for its user, shows the same token
    is_ours = claimed and _token()["sha256"] == claimed and not os.path.exists(record_of_head())
    return [own, *LEFT_ON_HEAD, CLAIM, *([TOKEN] if is_ours else [])]


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def at_home(*names: str) -> str:
    """A path below the user's home."""
    return os.path.join(os.path.expanduser("~"), *names)


def state_folder() -> str:
    """What this machine remembers: the XDG base directory for state, as freedesktop.org names it."""
    return os.path.join(os.environ.get("XDG_STATE_HOME") or at_home(".local", "state"), "rayrnn")


def record_of_head() -> str:
    """What `rayrnn up` remembers of the head on this machine; see rayrnn/cluster/local_head.py."""
    return os.path.join(state_folder(), "head.json")


def members(folder: str) -> list[int]:
    """Every process of the Ray that has its files in `folder`, and all their children.

    One is known by its environment, which names the folder, or by its title or command and a log that it writes there:
    a title may have overwritten the environment, and a parent may be dead. A program that has joined that Ray (a
    training, a notebook) writes there too and is none, unless the Ray itself has started it. Nor is this process.
    """
    parents = {process: parent for process in _processes() if (parent := _living_parent(process)) is not None}
    family = {process for process in parents if _is_of_ray(process, folder)}
    while born := {child for child, parent in parents.items() if parent in family} - family:
        family |= born
    return sorted(family - {os.getpid()})


def users(folder: str) -> list[dict[str, Any]]:
    """The programs on this host that have joined the Ray in `folder`, or that it runs as jobs."""
    found = [process for process in _processes() if any(OF_A_USER in log for log in _logs(process, folder))]
    return [{"process": process, "command": _command(process).replace("\0", " ").strip()} for process in found]


def end_processes(folder: str) -> list[int]:
    """Ask all members of `folder` to end, then insist; one born meanwhile is found in the next look.

    Returns:
        those that do not end.
    """
    # Ray's GCS never ends when asked
    for number, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0), (signal.SIGKILL, 5.0)):
        for process in members(folder):
            with suppress(OSError):
                os.kill(process, number)
        deadline = time.time() + patience
        while (left := members(folder)) and time.time() < deadline:
            time.sleep(0.1)
        if not left:
            break
    return left


def java_version(home: str) -> int | None:
    """The major version of the Java there: 8 for 1.8, 17 for 17.0.9; None where there is none."""
    try:
        command = [os.path.join(home, "bin", "java"), "-version"]
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', ended.stdout)
    return int(found.group(1)) if found else None


def folder_of(name: str) -> str:
    """Short, as the paths of Ray's sockets must be."""
    short = name if re.fullmatch(r"[A-Za-z0-9_.-]{1,16}", name) else hashlib.sha256(name.encode()).hexdigest()[:16]
    return "/tmp/rayrnn-" + short


def _is_free(place: str) -> bool:
    """Whether a folder is this user's own, or can become it."""
    return not os.path.lexists(place) or (os.lstat(place).st_uid == os.getuid() and not os.path.islink(place))


def _versions(python: str) -> dict[str, Any] | None:
    try:
        ended = subprocess.run([python, "-c", VERSIONS], stdout=subprocess.PIPE, text=True, timeout=60)
        versions: dict[str, Any] = json.loads(ended.stdout)
        return versions
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _resolve(name: str) -> str | None:
    try:
        return socket.gethostbyname(name)
    except OSError:
        return None


def _size(place: str) -> tuple[int, int]:
    """Bytes in all and free."""
    found = os.statvfs(place)
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def _is_busy(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return True
        return False


def _token() -> dict[str, Any]:
    text = _read(at_home(TOKEN))
    if text is None:
        return {"sha256": None, "mode": None}
    return {
        "sha256": hashlib.sha256(text.strip().encode()).hexdigest(),
        "mode": os.stat(at_home(TOKEN)).st_mode & 0o777,
    }


def _rays(folder: str) -> list[dict[str, Any]]:
    """Ray's own processes on this host, whoever started them."""
    found = []
    for process in _processes():
        name = os.path.basename(_command(process).split("\0")[0])
        if name in RAY:
            user = os.stat(f"/proc/{process}").st_uid
            found.append({"process": process, "name": name, "user": user, "ours": _folder_of(process) == folder})
    return found


def _processes() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _folder_of(process: int) -> str | None:
    """The folder that its environment names as Ray's."""
    return _environment(process).get("RAY_TMPDIR")


def _environment(process: int) -> dict[str, str]:
    settings = (_read(f"/proc/{process}/environ") or "").split("\0")
    return {name: value for name, _, value in (setting.partition("=") for setting in settings)}


def _living_parent(process: int) -> int | None:
    """The parent's number; None for a process that is gone or only waits to be seen off."""
    fields = (_read(f"/proc/{process}/stat") or "").rpartition(")")[2].split()
    return int(fields[1]) if fields and fields[0] != "Z" else None


def _is_of_ray(process: int, folder: str) -> bool:
    logs, environment = _logs(process, folder), _environment(process)
    if "RAY_RAYLET_PID" in environment:  # a raylet has started it, or one of its workers
        return environment.get("RAY_TMPDIR") == folder or bool(logs)
    if any(OF_A_USER in log for log in logs):
        return False
    return environment.get("RAY_TMPDIR") == folder or (bool(logs) and _has_name_of_ray(_command(process)))


def _has_name_of_ray(command: str) -> bool:
    name = os.path.basename(command.split("\0", maxsplit=1)[0])
    return name in RAY or bool(RAY_TITLES.match(command) or RAY_PROGRAMS.search(command))


def _logs(process: int, folder: str) -> list[str]:
    """The files of the Ray in `folder` that a process writes."""
    found = []
    with suppress(OSError):
        for file in os.listdir(f"/proc/{process}/fd"):
            link = f"/proc/{process}/fd/{file}"
            with suppress(OSError):
                path = os.readlink(link)
                # the link's own mode says whether the file is open for writing
                if path.startswith(folder + "/ray/") and os.lstat(link).st_mode & 0o200:
                    found.append(path)
    return found


def _command(process: int) -> str:
    return _read(f"/proc/{process}/cmdline") or ""


def _read(path: str) -> str | None:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
