"""What a binary image costs if its pixels are predicted from those before: by their share alone, or by a context.

    python benchmarks/pixel_contexts.py DIRECTORY [--size 28 28] [--held-out 0.1] [--seed 12345]

Baselines for recipe `pixels`. The context of order 0 is nothing: one share of white pixels. That of order 8 is the 8
pixels before the next one in its row, as a language model's n-grams have it; or the 8 nearest of those before it, most
of them above, as JBIG has it. Counted over the training part, each count plus a half (Krichevsky-Trofimov), measured on
the same held-out images that a run of this seed has.
"""

import argparse
from pathlib import Path

import numpy as np

from rayrnn.data.rasters import Raster, symbols_of

#: (rows down, columns to the right) of the pixels that a context sees
CONTEXTS = {
    "order 0": (),
    "order 8, in the row": tuple((0, -back) for back in range(1, 9)),
    "order 8, the nearest": ((0, -1), (-1, 0), (-1, 1), (-1, -1), (0, -2), (-2, 0), (-1, 2), (-1, -2)),
}


def main() -> None:
    arguments = _arguments()
    training, held_out = split(arguments.directory, tuple(arguments.size), arguments.held_out, arguments.seed)
    print(f"{len(training):,} images to count, {len(held_out):,} to measure on")
    for name, context in CONTEXTS.items():
        print(f"{name}: {nats_an_image(training, held_out, context):.2f} nats an image")


def split(directory: Path, size: tuple[int, int], share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The images of a directory as 0 and 1, [N, H, W]: those to count and those to measure on.

    A run of the same seed holds out the same (rayrnn/data/sequences.py).
    """
    raster = Raster(1, size=size)
    paths = sorted(directory.rglob("*.png"))
    images = np.stack([symbols_of(raster.read(path.read_bytes(), str(path)), 2) for path in paths])
    images_NHW = images.reshape(len(paths), *size)
    order = np.random.default_rng(seed).permutation(len(paths))
    kept_out = max(1, round(share * len(paths)))
    return images_NHW[order[:-kept_out]], images_NHW[order[-kept_out:]]


def nats_an_image(training: np.ndarray, held_out: np.ndarray, context: tuple[tuple[int, int], ...]) -> float:
    """The mean code length of held-out images [N, H, W] of 0 and 1, in nats."""
    counts = np.full((2 ** len(context), 2), 0.5)
    np.add.at(counts, (_contexts(training, context), training.reshape(-1)), 1)
    chances = counts / counts.sum(axis=1, keepdims=True)
    spent = -np.log(chances[_contexts(held_out, context), held_out.reshape(-1)])
    return float(spent.sum() / len(held_out))


def _contexts(images_NHW: np.ndarray, context: tuple[tuple[int, int], ...]) -> np.ndarray:
    """The number of each pixel's context; outside of an image all is black."""
    reach = max((max(abs(down), abs(right)) for down, right in context), default=0)
    padded = np.pad(images_NHW, ((0, 0), (reach, reach), (reach, reach)))
    height, width = images_NHW.shape[1:]
    numbers = np.zeros(images_NHW.shape, np.int64)
    for down, right in context:
        seen = padded[:, reach + down : reach + down + height, reach + right : reach + right + width]
        numbers = numbers * 2 + seen
    return numbers.reshape(-1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="PNG files")
    parser.add_argument("--size", type=int, nargs=2, default=(28, 28), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--held-out", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=12345)
    return parser.parse_args()


if __name__ == "__main__":
    main()
