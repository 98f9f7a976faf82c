"""The command line: every command parses, makes one call and prints."""

import signal
import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from rayrnn.background import deaths_told
from rayrnn.cli import clusters, evaluations, exchange, models, predictions, reports, runs, servers, tuning_command
from rayrnn.cli.talk import say, say_error
from rayrnn.errors import Interrupted, RayrnnError, UsageError
from rayrnn.streams import secure_streams

app = typer.Typer(
    name="rayrnn",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="With --debug, any command shows the traceback of an error.",
)


def main() -> None:
    """Run one command. A RayrnnError becomes its message on stderr and its exit code; Ctrl-C becomes 130.

    SIGTERM, and SIGHUP from a terminal that is closed, end a command as Ctrl-C does, so that it cleans up. What else
    fails ends with one sentence that says where its traceback is, and exit code 1.
    """
    stdout_is_open = secure_streams()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # under nohup it is
            signal.signal(number, _interrupt)
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        _check_encoding(arguments)
        with deaths_told(lambda words, _: say(words)):
            app(arguments, prog_name="rayrnn")
    except RayrnnError as error:
        if "--debug" in sys.argv:
            say(_traceback(error))
        if isinstance(error, Interrupted):  # as the user wished
            say(str(error))
        else:
            say_error(str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        if "--debug" in sys.argv:
            say(_traceback(error))
        say_error(f"rayrnn failed: {type(error).__name__}: {_first_line(error)}; {_kept(error)}")
        sys.exit(1)
    except SystemExit as end:
        if stdout_is_open or end.code:
            raise
        say_error("stdout is closed: what the command printed went nowhere")
        sys.exit(1)


def _check_encoding(arguments: list[str]) -> None:
    """
    Raises:
        UsageError: an argument has bytes that are no signs here; what it names could not be handed to Ray.
    """
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"{argument} is not in the encoding of this locale, {sys.getfilesystemencoding()}: "
                "set one that is, such as LC_ALL=C.UTF-8"
            ) from None


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a terminal that is closed may say so twice
    raise KeyboardInterrupt


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:500]


def _kept(error: Exception) -> str:
    """Write the traceback down where this machine's state is; the place, in words."""
    from rayrnn.cluster.on_host.facts import state_folder
    from rayrnn.durable import replace_durably

    try:
        place = Path(state_folder()) / "last-error.log"
        if not place.is_absolute():  # the user has no home
            return "the same command with --debug shows where"
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_durably(place, _traceback(error).encode(errors="backslashreplace"))
    except Exception:  # a disk that is full, a home that is not there: what it is told in is of no use then
        return "the same command with --debug shows where"
    return f"its traceback is in {place}"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rayrnn {version('rayrnn')}")
        raise typer.Exit


@app.callback()
def rayrnn(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train recurrent networks on a Ray cluster by periodic parameter averaging."""


#: in the order in which --help lists them; a new command is a function in its file and a name here
COMMANDS = (
    models.recipes,
    models.train,
    tuning_command.tune,
    models.generate,
    evaluations.evaluate,
    predictions.predict,
    evaluations.detect,
    reports.report,
    servers.serve,
    exchange.export,
    exchange.import_,
    clusters.up,
    clusters.down,
    clusters.status,
    clusters.attach,
    clusters.doctor,
    runs.logs,
)
for command in COMMANDS:
    app.command(command.__name__.strip("_"))(command)
