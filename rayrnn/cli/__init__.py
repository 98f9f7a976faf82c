"""The command line: every command parses, makes one call and prints."""

import sys
import traceback
from importlib.metadata import version
from typing import Annotated

import typer

from rayrnn.cli import clusters, models, runs
from rayrnn.cli.talk import say_error
from rayrnn.errors import Interrupted, RayrnnError

app = typer.Typer(
    name="rayrnn",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="With --debug, any command shows the traceback of an error.",
)


def main() -> None:
    """Run one command. A RayrnnError becomes its message on stderr and its exit code; Ctrl-C becomes 130."""
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
