"""What a file computes is what the network computes: at other lengths and batches than it was traced with, and at one.

Every comparison goes through onnxruntime or torch.export.load, as whoever has the file would use it.
"""

import io
from collections.abc import Callable

import pytest
import torch
from torch import nn

from rayrnn.errors import RunError
from rayrnn.exports.graph import Graph, Tensors, graph_of, graphs_of_pair
from rayrnn.exports.graph_files import onnx_file, onnx_function, torch_file, torch_function
from rayrnn.exports.parity import TOLERANCE, parity_of, parity_of_plain
from rayrnn.models.contract import Form
from rayrnn.models.convolution import Stack
from rayrnn.models.decoder import EncoderDecoder
from rayrnn.models.network import Network
from rayrnn.models.plain_names import plain_layer, plain_names

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'rayrnn[export]'")
KINDS = {"onnx": (onnx_file, onnx_function), "pt2": (torch_file, torch_function)}
V, F = 5, 3


def network(*, symbols: bool = False, num_inputs: int = 0, **arguments: object) -> tuple[Network, Form]:
    torch.manual_seed(0)
    inputs = num_inputs or (V if symbols else F)
    made = Network(
        num_inputs=inputs,
        num_outputs=4,
        symbols=symbols,
        **({"cell": "gru", "hidden_size": 6, "num_layers": 1} | arguments),  # type: ignore[arg-type]
    )
    return made.eval(), Form(inputs, 4, symbols, made.pooling is None)


NETWORKS: dict[str, Callable[[], tuple[Network, Form]]] = {
    "two layers of lstm over one-hot symbols": lambda: network(symbols=True, cell="lstm", num_layers=2),
    "gru over numbers": lambda: network(),
    "two layers of rnn over an embedding": lambda: network(symbols=True, cell="rnn", num_layers=2, embedding_size=4),
    "peepholes over one-hot symbols": lambda: network(symbols=True, cell="graves_lstm"),
    "two layers of peepholes, both ways": lambda: network(cell="graves_lstm", num_layers=2, bidirectional="concat"),
    "lstm both ways, the last step": lambda: network(cell="lstm", bidirectional="sum", pooling="last"),
    "gru, the last step": lambda: network(pooling="last"),
    "convolutions with strides before": lambda: network(front=Stack.of((4, 4), (5,), (2,)), cell="lstm"),
    "convolutions before, the mean": lambda: network(front=Stack.of((4,), (4,), (3,)), pooling="mean"),
    "convolutions beside, the largest": lambda: network(
        parallel=Stack.of((8, 4), (8, 3), (1,)), pooling="max", bidirectional="concat"
    ),
    "convolutions over images": lambda: network(
        num_inputs=48, front=Stack.of((8, 16), (3,), (2,)), step_shape=(4, 4, 3)
    ),
}


#: to export, of which others are like
LONG = {
    *("two layers of peepholes, both ways", "convolutions with strides before", "convolutions beside, the largest"),
    *("convolutions before, the mean",),
}


def file_of(kind: str, graph: Graph) -> Callable[[Tensors], Tensors]:
    write, read = KINDS[kind]
    return read(write(graph, "{}"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in NETWORKS]
)
def test_a_file_computes_what_the_network_does(name: str, kind: str) -> None:
    graph = graph_of(*NETWORKS[name]())
    parity = parity_of(graph, file_of(kind, graph))
    assert parity.difference < TOLERANCE, parity
    assert parity.calls >= 5


@pytest.mark.parametrize(
    ("name", "mask", "state"),
    [
        ("two layers of lstm over one-hot symbols", False, 4),
        ("two layers of rnn over an embedding", False, 2),
        ("gru, the last step", True, 1),
        ("lstm both ways, the last step", True, 0),
        ("convolutions before, the mean", True, 0),
        ("convolutions over images", False, 1),
    ],
)
def test_there_is_a_mask_where_padding_matters_and_a_state_where_one_goes_on(name: str, mask: bool, state: int) -> None:
    graph = graph_of(*NETWORKS[name]())
    assert ("mask" in {port.name for port in graph.inputs}) == mask
    assert len(graph.carried) == state


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("cell", "attention", "feeding"),
    [("lstm", "dot", True), pytest.param("graves_lstm", "additive", False, marks=pytest.mark.slow)],
)
def test_an_encoder_and_its_decoder_are_two_files(kind: str, cell: str, attention: str, feeding: bool) -> None:
    encoder, _ = network(symbols=True, cell=cell, embedding_size=4, bidirectional="concat")
    encoder.projection = nn.Identity()
    whole = EncoderDecoder(
        encoder,
        num_outputs=7,
        end=2,
        cell=cell,
        hidden_size=8,
        num_layers=2,
        embedding_size=5,
        attention=attention,
        input_feeding=feeding,
    ).eval()
    read, write = graphs_of_pair(whole, Form(V, 7, True, False))
    assert parity_of(read, file_of(kind, read)).difference < TOLERANCE
    assert parity_of(write, file_of(kind, write)).difference < TOLERANCE


