"""Conditions of a recipe's `where` -> a filter of Arrow's, with values of the columns' own types."""

import datetime
import math
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from rayrnn.data.sources.tables import check_columns
from rayrnn.errors import DataError
from rayrnn.recipe.row_conditions import Cell, Comparison, Condition

_COMPARE = {
    **{"==": pc.equal, "!=": pc.not_equal, "<": pc.less, "<=": pc.less_equal},
    **{">": pc.greater, ">=": pc.greater_equal},
}


def columns_of(conditions: Sequence[Condition]) -> list[str]:
    """The columns that they look at, each once."""
    return list(dict.fromkeys(condition.column for condition in conditions))


def filter_of(conditions: Sequence[Condition], schema: pa.Schema) -> pc.Expression | None:
    """What is true of the rows that are kept; None keeps all. A row without a value is kept by == null alone.

    Raises:
        DataError: a column is not there, or cannot be compared with the value.
    """
    try:
        check_columns(schema, columns_of(conditions))
    except DataError as error:
        raise DataError(f"data.where: {error}") from None
    kept = None
    for condition in conditions:
        one = _holds(condition, schema.field(condition.column).type)
        kept = one if kept is None else kept & one
    return kept


def kept(rows: pa.Table, conditions: Sequence[Condition]) -> pa.Table:
    """The rows for which all conditions hold.

    Raises:
        DataError: as above.
    """
    condition = filter_of(conditions, rows.schema)
    return rows if condition is None else rows.filter(condition)


def with_variables(text: str, key: str, *, as_part: Callable[[str], str] | None = None) -> str:
    """The same text, with what the environment holds for every ${NAME}.

    Args:
        as_part: how that is written as a part of the text; without it as it is.

    Raises:
        DataError: it holds nothing of a name; tells `key`.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise DataError(f"{key} names the variable {found[1]}, which the environment does not have: set it")
        return os.environ[found[1]] if as_part is None else as_part(os.environ[found[1]])

    return re.sub(r"\$\{([^{}]*)\}", value, text)


class Meaning(NamedTuple):
    """A condition as it is asked of a column of one type."""

    comparison: Comparison
    #: of the column's type, one or for `in` and `not in` any number of them; None is no value
    values: list[pa.Scalar] | None


def meaning_of(condition: Condition, kind: pa.DataType) -> Meaning:
    """What a condition asks of a column of this type.

    Of whole numbers it is the nearest whole ones that the type has: no row is lost because a value is none of these.

    Raises:
        DataError: it has no such value.
    """
    comparison, value = condition.comparison, condition.value
    if value is None:
        return Meaning(comparison, None)
    plain = kind.value_type if kinds.is_dictionary(kind) else kind
    if kinds.is_null(plain):
        return _NO_ROW
    if kinds.is_float16(plain):
        plain = _COMPARED_HALF
    if not kinds.is_integer(plain):
        values = value if isinstance(value, tuple) else (value,)
        return Meaning(comparison, [_typed(one, condition, plain) for one in values])
    if isinstance(value, tuple):
        numbers = (_whole(one, condition, plain) for one in value)
        found = [pa.scalar(int(one), plain) for one in numbers if _is_in(one, plain)]
        return Meaning(comparison, found)
    return _of_whole_numbers(comparison, _whole(value, condition, plain), plain)


_NO_ROW = Meaning("in", [])
_EVERY_VALUE = Meaning("!=", None)
#: as what Arrow compares the halves that it does not
_COMPARED_HALF = pa.float32()


def _whole(value: Cell, condition: Condition, kind: pa.DataType) -> int | float:
    """The number that a condition compares whole numbers with, be it written as text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    for one in (kind, pa.float64()):
        with suppress(pa.ArrowInvalid):
            number: int | float = pa.scalar(str(value)).cast(one).as_py()
            return number
    raise _no_such_value(value, condition, kind)


