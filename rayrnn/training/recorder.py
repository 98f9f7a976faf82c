"""Writes what the workers report into the run directory: metrics, TensorBoard, checkpoints, the best model."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event as BoardEvent
from tensorboardX.summary import scalar

from rayrnn.errors import RunError
from rayrnn.runs.checkpoints import Checkpoint, Tensors
from rayrnn.runs.directory import Run
from rayrnn.training.coordinator import Event
from rayrnn.training.failures import unwritten

#: between two moments at which what was shown reaches the disk
FLUSH_SECONDS = 10.0
#: events after which a worker says no more
GONE = ("died", "left")


class Board:
    """One event file, written by the caller's own thread: tensorboardX's thread dies at a full disk, and whoever goes
    on showing values then waits for it forever.

    Args:
        folder: where the file is made, at the first value.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: EventsWriter | None = None
        self._flushed = 0.0

    def show(self, round_number: int, values: Mapping[str, float | None]) -> None:
        """Add the values that are there to the curves of their names.

        Raises:
            OSError: the file cannot be written.
        """
        if self._writer is None:
            self._writer = EventsWriter(str(self._folder / "events"))
        for name, value in values.items():
            if value is not None:
                self._writer.write_event(
                    BoardEvent(wall_time=time.time(), step=round_number, summary=scalar(name, value))
                )
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Write what is left.

        Raises:
            OSError: it cannot be written.
        """
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()


Line = dict[str, Any]

#: worker -> its part of a checkpoint
Parts = dict[int, Event]


class Recorder:
    """Takes the workers' events in order, one at a time.

    metrics.jsonl has one line a round, written at once; an evaluation that follows is added to its round's line.
    Training goes on when the run directory cannot be written; what is lost then are lines, not the model.

    Args:
        warn: takes what the user must know, once for each time that the directory ceases to be writable.
    """

    def __init__(self, run: Run, warn: Callable[[str], None]) -> None:
        self._run = run
        self._warn = warn
        self._warned = False
        self._board = Board(run.path)
        #: the best model, until it is written
        self._model: Tensors = {}
        self._last_round = 0
        self._attendance: list[Event] = []
        #: the checkpoints that are under way, by the edition of their round
        self._parts: dict[int, Parts] = {}
        #: the workers that are not there now
        self._gone: set[int] = set()

    def take_attendance(self, event: Event) -> None:
        """A worker died, was late or came back: it stands in the line of the next round."""
        self._attendance.append(event)
        if event["kind"] in GONE:
            self._gone.add(event["worker"])
        elif event["kind"] == "joined":
            self._gone.discard(event["worker"])

    def take_round(self, event: Event) -> None:
        """One round was learned; a round that is learned anew, after all workers died, replaces what was said of it."""
        line: Line = {key: value for key, value in event.items() if key not in ("kind", "edition")}
        if self._attendance:
            line["attendance"] = self._attendance
        speed = {"steps_per_second": event["steps"] / event["seconds"]}
        with self._training_goes_on():
            if event["round"] <= self._last_round:
                self._run.cut_metrics(event["round"] - 1)
            self._last_round = event["round"]
            self._run.append_metrics(line)
            self._attendance = []
            self._board.show(event["round"], speed | {name: event[name] for name in ("loss", "learning_rate")})

    def take_evaluation(self, event: Event) -> None:
        """The held-out loss after a round; the model comes along when it is the best so far."""
        values = {key: event[key] for key in ("held_out_loss", "held_out_accuracy") if event[key] is not None}
        self._model = event.get("model", self._model)
        with self._training_goes_on():
            self._write_model()
            self._run.amend_metrics(event["round"], values)
            self._board.show(event["round"], values)

    def write_model(self, model: Tensors) -> None:
        """Write the last model of a run, or a best one before it that found no room then.

        Raises:
            RunError: it cannot be written.
        """
        self._model = model or self._model
        try:
            self._write_model()
        except OSError as error:
            raise unwritten(error, self._run) from None

    def log(self, text: str) -> None:
        """Add to what Ray and the workers said."""
        with self._training_goes_on(), self._run.log.open("a", encoding="utf-8") as log:
            log.write(text)

    def take_checkpoint_part(self, event: Event) -> None:
        """One worker's part of a checkpoint."""
        # a round that was made again has another edition: parts of the two do not belong together
        self._parts.setdefault(event["edition"], {})[event["number"]] = event

    def write_checkpoint(self) -> Checkpoint | None:
        """Write the oldest checkpoint that has become complete and return it; None when there is none.

        A worker that died after the average leaves its part out: it is the only one that had use for it. What cannot be
        written is told of and left out; the checkpoints before it are untouched.

        Raises:
            RunError: the workers do not hold the same model.
        """
        edition = min((edition for edition, parts in self._parts.items() if self._is_complete(parts)), default=None)
        if edition is None:
            return None
        parts = self._parts[edition]
        # what is older and still incomplete will never be complete
        self._parts = {later: rest for later, rest in self._parts.items() if later > edition}
        _check_agreement(parts)
        first = next(part for part in parts.values() if "model" in part)
        checkpoint = Checkpoint(
            model=first["model"],
            outer=first["outer"],
            optimizers=tuple(parts[number]["optimizer"] for number in sorted(parts)),
            progress=first["progress"],
        )
        try:
            self._write_model()  # no checkpoint may know of a best model that is not there
            self._run.write_checkpoint(first["round"], checkpoint)
        except OSError as error:
            self._warn(f"the checkpoint of round {first['round']:,} could not be written ({error}); training goes on")
            return None
        return checkpoint

    def _is_complete(self, parts: Parts) -> bool:
        numbers = next(iter(parts.values()))["numbers"]
        has_model = any("model" in part for part in parts.values())
        return has_model and all(number in parts or number in self._gone for number in numbers)

    def close(self) -> None:
        """Write what TensorBoard's file still lacks."""
        with self._training_goes_on():
            self._board.close()

    def _write_model(self) -> None:
        if self._model:
            self._run.write_model(self._model)
            self._model = {}

    @contextmanager
    def _training_goes_on(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._warned:
                self._warn(f"{self._run.path} cannot be written ({error}); training goes on")
            self._warned = True
        else:
            self._warned = False


def _check_agreement(parts: Parts) -> None:
    one = min(parts)
    apart = [number for number in sorted(parts) if parts[number]["digest"] != parts[one]["digest"]]
    if apart:
        raise RunError(
            f"after the average of round {parts[one]['round']:,} worker{'s' if len(apart) > 1 else ''} "
            f"{', '.join(map(str, apart))} and worker {one} hold different models; a host's memory may be at fault. "
            "The checkpoint before is kept: go on from it with --resume"
        )
