"""Encodes what travels over slow links: differences in two bytes or one a value, with error feedback.

What a worker sends is how far its parameters moved from the last that all members had in common. bfloat16 keeps the
first 8 significant bits of each; int8 keeps multiples of a 127th of the largest among each 1024 of them. What that
loses is added to the worker's next difference (error feedback: Seide et al. 2014, "1-bit stochastic gradient descent",
Interspeech; Karimireddy et al. 2019, arXiv:1901.09847, EF-SGD), so that it arrives late, but arrives.

Who decodes the same bytes gets the same bits on any processor: a value takes one multiplication at most.

P parameters, B bytes, N numbers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

Wire = Literal["float32", "bfloat16", "int8"]
#: int8's values that share one scale
BLOCK = 1024
#: int8's largest number
TOP = 127
#: of the wires that round each value by itself
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def num_encoded(num_values: int, wire: Wire) -> int:
    """Bytes that so many values take."""
    if wire == "int8":
        return num_values + 4 * _num_blocks(num_values)
    return num_values * DTYPES[wire].itemsize


def encode(values: torch.Tensor, wire: Wire) -> torch.Tensor:
    """The values, P, float32, as bytes, B: for int8 4 for each block's scale, then P.

    A value that is not finite stays so; in int8 all of its block becomes NaN.
    """
    if wire != "int8":
        return values.to(DTYPES[wire]).view(torch.uint8)
    num_values = values.numel()
    blocks = values.new_zeros(_num_blocks(num_values), BLOCK)
    blocks.view(-1)[:num_values] = values
    scales = blocks.abs().amax(1) / TOP
    # processors differ about the smallest numbers: those are lost, and fed back
    scales = torch.where(scales < torch.finfo(scales.dtype).tiny, 0.0, scales)
    divisors = torch.where((scales > 0) & scales.isfinite(), scales, torch.inf)
    counts = (blocks / divisors[:, None]).nan_to_num(0.0).round().clamp(-TOP, TOP).to(torch.int8)
    return torch.cat([scales.view(torch.uint8), counts.view(-1)[:num_values].view(torch.uint8)])


def decode(encoded: torch.Tensor, wire: Wire) -> torch.Tensor:
    """The values, P, float32, that `encode` made these bytes, B, of, as far as they were kept."""
    if wire != "int8":
        return _read(encoded, DTYPES[wire]).float()
    num_scales = -(-encoded.numel() // (BLOCK + 4))
    scales = _read(encoded[: 4 * num_scales], torch.float32)
    counts = encoded[4 * num_scales :].view(torch.int8).float()
    return counts.mul_(scales.repeat_interleave(BLOCK)[: counts.numel()])


def weighted_mean(vectors: Iterable[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """The mean of vectors, P, in their order; the same bits wherever it is computed."""
    total = sum(weights)
    mean: torch.Tensor | None = None
    for vector, weight in zip(vectors, weights, strict=True):
        share = vector * (weight / total)
        # not `add` with a factor, which some processors round once and others twice
        mean = share if mean is None else mean.add_(share)
    assert mean is not None, "a mean of nothing"
    return mean


class Differences:
    """One worker's differences from the common parameters, and what encoding them has lost so far.

    Args:
        common: the parameters that all members have now, P, float32.
    """

    def __init__(self, common: torch.Tensor, *, wire: Wire) -> None:
        self.wire = wire
        #: the last common parameters, and what was lost of this worker's differences until then: both P
        self.common = common.clone()
        self.residual = torch.zeros_like(common)

    def encode(self, parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The bytes, B, that say where this worker's parameters, P, are; and what they lose, P.

        The loss is not finite when the parameters are not. Nothing is changed: those who hear it may be lost.
        """
        difference = parameters - self.common + self.residual
        encoded = encode(difference, self.wire)
        return encoded, difference - decode(encoded, self.wire)

    def settle(self, common: torch.Tensor, residual: torch.Tensor | None = None) -> None:
        """Take what the members have in common now, P, and what is left to be fed back; nothing without a word."""
        self.common.copy_(common)
        if residual is None:
            self.residual.zero_()
        else:
            self.residual.copy_(residual)


@dataclass(frozen=True)
class Message:
    """What one member says in a round."""

    #: its weight, then its notes: N, float64
    numbers: torch.Tensor
    #: values that travel as they are, float32
    exact: torch.Tensor
    #: B, uint8
    encoded: torch.Tensor

    def to_bytes(self) -> torch.Tensor:
        """All of it, uint8, in main memory."""
        return torch.cat([part.view(torch.uint8).cpu() for part in (self.numbers, self.exact, self.encoded)])

    def split(self, content: torch.Tensor) -> "Message":
        """Another member's message, on this one's device, from its bytes: it has parts as long as this one's."""
        sizes = [part.numel() * part.element_size() for part in (self.numbers, self.exact, self.encoded)]
        numbers, exact, encoded = torch.split(content, sizes)
        device = self.encoded.device
        return Message(
            _read(numbers, torch.float64),
            _read(exact, torch.float32).to(device),
            encoded.to(device),
        )


def _num_blocks(num_values: int) -> int:
    return -(-num_values // BLOCK)


def _read(content: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Numbers from bytes that may lie anywhere."""
    return content.clone().view(dtype)
