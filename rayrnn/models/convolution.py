"""Convolutions before or beside recurrent layers: over the steps of a sequence, or over steps that are images.

Shapes: B batch, T time, S steps after the strides, F features, C channels, N images, H height and W width of an image.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

#: a layer's channels are normalized in so many groups, or in fewer where its channels do not divide by it
MOST_GROUPS = 8
#: what the last layer has computed of an image is averaged to at most so many rows and columns
GRID = 4


@dataclass(frozen=True)
class Stack:
    """Layers of convolutions, one above the other: what each has."""

    channels: tuple[int, ...]
    widths: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, channels: tuple[int, ...], widths: tuple[int, ...], strides: tuple[int, ...]) -> "Stack":
        """A single width or stride is that of every layer.

        Raises:
            ValueError: there is no layer, or not as many widths or strides as layers.
        """
        count = len(channels)
        widths, strides = (numbers * count if len(numbers) == 1 else numbers for numbers in (widths, strides))
        if not count or {len(widths), len(strides)} != {count}:
            raise ValueError(
                f"{count} layers of convolutions need as many widths and strides, at least one: channels are "
                f"{channels}, widths {widths}, strides {strides}"
            )
        return cls(channels, widths, strides)


class StepConvolutions(nn.Module):
    """Layers of convolution over steps, group normalization, and ReLU; what they answer has nothing of the padding.

    A step's answer depends on the steps around it, before and after. The normalization has the statistics of the
    existing steps of one sequence (Wu and He 2018, arXiv:1803.08494): none of the minibatch, and none that run on from
    one to the next, which workers could not average. With channels 128, 256, 128 and widths 8, 5, 3 these are the
    convolutions of LSTM-FCN (Karim et al. 2018, arXiv:1709.05206), which has BatchNorm in this place.

    Args:
        num_inputs: features of a step.
        each_channel: whether a channel is normalized by itself, and not in a group with others. How large it is then
            tells nothing, only how it changes: for what is averaged over the steps afterwards this learns much more.
    """

    def __init__(self, num_inputs: int, stack: Stack, *, each_channel: bool = False) -> None:
        super().__init__()
        self.widths, self.strides = stack.widths, stack.strides
        sizes = (num_inputs, *stack.channels[:-1])
        self.convolutions = nn.ModuleList(
            nn.Conv1d(size, channels, width, stride=stride)
            for size, channels, width, stride in zip(sizes, stack.channels, stack.widths, stack.strides, strict=True)
        )
        self.norms = nn.ModuleList(StepNorm(channels, each=each_channel) for channels in stack.channels)
        self.num_outputs = stack.channels[-1]

    def forward(self, steps: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Map steps_BTF to answers_BSC; a sequence of L steps has ceil(L / stride) after each layer.

        Args:
            mask: BT, True where a step exists; padding stands at the end of a row. None: every step exists.
        """
        hidden_BCT = steps.transpose(1, 2)
        layers = zip(self.convolutions, self.norms, self.widths, self.strides, strict=True)
        for convolution, norm, width, stride in layers:
            if mask is not None:
                hidden_BCT = hidden_BCT.masked_fill(~mask.unsqueeze(1), 0)
            hidden_BCT = convolution(functional.pad(hidden_BCT, _same(width)))
            mask = _strided(mask, stride)
            hidden_BCT = functional.relu(norm(hidden_BCT, mask))
        return hidden_BCT.transpose(1, 2)

    def mask_after(self, mask: torch.Tensor | None) -> torch.Tensor | None:
        """Where the answers of a forward pass exist, BS, for the mask BT of its steps."""
        for stride in self.strides:
            mask = _strided(mask, stride)
        return mask


