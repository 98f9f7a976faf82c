"""Runs -> one page in one file: read, measured where that is wanted, and put in the place of an older page."""

from collections.abc import Sequence
from pathlib import Path

from rayrnn.cluster import connect
from rayrnn.errors import UsageError
from rayrnn.prediction.destination import open_destination
from rayrnn.reporting.answers import with_answers
from rayrnn.reporting.overview import told_of
from rayrnn.reporting.page import GENERATOR, MOST_RUNS, page_of
from rayrnn.runs.directory import Run
from rayrnn.wording import command_line

SUFFIXES = (".html",)


def write_report(
    runs: Sequence[Run], out: str | Path = "report.html", *, answers: bool = True, address: str | None = None
) -> str:
    """Show one run, or several beside one another, on a page that needs nothing but a browser.

    Args:
        out: the page, local, s3://, gs:// or hdfs://, that ends in .html; an older page of rayrnn's is replaced.
        answers: also what the networks answer: needs the data and, as `evaluate` does, Ray.
        address: the Ray cluster; without it the one `rayrnn up` started, or a local one.

    Returns:
        the page's place.

    Raises:
        UsageError: there is no run, one is given twice, or `out` is another file or ends in something else.
        RunError: a file of a run cannot be read, or holds something else.
        DataError: the page cannot be written.
        ClusterError: there is no cluster at `address`.
    """
    _check(runs)
    told = [told_of(run.path, run.name, run.recipe) for run in runs]
    endpoint = told[0].recipe.data.endpoint
    destination = open_destination(str(out), suffixes=SUFFIXES, endpoint=endpoint, replaces=GENERATOR.encode())
    if answers:
        code = [name for one in told for name in one.recipe.named_code]
        with connect(address, code=code):
            told = [with_answers(run, one, in_full=len(runs) == 1) for run, one in zip(runs, told, strict=True)]
    page = page_of(told, command=_command(runs, out, answers=answers))
    with destination.unfinished() as stream:
        stream.write(page.encode())
    return str(out)


def _check(runs: Sequence[Run]) -> None:
    if not runs:
        raise UsageError("there is no run to report on: name one or several")
    if len(runs) > MOST_RUNS:
        raise UsageError(f"{len(runs):,} runs are more than a page compares: name at most {MOST_RUNS}")
    names = [run.name if run.address else str(run.path.resolve()) for run in runs]
    if twice := next((run.name for run, name in zip(runs, names, strict=True) if names.count(name) > 1), None):
        raise UsageError(f"{twice} is given twice: name each run once")


def _command(runs: Sequence[Run], out: str | Path, *, answers: bool) -> str:
    """What makes the page again."""
    trust = " --trust" if any(run.recipe.asks_for_trust for run in runs) else ""
    more = [] if answers else ["--no-answers"]
    return command_line("rayrnn", "report", *(run.name for run in runs), "--out", out, *more) + trust
