"""A sound file becomes samples of one channel at one rate, and what is none is told; no Ray is needed."""

import math
import struct

import numpy as np
import pytest

from rayrnn.data.waveforms import read_waveform, resampled
from rayrnn.errors import DataError
from tests.media import sine, sound

SINE = sine(440, rate=8_000)


def told(content: bytes, name: str = "a.wav", rate: int = 8_000) -> str:
    with pytest.raises(DataError, match=r"^a\.wav ") as fault:
        read_waveform(content, name, rate)
    return str(fault.value)


@pytest.mark.parametrize(
    ("kind", "subtype", "exact"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-6),
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "FLOAT", 0),
        ("WAV", "DOUBLE", 0),
        ("FLAC", "PCM_24", 1e-6),
        ("AIFF", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 5e-2),
    ],
)
def test_whatever_the_format_and_the_bits_the_samples_are_the_same(kind: str, subtype: str, exact: float) -> None:
    """The name says nothing: all are called wav."""
    found = read_waveform(sound(SINE, 8_000, kind, subtype), "a.wav", 8_000)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, SINE, atol=exact)


def test_a_wav_that_is_an_mp3_is_read_as_what_it_is() -> None:
    found = read_waveform(sound(sine(440), kind="MP3"), "a.wav", 16_000)
    heard = np.abs(np.fft.rfft(found[2000:6000]))
    assert np.argmax(heard) * 16_000 / 4000 == 440


def test_channels_become_their_mean() -> None:
    both = sound(np.stack([SINE, np.zeros_like(SINE)], axis=1), 8_000, subtype="FLOAT")
    np.testing.assert_allclose(read_waveform(both, "a.wav", 8_000), SINE / 2, atol=1e-7)


@pytest.mark.parametrize(("rate", "new_rate"), [(44_100, 16_000), (8_000, 16_000), (48_000, 16_000), (11_025, 16_000)])
def test_another_rate_gives_the_same_sound(rate: int, new_rate: int) -> None:
    found = resampled(sine(1000, 0.5, rate), rate, new_rate)
    assert len(found) == math.ceil(round(0.5 * rate) * new_rate / rate)
    inside = slice(300, -300)  # the ends begin and stop at once, which no band-limited sound does
    np.testing.assert_allclose(found[inside], sine(1000, 0.5, new_rate)[: len(found)][inside], atol=1e-4)


def test_what_a_lower_rate_cannot_hold_is_filtered_out_and_not_heard_as_something_else() -> None:
    found = resampled(sine(10_000, 0.5, 44_100), 44_100, 16_000)
    assert np.abs(found[300:-300]).max() < 1e-4


def test_rates_without_a_common_divisor_need_no_table_of_all_phases() -> None:
    found = resampled(sine(300, 0.1, 44_101), 44_101, 16_000)
    np.testing.assert_allclose(found[300:-300], sine(300, 0.1, 16_000)[: len(found)][300:-300], atol=1e-4)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no sound at all, but a text of some words\n" * 10, "is no sound that can be read"),
        (b"RIFF\x00\x00\x00\x00WAVE", "only a header"),
        (sound(SINE, 8_000)[:44], "has 0 of the 8,000 bytes of sound that its header names: it was cut off"),
        (sound(SINE, 8_000)[:4044], "has 4,000 of the 8,000 bytes of sound that its header names: it was cut off"),
        (sound(SINE, 8_000, "FLAC")[:1000], "a.wav "),
        (sound(SINE, 8_000, "AIFF")[:4000], "bytes that its header names: it was cut off"),
        (sound(SINE, 8_000, "OGG")[:-100], "it was cut off"),
        (sound(np.zeros(0), 8_000), "has no samples"),
        (
            sound(np.array([0, np.nan, 0]), 8_000, subtype="FLOAT"),
            "1 sample that cannot be sound, the first nan",
        ),
        (sound(np.array([np.inf]), 8_000, subtype="FLOAT"), "cannot be sound, the first inf"),
        (sound(np.array([1e30, 0]), 8_000, subtype="FLOAT"), "cannot be sound"),
    ],
)
def test_what_is_no_sound_or_a_part_of_one_is_told(content: bytes, says: str) -> None:
    assert says in told(content)


def test_a_header_that_promises_more_than_memory_holds_is_refused_before_anything_is_decoded() -> None:
    """A program that wrote 4 GiB into a pipe, or somebody who means harm: 1 sample a second is 768,000 at that rate."""
    slow = bytearray(sound(np.zeros(1000), 8_000))
    slow[24:28] = struct.pack("<I", 1)
    assert "more than the" in told(bytes(slow), rate=768_000)
    slow[24:28] = struct.pack("<I", 2**31 - 1)
    assert "names 2,147,483,647 samples a second" in told(bytes(slow))


def test_a_wav_written_into_a_pipe_has_no_length_and_is_whole() -> None:
    piped = bytearray(sound(SINE, 8_000))
    piped[4:8] = piped[40:44] = b"\xff\xff\xff\xff"
    assert len(read_waveform(bytes(piped), "a.wav", 8_000)) == len(SINE)
