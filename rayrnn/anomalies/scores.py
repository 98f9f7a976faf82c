"""How far each step of a sequence is from what a network expected of it.

S steps with a score, V symbols, O numbers of a forecast.
"""

import numpy as np

#: nats; a symbol that the network has never seen has no probability, and is as surprising as the unlikeliest one
MOST_SURPRISE = 100.0


def absolute_errors(forecasts_SO: np.ndarray, targets_SO: np.ndarray) -> np.ndarray:
    """The distance of every number from its forecast: float64 [..., O]."""
    errors: np.ndarray = np.abs(forecasts_SO.astype(np.float64) - targets_SO)
    return errors


def surprises(logits_SV: np.ndarray, targets_S: np.ndarray) -> np.ndarray:
    """-ln p of the symbol that came, in nats, at most MOST_SURPRISE: float64 [...]."""
    largest = logits_SV.max(axis=-1, keepdims=True)
    log_sums_S = np.log(np.exp(logits_SV - largest).sum(axis=-1, dtype=np.float64))
    own_S = np.take_along_axis(logits_SV - largest, targets_S[..., None], axis=-1)[..., 0]
    bounded: np.ndarray = np.minimum(log_sums_S - own_S, MOST_SURPRISE)  # NaN stays NaN
    return bounded


def ranks(logits_SV: np.ndarray, targets_S: np.ndarray) -> np.ndarray:
    """The place of the symbol that came among all symbols, the likeliest being 1: float64 [...].

    Of symbols that are equally likely each has the last of their places. NaN where a logit is.
    """
    own_S = np.take_along_axis(logits_SV, targets_S[..., None], axis=-1)
    places_S = (logits_SV >= own_S).sum(axis=-1).astype(np.float64)
    return np.where(np.isnan(logits_SV).any(axis=-1), np.nan, places_S)


def smoothed(scores_S: np.ndarray, span: int) -> np.ndarray:
    """The exponentially weighted mean of every score and those before it, float64 [S].

    A score weighs 1 - 2 / (span + 1) times what the next one weighs; the weights of a mean add up to 1.

    Args:
        span: in steps; 0 or 1 leaves the scores as they are.
    """
    if span <= 1:
        return scores_S.astype(np.float64)
    decay = 1 - 2 / (span + 1)
    total = weight = 0.0
    means = np.empty(len(scores_S))
    for step, score in enumerate(scores_S.tolist()):
        total, weight = decay * total + score, decay * weight + 1
        means[step] = total / weight
    return means
