"""The processes of one Ray session, found by the folder they were given, and how they are ended."""

from contextlib import suppress

import psutil

from rayrnn.errors import ClusterError

#: seconds a process has between being asked and being made to end; Ray's GCS never ends when asked
PATIENCE = 2.0


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
