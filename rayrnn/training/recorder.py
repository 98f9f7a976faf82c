"""Writes what the workers report into the run directory: metrics, TensorBoard, checkpoints, the best model."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event as BoardEvent
from tensorboardX.summary import scalar

from rayrnn.errors import RunError
from rayrnn.runs.checkpoints import Checkpoint, Tensors, unpack
from rayrnn.runs.directory import Run
from rayrnn.training.failures import unwritten
from rayrnn.training.messages import CheckpointPart, Evaluated, Joined, Lost, Membership, RoundLearned, to_json
from rayrnn.training.tracking import Tracking

#: between two moments at which what was shown reaches the disk
FLUSH_SECONDS = 10.0


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
Parts = dict[int, CheckpointPart]


class Recorder:
    """Takes the workers' events in order, one at a time.

    metrics.jsonl has one line a round, written at once; an evaluation that follows is added to its round's line.
    Training goes on when the run directory cannot be written; what is lost then are lines, not the model.

    Args:
        warn: takes what the user must know, once for each time that the directory ceases to be writable.
        tracking: is told of every round, too.
    """

    def __init__(self, run: Run, warn: Callable[[str], None], tracking: Tracking | None = None) -> None:
        self._run = run
        self._warn = warn
        self._warned = False
        self._board = Board(run.path)
        self._tracking = tracking
        #: the best model, until it is written
        self._model: Tensors = {}
        self._last_round = 0
        #: what the driver says of itself, and the round whose line has it
        self._session: Line = {}
        self._session_round: int | None = None
        self._membership: list[Line] = []
        #: the checkpoints that are under way, by the generation of their round
        self._parts: dict[int, Parts] = {}
        #: the newest generation whose checkpoint was complete: nothing older may come in its place
        self._completed = 0
        #: the workers that are lost, and say no more
        self._lost: set[int] = set()

    def begin(self, num_parameters: int) -> None:
        """The run begins, or goes on: with what, and when, stands in the line of the next round."""
        versions = {name: version(name) for name in ("rayrnn", "torch", "ray")} | {"python": python_version()}
        self._session = {"time": time.time(), "versions": versions, "parameters": num_parameters}

    def take_membership(self, event: Membership) -> None:
        """A worker was lost or came back: it stands in the line of the next round."""
        self._membership.append(to_json(event))
        match event:
            case Lost() if event.reason != "late":
                self._lost.add(event.worker)
            case Joined():
                self._lost.discard(event.worker)

    def take_round(self, event: RoundLearned) -> None:
        """One round was learned; a round that is learned anew, after all workers died, replaces what was said of it."""
        line = {name: value for name, value in to_json(event).items() if name != "kind"}
        line["time"] = time.time()
        if self._membership:
            line["membership"] = self._membership
        if self._session and (self._session_round is None or event.round <= self._session_round):
            line["session"], self._session_round = self._session, event.round
        shown = {
            "steps_per_second": event.steps / event.seconds,
            "loss": event.loss,
            "learning_rate": event.learning_rate,
        }
        if self._tracking is not None:
            self._tracking.show(event.round, shown)
        with self._training_goes_on():
            if event.round <= self._last_round:
                self._run.cut_metrics(event.round - 1)
            self._last_round = event.round
            self._run.append_metrics(line)
            self._membership = []
            self._board.show(event.round, shown)

    def take_evaluation(self, event: Evaluated) -> None:
        """The held-out loss after a round; the model comes along when it is the best so far."""
        values = {"held_out_loss": event.held_out_loss}
        if event.held_out_accuracy is not None:
            values["held_out_accuracy"] = event.held_out_accuracy
        if event.monitor and event.monitored is not None:
            values[f"held_out_{event.monitor}"] = event.monitored
        if event.model is not None:
            self._model = unpack(event.model)
        if self._tracking is not None:
            self._tracking.show(event.round, values)
        with self._training_goes_on():
            self._write_model()
            self._run.amend_metrics(event.round, values)
            self._board.show(event.round, values)

    def write_model(self, model: bytes | None) -> None:
        """Write the last model of a run (packed), or a best one before it that found no room then.

        Raises:
            RunError: it cannot be written.
        """
        if model is not None:
            self._model = unpack(model)
        try:
            self._write_model()
        except OSError as error:
            raise unwritten(error, self._run) from None

    def log(self, text: str) -> None:
        """Add to what Ray and the workers said."""
        with self._training_goes_on():
            self._run.append_log(text)

    def take_checkpoint_part(self, event: CheckpointPart) -> None:
        """One worker's part of a checkpoint; one that comes when a newer checkpoint is complete is dropped."""
        # a round that was made again has another generation: parts of the two do not belong together
        if event.generation > self._completed:
            self._parts.setdefault(event.generation, {})[event.worker] = event

    def write_checkpoint(self) -> Checkpoint | None:
        """Write the oldest checkpoint that has become complete and return it; None when there is none.

        A worker that died after the average leaves its part out: it is the only one that had use for it. What cannot be
        written is told of and left out; the checkpoints before it are untouched.

        Raises:
            RunError: the workers do not hold the same model.
        """
        whole = (generation for generation, parts in self._parts.items() if self._is_complete(parts))
        generation = min(whole, default=None)
        if generation is None:
            return None
        parts, self._completed = self._parts[generation], generation
        # what is older and still incomplete will never be complete
        self._parts = {later: rest for later, rest in self._parts.items() if later > generation}
        _check_agreement(parts)
        number, checkpoint = _put_together(parts)
        try:
            self._write_model()  # no checkpoint may know of a best model that is not there
            self._run.write_checkpoint(number, checkpoint)
        except OSError as error:
            self._warn(f"the checkpoint of round {number:,} could not be written ({error}); training goes on")
            return None
        return checkpoint

    def _is_complete(self, parts: Parts) -> bool:
        members = next(iter(parts.values())).members
        has_model = any(part.common is not None for part in parts.values())
        return has_model and all(number in parts or number in self._lost for number in members)

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
        except (OSError, RunError) as error:  # an evaluation is added to a line, which must be read
            if not self._warned:
                self._warn(f"{self._run.path} cannot be written ({error}); training goes on")
            self._warned = True
        else:
            self._warned = False


def _put_together(parts: Parts) -> tuple[int, Checkpoint]:
    """The round, and the checkpoint that the parts make."""
    number, common = next((part.round, part.common) for part in parts.values() if part.common is not None)
    return number, Checkpoint(
        model=unpack(common.model),
        outer=unpack(common.outer),
        optimizers=tuple(unpack(parts[worker].optimizer) for worker in sorted(parts)),
        progress=common.progress,
        workers=tuple(sorted(parts)),
    )


def _check_agreement(parts: Parts) -> None:
    one = min(parts)
    apart = [worker for worker in sorted(parts) if parts[worker].digest != parts[one].digest]
    if apart:
        raise RunError(
            f"after the average of round {parts[one].round:,} worker{'s' if len(apart) > 1 else ''} "
            f"{', '.join(map(str, apart))} and worker {one} hold different models; a host's memory may be at fault. "
            "The checkpoint before is kept: go on from it with --resume"
        )
