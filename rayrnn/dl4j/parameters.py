"""Where the numbers of DL4J's vector of parameters lie in a network of rayrnn's, and the other way round.

The vector has layer after layer, every matrix column by column. Its gates stand in the order candidate, forget, output,
input; rayrnn's in torch's: input, forget, candidate, output. A layer of torch's has two biases for each gate, DL4J's
one: it becomes the first, and the second is 0 and stays so (rayrnn/dl4j/updates.py).

F inputs, H hidden, O outputs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from rayrnn.models.cells import TorchCell
from rayrnn.models.graves_lstm import GravesLSTM
from rayrnn.models.network import BothDirections, Network

#: rayrnn's gates i, f, g, o among DL4J's g, f, o, i
_GATES = (3, 1, 0, 2)
#: rayrnn's peepholes of i, f, o among DL4J's columns for f, o, i
_PEEPHOLES = (2, 0, 1)
#: what is added to a bias, and is 0
SECOND_BIAS = "bias_hh_l0"


@dataclass(frozen=True)
class Part:
    """One of rayrnn's tensors as columns of a matrix of DL4J's."""

    name: str
    columns: np.ndarray
    #: whether the tensor has the matrix's columns as its rows
    transposed: bool = False
    #: of a bias: the tensor has one axis
    is_vector: bool = False

    def take(self, matrix: np.ndarray) -> np.ndarray:
        """The tensor's values."""
        chosen = matrix[:, self.columns]
        return chosen.reshape(-1) if self.is_vector else chosen.T if self.transposed else chosen

    def put(self, values: np.ndarray, matrix: np.ndarray) -> None:
        """Write them back."""
        matrix[:, self.columns] = values.reshape(1, -1) if self.is_vector else values.T if self.transposed else values


@dataclass(frozen=True)
class Parameter:
    """One matrix of DL4J's."""

    #: by DL4J's name: `0_RW`
    key: str
    layer: int
    shape: tuple[int, int]
    parts: tuple[Part, ...]
    #: penalties are for weights, and not for biases
    is_bias: bool = False

    @property
    def size(self) -> int:
        """Numbers."""
        return self.shape[0] * self.shape[1]


def parameters_of(network: nn.Module) -> list[Parameter]:
    """The matrices that DL4J keeps of a network like this, in the order of its vector.

    Raises:
        ValueError: DL4J has no such network; says what of it.
    """
    if reason := _foreign_to_dl4j(network):
        raise ValueError(reason)
    assert isinstance(network, Network)
    found: list[Parameter] = []
    for number, layer in enumerate(network.layers):
        directions = {"forwards.": "forwards", "backwards.": "backwards"} if isinstance(layer, BothDirections) else {}
        for prefix, attribute in (directions or {"": ""}).items():
            cell = getattr(layer, attribute) if attribute else layer
            found += _of_cell(cell, number, f"layers.{number}.{prefix}", _called(cell, attribute))
    number = len(network.layers)  # a layer that pools has no parameters, and its number does not matter here
    outputs, width = network.projection.weight.shape  # type: ignore[misc]
    weights = Part("projection.weight", np.arange(int(outputs)), transposed=True)
    bias = Part("projection.bias", np.arange(int(outputs)), is_vector=True)
    found.append(Parameter(f"{number}_W", number, (int(width), int(outputs)), (weights,)))
    found.append(Parameter(f"{number}_b", number, (1, int(outputs)), (bias,), is_bias=True))
    return found


def to_tensors(vector: np.ndarray, parameters: list[Parameter]) -> dict[str, torch.Tensor]:
    """rayrnn's tensors by their names, of a vector of DL4J's: float32."""
    found = {}
    for parameter, matrix in _matrices(vector, parameters):
        for part in parameter.parts:
            found[part.name] = torch.from_numpy(np.ascontiguousarray(part.take(matrix)))
    return found


def all_tensors(vector: np.ndarray, network: nn.Module) -> dict[str, torch.Tensor]:
    """The whole state of a network that has a vector's numbers; the second of two biases is 0."""
    values = to_tensors(vector, parameters_of(network))
    return {name: values.get(name, torch.zeros_like(value)) for name, value in network.state_dict().items()}