class StepNorm(nn.GroupNorm):
    """Group normalization of channels over the existing steps of each sequence.

    Args:
        each: whether every channel is a group (Ulyanov et al. 2016, arXiv:1607.08022).
    """

    def __init__(self, num_channels: int, *, each: bool = False) -> None:
        super().__init__(num_channels if each else _groups(num_channels), num_channels)

    def forward(self, steps: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Normalize steps_BCT; at padded steps the values mean nothing.

        Args:
            mask: BT, True where a step exists; None: everywhere.
        """
        if mask is None:
            return super().forward(steps)
        B, C, T = steps.shape
        # sums over many steps need more than bfloat16 has
        grouped = steps.to(torch.promote_types(steps.dtype, torch.float32)).reshape(B, self.num_groups, -1, T)
        there = mask.reshape(B, 1, 1, T)
        count = (there.sum((2, 3), keepdim=True) * (C // self.num_groups)).clamp(min=1)
        centred = grouped - grouped.masked_fill(~there, 0).sum((2, 3), keepdim=True) / count
        variance = centred.masked_fill(~there, 0).square().sum((2, 3), keepdim=True) / count
        normalized = (centred * torch.rsqrt(variance + self.eps)).reshape(B, C, T)
        return torch.addcmul(self.bias.unsqueeze(-1), normalized, self.weight.unsqueeze(-1))


class ImageConvolutions(nn.Module):
    """Layers of convolution over each step's image, group normalization, and ReLU; one vector a step.

    Every image is computed by itself. What the last layer has computed is averaged to at most 4 x 4 places, which stand
    one after the other in the vector.

    Args:
        step_shape: height, width and channels of a step's image, whose numbers stand row by row, the channels of a
            pixel together.
    """

    def __init__(self, step_shape: tuple[int, int, int], stack: Stack) -> None:
        super().__init__()
        self.step_shape = step_shape
        num_inputs = step_shape[2]
        layers: list[nn.Module] = []
        for channels, kernel, stride in zip(stack.channels, stack.widths, stack.strides, strict=True):
            before, after = _same(kernel)
            layers += [
                nn.ZeroPad2d((before, after, before, after)),
                nn.Conv2d(num_inputs, channels, kernel, stride=stride),
                nn.GroupNorm(_groups(channels), channels),
                nn.ReLU(),
            ]
            num_inputs = channels
        height, width = _sizes(step_shape, stack)[-1]
        places = (min(GRID, height), min(GRID, width))
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(places), nn.Flatten())
        self.num_outputs = num_inputs * places[0] * places[1]

    def forward(self, steps: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Map steps_BTF to answers_BTC, zeros at padding.

        Args:
            mask: BT, True where a step exists; None: everywhere.
        """
        if mask is None:
            mask = torch.ones(steps.shape[:2], dtype=torch.bool, device=steps.device)
        images_NHWC = steps[mask].reshape(-1, *self.step_shape)
        vectors_NC: torch.Tensor = self.layers(images_NHWC.movedim(-1, 1).contiguous())
        answers = vectors_NC.new_zeros(*mask.shape, self.num_outputs)
        answers[mask] = vectors_NC
        return answers

    def mask_after(self, mask: torch.Tensor | None) -> torch.Tensor | None:
        """The same mask: a step stays a step."""
        return mask


def fewest_together(step_shape: tuple[int, int, int], stack: Stack) -> int:
    """Values that the layers over an image normalize together, in the layer where these are fewest.

    One value alone becomes 0, whatever is seen.
    """
    sizes = zip(_sizes(step_shape, stack), stack.channels, strict=True)
    return min(height * width * channels // _groups(channels) for (height, width), channels in sizes)


def _sizes(step_shape: tuple[int, int, int], stack: Stack) -> list[tuple[int, int]]:
    """Height and width of what each layer answers."""
    height, width, _ = step_shape
    sizes = []
    for stride in stack.strides:
        height, width = -(-height // stride), -(-width // stride)
        sizes.append((height, width))
    return sizes


def _same(width: int) -> tuple[int, int]:
    """Zeros before and after the steps, with which a convolution of this width answers each of them."""
    return (width - 1) // 2, width // 2


def _strided(mask: torch.Tensor | None, stride: int) -> torch.Tensor | None:
    return None if mask is None else mask[:, ::stride]


def _groups(num_channels: int) -> int:
    return math.gcd(num_channels, MOST_GROUPS)
