"""Plain text -> sequences of symbols, cut by Ray tasks that read many files each."""

import posixpath
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import ray
import ray.data

from rayrnn.data.contents import charset_of, no_text, way_to_utf8
from rayrnn.data.files import Listing, list_files, read_bytes
from rayrnn.data.sequences import beside, results
from rayrnn.data.sources.source import Wanted
from rayrnn.data.units import word_spans
from rayrnn.data.vocabulary import END
from rayrnn.errors import DataError
from rayrnn.recipe.text_sections import TextData
from rayrnn.wording import counted

#: where a text of pieces may be cut
_BLANK = re.compile(r"[ \n]")
#: bytes of text that one task reads, at least
TASK_BYTES = 16 * 2**20
#: tasks that share the reading of small files
FEWEST_TASKS = 16
#: bytes of one sequence, at most: Arrow counts those of a block of strings in 32 bits
MOST_BYTES = 2**31 - 2**27
#: symbols in one block, about
BLOCK_SYMBOLS = 16 * 2**20


class Symbols(NamedTuple):
    """How much text a task has seen."""

    files: int
    symbols: int
    #: those of the longest text
    longest: int


class Text:
    """Texts, cut into sequences of `data.length` steps."""

    section = TextData

    def read(self, data: TextData, wanted: Wanted) -> ray.data.Dataset:
        """Sequences in the order of the paths and of the text.

        Row i of a text holds its symbols [i * length, (i + 1) * length], both inclusive: length + 1 symbols, the first
        of which is the one before's last. With length 0 a text stays whole and gets an END symbol.

        Returns:
            rows of `key` ("path:i") and `text`.

        Raises:
            DataError: a file is missing, empty or not UTF-8, or there is less text than one sequence needs.
        """
        path = wanted.where or data.path
        if path is not None:
            counts, blocks = _read_files(list_files(path, endpoint=data.endpoint, say=wanted.say), data)
        else:
            text = _lines(str(data.text), data)
            counts, blocks = (
                [Symbols(1, len(text), len(text))],
                [ray.put(_table(cut("text", text, data.length, data.units)))],
            )
        _check_enough(counts, "data.text" if path is None else path, data.length)
        return ray.data.from_arrow_refs(blocks)


def cut(name: str, text: str, length: int, units: str = "characters") -> Iterator[tuple[str, str]]:
    """Yield the sequences of one text with their keys; a rest of one symbol, which has no step, is left out.

    Args:
        length: symbols; where these are pieces, which nobody knows yet, characters, and a sequence ends before a blank.

    Raises:
        DataError: one of them is longer than a sequence may be.
    """
    most = MOST_BYTES // (1 if text.isascii() else 4)
    if (longest := min(len(text), length or len(text))) >= most:
        raise DataError(
            f"{name} has {longest:,} symbols in one sequence, more than fit into one: set data.length to less than "
            f"{most:,}"
        )
    if length == 0:
        if text:
            yield f"{name}:0", text + (f" {END}" if units == "words" else END)
        return
    cuts = {"characters": _characters, "words": _words, "pieces": _at_blanks}[units]
    for number, sequence in enumerate(cuts(text, length)):
        yield f"{name}:{number}", sequence


def _characters(text: str, length: int) -> Iterator[str]:
    for start in range(0, len(text) - 1, length):
        yield text[start : start + length + 1]


def _words(text: str, length: int) -> Iterator[str]:
    spans = word_spans(text)
    for first in range(0, len(spans) - 1, length):
        yield text[spans[first][0] : spans[min(first + length, len(spans) - 1)][1]]


def _at_blanks(text: str, length: int) -> Iterator[str]:
    """At the first blank or line end from `length` characters on; where there is none, at twice as many."""
    start = 0
    while start < len(text):
        blank = _BLANK.search(text, start + length, start + 2 * length)
        end = blank.start() if blank else start + 2 * length
        yield text[start:end]
        start = end


def _read_files(listing: Listing, data: TextData) -> tuple[list[Symbols], list[ray.ObjectRef]]:
    """How much each task has seen, and all blocks, which depend on the files alone: a resumed run has the same."""
    shared = ray.put(listing)
    read_group = ray.remote(num_returns="streaming", **beside(listing.filesystem))(_read_group)
    tasks = [read_group.remote(shared, group, data) for group in listing.groups(TASK_BYTES, fewest=FEWEST_TASKS)]
    answers = [list(task) for task in tasks]
    counts = results([answer[-1] for answer in answers])
    return counts, [block for answer in answers for block in answer[:-1]]


def _read_group(listing: Listing, group: np.ndarray, data: TextData) -> Iterator[pa.Table | Symbols]:
    """The blocks of some files, then how much text was in them."""
    rows: list[tuple[str, str]] = []
    total = longest = pending = 0
    for number in group:
        text = _lines(_decode(read_bytes(listing, number), listing.names[number]), data)
        total, longest = total + len(text), max(longest, len(text))
        for row in cut(listing.names[number], text, data.length, data.units):
            rows.append(row)
            pending += len(row[1])
            if pending >= BLOCK_SYMBOLS:
                yield _table(rows)
                rows, pending = [], 0
    yield _table(rows)
    yield Symbols(len(group), total, longest)


def _lines(text: str, data: TextData) -> str:
    """The text as files of any system are learned: each line ends with one line feed."""
    if data.line_ends == "keep" or "\r" not in text:
        return text
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decode(content: bytes, name: str) -> str:
    pattern = "" if name.endswith(".txt") else f" with a pattern such as {posixpath.dirname(name) or '.'}/*.txt"
    leave_out = f"or leave it out of data.path{pattern}"
    if other := no_text(content, name):
        raise DataError(f"{other}, {leave_out}")
    charset = charset_of(content)
    try:
        text = content.decode("utf-8")
        if charset is None:
            return text.lstrip("\N{BYTE ORDER MARK}")
        seen = "every second byte is 0" if charset.startswith("UTF-16") else "it has bytes that are 0"
    except UnicodeDecodeError as error:
        seen = f"byte {error.start} is 0x{content[error.start]:02x}"
    raise DataError(f"{name} is not UTF-8: {seen}; {way_to_utf8(charset)}, {leave_out}")


def _table(rows: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> pa.Table:
    keys, texts = zip(*rows, strict=True) if (rows := list(rows)) else ((), ())
    return pa.table({"key": pa.array(keys, pa.string()), "text": pa.array(texts, pa.string())})


def _check_enough(counts: list[Symbols], where: str | tuple[str, ...], length: int) -> None:
    symbols, files = sum(count.symbols for count in counts), sum(count.files for count in counts)
    is_cut_to_nothing = length > 0 and files > 1 and max(count.longest for count in counts) == 1
    needed = length + 1 if length else 1
    if symbols >= needed and not is_cut_to_nothing:
        return
    origin = f"{where}" if files == 1 else f"{where} ({files:,} files)"
    if symbols == 0:
        raise DataError(f"{origin} is empty: there is no text to learn")
    if is_cut_to_nothing:
        raise DataError(
            f"{origin} has no file of more than 1 symbol, and each is cut by itself (data.length: {length}): set "
            "data.length to 0, which keeps every text whole, or put the texts into one file"
        )
    shorter = f", or set data.length to {max(2, symbols // 10)} (0 keeps a text whole)" if symbols > 2 else ""
    raise DataError(
        f"{origin} has {counted(symbols, 'symbol')}; one sequence with data.length {length} "
        f"needs {needed}: give more text{shorter}"
    )
