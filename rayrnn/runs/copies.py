"""Where a run is while it trains: in its own directory, or in one of this machine that a mirror copies to a store."""

import hashlib
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from rayrnn.cluster.local_head import state_folder
from rayrnn.durable import make_folder, replace_durably, sync_folder
from rayrnn.errors import RayrnnError, RunError, UsageError
from rayrnn.recipe import Recipe
from rayrnn.runs.checkpoints import MANIFEST, newest_round, round_of
from rayrnn.runs.directory import ALREADY_THERE, Run, check_new, resumable, taken
from rayrnn.runs.layout import CHECKPOINTS, FETCHED, IDENTITY, LOCK, RECIPE, UNSENT, belongs
from rayrnn.runs.lease import Lease, Unsent
from rayrnn.runs.mirror import Mirror
from rayrnn.runs.store import Store, is_address
from rayrnn.wording import path_of


@contextmanager
def landed(
    out: str | Path, recipe: Recipe, *, resume: bool, warn: Callable[[str], None], take_over: bool = False
) -> Iterator[Run]:
    """The run to train: new, or one to go on with; nobody else trains it meanwhile.

    A run at an address (s3://, gs://, hdfs://) is trained in a directory below XDG_STATE_HOME, which a mirror copies to
    the store as it changes; at the end the store has all of it. Should the address become another machine's, the run's
    `failure` says so.

    Args:
        resume: go on with what is there, if anything is.
        warn: takes what the user must know about the store.
        take_over: go on also where another machine trains the run; that one stops.

    Raises:
        UsageError: `out` holds a run (without `resume`) or one of another recipe, cannot be written, or another process
            or machine trains it.
        RunError: the store could not be written at the end, or another machine has taken the run over.
    """
    if not is_address(out):
        if take_over:
            raise UsageError(f"--take-over is for a run in a store (s3://, gs://, hdfs://), and {out} is a directory")
        with taken(path_of(out), recipe, resume=resume) as run:
            yield run
        return
    store = Store(str(out))
    store.check_bucket()
    run = Run(folder_for(store.address), address=store.address)
    try:
        make_folder(run.path)
    except OSError as error:
        raise RunError(
            f"the run cannot be kept in {run.path} on its way to {store.address}: {error.strerror}"
        ) from None
    with run.held(), _owned(run, store, recipe, resume=resume, take_over=take_over, warn=warn) as lease:
        mirror = Mirror(run, store, warn, lease)
        try:
            yield run
        except BaseException as first:
            try:
                mirror.close()
                (run.path / UNSENT).unlink()
            except RayrnnError as error:
                if error is not first:
                    warn(str(error))
            raise
        mirror.close()
        (run.path / UNSENT).unlink()


@contextmanager
def _owned(
    run: Run, store: Store, recipe: Recipe, *, resume: bool, take_over: bool, warn: Callable[[str], None]
) -> Iterator[Lease]:
    """The lease of the address, and the directory as the run goes on from it."""
    _check_free(run, store, resume=resume)
    lease = Lease(store, run.path, take_over=take_over, say=warn, lost=run.fail)
    try:
        sent = _prepare(run, store, recipe, lease, resume=resume)
        Unsent(lease.attempt, sent).save(run.path)
    except BaseException:
        with suppress(UsageError):
            lease.give_back()
        raise
    try:
        yield lease
    finally:
        with suppress(UsageError):
            lease.release()


def folder_for(address: str) -> Path:
    """The directory of this machine that stands for an address."""
    name = f"{PurePosixPath(address).name}-{hashlib.sha256(address.encode()).hexdigest()[:12]}"
    return state_folder() / "runs" / name


def _check_free(run: Run, store: Store, *, resume: bool) -> None:
    """See that the address is free, or holds the run that is meant; changes nothing.

    Raises:
        UsageError: there is a run, and it is not to go on; or files that would be taken for the run's, and overwritten,
            are not known to be.
    """
    there = set(filter(belongs, store.sizes()))
    if RECIPE in there:
        if not resume:
            raise UsageError(f"{store.address} holds a run already: {ALREADY_THERE}")
        return
    here, other = _identities(run, store, there)
    if there and not (resume and here and here == other):
        raise UsageError(
            f"{store.address} holds no run, but files with names of a run's ({', '.join(sorted(there)[:3])}): "
            "move them away, or choose another --out"
        )


