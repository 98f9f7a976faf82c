"""A run and sequences -> what is out of the ordinary in them: scores in a file, events, and how good these are.

The network reads, and the detector judges, in tasks all over the cluster. What is normal is fitted on what training
held out, and kept with the run; of known events only the measures know.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import ray
import ray.data
from rich.console import Console

from rayrnn.anomalies.detector import Detector, fit_detector
from rayrnn.anomalies.intervals import Interval
from rayrnn.anomalies.measures import Compared, Measures, sequence_measures, step_measures
from rayrnn.cluster import connect
from rayrnn.data.prepare import needs_to_read
from rayrnn.data.rows import REASONS, all_skipped, raise_faults
from rayrnn.data.sequences import Part, settle, take
from rayrnn.data.sources import read
from rayrnn.errors import DataError, RunError, UsageError
from rayrnn.prediction.destination import open_destination
from rayrnn.prediction.detection import UNITS, Detection
from rayrnn.prediction.evaluate import held_out_of, shared_out_to_tasks
from rayrnn.prediction.figures import MOST_FIGURES, Picture, check_plot, draw
from rayrnn.prediction.judged_rows import Found, found_in, judge_block, only_answers_of
from rayrnn.prediction.known_events import match_events, read_events
from rayrnn.prediction.output import SUFFIXES, blocks_of, computed, write
from rayrnn.prediction.step_scores import Scorer, raw_scores, scorer_of
from rayrnn.recipe import with_detection
from rayrnn.recipe.detect_section import judges_sequences
from rayrnn.runs.detectors import Fitted, keep_detector, stored_detector
from rayrnn.runs.directory import Run
from rayrnn.runs.layout import DETECT
from rayrnn.runs.model import Trained, trained
from rayrnn.terminal import Terminal
from rayrnn.wording import counted


def detect(
    run: Run,
    path: str | Path,
    out: str | Path | None = None,
    *,
    events: str | Path | None = None,
    plot: str | Path | None = None,
    overrides: Iterable[str] = (),
    address: str | None = None,
    console: Console | None = None,
) -> Detection:
    """Find what is out of the ordinary in the sequences at `path`.

    Args:
        path: read as the run's own data was; labels are not looked at.
        out: a new file for the scores, that ends in .jsonl, .csv or .parquet; see rayrnn/prediction/judged_rows.py.
        events: a CSV file of events that are known, to be measured against; see rayrnn/prediction/known_events.py.
        plot: figures are drawn there, .png or .svg, one a sequence.
        overrides: `detect.key=value` in the place of what the run's recipe says.
        address: the Ray cluster; without it the one `rayrnn up` started, or a local one.
        console: shows how far it is; without it stderr does.

    Raises:
        UsageError: the run's task is none to detect with, it held nothing out, an option does not fit, or a file is
            there already.
        DataError: the sequences or the events cannot be used, or a file cannot be written.
        RunError: the run has no usable model, or a task failed.
        ClusterError: there is no cluster at `address`.
    """
    model = _with_settings(trained(run), overrides)
    scorer, data = scorer_of(model, run.name), model.recipe.data
    destination = None if out is None else open_destination(str(out), suffixes=SUFFIXES, endpoint=data.endpoint)
    by_sequence = judges_sequences(model.recipe.detection, scorer.kind)
    known = None
    if events is not None:
        known = read_events(str(events), with_steps=not by_sequence, endpoint=data.endpoint)
    if plot is not None:
        check_plot(plot)
    _check_held_out(run, model)
    screen, notes = console or Terminal(stderr=True), list[str]()
    with connect(address, code=model.recipe.named_code):
        fitted = _fitted(run, scorer, notes)
        answers = computed(_judged(scorer, fitted.detector, str(path), notes, pictured=plot is not None))
        found = list(_found(answers, fitted.detector, notes, with_steps=events is not None or plot is not None))
        if destination is not None:
            write(
                answers.map_batches(only_answers_of, batch_size=None, batch_format="pyarrow"),
                destination,
                screen,
                verb="inspect",
            )
        measures = None
        if known is not None:
            known = _matched(known, found, str(events), notes, by_sequence=by_sequence)
            measures = _measured(found, known, notes, by_sequence=by_sequence)
        drawn = [] if plot is None else draw(_pictures(found, scorer, fitted.detector, known), plot)
    return Detection.of(str(path), fitted, found, measures, drawn, tuple(dict.fromkeys(notes)))


def _with_settings(model: Trained, overrides: Iterable[str]) -> Trained:
    chosen = list(overrides)
    return replace(model, recipe=with_detection(model.recipe, chosen)) if chosen else model


def _check_held_out(run: Run, model: Trained) -> None:
    """
    Raises:
        UsageError: there is nothing that the threshold could be fitted on.
    """
    if not model.recipe.data.held_out:
        raise UsageError(
            f"{run.name} held nothing out (data.held_out: 0), and a threshold is fitted on normal sequences that were "
            "not learned: train a run with data.held_out: 0.1, or with a path to such sequences"
        )


def _fitted(run: Run, scorer: Scorer, notes: list[str]) -> Fitted:
    """What is normal: as it was fitted before with these settings, or fitted now and kept."""
    settings = scorer.model.recipe.detection
    if (kept := stored_detector(run, scorer.kind, settings)) is not None:
        _check_width(run, scorer, kept.detector)
        return kept
    held_out = held_out_of(
        run, scorer.model, notes, advice="the threshold is fitted on it; give the run its data again, or train another"
    )
    raw = [named for share in shared_out_to_tasks(_score_share, scorer, held_out) for named in share]
    detector = fit_detector(raw, scorer.kind, settings)
    data = scorer.model.recipe.data
    name = data.held_out if isinstance(data.held_out, str) else f"what was held out of {data.describe()}"
    fitted = Fitted(detector, name, len(held_out), sum(len(raw_SK) for _, raw_SK in raw))
    if reason := keep_detector(run, fitted):
        notes.append(reason)
    return fitted


def _check_width(run: Run, scorer: Scorer, detector: Detector) -> None:
    """
    Raises:
        RunError: what is stored has scales for another number of scores.
    """
    due, found = scorer.width, len(detector.together.scales)
    if due != found:
        raise RunError(
            f"{run.path / DETECT} cannot be used: it has scales of {counted(found, 'number')}, and {due} are scored: "
            "remove the file, and it is fitted anew"
        )


def _score_share(scorer: Scorer, part: Part, rank: int, size: int) -> list[tuple[str, np.ndarray]]:
    """The names of a share of a part's sequences, and the scores of their steps."""
    rows, network = take(part.sequences, part.indices[rank::size]), scorer.model.network()
    pieces = list(scorer.model.slices(rows)) if len(rows) else []
    raw = [scores for piece in pieces for scores in raw_scores(piece, scorer, network)]
    return list(zip(rows["key"].to_pylist(), raw, strict=True))


