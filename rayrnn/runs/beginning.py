"""What a network begins with that goes on from another one's values (`training.start_from`): a run's, or a file's.

What both know is taken: features by their names, symbols one by one. V symbols, classes or numbers.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import torch
from torch import nn

from rayrnn.data.contents import read_whole
from rayrnn.data.encoding import Classes, Encoding, Numbers
from rayrnn.data.files import open_file_system
from rayrnn.data.symbols import Symbols
from rayrnn.data.vectors import Vectors
from rayrnn.errors import DataError, RecipeError, RunError
from rayrnn.foreign import memory_bytes, read_inside
from rayrnn.models.convolution import StepConvolutions
from rayrnn.models.decoder import EncoderDecoder
from rayrnn.models.network import BothDirections, Network
from rayrnn.models.own import OwnNetwork
from rayrnn.models.plain_names import plain_names
from rayrnn.recipe import Recipe, parse_recipe
from rayrnn.recipe.sections import Model
from rayrnn.runs.checkpoints import Tensors
from rayrnn.runs.directory import open_run
from rayrnn.runs.kept_recipe import stored_recipe
from rayrnn.runs.layout import MODEL
from rayrnn.runs.model import begin_with, build_network
from rayrnn.runs.schema import StoredEncoding, checked
from rayrnn.runs.signed_tensors import bytes_to_tensors, metadata_of
from rayrnn.wording import counted

#: of a file that `rayrnn export` wrote: what its numbers mean
META = "rayrnn"
WEIGHTS = ".safetensors"


@dataclass(frozen=True)
class Beginning:
    """All values of a network that is about to learn, and in words where they come from."""

    weights: Tensors
    told: str


@dataclass(frozen=True)
class _Source:
    """What was learned before."""

    where: str
    tensors: Tensors
    #: None where a file does not tell
    encoding: Encoding | None
    task: str | None
    network: str


@dataclass(frozen=True)
class _Places:
    """Where the values of a symbol, feature or class stand, before and now."""

    before: tuple[int, ...]
    now: tuple[int, ...]
    num_before: int
    num_now: int

    @classmethod
    def same(cls, count: int) -> "_Places":
        return cls(tuple(range(count)), tuple(range(count)), count, count)

    @classmethod
    def by_name(cls, before: tuple[object, ...], now: tuple[object, ...]) -> "_Places":
        known = {name: place for place, name in enumerate(before)}
        both = [(known[name], place) for place, name in enumerate(now) if name in known]
        return cls(tuple(pair[0] for pair in both), tuple(pair[1] for pair in both), len(before), len(now))


@dataclass(frozen=True)
class _Axis:
    """The axis of a tensor along which symbols, features or classes stand; without places it begins anew."""

    number: int
    places: _Places | None


def begin_from(recipe: Recipe, encoding: Encoding, own: OwnNetwork | None, vectors: Vectors | None) -> Beginning:
    """The values that a recipe's network begins with, where its `training.start_from` names others.

    What is not taken from there has the values that it would have without it, which come from the recipe's seed.

    Raises:
        RecipeError: the networks are of different sizes, or there is nothing that both have; names both.
        UsageError: there is no run.
        RunError: the run has no model, or what is stored of it cannot be used.
    """
    assert recipe.training.start_from is not None, "there is something to start from"
    torch.manual_seed(recipe.seed)
    network = build_network(recipe, encoding, own)
    if vectors is not None:
        begin_with(network, vectors.values)
    source = _find(recipe.training.start_from)
    if own is not None:
        return _others(network, source, encoding)
    return _ours(network, source, recipe, encoding)


def _find(where: str) -> _Source:
    if PurePosixPath(where).suffix == WEIGHTS:
        return _of_file(where)
    if PurePosixPath(where).suffix in (".onnx", ".pt2"):
        raise RecipeError(
            f"training.start_from is {where}: what is in it can be computed, not learned; give the run directory, or "
            "export the run to weights.safetensors"
        )
    run = open_run(where)
    try:
        tensors = bytes_to_tensors(read_inside(run.path, MODEL, most=memory_bytes()))
    except FileNotFoundError:
        raise RunError(f"training.start_from is {where}: the run has no model yet, {MODEL} is not there") from None
    except Exception as error:  # safetensors raises its own, torch and KeyError theirs: all mean the same here
        raise RunError(f"{run.path / MODEL} cannot be started from: {error}") from None
    # no code that it names is needed, so that none is imported
    values = parse_recipe(*stored_recipe(run.path))
    return _Source(where, tensors, run.encoding, str(values.get("task")), _described(values.get("model")))


def _of_file(where: str) -> _Source:
    try:
        content = read_whole(*open_file_system(where), where)
    except DataError as error:
        raise RecipeError(f"training.start_from: {error}") from None
    try:
        tensors = bytes_to_tensors(content, of_others=True)
        meaning = json.loads((metadata_of(content) or {}).get(META, "{}"))
        stored = json.dumps(meaning["encoding"]).encode() if "encoding" in meaning else None
    except Exception as error:  # as above
        raise RecipeError(f"training.start_from is {where}, which is no such file: {error}") from None
    if stored is None:
        return _Source(where, tensors, None, None, "a network that does not tell its sizes")
    encoding = Encoding.from_json(checked(stored, StoredEncoding, f"{where}, {META}.encoding").model_dump())
    return _Source(where, tensors, encoding, str(meaning.get("task")), str(meaning.get("network")))


def _described(values: object) -> str:
    try:
        return Model.model_validate(values).describe()
    except ValueError:
        return "a network of another kind"


def _others(network: nn.Module, source: _Source, encoding: Encoding) -> Beginning:
    """A network of the user's own: what has the same name and shape is taken; what it means is not known."""
    fresh = _copied(network)
    taken = {
        name: source.tensors[name].to(value.dtype)
        for name, value in fresh.items()
        if name in source.tensors and source.tensors[name].shape == value.shape
    }
    if not taken:
        raise RecipeError(
            f"training.start_from is {source.where}, {source.network}, and no tensor there has the name and the shape "
            f"of one of this recipe's network {type(network).__name__}: leave training.start_from out"
        )
    told = f"{len(taken)} of {counted(len(fresh), 'tensor')}"
    if source.encoding is not None and source.encoding.inputs != encoding.inputs:
        told += "; what it reads is other than there, and taken as if it were the same"
    return Beginning(fresh | taken, f"begins with {source.where}: {told}")