def to_vector(tensors: Mapping[str, torch.Tensor], parameters: list[Parameter]) -> np.ndarray:
    """DL4J's vector, float32, of rayrnn's tensors. Of two biases their sum."""
    vector = np.empty(sum(parameter.size for parameter in parameters), np.float32)
    for parameter, matrix in _matrices(vector, parameters):
        for part in parameter.parts:
            values = tensors[part.name].detach().cpu().numpy()
            second = tensors.get(second_bias(part.name)) if part.is_vector else None
            part.put(values if second is None else values + second.detach().cpu().numpy(), matrix)
    return vector


def second_bias(name: str) -> str:
    """The other of two biases that are added up, for the name of the first."""
    return name.replace("bias_ih_l0", SECOND_BIAS) if "bias_ih_l0" in name else ""


def _matrices(vector: np.ndarray, parameters: list[Parameter]) -> Iterator[tuple[Parameter, np.ndarray]]:
    place = 0
    for parameter in parameters:
        piece = vector[place : place + parameter.size]
        place += parameter.size
        yield parameter, piece.reshape(parameter.shape[::-1]).T  # a view: column by column


def _called(cell: nn.Module, direction: str) -> tuple[str, str, str]:
    """DL4J's names of the weights of inputs, of the state, and of the bias."""
    if not direction:
        return "W", "RW", "b"
    if isinstance(cell, GravesLSTM):
        return ("WF", "RWF", "bF") if direction == "forwards" else ("WB", "RWB", "bB")
    prefix = "f" if direction == "forwards" else "b"
    return f"{prefix}W", f"{prefix}RW", f"{prefix}b"


def _of_cell(cell: nn.Module, number: int, prefix: str, called: tuple[str, str, str]) -> list[Parameter]:
    keys = [f"{number}_{name}" for name in called]
    if isinstance(cell, GravesLSTM):
        F, H = cell.input_size, cell.hidden_size
        gates = _gates(H)
        recurrent = Part(f"{prefix}recurrent_weights", gates)
        peepholes = Part(f"{prefix}peepholes", 4 * H + np.array(_PEEPHOLES), transposed=True)
        return [
            Parameter(keys[0], number, (F, 4 * H), (Part(f"{prefix}input_weights", gates),)),
            Parameter(keys[1], number, (H, 4 * H + 3), (recurrent, peepholes)),
            Parameter(keys[2], number, (1, 4 * H), (Part(f"{prefix}bias", gates, is_vector=True),), is_bias=True),
        ]
    assert isinstance(cell, TorchCell)
    layer = cell.recurrence
    F, H, blocks = layer.input_size, layer.hidden_size, 4 if isinstance(layer, nn.LSTM) else 1
    columns, inner = _gates(H) if blocks == 4 else np.arange(H), f"{prefix}recurrence."
    return [
        Parameter(keys[0], number, (F, blocks * H), (Part(f"{inner}weight_ih_l0", columns, transposed=True),)),
        Parameter(keys[1], number, (H, blocks * H), (Part(f"{inner}weight_hh_l0", columns, transposed=True),)),
        Parameter(
            keys[2], number, (1, blocks * H), (Part(f"{inner}bias_ih_l0", columns, is_vector=True),), is_bias=True
        ),
    ]


def _gates(hidden: int) -> np.ndarray:
    return np.concatenate([np.arange(hidden) + block * hidden for block in _GATES])


def _foreign_to_dl4j(network: nn.Module) -> str | None:
    """Why DL4J has no network like this, in words."""
    if not isinstance(network, Network):
        return (
            f"it is a {type(network).__name__}, and DL4J has recurrent layers with one layer that answers behind them"
        )
    if network.front is not None or network.parallel is not None:
        return "it has convolutions (model.front or model.parallel)"
    if network.adds:
        return "it adds what it read to its answers (model.residual)"
    if network.embedding is not None:
        return "its symbols have an embedding (model.embedding), and are one-hot at DL4J's recurrent layers"
    layer = network.layers[0]
    cell = layer.forwards if isinstance(layer, BothDirections) else layer
    if isinstance(cell, TorchCell) and isinstance(cell.recurrence, nn.GRU):
        return "its cell is gru, and DL4J has no such layer"
    if not isinstance(network.projection, nn.Linear):
        return "nothing stands behind its layers that answers"
    if network.pooling == "last" and network.bidirectional != "none":
        return (
            "it is bidirectional with model.pooling: last, which takes each direction where it has read the whole "
            "sequence; DL4J's LastTimeStep takes both at the last step"
        )
    if network.pooling == "max" and network.bidirectional == "sum":
        return (
            "it is bidirectional (sum) with model.pooling: max, which adds the two largest; DL4J's GlobalPooling takes "
            "the largest of the sums"
        )
    return None
