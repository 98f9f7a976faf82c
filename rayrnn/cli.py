"""The command line: every command parses, makes one call and prints."""

import sys
import traceback
from importlib.metadata import version
from typing import Annotated

import typer

from rayrnn.errors import RayrnnError

app = typer.Typer(
    name="rayrnn",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="With --debug, any command shows the traceback of an error.",
)


def main() -> None:
    """Run one command. A RayrnnError becomes its message on stderr and its exit code; Ctrl-C becomes 130."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments)
    except RayrnnError as error:
        if "--debug" in sys.argv:
            traceback.print_exception(error)
        _say_error(str(error))
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


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe instead of the list.")] = None,
) -> None:
    """List the shipped recipes, or print one: `rayrnn recipes python > mine.yaml` starts your own."""
    from rayrnn.recipe import read_recipe, shipped_recipes

    if name is not None:
        typer.echo(read_recipe(name)[1], nl=False)
        return
    shipped = shipped_recipes()
    width = max(map(len, shipped), default=0)
    for known, text in shipped.items():
        first_line = text.partition("\n")[0]
        typer.echo(f"{known:<{width}}  {first_line.lstrip('# ')}")


def _say_error(message: str) -> None:
    """Put an error on stderr, its first word red where the terminal has colours."""
    typer.secho("error:", fg="red", bold=True, err=True, nl=False)
    typer.echo(f" {message}", err=True)


if __name__ == "__main__":
    main()
