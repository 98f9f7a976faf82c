"""docs/commands.md: every command with its arguments and options, read from the command line itself."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from rayrnn.cli import app

PAGE = Path(__file__).parent.parent / "commands.md"
INTRODUCTION = """\
# Commands

This page is made from the command line itself (`make docs`). `rayrnn COMMAND --help` says the same.

stdout is data, and stderr is everything said to the user. `--json` prints one JSON object. With `--debug`, any command
shows the traceback of an error.

| exit code | meaning |
|---|---|
| 0 | it worked |
| 1 | the run failed |
| 2 | a command, an option or the recipe is wrong |
| 3 | the data is wrong |
| 4 | there is no cluster, or it is too small or broken |
| 130 | interrupted; the checkpoint is written, and the command that goes on is shown |
"""
#: Python's types as the command line calls them
VALUES = {"str": "TEXT", "int": "NUMBER", "float": "NUMBER", "Path": "PATH"}


def page() -> str:
    """The whole page."""
    group = typer.main.get_command(app)
    commands: dict[str, Any] = group.commands  # type: ignore[attr-defined]
    rows = [f"| [`rayrnn {name}`](#rayrnn-{name}) | {_first_line(commands[name])} |" for name in sorted(commands)]
    contents = "\n".join(["| command | what it does |", "|---|---|", *rows]) + "\n"
    general = f"## rayrnn\n\n{_help(group)}\n\n{_options(group)}"
    return "\n".join([INTRODUCTION, contents, *(_command(name, commands[name]) for name in sorted(commands)), general])


def _command(name: str, command: Any) -> str:
    parts = [f"## rayrnn {name}\n\n{_help(command)}\n\n`{_usage(name, command)}`\n"]
    for table in (_arguments(command), _options(command)):
        if table:
            parts.append(table)
    return "\n".join(parts)


def _help(command: Any) -> str:
    return inspect.cleandoc(command.help or "")


def _first_line(command: Any) -> str:
    return _help(command).partition("\n")[0].partition(": `")[0].rstrip(".")


def _usage(name: str, command: Any) -> str:
    arguments = [_name(one) if one.required else f"[{_name(one)}]" for one in _parameters(command, "argument")]
    required = [f"--{one.name} {_value(one)}" for one in _parameters(command, "option") if one.required]
    others = ["[OPTIONS]"] if any(not one.required for one in _parameters(command, "option")) else []
    return " ".join(["rayrnn", name, *arguments, *required, *others])


def _arguments(command: Any) -> str:
    rows = [f"| `{_name(one)}` | {_cell(one.help)} |" for one in _parameters(command, "argument")]
    return "\n".join(["| argument | meaning |", "|---|---|", *rows]) + "\n" if rows else ""


def _options(command: Any) -> str:
    rows = []
    for one in _parameters(command, "option"):
        names = ", ".join(f"`{name}{f' {_value(one)}' if _value(one) else ''}`" for name in one.opts)
        rows.append(f"| {names} | {_default(one)} | {_cell(one.help)} |")
    return "\n".join(["| option | default | meaning |", "|---|---|---|", *rows]) + "\n" if rows else ""


def _parameters(command: Any, kind: str) -> Iterator[Any]:
    return (one for one in command.params if one.param_type_name == kind and not getattr(one, "hidden", False))


def _name(parameter: Any) -> str:
    return str(parameter.name).upper()


def _value(parameter: Any) -> str:
    """What stands behind an option; nothing where it only has to be there."""
    if parameter.is_flag:
        return ""
    kind = str(parameter.bare_type())
    return str(parameter.metavar or VALUES.get(kind, kind))


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    no_value = parameter.is_flag or parameter.default is None or parameter.default == []
    return "" if no_value else f"`{parameter.default}`"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
