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

from rayrnn.errors import ClusterError

#: seconds a process has between being asked and being made to end; Ray's GCS never ends when asked
PATIENCE = 2.0
#: the system's folder whatever TMPDIR says: the paths of Ray's sockets must be short
PLACE = Path("/tmp")
#: seconds; a younger folder without a lock may belong to a program that is just starting
YOUNG = 60


def processes_of(folder: str) -> list[psutil.Process]:
    """Every process whose environment names `folder` as Ray's, or that writes there for Ray, and all their children."""
    marked = [process for process in psutil.process_iter() if _belongs(process, folder)]
    family = {process.pid: process for parent in marked for process in [parent, *_children(parent)]}
    return list(family.values())


def is_head_alive(folder: str) -> bool:
    """Whether the two processes that no Ray head can do without are there."""
    names = {_name(process) for process in processes_of(folder)}
    return {"gcs_server", "raylet"} <= names


def end_processes_of(folder: str) -> None:
    """End them all; a process that was born meanwhile is found in the next look.

    Raises:
        ClusterError: some would not end.
    """
    for _ in range(3):
        _end(processes_of(folder))
    if stubborn := processes_of(folder):
        listed = ", ".join(f"{process.pid} ({_name(process)})" for process in stubborn)
        raise ClusterError(f"these processes of Ray's head do not end, not even when killed: {listed}")


def _belongs(process: psutil.Process, folder: str) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.environ().get("RAY_TMPDIR") == folder or _writes_into(process, f"{folder}/ray/")
    except (psutil.Error, OSError):
        return False


def _writes_into(process: psutil.Process, place: str) -> bool:
    """Every process of a Ray has its log there: a mark that stays when its parent is dead and its title changed."""
    return any(file.path.startswith(place) and file.mode != "r" for file in process.open_files())


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [child for child in process.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]
    except psutil.Error:
        return []


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""


def _end(processes: list[psutil.Process]) -> None:
    """Ask, wait, insist."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=PATIENCE)


def make_folder(purpose: str) -> str:
    """A new folder that only this user can enter; Ray opens what it makes inside to everyone."""
    return tempfile.mkdtemp(prefix=f"rayrnn-{purpose}-", dir=PLACE)


@contextmanager
def run_folder() -> Iterator[str]:
    """A folder that lives as long as this block; first, what programs that were killed have left is removed."""
    _sweep()
    draft = Path(make_folder("new"))
    with (draft / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # under this name it is locked from the beginning: a folder without a lock has lost its owner
        folder = draft.rename(PLACE / draft.name.replace("new", "run", 1))
        try:
            yield str(folder)
        finally:
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
        # one that does not even end when it is killed must not keep anybody from starting
        with suppress(ClusterError):
            end_processes_of(str(folder))
        shutil.rmtree(folder, ignore_errors=True)


def _changed(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return time.time()
