"""Cells as words: without the blanks around them, and null where they hold no value."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from rayrnn.data.arrow_lists import depth, flat, unwrap, wrap

#: of a whole number that a decimal of Arrow's has room for
_MOST_DIGITS = 38


def words(cells: pa.Array, missing: Sequence[str] = ()) -> pa.Array:
    """Cells of any type -> strings. Null, NaN, nothing but blanks, and the words `missing` are null.

    Whole numbers are their digits, also where a table keeps them as 1.0 or 1.00.

    Raises:
        pa.ArrowInvalid: they cannot be words.
    """
    texts = pc.utf8_trim_whitespace(texts_of(cells))
    absent = pc.is_in(texts, value_set=pa.array(["", *missing], pa.string()))
    return pc.if_else(absent, pa.scalar(None, pa.string()), texts)


def texts_of(cells: pa.Array) -> pa.Array:
    """Cells of any type -> strings with their blanks; null, NaN and the empty text are null."""
    if kinds.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    if isinstance(cells.type, pa.UuidType):
        cells = flat(cells)
    if kinds.is_floating(cells.type) or kinds.is_decimal(cells.type):
        return _texts_of_numbers(cells)
    texts = cells.cast(pa.string())
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def _texts_of_numbers(cells: pa.Array) -> pa.Array:
    """One spelling of a number, in whatever type it is kept: digits where it is whole."""
    if kinds.is_floating(cells.type):
        cells = cells.cast(pa.float64())
        cells = pc.if_else(pc.is_nan(cells), pa.scalar(None, cells.type), cells)
        digits, texts = pa.decimal128(_MOST_DIGITS, 0), cells.cast(pa.string())
        is_whole = pc.and_(pc.equal(pc.trunc(cells), cells), pc.less(pc.abs(cells), 10.0**_MOST_DIGITS))
    else:
        digits = pa.decimal256(2 * _MOST_DIGITS, 0)
        cells = cells.cast(pa.decimal256(2 * _MOST_DIGITS, max(0, cells.type.scale)))
        texts = pc.replace_substring_regex(cells.cast(pa.string()), r"(\.\d*[1-9])0+$", r"\1")
        is_whole = pc.equal(pc.trunc(cells), cells)
    whole = pc.if_else(is_whole, cells, pa.scalar(None, cells.type)).cast(digits)
    return pc.coalesce(whole.cast(pa.string()), texts)


def can_be_words(kind: pa.DataType) -> bool:
    """Whether cells of this type can be strings: no structs, no lists."""
    try:
        texts_of(pa.nulls(0, kind))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return False
    return True


def present(cells: pa.Array, missing: Sequence[str]) -> pa.Array:
    """Cells, or lists of them, as they are; but words without blanks around and null where they hold no value."""
    if depth(cells.type) == 1 and _are_words(cells.type.value_type):
        sizes, items = unwrap(cells)
        return pc.if_else(cells.is_valid(), wrap(words(items, missing), sizes), pa.scalar(None, pa.list_(pa.string())))
    if _are_words(cells.type):
        return words(cells, missing)
    if numbers := missing_numbers(missing):
        return _without(cells, numbers)
    return cells


def missing_numbers(missing: Sequence[str]) -> list[float]:
    """Those of the words that are numbers: such as -999, for a column of numbers."""
    numbers = []
    for word in missing:
        if "_" in word or not word.isascii():  # which Python alone takes for numbers
            continue
        try:
            numbers.append(float(word))
        except ValueError:
            continue
    return numbers


def _are_words(kind: pa.DataType) -> bool:
    kind = kind.value_type if kinds.is_dictionary(kind) else kind
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind))


def _without(cells: pa.Array, numbers: Sequence[float]) -> pa.Array:
    if not (kinds.is_integer(cells.type) or kinds.is_floating(cells.type)):
        return cells
    absent = pc.is_in(cells.cast(pa.float64(), safe=False), value_set=pa.array(numbers, pa.float64()))
    return pc.if_else(absent, pa.scalar(None, cells.type), cells)
