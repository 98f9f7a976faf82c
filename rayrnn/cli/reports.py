"""The command that shows runs on a page."""

from typing import Annotated

import typer

from rayrnn.cli.completion import complete_run
from rayrnn.cli.runs import Trust
from rayrnn.cli.talk import console, give


def report(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="A run directory; several are compared.", autocompletion=complete_run),
    ],
    out: Annotated[
        str,
        typer.Option(metavar="FILE.html", help="The page, also s3://, gs://; an older one of rayrnn's is replaced."),
    ] = "report.html",
    no_answers: Annotated[
        bool,
        typer.Option("--no-answers", help="Leave out what the network answers: needs neither the data nor Ray."),
    ] = False,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster; without it the one `rayrnn up` started, or one of its own.")
    ] = None,
    trust: Trust = False,
) -> None:
    """Show runs on one page of HTML: curves, workers, communication, what the network answers, the recipe."""
    from rayrnn.errors import UsageError
    from rayrnn.reporting.report import write_report
    from rayrnn.runs.directory import open_run

    if no_answers and address is not None:
        raise UsageError(
            "--address is where answers are computed, and --no-answers leaves them out: give one of the two"
        )
    with console().status("reading the runs ..." if no_answers else "measuring ..."):
        place = write_report([open_run(run, trust=trust) for run in runs], out, answers=not no_answers, address=address)
    give(place)
