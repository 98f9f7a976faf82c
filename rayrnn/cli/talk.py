"""What the command line says, all of it on stderr."""

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console


def console() -> "Console":
    """Where the talk goes."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def escape(text: str) -> str:
    """The text where rich would look for its own marks."""
    from rich.markup import escape

    return escape(text)


def say_dimly(line: str) -> None:
    console().print(f"  {line}", style="dim", markup=False, soft_wrap=True)


def say_error(message: str) -> None:
    """Put an error on stderr, its first word red where the terminal has colours."""
    typer.secho("error:", fg="red", bold=True, err=True, nl=False)
    typer.echo(f" {message}", err=True)
