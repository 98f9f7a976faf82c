"""The place of a step in its sequence, where text says it: only text whose order is surely the meant one says it.

Numbers count as numbers, times of ISO 8601 as times. Of other text only kinds that cannot sort wrongly have a form: the
year first and all parts of one length, times of day, and names whose last digits count, such as t01, t02, t10.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from rayrnn.data.sources.labels import Faults, first_faults
from rayrnn.data.words import words
from rayrnn.errors import DataError
from rayrnn.wording import listed

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_MONTH, _DAY = "(0[1-9]|1[0-2])", r"(0[1-9]|[12]\d|3[01])"
_CLOCK = r"([01]\d|2[0-3])(:[0-5]\d(:[0-5]\d(\.\d{1,9})?)?)?"
_TIME = rf"\d{{4}}-{_MONTH}-{_DAY}([T ]{_CLOCK})?"
_ZONE = r" ?(Z|UTC|GMT|[+-]\d{2}(:?\d{2})?)"
#: text that is in order where all of it is written alike: years first, or hours
_BY_TEXT = "|".join(
    (
        rf"\d{{4}}[/._]{_MONTH}[/._]{_DAY}([T ]{_CLOCK})?",
        rf"\d{{4}}[-/_]{_MONTH}",
        r"\d{4}-?W\d{2}(-?[1-7])?",
        r"\d{4}[-_ ]?Q[1-4]",
        r"\d{4}-\d{3}",
        rf"(19|20)\d{{2}}{_MONTH}{_DAY}[T _-]\d{{4}}(\d{{2}})?Z?",
        r"T?\d{2}:[0-5]\d(:[0-5]\d([.,]\d+)?)?Z?",
    )
)
#: the last digits count, perhaps before the ending of a file's name
_COUNTER = r"^(?P<name>[^0-9]*|[\pL_]\S*[^\s0-9])(?P<digits>[0-9]+)(?P<ending>\.[a-z]{3,4})?$"
#: may be steps before another, which count down: t-02
_BACKWARDS = r"^\pL? ?[-\x{2212}\x{2013}]"
_ADVICE = (
    "make it a number, a date or a time, or text of one form, as ISO 8601 writes times (2024-01-31T09:05:00) or with "
    "digits of one length (t01, t10), or give another column"
)


class _Read(NamedTuple):
    """Texts as places: two of one form are in the order of their ranks, others in none."""

    #: int64; below 0 where the text has none
    forms: np.ndarray
    #: int64
    ranks: np.ndarray


def order_of(cells: pa.Array, missing: Sequence[str]) -> pa.Array:
    """What steps are sorted by: the cells, or where they are text a number for each; null where there is no value.

    A dictionary that is ordered says itself which word comes first.
    """
    if is_ordered(cells.type):
        absent = pc.or_(cells.is_null(), words(cells, missing).is_null())
        return pc.if_else(absent, pa.scalar(None, cells.indices.type), cells.indices)
    if kinds.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    if kinds.is_null(cells.type):
        return cells.cast(pa.int64())
    if kinds.is_float16(cells.type):
        return cells.cast(pa.float32())  # Arrow sorts and compares no halves
    if not is_text(cells.type):
        return cells
    texts = words(cells, missing)
    return pa.array(_read(texts).ranks, mask=np.asarray(texts.is_null()))


def is_text(kind: pa.DataType) -> bool:
    """Whether such cells are text."""
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind))


def is_ordered(kind: pa.DataType) -> bool:
    """Whether such cells are of a dictionary whose words are in order, as an ordered Categorical of pandas is."""
    return bool(kinds.is_dictionary(kind) and kind.ordered)


def check_dictionaries(cells: pa.ChunkedArray, name: str) -> None:
    """Raise a DataError where pieces of column `name` are ordered by dictionaries that differ: by which is unknown."""
    ordered = [chunk.dictionary for chunk in cells.chunks if is_ordered(chunk.type)]
    for other in ordered[1:]:
        if not other.equals(ordered[0]):
            one, two = (listed([str(word) for word in words.to_pylist()]) for words in (ordered[0], other))
            raise DataError(
                f"column {name!r} (data.order_by) is ordered by the words {one} and elsewhere by {two}: write all "
                "files with the same ordered dictionary, or give another column"
            )


def misleading(cells: pa.Array, offsets: np.ndarray, name: str, missing: Sequence[str]) -> Faults:
    """Sequences whose steps, sorted by `order_of`, may be in another order than is meant: it was text that says so.

    Args:
        cells: of column `name`, sequence after sequence, each in order.
        offsets: int64 [N + 1]; sequence n owns the steps offsets[n] .. offsets[n + 1].
    """
    if is_ordered(cells.type):
        return {}
    if kinds.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    if not is_text(cells.type):
        return {}
    texts = words(cells, missing)
    forms = _read(texts).forms
    there = np.flatnonzero(texts.is_valid())
    owners = np.searchsorted(offsets, there, side="right") - 1
    _, firsts, own, sizes = np.unique(owners, return_index=True, return_inverse=True, return_counts=True)
    bad = (sizes[own] > 1) & ((forms[there] < 0) | (forms[there] != forms[there[firsts]][own]))
    places = np.flatnonzero(bad)[np.unique(owners[bad], return_index=True)[1]]

    def reasons() -> Iterator[str]:
        for place in places:
            first = firsts[own[place]]
            one, other = texts[int(there[first])], texts[int(there[place if place > first else place + 1])]
            formless = forms[there[place]] < 0
            why = "whose order as text may not be the one that is meant" if formless else "which are of two forms"
            yield f"column {name!r} (data.order_by) is text, {str(one)!r} and {str(other)!r}, {why}: {_ADVICE}"

    return first_faults(there[places], offsets, reasons())


def _read(texts: pa.Array) -> _Read:
    texts = texts.fill_null("")
    forms, ranks = np.full(len(texts), -1), np.zeros(len(texts), np.int64)
    rest = np.arange(len(texts))
    for form, (pattern, read) in enumerate(_VALUES):
        is_such = _matches(texts.take(pa.array(rest)), pattern)
        if is_such.any():
            values, is_value = read(texts.take(pa.array(rest[is_such])))
            ranks[rest[is_such]] = values
            forms[rest[is_such]] = np.where(is_value, form, -1)
            rest = rest[~is_such]
    if len(rest):
        written = texts.take(pa.array(rest))
        ranks[rest] = np.asarray(pc.rank(written, tiebreaker="dense"))
        forms[rest] = _forms_of_text(written)
    return _Read(forms, ranks)


def _forms_of_text(texts: pa.Array) -> np.ndarray:
    """A number for each form, by what texts of it have in common; below 0 where their order as text means nothing."""
    nothing = pa.scalar(None, pa.string())
    alike = pc.replace_substring_regex(texts, r"(:\d{2})[.,]\d+", r"\1")
    alike = pc.replace_substring_regex(alike, r"\d", "0")
    counter = pc.extract_regex(texts, _COUNTER)
    name, digits, ending = (pc.struct_field(counter, [place]) for place in range(3))
    zeros = pc.replace_substring_regex(digits, "[0-9]", "0")
    counting = pc.binary_join_element_wise(name, zeros, ending, "#")
    counting = pc.if_else(pc.match_substring_regex(texts, _BACKWARDS), nothing, counting)
    forms = pc.if_else(pc.match_substring_regex(texts, f"^({_BY_TEXT})$"), alike, counting)
    codes = np.asarray(forms.dictionary_encode().indices.fill_null(-1), np.int64)
    return np.where(codes < 0, -1, codes + len(_VALUES))


def _matches(texts: pa.Array, pattern: str) -> np.ndarray:
    return np.asarray(pc.match_substring_regex(texts, pattern))


def _numbers(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Their ranks, and that each is a number."""
    plain = pc.replace_substring_regex(texts, r"^\+", "")
    try:
        values = np.asarray(plain.cast(pa.int64()))
    except pa.ArrowInvalid:
        values = np.asarray(plain.cast(pa.float64()))
    return np.unique(values, return_inverse=True)[1], np.full(len(texts), True)


