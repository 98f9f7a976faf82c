"""Vectors of words that others have learned, from a text file: one word and its numbers a line (GloVe, word2vec)."""

from dataclasses import dataclass

import numpy as np

from rayrnn.data.contents import no_text, read_whole
from rayrnn.data.files import list_files
from rayrnn.data.vocabulary import Vocabulary
from rayrnn.errors import DataError, RecipeError
from rayrnn.wording import counted


@dataclass(frozen=True)
class Vectors:
    """What the embedding of a vocabulary begins with. V symbols, E numbers."""

    #: the file, as the user wrote it
    where: str
    #: float32 [V, E]; NaN where the file does not have the symbol
    values: np.ndarray

    @property
    def num_found(self) -> int:
        """Symbols that the file has."""
        return int(np.isfinite(self.values).all(axis=1).sum())

    def describe(self) -> str:
        return (
            f"{self.where} has vectors of {counted(self.values.shape[1], 'number')} for {self.num_found:,} of "
            f"{len(self.values):,} symbols; the others begin at random"
        )


def read_vectors(where: str, vocabulary: Vocabulary, *, size: int, endpoint: str | None = None) -> Vectors:
    """The vectors of the vocabulary's symbols; a first line of two counts, as word2vec writes it, is passed over.

    Args:
        size: of the embedding that they are for.

    Raises:
        RecipeError: they are of another size than the embedding.
        DataError: the file cannot be read, a line is no word with numbers, or no symbol is there.
    """
    listing = list_files(where, endpoint=endpoint)
    if len(listing) != 1:
        raise DataError(f"{where} (data.vectors) names {len(listing)} files; give one")
    name = listing.names[0]
    content = read_whole(listing.filesystem, listing.paths[0], name)
    if other := no_text(content, name):
        raise DataError(f"{other} (data.vectors)")
    lines = content.split(b"\n")
    places = {symbol.encode(): place for place, symbol in enumerate(vocabulary.symbols)}
    width, values = 0, np.zeros((0, 0), np.float32)
    for number, line in enumerate(lines, start=1):
        parts = line.rstrip(b"\r ").rsplit(b" ", width) if width else line.rstrip(b"\r ").split(b" ")
        if not parts or parts == [b""] or (number == 1 and _are_counts(parts)):
            continue
        if not width:
            width = len(parts) - 1
            if width:
                _numbers(parts[1:], width, name, number)
            _check_width(width, size, name)
            values = np.full((len(vocabulary), width), np.nan, np.float32)
        if (place := places.get(parts[0])) is not None:
            values[place] = _numbers(parts[1:], width, name, number)
    vectors = Vectors(where, values)
    if not len(values) or not vectors.num_found:
        raise DataError(f"{name} (data.vectors) has none of the {len(vocabulary)} symbols that are learned")
    return vectors


def _are_counts(parts: list[bytes]) -> bool:
    return len(parts) == 2 and all(part.isdigit() for part in parts)


def _check_width(width: int, size: int, name: str) -> None:
    if width < 1:
        raise DataError(f"{name}:1 (data.vectors) is no word with numbers behind it, with blanks between them")
    if width != size:
        raise RecipeError(
            f"{name} (data.vectors) has vectors of {width} numbers, and model.embedding is {size}: set model.embedding "
            f"to {width}"
        )


def _numbers(parts: list[bytes], width: int, name: str, number: int) -> np.ndarray:
    try:
        numbers = np.array([float(part) for part in parts], np.float32)
    except ValueError:
        numbers = np.zeros(0, np.float32)
    if len(numbers) != width or not np.isfinite(numbers).all():
        raise DataError(
            f"{name}:{number} (data.vectors) is no word with {width} numbers behind it; a binary file of word2vec is "
            "to be saved as text"
        )
    return numbers
