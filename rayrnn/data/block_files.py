"""Blocks of sequences on a host's disk, for data that is larger than the object store: written once, mapped by all.

A row that is needed costs the pages that it lies in; the operating system keeps those that are used often, and takes
them away where memory is short. The directory goes with the last process that uses it, however that one ends: whoever
comes next takes away what nobody holds.
"""

import errno
import fcntl
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa

from rayrnn.errors import DataError

_LOCK = ".lock"


class BlockFiles:
    """The blocks of one dataset on this host. Used by one process; others of the host have the same directory.

    Args:
        name: of the dataset, unlike any other's.
    """

    def __init__(self, name: str) -> None:
        self._lock: int | None = None
        self._folder = _home() / name
        with _told(self._folder.parent):
            sweep(self._folder.parent)
            self._lock = _held(self._folder)

    def table(self, name: str, fetch: Callable[[], pa.Table]) -> pa.Table:
        """A block, mapped from its file; where it is not there yet it is fetched and written.

        Raises:
            DataError: there is no room for it.
        """
        path = self._folder / f"{name}.arrow"
        if not path.exists():
            with _alone(self._folder / f"{name}.lock"):
                if not path.exists():
                    _write(path, fetch())
        return _mapped(path)

    def close(self) -> None:
        """Leave the directory; the last one takes it away."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            _remove_unheld(self._folder)

    def __del__(self) -> None:
        with suppress(Exception):  # a process that ends has half of its modules
            self.close()


def take_away(name: str, *, patience: float = 10.0) -> None:
    """See that a dataset's directory on this host goes with the processes that are ending now.

    Args:
        patience: seconds; what is still used then goes with whoever uses it.
    """
    folder, give_up = _home() / name, time.monotonic() + patience
    while folder.exists() and time.monotonic() < give_up:
        _remove_unheld(folder)
        time.sleep(0.05)


def sweep(home: Path) -> None:
    """Take away what processes have left that were killed."""
    for folder in home.iterdir():
        _remove_unheld(folder)


def _home() -> Path:
    """This user's, where blocks lie."""
    # by the number: not every user has a name, and not every process of one hears the same
    home = Path(tempfile.gettempdir()) / f"rayrnn-blocks-{os.getuid()}"
    with _told(home):
        home.mkdir(mode=0o700, exist_ok=True)
    if home.stat().st_uid != os.getuid() or home.is_symlink():
        raise DataError(f"{home} is another user's: remove it, or set TMPDIR to a directory of your own")
    return home


@contextmanager
def _told(home: Path) -> Iterator[None]:
    """Turn what keeps blocks from lying in `home` into an error that says what to do."""
    try:
        yield
    except OSError as error:
        room = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "a directory that has some" if room else "a directory that can be written"
        raise DataError(
            f"the sequences do not fit into Ray's object store, and not into {home} either: "
            f"{error.strerror or error}; {'make room there (or inodes), or ' if room else ''}set TMPDIR to {what}"
        ) from None


def _write(path: Path, table: pa.Table) -> None:
    unfinished = path.with_suffix(".unfinished")
    with _told(path.parents[1]):
        try:
            with pa.OSFile(str(unfinished), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
            unfinished.rename(path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise


def _held(folder: Path) -> int:
    """A lock that keeps a directory; the directory is there."""
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):  # somebody swept between the two
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_SH)
            with suppress(FileNotFoundError):
                if os.stat(folder / _LOCK).st_ino == os.fstat(lock).st_ino:
                    return lock
            os.close(lock)


def _remove_unheld(folder: Path) -> None:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return  # one that is being made, or is gone
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(lock)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Inside, no other process of the host writes this block."""
    with _told(path.parents[1]):
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _mapped(path: Path) -> pa.Table:
    with _told(path.parents[1]), path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    # rows are taken here and there: what lies beside them is not read ahead
    content.madvise(mmap.MADV_RANDOM)
    return pa.ipc.open_file(pa.py_buffer(content)).read_all()
