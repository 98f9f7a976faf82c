"""How far what a file computes is from what the network computes: other lengths and batches, step by step too."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from rayrnn.dl4j.zip_file import network_of, read_zip
from rayrnn.exports.graph import BATCH, MASK, NEXT, STEPS, TIME, Graph, Port, Tensors
from rayrnn.exports.graph_files import Function
from rayrnn.models.contract import Form
from rayrnn.models.network import Network, pool
from rayrnn.models.plain_names import EMBEDDING, HEAD, plain_layer

#: of a difference, as a share of the largest value of what is compared where that is above 1
TOLERANCE = 1e-4
#: sequences and steps; the file was traced with others
CASES = ((1, 1), (3, 9), (1, 6), (4, 1), (2, 17))


@dataclass(frozen=True)
class Parity:
    """The largest difference of all that was compared."""

    difference: float = 0.0
    #: where it was
    output: str = ""
    calls: int = 0

    def and_of(self, output: str, expected: torch.Tensor, found: torch.Tensor) -> "Parity":
        """With one more output in view."""
        if expected.shape != found.shape:
            return Parity(float("inf"), output, self.calls + 1)
        values = expected.to(torch.float64), found.to(torch.float64)
        most = max(1.0, float(values[0].abs().max())) if expected.numel() else 1.0
        apart = float((values[0] - values[1]).abs().max()) / most if expected.numel() else 0.0
        apart = float("inf") if apart != apart else apart
        larger = apart > self.difference or not self.output
        return Parity(apart if larger else self.difference, output if larger else self.output, self.calls + 1)


def parity_of(graph: Graph, function: Function) -> Parity:
    """Compare a graph with a file of it on random sequences, some of them padded, whole and step by step."""
    parity = Parity()
    for seed, (batch, steps) in enumerate(CASES):
        sizes = {BATCH: batch, TIME: steps, STEPS: steps}
        tensors = graph.example(sizes, seed=seed + 2)
        expected, found = graph(tensors), function(tensors)
        for port in graph.outputs:
            parity = parity.and_of(port.name, *_existing(port, graph, tensors, (expected[port.name], found[port.name])))
        if graph.carried and not graph.part:
            parity = _stepwise(graph, function, tensors, parity)
    return parity


def _stepwise(graph: Graph, function: Function, tensors: Tensors, parity: Parity) -> Parity:
    """Every step a call of its own, from zeros on; compared with the network that reads all of them at once."""
    whole = dict(tensors)
    if MASK in whole:
        whole[MASK] = torch.ones_like(whole[MASK])
    state = {name: torch.zeros_like(whole[name]) for name in graph.carried}
    expected = graph(whole | state)
    answers = []
    for step in range(whole["inputs"].shape[1]):
        own = {name: whole[name][:, step : step + 1] for name in ("inputs", MASK) if name in whole}
        found = function(own | state)
        state = {name: found[NEXT + name] for name in graph.carried}
        answers.append(found["answers"])
    together = torch.cat(answers, dim=1) if expected["answers"].dim() == 3 else answers[-1]
    parity = parity.and_of("answers, step by step", expected["answers"], together)
    for name in graph.carried:
        parity = parity.and_of(f"{NEXT}{name}, step by step", expected[NEXT + name], state[name])
    return parity


def _existing(
    port: Port, graph: Graph, tensors: Tensors, both: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of answers at steps, those whose steps exist."""
    if MASK not in tensors or not {TIME, STEPS} & set(port.shape) or port.dtype == torch.bool:
        return both
    mask = graph.mask_after(tensors[MASK])
    if mask is None or any(part.shape[:2] != mask.shape for part in both):
        return both
    return both[0][mask], both[1][mask]


def parity_of_plain(network: Network, weights: Tensors, form: Form) -> Parity:
    """Compare a network with a layer of torch.nn that takes its recurrent values, and with the head behind it."""
    layer = plain_layer(network).eval()
    layer.load_state_dict({name: value for name, value in weights.items() if name.startswith(("weight_", "bias_"))})
    parity = Parity()
    for seed, (batch, steps) in enumerate(CASES):
        inputs = _drawn(form, batch, steps, seed)
        with torch.no_grad():
            expected, _ = network(inputs)
            found = _by_torch(layer, weights, inputs, network)
        parity = parity.and_of("answers", expected, found)
    return parity


def parity_of_zip(network: Network, content: bytes, form: Form) -> Parity:
    """Compare a network with what a zip of DL4J's is read as."""
    read, parity = network_of(read_zip(Path("the zip"), content)), Parity()
    for seed, (batch, steps) in enumerate(CASES):
        inputs = _drawn(form, batch, steps, seed)
        with torch.no_grad():
            expected, _ = network(inputs)
            found, _ = read(
                inputs if inputs.is_floating_point() else nn.functional.one_hot(inputs, form.num_inputs).float()
            )
        parity = parity.and_of("answers", expected, found)
    return parity


def _drawn(form: Form, batch: int, steps: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    if form.symbols:
        return torch.randint(form.num_inputs, (batch, steps), generator=random)
    return torch.randn(batch, steps, form.num_inputs, generator=random)


def _by_torch(layer: nn.RNNBase, weights: Tensors, inputs: torch.Tensor, network: Network) -> torch.Tensor:
    if EMBEDDING in weights:
        inputs = weights[EMBEDDING][inputs]
    elif not inputs.is_floating_point():
        inputs = nn.functional.one_hot(inputs, layer.input_size).float()
    hidden = cast(torch.Tensor, layer(inputs)[0])
    if network.pooling is not None:
        directions = hidden.chunk(2, -1) if layer.bidirectional else (hidden,)
        pooled: Iterator[torch.Tensor] = (
            pool(part, None, network.pooling, backward=number == 1) for number, part in enumerate(directions)
        )
        hidden = torch.cat(list(pooled), dim=-1)
    return nn.functional.linear(hidden, weights[f"{HEAD}weight"], weights[f"{HEAD}bias"])