def _range(kind: pa.DataType) -> tuple[int, int]:
    bits = kind.bit_width
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if kinds.is_signed_integer(kind) else (0, 2**bits - 1)


def _is_in(number: int | float, kind: pa.DataType) -> bool:
    lowest, highest = _range(kind)
    return lowest <= number <= highest and number == int(number)


def _of_whole_numbers(comparison: Comparison, number: int | float, kind: pa.DataType) -> Meaning:
    if comparison in ("==", "!=") or math.isnan(number):
        if _is_in(number, kind):
            return Meaning(comparison, [pa.scalar(int(number), kind)])
        return _EVERY_VALUE if comparison == "!=" else _NO_ROW
    if math.isinf(number):
        return _EVERY_VALUE if (number > 0) == comparison.startswith("<") else _NO_ROW
    lowest, highest = _range(kind)
    if comparison.startswith("<"):
        last = math.ceil(number) - 1 if comparison == "<" else math.floor(number)
        if last >= highest:
            return _EVERY_VALUE
        return _NO_ROW if last < lowest else Meaning("<=", [pa.scalar(last, kind)])
    first = math.floor(number) + 1 if comparison == ">" else math.ceil(number)
    if first <= lowest:
        return _EVERY_VALUE
    return _NO_ROW if first > highest else Meaning(">=", [pa.scalar(first, kind)])


def _holds(condition: Condition, kind: pa.DataType) -> pc.Expression:
    cells = pc.field(condition.column)
    comparison, values = meaning_of(condition, kind)
    if values is None:
        return cells.is_null() if comparison == "==" else cells.is_valid()
    if kinds.is_float16(kind):
        cells, kind = cells.cast(_COMPARED_HALF), _COMPARED_HALF
    if comparison in ("in", "not in"):
        plain = kind.value_type if kinds.is_dictionary(kind) else kind
        one_of = cells.isin(pa.array([value.as_py() for value in values], plain))
        return one_of if comparison == "in" else ~one_of & cells.is_valid()
    return _COMPARE[comparison](cells, values[0])


def _typed(value: Cell, condition: Condition, kind: pa.DataType) -> pa.Scalar:
    """The value as one of the column's type."""
    if kinds.is_floating(kind) and isinstance(value, int | float) and not isinstance(value, bool):
        return pa.scalar(_as_float(value), kind)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if kinds.is_time(kind) and isinstance(value, str) and (time := _as_time_of_day(text)) is not None:
        return time.cast(kind)
    for written in (text, f"{text}Z", f"{text}T00:00:00Z"):
        try:
            return pa.scalar(written).cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
    raise _no_such_value(value, condition, kind)


def _no_such_value(value: Cell, condition: Condition, kind: pa.DataType) -> DataError:
    return DataError(f"data.where: column {condition.column!r} holds {kind}, and {value!r} is none: {_due(kind)}")


def _as_float(number: int | float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _as_time_of_day(text: str) -> pa.Scalar | None:
    try:
        time = datetime.time.fromisoformat(text)
    except ValueError:
        return None
    return None if time.tzinfo else pa.scalar(time, pa.time64("us"))


def _due(kind: pa.DataType) -> str:
    """The end of a sentence about a value that a column of this type cannot have."""
    if kinds.is_timestamp(kind):
        zone = "a time" if kind.tz else "a time without a zone"
        return f"due is {zone}, such as 2024-01-31T09:05:00{'Z' if kind.tz else ''}"
    if kinds.is_decimal(kind):
        return f"due is a number with at most {kind.scale} digits behind the point"
    if kinds.is_integer(kind) or kinds.is_floating(kind):
        return "due is a number"
    told = {kinds.is_date: "a day, such as 2024-01-31", kinds.is_boolean: "true or false"}
    told |= {kinds.is_time: "a time of day in quotes, such as '09:05:00'"}
    found = next((due for is_such, due in told.items() if is_such(kind)), None)
    return f"due is {found}" if found else "only == null and != null are asked of such a column"
