"""Sound files -> samples of one channel at one rate: what is no sound, or only a part of one, is told.

N samples.
"""

import io
import math
import struct

import numpy as np
import soundfile
from numpy.lib.stride_tricks import sliding_window_view

from rayrnn.data.contents import most_unpacked
from rayrnn.errors import DataError
from rayrnn.wording import counted

#: frames that are decoded at once
FRAMES_A_PIECE = 2**20
#: as users know them; libsndfile reads some more
FORMATS = "wav, flac, ogg, mp3, aiff, au, caf and w64"
#: of a sample, whose scale is 1 or, in some files, the largest whole number of 16 bits
LOUDEST = 1e6
#: samples a second
MOST_RATE = 768_000
#: of the filter that resamples: zero crossings on either side, and the shape of the Kaiser window around them
ZEROS, BETA = 24, 9.0
#: of the highest frequency that both rates have, what is kept; above it the filter falls off
ROLLOFF = 0.95
#: the last page of an Ogg stream has this bit in the byte behind "OggS" and its version
_END_OF_STREAM = 4


def read_waveform(content: bytes, name: str, rate: int) -> np.ndarray:
    """The samples of a sound file, the mean of its channels, resampled to `rate`: float32 [N], N at least 1.

    Args:
        content: of the file, in any format that libsndfile reads; what it is says its content, not its name.
        name: as the user would write it.

    Raises:
        DataError: it is no sound, is cut off, has no samples or some that are no numbers, or is too long for this
            machine.
    """
    if reason := _cut_off(content):
        raise DataError(f"{name} {reason}: it was cut off; copy it again, or leave it out")
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            _check_length(file, len(content), name, rate)
            samples = _mono(file, name)
            own_rate = int(file.samplerate)
    except soundfile.LibsndfileError as error:
        reason = str(error.error_string).strip().rstrip(".")
        raise DataError(f"{name} is no sound that can be read ({reason}); what can be are {FORMATS}") from None
    if not len(samples):
        raise DataError(f"{name} has no samples")
    bad = np.flatnonzero(~(np.abs(samples) <= LOUDEST))
    if len(bad):
        raise DataError(
            f"{name} has {counted(len(bad), 'sample')} that cannot be sound, the first {samples[bad[0]]} at "
            f"{bad[0] / own_rate:.3f} s: mend it, or leave it out"
        )
    return resampled(samples, own_rate, rate)


def resampled(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Samples at another rate, float32 [ceil(N * new_rate / rate)]; the first stays where it is in time.

    Band-limited interpolation: each new sample is a sum of its neighbours, weighed by a sinc within a Kaiser window.
    One filter for each of the places that a new sample may have between two old ones (polyphase).

    Source: J. O. Smith, Digital Audio Resampling, https://ccrma.stanford.edu/~jos/resample/, 2002.
    """
    if rate == new_rate:
        return samples
    divisor = math.gcd(rate, new_rate)
    down, up = rate // divisor, new_rate // divisor
    count = -(-len(samples) * up // down)
    # of old samples: zero crossings are further apart where frequencies must be left out
    spread = ZEROS * max(1.0, down / up) / ROLLOFF
    reach = math.ceil(spread)
    # every window is whole, and so is the last phase's
    padded = np.pad(samples, (reach, reach + 1 + down))
    found = np.empty(count, np.float32)
    for phase in range(min(up, count)):
        first, between = divmod(phase * down, up)
        places = np.arange(-reach, reach + 2) - between / up
        weights = _kernel(places, min(1.0, up / down) * ROLLOFF, spread).astype(np.float32)
        windows = sliding_window_view(padded[first:], len(weights))[::down]
        own = len(range(phase, count, up))
        found[phase::up] = windows[:own] @ weights
    return found


def _kernel(places: np.ndarray, cutoff: float, spread: float) -> np.ndarray:
    """A low pass at `cutoff` of half the old rate, at places counted in old samples."""
    inside = np.clip(1 - (places / spread) ** 2, 0, None)
    window = np.where(np.abs(places) <= spread, np.i0(BETA * np.sqrt(inside)) / np.i0(BETA), 0.0)
    return np.asarray(cutoff * np.sinc(cutoff * places) * window)


def _check_length(file: soundfile.SoundFile, size: int, name: str, rate: int) -> None:
    """
    Raises:
        DataError: what the header promises is more than fits into memory, or no sound.
    """
    if not 0 < file.samplerate <= MOST_RATE:
        raise DataError(
            f"{name} names {file.samplerate:,} samples a second; at most {MOST_RATE:,} are resampled: mend its header, "
            "or leave it out"
        )
    samples = max(file.frames * file.channels, file.frames * rate // file.samplerate)
    if samples * 4 > (most := most_unpacked(size)):
        raise DataError(
            f"{name} has {size:,} bytes and stands for {samples:,} samples ({file.frames / file.samplerate:,.0f} s, "
            f"{file.channels} channels), more than the {most // 4:,} that are read: it is too long for this machine, "
            "or packed to be so; cut it into several files"
        )


def _mono(file: soundfile.SoundFile, name: str) -> np.ndarray:
    """
    Raises:
        DataError: there are fewer samples than the header promises.
    """
    pieces = []
    while len(piece := file.read(FRAMES_A_PIECE, dtype="float32", always_2d=True)):
        pieces.append(piece[:, 0] if piece.shape[1] == 1 else piece.mean(axis=1))
    samples = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    # the length of what is packed in frames of their own, as in an MP3, is an estimate
    if file.format in ("WAV", "FLAC") and len(samples) < file.frames:
        raise DataError(
            f"{name} has {len(samples):,} of the {file.frames:,} samples that its header names: it was cut off; copy "
            "it again, or leave it out"
        )
    return samples


def _cut_off(content: bytes) -> str | None:
    """Why a WAV, an AIFF or an Ogg file is only a part of one; libsndfile reads what is there and says nothing."""
    if content[:4] in (b"RIFF", b"RIFX") and content[8:12] == b"WAVE":
        return _cut_off_wav(content, "<" if content[:4] == b"RIFF" else ">")
    if content[:4] == b"FORM" and len(content) < (size := 8 + int.from_bytes(content[4:8], "big")):
        return f"has {len(content):,} of the {size:,} bytes that its header names"
    if content[:4] == b"OggS":
        last = content.rfind(b"OggS")
        page = content[last : last + 27]
        if len(page) < 27 or not page[5] & _END_OF_STREAM:
            return "has no last page, with which an Ogg stream ends"
        sizes = content[last + 27 : last + 27 + page[26]]
        if last + 27 + page[26] + sum(sizes) > len(content):
            return "ends within its last page"
    return None


def _cut_off_wav(content: bytes, order: str) -> str | None:
    at = 12
    while at + 8 <= len(content):
        name = content[at : at + 4]
        (size,) = struct.unpack(f"{order}I", content[at + 4 : at + 8])
        # a program that wrote into a pipe knew no size
        if name == b"data" and size not in (0, 0xFFFFFFFF, 0x7FFFFFFF) and at + 8 + size > len(content):
            return f"has {len(content) - at - 8:,} of the {size:,} bytes of sound that its header names"
        if name == b"data":
            return None
        at += 8 + size + size % 2
    return f"has {len(content):,} bytes and no sound in them, only a header"
