"""The head's side of the talk: `python -m rayrnn.remote.server submit JOB | address | list`; answers are lines of JSON.

Jobs are Ray's own (`ray job list` shows them, Ray ends them with itself); its manager works here without a dashboard.
"""

import asyncio
import json
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from rayrnn.cluster import connect
from rayrnn.cluster.connection import find_cluster
from rayrnn.cluster.on_host.facts import RUNS
from rayrnn.cluster.ray_internals import start_job
from rayrnn.cluster.status import read_status
from rayrnn.errors import ClusterError, RayrnnError
from rayrnn.remote.job import PID, SPEC, JobSpec, job_folder
from rayrnn.remote.screen_log import words_of
from rayrnn.runs.layout import SCREEN

#: of a screen's end, enough to find the last round in
TAIL_BYTES = 65536


def main(arguments: list[str]) -> None:
    """Do it and print the answer; a RayrnnError is an answer too."""
    verb, *rest = arguments
    try:
        answer = _ANSWERS[verb](*rest)
    except RayrnnError as error:
        answer = {"error": str(error), "exit_code": error.exit_code}
    print(json.dumps(answer))


def submit(job: str) -> dict[str, Any]:
    """Hand the job to Ray, and wait until its program runs.

    Raises:
        ClusterError: it runs already, or Ray could not start it.
    """
    folder = job_folder(job)
    submission = f"{job}-{time.time_ns() // 1_000_000:x}"
    entrypoint = f"exec {shlex.quote(sys.executable)} -P -m rayrnn.remote.job {shlex.quote(job)}"
    with FileLock(folder / "lock"):  # two machines may go on with one run
        if is_running(job):
            raise ClusterError(f"the run {job} is being trained already; `rayrnn logs` follows it")
        for name in (PID, SCREEN):
            (folder / name).unlink(missing_ok=True)
        with connect(_address()):
            ended = asyncio.run(start_job(submission, entrypoint, (folder / PID).exists))
    if ended is not None and not (folder / SCREEN).exists():
        raise ClusterError(f"Ray could not start the job {submission}: {ended}")
    return {"submission": submission}


def list_runs() -> list[dict[str, Any]]:
    """Every run that lies on this head, newest first."""
    folders = sorted((Path.home() / RUNS).glob(f"*/{SPEC}"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [_describe(path.parent) for path in folders]


def is_running(job: str) -> bool:
    """Whether the process that wrote its number down still does this job."""
    with suppress(OSError, ValueError, psutil.Error):
        return job in psutil.Process(int((job_folder(job) / PID).read_text())).cmdline()
    return False


def _address() -> str:
    """The Ray of this host, whoever started it.

    Raises:
        ClusterError: there is none.
    """
    found = find_cluster() or find_cluster("auto")
    if found is None:
        raise ClusterError("no Ray runs on the head: `rayrnn up` with the cluster file starts it")
    return found.address


def _cluster() -> dict[str, Any]:
    """The cluster, or why there is none: the runs are there all the same."""
    try:
        return {"cluster": read_status(_address()).to_json()}
    except ClusterError as error:
        return {"problem": str(error)}


def _describe(folder: Path) -> dict[str, Any]:
    spec = JobSpec.from_json((folder / SPEC).read_text(encoding="utf-8"))
    words = _last_words(folder / SCREEN)
    rounds = [word["event"] for word in words if word["word"] == "event" and word["event"]["kind"] == "round"]
    ends = [word for word in words if word["word"] == "end"]
    running = is_running(folder.name)
    return {
        "job": folder.name,
        "recipe": spec.recipe,
        "out": spec.out,
        "state": "running" if running else _state(ends[-1]["exit_code"]) if ends else "lost",
        "rounds": spec.recipe["averaging"].get("rounds", 0),
        "round": rounds[-1]["round"] if rounds else 0,
        "loss": rounds[-1]["loss"] if rounds else None,
        "started": (folder / SPEC).stat().st_mtime,
        "message": ends[-1]["message"] if ends and not running else "",
    }


def _state(exit_code: int) -> str:
    return {0: "finished", 130: "interrupted"}.get(exit_code, "failed")


def _last_words(path: Path) -> list[dict[str, Any]]:
    with suppress(OSError), path.open("rb") as file:
        start = max(0, path.stat().st_size - TAIL_BYTES)
        file.seek(start)
        lines = file.read().split(b"\n")
        return words_of(lines[1 if start else 0 : -1])
    return []


_ANSWERS: dict[str, Callable[..., dict[str, Any]]] = {
    "submit": submit,
    "address": lambda: {"address": _address()},
    "list": lambda: {"runs": list_runs()} | _cluster(),
}

if __name__ == "__main__":
    main(sys.argv[1:])
