"""Answers files as they come in a directory, each once, and goes on with every sequence from file to file."""

import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from rayrnn.data.arrow_lists import ends, flat, wrap
from rayrnn.data.contents import read_whole
from rayrnn.data.rows import step_counts
from rayrnn.durable import stamp_of
from rayrnn.errors import DataError, RunError, UsageError
from rayrnn.prediction.live_steps import why_not
from rayrnn.prediction.output import SUFFIXES, answers_of, csv_header, csv_lines, json_lines
from rayrnn.prediction.predict import answers_to, check_answers, search_for
from rayrnn.recipe import task_of
from rayrnn.runs.detectors import model_checksum
from rayrnn.runs.directory import Run
from rayrnn.runs.layout import MODEL
from rayrnn.runs.model import Trained, trained
from rayrnn.streaming.arrivals import Arrival, Arrivals
from rayrnn.streaming.arrived_rows import ArrivedRows, come_after, format_of, order_texts, rows_arrived
from rayrnn.streaming.carried_states import CarriedStates
from rayrnn.streaming.journal import Carried, Journal
from rayrnn.wording import path_of

FORMATS = tuple(suffix.removeprefix(".") for suffix in SUFFIXES)
ON_ERROR = ("skip", "stop")


@dataclass(frozen=True)
class Followed:
    """What became of one file."""

    #: below the directory that is followed
    name: str
    #: where its answers are; None where it has none
    path: Path | None
    num_sequences: int = 0
    num_steps: int = 0
    #: what there is to know of it: why it has no answers, or steps that came late
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As one object of plain values."""
        path = None if self.path is None else str(self.path)
        counts = {"sequences": self.num_sequences, "steps": self.num_steps}
        return {"name": self.name, "path": path, **counts, "notes": list(self.notes)}


def follow(
    run: Run,
    directory: str | Path,
    out: str | Path,
    *,
    once: bool = False,
    poll: float = 1.0,
    format: str | None = None,
    on_error: str = "skip",
    forget: bool = False,
    beam: int | None = None,
    stop: threading.Event | None = None,
    say: Callable[[str], None] = warn,
) -> Iterator[Followed]:
    """Answer the files in `directory` one by one, in the order of their names, and then those that come.

    Each file is answered once, however often the following ends and begins again, and by whatever it ends: what was
    answered and where every sequence stands is kept below `out`, with the answers themselves. A sequence goes on where
    the file before left it. Where a network reads whole sequences only, each file is answered by itself.

    Args:
        directory: local, s3://, gs:// or hdfs://; its directories too.
        out: a local directory, made where it is not there; each file's answers have its name there.
        once: end when everything that is there is answered; else wait for more.
        poll: seconds between two looks; a file is taken when it was the same in both.
        format: `jsonl`, `csv` or `parquet`; without it that of the file that is answered.
        on_error: what a file does that cannot be read: it is told and left out (`skip`), or ends it all (`stop`).
        forget: where the run has another model than the one that was followed with, let every sequence begin anew.
        beam: hypotheses that are followed where an answer has a length of its own; without it the recipe's.
        stop: when it is set the following ends, after the file that it is at.
        say: how the user is told of what concerns no single file.

    Returns:
        what became of each file, when its answers are in place. The first is worked on when it is asked for.

    Raises:
        UsageError: an argument does not fit; another process follows into `out`; the states there are of another model.
        DataError: the directory is not there or cannot be listed; with `stop`, a file cannot be read.
        RunError: the run has no usable model, or what is below `out` cannot be read or written.
    """
    _check_choices(poll=poll, format=format, on_error=on_error)
    check_answers(run)
    arrivals = Arrivals(str(directory), endpoint=run.recipe.data.endpoint, say=say)
    place = _place_of(str(out), arrivals)
    answering = _Answering(run, format, beam)
    journal = Journal(place, answering.origin, forget=forget)
    followed, here = journal.about("directory"), f"{arrivals.filesystem.type_name}:{arrivals.path}"
    if followed is not None and followed != here:
        say(f"{place} has answers to files of {followed.partition(':')[2]}: their sequences go on in {directory}")
    journal.tell_about("directory", here)
    if forget and not journal.has_forgotten:
        say(f"nothing is forgotten: what is carried on in {place} is of the model that the run has")
    if answering.why_alone:
        say(f"each file is answered by itself: {answering.why_alone}")
    loop = _Following(arrivals, journal, answering, on_error, say)
    return loop.files(once=once, poll=poll, stop=stop or threading.Event())


class _Following:
    """The files of a directory, one after another."""

    def __init__(
        self, arrivals: Arrivals, journal: Journal, answering: "_Answering", on_error: str, say: Callable[[str], None]
    ) -> None:
        self._arrivals = arrivals
        self._journal = journal
        self._answering = answering
        self._on_error = on_error
        self._say = say
        #: files that have changed since they were answered, of which was told; and whether the directory was away
        self._changed: set[Arrival] = set()
        self._was_away = False
        self._newest = max((name for name, entry in journal.entries.items() if entry.is_answered), default="")

    def files(self, *, once: bool, poll: float, stop: threading.Event) -> Iterator[Followed]:
        """What became of each, as it is answered."""
        try:
            self._arrivals.look()
            if once and not any(map(self._is_new, self._arrivals.seen.values())):
                return
            while not stop.wait(poll):
                for arrival in self._new(once=once):
                    if stop.is_set():
                        return
                    if (told := self._take(arrival)) is not None:
                        yield told
                if once:
                    return
                self._answering.tell_of_newer(self._say)
        finally:
            self._journal.close()

    def _new(self, *, once: bool) -> list[Arrival]:
        """Whole files that have no answers yet."""
        try:
            whole = self._arrivals.look()
        except DataError as error:
            if once:
                raise
            if not self._was_away:
                self._say(f"{error}; looking again")
            self._was_away = True
            return []
        self._was_away = False
        for arrival in self._arrivals.seen.values() if once else ():
            if arrival not in whole and self._is_new(arrival):
                self._say(f"{arrival.origin} is still being written: it is left for the next time")
        return [arrival for arrival in whole if self._is_new(arrival)]

    def _is_new(self, arrival: Arrival) -> bool:
        entry = self._journal.entries.get(arrival.name)
        if entry is None or (entry.stamp != arrival.stamp and not entry.is_answered):
            return True  # also one that could not be read, and was written anew
        if entry.stamp != arrival.stamp and arrival not in self._changed:
            self._changed.add(arrival)
            self._say(f"{arrival.origin} has changed since it was answered: it is not answered again")
        return False

    def _take(self, arrival: Arrival) -> Followed | None:
        """Answer one file; None where somebody writes to it, or took it away."""
        notes = self._lateness(arrival)
        try:
            content = read_whole(self._arrivals.filesystem, arrival.path, arrival.origin)
            answered = self._answering.answer(content, arrival, self._journal)
        except (DataError, UsageError, pa.ArrowException) as error:
            if not self._arrivals.is_still(arrival):
                return None
            return self._left_out(arrival, "; ".join(str(error).splitlines()))
        if not self._arrivals.is_still(arrival):
            return None
        notes += answered.notes
        counts = answered.num_sequences, answered.num_steps
        path = self._journal.commit(
            arrival, answered.name, answered.content, answered.carried, counts=counts, told=notes
        )
        self._newest = max(self._newest, arrival.name)
        return Followed(arrival.name, path, *counts, notes)

    def _left_out(self, arrival: Arrival, reason: str) -> Followed:
        if self._on_error == "stop":
            raise DataError(f"{arrival.origin}: {reason.removeprefix(f'{arrival.origin} ')}")
        self._journal.commit_failed(arrival, reason)
        return Followed(arrival.name, None, notes=(reason,))

    def _lateness(self, arrival: Arrival) -> tuple[str, ...]:
        late = arrival.name < self._newest
        return (f"it comes late: {self._newest} was answered before",) if late else ()


@dataclass(frozen=True)
class _Answered:
    """A file's answers, not yet in their place."""

    name: str
    content: bytes
    num_sequences: int
    num_steps: int
    carried: dict[str, Carried]
    notes: tuple[str, ...] = ()


