"""A network as a function of named tensors: what goes in, what comes out, and which output is which input's next.

Shapes: B batch, T time, F features, V symbols, classes or numbers of the answer.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn

from rayrnn.models.attention import Memory
from rayrnn.models.contract import Form
from rayrnn.models.decoder import EncoderDecoder, Writing
from rayrnn.models.network import Network
from rayrnn.models.state import leaves, with_leaves

Tensors = dict[str, torch.Tensor]

#: of every input's first axis, of its steps, and of the steps that are answered where strides leave some out
BATCH, TIME, STEPS = "batch", "time", "steps"
MASK = "mask"
#: before the name of an input: the output that is its value in the next call
NEXT = "next_"
#: what a state's zeros, and its pieces, may change of answers: sums are made in another order
CLOSE = 1e-4


@dataclass(frozen=True)
class Port:
    """An input or an output."""

    name: str
    #: of its axes; a name stands for a size that every call chooses
    shape: tuple[int | str, ...]
    dtype: torch.dtype = torch.float32
    #: of symbols: how many there are
    symbols: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": str(self.dtype).removeprefix("torch."), "shape": list(self.shape)}


@dataclass(frozen=True)
class Graph:
    """One function of named tensors that a network computes."""

    network: nn.Module
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    #: calls the network, or a copy of it, with tensors by the names of `inputs`; what comes has those of `outputs`
    compute: Callable[[nn.Module, Tensors], Tensors]
    #: of a network that has two of them
    part: str = ""
    #: of the network, in messages
    name: str = "of this recipe"
    #: the answers stand where the mask says, after this
    mask_after: Callable[[torch.Tensor], torch.Tensor | None] = field(default=lambda mask: mask)

    @property
    def carried(self) -> tuple[str, ...]:
        """The inputs that are zeros at the beginning, and an output of the call before from then on."""
        given = {port.name for port in self.outputs}
        return tuple(port.name for port in self.inputs if NEXT + port.name in given)

    def __call__(self, tensors: Tensors) -> Tensors:
        """What the network itself computes."""
        with torch.no_grad():
            return self.compute(self.network, tensors)

    def module(self, network: nn.Module) -> nn.Module:
        """A module whose arguments and results have the names of the ports, around a copy of the network."""
        return _Named(network, self)

    def example(self, sizes: Mapping[str, int], seed: int) -> Tensors:
        """Random inputs of these sizes: steps exist up to some length in every row, states are not zero."""
        random = torch.Generator().manual_seed(seed)
        return {port.name: _drawn(port, sizes, random) for port in self.inputs}


class _Named(nn.Module):
    def __init__(self, network: nn.Module, graph: Graph) -> None:
        super().__init__()
        self.network = network
        names, compute = [port.name for port in graph.inputs], graph.compute

        def forward(**tensors: torch.Tensor) -> Tensors:
            return compute(network, tensors)

        # a tracer takes the names of inputs from here
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        forward.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # type: ignore[attr-defined]
        self.forward = forward


def _drawn(port: Port, sizes: Mapping[str, int], random: torch.Generator) -> torch.Tensor:
    shape = [size if isinstance(size, int) else sizes[size] for size in port.shape]
    if port.symbols:
        return torch.randint(port.symbols, shape, generator=random)
    if port.dtype == torch.bool:
        lengths = torch.randint(1, shape[1] + 1, (shape[0], 1), generator=random)
        lengths[0] = shape[1]
        return torch.arange(shape[1]) < lengths
    if port.dtype.is_floating_point:
        return torch.randn(shape, generator=random).tanh()
    return torch.zeros(shape, dtype=port.dtype)


def graph_of(network: nn.Module, form: Form, *, name: str = "of this recipe") -> Graph:
    """A network that keeps the contract `network(inputs, state, mask) -> answers, state` as one graph.

    It has a mask where padding could change an answer, and a state where it can go on from one that begins with zeros.
    """
    mask = Port(MASK, (BATCH, TIME), torch.bool)
    names: tuple[str, ...] = ()
    if isinstance(network, Network):
        # pooled over the steps of a call: only the last step is that of the whole sequence, too
        carries = not network.needs_whole_sequences and network.pooling in (None, "last")
        masked = network.needs_whole_sequences or network.pooling is not None
        state = _state_after(network, form, 3) if carries else None
        parts = ("hidden", "memory")
        if state is not None:
            names = tuple(f"state_{number}_{parts[p]}" for number, own in enumerate(state) for p in range(len(own)))
    else:
        masked, state = True, _state_of_others(network, form)
        names = tuple(f"state_{number}" for number in range(len(list(leaves(state)))))
    carried = tuple(
        Port(name, (BATCH, *leaf.shape[1:]), leaf.dtype) for name, leaf in zip(names, leaves(state), strict=True)
    )
    strided = form.per_step and _has_strides(network)
    answers = Port("answers", (BATCH, *((STEPS if strided else TIME,) if form.per_step else ()), form.num_outputs))
    return Graph(
        network,
        inputs=(_inputs(form), *((mask,) if masked else ()), *carried),
        outputs=(answers, *(Port(NEXT + port.name, port.shape, port.dtype) for port in carried)),
        compute=_Call(state, names),
        name=name,
        mask_after=getattr(network, "mask_after", lambda mask: mask),
    )


@dataclass(frozen=True)
class _Call:
    """Calls a network with the state that stands among its inputs, in the form that it is used to."""

    state: Any
    names: tuple[str, ...]

    def __call__(self, network: nn.Module, tensors: Tensors) -> Tensors:
        before = with_leaves(self.state, (tensors[name] for name in self.names)) if self.names else None
        answers, after = network(tensors["inputs"], before, tensors.get(MASK))
        following = leaves(after) if self.names else ()
        return {"answers": answers} | {NEXT + name: leaf for name, leaf in zip(self.names, following, strict=True)}


def graphs_of_pair(network: EncoderDecoder, form: Form) -> tuple[Graph, Graph]:
    """An encoder, which reads a sequence whole, and a decoder, which writes one symbol a call."""
    with torch.no_grad():
        memory, writing = network.read(_random(form, 2, 3), torch.ones(2, 3, dtype=torch.bool))
    read = (
        Port("memory_values", (BATCH, STEPS, memory.values.shape[2])),
        Port("memory_keys", (BATCH, STEPS, memory.keys.shape[2])),
        Port("memory_mask", (BATCH, STEPS), torch.bool),
    )
    parts = ("hidden", "memory")
    written = [
        Port(f"state_{number}_{parts[place]}", (BATCH, part.shape[1]))
        for number, state in enumerate(writing.layers)
        for place, part in enumerate(state)
    ]
    written.append(Port("state_fed", (BATCH, writing.fed.shape[1])))
    encoder = Graph(
        network,
        inputs=(_inputs(form), Port(MASK, (BATCH, TIME), torch.bool)),
        outputs=(*read, *written),
        compute=_read,
        part="encoder",
        mask_after=network.encoder.mask_after,
    )
    decoder = Graph(
        network,
        inputs=(Port("symbols", (BATCH,), torch.int64, form.num_outputs), *written, *read),
        outputs=(
            Port("answers", (BATCH, form.num_outputs)),
            *(Port(NEXT + port.name, port.shape) for port in written),
            Port("attention", (BATCH, STEPS)),
        ),
        compute=_Write(writing, tuple(port.name for port in written)),
        part="decoder",
    )
    return encoder, decoder


def _read(network: nn.Module, tensors: Tensors) -> Tensors:
    memory, writing = cast(EncoderDecoder, network).read(tensors["inputs"], tensors[MASK])
    parts = ("hidden", "memory")
    layers = {
        f"state_{number}_{parts[place]}": part.clone()
        for number, state in enumerate(writing.layers)
        for place, part in enumerate(state)
    }
    # an output of its own: zeros may be the same tensor as others
    fed = {"state_fed": writing.fed.clone()}
    return {"memory_values": memory.values, "memory_keys": memory.keys, "memory_mask": memory.mask} | layers | fed


@dataclass(frozen=True)
class _Write:
    writing: Writing
    names: tuple[str, ...]

    def __call__(self, network: nn.Module, tensors: Tensors) -> Tensors:
        memory = Memory(*(tensors[f"memory_{part}"] for part in ("values", "keys", "mask")))
        before = with_leaves(self.writing, (tensors[name] for name in self.names))
        answers, after, attention = cast(EncoderDecoder, network).write(tensors["symbols"], before, memory)
        following = zip(self.names, leaves(after), strict=True)
        return {"answers": answers} | {NEXT + name: leaf for name, leaf in following} | {"attention": attention}


def _inputs(form: Form) -> Port:
    if form.symbols:
        return Port("inputs", (BATCH, TIME), torch.int64, form.num_inputs)
    return Port("inputs", (BATCH, TIME, form.num_inputs))


def _random(form: Form, batch: int, steps: int) -> torch.Tensor:
    return _drawn(_inputs(form), {BATCH: batch, TIME: steps}, torch.Generator().manual_seed(1))


@torch.no_grad()
def _state_after(network: nn.Module, form: Form, steps: int) -> Any:
    return network(_random(form, 2, steps), None, torch.ones(2, steps, dtype=torch.bool))[1]


@torch.no_grad()
def _state_of_others(network: nn.Module, form: Form) -> Any:
    """What a network of the user's own carries; None where no file could hold it from one call to the next.

    It has to begin with zeros, to have rows of one size whatever was read, and to answer pieces as the whole.
    """
    state = _state_after(network, form, 3)
    found, longer = list(leaves(state)), list(leaves(_state_after(network, form, 5)))
    rows = [leaf.shape[:1] == (2,) for leaf in found]
    if not form.per_step or not all(rows) or [leaf.shape for leaf in found] != [leaf.shape for leaf in longer]:
        return None
    inputs, mask = _random(form, 2, 5), torch.ones(2, 5, dtype=torch.bool)
    whole = network(inputs, None, mask)[0]
    first, after = network(inputs[:, :2], with_leaves(state, map(torch.zeros_like, found)), mask[:, :2])
    rest = network(inputs[:, 2:], after, mask[:, 2:])[0]
    pieces = torch.cat([first, rest], dim=1)
    return state if pieces.shape == whole.shape and torch.allclose(whole, pieces, atol=CLOSE) else None


def _has_strides(network: nn.Module) -> bool:
    after = getattr(network, "mask_after", None)
    mask = torch.ones(1, 4, dtype=torch.bool)
    return after is not None and after(mask).shape != mask.shape
