"""A graph as the bytes of an ONNX file, or of one that torch.export.load reads; and such files as functions again."""

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch.export import Dim
from torch.utils._sympy.value_ranges import ValueRanges

from rayrnn.errors import RunError
from rayrnn.exports.graph import Graph, Tensors
from rayrnn.exports.recurrence import Direction, OnnxDirection, ScannedDirection
from rayrnn.exports.traceable import traceable
from rayrnn.wording import size

#: what a file says about itself stands under this name: in ONNX's metadata_props, and beside the graph in a .pt2
META = "rayrnn"
EXTRA = "rayrnn.json"
OPSET = 20
#: of one protocol buffer
MOST_ONNX_BYTES = 2**31 - 1
#: a tracer takes 0 and 1 for constants, and a network that loops over its steps is unrolled before it is refused
SIZES = {"batch": 3, "time": 23, "steps": 5}
FEWEST = 3

#: what a traced program asks of its inputs: L['inputs'].size()[0] == L['mask'].size()[0]
_SAME_SIZE = r"L\['\w+'\]\.size\(\)\[\d\] == L\['\w+'\]\.size\(\)\[\d\]"

Function = Callable[[Tensors], Tensors]


def onnx_file(graph: Graph, meaning: str) -> bytes:
    """The ONNX file of a graph.

    Raises:
        RunError: the network cannot be followed, or is larger than such a file can be.
    """
    numbers = sum(value.numel() for value in graph.network.state_dict().values())
    if 4 * numbers > MOST_ONNX_BYTES:
        raise RunError(
            f"the network has {numbers:,} parameters, {size(4 * numbers)}, and one ONNX file holds {size(2**31)}: "
            "write it with --to model.pt2"
        )
    with _quiet(), torch.no_grad():
        traced = _exported(graph, OnnxDirection)
        program = _translated(traced, graph)
        program.rename_axes({symbol: name for name, found in _axes_of(traced, graph).items() for symbol in found})
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # where on this machine the network's code lies
        program.model.metadata_props[META] = meaning
        program.model.producer_name = "rayrnn"
        content: bytes = program.model_proto.SerializeToString()
    return content


def _translated(traced: Any, graph: Graph) -> Any:
    """The program in ONNX's operators.

    Raises:
        RunError: it has an operation that ONNX has not; says what torch said.
    """
    try:
        return torch.onnx.export(
            traced,
            dynamo=True,
            opset_version=OPSET,
            input_names=[port.name for port in graph.inputs],
            output_names=[port.name for port in graph.outputs],
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        causes = [line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip()]
        said = causes[0][:500] if causes else type(error).__name__
        raise RunError(
            f"the network {graph.name} cannot be written as ONNX: {said}; --to model.pt2 has what torch can follow"
        ) from error


def torch_file(graph: Graph, meaning: str) -> bytes:
    """The same as `torch.export.load` reads it.

    Raises:
        RunError: the network cannot be followed.
    """
    file = io.BytesIO()
    with _quiet(), torch.no_grad():
        torch.export.save(_exported(graph, ScannedDirection), file, extra_files={EXTRA: meaning})
    return file.getvalue()


def onnx_function(content: bytes) -> Function:
    """What onnxruntime computes with such a file."""
    session = import_module("onnxruntime").InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    # an input that nothing depends on may be left out by whoever wrote the file
    taken = {given.name for given in session.get_inputs()}

    def call(tensors: Tensors) -> Tensors:
        arrays = {name: tensor.numpy() for name, tensor in tensors.items() if name in taken}
        return {name: torch.from_numpy(array) for name, array in zip(names, session.run(None, arrays), strict=True)}

    return call


def torch_function(content: bytes) -> Function:
    """What torch computes with such a file."""
    with _quiet():
        module = torch.export.load(io.BytesIO(content)).module()

    def call(tensors: Tensors) -> Tensors:
        with torch.no_grad(), _quiet():
            found: Tensors = module(**tensors)
        return found

    return call


def _exported(graph: Graph, form: type[Direction]) -> Any:
    """The traced program.

    Raises:
        RunError: torch cannot follow the network; says what it said.
    """
    named = {
        port.name: [place for place, size in enumerate(port.shape) if isinstance(size, str)] for port in graph.inputs
    }
    shapes = {name: dict.fromkeys(places, Dim.AUTO) for name, places in named.items()}
    try:
        module = graph.module(traceable(graph.network, form))
        program = torch.export.export(module, (), graph.example(_sizes_for(graph), seed=1), dynamic_shapes=shapes)
    except Exception as error:  # whatever the network's code raises, and whatever torch has for what it cannot follow
        line = next((line for line in str(error).splitlines() if line.strip()), "")
        raise _not_followed(graph, f"{type(error).__name__}: {line[:500]}") from error
    _open(program, graph)
    for inner in program.graph_module.modules():
        for node in inner.graph.nodes if isinstance(inner, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # where on this machine the network's code lies
    return program


def _sizes_for(graph: Graph) -> dict[str, int]:
    """Of the example, whose steps are still some where strides have left out most of them."""
    steps = SIZES["time"]
    while (left := graph.mask_after(torch.ones(1, steps, dtype=torch.bool))) is not None and left.shape[1] < FEWEST:
        steps *= FEWEST
    return SIZES | {"time": steps}


def _open(program: Any, graph: Graph) -> None:
    """Have a traced program take any number of sequences and steps, one too, where it was traced with more.

    Raises:
        RunError: it can take no others than it was traced with.
    """
    axes = _axes_of(program, graph)
    for name, found in axes.items():
        if fixed := next((size for size in found if size.isdigit()), None):
            raise _not_followed(graph, f"it would take {fixed} in its axis {name!r} and no other number")
    if len(set().union(*axes.values())) < len(axes):
        raise _not_followed(graph, f"it would take the same number in its axes {' and '.join(axes)}")
    for symbol, bounds in program.range_constraints.items():
        program.range_constraints[symbol] = ValueRanges(1, bounds.upper)
    # that sizes are the same; the others ask whether there is more than one of something
    program._guards_code = [guard for guard in getattr(program, "_guards_code", ()) if re.fullmatch(_SAME_SIZE, guard)]


def _axes_of(program: Any, graph: Graph) -> dict[str, set[str]]:
    """What a traced program calls the sizes of the axes: one symbol each, or a number where one is fixed."""
    given = {node.name: node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder"}
    axes: dict[str, set[str]] = {}
    for port in graph.inputs:
        for symbol, name in zip(given[port.name], port.shape, strict=True):
            if isinstance(name, str):
                axes.setdefault(name, set()).add(str(symbol))
    return axes


def _not_followed(graph: Graph, why: str) -> RunError:
    return RunError(
        f"the network {graph.name} cannot be exported: torch cannot follow it, {why}; in a network of your own no "
        "branch, loop or size may depend on values, or on the number of sequences or steps: call torch.nn.LSTM, GRU or "
        "RNN with whole sequences, not their cells in a loop over the steps"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters tell their own developers of much; what matters is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
