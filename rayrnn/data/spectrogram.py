"""Log-mel spectrograms: how much sound there is in each of some bands, which lie as people hear them.

N samples, T frames, K frequencies of the Fourier transform, M bands.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional

from rayrnn.errors import RecipeError

#: the power of silence; its logarithm is that of no other
SILENCE = 1e-10
#: that are computed at once
FRAMES_A_PIECE = 4096


@dataclass(frozen=True)
class LogMel:
    """How sound becomes steps.

    Frame t looks at the samples around t * hop, from half a window before to half a window behind, weighed by a Hann
    window; there is silence before the first sample and behind the last. So N samples have 1 + N // hop frames, and a
    sound that is shorter than a window has one.

    Args:
        rate: samples a second.
        window: samples of a frame; the Fourier transform has the next power of two.
        hop: samples from one frame to the next.
    """

    rate: int
    bands: int
    window: int
    hop: int

    @property
    def transform(self) -> int:
        """Samples of the Fourier transform."""
        return 1 << (self.window - 1).bit_length()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the bands, from the lowest on."""
        return tuple(f"mel {band}" for band in range(self.bands))

    def of(self, samples: np.ndarray) -> np.ndarray:
        """The natural logarithm of the power in each band: float32 [T, M]."""
        half = self.transform // 2
        padded = functional.pad(torch.from_numpy(samples), (half, self.transform - half))
        count = 1 + len(samples) // self.hop
        pieces = []
        for first in range(0, count, FRAMES_A_PIECE):
            last = min(first + FRAMES_A_PIECE, count) - 1
            pieces.append(self._power(padded[first * self.hop : last * self.hop + self.transform]) @ self._filters_KM)
        return np.asarray(torch.cat(pieces).clamp(min=SILENCE).log().numpy())

    def check_bands(self) -> None:
        """
        Raises:
            RecipeError: a band is so narrow that it has no frequency of the transform, and would always be silent.
        """
        empty = np.flatnonzero(~(mel_filters(self.transform, self.rate, self.bands) > 0).any(axis=0))
        if len(empty):
            raise RecipeError(
                f"data.mels is {self.bands}: with data.window of {self.window:,} samples at data.rate {self.rate} band "
                f"{empty[0]} has no frequency of its own and would always be silent; set fewer data.mels, or a longer "
                "data.window"
            )

    def _power(self, samples: torch.Tensor) -> torch.Tensor:
        """The power spectrum of every frame, T x K."""
        transformed_KT = torch.stft(
            samples,
            n_fft=self.transform,
            hop_length=self.hop,
            win_length=self.window,
            window=torch.hann_window(self.window),
            center=False,
            return_complex=True,
        )
        return transformed_KT.abs().square().T

    @cached_property
    def _filters_KM(self) -> torch.Tensor:  # noqa: N802
        return torch.from_numpy(mel_filters(self.transform, self.rate, self.bands).astype(np.float32))


def mel_filters(transform: int, rate: int, bands: int) -> np.ndarray:
    """Triangles that overlap by half, evenly spaced in mel from 0 Hz to half the rate: float64 [K, M].

    The mel scale is HTK's, 2595 log10(1 + f / 700). Source: Young et al., The HTK Book, section 5.4.
    """
    frequencies_K = np.linspace(0, rate / 2, transform // 2 + 1)
    edges = _hertz(np.linspace(0, _mel(rate / 2), bands + 2))
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (frequencies_K[:, None] - left) / (middle - left)
    falling = (right - frequencies_K[:, None]) / (right - middle)
    return np.asarray(np.clip(np.minimum(rising, falling), 0, None))


def _mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))


def _hertz(mel: np.ndarray) -> np.ndarray:
    return np.asarray(700 * (10 ** (mel / 2595) - 1))
