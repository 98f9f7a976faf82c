"""A run's screen at a distance: written down where the run is, drawn where the user sits.

screen.jsonl, one line a word: {"word": "say", "time": ..., ...}; the last word of an attempt is `end`. Who writes it
may be killed in the middle of a line: what is no word is passed over, here and there.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from threading import Lock
from typing import Any, assert_never

from rayrnn.errors import Interrupted, RayrnnError, RunError
from rayrnn.foreign import open_inside, read_inside
from rayrnn.runs.directory import Run
from rayrnn.training.messages import Evaluated, Joined, Lost, Membership, RoundLearned, WentOn, from_json, to_json
from rayrnn.training.screen import Reporter
from rayrnn.training.summary import Outline, Summary

#: bytes: no run says more
MOST_TRANSCRIPT = 2**30

#: for a full disk to have room for a run's last word, and between two looks
PATIENCE_SECONDS = 30.0
RETRY_SECONDS = 0.5

Word = dict[str, Any]


class ScreenLog:
    """Takes what a run would show, and appends it to a file; safe to use from several threads.

    A disk that is full ends no run: what cannot be written is kept until there is room. Rounds and evaluations are not:
    they are in the run's own files.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._lock = Lock()
        #: what could not be written yet; it may begin in the middle of a line
        self._kept = b""
        if not _ends_with_a_line(path):  # whoever listens has this much of it, and must not take it for our first word
            self._kept = b"\n"

    def say(self, message: str) -> None:
        self._write("say", message=message)

    def warn(self, message: str) -> None:
        self._write("warn", message=message)

    def header(self, outline: Outline, *, data: str, encoding: str, run: str) -> None:
        self._write("header", outline=asdict(outline), data=data, encoding=encoding)

    def start(self, first_round: int, learned_seconds: float = 0.0) -> None:
        self._write("start", round=first_round, seconds=learned_seconds)

    def round(self, event: RoundLearned) -> None:
        self._write("event", event=to_json(event))

    def membership(self, event: Membership) -> None:
        self._write("event", event=to_json(event))

    def evaluation(self, event: Evaluated) -> None:
        self._write("event", event=to_json(event))

    def stop(self) -> None:
        self._write("stop")

    def finish(self, summary: Summary, metrics: list[dict[str, Any]]) -> None:
        """The metrics come with the run directory."""
        self._write("summary", **{field.name: getattr(summary, field.name) for field in fields(summary)[1:]})

    def checkpoint(self, name: str) -> None:
        """A checkpoint is complete and can be fetched."""
        self._write("checkpoint", name=name)

    def end(self, error: RayrnnError | None = None) -> None:
        """The job is over. How it is gone on with is for the user's side to say, which knows the cluster file."""
        resumable = isinstance(error, Interrupted) and error.resume is not None
        message = error.message if isinstance(error, Interrupted) else str(error or "")
        self._write("end", exit_code=error.exit_code if error else 0, message=message, resumable=resumable)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._kept and time.monotonic() < deadline:
            time.sleep(RETRY_SECONDS)
            with self._lock:
                self._pass_on()

    def _write(self, word: str, **more: Any) -> None:
        line = json.dumps({"word": word, "time": time.time(), **more}) + "\n"
        with self._lock:
            if word != "event" or not self._kept.strip():
                self._kept += line.encode()
            self._pass_on()

    def _pass_on(self) -> None:
        with suppress(OSError):
            self._kept = self._kept[self._file.write(self._kept) :]


class Transcript:
    """What has come here of a run's screen.jsonl: whole lines, each once, however many processes listen to the run."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lines(self) -> list[str]:
        """The lines that are there, in order.

        Raises:
            RunError: the file cannot be read, is none, or is longer than a transcript is.
        """
        try:
            content = read_inside(self._path.parent, self._path.name, most=MOST_TRANSCRIPT)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunError(f"{self._path} cannot be used: {error.strerror}") from None
        return content.decode("utf-8", errors="replace").split("\n")[:-1]

    def take(self, number: int, line: str) -> None:
        """Keep line `number` (from 0) of the run's file, unless another listener has done so."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        with open(open_inside(self._path.parent, self._path.name, flags), "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            content = file.read()
            # a listener that was killed left a part of a line: the run says it again
            file.truncate(content.rfind(b"\n") + 1)
            if content.count(b"\n") == number:
                file.write(line.encode())


def words_of(lines: Iterable[str | bytes]) -> list[Word]:
    """The words among these lines."""
    return [word for line in lines if (word := word_of(line)) is not None]


def word_of(line: str | bytes) -> Word | None:
    """The word that a line is, if it is one."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(values, dict) and isinstance(values.get("word"), str)
    return values if whole and isinstance(values.get("time", 0.0), int | float) else None


def _ends_with_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 1))
        return file.read() in (b"", b"\n")


def show(word: Word, screen: Reporter, run: Run) -> None:
    """Draw one word as if the run were here; words that are not for the eye are passed over."""
    kind = word["word"]
    if kind in ("say", "warn"):
        getattr(screen, kind)(word["message"])
    elif kind == "header":
        screen.header(Outline(**word["outline"]), data=word["data"], encoding=word["encoding"], run=str(run.path))
    elif kind == "start":
        screen.start(word["round"], word.get("seconds", 0.0))
    elif kind == "event":
        _show_event(from_json(word["event"]), screen)
    elif kind == "stop":
        screen.stop()


def _show_event(event: RoundLearned | Evaluated | Membership, screen: Reporter) -> None:
    match event:
        case RoundLearned():
            screen.round(event)
        case Evaluated():
            screen.evaluation(event)
        case Lost() | WentOn() | Joined():
            screen.membership(event)
        case _:
            assert_never(event)


def summary_of(word: Word, run: Run) -> Summary:
    """How it ended, with the run directory as it is here."""
    return Summary(run=run, **{field.name: word[field.name] for field in fields(Summary)[1:]})
