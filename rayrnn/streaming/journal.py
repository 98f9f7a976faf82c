"""What was answered, and where every sequence stands: one SQLite database beside the answers.

A file's answers are written to a draft; then one transaction takes the file, and the states after it, into the journal;
then the draft is renamed. A process that dies before the transaction has answered nothing; one that dies after it has
left a draft, which is put in its place when the journal is opened again: every file is answered once.
"""

import errno
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rayrnn.durable import make_folder, sync_folder, write_durably
from rayrnn.errors import RunError, UsageError
from rayrnn.streaming.arrivals import Arrival

FOLDER = ".rayrnn-follow"
VERSION = "1"
_DRAFT = "draft-"
_TABLES = """
    CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS files (
        number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, modified INTEGER NOT NULL,
        answers TEXT UNIQUE, sequences INTEGER NOT NULL, steps INTEGER NOT NULL, told TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS sequences (
        key TEXT PRIMARY KEY, steps INTEGER NOT NULL, newest TEXT, state BLOB NOT NULL
    );
"""
#: in its place, so that the database does not grow with the files
_STAND = """
    INSERT INTO sequences VALUES (?, ?, ?, ?) ON CONFLICT (key)
    DO UPDATE SET steps = excluded.steps, newest = excluded.newest, state = excluded.state
"""


@dataclass(frozen=True)
class Carried:
    """What is known of a sequence after its steps of some file."""

    #: that were read
    steps: int
    #: the newest place of data.order_by, as text; None where steps have none
    newest: str | None
    #: what the network carries on
    state: bytes


@dataclass(frozen=True)
class Entry:
    """What the journal says of a file."""

    stamp: tuple[int, int]
    #: whether it has answers; else it could not be read
    is_answered: bool


