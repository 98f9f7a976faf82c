"""The nearest neighbour as a captioner: a picture is answered with the name of the likest picture that was learned.

    python benchmarks/picture_neighbours.py emoji names.csv compared.csv

The first is the directory of pictures and the second names them. The third is what `rayrnn evaluate RUN --out
compared.csv` wrote of the pictures that were held out; all others are those whose names may be copied. Likeness is the
Euclidean distance between the pixels. Both are measured as `rayrnn evaluate` does.
"""

import csv
import sys
from pathlib import Path

import numpy as np

from benchmarks.neighbours import Measures, measure
from rayrnn.data.rasters import Raster

SEEN = Raster(channels=3, size=(64, 64))


def main(pictures: Path, names: Path, compared: Path) -> tuple[Measures, Measures]:
    """Print the measures of the network's answers, and of the nearest neighbour's; and return them."""
    with names.open(newline="", encoding="utf-8") as file:
        named = dict(csv.reader(file))
    with compared.open(newline="", encoding="utf-8") as file:
        rows = {Path(row["key"]).name: row for row in csv.DictReader(file)}
    known = sorted(named.keys() - rows.keys())
    pixels = np.stack([seen(pictures / name) for name in known])
    answers = [named[known[int(np.argmin(((pixels - seen(pictures / name)) ** 2).sum(axis=1)))]] for name in rows]
    truths = [row["truth"] for row in rows.values()]
    print(f"{len(rows):,} pictures, {len(known):,} to copy from")
    network = measure("network", [row["answer"] for row in rows.values()], truths)
    return network, measure("nearest neighbour", answers, truths)


def seen(picture: Path) -> np.ndarray:
    return SEEN.read(picture.read_bytes(), picture.name).reshape(-1)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
