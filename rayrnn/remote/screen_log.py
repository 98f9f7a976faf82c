"""A run's screen at a distance: written down where the run is, drawn where the user sits.

screen.jsonl, one line a word: {"word": "round", "time": ..., ...}; the last word of an attempt is `end`.
"""

import json
import time
from dataclasses import asdict, fields
from pathlib import Path
from threading import Lock
from typing import Any

from rayrnn.errors import Interrupted, RayrnnError
from rayrnn.runs.directory import Run
from rayrnn.training.screen import Talk
from rayrnn.training.summary import Account, Outcome

#: of an evaluation; its model stays where it is
EVALUATION = ("kind", "round", "held_out_loss", "held_out_accuracy")

Word = dict[str, Any]


class ScreenLog:
    """Takes what a run would show, and appends it to a file; safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._lock = Lock()

    def say(self, message: str) -> None:
        self._write("say", message=message)

    def warn(self, message: str) -> None:
        self._write("warn", message=message)

    def header(self, account: Account, *, data: str, encoding: str, run: str) -> None:
        self._write("header", account=asdict(account), data=data, encoding=encoding)

    def start(self, first_round: int) -> None:
        self._write("start", round=first_round)

    def round(self, event: dict[str, Any]) -> None:
        self._write("round", event=event)

    def attendance(self, event: dict[str, Any]) -> None:
        self._write("attendance", event=event)

    def evaluation(self, event: dict[str, Any]) -> None:
        self._write("evaluation", event={name: event[name] for name in EVALUATION})

    def stop(self) -> None:
        self._write("stop")

    def finish(self, outcome: Outcome, metrics: list[dict[str, Any]]) -> None:
        """The metrics come with the run directory."""
        self._write("outcome", **{field.name: getattr(outcome, field.name) for field in fields(outcome)[1:]})

    def checkpoint(self, name: str) -> None:
        """A checkpoint is complete and can be fetched."""
        self._write("checkpoint", name=name)

    def end(self, error: RayrnnError | None = None) -> None:
        """The job is over. How it is gone on with is for the user's side to say, which knows the cluster file."""
        resumable = isinstance(error, Interrupted) and error.resume is not None
        message = error.message if isinstance(error, Interrupted) else str(error or "")
        self._write("end", exit_code=error.exit_code if error else 0, message=message, resumable=resumable)

    def _write(self, word: str, **more: Any) -> None:
        line = json.dumps({"word": word, "time": time.time(), **more}) + "\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()


def show(word: Word, screen: Talk, run: Run) -> None:
    """Draw one word as if the run were here; words that are not for the eye are passed over."""
    kind = word["word"]
    if kind in ("say", "warn"):
        getattr(screen, kind)(word["message"])
    elif kind == "header":
        screen.header(Account(**word["account"]), data=word["data"], encoding=word["encoding"], run=str(run.path))
    elif kind == "start":
        screen.start(word["round"])
    elif kind in ("round", "attendance", "evaluation"):
        getattr(screen, kind)(word["event"])
    elif kind == "stop":
        screen.stop()


def outcome_of(word: Word, run: Run) -> Outcome:
    """How it ended, with the run directory as it is here."""
    return Outcome(run=run, **{field.name: word[field.name] for field in fields(Outcome)[1:]})
