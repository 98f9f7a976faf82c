"""What the user is told when a run cannot go on."""

from collections import Counter

from ray.exceptions import GetTimeoutError, RayActorError

from rayrnn.errors import ClusterError, Interrupted, RayrnnError, RunError
from rayrnn.recipe import Recipe
from rayrnn.runs.directory import Run
from rayrnn.runs.layout import MODEL, RECIPE
from rayrnn.training.coordinator import Event

#: so many exceptions, or deaths, of each worker without a round between end the run
STRIKES_A_WORKER = {"exception": 2, "restart": 5}


class Strikes:
    """Counts the workers' failures since the last round: what fails every time is no accident."""

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers
        self._counts: Counter[str] = Counter()

    def forget(self) -> None:
        """A round was learned."""
        self._counts.clear()

    def too_many(self, kind: str) -> int:
        """Count one more failure of this kind; how many they are when that is enough, else 0."""
        self._counts[kind] += 1
        return self._counts[kind] if self._counts[kind] >= STRIKES_A_WORKER[kind] * self._num_workers else 0


def broken(event: Event, recipe: Recipe, run: Run) -> RunError:
    """The loss or the parameters stopped being finite; `event` is the round it happened in."""
    culprit, training = event["culprit"], recipe.training
    return RunError(
        f"the loss of worker {culprit['worker']} is not finite: round {event['round']:,}, update {culprit['update']:,} "
        f"of the round; the run stopped. Lower training.learning_rate (now {training.learning_rate:g}) or "
        f"training.clip (now {training.clip:g}); the last good checkpoint is kept in {run.checkpoints}"
    )


def interrupted(round_number: int, run: Run) -> Interrupted:
    """The user stopped the run after so many rounds."""
    return Interrupted(
        f"stopped after round {round_number:,}; the checkpoint is in {run.checkpoints}",
        resume=f"rayrnn train {run.path / RECIPE} --out {run.name} --resume",
    )


def unexpected(event: Event, run: Run) -> RunError:
    """Workers fail again and again, in the same way."""
    return RunError(
        f"worker {event['worker']} failed {event['times']} times without a round between: {event['error']}\n"
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


def without_a_word(error: BaseException | None, run: Run) -> RayrnnError:
    """Ray Train ended, and no worker said why: the first error under whatever it was wrapped in."""
    while error is not None and isinstance(cause := getattr(error, "cause", None) or error.__cause__, Exception):
        error = cause
    if isinstance(error, RayrnnError):
        return error
    if isinstance(error, (RayActorError, GetTimeoutError)):  # whose own words are about actors and leases
        return RunError(
            f"Ray's head, or a process of the run beside it, was lost or does not answer ({type(error).__name__}); "
            f"more is in {run.log}. `rayrnn status` says whether Ray is there; go on from the last checkpoint with "
            "--resume"
        )
    reason = f"{type(error).__name__}: {error}" if error is not None else "the workers left without a word"
    return RunError(f"the run failed: {reason}\nmore is in {run.log}; go on from the last checkpoint with --resume")
