"""A zip of DL4J's -> an ordinary run: its network, its scaling, and what its updater keeps, to go on from."""

import json
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rayrnn.averaging.averager import order_of
from rayrnn.averaging.optimizer_state import own_state, prepare_state
from rayrnn.data.encoding import Classes, Encoding, Numbers, Scaling
from rayrnn.data.files import not_here
from rayrnn.data.rows import Label
from rayrnn.data.symbols import Symbols
from rayrnn.data.units import Units
from rayrnn.data.vocabulary import Vocabulary
from rayrnn.dl4j.description import LAYERS, OPTIMIZERS, Description
from rayrnn.dl4j.parameters import all_tensors, parameters_of, to_tensors
from rayrnn.dl4j.updates import Dl4jUpdates
from rayrnn.dl4j.zip_file import Model, read_zip
from rayrnn.durable import replace_durably
from rayrnn.errors import DataError, RecipeError, UsageError
from rayrnn.foreign import read_plain
from rayrnn.recipe import Recipe, task_that_learns, validate_recipe
from rayrnn.runs.checkpoints import Checkpoint, write_checkpoint
from rayrnn.runs.directory import Run, has_run, taken
from rayrnn.runs.layout import RECIPE
from rayrnn.runs.model import build_network
from rayrnn.runs.store import is_address
from rayrnn.training.progress import Progress
from rayrnn.wording import counted, path_of

#: bytes of a file of symbols
_MOST_SYMBOLS = 64 * 2**20
_LOSSES = {"softmax": "MCXENT", "identity": "MSE", "sigmoid": "XENT"}


@dataclass(frozen=True)
class Imported:
    """A run that was made of a zip."""

    run: Run
    #: what was read, in words
    told: str
    #: what the user should know
    notes: tuple[str, ...]


