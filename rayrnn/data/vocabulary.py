"""The symbols a model knows, and their numbers."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayrnn.errors import DataError

#: the character END OF TEXT: what a whole text's last symbol is, when `data.length` is 0
END = "\x03"
#: what a sequence of words may begin with, so that its first one is predicted, too; it is never drawn
BEGIN = "<begin>"
#: stands for every symbol that was not, or only once, in the training part
UNKNOWN = "<unknown>"


@dataclass(frozen=True)
class Vocabulary:
    """Symbols in the order of their numbers: characters of text, or words."""

    symbols: tuple[str, ...]

    @classmethod
    def from_counts(cls, counts: dict[str, int], *, rarest: int = 1, unknown: bool = False) -> "Vocabulary":
        """The symbols that were counted `rarest` times or more, sorted; UNKNOWN, if wanted, is number 0."""
        known = sorted(symbol for symbol, count in counts.items() if count >= rarest and symbol != UNKNOWN)
        return cls((UNKNOWN, *known) if unknown else tuple(known))

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def end(self) -> int:
        """The number of the symbol after which a text is over; -1 where texts have no end."""
        return self._numbers.get(END, -1)

    @property
    def begin(self) -> int:
        """The number of the symbol that sequences begin with; -1 where they begin with any."""
        return self._numbers.get(BEGIN, -1)

    @cached_property
    def of_characters(self) -> bool:
        """Whether every symbol is one character of a text."""
        return all(len(symbol) == 1 for symbol in self.symbols if symbol != UNKNOWN)

    def encode_characters(self, text: str) -> np.ndarray:
        """The numbers (int64) of a text's characters, without a Python object for each."""
        points = _points(text)
        table = self._number_of_point
        numbers: np.ndarray = table[np.minimum(points, len(table) - 1)]
        if self.unknown < 0 and (numbers < 0).any():
            raise self._unknown_symbol(chr(points[np.argmax(numbers < 0)]))
        return numbers

    @property
    def unknown(self) -> int:
        """The number of the symbol for those that are not known; -1 where there is none."""
        return self._numbers.get(UNKNOWN, -1)

    def encode_words(self, words: pa.Array) -> np.ndarray:
        """The numbers (int64) of an Arrow array of words."""
        numbers = pc.index_in(words, value_set=self._words).fill_null(self.unknown)
        found = np.asarray(numbers, np.int64)
        if (found < 0).any():
            raise self._unknown_symbol(words[int(np.argmax(found < 0))].as_py())
        return found

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """The symbols with these numbers."""
        return [self.symbols[number] for number in numbers]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {symbol: number for number, symbol in enumerate(self.symbols)}

    @cached_property
    def _number_of_point(self) -> np.ndarray:
        """Unicode code point -> number; the last entry stands for all code points beyond."""
        points = {ord(symbol): number for symbol, number in self._numbers.items() if len(symbol) == 1}
        table = np.full(max(points, default=0) + 2, self.unknown, dtype=np.int64)
        table[list(points)] = list(points.values())
        return table

    @cached_property
    def _words(self) -> pa.Array:
        return pa.array(self.symbols, pa.string())

    def _unknown_symbol(self, symbol: str) -> DataError:
        shown = " ".join(repr(known) for known in self.symbols[:20])
        more = f" and {len(self) - 20} more" if len(self) > 20 else ""
        return DataError(f"the symbol {symbol!r} is not in the vocabulary of {len(self)} symbols: {shown}{more}")


def count_characters(texts: pa.Array) -> dict[str, int]:
    """How often every character is in an array of strings."""
    counts = np.bincount(_points("".join(texts.to_pylist())))
    return {chr(point): int(counts[point]) for point in np.flatnonzero(counts)}


def count_words(words: pa.Array) -> dict[str, int]:
    """How often every word is in an array of strings; null does not count."""
    counted = pc.value_counts(words.drop_null())
    names, counts = counted.field("values").to_pylist(), counted.field("counts").to_pylist()
    return dict(zip(names, counts, strict=True))


def add_counts(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    """The sums of several counts."""
    total: dict[str, int] = {}
    for part in parts:
        for symbol, count in part.items():
            total[symbol] = total.get(symbol, 0) + count
    return total


def _points(text: str) -> np.ndarray:
    """The Unicode code points of a text, uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