def _ours(network: nn.Module, source: _Source, recipe: Recipe, encoding: Encoding) -> Beginning:
    tensors = _by_our_names(source, network)
    fresh = _copied(network)
    axes = _axes(network, source, recipe, encoding)
    anew = {name for name, axis in axes.items() if axis.places is None or (name not in tensors and _is_head(name))}
    for name in sorted((fresh.keys() | tensors.keys()) - anew):
        _check_size(name, fresh, tensors, axes, source, recipe)
    for name in fresh.keys() - anew:
        _take(fresh[name], tensors[name], axes.get(name))
    told = [f"{len(fresh) - len(anew)} of {counted(len(fresh), 'tensor')}", *_news(axes, anew, encoding)]
    return Beginning(fresh, f"begins with {source.where}: {'; '.join(told)}")


def _copied(network: nn.Module) -> Tensors:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _by_our_names(source: _Source, network: nn.Module) -> Tensors:
    """What was read; where the tensors have the names of torch.nn's own layer, those of ours."""
    if "weight_ih_l0" not in source.tensors:
        return source.tensors
    try:
        ours = {theirs: name for name, theirs in plain_names(network).items()}
    except ValueError as error:
        raise RecipeError(
            f"training.start_from is {source.where}, the weights of a layer of torch.nn, and the recipe's network is "
            f"none: {error}"
        ) from None
    return {ours.get(name, name): value for name, value in source.tensors.items()}


def _axes(network: nn.Module, source: _Source, recipe: Recipe, encoding: Encoding) -> dict[str, _Axis]:
    """The tensors of our network that hold something of every symbol, feature or class."""
    reader, prefix = (network.encoder, "encoder.") if isinstance(network, EncoderDecoder) else (network, "")
    assert isinstance(reader, Network), "the network is rayrnn's"
    read = {f"{prefix}{name}": number for name, number in _reading(reader)}
    written = {"projection.weight": 0, "projection.bias": 0}
    written |= {"embedding.weight": 0} if isinstance(network, EncoderDecoder) else {}
    inputs = _places_read(source, encoding) if read else None
    targets = _places_written(source, recipe, encoding)
    axes = {name: _Axis(number, inputs) for name, number in read.items()}
    return axes | {name: _Axis(number, targets) for name, number in written.items()}


def _reading(network: Network) -> Iterator[tuple[str, int]]:
    """The tensors that see what is read, and the axis along which it stands."""
    if network.embedding is not None:
        yield "embedding.weight", 0
        return
    if isinstance(network.front, StepConvolutions):
        yield "front.convolutions.0.weight", 1
    if network.front is not None:  # what an image's numbers mean is the convolutions' business
        return
    first = network.layers[0]
    for part in ("forwards.", "backwards.") if isinstance(first, BothDirections) else ("",):
        names = [name for name, _ in first.named_parameters() if name.startswith(part)]
        yield from ((f"layers.0.{name}", 1) for name in names if name.endswith("weight_ih_l0"))
        yield from ((f"layers.0.{name}", 0) for name in names if name.endswith("input_weights"))
    if network.parallel is not None:
        yield "parallel.convolutions.0.weight", 1


