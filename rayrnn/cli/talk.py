"""What the command line says: talk on stderr, data on stdout."""

import json
import sys
from typing import TYPE_CHECKING

import typer

from rayrnn.wording import harmless

if TYPE_CHECKING:
    from rayrnn.terminal import Terminal


def console(*, stderr: bool = True) -> "Terminal":
    """Where the talk goes; tables that were asked for go to stdout."""
    from rayrnn.terminal import Terminal

    return Terminal(stderr=stderr)


def escape(text: str) -> str:
    """The text where rich would look for its own marks."""
    from rich.markup import escape

    return escape(text)


def tell(line: str, *, style: str = "", highlight: bool = False) -> None:
    """A line on stderr, which a terminal breaks between words; in a file it is one line."""
    there = console()
    there.print(line, style=style, soft_wrap=not there.is_terminal, markup=False, highlight=highlight)


def say_dimly(line: str) -> None:
    """A line beside the talk."""
    tell(f"  {line}", style="dim", highlight=True)


def say(message: str) -> None:
    """Put a line on stderr."""
    typer.echo(harmless(message), err=True)


def say_error(message: str) -> None:
    """Put an error on stderr, its first word red where the terminal has colours."""
    typer.secho("error:", fg="red", bold=True, err=True, nl=False)
    say(f" {message}")


def confirm(question: str, *, yes: bool) -> bool:
    """Ask, unless the user has said yes already.

    Raises:
        UsageError: nobody can answer.
    """
    from rayrnn.errors import UsageError

    try:
        return yes or typer.confirm(question, err=True)
    except typer.Abort:
        if sys.stdin.isatty():
            raise
        raise UsageError(f"nobody can answer {question!r} here: nothing was done; --yes answers it") from None


def give(text: str, *, nl: bool = True) -> None:
    """Put data on stdout: a file or another program gets it as it is, a terminal without control characters."""
    # with `color` nothing is taken out of what goes to a file
    typer.echo(harmless(text) if sys.stdout.isatty() else text, nl=nl, color=True)


def give_json(value: object) -> None:
    """Put a value on stdout as one line of JSON, as readable as stdout's encoding allows."""
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    give(json.dumps(value, ensure_ascii=not is_unicode))
