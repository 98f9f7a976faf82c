"""What a notebook shows of a training run: lines as in a file, and one figure that is drawn again in its place."""

import importlib
import sys
import time
from typing import Any

from rich.console import Console

from rayrnn.recipe import Recipe
from rayrnn.reporting.history import History
from rayrnn.reporting.markup import figure_alone
from rayrnn.reporting.overview import Told, overview
from rayrnn.runs.schema import StoredStory
from rayrnn.streams import lasting
from rayrnn.terminal import Terminal
from rayrnn.training.messages import Evaluated, Membership, RoundLearned, to_json
from rayrnn.training.screen import Reporter, Screen
from rayrnn.training.summary import Outline, Summary

#: between two figures, at least; and so many times as long as the last one took to draw
SECONDS = 1.0
TIMES_ITS_COST = 50


def screen_of(recipe: Recipe, console: Console | None) -> Reporter:
    """Where a run of this recipe is shown: on a console; without one in the notebook that asks, or on stderr."""
    if console is None and in_notebook():
        return NotebookScreen(recipe)
    return Screen(console or Terminal(file=lasting(sys.stderr)), recipe)


def in_notebook() -> bool:
    """Whether this process is an IPython kernel, whose displays a notebook shows."""
    ipython = sys.modules.get("IPython")  # who is in a kernel has it loaded
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


class NotebookScreen:
    """Draws one run in a notebook: figures in the place of lines for rounds."""

    def __init__(self, recipe: Recipe) -> None:
        console = Terminal(file=lasting(sys.stderr), force_terminal=False, force_jupyter=False, width=100)
        self._screen = Screen(console, recipe, says_rounds=False)
        self._recipe = recipe
        self._run = ""
        self._rounds: list[StoredStory] = []
        self._display: Any = None
        self._due = 0.0

    def say(self, message: str) -> None:
        self._screen.say(message)

    def warn(self, message: str) -> None:
        self._screen.warn(message)

    def header(self, outline: Outline, *, data: str, encoding: str, run: str) -> None:
        self._run = run
        self._screen.header(outline, data=data, encoding=encoding, run=run)

    def start(self, first_round: int, learned_seconds: float = 0.0) -> None:
        self._screen.start(first_round, learned_seconds)

    def round(self, event: RoundLearned) -> None:
        self._screen.round(event)
        # one that is learned anew replaces what was said of it
        self._rounds = [line for line in self._rounds if line.round < event.round]
        self._rounds.append(StoredStory.model_validate(to_json(event)))
        self._draw_if_due()

    def membership(self, event: Membership) -> None:
        self._screen.membership(event)

    def evaluation(self, event: Evaluated) -> None:
        self._screen.evaluation(event)
        found = {"held_out_loss": event.held_out_loss, "held_out_accuracy": event.held_out_accuracy}
        self._rounds = [line.model_copy(update=found) if line.round == event.round else line for line in self._rounds]
        self._draw_if_due()

    def stop(self) -> None:
        self._screen.stop()
        if self._rounds:
            self._draw()

    def finish(self, summary: Summary, metrics: list[dict[str, Any]]) -> None:
        """The figure is there already; its table and what to type next follow."""
        self._screen.finish(summary, [])

    def _draw_if_due(self) -> None:
        if time.monotonic() >= self._due:
            self._draw()

    def _draw(self) -> None:
        began = time.monotonic()
        state = f"Round {self._rounds[-1].round:,} of {self._recipe.averaging.rounds:,}."
        told = Told(self._run, self._recipe, History(self._rounds), state, name=self._recipe.name)
        display = importlib.import_module("IPython.display")
        figure = display.HTML(figure_alone(overview(told)))
        if self._display is None:
            self._display = display.display(figure, display_id=True)
        else:
            self._display.update(figure)
        now = time.monotonic()
        self._due = now + max(SECONDS, TIMES_ITS_COST * (now - began))
