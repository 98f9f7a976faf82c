"""What the members tell each other with every average, and the events the driver gets from it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rayrnn.training.loop import Evaluation, Work


@dataclass(frozen=True)
class Notes:
    """One member's row of numbers in the averaged vector (see rayrnn/averaging/__init__.py)."""

    steps: float
    padding: float
    updates: float
    loss_sum: float
    num_targets: float
    learning_seconds: float
    waiting_seconds: float
    broken_at: float
    held_out_loss_sum: float
    held_out_targets: float
    held_out_correct: float
    held_out_sequences: float
    evaluating_seconds: float
    stop: float
    leaving: float


def write_notes(work: Work, held_out: Evaluation, *, stop: bool, leaving: bool) -> Notes:
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
        held_out_loss_sum=held_out.loss_sum,
        held_out_targets=held_out.num_targets,
        held_out_correct=held_out.num_correct,
        held_out_sequences=held_out.num_sequences,
        evaluating_seconds=held_out.seconds,
        stop=float(stop),
        leaving=float(leaving),
    )


def round_event(
    round_number: int, members: Mapping[int, Notes], *, learning_rate: float, num_bytes: int, seconds: float
) -> dict[str, Any]:
    """One round, from 1, as a line of metrics.jsonl. Seconds are wall-clock; the loss is a mean over targets.

    Args:
        members: the notes of those who took part, by their numbers.
    """
    notes = members.values()
    return {
        "kind": "round",
        "round": round_number,
        "loss": _ratio(sum(n.loss_sum for n in notes), sum(n.num_targets for n in notes)),
        "learning_rate": learning_rate,
        "steps": int(sum(n.steps for n in notes)),
        "padding_share": _ratio(sum(n.padding for n in notes), sum(n.padding + n.steps for n in notes)),
        "seconds": seconds,
        "bytes": num_bytes,
        "broken": [number for number, note in members.items() if note.broken_at],
        "workers": [_member(number, note, seconds) for number, note in members.items()],
    }


def evaluation_event(round_number: int, notes: Sequence[Notes], *, classes: bool) -> dict[str, Any]:
    """The held-out loss after `round_number` rounds."""
    targets = sum(n.held_out_targets for n in notes)
    accuracy = _ratio(sum(n.held_out_correct for n in notes), targets) if classes else None
    return {
        "kind": "evaluation",
        "round": round_number,
        "held_out_loss": _ratio(sum(n.held_out_loss_sum for n in notes), targets),
        "held_out_accuracy": accuracy,
    }


def culprit(members: Mapping[int, Notes]) -> dict[str, Any]:
    """The first member whose loss or parameters were not finite, and the update of the round it happened in."""
    number = next(number for number, note in members.items() if note.broken_at)
    return {"culprit": {"worker": number, "update": int(members[number].broken_at)}}


def _member(number: int, note: Notes, seconds: float) -> dict[str, Any]:
    busy = note.learning_seconds + note.waiting_seconds + note.evaluating_seconds
    return {
        "worker": number,
        "steps": int(note.steps),
        "updates": int(note.updates),
        "steps_per_second": note.steps / seconds,
        "learning_seconds": note.learning_seconds,
        "waiting_seconds": note.waiting_seconds,
        "evaluating_seconds": note.evaluating_seconds,
        # what is left of the round: the average itself, and waiting for the slowest member
        "averaging_seconds": max(0.0, seconds - busy),
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 and math.isfinite(part) else None
