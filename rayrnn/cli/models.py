"""The commands about models: recipes, train, generate, evaluate, predict."""

import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from rayrnn.cli.completion import complete_recipe, complete_run, complete_shipped_recipe, complete_yaml
from rayrnn.cli.runs import Trust, train_there
from rayrnn.cli.talk import console, give, give_json, say_dimly
from rayrnn.errors import UsageError


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(help="Print this recipe instead of the list.", autocompletion=complete_shipped_recipe),
    ] = None,
) -> None:
    """List the shipped recipes, or print one: `rayrnn recipes python > mine.yaml` starts your own."""
    from rayrnn.recipe import read_recipe, shipped_recipes

    if name is not None:
        give(read_recipe(name)[1], nl=False)
        return
    shipped = shipped_recipes()
    width = max(map(len, shipped), default=0)
    for known, text in shipped.items():
        first_line = text.partition("\n")[0]
        give(_wrapped(f"{known:<{width}}  ", first_line.lstrip("# ")))


def _wrapped(name: str, words: str) -> str:
    """A terminal's lines end between words, under one another; a file gets one line."""
    if not sys.stdout.isatty():
        return name + words
    return textwrap.fill(
        words, shutil.get_terminal_size().columns, initial_indent=name, subsequent_indent=" " * len(name)
    )


def train(
    recipe: Annotated[
        str, typer.Argument(help="A YAML file, or the name of a shipped recipe.", autocompletion=complete_recipe)
    ],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the recipe; repeatable.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="The run directory, also s3://, gs://; without it runs/<name of the recipe>.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint of the run.")] = False,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster; without it the one `rayrnn up` started, or one for this run.")
    ] = None,
    cluster: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Train on the hosts of this cluster file, from this machine.",
            autocompletion=complete_yaml,
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="With --cluster: leave when the workers learn; `rayrnn logs` comes back.")
    ] = False,
    take_over: Annotated[
        bool,
        typer.Option("--take-over", help="With --resume, in a store: go on where another machine trains; it stops."),
    ] = False,
    trust: Trust = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print how it ended as one JSON object.")] = False,
) -> None:
    """Train a recipe's network, round after round, and leave everything in a run directory."""
    from rayrnn.recipe import load_recipe
    from rayrnn.runs.directory import check_trust
    from rayrnn.runs.layout import is_stored

    # what the user wrote may name any code; what a run has kept may be a stranger's
    stored = is_stored(recipe)
    loaded = load_recipe(recipe, overrides or [], trusted=trust or not stored)
    check_trust(loaded, trusted=trust or not (stored or resume), where=out if out and resume else recipe)
    if take_over and (cluster is not None or not resume):
        raise UsageError("--take-over goes with --resume, for a run in a store; a cluster's runs are in none")
    if cluster is not None:
        train_there(loaded, cluster, out=out, resume=resume, detach=detach, address=address, as_json=as_json)
        return
    if detach:
        raise UsageError("--detach goes with --cluster: a run on this machine ends with its command")
    from rayrnn.cluster.environment import home

    home()  # without one, Ray Train cannot even be imported
    from rayrnn.training.driver import train as train_recipe

    outcome = train_recipe(loaded, out=out, resume=resume, address=address, trust=trust, take_over=take_over)
    if as_json:
        give_json(outcome.to_json())


def generate(
    run: Annotated[str, typer.Argument(help="The run directory of a language model.", autocompletion=complete_run)],
    prime: Annotated[str | None, typer.Option(help="What the text begins with; without it a random symbol.")] = None,
    length: Annotated[int, typer.Option(help="Symbols to draw.")] = 300,
    samples: Annotated[int, typer.Option(help="Texts to draw, all at once.")] = 1,
    temperature: Annotated[float, typer.Option(help="Below 1 safer, above 1 bolder; 0 takes the likeliest.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Only the k likeliest symbols; 0 = all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Only the likeliest symbols of this probability together.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="For the same text again; without it the recipe's.")] = None,
    trust: Trust = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all samples as one JSON object.")] = False,
) -> None:
    """Write text with a trained language model, symbol by symbol."""
    from rayrnn.generation import Drawing
    from rayrnn.generation import generate as draw
    from rayrnn.runs.directory import open_run

    drawing = Drawing(temperature=temperature, top_k=top_k, top_p=top_p)
    pieces = draw(open_run(run, trust=trust), prime=prime, length=length, samples=samples, drawing=drawing, seed=seed)
    if as_json:
        texts = ["".join(sample) for sample in zip(*pieces, strict=True)]
        give_json({"run": run, "prime": prime, "samples": texts})
    else:
        _stream(pieces)


def evaluate(
    run: Annotated[str, typer.Argument(help="The run directory.", autocompletion=complete_run)],
    data: Annotated[
        str | None, typer.Option(metavar="PATH", help="Sequences with labels; without it those that were held out.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="PATH", help="Their labels, where these lie beside them, as data.labels says.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster; without it the one `rayrnn up` started, or one of its own.")
    ] = None,
    trust: Trust = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as one JSON object.")] = False,
) -> None:
    """Measure a run's best model: accuracy, F1 and confusions, RMSE and R2, or perplexity."""
    from rayrnn.prediction.evaluate import evaluate as measure
    from rayrnn.runs.directory import open_run

    with console().status("measuring ..."):
        report = measure(open_run(run, trust=trust), path=data, labels=labels, address=address)
    for note in report.notes:
        say_dimly(note)
    if as_json:
        give_json(report.to_json())
    else:
        give(report.to_text(), nl=False)


def predict(
    run: Annotated[str, typer.Argument(help="The run directory.", autocompletion=complete_run)],
    data: Annotated[
        str, typer.Option(metavar="PATH", help="Sequences as the run learned them; labels may be missing.")
    ],
    out: Annotated[str, typer.Option(metavar="PATH", help="A new file that ends in .jsonl, .csv or .parquet.")],
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster; without it the one `rayrnn up` started, or one of its own.")
    ] = None,
    trust: Trust = False,
) -> None:
    """Answer every sequence with its label and probabilities, or its numbers, keyed by its name."""
    from rayrnn.prediction.predict import predict as answer
    from rayrnn.runs.directory import open_run
    from rayrnn.wording import counted

    written = answer(open_run(run, trust=trust), data, out, address=address)
    for reason in written.skipped[:3]:
        say_dimly(f"skipped: {reason}")
    skipped = f", {len(written.skipped):,} skipped" if written.skipped else ""
    console().print(f"{counted(written.num_sequences, 'sequence')} answered in {written.path}{skipped}")


def _stream(pieces: Iterator[list[str]]) -> None:
    """The first sample is printed as it is drawn; the others, drawn beside it, follow."""
    others: list[list[str]] = []
    for first, *rest in pieces:
        give(first, nl=False)
        sys.stdout.flush()
        others.append(rest)
    give("")
    for number, sample in enumerate(zip(*others, strict=True), start=2):
        give(f"--- {number} ---\n{''.join(sample)}")
