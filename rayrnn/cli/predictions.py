"""The command that answers sequences: those of a path, or of the files that come in a directory."""

import threading
from typing import TYPE_CHECKING, Annotated

import typer

from rayrnn.cli.completion import complete_run
from rayrnn.cli.models import Beam
from rayrnn.cli.runs import Trust
from rayrnn.cli.talk import console, give, give_json, say, say_dimly
from rayrnn.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from rayrnn.runs.directory import Run
    from rayrnn.streaming.following import Followed


def predict(
    run: Annotated[str, typer.Argument(help="The run directory.", autocompletion=complete_run)],
    out: Annotated[
        str,
        typer.Option(metavar="PATH", help="A new file, .jsonl, .csv or .parquet; with --follow a directory."),
    ],
    data: Annotated[
        str | None, typer.Option(metavar="PATH", help="Sequences as the run learned them; labels may be missing.")
    ] = None,
    follow: Annotated[
        str | None,
        typer.Option(
            metavar="DIRECTORY", help="Answer files as they come there, each once; sequences go on from file to file."
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="With --follow: answer what is there, and end (for cron).")
    ] = False,
    poll: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="With --follow: between two looks; without it 1.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="With --follow: jsonl, csv or parquet; without it that of each file."),
    ] = None,
    on_error: Annotated[
        str | None,
        typer.Option(metavar="skip|stop", help="With --follow: leave out a file that cannot be read (skip), or end."),
    ] = None,
    forget: Annotated[
        bool,
        typer.Option("--forget", help="With --follow: the run has another model now; let every sequence begin anew."),
    ] = False,
    beam: Beam = None,
    samples: Annotated[
        int | None, typer.Option(help="Forecasts of a distribution: draw so many ways in which every series may go on.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="With --samples: steps of each of them.")] = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster; without it the one `rayrnn up` started, or one of its own.")
    ] = None,
    trust: Trust = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --follow: print one JSON object a file, not its answers' path.")
    ] = False,
) -> None:
    """Answer every sequence with its label and probabilities, or its numbers, keyed by its name."""
    from rayrnn.runs.directory import open_run

    if (data is None) == (follow is None):
        raise UsageError("give --data PATH, or --follow DIRECTORY with files that come: one of the two")
    if follow is None:
        own = {"--once": once, "--poll": poll is not None, "--format": format is not None}
        own |= {"--on-error": on_error is not None, "--forget": forget, "--json": as_json}
        if given := [option for option, is_given in own.items() if is_given]:
            raise UsageError(f"{given[0]} goes with --follow: leave it out, or follow a directory")
        opened = open_run(run, trust=trust)
        _predict(opened, str(data), out, beam=beam, samples=samples, steps=steps, address=address)
        return
    if samples is not None or steps is not None:
        raise UsageError("--samples and --steps do not go with --follow: they are of series that lie at --data")
    if address is not None:
        raise UsageError(f"--address is {address}: files that come are answered by this process, without a cluster")
    from rayrnn.stop_signals import stop_requests
    from rayrnn.streaming.following import follow as answer_files

    stop, count = threading.Event(), 0
    files = answer_files(
        open_run(run, trust=trust),
        follow,
        out,
        once=once,
        poll=1.0 if poll is None else poll,
        format=format,
        on_error=on_error or "skip",
        forget=forget,
        beam=beam,
        stop=stop,
        say=say,
    )
    with stop_requests(stop.set):
        for file in files:
            count += file.path is not None
            _tell(file, as_json=as_json)
    if stop.is_set():
        raise Interrupted(f"stopped after {count:,} answered files; the same command goes on")


def _predict(
    run: "Run",
    data: str,
    out: str,
    *,
    beam: int | None,
    samples: int | None,
    steps: int | None,
    address: str | None,
) -> None:
    from rayrnn.prediction.predict import predict as answer
    from rayrnn.wording import counted

    written = answer(run, data, out, beam=beam, samples=samples, steps=steps, address=address)
    for reason in written.skipped[:3]:
        say_dimly(f"skipped: {reason}")
    skipped = f", {len(written.skipped):,} skipped" if written.skipped else ""
    console().print(f"{counted(written.num_sequences, 'sequence')} answered in {written.path}{skipped}")


def _tell(file: "Followed", *, as_json: bool) -> None:
    """A line on stderr; on stdout where the answers are."""
    from rayrnn.wording import counted

    if file.path is None:
        say(f"{file.name}: left out: {file.notes[0]}")
    else:
        notes = "".join(f"; {note}" for note in file.notes)
        say(f"{file.name}: {counted(file.num_sequences, 'sequence')}, {counted(file.num_steps, 'step')}{notes}")
    if as_json:
        give_json(file.to_json())
    elif file.path is not None:
        give(str(file.path))
