"""The commands that exchange models with other programs: export, import."""

from pathlib import Path
from typing import Annotated

import typer

from rayrnn.cli.completion import complete_run
from rayrnn.cli.runs import Trust
from rayrnn.cli.talk import console, give, give_json, say_dimly, tell


def export(
    run: Annotated[str, typer.Argument(help="The run directory.", autocompletion=complete_run)],
    to: Annotated[
        str,
        typer.Option(metavar="FILE", help="A new file: .onnx, .pt2 (torch.export), .safetensors or .zip (DL4J)."),
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Compare it with the run on random sequences; print the largest difference.")
    ] = False,
    trust: Trust = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as one JSON object.")] = False,
) -> None:
    """Write a run's best model to one file that other programs read, with all that its numbers mean."""
    from rayrnn.exports.export import export as write
    from rayrnn.exports.parity import TOLERANCE
    from rayrnn.runs.directory import open_run

    with console().status("exporting ..."):
        written = write(open_run(run, trust=trust), to, check=check)
    for path, told in zip(written.paths, written.told, strict=True):
        tell(f"{path}: {told}")
    if as_json:
        give_json({"run": run} | written.to_json())
    elif written.parity is not None:
        parity = written.parity
        give(f"largest difference {parity.difference:.1e} ({parity.output}); {TOLERANCE:.0e} is allowed")


def import_(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL.zip", help="A zip of DL4J's ModelSerializer, 0.9.1 or 1.0.0.")
    ],
    out: Annotated[str, typer.Option(help="The run directory, a new one.")],
    symbols: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What one-hot inputs stand for: a line a symbol, or a JSON list."),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="What the answers are called, in the order of the zip's columns."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was read as one JSON object.")] = False,
) -> None:
    """Make a run of a network that DL4J trained: to answer with, to train on, to export again."""
    from rayrnn.dl4j.importing import import_dl4j

    names = None if classes is None else classes.split(",")
    imported = import_dl4j(model, out=out, symbols=symbols, classes=names)
    tell(f"{imported.run.name}: {imported.told}")
    for note in imported.notes:
        say_dimly(note)
    if as_json:
        give_json({"run": imported.run.name, "told": imported.told, "notes": list(imported.notes)})
    else:
        give(imported.run.name)
