"""Where a score begins to be out of the ordinary.

The quantile comes from normal scores alone. The dynamic threshold is computed from the very scores that it judges, so
that it follows a series that gets noisier; it is that of Hundman et al., Detecting Spacecraft Anomalies Using LSTMs and
Nonparametric Dynamic Thresholding, KDD 2018 (arXiv:1802.04431), section 3.2 and 3.3. S steps with a score.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rayrnn.anomalies.intervals import intervals, widened

#: of the scores in a window, that are judged anew before the window moves on: 70 of 2,100 in the authors' program
MOVES_A_WINDOW = 30
#: z is looked for in steps of this size, as the authors' program does
Z_STEP = 0.5
#: a threshold under which a window would have more events than these, or more of its steps than this share, is none
MOST_EVENTS = 5
LARGEST_SHARE = 0.5


def quantile_of(scores_S: np.ndarray, share: float) -> float:
    """The smallest of the scores that at least this share of them does not exceed."""
    return float(np.quantile(scores_S, share, method="inverted_cdf"))


@dataclass(frozen=True)
class DynamicThreshold:
    """A threshold that is chosen anew for every window, so that what is above it stands out most."""

    #: scores that a threshold is computed from: the one judged and those before it
    window: int
    #: of the standard deviations that the threshold lies above the window's mean
    lowest_z: float
    highest_z: float
    #: an event is dropped where the largest scores do not fall by this share below it
    pruning: float
    #: steps that belong to an event on both sides of what is above the threshold
    buffer: int

    def apply(self, scores_S: np.ndarray, floor: float) -> tuple[np.ndarray, np.ndarray]:
        """The threshold at every step, and whether its score is above it and was not pruned: float64 [S], bool [S].

        The first window judges all its steps, each later one its newest: a step is judged by no score that comes more
        than a window after it, which means that the first window looks ahead.

        Args:
            floor: what no threshold is lower than.
        """
        thresholds_S, above_S = np.full(len(scores_S), floor), np.zeros(len(scores_S), bool)
        stride = max(1, self.window // MOVES_A_WINDOW)
        ends = range(min(self.window, len(scores_S)), len(scores_S) + stride, stride)
        judged = 0
        for end in (min(end, len(scores_S)) for end in ends):
            start = max(0, end - self.window)
            own = scores_S[start:end]
            threshold = max(self._choose(own), floor)
            above = self._pruned(own, own > threshold)
            thresholds_S[judged:end], above_S[judged:end] = threshold, above[judged - start :]
            judged = end
        return thresholds_S, above_S

    def _choose(self, scores_W: np.ndarray) -> float:
        """The threshold of one window of W scores: equation 3 of the paper."""
        mean, deviation = float(scores_W.mean()), float(scores_W.std())
        best, chosen = 0.0, mean + self.highest_z * deviation
        if deviation <= 0 or mean <= 0:
            return chosen
        for z in np.arange(self.lowest_z, self.highest_z + Z_STEP / 2, Z_STEP).tolist():
            threshold = mean + z * deviation
            above = scores_W > threshold
            if not above.any():
                break
            with_buffer = widened(above, self.buffer)
            events, num_steps, below = len(intervals(with_buffer)), int(with_buffer.sum()), scores_W[~above]
            if events > MOST_EVENTS or num_steps >= LARGEST_SHARE * len(scores_W):
                continue
            gained = (mean - below.mean()) / mean + (deviation - below.std()) / deviation
            if (value := float(gained) / (num_steps + events**2)) >= best:
                best, chosen = value, threshold
        return chosen

    def _pruned(self, scores_W: np.ndarray, above_W: np.ndarray) -> np.ndarray:
        """Without the events that hardly stand out from the next lower one, or from all the rest: section 3.3."""
        with_buffer = widened(above_W, self.buffer)
        events = intervals(with_buffer)
        if not events or with_buffer.all():
            return above_W
        largest = [float(scores_W[start : end + 1].max()) for start, end in events]
        order = sorted(range(len(events)), key=lambda number: -largest[number])
        falling = [*(largest[number] for number in order), float(scores_W[~with_buffer].max())]
        falls = [(high - low) / high for high, low in pairwise(falling)]
        kept = max((place + 1 for place, fall in enumerate(falls) if fall > self.pruning), default=0)
        left = above_W.copy()
        for number in order[kept:]:
            start, end = events[number]
            left[start : end + 1] = False
        return left