class _Answering:
    """A run's network of now, which answers files."""

    def __init__(self, run: Run, format: str | None, beam: int | None) -> None:
        self._run = run
        self._stamp = stamp_of(run.path / MODEL)
        checksum = model_checksum(run)
        self._model = trained(run)
        if stamp_of(run.path / MODEL) != self._stamp:
            raise RunError(f"{run.name} got another model while it was read: begin again")
        self._network = self._model.network()
        self._format = format
        self._search = search_for(self._model, beam)
        learned = [checksum, self._model.encoding.to_json()]
        self.origin = hashlib.sha256(json.dumps(learned, sort_keys=True).encode()).hexdigest()
        #: why no sequence can go on from file to file; empty where they can
        self.why_alone = why_not(self._model, self._network) or ""
        self._states = None if self.why_alone else CarriedStates(self._model, self._network)

    def tell_of_newer(self, say: Callable[[str], None]) -> None:
        """Say so, once, where the run has learned on: a state is of one model, which answers to the end."""
        if (now := stamp_of(self._run.path / MODEL)) != self._stamp:
            self._stamp = now
            say(f"{self._run.name} has a newer model: files are answered by the one before until this is begun again")

    def answer(self, content: bytes, arrival: Arrival, journal: Journal) -> _Answered:
        """
        Raises:
            DataError: the file cannot be read, or holds something else than was learned.
        """
        arrived = rows_arrived(content, arrival.name, self._model)
        if self._states is None:
            pieces = self._model.slices(arrived.rows)
            answers = pa.concat_tables(
                [answers_to(piece, self._model, self._network, self._search) for piece in pieces]
            )
            return self._written(arrival, answers, arrived, {}, ())
        before = journal.carried(arrived.keys)
        known = [before.get(key) for key in arrived.keys]
        outputs, after = self._states.go_on(arrived.rows, [None if one is None else one.state for one in known])
        answers = answers_of(arrived.rows, outputs, task_of(self._model.recipe), self._model.encoding)
        answers = _with_steps(answers, [0 if one is None else one.steps for one in known], arrived.rows, self._model)
        newest, notes = self._order_of(arrived, before)
        steps = step_counts(arrived.rows).tolist()
        carried = {
            key: Carried(count + (before[key].steps if key in before else 0), last, state)
            for key, count, last, state in zip(arrived.keys, steps, newest, after, strict=True)
            if state is not None
        }
        return self._written(arrival, answers, arrived, carried, notes)

    def _written(
        self,
        arrival: Arrival,
        answers: pa.Table,
        arrived: ArrivedRows,
        carried: dict[str, Carried],
        notes: tuple[str, ...],
    ) -> _Answered:
        format = self._format or format_of(arrival.name, self._model) or "jsonl"
        name = arrival.name if arrival.name.lower().endswith(f".{format}") else f"{arrival.name}.{format}"
        steps = int(step_counts(arrived.rows).sum())
        return _Answered(name, _bytes_of(answers, format), len(answers), steps, carried, notes)

    def _order_of(self, arrived: ArrivedRows, before: dict[str, Carried]) -> tuple[list[str | None], tuple[str, ...]]:
        """The newest place of every sequence after this file; and what to say where steps do not come after others."""
        if arrived.firsts is None or arrived.lasts is None:
            return [None] * len(arrived.rows), ()
        newest: list[str | None] = list(order_texts(arrived.lasts))
        known = [
            (row, kept.newest)
            for row, key in enumerate(arrived.keys)
            if (kept := before.get(key)) is not None and kept.newest is not None
        ]
        if not known:
            return newest, ()
        rows, texts = pa.array([row for row, _ in known]), [text for _, text in known]
        late = []
        firsts, lasts = (come_after(texts, cells.take(rows)) for cells in (arrived.firsts, arrived.lasts))
        for (row, text), first, last in zip(known, firsts, lasts, strict=True):
            if not first:
                late.append((arrived.keys[row], arrived.firsts[row].as_py(), text))
            if not last:
                newest[row] = text
        if not late:
            return newest, ()
        key, first, text = late[0]
        more = f" and of {len(late) - 1:,} more sequences" if len(late) > 1 else ""
        note = f"steps of {key!r}{more} do not come after those answered before: {first} after {text}"
        return newest, (f"{note}; they were read as they came",)


