"""A log-mel spectrogram is what its definition says, computed here a second time by NumPy alone."""

import numpy as np
import pytest

from rayrnn.data.spectrogram import LogMel, mel_filters
from rayrnn.errors import RecipeError
from tests.media import sine


def by_definition(samples: np.ndarray, rate: int, bands: int, window: int, hop: int, transform: int) -> np.ndarray:
    """A frame after the other, a band after the other: no framework, no matrix product."""
    periodic = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    before = (transform - window) // 2
    padded = np.concatenate([np.zeros(transform // 2), samples.astype(np.float64), np.zeros(transform)])
    highest = 2595 * np.log10(1 + rate / 2 / 700)
    edges = [700 * (10 ** (highest * k / (bands + 1) / 2595) - 1) for k in range(bands + 2)]
    frames = []
    for frame in range(1 + len(samples) // hop):
        piece = np.zeros(transform)
        start = frame * hop
        piece[before : before + window] = padded[start + before : start + before + window] * periodic
        power = np.abs(np.fft.rfft(piece)) ** 2
        heard = []
        for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
            total = 0.0
            for k, one in enumerate(power):
                hertz = k * rate / transform
                if low < hertz <= middle:
                    total += one * (hertz - low) / (middle - low)
                elif middle < hertz < high:
                    total += one * (high - hertz) / (high - middle)
            heard.append(np.log(max(total, 1e-10)))
        frames.append(heard)
    return np.array(frames)


@pytest.mark.parametrize(("window", "hop", "transform"), [(400, 160, 512), (256, 100, 256), (401, 160, 512)])
def test_it_is_what_its_definition_says(window: int, hop: int, transform: int) -> None:
    random = np.random.default_rng(3)
    samples = random.normal(0, 0.1, 2000).astype(np.float32)
    bands = LogMel(16_000, 20, window, hop)
    assert bands.transform == transform
    due = by_definition(samples, 16_000, 20, window, hop, transform)
    np.testing.assert_allclose(bands.of(samples), due, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("hertz", [200, 1000, 3000, 7000])
def test_a_sine_is_loudest_in_the_band_whose_middle_is_nearest(hertz: int) -> None:
    bands = LogMel(16_000, 40, 400, 160)
    middles = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 42)[1:-1] / 2595) - 1)
    heard = bands.of(sine(hertz))[10:-10]
    assert abs(int(np.argmax(heard.mean(axis=0))) - int(np.argmin(np.abs(middles - hertz)))) <= 1
    far = np.abs(middles - hertz) > 1500
    assert heard.mean(axis=0).max() - heard.mean(axis=0)[far].max() > 5


def test_twice_as_loud_is_four_times_the_power() -> None:
    bands = LogMel(16_000, 40, 400, 160)
    loud, quiet = bands.of(sine(1000)), bands.of(sine(1000) / 2)
    place = int(np.argmax(loud[20]))
    assert loud[20, place] - quiet[20, place] == pytest.approx(np.log(4), abs=1e-3)


@pytest.mark.parametrize(("count", "frames"), [(1, 1), (159, 1), (160, 2), (399, 3), (16_000, 101)])
def test_there_is_a_frame_a_hop_also_of_less_than_a_window(count: int, frames: int) -> None:
    heard = LogMel(16_000, 40, 400, 160).of(np.full(count, 0.1, np.float32))
    assert heard.shape == (frames, 40)
    assert np.isfinite(heard).all()


def test_silence_is_finite() -> None:
    assert LogMel(16_000, 40, 400, 160).of(np.zeros(1000, np.float32)).max() == pytest.approx(np.log(1e-10))


def test_a_long_sound_is_computed_in_pieces_that_fit_together() -> None:
    """More frames than one piece has."""
    samples = np.random.default_rng(0).normal(0, 0.1, 5000 * 10).astype(np.float32)
    bands = LogMel(1_000, 8, 25, 10)
    around = slice((4096 - 20) * 10, (4096 + 20) * 10)
    np.testing.assert_allclose(bands.of(samples)[4086:4106], bands.of(samples[around])[10:30], atol=1e-4)


def test_all_power_between_the_first_and_the_last_middle_is_counted_once() -> None:
    filters = mel_filters(512, 16_000, 40)
    inside = filters[3:-20].sum(axis=1)
    np.testing.assert_allclose(inside, 1)


def test_more_bands_than_the_window_tells_apart_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"data\.mels is 200: .* band 0 has no frequency of its own"):
        LogMel(16_000, 200, 400, 160).check_bands()
