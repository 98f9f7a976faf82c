"""Runs of steps that belong together: found, widened, sifted and merged. S steps.

An interval is its first and its last step, both in it.
"""

from collections.abc import Iterable

import numpy as np

Interval = tuple[int, int]


def intervals(flags_S: np.ndarray) -> list[Interval]:
    """The longest runs of True, in order."""
    edges = np.diff(np.concatenate([[False], flags_S, [False]]).astype(np.int8))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def flags(found: Iterable[Interval], count: int) -> np.ndarray:
    """The inverse: True at the steps of `count` that lie in an interval."""
    inside_S = np.zeros(count, bool)
    for start, end in found:
        inside_S[start : end + 1] = True
    return inside_S


def widened(flags_S: np.ndarray, buffer: int) -> np.ndarray:
    """True also so many steps before and after every True."""
    if not buffer:
        return flags_S
    return flags([(max(0, start - buffer), end + buffer) for start, end in intervals(flags_S)], len(flags_S))


def without_short(flags_S: np.ndarray, shortest: int) -> np.ndarray:
    """Without the runs of fewer steps than `shortest`."""
    return flags([(start, end) for start, end in intervals(flags_S) if end - start + 1 >= shortest], len(flags_S))


def merged(found: Iterable[Interval]) -> list[Interval]:
    """In order, those that share a step made one."""
    whole: list[Interval] = []
    for start, end in sorted(found):
        if whole and start <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(end, whole[-1][1]))
        else:
            whole.append((start, end))
    return whole


def overlap(one: Interval, other: Interval) -> bool:
    """Whether two intervals share a step."""
    return one[0] <= other[1] and other[0] <= one[1]
