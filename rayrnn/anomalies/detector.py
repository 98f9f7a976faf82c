"""What the normal part says of scores, and what is out of the ordinary by that.

Fitted on sequences that were held out of learning and are taken for normal. S steps with a score, K scores of a step:
one a number of a forecast that counts, or one of a symbol.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from rayrnn.anomalies.intervals import widened, without_short
from rayrnn.anomalies.scores import smoothed
from rayrnn.anomalies.thresholds import DynamicThreshold, quantile_of
from rayrnn.errors import DataError
from rayrnn.recipe.detect_section import Detect, judges_sequences

#: a sequence with fewer held-out scores than these is judged by what holds for all
FEWEST_SCORES = 30
#: a sequence's normal error counts as at least this share of that of all: where the network is never wrong, any error
#: would be infinitely many times the normal one
LEAST_SCALE = 0.02


@dataclass(frozen=True)
class Normal:
    """What is normal in some sequences."""

    #: K mean errors, in which errors are counted; 1 for symbols
    scales: tuple[float, ...]
    #: above it a score is out of the ordinary
    threshold: float
    #: that it was fitted on: of steps, or of sequences
    num_scores: int


@dataclass(frozen=True)
class Judged:
    """One sequence, judged."""

    #: of every step that has one, smoothed, NaN where steps are not judged (`warmup`): float64 [S]
    scores: np.ndarray
    #: decide `steps`: float64 [S], bool [S]
    thresholds: np.ndarray
    flags: np.ndarray
    #: decide `sequences`: of the whole; NaN where no step has a score
    score: float
    threshold: float

    @property
    def is_anomalous(self) -> bool:
        """Whether the whole sequence is (decide `sequences`)."""
        return self.score > self.threshold


@dataclass(frozen=True)
class Detector:
    """Judges sequences by what is normal. Small: it travels to the tasks.

    Args:
        kind: what steps are scored by, a name of `Detectable.scores`.
    """

    kind: str
    settings: Detect
    together: Normal
    #: fit `each`: by the sequences' names
    each: Mapping[str, Normal] = field(default_factory=dict)

    @property
    def by_sequence(self) -> bool:
        """Whether whole sequences are judged, not steps."""
        return judges_sequences(self.settings, self.kind)

    def normal(self, key: str) -> Normal:
        """What is normal in a sequence of this name."""
        return self.each.get(key, self.together)

    def judge(self, key: str, raw_SK: np.ndarray) -> Judged:
        """Judge a sequence by the unsmoothed, unscaled scores of its steps.

        Raises:
            DataError: one of them is not a finite number; names the sequence.
        """
        check_finite(key, raw_SK)
        normal = self.normal(key)
        if self.by_sequence:
            scores_S = step_scores(raw_SK, normal.scales, self.settings, self.kind)
            nothing_S = np.zeros(len(scores_S), bool)
            score = sequence_score(scores_S, self.settings, self.kind) if len(scores_S) else np.nan
            return Judged(scores_S, np.full(len(scores_S), np.nan), nothing_S, score, normal.threshold)
        begin = min(self.settings.warmup, len(raw_SK))
        scores_S = step_scores(raw_SK[begin:], normal.scales, self.settings, self.kind)
        thresholds_S, above_S = self._compare(scores_S, normal.threshold)
        flags_S = widened(without_short(np.pad(above_S, (begin, 0)), self.settings.shortest), self.settings.buffer)
        return Judged(
            np.pad(scores_S, (begin, 0), constant_values=np.nan),
            np.pad(thresholds_S, (begin, 0), constant_values=normal.threshold),
            flags_S,
            float(scores_S.max(initial=0.0)),
            normal.threshold,
        )

    def _compare(self, scores_S: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        if self._dynamic is not None and len(scores_S):
            return self._dynamic.apply(scores_S, threshold)
        return np.full(len(scores_S), threshold), scores_S > threshold

    @cached_property
    def _dynamic(self) -> DynamicThreshold | None:
        if self.settings.threshold != "dynamic":
            return None
        return DynamicThreshold(
            window=self.settings.window,
            lowest_z=self.settings.lowest_z,
            highest_z=self.settings.highest_z,
            pruning=self.settings.pruning,
            buffer=self.settings.buffer,
        )


def step_scores(raw_SK: np.ndarray, scales: tuple[float, ...], settings: Detect, kind: str) -> np.ndarray:
    """One score a step: the mean of its errors, each in multiples of the normal one, smoothed. float64 [S]."""
    scores_S = (raw_SK / np.array(scales)).mean(axis=1)
    return scores_S if judges_sequences(settings, kind) else smoothed(scores_S, settings.smoothing)


def sequence_score(scores_S: np.ndarray, settings: Detect, kind: str) -> float:
    """The sum over the steps; of ranks, how many symbols are not among the likeliest (Du et al., DeepLog, CCS 2017)."""
    return float((scores_S > settings.top).sum() if kind == "rank" else scores_S.sum())


def fit_detector(raw: Sequence[tuple[str, np.ndarray]], kind: str, settings: Detect) -> Detector:
    """Fit what is normal.

    Args:
        raw: of every held-out sequence its name, and the unscaled scores [S, K] of its steps.

    Raises:
        DataError: there is no score, or one is not a finite number.
    """
    for key, raw_SK in raw:
        check_finite(key, raw_SK)
    begin = 0 if judges_sequences(settings, kind) else settings.warmup
    raw = [(key, raw_SK[begin:]) for key, raw_SK in raw if len(raw_SK) > begin]
    if not raw:
        after = f" after the first {begin} (detect.warmup)" if begin else ""
        raise DataError(
            f"no step of the held-out sequences has a score{after}: they are too short; hold out longer ones"
        )
    scales = _scales(np.concatenate([raw_SK for _, raw_SK in raw]), kind)
    together = _normal([raw_SK for _, raw_SK in raw], scales, settings, kind)
    each = _each(raw, scales, settings, kind) if settings.fit == "each" and not judges_sequences(settings, kind) else {}
    return Detector(kind, settings, together, each)


def _each(
    raw: Sequence[tuple[str, np.ndarray]], scales: tuple[float, ...], settings: Detect, kind: str
) -> dict[str, Normal]:
    """What is normal in every sequence that has scores enough."""
    named: dict[str, list[np.ndarray]] = {}
    for key, raw_SK in raw:
        named.setdefault(key, []).append(raw_SK)
    each = {}
    for key, pieces in named.items():
        together_SK = np.concatenate(pieces)
        if len(together_SK) >= FEWEST_SCORES:
            own_K = np.maximum(together_SK.mean(axis=0), LEAST_SCALE * np.array(scales))
            each[key] = _normal(pieces, tuple(own_K.tolist()) if kind == "error" else scales, settings, kind)
    return each


def _scales(raw_SK: np.ndarray, kind: str) -> tuple[float, ...]:
    """The mean error of every number; where there is none at all errors are counted as they are."""
    if kind != "error":
        return (1.0,) * int(raw_SK.shape[1])
    means_K: list[float] = raw_SK.mean(axis=0).tolist()
    return tuple(mean if mean > 0 else 1.0 for mean in means_K)


def _normal(raw: list[np.ndarray], scales: tuple[float, ...], settings: Detect, kind: str) -> Normal:
    scores = [step_scores(raw_SK, scales, settings, kind) for raw_SK in raw]
    if judges_sequences(settings, kind):
        every = np.array([sequence_score(scores_S, settings, kind) for scores_S in scores])
    else:
        every = np.concatenate(scores)
    return Normal(scales, settings.margin * quantile_of(every, settings.quantile), len(every))


def check_finite(key: str, raw_SK: np.ndarray) -> None:
    """
    Raises:
        DataError: a score is not a finite number; names the sequence.
    """
    broken = np.flatnonzero(~np.isfinite(raw_SK).all(axis=1))
    if len(broken):
        raise DataError(
            f"sequence {key!r}: the network's answer is not a finite number, {broken[0]} steps after the first that "
            "has a score: the run has diverged, or the values lie far off what it learned; train it at a lower "
            "training.learning_rate, or set data.normalize: standardize"
        )