def _instants(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The ranks of times of ISO 8601, to the nanosecond, and which are times: no 30th of February."""
    nanoseconds = np.zeros(len(texts), np.int64)
    if pc.any(pc.match_substring(texts, ".")).as_py():
        fractions = pc.struct_field(pc.extract_regex(texts, r"\.(?P<digits>\d+)"), [0]).fill_null("0")
        nanoseconds = np.asarray(pc.utf8_rpad(fractions, 9, "0").cast(pa.int64()))
        texts = pc.replace_substring_regex(texts, r"\.\d+", "")
    seconds = _seconds(texts)
    ranks = np.unique(np.asarray(seconds.fill_null(0)), return_inverse=True)[1]
    return ranks * 10**9 + nanoseconds, np.asarray(seconds.is_valid())


def _instants_with_zone(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    plain = pc.replace_substring_regex(texts, " ?(Z|UTC|GMT)$", "Z")
    return _instants(pc.replace_substring_regex(plain, r" ([+-])", r"\1"))


def _seconds(texts: pa.Array) -> pa.Array:
    """Times, all with a zone or all without, as whole numbers; null where there is no such time."""
    for zone in (None, "UTC"):
        try:
            return texts.cast(pa.timestamp("s", zone)).cast(pa.int64())
        except pa.ArrowInvalid:
            continue
    if len(texts) == 1:
        return pa.nulls(1, pa.int64())
    half = len(texts) // 2
    return pa.concat_arrays([_seconds(texts[:half]), _seconds(texts[half:])])


#: forms whose texts are values: how they are written, and what tells their ranks and which are values indeed
_VALUES = ((_NUMBER, _numbers), (f"^{_TIME}$", _instants), (f"^{_TIME}{_ZONE}$", _instants_with_zone))
