"""A run -> one file that needs no rayrnn: ONNX, torch.export, the weights of torch.nn's own layer, a zip of DL4J's."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import Any, cast

from torch import nn

from rayrnn.data.encoding import Encoding
from rayrnn.dl4j.exporting import zip_of
from rayrnn.errors import RunError, UsageError
from rayrnn.exports.graph import Graph, Port, graph_of, graphs_of_pair
from rayrnn.exports.graph_files import META, onnx_file, onnx_function, torch_file, torch_function
from rayrnn.exports.meaning import meaning_of, meaning_of_graph
from rayrnn.exports.parity import TOLERANCE, Parity, parity_of, parity_of_plain, parity_of_zip
from rayrnn.models.decoder import EncoderDecoder
from rayrnn.models.network import Network
from rayrnn.models.plain_names import plain_layer, plain_names
from rayrnn.prediction.destination import Destination, open_destination
from rayrnn.recipe import Recipe, task_of
from rayrnn.runs.directory import Run
from rayrnn.runs.model import form_of, load_network
from rayrnn.runs.signed_tensors import tensors_to_bytes
from rayrnn.tasks import Searching

ONNX, TORCH, WEIGHTS, DL4J = ".onnx", ".pt2", ".safetensors", ".zip"
SUFFIXES = (ONNX, TORCH, WEIGHTS, DL4J)
#: what writing an ONNX file needs beside torch, and what reading one needs
_LIBRARIES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Exported:
    """The files that were written: two of a network that reads with one part and writes with another."""

    paths: tuple[str, ...]
    #: what each takes and gives, in words
    told: tuple[str, ...]
    #: where a check was asked for
    parity: Parity | None = None

    def to_json(self) -> dict[str, Any]:
        values: dict[str, Any] = {"to": list(self.paths)}
        if self.parity is not None:
            values |= {"difference": self.parity.difference, "at": self.parity.output, "allowed": TOLERANCE}
        return values


@dataclass(frozen=True)
class _Made:
    """What is to be written, before it is."""

    content: bytes
    #: compares it with the network
    compare: Callable[[], Parity]
    told: str
    part: str = field(default="")


def export(run: Run, to: str, *, check: bool = False) -> Exported:
    """Write a run's best model to a new file, whole or not at all; the name's end says of which kind.

    Args:
        to: model.onnx, model.pt2, weights.safetensors or (DL4J) model.zip, here or in a store. A network that has an
            encoder and a decoder becomes two files, model.encoder.onnx and model.decoder.onnx.
        check: compare what the file computes with what the run's network does; a file that differs is not written.

    Raises:
        UsageError: the name ends in something else, the file is there, a library is not installed, or the network is
            not rayrnn's and the run was not opened with `trust`.
        RunError: the run has no model, the network has no such form, or the file does not compute the same.
        DataError: the file cannot be written.
    """
    suffix = PurePosixPath(to).suffix
    open_destination(to, suffixes=SUFFIXES, option="--to")
    check_libraries(suffix, to)
    recipe, network, encoding = run.recipe, load_network(run), run.encoding
    if suffix == WEIGHTS:
        made = [_weights(run, network, encoding)]
    elif suffix == DL4J:
        made = [_zip(run, network, encoding)]
    else:
        made = [_graph_file(suffix, recipe, encoding, graph) for graph in _graphs(run, network, encoding)]
    places = [_destination(to, one.part) for one in made]
    parity = _checked([one.compare() for one in made], to) if check else None
    with ExitStack() as stack:
        streams = [stack.enter_context(place.unfinished()) for place in places]
        for stream, one in zip(streams, made, strict=True):
            stream.write(one.content)
    return Exported(tuple(place.name for place in places), tuple(one.told for one in made), parity)


def check_libraries(suffix: str, to: str) -> None:
    """
    Raises:
        UsageError: what an ONNX file is written with is not installed.
    """
    missing = [name for name in _LIBRARIES if suffix == ONNX and find_spec(name) is None]
    if missing:
        raise UsageError(
            f"--to {to} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed "
            "here: pip install 'rayrnn[export]'; .pt2 and .safetensors need nothing more"
        )


def _destination(to: str, part: str) -> Destination:
    path = PurePosixPath(to)
    name = f"{to.removesuffix(path.suffix)}.{part}{path.suffix}" if part else to
    return open_destination(name, suffixes=SUFFIXES, option="--to")


def _graphs(run: Run, network: nn.Module, encoding: Encoding) -> list[Graph]:
    recipe, form = run.recipe, form_of(encoding)
    name = recipe.model.network or "of this recipe"
    if isinstance(network, EncoderDecoder):
        return list(graphs_of_pair(network, form))
    task = task_of(recipe)
    if isinstance(task, Searching) and task.decodes:
        raise RunError(
            f"{run.name} cannot be exported: model.network {name} writes its answer with a decoder of its own, and "
            "only of rayrnn's is it known what goes from one symbol to the next"
        )
    return [graph_of(network, form, name=name)]


def _graph_file(suffix: str, recipe: Recipe, encoding: Encoding, graph: Graph) -> _Made:
    write, read = {ONNX: (onnx_file, onnx_function), TORCH: (torch_file, torch_function)}[suffix]
    content = write(graph, json.dumps(meaning_of_graph(recipe, encoding, graph), ensure_ascii=False))
    return _Made(content, lambda: parity_of(graph, read(content)), _told(graph), graph.part)


def _weights(run: Run, network: nn.Module, encoding: Encoding) -> _Made:
    try:
        names = plain_names(network)
    except ValueError as error:
        raise RunError(
            f"{run.name} has no form as weights of torch.nn: {error}; --to model.onnx and --to model.pt2 hold any "
            "network"
        ) from None
    own = cast(Network, network)
    layer = plain_layer(own)
    tensors = {names[name]: value.contiguous() for name, value in network.state_dict().items()}
    asked = {
        "layer": type(layer).__name__,
        **{key: getattr(layer, key) for key in ("input_size", "hidden_size", "num_layers", "bidirectional")},
        "batch_first": True,
        "one_hot": encoding.symbols and own.embedding is None,
        "pooling": own.pooling,
    }
    meaning = meaning_of(run.recipe, encoding) | {"torch": asked}
    content = tensors_to_bytes(tensors, further={"format": "pt", META: json.dumps(meaning, ensure_ascii=False)})
    said = f"torch.nn.{asked['layer']}({asked['input_size']}, {asked['hidden_size']}, num_layers={asked['num_layers']}"
    said += ", bidirectional=True)" if asked["bidirectional"] else ")"
    form = form_of(encoding)
    return _Made(content, lambda: parity_of_plain(own, tensors, form), f"{said}: {', '.join(sorted(tensors))}")


def _zip(run: Run, network: nn.Module, encoding: Encoding) -> _Made:
    content, told = zip_of(run, network, encoding)
    form = form_of(encoding)
    said = "; ".join(["a MultiLayerNetwork of DL4J 1.0.0", *told])
    return _Made(content, lambda: parity_of_zip(cast(Network, network), content, form), said)


def _told(graph: Graph) -> str:
    """What goes in and what comes out, in one line; a state is said once."""
    inputs = [port for port in graph.inputs if port.name not in graph.carried]
    outputs = [port for port in graph.outputs if not port.name.startswith("next_")]
    state = f"; a state of {len(graph.carried)} parts goes on" if graph.carried else "; whole sequences, no state"
    return f"{_ports(inputs)} -> {_ports(outputs)}{'' if graph.part else state}"


def _ports(ports: list[Port]) -> str:
    return ", ".join(f"{port.name} [{', '.join(map(str, port.shape))}]" for port in ports)


def _checked(found: list[Parity], to: str) -> Parity:
    """
    Raises:
        RunError: one of them is too far from the network.
    """
    worst = max(found, key=lambda parity: parity.difference)
    if not worst.difference <= TOLERANCE:
        raise RunError(
            f"{to} was not written: what it computes differs from the run's network by {worst.difference:.1e} in "
            f"{worst.output}, and {TOLERANCE:.0e} of the largest value is allowed"
        )
    return Parity(worst.difference, worst.output, sum(parity.calls for parity in found))