class Journal:
    """The journal in a directory of answers, held by this process alone.

    Args:
        out: made where it is not there.
        origin: of the network; states of another one are never gone on from.
        forget: where they are of another one, let every sequence begin anew.

    Raises:
        UsageError: another process follows into this directory; or the states are of another network.
        RunError: the journal cannot be read or written.
    """

    def __init__(self, out: Path, origin: str, *, forget: bool = False) -> None:
        self.out, self.folder = out, out / FOLDER
        self._path = self.folder / "journal.sqlite"
        #: tells the journal from another in its place; nothing before it is open
        self._file: tuple[int, int] | None = None
        #: whether there were states of another network, which are gone
        self.has_forgotten = False
        try:
            make_folder(self.folder)
            self._lock = _locked(self.folder / "lock", out)
        except OSError as error:
            raise RunError(f"{self.folder} cannot be written: {error.strerror}") from None
        try:
            self._open()
            self._take_origin(origin, forget=forget)
            self._publish_pending()
            self.entries = self._read_entries()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process follow into the directory."""
        if hasattr(self, "_database"):
            self._database.close()
        self._lock.close()

    def about(self, name: str) -> str | None:
        """A word that was kept with `tell_about`."""
        with self._told():
            row = self._database.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def tell_about(self, name: str, value: str) -> None:
        """Keep a word."""
        with self._told():
            self._database.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, value))

    def carried(self, keys: Sequence[str]) -> dict[str, Carried]:
        """Where those of these sequences stand that have had steps before."""
        asked = "SELECT key, steps, newest, state FROM sequences WHERE key IN (SELECT value FROM json_each(?))"
        with self._told():
            rows = self._database.execute(asked, (json.dumps(list(keys)),)).fetchall()
        return {key: Carried(*rest) for key, *rest in rows}

    def commit(
        self,
        arrival: Arrival,
        answers: str,
        content: bytes,
        carried: dict[str, Carried],
        *,
        counts: tuple[int, int],
        told: Sequence[str] = (),
    ) -> Path:
        """Put a file's answers in their place, and its sequences' states into the journal: both, or none of it.

        Args:
            answers: their place below the directory of answers.
            counts: sequences and steps that were answered.

        Raises:
            UsageError: something is in that place.
            RunError: it cannot be written; nothing has changed.
        """
        place = self.out / answers
        self._check_there()
        _check_free(place)
        with self._told():
            number = self._database.execute("SELECT coalesce(max(number), 0) + 1 FROM files").fetchone()[0]
            draft = self.folder / f"{_DRAFT}{number}"
            draft.unlink(missing_ok=True)
            write_durably(draft, content)
            sync_folder(self.folder)
            with self._transaction() as database:
                database.execute("DELETE FROM files WHERE name = ?", (arrival.name,))
                row = (number, arrival.name, *arrival.stamp, answers, *counts, json.dumps(list(told)))
                database.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
                standing = ((key, one.steps, one.newest, one.state) for key, one in carried.items())
                database.executemany(_STAND, standing)
            self._publish(draft, place)
        self.entries[arrival.name] = Entry(arrival.stamp, is_answered=True)
        return place

    def commit_failed(self, arrival: Arrival, reason: str) -> None:
        """Note that a file cannot be answered, and why.

        Raises:
            RunError: it cannot be written.
        """
        self._check_there()
        with self._told(), self._transaction() as database:
            number = database.execute("SELECT coalesce(max(number), 0) + 1 FROM files").fetchone()[0]
            database.execute("DELETE FROM files WHERE name = ?", (arrival.name,))
            row = (number, arrival.name, *arrival.stamp, None, 0, 0, json.dumps([reason]))
            database.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        self.entries[arrival.name] = Entry(arrival.stamp, is_answered=False)

    def _open(self) -> None:
        path = self._path
        with self._told():
            # exclusive: the lock keeps others out, and no memory is shared, which network file systems cannot
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._database.executescript("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;")
            self._database.executescript("PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 67108864;")
            self._database.executescript(_TABLES)
            self._file = _file_at(path)
        version = self.about("version")
        if version is None:
            self.tell_about("version", VERSION)
        elif version != VERSION:
            raise RunError(
                f"{path} is of another version of rayrnn ({version}; due is {VERSION}): choose another --out"
            )

    def _take_origin(self, origin: str, *, forget: bool) -> None:
        known = self.about("model")
        if known is not None and known != origin:
            if not forget:
                raise UsageError(
                    f"{self.out}: the sequences there were followed with another model, and this one cannot go on from "
                    "its states: with --forget every sequence begins anew, and files that were answered stay so; or "
                    "choose another --out"
                )
            with self._told(), self._transaction() as database:
                database.execute("DELETE FROM sequences")
                database.execute("INSERT OR REPLACE INTO about VALUES ('model', ?)", (origin,))
            self.has_forgotten = True
        elif known is None:
            self.tell_about("model", origin)

    def _publish_pending(self) -> None:
        """Put the draft in its place that a process left which died right after the transaction; remove others."""
        with self._told():
            newest = self._database.execute("SELECT number, answers FROM files ORDER BY number DESC").fetchone()
            for draft in self.folder.glob(f"{_DRAFT}*"):
                if newest is not None and newest[1] is not None and draft.name == f"{_DRAFT}{newest[0]}":
                    _check_free(self.out / newest[1])
                    self._publish(draft, self.out / newest[1])
                else:
                    draft.unlink()

    def _publish(self, draft: Path, place: Path) -> None:
        make_folder(place.parent)
        draft.rename(place)
        sync_folder(place.parent)
        sync_folder(self.folder)

    def _read_entries(self) -> dict[str, Entry]:
        with self._told():
            rows = self._database.execute("SELECT name, size, modified, answers IS NOT NULL FROM files").fetchall()
        return {name: Entry((size, modified), bool(answered)) for name, size, modified, answered in rows}

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self._check_there()
            raise RunError(f"the journal in {self.folder} cannot be used: {error}") from None
        except OSError as error:
            self._check_there()
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            what = "make room there" if is_full else "see that it can be written, or choose another --out"
            raise RunError(f"answers cannot be written to {self.out}: {error.strerror}; {what}") from None

    def _check_there(self) -> None:
        """
        Raises:
            RunError: the journal that is open is not where it was: what is written to it would be lost.
        """
        if self._file is not None and _file_at(self._path) != self._file:
            raise RunError(
                f"{self.out} was removed or moved away while answers went there, and with it what was answered and "
                "where every sequence stands: put it back, or begin again, where every file is answered anew"
            )


def _file_at(path: Path) -> tuple[int, int] | None:
    """Tells a file from others; None where there is none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


def _check_free(place: Path) -> None:
    """
    Raises:
        UsageError: something is there.
    """
    if place.exists() or place.is_symlink():
        raise UsageError(f"{place} is there already, and is no answer of this following: remove it, or move it away")


def _locked(path: Path, out: Path) -> IO[Any]:
    """A file that this process alone holds; the system lets go when it dies, however it dies."""
    lock = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - open for as long as it is held
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read(20).strip() or "unknown"
        lock.close()
        raise UsageError(
            f"another process (number {holder}) follows into {out}: wait for its end, stop it, or choose another --out"
        ) from None
    except OSError:
        pass  # a file system without locks: nobody can be kept out
    os.ftruncate(lock.fileno(), 0)
    os.write(lock.fileno(), str(os.getpid()).encode())
    return lock
