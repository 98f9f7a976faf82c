"""The command that searches a recipe's settings."""

from typing import Annotated

import typer

from rayrnn.cli.completion import complete_recipe
from rayrnn.cli.talk import console, give_json


def tune(
    recipe: Annotated[
        str, typer.Argument(help="A YAML file, or the name of a shipped recipe.", autocompletion=complete_recipe)
    ],
    vary: Annotated[
        list[str],
        typer.Option(
            "--vary",
            metavar="KEY=VALUES",
            help="What to vary: 1e-4..1e-2 (also :log, :linear), or 64,128; repeatable.",
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the recipe; repeatable.")
    ] = None,
    trials: Annotated[int, typer.Option(help="Runs to try, those of before `--resume` too.")] = 20,
    minutes: Annotated[
        float | None, typer.Option(help="End the search, in order, after so many; without it all trials are made.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="A directory for the trials; without it runs/<name of the recipe>-tune.")
    ] = None,
    at_once: Annotated[
        int | None, typer.Option("--at-once", metavar="N", help="Trials side by side; without it as many as find room.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search where it was.")] = False,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster; without it the one `rayrnn up` started, or one of its own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all trials and the best as one JSON object.")] = False,
) -> None:
    """Search a recipe's settings: many runs, bad ones stopped early, and the best recipe written."""
    from rayrnn.cluster.environment import home
    from rayrnn.recipe.sources import check_library

    check_library("optuna", "tune", "rayrnn tune")

    home()  # without one, Ray Train cannot even be imported
    from rayrnn.tuning.search import Wanted
    from rayrnn.tuning.search import tune as search

    found = search(
        Wanted(recipe, vary, overrides or (), out, trials, minutes, at_once, resume, address),
        console(),
    )
    if as_json:
        give_json(found.to_json())
