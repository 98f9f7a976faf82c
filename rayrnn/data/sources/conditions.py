"""Conditions of a recipe's `where` -> a filter of Arrow's, with values of the columns' own types."""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from rayrnn.data.sources.tables import check_columns
from rayrnn.errors import DataError
from rayrnn.recipe.row_conditions import Cell, Condition

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


def typed(condition: Condition, kind: pa.DataType) -> list[Any]:
    """The condition's values, as the column's type has them in Python.

    Raises:
        DataError: it has no such value.
    """
    values = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    return [_typed(value, condition, kind).as_py() for value in values if value is not None]


def _holds(condition: Condition, kind: pa.DataType) -> pc.Expression:
    column, comparison, value = condition
    cells = pc.field(column)
    if value is None:
        return cells.is_null() if comparison == "==" else cells.is_valid()
    if isinstance(value, tuple):
        one_of = cells.isin(_alike(typed(condition, kind), kind))
        return one_of if comparison == "in" else ~one_of & cells.is_valid()
    return _COMPARE[comparison](cells, _typed(value, condition, kind))


def _alike(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    plain = kind.value_type if kinds.is_dictionary(kind) else kind
    try:
        return pa.array(values, plain)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array(values)


def _typed(value: Cell, condition: Condition, kind: pa.DataType) -> pa.Scalar:
    """The value as one of the column's type; of a number any kind of number."""
    plain = kind.value_type if kinds.is_dictionary(kind) else kind
    if not isinstance(value, bool | str) and (kinds.is_integer(plain) or kinds.is_floating(plain)):
        return pa.scalar(int(value) if kinds.is_integer(plain) and value == int(value) else value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    for written in (text, f"{text}Z", f"{text}T00:00:00Z"):
        try:
            return pa.scalar(written).cast(plain)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
    raise DataError(f"data.where: column {condition.column!r} holds {kind}, and {value!r} is none")
