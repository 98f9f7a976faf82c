"""Conditions on the rows of a table, as a recipe has them: [column, comparison, value]."""

import datetime
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import BeforeValidator

Comparison = Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in"]
Cell = bool | int | float | str


class Condition(NamedTuple):
    """What a row's cell has to be."""

    column: str
    comparison: Comparison
    #: for `in` and `not in` several; null, with == and !=, is no value
    value: Cell | tuple[Cell, ...] | None


_TRIPLE = 'a condition is [column, comparison, value], such as [day, ">=", 2024-01-31]'


def _conditions(value: object) -> object:
    """
    Raises:
        ValueError: it is no list of conditions.
    """
    if value is None or not isinstance(value, list | tuple):
        raise ValueError(f"due is a list of conditions; {_TRIPLE}")
    return [_condition(one) for one in value]


def _written(cell: object) -> object:
    """A date or a time of a program's as a recipe has it."""
    return cell.isoformat() if isinstance(cell, datetime.date) else cell


def _condition(value: object) -> tuple[object, ...]:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError(f"{value!r} is no condition: {_TRIPLE}")
    column, comparison, cell = value
    comparison = "==" if comparison == "=" else comparison
    if comparison not in get_args(Comparison):
        raise ValueError(f"{comparison!r} is no comparison; they are {', '.join(get_args(Comparison))}")
    several = comparison in ("in", "not in")
    if several != isinstance(cell, list | tuple):
        raise ValueError(f"{comparison!r} of {column!r} takes {'a list of values' if several else 'one value'}")
    if isinstance(cell, list | tuple) and (not cell or None in cell):
        raise ValueError(f"{comparison!r} of {column!r} takes at least one value, and no null")
    cell = [_written(one) for one in cell] if isinstance(cell, list | tuple) else _written(cell)
    cells = cell if isinstance(cell, list) else [] if cell is None else [cell]
    if not isinstance(column, str | int) or not all(isinstance(one, bool | int | float | str) for one in cells):
        raise ValueError(f"{list(value)!r}: the column is a name, and a value is a number, a text, or true or false")
    if cell is None and comparison not in ("==", "!="):
        raise ValueError(f"nothing is {comparison} null: only == and != take it")
    return column, comparison, tuple(cell) if isinstance(cell, list) else cell


Conditions = Annotated[tuple[Condition, ...], BeforeValidator(_conditions)]
