"""What `rayrnn up` remembers of the head it started on this machine, so that `down` ends that one and no other."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class LocalHead:
    """A Ray head on this machine.

    `folder` holds all that it writes; its processes carry the folder's name in their environment, and are known by it.
    """

    address: str
    folder: str
    dashboard: str | None
    #: seconds since 1970
    started: float


def load_head() -> LocalHead | None:
    """The head that `up` recorded, alive or not; None when there is no record (or only a broken one)."""
    try:
        return LocalHead(**json.loads(_record().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def save_head(head: LocalHead) -> None:
    """Record a head; the record is complete or absent."""
    draft = _record().with_suffix(".draft")
    draft.write_text(json.dumps(asdict(head)), encoding="utf-8")
    os.replace(draft, _record())


def forget_head() -> None:
    """Remove the record."""
    _record().unlink(missing_ok=True)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold the lock that keeps two `up` or `down` of the same user apart."""
    state_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    with (state_folder() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cluster_folder(name: str) -> Path:
    """What this machine remembers of a cluster of several hosts that it has brought up."""
    return state_folder() / "clusters" / name


def _record() -> Path:
    return state_folder() / "head.json"


def state_folder() -> Path:
    """The XDG base directory for state, as freedesktop.org names it."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "rayrnn"
