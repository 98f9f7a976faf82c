"""What a detector says of rows, as columns: in tasks they are made, in the driver they are read again.

    key        string           the sequence's name
    score      list<float64>    of every step, null where it is not judged (nothing foretells it, or `warmup`)
    threshold  list<float64>    above which a step's score is out of the ordinary
    anomaly    list<bool>       whether the step lies in an event

Where whole sequences are judged each is one value, not a list: the sum of the steps' scores, and what it means.
Columns whose names begin with an underscore are for pictures, and are not written.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import ray
import torch

from rayrnn.anomalies.detector import Detector, Judged
from rayrnn.anomalies.intervals import intervals
from rayrnn.data.arrow_lists import flat, numbers, side_by_side, unwrap, wrap
from rayrnn.data.rows import canonical, step_counts
from rayrnn.prediction.predict import told_apart
from rayrnn.prediction.step_scores import Scorer, raw_scores

_NUMBERS, _FLAGS = pa.list_(pa.float64()), pa.list_(pa.bool_())
#: what a picture needs beside the answers
SHOWN = ("_values", "_symbols", "_step_scores")
_PICTURE = pa.schema(
    {"_values": pa.list_(pa.list_(pa.float64())), "_symbols": pa.list_(pa.string()), "_step_scores": _NUMBERS}
)


def judge_block(block: pa.Table, reference: ray.ObjectRef, pictured: bool) -> Iterator[pa.Table]:
    """Judge the rows of a block of any source.

    Args:
        reference: of a Scorer and a Detector.
        pictured: whether what pictures need is wanted too.
    """
    scorer: Scorer
    detector: Detector
    scorer, detector = ray.get(reference)
    judge = functools.partial(_judge, scorer=scorer, detector=detector, pictured=pictured)
    yield from told_apart(block, judge, _columns(detector.by_sequence, pictured).empty_table())


def _judge(block: pa.Table, scorer: Scorer, detector: Detector, *, pictured: bool) -> Iterator[pa.Table]:
    if "label" in block.column_names:
        block = block.drop_columns(["label"])
    rows, network = (
        canonical(block, scorer.needs, labelled=False),
        scorer.model.network(),
    )
    for piece in scorer.model.slices(rows):
        yield _judge_rows(piece, scorer, detector, network, pictured=pictured)


def _columns(by_sequence: bool, pictured: bool) -> pa.Schema:
    score, flag = (pa.float64(), pa.bool_()) if by_sequence else (_NUMBERS, _FLAGS)
    own = pa.schema({"key": pa.string(), "score": score, "threshold": score, "anomaly": flag})
    return pa.unify_schemas([own, _PICTURE]) if pictured else own


def _judge_rows(
    rows: pa.Table, scorer: Scorer, detector: Detector, network: torch.nn.Module, *, pictured: bool
) -> pa.Table:
    keys, steps = rows["key"].to_pylist(), step_counts(rows)
    raw = raw_scores(rows, scorer, network)
    judged = [detector.judge(key, raw_SK) for key, raw_SK in zip(keys, raw, strict=True)]
    columns: dict[str, object] = {"key": keys}
    if detector.by_sequence:
        columns["score"] = [None if np.isnan(one.score) else one.score for one in judged]
        columns["threshold"] = [one.threshold for one in judged]
        columns["anomaly"] = [one.is_anomalous for one in judged]
    else:
        columns["score"] = _per_step([one.scores for one in judged], steps)
        columns["threshold"] = _per_step([one.thresholds for one in judged], steps)
        columns["anomaly"] = _flags_per_step(judged, steps)
    if pictured:
        columns |= _for_pictures(rows, scorer, judged, steps)
    return pa.table(columns, schema=_columns(detector.by_sequence, pictured))


def _per_step(scores: list[np.ndarray], steps: np.ndarray) -> pa.Array:
    """One list a sequence, null at its first steps, which have no score."""
    padded = [
        np.concatenate([np.full(count - len(own), np.nan), own]) for own, count in zip(scores, steps, strict=True)
    ]
    return wrap(pa.array(np.concatenate(padded), from_pandas=True), steps)  # from_pandas: NaN is null


def _flags_per_step(judged: list[Judged], steps: np.ndarray) -> pa.Array:
    padded = [
        np.concatenate([np.zeros(count - len(one.flags), bool), one.flags])
        for one, count in zip(judged, steps, strict=True)
    ]
    return wrap(pa.array(np.concatenate(padded)), steps)


def _for_pictures(rows: pa.Table, scorer: Scorer, judged: list[Judged], steps: np.ndarray) -> dict[str, object]:
    shown: dict[str, object] = {name: pa.nulls(len(rows), _PICTURE.field(name).type) for name in SHOWN}
    if "values" in rows.column_names:
        values = scorer.shown_numbers(rows)
        shown["_values"] = wrap(side_by_side(values.reshape(-1), values.shape[1]).cast(_NUMBERS), steps)
    elif "symbols" in rows.column_names:
        shown["_symbols"] = flat(rows["symbols"])
    else:
        shown["_symbols"] = [list(text) for text in rows["text"].to_pylist()]
    shown["_step_scores"] = _per_step([one.scores for one in judged], steps)
    return shown


def only_answers_of(block: pa.Table) -> pa.Table:
    """A block without what is for pictures."""
    return block.drop_columns([name for name in SHOWN if name in block.column_names])


@dataclass(frozen=True)
class Steps:
    """The S steps of one sequence, for measures and pictures."""

    #: NaN where a step has none: float64 [S]
    scores: np.ndarray
    thresholds: np.ndarray
    flags: np.ndarray
    #: float64 [S, C], or S symbols; nothing where no picture is wanted
    values: np.ndarray | list[str]


@dataclass(frozen=True)
class Found:
    """What was found in one sequence."""

    key: str
    #: its steps; those of them that have a score, and those that lie in events
    num_steps: int
    num_scored: int
    num_anomalous: int
    #: first step, last step, and largest score of every event
    events: tuple[tuple[int, int, float], ...]
    #: of the whole where that is judged, else the largest of the steps'; NaN where no step has one
    score: float
    is_anomalous: bool
    #: None where it is not wanted
    steps: Steps | None


def found_in(block: pa.Table, *, by_sequence: bool, with_steps: bool) -> Iterator[Found]:
    """Read what `judge_block` found in every sequence of a block.

    Args:
        with_steps: whether scores of all steps are wanted; where sequences are judged only pictures have them.
    """
    keys = block["key"].to_pylist()
    if by_sequence:
        pieces = _steps_of(block, "_step_scores") if "_step_scores" in block.column_names else [None] * len(keys)
        scores, flags = block["score"].to_pylist(), block["anomaly"].to_pylist()
        for key, score, is_anomalous, steps in zip(keys, scores, flags, pieces, strict=True):
            yield Found(key, 0, 0, 0, (), np.nan if score is None else score, is_anomalous, steps)
        return
    for key, steps in zip(keys, _steps_of(block, "score"), strict=True):
        events = tuple(
            (start, end, float(np.nanmax(steps.scores[start : end + 1]))) for start, end in intervals(steps.flags)
        )
        scored = int((~np.isnan(steps.scores)).sum())
        largest = float(np.nanmax(steps.scores)) if scored else np.nan
        sizes = (len(steps.scores), scored, int(steps.flags.sum()))
        yield Found(key, *sizes, events, largest, bool(events), steps if with_steps else None)


def _steps_of(block: pa.Table, name: str) -> Iterator[Steps]:
    """The steps of every row, whose scores are in the column `name`."""
    sizes, scores = unwrap(flat(block[name]))
    count, per_step = len(scores), name == "score"
    thresholds = numbers(unwrap(flat(block["threshold"]))[1]) if per_step else np.full(count, np.nan)
    flags = np.asarray(unwrap(flat(block["anomaly"]))[1]) if per_step else np.zeros(count, bool)
    shown = [_shown(block, row) for row in range(len(block))]
    cuts = np.cumsum(sizes)[:-1]
    pieces = (np.split(column, cuts) for column in (numbers(scores), thresholds, flags))
    yield from map(Steps, *pieces, shown)


def _shown(block: pa.Table, row: int) -> np.ndarray | list[str]:
    for name in ("_values", "_symbols"):
        if name in block.column_names and (cell := block[name][row].as_py()) is not None:
            return np.array(cell, float).reshape(len(cell), -1 if cell else 0) if name == "_values" else cell
    return []
