"""Writes what the workers report into the run directory: metrics, checkpoints, the best model."""

from typing import Any

from tensorboardX import SummaryWriter

from rayrnn.checkpoints import Checkpoint, write_checkpoint
from rayrnn.errors import RunError
from rayrnn.run import Run
from rayrnn.training.mailbox import Event

Line = dict[str, Any]


class Recorder:
    """Takes the workers' events in order, one at a time.

    A round's line waits for its evaluation where one follows, so that metrics.jsonl has one line a round.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._board = SummaryWriter(str(run.path), flush_secs=10)
        self._waiting: Line | None = None
        self._last_round = 0
        self._attendance: list[Event] = []
        self._parts: dict[tuple[int, int], dict[int, Event]] = {}

    def take_attendance(self, event: Event) -> None:
        """A worker died, was late or came back: it stands in the line of the next round."""
        self._attendance.append(event)

    def take_round(self, event: Event) -> None:
        """One round was learned; a round that is learned anew, after all workers died, replaces what was said of it."""
        self._flush()
        if event["round"] <= self._last_round:
            self._run.cut_metrics(event["round"] - 1)
        self._last_round = event["round"]
        self._waiting = {key: value for key, value in event.items() if key != "kind"}
        if self._attendance:
            self._waiting["attendance"], self._attendance = self._attendance, []

    def take_evaluation(self, event: Event) -> None:
        """The held-out loss after a round; the model comes along when it is the best so far."""
        if "model" in event:
            self._run.write_model(event["model"])
        values = {key: event[key] for key in ("held_out_loss", "held_out_accuracy") if event[key] is not None}
        if self._waiting is not None and self._waiting["round"] == event["round"]:
            self._waiting |= values

    def take_checkpoint_part(self, event: Event) -> Checkpoint | None:
        """One worker's part of a checkpoint; the whole one once it is complete and written.

        Raises:
            OSError: it cannot be written; the checkpoints before it are untouched.
            RunError: the workers do not hold the same model.
        """
        # with fewer members the others made the round again: parts of the two do not belong together
        parts = self._parts.setdefault((event["round"], event["size"]), {})
        parts[event["rank"]] = event
        if len(parts) < event["size"]:
            return None
        # an older one that a lost worker left incomplete will never be complete
        self._parts = {(number, size): rest for (number, size), rest in self._parts.items() if number > event["round"]}
        _check_agreement(event["round"], parts)
        first = parts[0]
        checkpoint = Checkpoint(
            model=first["model"],
            outer=first["outer"],
            optimizers=tuple(parts[rank]["optimizer"] for rank in sorted(parts)),
            progress=first["progress"],
        )
        write_checkpoint(self._run.checkpoints, event["round"], checkpoint)
        return checkpoint

    def close(self) -> None:
        """Write what waits."""
        self._flush()
        self._board.close()

    def _flush(self) -> None:
        if self._waiting is None:
            return
        self._run.append_metrics(self._waiting)
        for name in ("loss", "held_out_loss", "held_out_accuracy", "learning_rate"):
            if self._waiting.get(name) is not None:
                self._board.add_scalar(name, self._waiting[name], self._waiting["round"])
        self._board.add_scalar(
            "steps_per_second", self._waiting["steps"] / self._waiting["seconds"], self._waiting["round"]
        )
        self._waiting = None


def _check_agreement(round_number: int, parts: dict[int, Event]) -> None:
    apart = [part["number"] for part in parts.values() if part["digest"] != parts[0]["digest"]]
    if apart:
        raise RunError(
            f"after the average of round {round_number:,} worker{'s' if len(apart) > 1 else ''} "
            f"{', '.join(map(str, apart))} and worker {parts[0]['number']} hold different models; a host's memory may "
            "be at fault. The checkpoint before is kept: go on from it with --resume"
        )
