"""Private folders for what Ray writes: sockets, logs, spilled objects."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: the system's folder whatever TMPDIR says: the paths of Ray's sockets must be short
PLACE = Path("/tmp")
#: seconds; a younger folder may belong to a program that is just starting
YOUNG = 60


def make_folder(purpose: str) -> str:
    """A new folder that only this user can enter; Ray opens what it makes inside to everyone."""
    return tempfile.mkdtemp(prefix=f"rayrnn-{purpose}-", dir=PLACE)


@contextmanager
def run_folder() -> Iterator[str]:
    """A folder that lives as long as this block; first, those of programs that were killed are removed."""
    _sweep()
    folder = make_folder("run")
    try:
        with (Path(folder) / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    for folder in PLACE.glob("rayrnn-run-*"):
        try:
            if folder.stat().st_uid == os.getuid() and time.time() - folder.stat().st_mtime > YOUNG:
                _remove_unless_held(folder)
        except OSError:
            continue  # its owner removed it meanwhile, or holds the lock


def _remove_unless_held(folder: Path) -> None:
    """The lock goes with the program that held it, however it ended."""
    with (folder / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
