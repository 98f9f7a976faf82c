"""What the user is told when a run cannot go on."""

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ray.exceptions import RayError

from rayrnn.background import deaths_told
from rayrnn.errors import ClusterError, Interrupted, RayrnnError, RunError
from rayrnn.recipe import Recipe
from rayrnn.runs.directory import Run
from rayrnn.runs.layout import MODEL, RECIPE
from rayrnn.training.messages import Lost, Restarted, RoundLearned
from rayrnn.wording import command_line

#: so many exceptions, or ends of a process, of each worker before the same round is learned end the run
RAISED_A_WORKER = 2
RESTARTED_A_WORKER = 5


class Strikes:
    """Counts the workers' failures since the run last went further: what fails every time is no accident.

    Rounds that are learned again, from the last checkpoint, bring the run no further.
    """

    def __init__(self, num_workers: int) -> None:
        self._enough = {Lost: RAISED_A_WORKER * num_workers, Restarted: RESTARTED_A_WORKER * num_workers}
        self._counts: Counter[type] = Counter()
        self._furthest = 0

    def forget(self, round_number: int) -> None:
        """That round was learned."""
        if round_number > self._furthest:
            self._furthest = round_number
            self._counts.clear()

    def too_many(self, event: Lost | Restarted) -> int:
        """Count one more failure of this kind; how many they are when that is enough, else 0."""
        kind = type(event)
        self._counts[kind] += 1
        return self._counts[kind] if self._counts[kind] >= self._enough[kind] else 0


def broken(event: RoundLearned, recipe: Recipe, run: Run) -> RunError:
    """The loss or the parameters stopped being finite; `event` is the round it happened in."""
    culprit, training = event.culprit, recipe.training
    assert culprit is not None
    return RunError(
        f"the loss of worker {culprit.worker} is not finite: round {event.round:,}, update {culprit.update:,} "
        f"of the round; the run stopped. Lower training.learning_rate (now {training.learning_rate:g}) or "
        f"training.clip (now {training.clip:g}); the last good checkpoint is kept in {run.checkpoints}"
    )


def interrupted(round_number: int, run: Run) -> Interrupted:
    """The user stopped the run after so many rounds; 0: before one was learned."""
    words = f"stopped after round {round_number:,}; the checkpoint is in {run.checkpoints}"
    return Interrupted(
        words if round_number else "stopped before a round was learned; there is no checkpoint",
        resume=command_line("rayrnn", "train", run.path / RECIPE, "--out", run.name, "--resume")
        + run.recipe.asks_for_trust,
    )


def unexpected(event: Lost | Restarted, times: int, round_number: int, run: Run) -> RunError:
    """Workers fail again and again, in the same way; `round_number` is the last one that was learned."""
    return RunError(
        f"the workers failed {times} times and came no further than round {round_number:,}; worker {event.worker}: "
        f"{event.detail}\n"
        f"its traceback is in {run.log}; go on from the last checkpoint with --resume"
    )


def unwritten(error: OSError, run: Run) -> RunError:
    """The best model found no room in the run directory."""
    return RunError(
        f"the model could not be written to {run.path / MODEL}: {error}\n"
        "make room there, and the same command with --resume writes it"
    )


def headless(seconds: float) -> ClusterError:
    """Ray would end this process, and the workers', a little later."""
    return ClusterError(
        f"Ray's head has not answered for {seconds:.0f} s: the run stopped after a checkpoint. See to the head "
        "(`rayrnn status`), then go on with --resume"
    )


def nodeless(run: Run) -> RunError:
    """Ray ends this process without a word a few seconds later."""
    return RunError(
        f"Ray's head, or a process of the run beside it, was lost or does not answer; more is in {run.log}. "
        "`rayrnn status` says whether Ray is there; go on from the last checkpoint with --resume"
    )


def without_a_word(run: Run) -> RunError:
    """The workers have ended, and none said why."""
    return RunError(
        f"the run failed: the workers left without a word\nmore is in {run.log}; go on from the last checkpoint with "
        "--resume"
    )


@contextmanager
def accidents_told(run: Run, warn: Callable[[str], None]) -> Iterator[None]:
    """Have the run say so when a thread dies for which nothing else is foreseen.

    Raises:
        RunError: in the place of an error that nobody foresaw, whose traceback is in the run's log then.
    """

    def tell(words: str, trace: str) -> None:
        with suppress(OSError):
            run.append_log(trace)
        warn(f"{words}; its traceback is in {run.log}")

    try:
        with deaths_told(tell):
            yield
    except RayrnnError:
        raise
    except Exception as error:
        with suppress(OSError):
            run.append_log("".join(traceback.format_exception(error)))
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        # Ray's own account of a task ends with what it raised
        words = lines[-1] if isinstance(error, RayError) else f"{type(error).__name__}: {lines[0]}"
        raise RunError(f"the run failed: {words[:500]}; its traceback is in {run.log}") from error
