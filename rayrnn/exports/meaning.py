"""What the numbers of an exported file mean, as plain JSON that stands in the file: enough to use it without rayrnn."""

from importlib.metadata import version
from typing import Any

from rayrnn.data.encoding import Classes, Encoding, Numbers, Scaling
from rayrnn.data.symbols import Symbols
from rayrnn.exports.graph import MASK, Graph, Port
from rayrnn.recipe import Recipe, needs_of, task_of
from rayrnn.tasks import Numeric, Searching

#: of this JSON; a reader of version 1 can go on where keys are added
FORMAT, VERSION = "rayrnn-export", 1

_MASK = "true where a step exists; what does not exist stands at the end of a row, and can be any number"
_AT_PADDING = "where the mask is false they mean nothing"


def meaning_of(recipe: Recipe, encoding: Encoding) -> dict[str, Any]:
    """What does not depend on the kind of file; `encoding` is what the run keeps, too."""
    task = task_of(recipe)
    spread = task.meaning() if isinstance(task, Numeric) else {}
    return {
        "format": FORMAT,
        "version": VERSION,
        "rayrnn": version("rayrnn"),
        "name": recipe.name,
        "task": recipe.task,
        "network": recipe.model.describe(),
        "encoding": encoding.to_json(),
        **({"spread": spread} if spread else {}),
    }


def meaning_of_graph(recipe: Recipe, encoding: Encoding, graph: Graph) -> dict[str, Any]:
    """The same, with every input and output of a graph by its name."""
    others = [port for port in graph.inputs if port.name in graph.carried]
    state = [port.to_json() | {"next": f"next_{port.name}"} for port in others]
    values = meaning_of(recipe, encoding) | {
        "part": graph.part or "whole",
        "inputs": [_input(port, encoding) for port in graph.inputs if port not in others],
        "outputs": [_output(port, recipe, encoding) for port in graph.outputs if not port.name.startswith("next_")],
        "state": state,
    }
    begin = "in the outputs of the encoder" if graph.part == "decoder" else "zeros"
    return values | ({"state_begins_with": begin} if state else {})


def _input(port: Port, encoding: Encoding) -> dict[str, Any]:
    if port.name == MASK:
        return port.to_json() | {"holds": _MASK}
    if port.name == "inputs":
        return port.to_json() | _inputs(encoding)
    if port.name == "symbols":
        end = encoding.targets.vocabulary.end if isinstance(encoding.targets, Symbols) else -1
        return port.to_json() | {"holds": "the symbol that was written last, by its number", "first": end}
    return port.to_json() | {"holds": "what the encoder has read"}


def _inputs(encoding: Encoding) -> dict[str, Any]:
    if isinstance(encoding.inputs, Symbols):
        return {"holds": "symbols by their numbers"} | _symbols(encoding.inputs)
    numbers = encoding.inputs
    scaled = [
        {"feature": name, "subtract": shift, "divide_by": scale}
        for name, shift, scale in zip(_names(numbers), numbers.scaling.shift, numbers.scaling.scale, strict=True)
    ]
    words = [
        {"feature": name, "one_at": word}
        for name, known in zip(_category_names(numbers), numbers.categories, strict=True)
        for word in known
    ]
    later = []
    if encoding.forecast is not None:
        known = [scaled[place] for place in encoding.forecast.known]
        later = [column | {"steps_ahead": steps} for steps in encoding.forecast.horizons for column in known]
    return {"holds": "numbers, scaled", "scaling": numbers.scaling.kind, "columns": scaled + words + later}


def _output(port: Port, recipe: Recipe, encoding: Encoding) -> dict[str, Any]:
    if port.name != "answers":
        return port.to_json() | {"holds": "weights over the steps" if port.name == "attention" else "for the decoder"}
    values = port.to_json() | {"at_padding": _AT_PADDING} if "time" in port.shape else port.to_json()
    if encoding.stride > 1:
        values["steps"] = f"one for every {encoding.stride} steps of the inputs, rounded up"
    return values | _answers(recipe, encoding)


def _answers(recipe: Recipe, encoding: Encoding) -> dict[str, Any]:
    targets, task = encoding.targets, task_of(recipe)
    if isinstance(targets, Classes):
        said = {"are": "logits", "probabilities_by": "sigmoid" if targets.several else "softmax"}
        return said | {"classes": list(targets.names), "several": targets.several}
    if isinstance(targets, Symbols):
        logits = {"are": "logits", "probabilities_by": "softmax", **_symbols(targets)}
        if isinstance(task, Searching) and not task.decodes:
            return logits | {"of": "this step", "blank": max(targets.vocabulary.unknown, 0)}
        return logits | {"of": f"the symbol {needs_of(recipe).ahead} later" if task.generates else "the next symbol"}
    asked = task.meaning() if isinstance(task, Numeric) else {}
    scaling = Scaling.none(targets.scaling.width) if asked.pop("counts", False) else targets.scaling
    columns = [
        {"number": name, "multiply_by": scale, "add": shift}
        for name, shift, scale in zip(_names(targets), scaling.shift, scaling.scale, strict=True)
    ]
    ahead: dict[str, Any] = {"steps_ahead": encoding.ahead} if encoding.ahead else {}
    if encoding.forecast is not None and len(encoding.forecast.horizons) > 1:
        ahead = {"steps_ahead": list(encoding.forecast.horizons)}
    return {"are": "numbers", "scaling": scaling.kind, "columns": columns} | ahead | asked


def _symbols(symbols: Symbols) -> dict[str, Any]:
    """The symbols in the order of their numbers; of pieces of words, sentencepiece's model is in `encoding`."""
    vocabulary = symbols.vocabulary
    special = {"unknown": vocabulary.unknown, "begin": vocabulary.begin, "end": vocabulary.end}
    known = {f"{name}_symbol": number for name, number in special.items() if number >= 0}
    return {"units": symbols.units.kind, "symbols": list(vocabulary.symbols)} | known


def _names(numbers: Numbers) -> tuple[str, ...]:
    return numbers.names or tuple(f"feature {place}" for place in range(numbers.scaling.width))


def _category_names(numbers: Numbers) -> tuple[str, ...]:
    return numbers.category_names or tuple(f"category {place}" for place in range(len(numbers.categories)))
