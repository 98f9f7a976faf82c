"""The command line: every command parses, makes one call and prints."""

import signal
import sys
import traceback
from importlib.metadata import version
from types import FrameType
from typing import Annotated

import typer

from rayrnn.cli import clusters, models, runs
from rayrnn.cli.talk import say_error
from rayrnn.errors import Interrupted, RayrnnError
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

    SIGTERM, and SIGHUP from a terminal that is closed, end a command as Ctrl-C does, so that it cleans up.
    """
    stdout_is_open = secure_streams()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # under nohup it is
            signal.signal(number, _interrupt)
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments, prog_name="rayrnn")
    except RayrnnError as error:
        if "--debug" in sys.argv:
            traceback.print_exception(error)
        if isinstance(error, Interrupted):  # as the user wished
            typer.echo(str(error), err=True)
        else:
            say_error(str(error))
        sys.exit(error.exit_code)
    except SystemExit as end:
        if stdout_is_open or end.code:
            raise
        say_error("stdout is closed: what the command printed went nowhere")
        sys.exit(1)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a terminal that is closed may say so twice
    raise KeyboardInterrupt


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
    models.generate,
    models.evaluate,
    models.predict,
    clusters.up,
    clusters.down,
    clusters.status,
    clusters.attach,
    clusters.doctor,
    runs.logs,
)
for command in COMMANDS:
    app.command()(command)
