"""The nearest neighbour as a listener: a spoken digit is the one that the likest recording of others says.

    python benchmarks/spoken_neighbours.py recordings

The directory holds DIGIT_SPEAKER_TAKE.wav; takes 0 to 4 of each are asked, all others are known. Likeness is dynamic
time warping over the frames that `source: audio` makes, each feature standardized. It takes some minutes, with numba.
"""

import sys
from pathlib import Path

import numba
import numpy as np

from rayrnn.data.spectrogram import LogMel
from rayrnn.data.waveforms import read_waveform

FRAMES = LogMel(rate=8000, bands=40, window=200, hop=80)


def main(recordings: Path) -> None:
    """Print the share of digits that are heard right."""
    known: list[tuple[str, np.ndarray]] = []
    asked: list[tuple[str, np.ndarray]] = []
    for path in sorted(recordings.glob("*.wav")):
        digit, _, take = path.stem.split("_")
        frames = FRAMES.of(read_waveform(path.read_bytes(), path.name, FRAMES.rate))
        (asked if int(take) < 5 else known).append((digit, frames))
    everything = np.concatenate([frames for _, frames in known])
    mean, deviation = everything.mean(axis=0), everything.std(axis=0)
    known = [(digit, (frames - mean) / deviation) for digit, frames in known]
    right = 0
    for digit, frames in asked:
        scaled = (frames - mean) / deviation
        distances = [distance(scaled, other) for _, other in known]
        right += known[int(np.argmin(distances))][0] == digit
    print(f"{len(asked)} digits, {len(known)} recordings to compare with: {right / len(asked):.3f} right")


@numba.njit  # type: ignore[untyped-decorator]
def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The mean distance of frames along the best way through both (Sakoe and Chiba 1978), by their lengths."""
    costs = np.full((len(one) + 1, len(other) + 1), np.inf)
    costs[0, 0] = 0.0
    for row in range(len(one)):
        for column in range(len(other)):
            step = np.sqrt(((one[row] - other[column]) ** 2).sum())
            before = min(costs[row, column], costs[row, column + 1], costs[row + 1, column])
            costs[row + 1, column + 1] = before + step
    return float(costs[-1, -1] / (len(one) + len(other)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
