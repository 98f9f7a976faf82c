"""What the Ray job runs on the head: `python -m rayrnn.remote.job JOB` trains what spec.json says.

~/.rayrnn/runs/<job>/
  spec.json      what is to be done
  pid            of the process that does it
  work/          the user's directory in small: the data that travelled, and the run directory
  screen.jsonl   what the run has said (rayrnn/remote/screen_log.py)
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rayrnn.cluster import connect
from rayrnn.cluster.on_host.facts import RUNS
from rayrnn.errors import Interrupted, RayrnnError, RunError
from rayrnn.recipe import Recipe, validate_recipe
from rayrnn.remote.replica import Replica, recover
from rayrnn.remote.screen_log import ScreenLog
from rayrnn.runs.checkpoints import newest_name
from rayrnn.runs.directory import Run
from rayrnn.runs.layout import SCREEN
from rayrnn.training.driver import train

SPEC = "spec.json"
PID = "pid"
WORK = "work"


@dataclass(frozen=True)
class JobSpec:
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
    def from_json(cls, text: str) -> "JobSpec":
        return cls(**json.loads(text))


def job_folder(job: str) -> Path:
    """On the head itself."""
    return Path.home() / RUNS / job


def main(job: str) -> int:
    """Train, say everything into the job's screen.jsonl, and give the exit code."""
    folder = job_folder(job)
    signal.signal(signal.SIGTERM, _stop_early)
    (folder / PID).write_text(str(os.getpid()))
    os.chdir(folder / WORK)
    log = ScreenLog(folder / SCREEN)
    error: RayrnnError | None = None
    try:
        _train(job, JobSpec.from_json((folder / SPEC).read_text(encoding="utf-8")), log)
    except RayrnnError as mistake:
        error = mistake
    except KeyboardInterrupt:
        error = Interrupted("stopped before a round was learned; there is no new checkpoint")
    except Exception as accident:
        traceback.print_exc()
        error = RunError(f"the driver failed: {type(accident).__name__}: {accident}")
    log.end(error)
    return error.exit_code if error else 0


def _train(job: str, spec: JobSpec, log: ScreenLog) -> None:
    recipe = validate_recipe(spec.recipe)
    with connect(code=recipe.named_code):
        if ":/" in spec.out:
            train(recipe, out=spec.out, resume=spec.resume, screen=log, trust=True)
            return
        run = Run(Path(spec.out))
        if spec.resume:
            _find_what_is_kept(run, job, recipe, log)
        with _told_of_checkpoints(run, job, log) as tell:
            train(recipe, out=spec.out, resume=spec.resume, screen=log, trust=True, on_written=tell)


def _find_what_is_kept(run: Run, job: str, recipe: Recipe, log: ScreenLog) -> None:
    address = recover(run, job)
    if address is not None:
        log.say(f"the newest checkpoint is taken over from {address}, which kept it")
    if run.path.exists():
        # the same run, whose recipe the user's side has compared; its paths are the ones of this host
        run.write_recipe(recipe)


@contextmanager
def _told_of_checkpoints(run: Run, job: str, log: ScreenLog) -> Iterator[Callable[[], None]]:
    """What the run is to call when it has written a file: of checkpoints the user's side and another host hear."""
    replica = Replica(run, job, log.warn)
    newest = newest_name(run.checkpoints)

    def tell() -> None:
        nonlocal newest
        before, newest = newest, newest_name(run.checkpoints)
        if newest != before:
            log.checkpoint(newest)
            replica.keep(newest)

    try:
        yield tell
    except BaseException:
        replica.close(finished=False)
        raise
    replica.close(finished=True)


def _stop_early(number: int, frame: FrameType | None) -> None:
    """While nothing is learned yet; then rayrnn/training/driver.py takes over."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
