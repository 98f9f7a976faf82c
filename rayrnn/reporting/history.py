"""What the lines of metrics.jsonl say of a run together: who was there, what it cost, and what it was worth."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from rayrnn.runs.schema import StoredLayer, StoredMembership, StoredSession, StoredStory, StoredWorkerRound


@dataclass(frozen=True)
class Speed:
    """Steps a second, over the rounds in which several workers learned."""

    #: of one worker, while it learns by itself
    alone: float
    #: of all workers, averaging and all that they waited for included
    together: float
    #: workers that took part, on average
    workers: float

    @property
    def ratio(self) -> float:
        """How many times as fast one worker alone would have been."""
        return self.alone / self.together


@dataclass(frozen=True)
class Stretch:
    """Rounds in succession that a worker took part in, from the first to the last."""

    first: int
    last: int


class History:
    """The rounds of a run, in order.

    Args:
        rounds: lines of its metrics.jsonl; those that a kill lost are not there.
    """

    def __init__(self, rounds: Sequence[StoredStory]) -> None:
        self.rounds = rounds
        self.numbers = [line.round for line in rounds]

    @property
    def last(self) -> StoredStory | None:
        """The newest round."""
        return self.rounds[-1] if self.rounds else None

    @property
    def best(self) -> int | None:
        """The place, in `rounds`, of the lowest held-out loss; the first where several are as low."""
        known = [(loss, place) for place, loss in enumerate(self.held_out_losses) if math.isfinite(loss)]
        return min(known)[1] if known else None

    @property
    def best_loss(self) -> float | None:
        """The lowest held-out loss."""
        return None if self.best is None else self.rounds[self.best].held_out_loss

    @property
    def losses(self) -> list[float]:
        """In training, a round; NaN where there is none."""
        return [_known(line.loss) for line in self.rounds]

    @property
    def held_out_losses(self) -> list[float]:
        """A round; NaN where nothing was measured."""
        return [_known(line.held_out_loss) for line in self.rounds]

    @property
    def learning_rates(self) -> list[float]:
        return [_known(line.learning_rate) for line in self.rounds]

    @property
    def seconds(self) -> float:
        """From the workers' first minibatch to their last, without the time in which nobody trained."""
        return math.fsum(line.seconds for line in self.rounds)

    @property
    def seconds_so_far(self) -> list[float]:
        """The same after every round."""
        sums, total = list[float](), 0.0
        for line in self.rounds:
            total += line.seconds
            sums.append(total)
        return sums

    @property
    def steps(self) -> int:
        return sum(line.steps for line in self.rounds)

    @property
    def steps_per_second(self) -> float | None:
        """Over all workers and rounds."""
        return self.steps / self.seconds if self.seconds > 0 else None

    @property
    def most_workers(self) -> int:
        """In one round."""
        return max((len(line.workers) for line in self.rounds), default=0)

    @cached_property
    def workers(self) -> list[int]:
        """The numbers of all that ever took part."""
        return sorted({part.worker for line in self.rounds for part in line.workers})

    def speeds(self, worker: int) -> list[float]:
        """Steps a second of one worker, while it did not evaluate; NaN in rounds without it."""
        parts = [next((one for one in line.workers if one.worker == worker), None) for line in self.rounds]
        return [_speed(part, line.seconds) for part, line in zip(parts, self.rounds, strict=True)]

    def speeds_of_all(self) -> list[list[float]]:
        """The same of all who took part in a round, a list a round."""
        return [[_speed(part, line.seconds) for part in line.workers] for line in self.rounds]

    @property
    def averaging_shares(self) -> list[float]:
        """Of the time of all workers in a round, what went into averages, and waiting for the others there."""
        return [_averaging_share([line]) for line in self.rounds]

    @property
    def averaging_share(self) -> float | None:
        """The same of the whole run."""
        found = _averaging_share(self.rounds)
        return found if math.isfinite(found) else None

    @property
    def averaging_seconds(self) -> float | None:
        """Of one worker, on average, over the whole run."""
        shares = [
            math.fsum(part.averaging_seconds for part in line.workers) / len(line.workers)
            for line in self.rounds
            if line.workers
        ]
        return math.fsum(shares) if shares else None

    @property
    def bytes_sent(self) -> int:
        """By all workers in all rounds; one that is alone sends nothing."""
        return sum(line.bytes * len(line.workers) for line in self.rounds if len(line.workers) > 1)

    @property
    def bytes_a_round(self) -> int | None:
        """Each worker hands in, in the newest round that several of them averaged in."""
        return next((line.bytes for line in reversed(self.rounds) if len(line.workers) > 1 and line.bytes), None)

    @property
    def speed(self) -> Speed | None:
        """One worker's own speed beside that of all; None where there was only one, or the times are not known."""
        lines = [line for line in self.rounds if len(line.workers) > 1 and line.seconds > 0]
        parts = [part for line in lines for part in line.workers]
        learned = math.fsum(part.learning_seconds + part.waiting_seconds for part in parts)
        # what is held out would have to be measured by one worker too
        evaluated = math.fsum(
            math.fsum(part.evaluating_seconds for part in line.workers) / len(line.workers) for line in lines
        )
        together = math.fsum(line.seconds for line in lines) - evaluated
        steps = sum(part.steps for part in parts)
        if learned <= 0 or together <= 0 or not steps:
            return None
        return Speed(steps / learned, steps / together, len(parts) / len(lines))

    @cached_property
    def presence(self) -> dict[int, list[Stretch]]:
        """Of every worker the rounds that it took part in, those in succession together."""
        found: dict[int, list[Stretch]] = {worker: [] for worker in self.workers}
        before = 0
        for line in self.rounds:
            for part in line.workers:
                stretches = found[part.worker]
                if stretches and stretches[-1].last == before:
                    stretches[-1] = Stretch(stretches[-1].first, line.round)
                else:
                    stretches.append(Stretch(line.round, line.round))
            before = line.round
        return found

    def events(self, kind: str) -> list[tuple[int, StoredMembership]]:
        """What happened to the members (`lost`, `joined`, `went_on`), and in which round."""
        return [(line.round, event) for line in self.rounds for event in line.membership if event.kind == kind]

    @property
    def later_joins(self) -> list[tuple[int, StoredMembership]]:
        """Without those who were there from the beginning."""
        first = self.numbers[0] if self.numbers else 0
        return [(number, event) for number, event in self.events("joined") if number > first]

    @property
    def sessions(self) -> list[tuple[int, StoredSession]]:
        """Every beginning, and every going on, and the round that came next; none of runs of rayrnn 0.1."""
        return [(line.round, line.session) for line in self.rounds if line.session is not None]

    def layers(self) -> dict[str, list[tuple[int, StoredLayer]]]:
        """Of every layer what was measured of it, and after which round."""
        found: dict[str, list[tuple[int, StoredLayer]]] = {}
        for line in self.rounds:
            for layer in line.layers:
                found.setdefault(layer.name, []).append((line.round, layer))
        return found

    @property
    def broken(self) -> Iterator[tuple[int, int]]:
        """Rounds, and workers whose loss or parameters were not finite in them."""
        return ((line.round, worker) for line in self.rounds for worker in line.broken)


def _speed(part: StoredWorkerRound | None, seconds: float) -> float:
    if part is None or seconds - part.evaluating_seconds <= 0:
        return math.nan
    return part.steps / (seconds - part.evaluating_seconds)


def _averaging_share(lines: Sequence[StoredStory]) -> float:
    whole = math.fsum(line.seconds * len(line.workers) for line in lines)
    spent = math.fsum(part.averaging_seconds for line in lines for part in line.workers)
    return min(1.0, spent / whole) if whole > 0 else math.nan


def _known(value: float | None) -> float:
    return math.nan if value is None else value
