"""Time series of the UCR and UEA archives (`.ts` files, as aeon ships them) as CSV files, one a sequence.

python tests/ts_files.py JapaneseVowels DIRECTORY    writes DIRECTORY/train/0000.csv ... and DIRECTORY/test/...
"""

import csv
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

Steps = list[list[str]]


class Labelled(NamedTuple):
    """A sequence's steps, each with the features' numbers as they are written in the archive, and its class."""

    steps: Steps
    label: str


def find_ts(name: str) -> dict[str, Path]:
    """The archive's `train` and `test` file, in the installed package aeon (which is not imported).

    Raises:
        FileNotFoundError: aeon is not installed, or does not ship this archive.
    """
    package = importlib.util.find_spec("aeon")
    if package is None or package.origin is None:
        raise FileNotFoundError("aeon is not installed: pip install --no-deps aeon==1.6.0")
    directory = Path(package.origin).parent / "datasets" / "data" / name
    files = {part: directory / f"{name}_{part.upper()}.ts" for part in ("train", "test")}
    for file in files.values():
        if not file.exists():
            raise FileNotFoundError(f"aeon ships no {file.name}")
    return files


def read_ts(file: Path) -> list[Labelled]:
    """The sequences of one file, one a line: each feature's numbers, then the class, with `:` between them."""
    lines = file.read_text(encoding="utf-8").splitlines()
    data = lines[[line.strip().lower() for line in lines].index("@data") + 1 :]
    sequences = []
    for line in filter(str.strip, data):
        *features, label = line.strip().split(":")
        columns = [feature.split(",") for feature in features]
        sequences.append(Labelled([list(step) for step in zip(*columns, strict=True)], label))
    return sequences


def write_csv(sequences: Sequence[Labelled], directory: Path) -> None:
    """One file a sequence, 0000.csv and on, with a header: the features' names and `label`, the same at every step."""
    directory.mkdir(parents=True, exist_ok=True)
    for number, (steps, label) in enumerate(sequences):
        with (directory / f"{number:04d}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*(f"feature_{place}" for place in range(len(steps[0]))), "label"])
            writer.writerows([*step, label] for step in steps)


def main() -> None:
    """The command line."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        files = find_ts(sys.argv[1])
    except FileNotFoundError as error:
        sys.exit(str(error))
    for part, file in files.items():
        sequences = read_ts(file)
        write_csv(sequences, Path(sys.argv[2]) / part)
        print(f"{len(sequences)} sequences in {sys.argv[2]}/{part}")


if __name__ == "__main__":
    main()