def _judged(scorer: Scorer, detector: Detector, path: str, notes: list[str], *, pictured: bool) -> ray.data.Dataset:
    """What the detector says of the sequences at `path`, in their order."""
    recipe, encoding = scorer.model.recipe, scorer.model.encoding
    sequences = read(
        recipe.data,
        needs_to_read(recipe, scorer.model.encoding),
        where=path,
        labelled=False,
        num_columns=encoding.inputs.num_columns,
        column_names=encoding.column_names,
        say=notes.append,
    )
    judge = functools.partial(judge_block, reference=ray.put((scorer, detector)), pictured=pictured)
    num_gpus = 1 if ray.cluster_resources().get("GPU") else None
    return settle(sequences).map_batches(judge, batch_size=None, batch_format="pyarrow", num_gpus=num_gpus)


def _found(answers: ray.data.Dataset, detector: Detector, notes: list[str], *, with_steps: bool) -> Iterator[Found]:
    """What was found in every sequence, in order.

    Raises:
        DataError: a sequence cannot be used, or there is none.
    """
    skipped: list[str] = []
    count = unscored = 0
    for block in blocks_of(answers):
        raise_faults(block["fault"].drop_null().to_pylist())
        skipped += block["skipped"].drop_null().to_pylist()
        block = block.filter(block["skipped"].is_null()).drop_columns(list(REASONS))
        for found in found_in(block, by_sequence=detector.by_sequence, with_steps=with_steps):
            count, unscored = count + 1, unscored + np.isnan(found.score)
            yield found
    if not count:
        raise all_skipped(skipped) if skipped else DataError("there are no sequences to inspect")
    notes += [f"skipped: {reason}" for reason in skipped]
    if unscored and detector.by_sequence and detector.kind != "error":
        notes.append(
            f"{counted(unscored, 'sequence')} of {count:,} with one symbol, which nothing foretells, have no score: "
            "put a symbol for the begin and one for the end around each, in what is learned too"
        )
    elif unscored:
        notes.append(
            f"{counted(unscored, 'sequence')} of {count:,} too short to be judged (a forecast needs steps before it, "
            f"and detect.warmup are {detector.settings.warmup} more): nothing is found there"
        )


