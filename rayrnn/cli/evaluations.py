"""The commands that measure: how good a model is, its forecasts beside naive ones, and what is out of the ordinary."""

from typing import TYPE_CHECKING, Annotated

import typer

from rayrnn.cli.completion import complete_run
from rayrnn.cli.models import Beam
from rayrnn.cli.runs import Trust
from rayrnn.cli.talk import console, give, give_json, say_dimly
from rayrnn.errors import UsageError

if TYPE_CHECKING:
    from rayrnn.prediction.detection import Detection
    from rayrnn.prediction.rolling import RollingReport
    from rayrnn.runs.directory import Run


def evaluate(
    run: Annotated[str, typer.Argument(help="The run directory.", autocompletion=complete_run)],
    data: Annotated[
        str | None, typer.Option(metavar="PATH", help="Sequences to measure on; without it those that were held out.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="PATH", help="Their labels or targets, where data.labels or targets has them.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="PATH", help="A new file: every answer beside its truth (transduction, ctc).")
    ] = None,
    beam: Beam = None,
    events: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A CSV of known anomalies in --data (series,start,end): measure `detect` by them."
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Forecasts: measure so many origins of every series, beside the seasonal naive forecast."),
    ] = None,
    season: Annotated[
        int | None, typer.Option(help="With --folds: steps after which a series is like itself; without it 1.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster; without it the one `rayrnn up` started, or one of its own.")
    ] = None,
    trust: Trust = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as one JSON object.")] = False,
) -> None:
    """Measure a run's best model: accuracy, F1 and confusions, RMSE, perplexity, error rates; or its detections."""
    from rayrnn.runs.directory import open_run

    if season is not None and folds is None:
        raise UsageError(f"--season is {season}, and it goes with --folds K: the origins to measure forecasts at")
    if folds is not None:
        if labels is not None or out is not None or beam is not None or events is not None:
            raise UsageError("--labels, --out, --beam and --events do not go with --folds; leave them out")
        from rayrnn.prediction.rolling import evaluate_forecasts

        with console().status("measuring ..."):
            opened, every = open_run(run, trust=trust), 1 if season is None else season
            rolled = evaluate_forecasts(opened, folds=folds, season=every, path=data, address=address)
        _tell(rolled, as_json=as_json)
        return
    if events is not None:
        if out is not None or beam is not None:
            raise UsageError("--out and --beam do not go with --events: `rayrnn detect --events --out` writes scores")
        _evaluate_events(open_run(run, trust=trust), data, labels, events, address=address, as_json=as_json)
        return
    from rayrnn.prediction.evaluate import evaluate as measure

    with console().status("measuring ..."):
        opened = open_run(run, trust=trust)
        report = measure(opened, path=data, labels=labels, out=out, beam=beam, address=address)
    for note in report.notes:
        say_dimly(note)
    if as_json:
        give_json(report.to_json())
    else:
        give(report.to_text(), nl=False)


def _evaluate_events(
    run: "Run", data: str | None, labels: str | None, events: str, *, address: str | None, as_json: bool
) -> None:
    if data is None:
        raise UsageError(f"events are given, {events}, and no sequences that they lie in: give these too, --data PATH")
    if labels is not None:
        raise UsageError("--labels and --events are two ways to measure: give one of the two")
    from rayrnn.prediction.detect import detect as find

    _tell(find(run, data, events=events, address=address), as_json=as_json)


def detect(
    run: Annotated[
        str, typer.Argument(help="The run directory of a forecast or a language model.", autocompletion=complete_run)
    ],
    data: Annotated[str, typer.Option(metavar="PATH", help="Sequences to inspect, of the run's own data format.")],
    out: Annotated[
        str | None, typer.Option(metavar="PATH", help="A new file for the scores, .jsonl, .csv or .parquet.")
    ] = None,
    events: Annotated[
        str | None, typer.Option(metavar="FILE", help="Known events, a CSV file series,start,end, to measure against.")
    ] = None,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw every sequence, .png or .svg (pip install 'rayrnn[plot]').")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the recipe's section detect; repeatable."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster; without it the one `rayrnn up` started, or one of its own.")
    ] = None,
    trust: Trust = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as one JSON object.")] = False,
) -> None:
    """Find what is out of the ordinary in sequences: scores for every step, events, and how good these are."""
    from rayrnn.prediction.detect import detect as find
    from rayrnn.runs.directory import open_run

    found = find(
        open_run(run, trust=trust), data, out, events=events, plot=plot, overrides=overrides or (), address=address
    )
    _tell(found, as_json=as_json)
    if out is not None:
        console().print(f"scores are in {out}")
    if found.figures:
        most = f" and {len(found.figures) - 1:,} more" if len(found.figures) > 1 else ""
        console().print(f"drawn: {found.figures[0]}{most}")


def _tell(found: "Detection | RollingReport", *, as_json: bool) -> None:
    for note in found.notes:
        say_dimly(note)
    if as_json:
        give_json(found.to_json())
    else:
        give(found.to_text(), nl=False)
