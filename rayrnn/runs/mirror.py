"""A run directory's copy in a store, made by a thread while the run trains."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from stat import S_ISREG

from rayrnn.errors import RunError, UsageError
from rayrnn.runs.checkpoints import MANIFEST, round_of
from rayrnn.runs.directory import Run
from rayrnn.runs.layout import RECIPE, belongs
from rayrnn.runs.lease import Lease, Taken, Unsent
from rayrnn.runs.store import Store

#: between two copies of what grows without a word, logs and metrics, unless a checkpoint is due
GROWING_SECONDS = 5.0
#: for which a look at who owns the address is good, but for a manifest; less than a new owner waits before it writes
OWNED_SECONDS = 0.5
#: between two attempts at the last copies
RETRY_SECONDS = 0.5
#: for the last copies, at the end of the run
PATIENCE_SECONDS = 60.0


#: of a file: bytes, nanoseconds, inode; any change of content changes it
Mark = tuple[int, int, int]


class Mirror:
    """One run directory's copy in a store, made by a thread that the run tells of new files.

    A checkpoint's manifest travels after its files and after all that the checkpoint refers to, and is taken away
    before them: a checkpoint with a manifest is complete there too. Training goes on while the store cannot be written.

    Only what belongs to a run (rayrnn/runs/layout.py) travels, first of all its recipe, and only checkpoints are taken
    away: whatever else lies at the address, or below it, is somebody else's. Nothing is written or taken away once the
    address is another attempt's.

    Args:
        store: what it has by a name of a run's is of this run.
        warn: takes what the user must know, once for each time that the store ceases to answer.
        lease: this attempt's hold on the address; without it nobody else writes there.
    """

    def __init__(self, run: Run, store: Store, warn: Callable[[str], None], lease: Lease | None = None) -> None:
        self._folder = run.path
        self._lease = lease
        #: the address is another attempt's
        self._taken: Taken | None = None
        self._store = store
        self._warn = warn
        #: why the last attempt failed; empty when it did not
        self._failed = ""
        #: the store has everything, and nothing follows
        self._complete = False
        self._growing_sent = 0.0
        #: when the address was last seen to be this attempt's
        self._owned = float("-inf")
        self._patience = 0.0
        #: what the store has, with the marks of the local files that it was copied from
        self._sent: dict[str, Mark | None] = dict.fromkeys(filter(belongs, store.sizes()))
        self._recognise()
        self._ending = False
        #: there is something to copy, perhaps
        self._news = threading.Event()
        self._news.set()
        run.tell(self._news.set)
        # it never ends of an error, which is told of and tried again; `close` fails unless all was copied
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
        self._thread.start()

    def close(self, *, patience: float | None = None) -> None:
        """Copy what is left, and see that the store has all that the directory has.

        Args:
            patience: seconds; without it PATIENCE_SECONDS.

        Raises:
            RunError: it has not; says why, and names the directory that has everything.
        """
        self._patience = PATIENCE_SECONDS if patience is None else patience
        self._ending = True
        self._news.set()
        self._thread.join(self._patience + RETRY_SECONDS)
        if self._taken is not None:
            raise self._taken
        if not self._complete:
            raise RunError(
                f"{self._store.address} does not have the newest of this run ({self._failed or 'it does not answer'}); "
                f"all of it is in {self._folder}: the same command with --resume brings it there"
            )

    def _work(self) -> None:
        while not self._ending and not self._taken:
            self._news.wait(GROWING_SECONDS)
            self._news.clear()
            if not self._ending:
                self._succeeds(self._copy)
        give_up = time.monotonic() + self._patience
        while not self._taken:
            self._complete = self._succeeds(self._copy_all)
            if self._complete or time.monotonic() > give_up:
                return
            time.sleep(RETRY_SECONDS)

    def _succeeds(self, attempt: Callable[[], None]) -> bool:
        """Whatever fails is told of, and tried again: without this thread nothing would be copied any more."""
        try:
            attempt()
        except Taken as taken:
            self._taken = taken
            return False
        except Exception as error:
            told = isinstance(error, UsageError)
            reason = str(error) if told else f"the copy failed, {type(error).__name__}: {error}"
            if not self._failed:
                self._warn(f"{reason}; training goes on")
            self._failed = reason
            return False
        if self._failed:
            self._failed = ""
            self._warn(f"{self._store.address} takes the run again")
        return True

    def _copy_all(self) -> None:
        """
        Raises:
            UsageError: the store lacks something of what is there now, though it has not refused it.
        """
        for _ in range(2):  # who had the address before may have written once more, with what it knew a moment ago
            self._copy(everything=True)
            there = self._store.sizes()
            lacking = sorted(name for name, (size, *_) in self._marks().items() if there.get(name) != size)
            if not lacking:
                return
            self._sent = {name: mark for name, mark in self._sent.items() if name not in lacking}
        raise UsageError(f"{self._store.address} lacks {', '.join(lacking[:3])}")

    def _copy(self, *, everything: bool = False) -> None:
        """Bring the store to what the directory is now; what changes meanwhile is for the next time."""
        marks = self._marks()
        if not marks:
            return
        changed = [name for name, mark in marks.items() if self._sent.get(name) != mark]
        due = everything or any(_is_manifest(name) for name in changed)
        if not due and time.monotonic() < self._growing_sent + GROWING_SECONDS:
            changed = [name for name in changed if not _grows(name)]
        else:
            self._growing_sent = time.monotonic()
        for name in sorted(changed, key=lambda name: name != RECIPE):
            if not _checkpoint(name):
                self._send({name: self._read(name)}, marks)
        for folder in sorted({_checkpoint(name) for name in changed} - {""}):
            self._send_checkpoint(folder, marks)
        self._remove_checkpoints(set(self._sent) - set(marks))

    def _send_checkpoint(self, folder: str, marks: dict[str, Mark]) -> None:
        """All of it is read first: however long the store takes, what was begun is finished."""
        files = {name: self._read(name) for name in marks if _checkpoint(name) == folder}
        if any(content is None for content in files.values()):
            return  # it has gone meanwhile
        self._withdraw({folder})
        self._take_away({name for name in self._sent if _checkpoint(name) == folder and name not in files})
        self._send(dict(sorted(files.items(), key=lambda item: _is_manifest(item[0]))), marks)
        self._note_sent(round_of(PurePosixPath(folder).name))

    def _note_sent(self, round_number: int) -> None:
        """Remember here that the store has it: what another machine learns from it loses nothing of this one's."""
        if self._lease is not None:
            with suppress(OSError):  # a full disk: then this machine asks before it gives anything up
                Unsent(self._lease.attempt, round_number).save(self._folder)

    def _send(self, files: dict[str, bytes | None], marks: dict[str, Mark]) -> None:
        for name, content in files.items():
            if content is not None:
                self._own(now=_is_manifest(name))
                self._store.write(name, content)
                self._sent[name] = marks[name]

    def _read(self, name: str) -> bytes | None:
        """None where the file has gone meanwhile."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"{self._folder / name} cannot be read: {error}") from None

    def _withdraw(self, folders: set[str]) -> None:
        """A checkpoint that changes is none, until it is complete again."""
        self._take_away({f"{folder}/{MANIFEST}" for folder in folders})

    def _take_away(self, names: set[str]) -> None:
        for name in names & self._sent.keys():
            self._own(now=_is_manifest(name))
            self._store.remove(name)
            del self._sent[name]

    def _own(self, *, now: bool) -> None:
        """See that the address is still this attempt's; what a look has told may be a second old, unless `now`.

        Raises:
            Taken: it is not.
        """
        if self._lease is not None and (now or time.monotonic() > self._owned + OWNED_SECONDS):
            self._lease.check()
            self._owned = time.monotonic()

    def _remove_checkpoints(self, names: set[str]) -> None:
        """What the directory has no more; a checkpoint goes only when the store has a newer one."""
        complete = [_checkpoint(name) for name in self._sent if _is_manifest(name)]
        newest = max(complete, key=lambda folder: round_of(PurePosixPath(folder).name), default="")
        gone = {name for name in names if _checkpoint(name) not in ("", newest)}
        folders = {_checkpoint(name) for name in gone}
        self._withdraw(folders)
        self._take_away(gone)
        for folder in folders - {_checkpoint(name) for name in self._sent}:
            self._store.remove_empty_folder(folder)

    def _recognise(self) -> None:
        """Checkpoints that the store has already, to the byte of their manifests, need not travel again."""
        marks = self._marks()
        for manifest in filter(_is_manifest, set(marks) & set(self._sent)):
            if self._store.read(manifest) == (self._folder / manifest).read_bytes():
                self._sent |= {name: marks[name] for name in marks if _checkpoint(name) == _checkpoint(manifest)}

    def _marks(self) -> dict[str, Mark]:
        """Every file of the directory that belongs to the run, links left out.

        None before there is a recipe: it is no run yet.
        """
        marks = {}
        for place, _, files in os.walk(self._folder, onerror=_raise_unless_gone):
            for path in (Path(place, file) for file in files):
                name = path.relative_to(self._folder).as_posix()
                with suppress(FileNotFoundError):  # it has gone meanwhile
                    if belongs(name) and S_ISREG((found := path.lstat()).st_mode):
                        marks[name] = (found.st_size, found.st_mtime_ns, found.st_ino)
        return marks if RECIPE in marks else {}


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _checkpoint(name: str) -> str:
    """The checkpoint that one of the run's files belongs to, as `checkpoints/round-000120`; empty for other files."""
    return name.rpartition("/")[0]


def _is_manifest(name: str) -> bool:
    return bool(_checkpoint(name)) and name.endswith(f"/{MANIFEST}")


def _grows(name: str) -> bool:
    return name.endswith((".jsonl", ".log")) or "tfevents" in name
