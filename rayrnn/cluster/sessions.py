"""Ray's folders of sessions on this machine, and the processes that belong to each."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from rayrnn.cluster.on_host.facts import end_processes, members
from rayrnn.errors import ClusterError

#: the system's folder whatever TMPDIR says: the paths of Ray's sockets must be short
PLACE = Path("/tmp")
#: seconds; a younger folder without a lock may belong to a program that is just starting
YOUNG = 60


def processes_of(folder: str) -> list[psutil.Process]:
    """Every process of the Ray that has its files in `folder`, and all their children."""
    found = []
    for process in members(folder):
        with suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(process))
    return found


def is_head_alive(folder: str) -> bool:
    """Whether the two processes that no Ray head can do without are there."""
    names = {_name(process) for process in processes_of(folder)}
    return {"gcs_server", "raylet"} <= names


def end_processes_of(folder: str) -> None:
    """End them all.

    Raises:
        ClusterError: some would not end.
    """
    if end_processes(folder):
        listed = ", ".join(f"{process.pid} ({_name(process)})" for process in processes_of(folder))
        raise ClusterError(f"these processes of Ray's head do not end, not even when killed: {listed}")


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""


def make_folder(purpose: str) -> str:
    """A new folder that only this user can enter; Ray opens what it makes inside to everyone."""
    return tempfile.mkdtemp(prefix=f"rayrnn-{purpose}-", dir=PLACE)


@contextmanager
def run_folder() -> Iterator[str]:
    """A folder that lives as long as this block, as do the processes of a Ray that is started there.

    First, what programs that were killed have left is removed.
    """
    _sweep()
    draft = Path(make_folder("new"))
    with (draft / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # under this name it is locked from the beginning: a folder without a lock has lost its owner
        folder = draft.rename(PLACE / draft.name.replace("new", "run", 1))
        try:
            yield str(folder)
        finally:
            _end_quietly(folder)  # a Ray that was cut short while it started leaves agents that seek it for a minute
            shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """End the processes of programs that were killed, and remove their folders."""
    abandoned = [folder for folder in PLACE.glob("rayrnn-new-*") if time.time() - _changed(folder) > YOUNG]
    for folder in [*PLACE.glob("rayrnn-run-*"), *abandoned]:
        # its owner removed it meanwhile, or holds the lock, or is another user
        with suppress(OSError):
            if folder.stat().st_uid == os.getuid():
                _remove_unless_held(folder)


def _remove_unless_held(folder: Path) -> None:
    """The lock goes with the program that held it, however it ended; Ray's processes may outlive it."""
    with (folder / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _end_quietly(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _end_quietly(folder: Path) -> None:
    """One that does not even end when it is killed must not keep anybody from starting, nor from ending."""
    with suppress(ClusterError):
        end_processes_of(str(folder))


def _changed(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return time.time()