def _matched(
    known: Mapping[str, list[Interval]], found: Sequence[Found], path: str, notes: list[str], *, by_sequence: bool
) -> dict[str, list[Interval]]:
    keys, steps_N = [one.key for one in found], np.array([one.num_steps for one in found])
    events, others = match_events(known, keys, steps_N, path, with_steps=not by_sequence)
    if others:
        notes.append(
            f"{path} has events of {counted(len(others), 'sequence')} that are not here, such as {others[0]!r}: these "
            "do not count"
        )
    return events


def _measured(
    found: Sequence[Found], known: Mapping[str, list[Interval]], notes: list[str], *, by_sequence: bool
) -> Measures:
    if by_sequence:
        scores_N, flags_N = np.array([one.score for one in found]), np.array([one.is_anomalous for one in found])
        return sequence_measures(scores_N, flags_N, np.array([one.key in known for one in found]))
    steps = [(one.steps, known.get(one.key, [])) for one in found]
    compared = [Compared(own.scores, own.flags, events) for own, events in steps if own is not None]
    hidden = sum(np.isnan(one.scores[start : end + 1]).all() for one in compared for start, end in one.events)
    if hidden:
        notes.append(f"{counted(hidden, 'known event')} at steps that are not judged (detect.warmup) cannot be found")
    return step_measures(compared)


def _pictures(
    found: Sequence[Found], scorer: Scorer, detector: Detector, known: Mapping[str, list[Interval]] | None
) -> list[Picture]:
    """Of all sequences, or of those with the largest scores, in order."""
    largest = sorted(range(len(found)), key=lambda place: -np.nan_to_num(found[place].score, nan=0))[:MOST_FIGURES]
    pictures = []
    for one in (found[place] for place in sorted(largest)):
        steps, events = one.steps, None if known is None or detector.by_sequence else known.get(one.key, [])
        assert steps is not None
        verdict = ""
        if detector.by_sequence:
            above = "above" if one.is_anomalous else "not above"
            verdict = f"score {one.score:.4g}, {above} {detector.normal(one.key).threshold:.4g}"
            if known is not None:
                verdict += f"; known to be {'anomalous' if one.key in known else 'normal'}"
        pictures.append(
            Picture(
                key=one.key,
                values=steps.values,
                names=scorer.names,
                scores=steps.scores,
                thresholds=steps.thresholds,
                found=[(start, end) for start, end, _ in one.events],
                known=events,
                unit=UNITS[detector.kind],
                verdict=verdict,
            )
        )
    return pictures
