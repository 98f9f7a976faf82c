"""Tells a tracker (MLflow, Weights & Biases) of a run, from a thread of its own: training never waits for it."""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from rayrnn.durable import replace_durably
from rayrnn.errors import Interrupted, UsageError
from rayrnn.recipe import Recipe
from rayrnn.reporting.overview import told_of
from rayrnn.reporting.page import page_of
from rayrnn.runs.directory import Run
from rayrnn.runs.layout import ENCODING, MODEL, RECIPE, REPORT, TRACKED
from rayrnn.runs.schema import StoredTracking, read_stored
from rayrnn.user_code import load

#: what names the server that MLflow is to be told on
MLFLOW_URI = "MLFLOW_TRACKING_URI"
#: tracker -> its library, which is also the extra; and where its service is
TRACKERS = {
    "mlflow": ("mlflow", "rayrnn.training.mlflow_tracker:Mlflow"),
    "wandb": ("wandb", "rayrnn.training.wandb_tracker:Wandb"),
}
#: what the libraries are told through the environment, unless the user has: to give up soon, to tell nobody of us
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
}
#: rounds that are kept for a tracker that does not answer
MOST_POINTS = 10_000
#: between two attempts at one that did not answer
RETRY_SECONDS = 5.0
#: for what is left when the run has ended
END_SECONDS = 8.0
#: attempts within them, and seconds between two
END_ATTEMPTS, END_PAUSE = 3, 1.0


@dataclass(frozen=True)
class Point:
    """What is known of a round."""

    round: int
    values: Mapping[str, float]
    #: since 1970
    milliseconds: int


@dataclass(frozen=True)
class About:
    """What a tracker is told of a run at its begin."""

    name: str
    #: the recipe by its keys, `training.learning_rate`
    recipe: Mapping[str, str]
    tags: Mapping[str, str]
    folder: Path


class Service(Protocol):
    """One tracker. Every method may raise, and may take long; all are called from one thread."""

    def begin(self, about: About, known: str | None) -> str:
        """Go on with the run that the tracker knows by this name, or begin one; its name there."""

    def log(self, points: Sequence[Point]) -> None:
        """Values of rounds."""

    def end(self, state: str, files: Sequence[Path]) -> None:
        """The run is `finished`, `stopped` or `failed`; these are its files."""


@contextmanager
def tracked(recipe: Recipe, run: Run, warn: Callable[[str], None]) -> Iterator["Tracking | None"]:
    """Inside, the tracker that the recipe or the environment names hears of the run; None where there is none.

    Raises:
        UsageError: the recipe names a tracker that is not installed.
    """
    chosen = _chosen(recipe, warn)
    if chosen is None:
        yield None
        return
    before = {name: os.environ.get(name) for name in SETTINGS}
    os.environ.update({name: value for name, value in SETTINGS.items() if before[name] is None})
    tracking = Tracking(chosen, recipe, run, warn)
    state = "failed"
    try:
        yield tracking
        state = "finished"
    except (Interrupted, KeyboardInterrupt):
        state = "stopped"
        raise
    finally:
        tracking.close(state)
        for name in [name for name, value in before.items() if value is None]:
            os.environ.pop(name, None)


def _chosen(recipe: Recipe, warn: Callable[[str], None]) -> str | None:
    is_asked = bool(os.environ.get(MLFLOW_URI))
    name = ("mlflow" if is_asked else "none") if recipe.track == "auto" else recipe.track
    if name == "none":
        return None
    library, _ = TRACKERS[name]
    if find_spec(library) is not None:
        return name
    advice = f"pip install 'rayrnn[{name}]'"
    if recipe.track == "auto":
        warn(f"{MLFLOW_URI} is set, and mlflow is not installed ({advice}): the run is not tracked")
        return None
    raise UsageError(f"the recipe has track: {name}, which is not installed: {advice}, or leave the key out")


