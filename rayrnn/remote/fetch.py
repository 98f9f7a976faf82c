"""Brings a run directory from the head to this machine: newest checkpoints while it trains, everything at the end.

What the directory remembers of the job that fills it is cluster.json.
"""

import json
import re
import secrets
import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from rayrnn.background import NewestOnly
from rayrnn.cluster.local_head import state_folder
from rayrnn.cluster.on_host.facts import RUNS
from rayrnn.cluster.ssh import Head
from rayrnn.durable import replace_durably
from rayrnn.errors import ClusterError, RunError
from rayrnn.remote.job import WORK
from rayrnn.runs.checkpoints import read_checkpoint, remove_old, round_of, unfinished_checkpoint
from rayrnn.runs.directory import Run
from rayrnn.runs.layout import RECIPE, RECORD, SCREEN
from rayrnn.runs.schema import StoredRecord, read_stored

#: what each side has its own of, what is not finished, and checkpoints, which come whole or not at all
OWN = (f"/{RECIPE}", f"/{RECORD}", f"/{SCREEN}", ".*", "/ray-train", "/checkpoints")


@dataclass(frozen=True)
class Record:
    """Where a run is trained."""

    #: the name of the job's folder on the head; `--resume` goes on in the same one
    job: str
    #: the run directory as the head sees it, from the job's working directory
    out: str

    def save(self, run: Run, file: Path) -> None:
        """Write it down in the run directory; and for this machine alone, of which cluster file the job is."""
        replace_durably(run.path / RECORD, json.dumps(asdict(self), indent=1).encode())
        _note(self.job).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_durably(_note(self.job), str(file.absolute()).encode())

    def file(self) -> Path | None:
        """The cluster file that the job was begun or found with from this machine; None where it was not."""
        try:
            return Path(_note(self.job).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None


def load_record(run: Run) -> Record | None:
    """None where the run was trained here.

    Raises:
        RunError: the file is damaged, or names what no job and no run directory is called.
    """
    try:
        record = Record(**read_stored(run.path, RECORD, StoredRecord).model_dump())
    except FileNotFoundError:
        return None
    if not _is_below(record.out):
        raise RunError(f'{run.path / RECORD} cannot be used: key "out" is {record.out!r}, no directory of the job\'s')
    return record


def new_job_name(name: str) -> str:
    """A name for a job's folder that no other has."""
    return f"{re.sub(r'[^A-Za-z0-9._-]', '-', name)}-{secrets.token_hex(4)}"


def path_on_head(path: Path) -> str:
    """The run directory as the head sees it: where it is here, if that is below the current directory."""
    here = Path.cwd()
    full = (here / path).resolve()
    return full.relative_to(here.resolve()).as_posix() if here.resolve() in full.parents else f"runs/{full.name}"


def _note(job: str) -> Path:
    return state_folder() / "jobs" / job


def _is_below(out: str) -> bool:
    """Whether this names a directory below the job's own, no address and no way out."""
    path = PurePosixPath(out)
    return path.parts != () and not path.is_absolute() and ".." not in path.parts and ":/" not in out


def _is_whole(checkpoint: Path) -> bool:
    """Whether there is a checkpoint that verifies: one that is damaged here hides no good one that is elsewhere."""
    try:
        read_checkpoint(checkpoint)
    except RunError:
        return False
    return True


class Fetcher:
    """One run's way home; a thread fetches checkpoints, and where one follows another closely, the newer.

    Args:
        warn: takes what the user must know.
    """

    def __init__(self, head: Head, record: Record, run: Run, warn: Callable[[str], None]) -> None:
        self._head = head
        self._there = f"{RUNS}/{record.job}/{WORK}/{PurePosixPath(record.out)}"
        self._run = run
        self._warn = warn
        # a link that breaks is for the next checkpoint, or the end of the run; any other error ends the fetching
        self._fetcher = NewestOnly(self._fetch, name="fetcher", on_death=self._say_dead)

    def want(self, checkpoint: str) -> None:
        """Fetch this checkpoint soon."""
        if round_of(checkpoint) >= 0:  # screen.jsonl may be somebody else's
            self._fetcher.put(checkpoint)

    def close(self) -> None:
        """Finish what is being fetched."""
        self._fetcher.close()

    def fetch_all(self) -> None:
        """Everything that the run directory has there and lacks here.

        Raises:
            ClusterError: it cannot be copied.
        """
        self._head.fetch(self._there, self._run.path, exclude=OWN)
        for name in self._head.run(f"ls {shlex.quote(self._there)}/checkpoints 2>/dev/null || true").split():
            if round_of(name) >= 0 and not _is_whole(self._run.checkpoints / name):
                self._fetch_checkpoint(name)
        remove_old(self._run.checkpoints)

    def send_back(self) -> None:
        """What is newer here, or only here: to go on from, where the head has lost it."""
        self._head.run(f"mkdir -p {shlex.quote(self._there)}")
        damaged = [path.name for path in self._run.checkpoints.glob("round-*") if not _is_whole(path)]
        self._head.update(
            self._run.path, self._there, exclude=(*OWN[:-1], *(f"/checkpoints/{name}" for name in damaged))
        )

    def _fetch(self, checkpoint: str) -> None:
        with suppress(ClusterError):
            self._head.fetch(self._there, self._run.path, exclude=OWN)
            self._fetch_checkpoint(checkpoint)
            remove_old(self._run.checkpoints)

    def _say_dead(self, error: BaseException) -> None:
        self._warn(f"no checkpoint is fetched any more until the run ends: {type(error).__name__}: {error}")

    def _fetch_checkpoint(self, name: str) -> None:
        """Whole or not at all: the head removes old ones, perhaps while they are copied."""
        with suppress(RunError), unfinished_checkpoint(self._run.checkpoints, name) as unfinished:
            self._head.fetch(f"{self._there}/checkpoints/{name}", unfinished)
            read_checkpoint(unfinished)  # fails where a newer one has taken its place
