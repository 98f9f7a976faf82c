"""What to try next, and what to stop: Optuna, with what it knows in a file of plain JSON lines beside the trials.

Settings are drawn by TPE, or from a grid where there are no more combinations than trials. Trials that are worse than
two thirds of the others at the same number of evaluations are stopped early (ASHA; Li et al. 2018, asynchronous
successive halving).
"""

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from rayrnn.errors import RunError
from rayrnn.training.progress import Monitor
from rayrnn.tuning.ranges import Choice, Range, Values, Varied, said

#: of the trials that come so far, one in so many goes on
REDUCTION = 3
#: evaluations of a whole run for one at which trials are first compared
RUNGS = 9
_FOLDER = "folder"


@dataclass(frozen=True)
class Settled:
    """A trial that ended before the search was gone on with."""

    folder: str
    values: Values
    #: in Optuna's words: it was stopped early, or failed; else it came to its end
    pruned: bool
    failed: bool
    best: float | None


@dataclass
class Asked:
    """One trial's settings, and what it has said so far."""

    folder: str
    values: Values
    trial: optuna.Trial
    #: evaluations that were reported
    evaluations: int = 0
    best: float | None = None


class Study:
    """What is known of a search.

    Args:
        file: where it is kept; what is there already is gone on with.
        evaluations: that a whole run has.
    """

    def __init__(
        self, file: Path, varied: Sequence[Varied], monitor: Monitor, *, trials: int, evaluations: int, seed: int
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._monitor = monitor
        self._distributions = {one.key: _distribution(one) for one in varied}
        try:
            self._study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(file))),
                study_name="rayrnn",
                load_if_exists=True,
                direction="maximize" if monitor.higher_is_better else "minimize",
                sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(4, min(10, trials // 3))),
                pruner=optuna.pruners.SuccessiveHalvingPruner(
                    min_resource=max(1, evaluations // RUNGS), reduction_factor=REDUCTION
                ),
            )
            past = self._study.get_trials(deepcopy=False)
            if not past and combinations(varied) <= trials:
                for values in _grid(varied, seed):
                    self._study.enqueue_trial(values)
        except Exception as error:  # whatever a file that is damaged makes of it
            raise RunError(f"{file} cannot be gone on from: {type(error).__name__}: {error}") from None
        self.num_folders = len({trial.user_attrs.get(_FOLDER) for trial in past} - {None})
        #: what a search that is gone on with has come to already
        self.settled = self._settled(past)
        self._requeue(past)

    def _settled(self, past: Sequence[optuna.trial.FrozenTrial]) -> list[Settled]:
        found: dict[str, Settled] = {}
        for trial in past:  # of a folder that was gone on with, the last one counts
            folder = trial.user_attrs.get(_FOLDER)
            if folder is not None:
                found.pop(folder, None)
            if folder is not None and trial.state.is_finished():
                best: float | None = None
                for value in trial.intermediate_values.values():
                    best = value if self._monitor.prefers(value, best) else best
                pruned, failed = trial.state == TrialState.PRUNED, trial.state == TrialState.FAIL
                found[folder] = Settled(folder, _said(trial.params), pruned, failed, best)
        return list(found.values())

    def _requeue(self, past: Sequence[optuna.trial.FrozenTrial]) -> None:
        """What was under way when the search ended is asked for first, in its old folder."""
        for trial in past:
            if trial.state == TrialState.RUNNING:
                self._study.tell(trial.number, state=TrialState.FAIL)
                if _FOLDER in trial.user_attrs:
                    self._study.enqueue_trial(trial.params, user_attrs={_FOLDER: trial.user_attrs[_FOLDER]})

    def ask(self) -> Asked:
        """The settings to try next; those of a trial that was under way come with its folder."""
        trial = self._study.ask(self._distributions)
        folder = trial.user_attrs.get(_FOLDER)
        if folder is None:
            folder = f"trial-{self.num_folders:03d}"
            self.num_folders += 1
            trial.set_user_attr(_FOLDER, folder)
        return Asked(folder, _said(trial.params), trial)

    def has_next(self, trials: int) -> bool:
        """Whether something is left to try, if these are all trials."""
        return self.num_folders < trials or bool(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def report(self, asked: Asked, value: float) -> bool:
        """The monitor's value of a trial's next evaluation; whether it is to be stopped."""
        asked.evaluations += 1
        if math.isfinite(value):
            if self._monitor.prefers(value, asked.best):
                asked.best = value
            asked.trial.report(value, asked.evaluations)
        return asked.trial.should_prune()

    def finish(self, asked: Asked) -> None:
        """It has learned to its end."""
        state = TrialState.COMPLETE if asked.best is not None else TrialState.FAIL
        self._study.tell(asked.trial, asked.best, state=state)

    def stop(self, asked: Asked) -> None:
        """It was stopped early."""
        self._study.tell(asked.trial, state=TrialState.PRUNED)

    def fail(self, asked: Asked) -> None:
        """Its settings cannot be learned with."""
        self._study.tell(asked.trial, state=TrialState.FAIL)


def _said(params: Mapping[str, Any]) -> Values:
    return {key: said(value) for key, value in params.items()}


def combinations(varied: Sequence[Varied]) -> float:
    """How many there are; infinite with a range."""
    return math.prod(len(one.values) if isinstance(one, Choice) else math.inf for one in varied)


def _grid(varied: Sequence[Varied], seed: int) -> list[dict[str, str]]:
    """Every combination once, in an order of chance."""
    choices = [[(one.key, value) for value in one.values] for one in varied if isinstance(one, Choice)]
    grid = [dict(combination) for combination in itertools.product(*choices)]
    random.Random(seed).shuffle(grid)
    return grid


def _distribution(one: Varied) -> BaseDistribution:
    if isinstance(one, Choice):
        return CategoricalDistribution(one.values)
    kind: Any = IntDistribution if one.whole else FloatDistribution
    assert isinstance(one, Range)
    distribution: BaseDistribution = kind(one.low, one.high, log=one.by_log)
    return distribution
