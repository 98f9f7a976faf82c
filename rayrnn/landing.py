"""Where a run is while it trains: in its own directory, or in one of this machine that stands for an address."""

import hashlib
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from rayrnn.checkpoints import MANIFEST, newest_round, replace_durably, round_of
from rayrnn.cluster.state import state_folder
from rayrnn.errors import RayrnnError, UsageError
from rayrnn.layout import IDENTITY, LOCK, RECIPE, UNSENT, belongs
from rayrnn.mirror import Mirror
from rayrnn.recipe import Recipe
from rayrnn.run import Run, create_run, resumable
from rayrnn.store import Store, is_address


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
        path = Path(out)
        run = resumable(path, recipe) if resume and (path / RECIPE).exists() else create_run(path)
        with run.held():
            yield run
        return
    store = Store(str(out))
    store.check_bucket()
    run = Run(folder_for(store.address), address=store.address)
    run.path.mkdir(parents=True, exist_ok=True)
    with run.held():
        _prepare(run, store, recipe, resume=resume)
        replace_durably(run.path / UNSENT, b"")
        mirror = Mirror(run.path, store, warn)
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