class Tracking:
    """One run as its tracker sees it. What cannot be told is kept, tried again, and told of once."""

    def __init__(self, name: str, recipe: Recipe, run: Run, warn: Callable[[str], None]) -> None:
        self._name = name
        self._run = run
        self._recipe = recipe
        self._warn = warn
        tags = {"rayrnn.version": version("rayrnn"), "rayrnn.task": recipe.task, "rayrnn.run": run.name}
        self._about = About(recipe.name, dict(_flat(recipe.model_dump(mode="json"))), tags, run.path)
        self._points: list[Point] = []
        self._state = ""
        self._changed = threading.Condition()
        self._service: Service | None = None
        self._failed = False
        #: it has heard everything
        self._complete = False
        # begun with the first round: of a run that does not come so far nobody hears
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)

    def show(self, round_number: int, values: Mapping[str, float | None]) -> None:
        """Tell of a round's values soon; never waits. Of more than MOST_POINTS the oldest are forgotten."""
        there = {name: value for name, value in values.items() if value is not None}
        with self._changed:
            if self._thread.ident is None:
                self._thread.start()
            self._points = [*self._points, Point(round_number, there, int(1000 * time.time()))][-MOST_POINTS:]
            self._changed.notify()

    def close(self, state: str) -> None:
        """Tell what is left, and how the run ended; within END_SECONDS, or not at all."""
        if self._thread.ident is None:
            return
        with self._changed:
            self._state = state
            self._changed.notify()
        self._thread.join(END_SECONDS)
        if not self._complete and not self._failed:
            self._warn(f"{self._name} has not taken all of this run within {END_SECONDS:.0f} s; the rest is not there")

    def _work(self) -> None:
        """It never ends of an error: that is told of, and what failed is tried again."""
        attempts = END_ATTEMPTS
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._state or (self._points and not self._failed),
                    RETRY_SECONDS if self._failed else None,
                )
                points, ending = self._points, self._state
                self._points = []
            try:
                self._tell(points)
                if ending:
                    assert self._service is not None
                    with tempfile.TemporaryDirectory() as folder:
                        self._service.end(ending, [*self._files(), *self._report(Path(folder))])
                    self._complete = True
                self._mend()
            except Exception as error:
                self._complain(error)
                with self._changed:
                    self._points = [*points, *self._points][-MOST_POINTS:]
            if ending:
                attempts -= 1
                if self._complete or not attempts:
                    return
                time.sleep(END_PAUSE)

    def _tell(self, points: Sequence[Point]) -> None:
        if self._service is None:
            maker: Any = load(TRACKERS[self._name][1], "track", self._name)
            service: Service = maker()
            known = self._known()
            found = service.begin(self._about, known)
            if found != known:
                content = StoredTracking(tracker=self._name, run=found).model_dump_json().encode()
                with suppress(OSError):  # a full disk: a resumed run is another one there
                    replace_durably(self._run.path / TRACKED, content)
            self._service = service
        if points:
            self._service.log(points)

    def _known(self) -> str | None:
        """What the tracker calls this run, if it has heard of it before."""
        try:
            stored = read_stored(self._run.path, TRACKED, StoredTracking)
        except Exception:  # it is not there, or says nothing of use
            return None
        return stored.run if stored.tracker == self._name else None

    def _files(self) -> list[Path]:
        names = (RECIPE, ENCODING, MODEL)
        return [self._run.path / name for name in names if (self._run.path / name).is_file()]

    def _report(self, folder: Path) -> list[Path]:
        """A page of the run as it is now; none where that cannot be made, which is no matter of the tracker's."""
        with suppress(Exception):
            page = page_of([told_of(self._run.path, self._run.name, self._recipe)], command="rayrnn report")
            place = folder / REPORT
            place.write_text(page, encoding="utf-8")
            return [place]
        return []

    def _complain(self, error: Exception) -> None:
        if not self._failed:
            words = next(iter(str(error).splitlines()), "")[:300]
            self._warn(f"{self._name} does not take the run ({type(error).__name__}: {words}); training goes on")
        self._failed = True

    def _mend(self) -> None:
        if self._failed:
            self._warn(f"{self._name} takes the run again")
        self._failed = False


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", str(value)
