"""Symbols as inputs or as targets: texts and words become numbers, and numbers a text.

S steps of all sequences together, B sequences, U symbols of a target.
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from rayrnn.data.arrow_lists import flat, unwrap
from rayrnn.data.units import CHARACTERS, Units
from rayrnn.data.vocabulary import BEGIN, END, Vocabulary
from rayrnn.errors import DataError
from rayrnn.wording import counted


@dataclass(frozen=True)
class Symbols:
    """One symbol of a vocabulary: a character of a text, or a word."""

    kind: ClassVar[str] = "symbols"
    vocabulary: Vocabulary
    #: how a text becomes symbols
    units: Units = CHARACTERS
    #: of targets: the most symbols that one has in the training part
    longest: int = 0

    @property
    def size(self) -> int:
        """Symbols in the vocabulary."""
        return len(self.vocabulary)

    @property
    def num_columns(self) -> int:
        """Columns of a table with one row a step that these are made of."""
        return 1

    def describe(self) -> str:
        return counted(self.size, "symbol")

    def read(self, rows: pa.Table) -> np.ndarray:
        """The symbols of canonical rows, by their numbers: int64 [S].

        Raises:
            DataError: the rows hold something else, or a symbol that the vocabulary lacks; names its sequence.
        """
        try:
            if "text" in rows.column_names:
                return self.vocabulary.encode_characters("".join(rows["text"].to_pylist()))
            return self.vocabulary.encode_words(unwrap(column_of(rows, "symbols"))[1])
        except DataError as error:
            if len(rows) == 1:
                raise DataError(
                    f"sequence {rows['key'][0].as_py()!r}: {error}; leave this sequence out of the data, or train "
                    "another run: on data that has the symbol, or with data.rare: 2, by which all that is rare or new "
                    "is the unknown symbol"
                ) from None
        # which sequence it is matters only now
        return np.concatenate([self.read(rows.slice(row, 1)) for row in range(len(rows))])

    def targets(self, rows: pa.Table, *, with_end: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """The targets of canonical rows by their symbols' numbers: padded, int64 BU, and the BU mask.

        Rows without a target have nothing to learn; without the column none has.

        Args:
            with_end: whether END stands after every target.
        """
        if "target" not in rows.column_names:
            return np.zeros((len(rows), 1), np.int64), np.zeros((len(rows), 1), bool)
        cells = flat(rows["target"])
        sizes, words = unwrap(cells)
        ends = np.asarray(cells.is_valid()) & with_end
        mask = np.arange(max(1, (sizes + ends).max(initial=0))) < (sizes + ends)[:, None]
        numbers = np.full(mask.shape, self.vocabulary.end, np.int64)
        numbers[np.arange(mask.shape[1]) < sizes[:, None]] = self.vocabulary.encode_words(words)
        return np.where(mask, numbers, 0), mask

    @property
    def never_written(self) -> tuple[int, ...]:
        """The unknown symbol, which says nothing as an answer."""
        return (self.vocabulary.unknown,) if self.vocabulary.unknown >= 0 else ()

    @property
    def most_written(self) -> int:
        """Symbols of an answer, at most: half as many again as the longest target that was learned, and some."""
        return self.longest + self.longest // 2 + 10

    def numbers_of(self, text: str) -> np.ndarray:
        """The numbers (int64) of a text's symbols.

        Raises:
            DataError: a symbol is not in the vocabulary, and the unknown one is not either.
        """
        if self.units.kind == "characters":
            return self.vocabulary.encode_characters(text)
        return self.vocabulary.encode_words(pa.array(self.units.cut(text), pa.string()))

    def text_of(self, numbers: Iterable[int]) -> str:
        """The text that symbols make; END is silent."""
        return self.units.join([symbol for symbol in self.vocabulary.decode(numbers) if symbol != END])

    def appended(self, number: int) -> str:
        """What a symbol adds to a text that is written symbol by symbol; BEGIN and END add nothing."""
        symbol = self.vocabulary.symbols[number]
        return "" if symbol in (BEGIN, END) else self.units.append(symbol)

    def to_json(self) -> dict[str, Any]:
        values = {"kind": self.kind, "vocabulary": list(self.vocabulary.symbols), "units": self.units.kind}
        if self.units.model:
            values["pieces"] = base64.b64encode(self.units.model).decode()
        return values | ({"longest": self.longest} if self.longest else {})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Symbols":
        """Of a run that does not tell its units, the symbols say whether they are characters."""
        vocabulary = Vocabulary(tuple(values["vocabulary"]))
        kind = values.get("units") or ("characters" if vocabulary.of_characters else "words")
        model = base64.b64decode(values.get("pieces") or "")
        return cls(vocabulary, Units(kind, model), values.get("longest") or 0)


def column_of(rows: pa.Table, name: str) -> pa.Array:
    """
    Raises:
        DataError: the rows hold something else than what was learned.
    """
    if name not in rows.column_names:
        have = ", ".join(rows.column_names)
        raise DataError(f"the model learned sequences of {name}; these have no such column, only {have}")
    return flat(rows[name])