def _with_steps(answers: pa.Table, before: list[int], rows: pa.Table, model: Trained) -> pa.Table:
    """With `step`, the places of the answered steps in their sequences, counted from 0 in the first file."""
    sizes, begun = step_counts(rows), np.array(before, np.int64)
    if model.encoding.per_step:
        places = np.repeat(begun - ends(sizes)[:-1], sizes) + np.arange(int(sizes.sum()))
        column = wrap(pa.array(places), sizes)
    else:
        column = pa.array(begun + sizes - 1)
    return answers.add_column(1, "step", flat(pa.chunked_array([column])))


def _bytes_of(answers: pa.Table, format: str) -> bytes:
    if format == "csv":
        return csv_header(answers) + csv_lines(answers)
    if format == "jsonl":
        return json_lines(answers)
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(answers, buffer)
    return buffer.getvalue()


def _check_choices(*, poll: float, format: str | None, on_error: str) -> None:
    if not 0 < poll <= 86_400:
        raise UsageError(f"poll is {poll}: due are seconds between two looks, more than 0 and at most a day")
    if format not in (None, *FORMATS):
        raise UsageError(f"format is {format!r}; it can be {', '.join(FORMATS)}")
    if on_error not in ON_ERROR:
        raise UsageError(f"on_error is {on_error!r}; it can be {' or '.join(ON_ERROR)}")


def _place_of(out: str, arrivals: Arrivals) -> Path:
    """
    Raises:
        UsageError: it is in a store, or is a file, or one directory lies in the other.
    """
    if "://" in out:
        raise UsageError(f"--out is {out}: answers and what is carried on are kept in a local directory")
    place = path_of(out).absolute()
    if place.exists() and not place.is_dir():
        raise UsageError(f"--out is {out}, a file: name a directory, in which every file's answers get its name")
    if arrivals.is_local:
        followed, answers = Path(arrivals.path).resolve(), place.resolve()
        if followed == answers or followed in answers.parents or answers in followed.parents:
            raise UsageError(
                f"--out is {out}, and {arrivals.address} is followed: one lies in the other, and answers would be "
                "followed too; choose a directory beside it"
            )
    return place
