"""A network as an exporter can follow it: the same values, with layers whose number of steps stays open.

Shapes: B batch, T time, S steps after the strides, F features, C channels, N images.
"""

import copy
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from rayrnn.exports.recurrence import Direction, Peepholes, TorchRecurrence
from rayrnn.models.convolution import ImageConvolutions, StepConvolutions
from rayrnn.models.graves_lstm import GravesLSTM

_TORCHS = (nn.LSTM, nn.GRU, nn.RNN)


def traceable(network: nn.Module, form: type[Direction]) -> nn.Module:
    """A copy of a network whose recurrent layers have this form, and whose convolutions can be followed.

    Raises:
        ValueError: a layer of torch's has something that has no such form.
    """
    return _replaced(copy.deepcopy(network), form).eval()


def _replaced(module: nn.Module, form: type[Direction]) -> nn.Module:
    # a layer of a class of the user's own computes something of its own
    if type(module) in _TORCHS:
        return TorchRecurrence(cast(nn.RNNBase, module), form)
    if isinstance(module, GravesLSTM):
        return Peepholes(module, form)
    if isinstance(module, StepConvolutions):
        return OpenStepConvolutions(module)
    if isinstance(module, ImageConvolutions):
        return AllImageConvolutions(module)
    for name, child in list(module.named_children()):
        setattr(module, name, _replaced(child, form))
    return module


class OpenStepConvolutions(nn.Module):
    """`StepConvolutions`, whose mask has as many steps as its answers by the same arithmetic: a tracer sees it."""

    def __init__(self, original: StepConvolutions) -> None:
        super().__init__()
        self.convolutions, self.norms = original.convolutions, original.norms
        self.widths, self.strides = original.widths, original.strides
        self.num_outputs = original.num_outputs

    def forward(self, steps: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Map steps_BTF to answers_BSC."""
        hidden_BCT = steps.transpose(1, 2)
        layers = zip(self.convolutions, self.norms, self.widths, self.strides, strict=True)
        for convolution, norm, width, stride in layers:
            if mask is not None:
                # masked_fill would ask whether there is more than one step
                hidden_BCT = torch.where(mask.unsqueeze(1), hidden_BCT, 0.0)
            hidden_BCT = convolution(functional.pad(hidden_BCT, _around(width)))
            mask = _as_strided(mask, width, stride)
            hidden_BCT = functional.relu(norm(hidden_BCT, mask))
        return hidden_BCT.transpose(1, 2)

    def mask_after(self, mask: torch.Tensor | None) -> torch.Tensor | None:
        """Where the answers of a forward pass exist, BS, for the mask BT of its steps."""
        for width, stride in zip(self.widths, self.strides, strict=True):
            mask = _as_strided(mask, width, stride)
        return mask


class AllImageConvolutions(nn.Module):
    """`ImageConvolutions` that computes what stands at padding too, and leaves it out afterwards."""

    def __init__(self, original: ImageConvolutions) -> None:
        super().__init__()
        self.layers = original.layers
        self.step_shape, self.num_outputs = original.step_shape, original.num_outputs

    def forward(self, steps: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Map steps_BTF to answers_BTC, zeros at padding."""
        B, T = steps.shape[:2]
        images_NHWC = steps.reshape(B * T, *self.step_shape)
        answers: torch.Tensor = self.layers(images_NHWC.movedim(-1, 1).contiguous()).reshape(B, T, self.num_outputs)
        return answers if mask is None else answers.masked_fill(~mask.unsqueeze(-1), 0)

    def mask_after(self, mask: torch.Tensor | None) -> torch.Tensor | None:
        """The same mask: a step stays a step."""
        return mask


def _around(width: int) -> tuple[int, int]:
    return (width - 1) // 2, width // 2


def _as_strided(mask: torch.Tensor | None, width: int, stride: int) -> torch.Tensor | None:
    """`mask[:, ::stride]`, by a convolution that looks at the middle of its width."""
    if mask is None or stride == 1:
        return mask
    middle = torch.zeros(1, 1, width)
    middle[..., _around(width)[0]] = 1
    seen = functional.conv1d(functional.pad(mask.float().unsqueeze(1), _around(width)), middle, stride=stride)
    return seen.squeeze(1) > 0.5
