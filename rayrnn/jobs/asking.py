"""Questions to the head's desk (rayrnn/jobs/desk.py)."""

import json
import shlex
from pathlib import Path
from typing import Any

from rayrnn.errors import ClusterError, DataError, Interrupted, RayrnnError, RunError, UsageError
from rayrnn.jobs.head import Head

#: exit code -> what this side raises
ERRORS: dict[int, type[RayrnnError]] = {
    error.exit_code: error for error in (RunError, UsageError, DataError, ClusterError, Interrupted)
}


def error_of(exit_code: int) -> type[RayrnnError]:
    """What this side raises for what the other side ended with."""
    return ERRORS.get(exit_code, RunError)


def runs_of(head: Head) -> dict[str, Any]:
    """The runs that lie on the head, and the cluster as it sees itself."""
    return ask(head, "list")


def ask(head: Head, *question: str) -> dict[str, Any]:
    """One question at the head's desk.

    Raises:
        RayrnnError: the answer is an error.
    """
    said = head.run(f"exec python3 -m rayrnn.jobs.desk {shlex.join(question)}")
    answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    if "error" in answer:
        raise error_of(answer["exit_code"])(answer["error"])
    return answer


def find_run(name: str, runs: list[dict[str, Any]], file: Path) -> dict[str, Any]:
    """The newest run of this name (of its recipe, its directory or its job)."""
    for run in runs:
        if name in (run["job"], run["out"], Path(run["out"]).name, run["recipe"]["name"]):
            return run
    known = ", ".join(run["out"] for run in runs) or "none"
    raise UsageError(f"there is no run {name} on the head of {file}; there are {known}")
