"""report.html of a run while it trains: a page that is written anew after rounds, and reloads itself until the end."""

import math
import time
from typing import Any

from rayrnn.durable import replace_durably
from rayrnn.errors import UsageError
from rayrnn.foreign import read_inside
from rayrnn.recipe import Recipe
from rayrnn.reporting.overview import told_of
from rayrnn.reporting.page import GENERATOR, MOST_PAGE, page_of
from rayrnn.runs.directory import Run
from rayrnn.runs.layout import REPORT
from rayrnn.training.messages import Evaluated, Membership, RoundLearned
from rayrnn.training.screen import Reporter
from rayrnn.training.summary import Outline, Summary
from rayrnn.wording import command_line

#: between two pages, at least; and so many times as long as the last one took to make
SECONDS = 5.0
TIMES_ITS_COST = 100
#: a page that takes longer is written anew only at the end: the driver hears nothing meanwhile
MOST_SECONDS = 5.0


class LivePage:
    """Passes what a run says on to its screen, and keeps its page fresh beside that.

    A page that cannot be written is told of once, and ends nothing.

    Raises:
        UsageError: a file of the page's name is there that is no page of ours.
    """

    def __init__(self, run: Run, recipe: Recipe, screen: Reporter) -> None:
        self._run = run
        self._recipe = recipe
        self._screen = screen
        self._due = 0.0
        self._interval = SECONDS
        self._warned = False
        self._started = False
        check_ours(run)

    def say(self, message: str) -> None:
        self._screen.say(message)

    def warn(self, message: str) -> None:
        self._screen.warn(message)

    def header(self, outline: Outline, *, data: str, encoding: str, run: str) -> None:
        self._screen.header(outline, data=data, encoding=encoding, run=run)

    def start(self, first_round: int, learned_seconds: float = 0.0) -> None:
        self._screen.start(first_round, learned_seconds)
        self._started = True
        self._write(under_way=True)
        if not self._warned:
            self._screen.say(f"a page of the run, kept fresh: {self._run.path / REPORT}")

    def round(self, event: RoundLearned) -> None:
        self._screen.round(event)
        self._write_if_due()

    def membership(self, event: Membership) -> None:
        self._screen.membership(event)

    def evaluation(self, event: Evaluated) -> None:
        self._screen.evaluation(event)
        self._write_if_due()

    def stop(self) -> None:
        self._screen.stop()
        if self._started:
            self._write(under_way=False)

    def finish(self, summary: Summary, metrics: list[dict[str, Any]]) -> None:
        self._screen.finish(summary, metrics)

    def _write_if_due(self) -> None:
        if time.monotonic() >= self._due:
            self._write(under_way=True)

    def _write(self, *, under_way: bool) -> None:
        began = time.monotonic()
        try:
            told = told_of(self._run.path, self._run.name, self._recipe, under_way=under_way)
            reload_seconds = math.ceil(self._interval) if under_way else 0
            again = command_line("rayrnn", "report", self._run.name)
            page = page_of([told], command=again, reload_seconds=reload_seconds)
            replace_durably(self._run.path / REPORT, page.encode())
        except Exception as error:  # whatever it is: the run is worth more than its page
            if not self._warned:
                self._screen.warn(f"{self._run.path / REPORT} cannot be written ({error}); training goes on")
            self._warned = True
        now = time.monotonic()
        took = now - began
        self._interval = max(SECONDS, TIMES_ITS_COST * took)
        self._due = now + self._interval if took < MOST_SECONDS else math.inf


def check_ours(run: Run) -> None:
    """
    Raises:
        UsageError: what lies in the page's place in a run directory is no page of ours.
    """
    try:
        content = read_inside(run.path, REPORT, most=MOST_PAGE)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{run.path / REPORT} cannot be replaced: {error.strerror}; move it away") from None
    if GENERATOR.encode() not in content:
        raise UsageError(f"{run.path / REPORT} is there, and is no report of rayrnn's: move it away")
