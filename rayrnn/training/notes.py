"""What the members tell each other with every average, and the events that the driver gets of a round."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rayrnn.training.loop import Evaluation, Work
from rayrnn.training.messages import Culprit, LayerNorm, RoundLearned, WorkerRound


@dataclass(frozen=True)
class Notes:
    """One member's row of numbers in the averaged vector (see rayrnn/averaging/averager.py)."""

    steps: float
    padding: float
    updates: float
    loss_sum: float
    num_targets: float
    learning_seconds: float
    waiting_seconds: float
    broken_at: float
    stop: float
    leaving: float
    #: that this member's round took
    seconds: float = 0.0


def write_notes(work: Work, *, stop: bool, leaving: bool, seconds: float = 0.0) -> Notes:
    """A worker whose loss is not finite says where, and keeps the loss itself out of the sums."""
    return Notes(
        steps=work.steps,
        padding=work.padding,
        updates=work.updates,
        loss_sum=0.0 if work.broken_at else work.loss_sum,
        num_targets=0.0 if work.broken_at else work.num_targets,
        learning_seconds=work.learning_seconds,
        waiting_seconds=work.waiting_seconds,
        broken_at=work.broken_at,
        stop=float(stop),
        leaving=float(leaving),
        seconds=seconds,
    )


@dataclass(frozen=True)
class Average:
    """What came of one round's average."""

    #: of those who took part, by their numbers
    notes: Mapping[int, Notes]
    #: each worker handed in
    num_bytes: int
    #: by which the round was learned
    learning_rate: float = 0.0

    @property
    def broken(self) -> list[int]:
        """The workers whose loss or parameters were not finite."""
        return [number for number, note in self.notes.items() if note.broken_at]

    @property
    def culprit(self) -> Culprit:
        """The first of them, and the update of the round it happened in."""
        number = self.broken[0]
        return Culprit(number, int(self.notes[number].broken_at))

    @property
    def stop(self) -> bool:
        """Somebody was told that the user wants to stop."""
        return any(note.stop for note in self.notes.values())

    @property
    def nobody_stays(self) -> bool:
        """All nodes leave: nobody will hand the state to a newcomer."""
        return all(note.leaving for note in self.notes.values())


def round_learned(
    round_number: int,
    average: Average,
    evaluations: Mapping[int, Evaluation],
    *,
    generation: int,
    seconds: float,
    stopped: bool,
    layers: tuple[LayerNorm, ...] = (),
) -> RoundLearned:
    """One round, from 1; the loss is a mean over targets.

    Args:
        evaluations: of those who evaluated this round's model, by their numbers.
        stopped: the run ends because of what was broken.
        layers: of this round's model, where somebody has looked at them.
    """
    notes = average.notes.values()
    nothing = Evaluation()
    return RoundLearned(
        round=round_number,
        generation=generation,
        loss=_ratio(sum(n.loss_sum for n in notes), sum(n.num_targets for n in notes)),
        learning_rate=average.learning_rate,
        steps=int(sum(n.steps for n in notes)),
        padding_share=_ratio(sum(n.padding for n in notes), sum(n.padding + n.steps for n in notes)),
        seconds=seconds,
        bytes=average.num_bytes,
        broken=tuple(average.broken),
        workers=tuple(
            _worker_round(number, note, evaluations.get(number, nothing).seconds, seconds)
            for number, note in average.notes.items()
        ),
        culprit=average.culprit if stopped else None,
        layers=layers,
    )


def held_out_loss(evaluations: Mapping[int, Evaluation]) -> float:
    """The mean over all targets; infinite where there is no such number."""
    parts = evaluations.values()
    loss = _ratio(sum(one.loss_sum for one in parts), sum(one.num_targets for one in parts))
    return math.inf if loss is None else loss


def held_out_accuracy(evaluations: Mapping[int, Evaluation]) -> float | None:
    """The share of the targets that were met."""
    parts = evaluations.values()
    return _ratio(sum(one.num_correct for one in parts), sum(one.num_targets for one in parts))


def _worker_round(number: int, note: Notes, evaluating_seconds: float, seconds: float) -> WorkerRound:
    busy = note.learning_seconds + note.waiting_seconds + evaluating_seconds
    return WorkerRound(
        worker=number,
        steps=int(note.steps),
        updates=int(note.updates),
        steps_per_second=note.steps / seconds,
        learning_seconds=note.learning_seconds,
        waiting_seconds=note.waiting_seconds,
        evaluating_seconds=evaluating_seconds,
        averaging_seconds=max(0.0, seconds - busy),
    )


def _ratio(part: float, whole: float) -> float | None:
    """None where there is nothing to divide by, or nothing finite."""
    return part / whole if whole > 0 and math.isfinite(part) else None
