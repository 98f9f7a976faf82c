"""The names under which torch.nn's own LSTM, GRU or RNN keeps the values of a network of ours that is one."""

from collections.abc import Callable
from typing import cast

from torch import nn

from rayrnn.models.cells import TorchCell
from rayrnn.models.network import BothDirections, Network

#: what stands before and behind the recurrent layers
EMBEDDING, HEAD = "embedding.weight", "head."


def plain_names(network: nn.Module) -> dict[str, str]:
    """Our name of every tensor -> the one it has in torch.nn's layer; the embedding and the head stand beside it.

    Raises:
        ValueError: the network is no such layer with an embedding and a linear layer around it; says why.
    """
    if reason := _more_than_one(network):
        raise ValueError(reason)
    names = {"embedding.weight": EMBEDDING, "projection.weight": f"{HEAD}weight", "projection.bias": f"{HEAD}bias"}
    for number, layer in enumerate(cast(Network, network).layers):
        both = isinstance(layer, BothDirections)
        directions = {"forwards.": "", "backwards.": "_reverse"} if both else {"": ""}
        for ours, theirs in directions.items():
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                names[f"layers.{number}.{ours}recurrence.{kind}_l0"] = f"{kind}_l{number}{theirs}"
    return {ours: theirs for ours, theirs in names.items() if ours in network.state_dict()}


def plain_layer(network: Network) -> nn.RNNBase:
    """A fresh layer of torch.nn that takes the recurrent values of a network that is one."""
    layer = network.layers[0]
    cell = cast(TorchCell, layer.forwards if isinstance(layer, BothDirections) else layer).recurrence
    make = cast(Callable[..., nn.RNNBase], type(cell))
    return make(
        cell.input_size,
        cell.hidden_size,
        num_layers=len(network.layers),
        batch_first=True,
        bidirectional=network.bidirectional == "concat",
    )


def _more_than_one(network: nn.Module) -> str | None:
    """Why a network is more than one layer stack of torch.nn's, in words."""
    if not isinstance(network, Network):
        return f"it is a {type(network).__name__}, not one stack of recurrent layers"
    if network.adds:
        return "it adds what it read to its answers (model.residual)"
    if network.front is not None or network.parallel is not None:
        return "it has convolutions"
    if network.bidirectional == "sum":
        return "its two directions are added, and torch.nn's stand side by side (model.bidirectional: concat)"
    layer = network.layers[0]
    if not isinstance(layer.forwards if isinstance(layer, BothDirections) else layer, TorchCell):
        return "its cell has peepholes, which no layer of torch.nn has"
    if len({value.shape for name, value in network.layers.named_parameters() if "bias" in name}) > 1:
        return "its layers are of different sizes (model.hidden is a list), and those of torch.nn's layer are of one"
    return None
