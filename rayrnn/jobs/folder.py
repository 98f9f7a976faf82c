"""Where a job lies on the head, below the user's home.

~/.rayrnn/runs/<job>/
  order.json     what is to be done
  pid            of the process that does it
  work/          the user's directory in small: the data that travelled, and the run directory
  screen.jsonl   what the run has said (rayrnn/jobs/relay.py)
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: below the user's home on the head
RUNS = ".rayrnn/runs"
ORDER = "order.json"
PID = "pid"
WORK = "work"


@dataclass(frozen=True)
class Order:
    """What a job is to do."""

    #: as it is on the head: its local paths lie below the job's own directory
    recipe: dict[str, Any]
    #: the run directory, seen from there
    out: str
    resume: bool
    #: of rayrnn on the side that orders
    version: str

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Order":
        return cls(**json.loads(text))


def job_folder(job: str) -> Path:
    """On the head itself."""
    return Path.home() / RUNS / job