def import_dl4j(
    path: str | Path,
    *,
    out: str | Path,
    symbols: str | Path | Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> Imported:
    """Make a run of a zip that DL4J's ModelSerializer wrote, 0.9.1 or 1.0.0. Nothing of Java is needed.

    Args:
        out: the run directory, a new one.
        symbols: what the inputs stand for where they are one-hot, in the order of the zip's columns: a list, or a file
            of them (see `read_symbols`). With as many answers as symbols, and no `classes`, it is a language model.
        classes: what the answers are called, in the order of the zip's columns; without them 0, 1, 2 ...

    Raises:
        DataError: the zip cannot be read, has layers without a counterpart (names each), or other sizes than `symbols`
            or `classes`. Nothing is written then.
        UsageError: `out` holds a run, or cannot be written.
    """
    if not str(out):
        raise UsageError("--out is empty: name a new directory")
    if is_address(out):
        raise UsageError(f"--out is {out}: import into a directory of this machine; a run can be copied from there")
    place, where = path_of(out), path_of(path)
    if not where.exists():
        raise DataError(not_here(where))
    model = read_zip(where)
    known = read_symbols(symbols) if isinstance(symbols, str | Path) else _named(symbols, "symbols", strips=False)
    encoding, task = _meaning(model, known, _named(classes, "classes", strips=True), str(where))
    if has_run(place):
        raise UsageError(f"{place} holds a run already: import into another directory (--out), or remove it first")
    try:
        recipe = _recipe(model, encoding, task, name=_name_of(place))
    except RecipeError as error:
        raise DataError(f"{where} has settings that no recipe takes: {error}") from None
    network = build_network(recipe, encoding)
    weights = all_tensors(model.parameters, network)
    network.load_state_dict(weights)
    checkpoint = _checkpoint(model, network, recipe)
    with taken(place, recipe, resume=False) as run:
        run.write_encoding(encoding)
        run.write_model(weights)
        write_checkpoint(run.checkpoints, 0, checkpoint)
        # the recipe is what makes a directory a run: it comes last
        replace_durably(run.path / RECIPE, _commented(recipe, model.description, where.name).encode())
    notes = (*model.notes, *_notes(model, encoding, named=symbols is not None or classes is not None))
    return Imported(run, _told(model, recipe, encoding), notes)


def read_symbols(where: str | Path) -> tuple[str, ...]:
    r"""The symbols of a file: a line for each, where `\n` is a line end; or (.json) a list of texts.

    In a line, `\n`, `\t`, `\r`, `\\` and `\uXXXX` stand for a sign as in JSON; all else, blanks too, is the symbol. A
    JSON file may also map each symbol to its number, or be another run's vocabulary.json.

    Raises:
        DataError: it cannot be read.
    """
    path = path_of(where)
    try:
        text = read_plain(path, most=_MOST_SYMBOLS).decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"the symbols: {not_here(path)}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"the symbols {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if path.suffix == ".json":
        return _listed_symbols(text, path)
    lines = text.split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    return tuple(_symbol_of(line.removesuffix("\r"), number, path) for number, line in enumerate(lines, start=1))


def _listed_symbols(text: str, path: Path) -> tuple[str, ...]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the symbols {path} are no JSON: {error}") from None
    if isinstance(values, dict) and isinstance(values.get("inputs"), dict):  # what a run keeps
        values = values["inputs"].get("vocabulary")
    elif isinstance(values, dict):  # symbol -> number, as many programs keep them
        numbers = sorted(values.values()) if all(isinstance(one, int) for one in values.values()) else []
        if numbers != list(range(len(values))):
            raise DataError(f"the symbols {path} are to be a list, or numbered 0, 1, 2 ... each once")
        values = sorted(values, key=values.__getitem__)
    if not isinstance(values, list):
        raise DataError(f"the symbols {path} are to be a list of texts")
    return _named(values, f"the symbols {path}", strips=False) or ()


def _symbol_of(line: str, number: int, path: Path) -> str:
    if "\\" not in line:
        if not line:
            raise DataError(
                f"{path}:{number} is empty, and a line is one symbol: write a line end as \\n, and take out a line "
                "that is none"
            )
        return line
    try:
        symbol = str(json.loads('"' + line.replace('"', '\\"') + '"'))
    except ValueError:
        symbol = ""
    if not symbol or not _is_text(symbol):
        raise DataError(
            f"{path}:{number} is {line!r}: a backslash is written \\\\, and others are \\n, \\t, \\r and \\uXXXX"
        )
    return symbol


def _named(names: Iterable[str] | None, what: str, *, strips: bool) -> tuple[str, ...] | None:
    """What a program names: texts in an order, none of them empty, which a file of the run can hold.

    Args:
        strips: blanks around them mean nothing, as they do around the classes of a table.
    """
    if names is None:
        return None
    if isinstance(names, str | bytes | Set) or not isinstance(names, Iterable):
        raise DataError(f"{what} is {names!r}: give a list, in the order of the zip's columns")
    found = list(names)
    for place, name in enumerate(found):
        if not isinstance(name, str) or not (name.strip() if strips else name) or not _is_text(name):
            raise DataError(f"{what}[{place}] is {name!r}: each is a text, and not empty")
    return tuple(name.strip() if strips else str(name) for name in found)


def _is_text(name: str) -> bool:
    """Without halves of a character, which no file holds."""
    return not any("\ud800" <= sign <= "\udfff" for sign in name)


def _meaning(
    model: Model, symbols: Sequence[str] | None, classes: Sequence[str] | None, where: str
) -> tuple[Encoding, str]:
    """What inputs and answers stand for, and the task."""
    found, normalizer = model.description, model.normalizer
    inputs: Symbols | Numbers
    if symbols is not None:
        due = "one-hot numbers a step: a symbol for each, with the blank and the line end, is due"
        _check_names(symbols, found.num_inputs, "symbol", f"{where} reads {found.num_inputs:,} {due}")
        if normalizer is not None:
            raise DataError(f"{where} has a normalizer for its inputs, which are numbers then: leave --symbols out")
        vocabulary = Vocabulary(tuple(symbols))
        inputs = Symbols(vocabulary, Units("characters" if vocabulary.of_characters else "words"))
        as_many = found.num_inputs == found.num_outputs
        if classes is None and as_many and found.answers == "softmax" and found.pooling is None:
            return Encoding(inputs, inputs, per_step=True), task_that_learns(Label.NOTHING)
    else:
        inputs = Numbers(Scaling.none(found.num_inputs) if normalizer is None else normalizer.features)
    per_step = found.pooling is None
    if found.answers == "identity":
        if classes is not None:
            raise DataError(f"{where} answers with numbers (MSE), which have no classes: leave --classes out")
        labels = None if normalizer is None else normalizer.labels
        targets = Numbers(labels or Scaling.none(found.num_outputs))
        return Encoding(inputs, targets, per_step), task_that_learns(Label.NUMBERS)
    names = tuple(map(str, range(found.num_outputs))) if classes is None else tuple(classes)
    _check_names(names, found.num_outputs, "class", f"{where} answers with {found.num_outputs:,} numbers")
    several = found.answers == "sigmoid"
    if several and per_step:  # each of the numbers is a probability
        targets = Numbers(Scaling.none(found.num_outputs), names=names if classes else (), apart=bool(classes))
        return Encoding(inputs, targets, per_step), task_that_learns(Label.NUMBERS)
    label = Label.CLASSES if per_step else Label.SET if several else Label.CLASS
    return Encoding(inputs, Classes(names, several=several), per_step), task_that_learns(label, several=several)


def _check_names(names: Sequence[str], due: int, noun: str, where: str) -> None:
    if len(names) != due:
        raise DataError(f"{where}, and there {'is' if len(names) == 1 else 'are'} {counted(len(names), noun)}")
    if len(set(names)) != len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        first, second, *_ = (number for number, name in enumerate(names, start=1) if name == twice)
        raise DataError(f"the {noun} {twice!r} is there twice, as number {first} and {second}: each is one of its own")


def _name_of(place: Path) -> str:
    name = "".join(sign if sign.isascii() and (sign.isalnum() or sign in "._-") else "-" for sign in place.name)
    return name if name[:1].isalnum() else f"imported{name}"


def _recipe(model: Model, encoding: Encoding, task: str, *, name: str) -> Recipe:
    found = model.description
    updater, cell = found.updater, found.cell
    data: dict[str, Any] = {"source": "given"}
    if isinstance(encoding.targets, Classes) and encoding.targets.several:
        data["several"] = True
    if isinstance(encoding.inputs, Numbers):
        data["normalize"] = encoding.inputs.scaling.kind
    network: dict[str, Any] = {"cell": cell, "layers": len(found.hidden), "bidirectional": found.bidirectional}
    network["hidden"] = found.hidden[0] if len(set(found.hidden)) == 1 else list(found.hidden)
    network |= {} if found.pooling is None else {"pooling": found.pooling}
    network |= {"dropout": found.dropout, "dropout_at": list(found.dropout_at)} if found.dropout else {}
    rules: dict[str, Any] = {"version": found.version, "l1": found.l1}
    rules |= {"momentum": updater.momentum} if updater.name == "Nesterovs" else {}
    rules |= {"beta1": updater.beta1, "beta2": updater.beta2} if updater.name == "Adam" else {}
    rules |= {"epsilon": updater.epsilon} if updater.name in ("Adam", "RmsProp") else {}
    rules |= {} if updater.schedule is None else {"schedule": dict(updater.schedule)}
    training: dict[str, Any] = {
        "optimizer": OPTIMIZERS[updater.name],
        "learning_rate": updater.learning_rate,
        "l2": found.l2,
        "truncate": found.truncate,
        "clip": found.clip,
        "clip_by": found.clip_by,
        "dl4j": rules,
    }
    training |= {"loss": "bernoulli"} if found.answers == "sigmoid" and isinstance(encoding.targets, Numbers) else {}
    training |= {"decay": updater.decay} if updater.name == "RmsProp" else {}
    return validate_recipe(
        {
            "name": name,
            "task": task,
            "data": data,
            "model": network,
            "training": training,
            # DL4J's own frequency and state; each worker learns minibatches as large as one alone
            "averaging": {"workers": 1, "optimizer_state": "average", "scaling": "none"},
            "seed": found.seed,
        },
        "the zip",
    )


def _checkpoint(model: Model, network: nn.Module, recipe: Recipe) -> Checkpoint:
    """What training goes on from: the updater as DL4J left it."""
    optimizer, found = Dl4jUpdates(network, recipe.training), model.description
    torch.manual_seed(recipe.seed)
    prepare_state(optimizer)
    parameters, named = parameters_of(network), dict(network.named_parameters())
    kept = () if model.state is None else found.updater.states
    for number, state in enumerate(kept):
        assert model.state is not None
        share = len(model.state) // len(kept)
        for name, values in to_tensors(model.state[number * share : (number + 1) * share], parameters).items():
            optimizer.state[named[name]][state].copy_(values)
    for state_of in optimizer.state.values():
        state_of["step"].fill_(found.iteration)
    progress = Progress().to_json() | {"parameters": order_of(network)}
    return Checkpoint(network.state_dict(), {}, (own_state(optimizer),), progress)


def _notes(model: Model, encoding: Encoding, *, named: bool) -> list[str]:
    found, notes = model.description, []
    if not named and isinstance(encoding.targets, Classes):
        notes.append(
            f"a zip knows no names: the run reads {counted(found.num_inputs, 'number')} a step, and its classes are "
            f"called 0 to {found.num_outputs - 1}. To name them, import it again into another directory: --classes "
            "a,b,c, or --symbols FILE where the inputs are one-hot"
        )
    if model.state is None and found.updater.states:
        notes.append(f"the zip has no state of its {found.updater.name}: it begins anew where the run is trained on")
    if found.version == "1.0.0" and found.truncate:
        notes.append(
            "DL4J 1.0.0-M2.1 has a fault in truncated backpropagation (from the second segment on its gradients go "
            "back through a state of zeros); the run goes on without it"
        )
    return notes


def _told(model: Model, recipe: Recipe, encoding: Encoding) -> str:
    found = model.description
    return (
        f"{recipe.task}, {recipe.model.describe()}, {encoding.describe()}; DL4J {found.version}, after "
        f"{counted(found.iteration, 'update')} of {found.updater.name}"
    )


def _commented(recipe: Recipe, found: Description, where: str) -> str:
    """The recipe, with a comment beside each value that comes from the zip."""
    layer = "GravesBidirectionalLSTM" if found.is_graves_pair else LAYERS[found.cell]
    comments = {
        "task": f"{'an RnnOutputLayer' if found.pooling is None else 'an OutputLayer'} with {_LOSSES[found.answers]}",
        "data.source": "a zip has no data: name yours here, or hand it over from Python",
        "data.normalize": "normalizer.bin; its numbers are in vocabulary.json",
        "model.cell": layer,
        "model.hidden": "nOut of the recurrent layers",
        "model.layers": "recurrent layers",
        "model.bidirectional": "how a Bidirectional layer merges; GravesBidirectionalLSTM adds",
        "model.pooling": "LastTimeStep, or poolingType of a GlobalPoolingLayer",
        "model.dropout": "1 - dropOut: DL4J has the share that is kept",
        "model.dropout_at": "of the inputs of which layers",
        "training.optimizer": f"the updater {found.updater.name}",
        "training.learning_rate": "the updater's",
        "training.decay": "rmsDecay",
        "training.l2": "l2, of weights and not of biases",
        "training.truncate": "tbpttFwdLength; 0 with backpropType Standard",
        "training.clip": "gradientNormalizationThreshold; 0 without gradientNormalization",
        "training.clip_by": "gradientNormalization",
        "training.batch_size": "no zip tells it: set the size of your minibatches",
        "training.dl4j": f"updates by the rules of DL4J {found.version}: docs/from-dl4j.md",
        "averaging.workers": "each learns alone; more average as a ParameterAveragingTrainingMaster does",
        "averaging.frequency": "averagingFrequency",
        "averaging.optimizer_state": "DL4J averages its updaters' state, too",
        "seed": "the seed of the first layer",
    }
    lines, section = [f"# imported from {where}, written by DL4J {found.version} after {found.iteration:,} updates"], ""
    for line in recipe.to_yaml().splitlines():
        key = line.split(":")[0].strip()
        inner = line.startswith("  ") and not line.startswith("   ") and not line.startswith("  -")
        if not line.startswith((" ", "-")):
            section = key
        name = f"{section}.{key}" if inner else key if not line.startswith((" ", "-")) else ""
        lines.append(f"{line}  # {comments[name]}" if name in comments else line)
    return "\n".join(lines) + "\n"