class WithTorchsLayers(nn.Module):
    """A network as its user might write it: torch's own layers, two directions, time first, no biases."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.first = nn.LSTM(num_inputs, 4, num_layers=2, bidirectional=True, bias=False)
        self.second = nn.RNN(8, 5, nonlinearity="relu", batch_first=True)
        self.out = nn.Linear(5, num_outputs)

    def forward(self, inputs: torch.Tensor, state: None, mask: torch.Tensor) -> tuple[torch.Tensor, None]:
        lengths = mask.sum(1, keepdim=True)
        hidden, _ = self.first((inputs * mask.unsqueeze(-1)).transpose(0, 1))
        hidden, _ = self.second(hidden.transpose(0, 1))
        return self.out(hidden) / lengths.unsqueeze(-1), None


class InALoop(nn.Module):
    """A network that goes through its steps in Python."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(num_inputs, 4)
        self.out = nn.Linear(4, num_outputs)

    def forward(
        self, inputs: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor] | None, mask: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
        answers = []
        for step in inputs.unbind(1):
            state = self.cell(step, state)
            answers.append(self.out(state[0]))
        return torch.stack(answers, dim=1), state


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_of_the_users_own_is_followed_where_it_has_torchs_layers(kind: str) -> None:
    torch.manual_seed(0)
    graph = graph_of(WithTorchsLayers(F, 2).eval(), Form(F, 2, False, True))
    assert not graph.carried
    assert parity_of(graph, file_of(kind, graph)).difference < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_loops_over_its_steps_is_refused_with_what_torch_said(kind: str) -> None:
    graph = graph_of(InALoop(F, 2).eval(), Form(F, 2, False, True), name="mine:InALoop")
    assert graph.carried == ("state_0", "state_1")
    with pytest.raises(RunError, match=r"the network mine:InALoop cannot be exported.*whole sequences") as refused:
        file_of(kind, graph)
    assert "it would take 23 in its axis 'time' and no other number" in str(refused.value)


class Bessel(nn.Module):
    """A network with a function that ONNX has not."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(F, 2)

    def forward(self, inputs: torch.Tensor, state: None, mask: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.out(torch.special.bessel_j0(inputs)), None


def test_what_onnx_has_no_operator_for_is_refused_there_and_written_as_pt2() -> None:
    torch.manual_seed(0)
    graph = graph_of(Bessel().eval(), Form(F, 2, False, True), name="mine:Bessel")
    with pytest.raises(
        RunError, match=r"the network mine:Bessel cannot be written as ONNX: .*bessel_j0.*--to model\.pt2"
    ):
        file_of("onnx", graph)
    assert parity_of(graph, file_of("pt2", graph)).difference < TOLERANCE


def test_a_state_that_does_not_begin_with_zeros_is_not_offered() -> None:
    class Learned(nn.Module):
        """Begins with a parameter."""

        def __init__(self) -> None:
            super().__init__()
            self.begin = nn.Parameter(torch.ones(1, 4))
            self.layer, self.out = nn.GRU(F, 4, batch_first=True), nn.Linear(4, 2)

        def forward(
            self, inputs: torch.Tensor, state: torch.Tensor | None, mask: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            before = self.begin.expand(inputs.shape[0], -1) if state is None else state
            hidden, after = self.layer(inputs, before.unsqueeze(0).contiguous())
            return self.out(hidden), after.squeeze(0)

    torch.manual_seed(0)
    graph = graph_of(Learned().eval(), Form(F, 2, False, True))
    assert not graph.carried
    assert parity_of(graph, file_of("onnx", graph)).difference < TOLERANCE


def test_a_file_says_nothing_of_the_machine_it_was_made_on() -> None:
    graph = graph_of(*network(cell="graves_lstm"))
    for content in (onnx_file(graph, "{}"), torch_file(graph, "{}")):
        assert b"site-packages" not in content
        assert b"rayrnn/" not in content


def test_a_file_has_open_axes_and_names() -> None:
    graph = graph_of(*network(symbols=True, cell="lstm"))
    session = onnxruntime.InferenceSession(onnx_file(graph, "{}"))
    inputs = {port.name: (port.type, port.shape) for port in session.get_inputs()}
    assert inputs == {
        "inputs": ("tensor(int64)", ["batch", "time"]),
        "state_0_hidden": ("tensor(float)", ["batch", 6]),
        "state_0_memory": ("tensor(float)", ["batch", 6]),
    }
    outputs = {port.name: port.shape for port in session.get_outputs()}
    assert outputs["answers"] == ["batch", "time", 4]
    assert outputs["next_state_0_hidden"] == ["batch", 6]
    module = torch.export.load(io.BytesIO(torch_file(graph, "{}"))).module()
    zeros = torch.zeros(2, 6)
    given = {"inputs": torch.zeros(2, 11, dtype=torch.int64), "state_0_memory": zeros, "state_0_hidden": zeros}
    assert {name: tuple(tensor.shape) for name, tensor in module(**given).items()}["answers"] == (2, 11, 4)


@pytest.mark.parametrize(
    "arguments",
    [
        {"symbols": True, "cell": "lstm", "num_layers": 2},
        {"symbols": True, "cell": "gru", "embedding_size": 4},
        {"cell": "rnn", "bidirectional": "concat", "num_layers": 2, "pooling": "last"},
    ],
)
def test_torchs_own_layer_takes_the_weights_and_computes_the_same(arguments: dict[str, object]) -> None:
    made, form = network(**arguments)  # type: ignore[arg-type]
    names = plain_names(made)
    weights = {names[name]: value for name, value in made.state_dict().items()}
    assert parity_of_plain(made, weights, form).difference < TOLERANCE
    layer = plain_layer(made)
    taken = layer.load_state_dict({name: weights[name] for name in layer.state_dict()})
    assert not taken.missing_keys
    assert not taken.unexpected_keys


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"cell": "graves_lstm"}, "peepholes"),
        ({"bidirectional": "sum"}, "two directions are added"),
        ({"front": Stack.of((4,), (3,), (1,))}, "convolutions"),
    ],
)
def test_what_is_no_layer_of_torchs_is_told_why(arguments: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        plain_names(network(**arguments)[0])  # type: ignore[arg-type]