def _prepare(run: Run, store: Store, recipe: Recipe, lease: Lease, *, resume: bool) -> int:
    """Make the directory what the run goes on from: empty, what it is, or what the store has.

    Then every file at the address that has a name of a run's is one of this run.

    Returns:
        the newest checkpoint that the store has of it; -1 for none.
    """
    _check_free(run, store, resume=resume)  # once more: the owner before may have just ended
    there = set(filter(belongs, store.sizes()))
    unsent = Unsent.load(run.path)
    if not resume:
        if unsent and newest_round(run.checkpoints) >= 0:
            raise UsageError(
                f"{run.path} has what did not reach {store.address}: continue it with --resume, or remove it"
            )
        _empty(run)
    elif RECIPE in there and not (unsent and _is_ahead(run, store, there, unsent, lease)):
        _replace(run, store, there, keep_newer=unsent is not None)
    if resume and (run.path / RECIPE).exists():
        resumable(run.path, recipe, address=store.address)
    else:
        check_new(run.path)
    if not (run.path / IDENTITY).exists():
        replace_durably(run.path / IDENTITY, uuid.uuid4().hex.encode())
    make_folder(run.checkpoints)
    return _newest_there(there)


def _is_ahead(run: Run, store: Store, there: set[str], unsent: Unsent, lease: Lease) -> bool:
    """Whether the directory, of which the store may lack something, is what the run goes on from.

    Raises:
        UsageError: what is here and what the store has have grown apart, and one of them would be lost.
    """
    here, newest = newest_round(run.checkpoints), _newest_there(there)
    if here < 0:
        return False
    _check_same(run, store, there)
    last = lease.previous.attempt if lease.previous else unsent.attempt
    if unsent.attempt and last != unsent.attempt:  # somebody else was there since
        if here > unsent.sent and newest > unsent.sent:
            raise UsageError(
                f"{run.path} has learned up to round {here:,}, and {store.address} took up to {max(unsent.sent, 0):,}; "
                f"another machine has trained there up to round {newest:,} meanwhile. To go on with what the store "
                "has, move that directory away; to go on with what is here, give its path as --out"
            )
        return here > unsent.sent
    return here >= newest


def _identities(run: Run, store: Store, there: set[str]) -> tuple[bytes | None, bytes | None]:
    """Which run this machine has, and which the store: another may be begun at the same address elsewhere."""
    identity = run.path / IDENTITY
    return (
        identity.read_bytes() if identity.exists() else None,
        store.read(IDENTITY) if IDENTITY in there else None,
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


def _empty(run: Run, *, but: str = "") -> None:
    # first of all that the store lacks something: what is half emptied is fetched anew
    for path in sorted(run.path.iterdir(), key=lambda path: path.name != UNSENT):
        if path.name in (LOCK, but):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _replace(run: Run, store: Store, there: set[str], *, keep_newer: bool) -> None:
    """Have the directory hold what the store has of the run; until all of that is here, nothing is taken away.

    Args:
        keep_newer: than the newest checkpoint that the store has whole; then the directory stays as it is.
    """
    fetched = run.path / FETCHED
    shutil.rmtree(fetched, ignore_errors=True)
    for name in there:
        path = fetched / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.read(name))
    if keep_newer and newest_round(run.checkpoints) > newest_round(fetched / CHECKPOINTS):
        shutil.rmtree(fetched)
        return
    _empty(run, but=FETCHED)
    for path in sorted(fetched.iterdir(), key=lambda path: path.name == RECIPE):  # without it, it is no run yet
        path.rename(run.path / path.name)
    sync_folder(run.path)
    fetched.rmdir()


def _newest_there(there: set[str]) -> int:
    paths = [PurePosixPath(name) for name in there]
    return max((round_of(path.parent.name) for path in paths if path.name == MANIFEST), default=-1)
