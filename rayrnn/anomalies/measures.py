"""How good detections are, measured against events that are known. N sequences, S steps.

An event is found where a detected one shares a step with it. A detected event that shares no step with any is a false
alarm. Several detected events that share steps with one are one hit, as in Hundman et al. (arXiv:1802.04431).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

from rayrnn.anomalies.intervals import Interval, flags, intervals, overlap

#: a score of the UCR archive's, as far off an event's ends as this or as the event is long, hits it
UCR_STEPS = 100

Measures = dict[str, float | int | None]


@dataclass(frozen=True)
class Compared:
    """One sequence: what was found, and what is known."""

    #: of every step, NaN where it has none: float64 [S]
    scores: np.ndarray
    #: whether every step was found to lie in an event: bool [S]
    flags: np.ndarray
    #: in order, without a step in common
    events: Sequence[Interval]


def step_measures(sequences: Sequence[Compared]) -> Measures:
    """By event, by step, the UCR archive's, and the one that misleads."""
    true = [flags(one.events, len(one.flags)) for one in sequences]
    return {
        **event_measures(sequences),
        **ranking(np.concatenate([one.scores for one in sequences]), np.concatenate(true)),
        **ucr_hits(sequences),
        "point_adjusted_f1_misleading": point_adjusted_f1(sequences),
    }


def event_measures(sequences: Sequence[Compared]) -> Measures:
    """Precision, recall and F1 by event, pooled over all sequences; and the share of all steps that was flagged.

    Whoever flags every step finds every event without a false alarm: F1 says little where the share is large.
    """
    hits = misses = false_alarms = 0
    share = np.concatenate([one.flags for one in sequences]).mean()
    for one in sequences:
        found = intervals(one.flags)
        own = sum(any(overlap(event, other) for other in found) for event in one.events)
        hits, misses = hits + own, misses + len(one.events) - own
        false_alarms += sum(not any(overlap(other, event) for event in one.events) for other in found)
    return {
        "events": hits + misses,
        "found": hits,
        "false_alarms": false_alarms,
        **_scores(hits, false_alarms, misses),
        "flagged_share": float(share),
    }


def sequence_measures(scores_N: np.ndarray, flags_N: np.ndarray, true_N: np.ndarray) -> Measures:
    """The same where whole sequences are judged: how many of the anomalous ones were flagged, and of the others."""
    hits, false_alarms = int((flags_N & true_N).sum()), int((flags_N & ~true_N).sum())
    anomalous, normal = int(true_N.sum()), int((~true_N).sum())
    return {
        "anomalous": anomalous,
        "normal": normal,
        "found": hits,
        "false_alarms": false_alarms,
        **_scores(hits, false_alarms, anomalous - hits),
        "false_alarm_rate": false_alarms / normal if normal else None,
        **ranking(scores_N, true_N),
    }


def _scores(hits: int, false_alarms: int, misses: int) -> Measures:
    """None where nothing was found, or nothing was to be found."""
    return {
        "precision": hits / (hits + false_alarms) if hits + false_alarms else None,
        "recall": hits / (hits + misses) if hits + misses else None,
        "f1": 2 * hits / (2 * hits + false_alarms + misses) if hits + false_alarms + misses else None,
    }


def ranking(scores_S: np.ndarray, true_S: np.ndarray) -> Measures:
    """AUROC and average precision: how well the scores alone, without a threshold, part the two; None for one kind."""
    there = ~np.isnan(scores_S)
    scores_S, true_S = scores_S[there], true_S[there]
    if not true_S.any() or true_S.all():
        return {"auroc": None, "average_precision": None}
    # torchmetrics takes a sigmoid of what is not between 0 and 1, and that of all large scores is 1: so their places
    _, places_S = np.unique(scores_S, return_inverse=True)
    shares = torch.from_numpy(places_S / max(1, int(places_S.max())))
    answers = torch.from_numpy(true_S.astype(np.int64))
    return {
        name: float(metric(shares.double(), answers))
        for name, metric in (("auroc", BinaryAUROC()), ("average_precision", BinaryAveragePrecision()))
    }


def ucr_hits(sequences: Sequence[Compared]) -> Measures:
    """The share of sequences with one event whose largest score lies at it, or near.

    Near is at most UCR_STEPS away, or as far as the event is long, as the UCR archive counts (Wu and Keogh, Current
    Time Series Anomaly Detection Benchmarks are Flawed, arXiv:2009.13807, and the archive's own notes).
    """
    hits = [_is_hit(one) for one in sequences if len(one.events) == 1 and not np.isnan(one.scores).all()]
    return {"ucr_hit": sum(hits) / len(hits) if hits else None, "ucr_sequences": len(hits)}


def _is_hit(one: Compared) -> bool:
    ((start, end),) = one.events
    near = max(UCR_STEPS, end - start + 1)
    return start - near <= int(np.nanargmax(one.scores)) <= end + near


def point_adjusted_f1(sequences: Sequence[Compared]) -> float | None:
    """F1 by step, where an event that was found at one step counts as found at all of them.

    Random scores reach high values by it (Kim et al., Towards a Rigorous Evaluation of Time-Series Anomaly Detection,
    AAAI 2022): it is here so that figures can be compared with those that others gave, and for nothing else.
    """
    hits = false_alarms = misses = 0
    for one in sequences:
        adjusted_S = one.flags.copy()
        for start, end in one.events:
            adjusted_S[start : end + 1] = one.flags[start : end + 1].any()
        true_S = flags(one.events, len(adjusted_S))
        hits += int((adjusted_S & true_S).sum())
        false_alarms += int((adjusted_S & ~true_S).sum())
        misses += int((~adjusted_S & true_S).sum())
    value = _scores(hits, false_alarms, misses)["f1"]
    return None if value is None or math.isnan(value) else float(value)


def shown(measures: Mapping[str, float | int | None]) -> list[tuple[str, str]]:
    """Titles and values as people read them."""
    return [(_TITLES.get(name, name.replace("_", " ")), _value(value)) for name, value in measures.items()]


_TITLES = {
    "f1": "F1",
    "auroc": "AUROC",
    "flagged_share": "steps flagged",
    "ucr_hit": "UCR hit",
    "ucr_sequences": "UCR sequences",
    "point_adjusted_f1_misleading": "point-adjusted F1 (misleading: chance alone makes it high)",
}


def _value(value: float | int | None) -> str:
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
