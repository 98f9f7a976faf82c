"""A run in short, as its own files tell of it: where it stands, a few numbers, the curve of its loss."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rayrnn.errors import RayrnnError
from rayrnn.recipe import Recipe, task_of
from rayrnn.reporting.history import History
from rayrnn.reporting.markup import NOTHING, Markup, count, element, escaped, joined, number, share
from rayrnn.reporting.parts import loss_chart, tiles
from rayrnn.runs.checkpoints import newest_name
from rayrnn.runs.layout import CHECKPOINTS
from rayrnn.runs.round_lines import read_rounds
from rayrnn.runs.schema import StoredProgress, StoredStory, read_stored
from rayrnn.wording import counted


@dataclass(frozen=True)
class Told:
    """One run as a page tells of it."""

    #: where the run is, as the user writes it
    place: str
    recipe: Recipe
    history: History
    #: how it ended, or that it has not: in a sentence, and in a word or two
    state: str
    brief: str = ""
    #: what the network answers, where that was computed; or why it was not
    answers: tuple[Markup, ...] = ()
    #: of the network on what is held out: the name -> a number
    metrics: dict[str, Any] = field(default_factory=dict)
    #: what the page calls it
    name: str = ""


def told_of(folder: Path, place: str, recipe: Recipe, *, under_way: bool = False) -> Told:
    """What the files of a run say.

    Args:
        place: where it is, as the user writes it.
        under_way: it is being trained by the caller.

    Raises:
        RunError: a file of it cannot be read, or holds something else.
    """
    history = History(read_rounds(folder, StoredStory))
    return Told(place, recipe, history, *_state(folder, recipe, history, under_way=under_way), name=recipe.name)


def overview(told: Told) -> Markup:
    """A run in short: its state, a few numbers, and the curve of its loss."""
    return joined((lead(told), numbers(told), loss_chart(told.history, unit_of(told.recipe))))


def lead(told: Told) -> Markup:
    recipe, begun, ended = told.recipe, *_times(told.history)
    when = "" if begun is None else f" Begun {date(begun)}" + (f", newest round {date(ended)}." if ended else ".")
    what = f"{recipe.task.replace('_', ' ').capitalize()} by {recipe.model.describe()}; {told.place}."
    failed = element("p", escaped(told.state), class_="warn") if "not finite" in told.state else NOTHING
    state = NOTHING if failed else escaped(f"{told.state} ")
    return joined((element("p", state, escaped(what + when), class_="lead"), failed))


def numbers(told: Told) -> Markup:
    history, last = told.history, told.history.last
    if last is None:
        return NOTHING
    rounds = told.recipe.averaging.rounds
    values = [("rounds", count(last.round), f"of {rounds:,}" if last.round != rounds else "")]
    if last.loss is not None:
        values.append(("loss in training", number(last.loss), "newest round"))
    if history.best is not None:
        values.append(("held-out loss", number(history.best_loss), f"best, round {history.numbers[history.best]:,}"))
    if last.held_out_accuracy is not None and history.best is not None:
        best = history.rounds[history.best].held_out_accuracy
        values.append(("held-out accuracy", share(best), "of that round"))
    values.append(("training time", duration(history.seconds), ""))
    if history.steps_per_second is not None:
        workers = counted(history.most_workers, "worker") if history.most_workers else ""
        values.append(("steps a second", count(history.steps_per_second), workers))
    return tiles(values)


def _state(folder: Path, recipe: Recipe, history: History, *, under_way: bool) -> tuple[str, str]:
    """How it stands, in a sentence and in a word or two."""
    last, rounds = history.last, recipe.averaging.rounds
    if under_way:
        at = f"round {last.round:,}" if last else "before its first round,"
        return f"In training, {at} of {rounds:,}.", "in training"
    if last is None:
        return "It has not learned a round yet.", "not begun"
    at = f"round {last.round:,} of {rounds:,}"
    if last.culprit is not None:
        return f"It stopped after {at}: the loss was not finite.", "not finite"
    if last.round >= rounds:
        return "Finished.", "finished"
    reason = _reason(folder / CHECKPOINTS)
    if reason == "no better":
        return f"It stopped early, after {at}: the held-out loss got no better.", "stopped early"
    if reason == "interrupted":
        return f"It was interrupted after {at}.", "interrupted"
    return f"It is at {at}: in training, or cut short.", "unfinished"


def _reason(checkpoints: Path) -> str:
    """Why the newest checkpoint was the last one; empty where none says so."""
    try:
        newest = newest_name(checkpoints)
        return read_stored(checkpoints / newest, "progress.json", StoredProgress).reason if newest else ""
    except (OSError, RayrnnError):  # a checkpoint that is damaged is told by what needs it
        return ""


def _times(history: History) -> tuple[float | None, float | None]:
    sessions = history.sessions
    return (sessions[0][1].time if sessions else None), (history.last.time if history.last else None)


def date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def unit_of(recipe: Recipe) -> str:
    """Of the loss."""
    return task_of(recipe).unit


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s" if seconds < 10 else f"{rest} s"
