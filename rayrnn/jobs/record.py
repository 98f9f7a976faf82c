"""What a run directory on this machine remembers of the job that fills it: cluster.json."""

import json
import re
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from rayrnn.checkpoints import replace_durably
from rayrnn.errors import UsageError
from rayrnn.layout import RECORD
from rayrnn.run import Run


@dataclass(frozen=True)
class Record:
    """Where a run is trained."""

    #: the cluster file, in full
    cluster: str
    #: the name of the job's folder on the head; `--resume` goes on in the same one
    job: str
    #: the run directory as the head sees it, from the job's working directory
    out: str

    def save(self, run: Run) -> None:
        replace_durably(run.path / RECORD, json.dumps(asdict(self), indent=1).encode())


def load_record(run: Run) -> Record | None:
    """None where the run was trained here.

    Raises:
        UsageError: the file is damaged.
    """
    path = run.path / RECORD
    if not path.exists():
        return None
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path} cannot be used: {error}; name the cluster file with --cluster") from None


def new_job(name: str) -> str:
    """A name for a job's folder that no other has."""
    return f"{re.sub(r'[^A-Za-z0-9._-]', '-', name)}-{secrets.token_hex(4)}"


def place_there(path: Path) -> str:
    """The run directory as the head sees it: where it is here, if that is below the current directory."""
    here = Path.cwd()
    full = (here / path).resolve()
    return full.relative_to(here.resolve()).as_posix() if here.resolve() in full.parents else f"runs/{full.name}"
