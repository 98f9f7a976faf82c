"""Where a run is while it trains: in its own directory, or in one of this machine that a mirror copies to a store."""

import hashlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from stat import S_ISREG

from rayrnn.cluster.local_head import state_folder
from rayrnn.durable import replace_durably
from rayrnn.errors import RayrnnError, RunError, UsageError
from rayrnn.recipe import Recipe
from rayrnn.runs.checkpoints import MANIFEST, newest_round, round_of
from rayrnn.runs.directory import Run, resumable, taken
from rayrnn.runs.layout import IDENTITY, LOCK, RECIPE, UNSENT, belongs
from rayrnn.runs.store import Store, is_address
from rayrnn.wording import path_of

#: between two copies of what grows without a word, logs and metrics, unless a checkpoint is due
GROWING_SECONDS = 5.0
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
    away: whatever else lies at the address, or below it, is somebody else's.

    Args:
        store: what it has by a name of a run's is of this run.
        warn: takes what the user must know, once for each time that the store ceases to answer.
    """

    def __init__(self, run: Run, store: Store, warn: Callable[[str], None]) -> None:
        self._folder = run.path
        self._store = store
        self._warn = warn
        #: why the last attempt failed; empty when it did not
        self._failed = ""
        #: the store has everything, and nothing follows
        self._complete = False
        self._growing_sent = 0.0
        self._patience = PATIENCE_SECONDS
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

    def close(self, *, patience: float = PATIENCE_SECONDS) -> None:
        """Copy what is left, and see that the store has all that the directory has.

        Raises:
            RunError: it has not; says why, and names the directory that has everything.
        """
        self._patience = patience
        self._ending = True
        self._news.set()
        self._thread.join(patience + RETRY_SECONDS)
        if not self._complete:
            raise RunError(
                f"{self._store.address} does not have the newest of this run ({self._failed or 'it does not answer'}); "
                f"all of it is in {self._folder}: the same command with --resume brings it there"
            )

    def _work(self) -> None:
        while not self._ending:
            self._news.wait(GROWING_SECONDS)
            self._news.clear()
            if not self._ending:
                self._succeeds(self._copy)
        give_up = time.monotonic() + self._patience
        while not (complete := self._succeeds(self._copy_all)) and time.monotonic() < give_up:
            time.sleep(RETRY_SECONDS)
        self._complete = complete

    def _succeeds(self, attempt: Callable[[], None]) -> bool:
        """Whatever fails is told of, and tried again: without this thread nothing would be copied any more."""
        try:
            attempt()
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
        self._copy(everything=True)
        there = self._store.sizes()
        lacking = sorted(name for name, (size, *_) in self._marks().items() if there.get(name) != size)
        if lacking:
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

    def _send(self, files: dict[str, bytes | None], marks: dict[str, Mark]) -> None:
        for name, content in files.items():
            if content is not None:
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
            self._store.remove(name)
            del self._sent[name]

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


@contextmanager
def landed(out: str | Path, recipe: Recipe, *, resume: bool, warn: Callable[[str], None]) -> Iterator[Run]:
    """The run to train: new, or one to go on with; nobody else trains it meanwhile.

    A run at an address (s3://, gs://, hdfs://) is trained in a directory below XDG_STATE_HOME, which a mirror copies to
    the store as it changes; at the end the store has all of it.

    Args:
        resume: go on with what is there, if anything is.
        warn: takes what the user must know about the store.

    Raises:
        UsageError: `out` holds a run (without `resume`) or one of another recipe, cannot be written, or another process
            trains it.
        RunError: the store could not be written at the end.
    """
    if not is_address(out):
        with taken(path_of(out), recipe, resume=resume) as run:
            yield run
        return
    store = Store(str(out))
    store.check_bucket()
    run = Run(folder_for(store.address), address=store.address)
    run.path.mkdir(parents=True, exist_ok=True)
    with run.held():
        _prepare(run, store, recipe, resume=resume)
        replace_durably(run.path / UNSENT, b"")
        mirror = Mirror(run, store, warn)
        try:
            yield run
        except BaseException:
            # the first error is the one to tell of
            try:
                mirror.close()
                (run.path / UNSENT).unlink()
            except RayrnnError as error:
                warn(str(error))
            raise
        mirror.close()
        (run.path / UNSENT).unlink()


def folder_for(address: str) -> Path:
    """The directory of this machine that stands for an address."""
    name = f"{PurePosixPath(address).name}-{hashlib.sha256(address.encode()).hexdigest()[:12]}"
    return state_folder() / "runs" / name


def _prepare(run: Run, store: Store, recipe: Recipe, *, resume: bool) -> None:
    """Make the directory what the run goes on from: empty, what it is, or what the store has.

    Then every file at the address that has a name of a run's is one of this run.
    """
    there = set(filter(belongs, store.sizes()))
    if RECIPE not in there:
        _check_free(run, store, there, resume=resume)
    # the newest checkpoint that may be only here; -1 where there is none
    unsent = newest_round(run.checkpoints) if (run.path / UNSENT).exists() else -1
    if not resume:
        if RECIPE in there:
            raise UsageError(f"{store.address} holds a run already: continue it with --resume, or choose another --out")
        if unsent >= 0:
            raise UsageError(
                f"{run.path} has what did not reach {store.address}: continue it with --resume, or remove it"
            )
        _empty(run)
    elif RECIPE in there and unsent >= max(0, _newest_there(there)):
        _check_same(run, store, there)
    elif RECIPE in there:
        _empty(run)
        _fetch(run, store, there)
    if resume and (run.path / RECIPE).exists():
        resumable(run.path, recipe, address=store.address)
    if not (run.path / IDENTITY).exists():
        replace_durably(run.path / IDENTITY, uuid.uuid4().hex.encode())
    run.checkpoints.mkdir(exist_ok=True)


def _check_free(run: Run, store: Store, there: set[str], *, resume: bool) -> None:
    """
    Raises:
        UsageError: files that would be taken for the run's, and overwritten, are not known to be.
    """
    here, other = _identities(run, store, there)
    if there and not (resume and here and here == other):
        raise UsageError(
            f"{store.address} holds no run, but files with names of a run's ({', '.join(sorted(there)[:3])}): "
            "move them away, or choose another --out"
        )


def _check_same(run: Run, store: Store, there: set[str]) -> None:
    """
    Raises:
        UsageError: what is here is of another run than what the store has, and one of them would be lost.
    """
    here, other = _identities(run, store, there)
    if here and other and here != other:
        raise UsageError(
            f"{run.path} has what did not reach {store.address}, where another run was begun meanwhile: "
            "move one of the two away"
        )


def _identities(run: Run, store: Store, there: set[str]) -> tuple[bytes | None, bytes | None]:
    """Which run this machine has, and which the store: another may be begun at the same address elsewhere."""
    identity = run.path / IDENTITY
    return (
        identity.read_bytes() if identity.exists() else None,
        store.read(IDENTITY) if IDENTITY in there else None,
    )


def _empty(run: Run) -> None:
    for path in run.path.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _fetch(run: Run, store: Store, there: set[str]) -> None:
    """Copy what the store has of the run."""
    for name in there:
        path = run.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.read(name))


def _newest_there(there: set[str]) -> int:
    paths = [PurePosixPath(name) for name in there]
    return max((round_of(path.parent.name) for path in paths if path.name == MANIFEST), default=-1)
