"""Sound files, one a sequence -> frames of a log-mel spectrogram, by Ray tasks that read many files each."""

import functools
from collections.abc import Sequence

import numpy as np
import ray.data

from rayrnn.data.sources.media_files import Decoder, find_media, read_media
from rayrnn.data.sources.source import Wanted
from rayrnn.data.spectrogram import LogMel
from rayrnn.data.waveforms import read_waveform
from rayrnn.recipe.media_sections import AudioData

#: how the names of sound files end
SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64")


class Audio:
    """Sound files, one a sequence."""

    section = AudioData

    def read(self, data: AudioData, wanted: Wanted) -> ray.data.Dataset:
        """Every file as one sequence, read when the dataset is consumed; see `read_media`.

        Raises:
            DataError: there are no files, or no labels for them.
            RecipeError: there are more bands than the window tells apart, or nothing says where labels are.
        """
        bands = LogMel(data.rate, data.mels, _samples(data.window, data.rate), _samples(data.hop, data.rate))
        bands.check_bands()
        found = find_media(data, wanted, SUFFIXES, what="sounds")
        return read_media(found, data, wanted, Decoder(functools.partial(_steps, bands=bands), bands.names))


def _samples(milliseconds: float, rate: int) -> int:
    return round(milliseconds * rate / 1000)


def _steps(contents: Sequence[bytes], names: Sequence[str], bands: LogMel) -> np.ndarray:
    return bands.of(read_waveform(contents[0], names[0], bands.rate))
