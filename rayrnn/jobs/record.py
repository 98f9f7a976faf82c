"""What a run directory on this machine remembers of the job that fills it: cluster.json.

A run directory may be somebody else's, and a cluster file says what is executed (ssh_proxy_command). So the directory
does not name the file: this machine notes below XDG_STATE_HOME which one its user began a job with, and where it did
not, the user names one. What cluster.json says is checked too: it becomes part of commands on the head.
"""

import json
import re
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from rayrnn.checkpoints import replace_durably
from rayrnn.cluster.state import state_folder
from rayrnn.errors import UsageError
from rayrnn.layout import RECORD
from rayrnn.run import Run

_JOB = re.compile(r"[A-Za-z0-9._-]+-[0-9a-f]{8}")


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
        _note(self.job).write_text(str(file.absolute()), encoding="utf-8")

    def file(self) -> Path | None:
        """The cluster file that the job was begun or found with from this machine; None where it was not."""
        try:
            return Path(_note(self.job).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None


def load_record(run: Run) -> Record | None:
    """None where the run was trained here.

    Raises:
        UsageError: the file is damaged, or names what no job and no run directory is called.
    """
    path = run.path / RECORD
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        record = Record(job=values["job"], out=values["out"])
        is_sound = bool(_JOB.fullmatch(record.job)) and _is_below(record.out)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} cannot be used: {error}") from None
    if not is_sound:
        raise UsageError(f"{path} cannot be used: it names the job {record.job!r} and its directory {record.out!r}")
    return record


def new_job(name: str) -> str:
    """A name for a job's folder that no other has."""
    return f"{re.sub(r'[^A-Za-z0-9._-]', '-', name)}-{secrets.token_hex(4)}"


def place_there(path: Path) -> str:
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
