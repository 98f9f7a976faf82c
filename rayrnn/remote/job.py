"""What the Ray job runs on the head: `python -m rayrnn.remote.job JOB` trains what order.json says.

~/.rayrnn/runs/<job>/
  order.json     what is to be done
  pid            of the process that does it
  work/          the user's directory in small: the data that travelled, and the run directory
  screen.jsonl   what the run has said (rayrnn/remote/screen_log.py)
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rayrnn.cluster import connect
from rayrnn.errors import Interrupted, RayrnnError, RunError
from rayrnn.recipe import Recipe, validate_recipe
from rayrnn.remote.replica import Courier, recover
from rayrnn.remote.screen_log import Relay
from rayrnn.runs.directory import Run
from rayrnn.runs.layout import SCREEN
from rayrnn.training.driver import train

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


def main(job: str) -> int:
    """Train, say everything into the job's screen.jsonl, and give the exit code."""
    folder = job_folder(job)
    signal.signal(signal.SIGTERM, _stop_early)
    (folder / PID).write_text(str(os.getpid()))
    os.chdir(folder / WORK)
    relay = Relay(folder / SCREEN)
    error: RayrnnError | None = None
    try:
        _train(job, Order.from_json((folder / ORDER).read_text(encoding="utf-8")), relay)
    except RayrnnError as mistake:
        error = mistake
    except KeyboardInterrupt:
        error = Interrupted("stopped before a round was learned; there is no new checkpoint")
    except Exception as accident:
        traceback.print_exc()
        error = RunError(f"the driver failed: {type(accident).__name__}: {accident}")
    relay.end(error)
    return error.exit_code if error else 0


def _train(job: str, order: Order, relay: Relay) -> None:
    recipe = validate_recipe(order.recipe)
    with connect():
        if ":/" in order.out:
            train(recipe, out=order.out, resume=order.resume, screen=relay)
            return
        run = Run(Path(order.out))
        if order.resume:
            _find_what_is_kept(run, job, recipe, relay)
        with _courier(run, job, relay):
            train(recipe, out=order.out, resume=order.resume, screen=relay)


def _find_what_is_kept(run: Run, job: str, recipe: Recipe, relay: Relay) -> None:
    address = recover(run, job)
    if address is not None:
        relay.say(f"the newest checkpoint is taken over from {address}, which kept it")
    if run.path.exists():
        # the same run, whose recipe the user's side has compared; its paths are the ones of this host
        run.write_recipe(recipe)


@contextmanager
def _courier(run: Run, job: str, relay: Relay) -> Iterator[None]:
    courier = Courier(run, job, relay)
    try:
        yield
    except BaseException:
        courier.close(finished=False)
        raise
    courier.close(finished=True)


def _stop_early(number: int, frame: FrameType | None) -> None:
    """While nothing is learned yet; then rayrnn/training/driver.py takes over."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
