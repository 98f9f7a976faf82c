"""Private folders for what Ray writes: sockets, logs, spilled objects."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rayrnn.cluster.processes import end_processes_of
from rayrnn.errors import ClusterError

#: the system's folder whatever TMPDIR says: the paths of Ray's sockets must be short
PLACE = Path("/tmp")
#: seconds; a younger folder without a lock may belong to a program that is just starting
YOUNG = 60


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
