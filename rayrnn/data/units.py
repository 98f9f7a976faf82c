"""What a text is cut into: its characters, its words, or pieces of words that are frequent in what is learned.

Pieces are found and cut by sentencepiece (byte pair encoding, Sennrich et al. 2016, arXiv:1508.07909), whose model is
kept with the run.
"""

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa
import sentencepiece

from rayrnn.data.vocabulary import END
from rayrnn.errors import DataError

#: a line end is a word of its own, so that a text of words has its lines
_WORD = re.compile(r"\n|[^\s]+")
#: stands for a blank in a piece
_BLANK = "\N{LOWER ONE EIGHTH BLOCK}"
#: lines from which pieces are found, and characters of one; sentencepiece counts bytes, of which one has four at most
MOST_LINES, MOST_CHARACTERS = 1_000_000, 4000


@dataclass(frozen=True)
class Units:
    """How a text becomes symbols, and symbols a text."""

    #: one of rayrnn.data.UNITS
    kind: str = "characters"
    #: sentencepiece's, of pieces; empty while they are to be found
    model: bytes = b""

    @property
    def are_found(self) -> bool:
        """Whether a text can be cut."""
        return self.kind != "pieces" or bool(self.model)

    def cut(self, text: str) -> list[str]:
        """The symbols of a text."""
        if self.kind == "characters":
            return list(text)
        if self.kind == "words":
            return _WORD.findall(text)
        return list(_processor(self.model).encode(text, out_type=str))

    def cut_all(self, texts: pa.Array) -> pa.ListArray:
        """The symbols of every text, null for a null: list<string> [N]."""
        cut = [None if text is None else self.cut(text) for text in texts.to_pylist()]
        return pa.array(cut, pa.list_(pa.string()))

    def join(self, symbols: Sequence[str]) -> str:
        """The text that symbols make; between words stands one blank, beside a line end none."""
        if self.kind == "characters":
            return "".join(symbols)
        if self.kind == "words":
            return " ".join(symbols).replace(" \n", "\n").replace("\n ", "\n")
        return "".join(symbols).replace(_BLANK, " ")

    def goes_on(self, text: str) -> str:
        """A text to which a symbol can be added: a word needs a blank before it."""
        return f"{text} " if self.kind == "words" and not text[-1:].isspace() else text

    def append(self, symbol: str) -> str:
        """What a symbol adds to a text that is written symbol by symbol."""
        if self.kind == "words":
            return symbol if symbol == "\n" else f"{symbol} "
        return self.join([symbol])


CHARACTERS, WORDS = Units(), Units("words")


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where every word of a text begins and ends."""
    return [found.span() for found in _WORD.finditer(text)]


def find_pieces(texts: Iterable[str], count: int, *, where: str) -> Units:
    """Find so many pieces that texts are made of; fewer where the texts do not have as many.

    Args:
        where: the key of the recipe that asks for them.

    Raises:
        DataError: the texts are too small, or hold nothing but blanks.
    """
    lines = (line[:MOST_CHARACTERS] for text in texts for line in text.split("\n") if line.strip())
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_writer=model,
            model_type="bpe",
            vocab_size=count,
            hard_vocab_limit=False,
            character_coverage=1.0,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            user_defined_symbols=["\n", END],
            input_sentence_size=MOST_LINES,
            max_sentence_length=4 * MOST_CHARACTERS,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise DataError(
            f"{count} pieces cannot be found in these texts ({where}): give more text, ask for another number of "
            f"pieces, or take words or characters. sentencepiece says: {error}"
        ) from None
    return Units("pieces", model.getvalue())


def check_pieces(model: bytes) -> None:
    """
    Raises:
        ValueError: it is no model of sentencepiece's.
    """
    try:
        _processor(model).encode("a b", out_type=str)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"pieces is no model of sentencepiece's: {error}") from None


@lru_cache(maxsize=8)
def _processor(model: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=model)
