"""One text -> the likeliest answers to it, and where the network looked while it wrote the best of them."""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa

from rayrnn.data.prepare import needs_to_read
from rayrnn.data.rows import canonical, step_counts
from rayrnn.data.symbols import Symbols
from rayrnn.errors import RunError, UsageError
from rayrnn.recipe import search_of, task_of
from rayrnn.runs.directory import Run
from rayrnn.runs.model import found_in, trained
from rayrnn.tasks import Searching


@dataclass(frozen=True)
class Answer:
    """A text that was found."""

    text: str
    #: the logarithm of its probability, over the length penalty
    score: float


@dataclass(frozen=True)
class Attention:
    """What a network looked at while it wrote an answer. U symbols with the end, T steps that it looks at."""

    #: of the text that was read; empty where a step is none of them
    read: tuple[str, ...]
    #: of the answer
    written: tuple[str, ...]
    #: U x T, every row adds up to 1
    weights: tuple[tuple[float, ...], ...]

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(vars(self), ensure_ascii=False) + "\n"


def ask(run: Run, text: str, *, answers: int = 1, beam: int | None = None) -> tuple[list[Answer], Attention | None]:
    """The likeliest answers to a text, best first; at most as many as the beam has hypotheses.

    Args:
        beam: hypotheses that are followed; without it the recipe's, or as many as answers are asked for.

    Returns:
        the answers, and what the network looked at for the best one; none where it looks at nothing (ctc).

    Raises:
        UsageError: the run writes no answers, or does not read texts; or there are fewer symbols than the beam has
            hypotheses.
        DataError: there is nothing in the text.
        RunError: the run has no usable model.
    """
    task = task_of(run.recipe)
    if not isinstance(task, Searching):
        raise UsageError(f"{run.name} learned {run.recipe.task}, which writes no answer to a text")
    encoding = run.encoding
    if not isinstance(encoding.inputs, Symbols):
        raise UsageError(f"{run.name} reads numbers, not texts: use `rayrnn predict --data PATH`")
    if answers < 1:
        raise UsageError(f"samples is {answers}; it must be at least 1")
    search = search_of(run.recipe, encoding.num_outputs, beam=beam, keep_weights=True)
    if answers > search.beam:
        if beam is not None:
            raise UsageError(f"samples is {answers} and beam {beam}: there are no more answers than hypotheses")
        if answers > encoding.num_outputs:
            raise UsageError(f"samples is {answers}; it can be at most {encoding.num_outputs} here, as many as symbols")
        search = search_of(run.recipe, encoding.num_outputs, beam=answers, keep_weights=True)
    model = trained(run)
    table = pa.table({"key": ["the prime"], "text": [text]})
    rows = canonical(table, needs_to_read(run.recipe, encoding), labelled=False)
    if not step_counts(rows)[0]:
        raise UsageError("the prime holds nothing to answer: give a text")
    (found,) = found_in(rows, model, model.network(), task, search)
    if not found:
        raise RunError(f"{run.name} has no answer: its network's outputs are no finite numbers, it has diverged")
    targets = encoding.targets
    assert isinstance(targets, Symbols), "what is found is symbols"
    best = found[0]
    looked = _attention(rows, encoding.inputs, targets, best.symbols, best.weights) if best.weights else None
    return [Answer(targets.text_of(one.symbols), one.score) for one in found[:answers]], looked


def unknown_in(run: Run, text: str) -> list[str]:
    """The symbols of a text that the run has not learned, each once; it reads the unknown symbol in their place."""
    inputs = run.encoding.inputs
    assert isinstance(inputs, Symbols), "the run has answered this text"
    known = set(inputs.vocabulary.symbols)
    return [symbol for symbol in dict.fromkeys(inputs.units.cut(text)) if symbol not in known]


def check_attention(path: Path) -> None:
    """
    Raises:
        UsageError: nothing of this name is written; or there is something already; or pictures cannot be made here.
    """
    if path.suffix not in (".svg", ".png", ".json"):
        raise UsageError(f"--attention is {path}: its name must end in .svg, .png or .json")
    if path.exists():
        raise UsageError(f"{path} is there already: remove it, or choose another --attention")
    if path.suffix != ".json" and find_spec("matplotlib") is None:
        raise UsageError(f"--attention {path} needs matplotlib: pip install 'rayrnn[plot]'; .json needs nothing")


def _attention(
    rows: pa.Table,
    inputs: Symbols,
    targets: Symbols,
    symbols: tuple[int, ...],
    weights: tuple[tuple[float, ...], ...],
) -> Attention:
    read = inputs.units.cut(rows["text"][0].as_py()) if "text" in rows.column_names else rows["symbols"][0].as_py()
    steps = len(weights[0])
    names = tuple(read) if len(read) == steps else ("",) * steps
    return Attention(names, (*targets.vocabulary.decode(symbols), "end"), weights)
