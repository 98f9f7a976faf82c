"""The commands about models: recipes, train, generate, evaluate, detect, export."""

import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rayrnn.cli.completion import complete_recipe, complete_run, complete_shipped_recipe, complete_yaml
from rayrnn.cli.runs import Trust, train_there
from rayrnn.cli.talk import console, give, give_json, say_dimly
from rayrnn.errors import DataError, UsageError

if TYPE_CHECKING:
    from rayrnn.generation import Drawing
    from rayrnn.prediction.ask import Attention
    from rayrnn.runs.directory import Run

Beam = Annotated[
    int | None,
    typer.Option(help="Hypotheses to follow where answers have a length of their own; without it the recipe's."),
]


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
    report: Annotated[
        bool, typer.Option("--report", help="Keep report.html in the run directory fresh: a page that reloads itself.")
    ] = False,
    trust: Trust = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print how it ended as one JSON object.")] = False,
) -> None:
    """Train a recipe's network, round after round, and leave everything in a run directory."""
    from rayrnn.recipe import load_recipe
    from rayrnn.runs.kept_recipe import check_trust
    from rayrnn.runs.layout import is_stored

    # what the user wrote may name any code; what a run has kept may be a stranger's
    stored = is_stored(recipe)
    loaded = load_recipe(recipe, overrides or [], trusted=trust or not stored)
    kept = out or f"runs/{loaded.name}"
    check_trust(loaded, trusted=trust or not (stored or resume), where=kept if resume else recipe)
    if take_over and (cluster is not None or not resume):
        raise UsageError("--take-over goes with --resume, for a run in a store; a cluster's runs are in none")
    if cluster is not None:
        if report:
            raise UsageError(
                "--report is for a run on this machine; `rayrnn report RUN` shows what has come home of it"
            )
        train_there(loaded, cluster, out=out, resume=resume, detach=detach, address=address, as_json=as_json)
        return
    if detach:
        raise UsageError("--detach goes with --cluster: a run on this machine ends with its command")
    from rayrnn.cluster.environment import home

    home()  # without one, Ray Train cannot even be imported
    from rayrnn.training.driver import train as train_recipe

    outcome = train_recipe(
        loaded, out=out, resume=resume, address=address, trust=trust, take_over=take_over, report=report
    )
    if as_json:
        give_json(outcome.to_json())