def _places_read(source: _Source, encoding: Encoding) -> _Places:
    now = encoding.inputs
    if source.encoding is None:  # then the shapes have to be the same
        return _Places.same(encoding.num_inputs)
    before, same_told = source.encoding.inputs, _told(source.encoding) == _told(encoding)
    if isinstance(before, Symbols) and isinstance(now, Symbols):
        return _Places.by_name(before.vocabulary.symbols, now.vocabulary.symbols)
    if isinstance(before, Numbers) and isinstance(now, Numbers):
        if _named(before) and _named(now):
            told = (_told(source.encoding), _told(encoding))
            return _Places.by_name((*_columns(before), *told[0]), (*_columns(now), *told[1]))
        if same_told and (before.scaling.width, before.categories) == (now.scaling.width, now.categories):
            return _Places.same(encoding.num_inputs)
    raise RecipeError(
        f"training.start_from is {source.where}, which reads {before.describe()}, and this recipe's data has "
        f"{now.describe()}: " + _why_not(before, now)
    )


def _why_not(before: Symbols | Numbers, now: Symbols | Numbers) -> str:
    if type(before) is type(now):
        return "which is which is known where the columns have names, in both"
    return "what was learned of symbols says nothing of numbers; leave training.start_from out"


def _named(numbers: Numbers) -> bool:
    return bool(numbers.names or not numbers.scaling.width) and bool(numbers.category_names or not numbers.categories)


def _columns(numbers: Numbers) -> tuple[object, ...]:
    words = zip(numbers.category_names, numbers.categories, strict=True)
    return (*numbers.names, *((name, word) for name, known in words for word in known))


def _told(encoding: Encoding) -> tuple[object, ...]:
    """What is read of later steps: what of them, and how many steps later."""
    forecast, inputs = encoding.forecast, encoding.inputs
    if forecast is None or not isinstance(inputs, Numbers):
        return ()
    called = [inputs.names[place] if inputs.names else place for place in forecast.known]
    return tuple((name, steps) for steps in forecast.horizons for name in called)


def _places_written(source: _Source, recipe: Recipe, encoding: Encoding) -> _Places | None:
    now = encoding.targets
    if source.encoding is None:
        heads = [source.tensors[name] for name in ("head.weight", "projection.weight") if name in source.tensors]
        return _Places.same(now.size) if heads and len(heads[0]) == now.size else None
    before = source.encoding.targets
    if source.task != recipe.task:
        return None
    if isinstance(before, Symbols) and isinstance(now, Symbols):
        return _Places.by_name(before.vocabulary.symbols, now.vocabulary.symbols)
    if isinstance(before, Classes) and isinstance(now, Classes):
        same = (before.names, before.several) == (now.names, now.several)
    else:
        same = isinstance(before, Numbers) and isinstance(now, Numbers) and _alike(before, now)
    return _Places.same(now.size) if same else None


def _alike(before: Numbers, now: Numbers) -> bool:
    return (before.size, before.names) == (now.size, now.names)


def _is_head(name: str) -> bool:
    return name.startswith("projection.")


def _check_size(
    name: str, fresh: Tensors, tensors: Tensors, axes: Mapping[str, _Axis], source: _Source, recipe: Recipe
) -> None:
    """
    Raises:
        RecipeError: a tensor is not in both networks, or not of the same size in both; names both networks.
    """
    due = list(fresh[name].shape) if name in fresh else None
    axis = axes.get(name)
    if due is not None and axis is not None and axis.places is not None:
        due[axis.number] = axis.places.num_before
    found = list(tensors[name].shape) if name in tensors else None
    if found != due:
        there, here = ("absent" if shape is None else "x".join(map(str, shape)) for shape in (found, due))
        raise RecipeError(
            f"training.start_from is {source.where}, {source.network}, and this recipe's network is "
            f'{recipe.model.describe()}: "{name}" is {there} there and {here} here; give the model section of the '
            "recipe the sizes that were learned, or leave training.start_from out"
        )


def _take(fresh: torch.Tensor, learned: torch.Tensor, axis: _Axis | None) -> None:
    if axis is None or axis.places is None:
        fresh.copy_(learned)
        return
    known = learned.to(fresh.dtype).index_select(axis.number, torch.tensor(axis.places.before, dtype=torch.int64))
    fresh.index_copy_(axis.number, torch.tensor(axis.places.now, dtype=torch.int64), known)


def _news(axes: Mapping[str, _Axis], anew: set[str], encoding: Encoding) -> Iterator[str]:
    """What is not taken, a phrase for each kind."""
    heads = {name: axis.places for name, axis in axes.items() if _is_head(name)}
    inputs = next((axis.places for name, axis in axes.items() if name not in heads and axis.places), None)
    kind = "symbol" if isinstance(encoding.inputs, Symbols) else "feature"
    if inputs is not None and (count := inputs.num_now - len(inputs.now)):
        yield f"{counted(count, f'new {kind}')}"
    head = heads["projection.weight"]
    if anew & heads.keys():
        yield f"a new head for {_answers(encoding)}"
    elif head is not None and encoding.targets != encoding.inputs and (count := head.num_now - len(head.now)):
        yield f"{counted(count, 'new symbol')} to answer with"


def _answers(encoding: Encoding) -> str:
    targets: Any = encoding.targets
    kind = "class" if isinstance(targets, Classes) else "symbol" if isinstance(targets, Symbols) else "number"
    return counted(targets.size, kind)
