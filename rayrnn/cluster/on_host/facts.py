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

HOME = os.path.expanduser("~")
BASE = os.path.join(HOME, ".rayrnn")
VENV = os.path.join(BASE, "venv")
TOKEN = os.path.join(HOME, ".ray", "auth_token")
CLAIM = os.path.join(BASE, "token")
#: Ray's launcher leaves these on the head: the key to the other hosts, and what to start there
LEFT_ON_HEAD = ("ray_bootstrap_key.pem", "ray_bootstrap_config.yaml")
#: the processes that no Ray node can do without
RAY = ("gcs_server", "raylet")
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
    ours = os.path.join(VENV, "bin", "python3")
    target = os.path.expanduser(python) or (ours if os.path.exists(ours) else "")
    # rayrnn/cluster/on_host/install.py writes it
    record = (_read(os.path.join(VENV, "rayrnn-build")) or "").splitlines()
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
                "disk": {place: _size(place)[1] for place in (HOME, "/tmp")},
                "busy_ports": [int(port) for port in ports.split(",") if port and _is_busy(int(port))],
                "rays": _rays(folder_of(name)),
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


def claim(token: str) -> None:
    """Remember that the token (its SHA-256) comes from rayrnn, and goes with it."""
    os.makedirs(BASE, exist_ok=True)
    with open(CLAIM, "w") as file:
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
    return 1 if _end_processes(folder) else 0


def end(name: str) -> int:
    """End every process of the cluster here and remove its files and its token."""
    folder = folder_of(name)
    was_there = len(_members(folder))
    left = _end_processes(folder)
    if f'"folder": "{folder}"' in (_read(_record()) or ""):
        os.unlink(_record())
    shutil.rmtree(folder, ignore_errors=True)
    claimed = _read(CLAIM)
    gone = [os.path.join(HOME, file) for file in LEFT_ON_HEAD] + [CLAIM]
    if claimed and _token()["sha256"] == claimed:
        gone.append(TOKEN)
    for path in gone:
        with suppress(FileNotFoundError):
            os.unlink(path)
    print(json.dumps({"ended": was_there, "left": left}))
    return 1 if left else 0


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
    short = name if re.match(r"[\w.-]{1,16}$", name) else hashlib.sha256(name.encode()).hexdigest()[:16]
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
    text = _read(TOKEN)
    if text is None:
        return {"sha256": None, "mode": None}
    return {"sha256": hashlib.sha256(text.strip().encode()).hexdigest(), "mode": os.stat(TOKEN).st_mode & 0o777}


def _rays(folder: str) -> list[dict[str, Any]]:
    """Ray's own processes on this host, whoever started them."""
    found = []
    for process in _processes():
        name = os.path.basename((_read(f"/proc/{process}/cmdline") or "").split("\0")[0])
        if name in RAY:
            user = os.stat(f"/proc/{process}").st_uid
            found.append({"process": process, "name": name, "user": user, "ours": _folder_of(process) == folder})
    return found


def _processes() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _folder_of(process: int) -> str | None:
    """The folder that its environment names as Ray's."""
    found = re.search(r"(?:^|\0)RAY_TMPDIR=([^\0]*)", _read(f"/proc/{process}/environ") or "")
    return found.group(1) if found else None


def _members(folder: str) -> list[int]:
    """Those whose environment names the folder as Ray's, or who write there: a title may overwrite an environment."""
    others = [process for process in _processes() if process != os.getpid()]
    return [process for process in others if _folder_of(process) == folder or _writes_into(process, folder + "/")]


def _writes_into(process: int, place: str) -> bool:
    with suppress(OSError):
        for file in glob.glob(f"/proc/{process}/fd/*"):
            with suppress(OSError):
                if os.readlink(file).startswith(place):
                    return True
    return False


def _end_processes(folder: str) -> list[int]:
    """Ask, insist; returns those that do not end."""
    for number, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0), (signal.SIGKILL, 5.0)):
        for process in _members(folder):
            with suppress(OSError):
                os.kill(process, number)
        deadline = time.time() + patience
        while _members(folder) and time.time() < deadline:
            time.sleep(0.1)
    return _members(folder)


def _record() -> str:
    """Where rayrnn/cluster/local_head.py has it."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(HOME, ".local", "state")
    return os.path.join(state, "rayrnn", "head.json")


def _read(path: str) -> str | None:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