def generate(
    run: Annotated[
        str,
        typer.Argument(help="The run directory of a language model or a transduction.", autocompletion=complete_run),
    ],
    prime: Annotated[
        str | None,
        typer.Option(help="What the text begins with; or the text to answer (transduction), the image to go on."),
    ] = None,
    length: Annotated[
        int | None, typer.Option(help="Symbols to draw; without it 300. An image has as many as it has pixels.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Texts or images to draw; or so many of the likeliest answers.")] = 1,
    to: Annotated[
        str | None, typer.Option(metavar="FILE.png", help="Images: write all of them to this new file, side by side.")
    ] = None,
    keep: Annotated[
        int | None, typer.Option(metavar="ROWS", help="Of the image at --prime, to keep; without it the upper half.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="Below 1 safer, above 1 bolder; 0 takes the likeliest.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Only the k likeliest symbols; 0 = all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Only the likeliest symbols of this probability together.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Another number draws other texts; without it the recipe's.")] = None,
    beam: Beam = None,
    attention: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What the answer looked at: a picture (.svg, .png) or numbers (.json)."),
    ] = None,
    trust: Trust = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all samples as one JSON object.")] = False,
) -> None:
    """Write text, or draw images, with a trained language model, symbol by symbol; or answer a text (transduction)."""
    from rayrnn.generation import Drawing
    from rayrnn.generation import generate as draw
    from rayrnn.recipe import task_of
    from rayrnn.recipe.media_sections import ImageData
    from rayrnn.runs.directory import open_run
    from rayrnn.tasks import Searching

    drawing = Drawing(temperature=temperature, top_k=top_k, top_p=top_p)
    opened = open_run(run, trust=trust)
    if isinstance(task_of(opened.recipe), Searching):
        if to is not None or keep is not None or length is not None:
            raise UsageError(f"{run} answers a text: --to, --keep and --length are for what is drawn; leave them out")
        if drawing != Drawing() or seed is not None:
            raise UsageError(
                f"{run} answers with what is likeliest, and nothing is drawn: leave --temperature, --top-k, --top-p "
                "and --seed out; --samples N gives the N likeliest answers"
            )
        answer_text(opened, run, prime, samples=samples, beam=beam, attention=attention, as_json=as_json)
        return
    if beam is not None or attention is not None:
        raise UsageError("--beam and --attention are for runs that answer a text (transduction); leave them out")
    if to is not None:
        if length is not None:
            raise UsageError(f"--length is {length}: an image has as many symbols as it has pixels; leave it out")
        _draw_sheet(opened, to, prime=prime, keep=keep, samples=samples, drawing=drawing, seed=seed, as_json=as_json)
        return
    if keep is not None:
        raise UsageError("--keep goes with --to and --prime: rows of an image that is to be completed")
    data = opened.recipe.data
    if isinstance(data, ImageData) and data.levels is not None and task_of(opened.recipe).generates:
        raise UsageError(f"{run} has learned pixels: say where its images are to be written, such as --to sheet.png")
    length = 300 if length is None else length
    pieces = draw(opened, prime=prime, length=length, samples=samples, drawing=drawing, seed=seed)
    if as_json:
        texts = ["".join(sample) for sample in zip(*pieces, strict=True)]
        give_json({"run": run, "prime": prime, "samples": texts})
    else:
        _stream(pieces)


def _draw_sheet(
    run: "Run",
    to: str,
    *,
    prime: str | None,
    keep: int | None,
    samples: int,
    drawing: "Drawing",
    seed: int | None,
    as_json: bool,
) -> None:
    from rayrnn.recipe.sources import OWN, check_installed
    from rayrnn.wording import counted

    check_installed(OWN["images"], "--to")
    from rayrnn.pictures import Begun, draw_sheet

    if keep is not None and prime is None:
        raise UsageError("--keep goes with --prime, the image that is to be completed")
    begun = None if prime is None else Begun(prime, keep)
    rows, columns = draw_sheet(run, to, samples=samples, drawing=drawing, seed=seed, begun=begun)
    if as_json:
        give_json({"run": run.name, "prime": prime, "to": to, "rows": rows, "columns": columns, "samples": samples})
    else:
        console().print(f"{counted(samples, 'image')} in {to}, {rows} x {columns}")


def answer_text(
    opened: "Run",
    run: str,
    prime: str | None,
    *,
    samples: int,
    beam: int | None,
    attention: Path | None,
    as_json: bool,
) -> None:
    """Print the likeliest answers to a text, one a line, and keep what the best of them looked at."""
    from rayrnn.prediction.ask import ask, check_attention, unknown_in
    from rayrnn.wording import listed

    if prime is None:
        raise UsageError(f"{run} answers a text: give it one, --prime TEXT; `rayrnn predict --data` answers many")
    if attention is not None:
        check_attention(attention)
    answers, looked = ask(opened, prime, answers=samples, beam=beam)
    if unknown := unknown_in(opened, prime):
        say_dimly(f"not learned, and so read as the unknown symbol: {listed(unknown)}")
    if attention is not None:
        _write_attention(looked, attention)
    if as_json:
        give_json({"run": run, "prime": prime, "answers": [vars(one) for one in answers]})
        return
    for one in answers:
        give(one.text)


def _write_attention(looked: "Attention | None", path: Path) -> None:
    from rayrnn.durable import write_durably

    if looked is None:
        raise UsageError("this run looks at no step while it writes: there is no attention")
    if path.suffix == ".json":
        content = looked.to_json().encode()
    else:
        from rayrnn.prediction.attention_map import picture_of

        content = picture_of(looked, path.suffix.removeprefix("."))
    try:
        write_durably(path, content)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error}") from None


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
