"""What the parts of a table hold: that they are alike, and as what a column is read that they keep in several types."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.types as kinds

from rayrnn.data.arrow_lists import depth, flat
from rayrnn.data.sources.grouping import Grouping, is_number
from rayrnn.data.sources.step_order import is_ordered, is_text
from rayrnn.data.sources.tables import check_columns
from rayrnn.data.words import texts_of
from rayrnn.errors import DataError
from rayrnn.wording import counted, listed

#: a decimal has room for every 64-bit integer with so many digits, and these are the most that it can have
_WHOLE_DIGITS, _MOST_DIGITS = 20, 76


class Parts(NamedTuple):
    """The schemas of a table's parts, at least one."""

    #: what messages call each
    names: Sequence[str]
    schemas: Sequence[pa.Schema]
    #: of what the schemas are: files, or rows
    parted: str

    def having(self, column: str) -> str | None:
        """The first part with this column."""
        found = (name for name, schema in zip(self.names, self.schemas, strict=True) if column in schema.names)
        return next(found, None)


class Common(NamedTuple):
    """As what the columns are read that parts keep in several types."""

    #: a column of names, categories or classes: as text
    words: tuple[str, ...] = ()
    #: the column of places in the order, and its type
    order_by: str = ""
    order: pa.DataType | None = None
    #: the part that made it floating-point
    floating: str = ""


def known_schema(parts: Parts) -> pa.Schema:
    """The first schema; of a column that is empty there the type that it has elsewhere."""
    first = parts.schemas[0]
    for place, column in enumerate(first):
        if kinds.is_null(column.type) and first.names.count(column.name) == 1:
            kind = next(iter(_kinds(parts, column.name)), column.type)
            first = first.set(place, column.with_type(kind))
    return first


def check_named(parts: Parts, columns: Iterable[str]) -> None:
    """Raise a DataError where a column is missing in the first part, and another has it."""
    for name in columns:
        if name not in parts.schemas[0].names and (other := parts.having(name)) is not None:
            raise DataError(
                f"{parts.names[0]}: there is no column {name!r}, and {other} has it: all {parts.parted} must be alike"
            )


def say_unread(parts: Parts, asked: Iterable[str], say: Callable[[str], None]) -> None:
    """Tell of columns that only later parts have, where those of the first are learned; not of those that are asked."""
    known = {*parts.schemas[0].names, *asked}
    later = dict.fromkeys(name for schema in parts.schemas for name in schema.names if name not in known)
    if later:
        names = list(later)
        say(
            f"{parts.having(names[0])} has {counted(len(names), 'column')} that {parts.names[0]} has not: "
            f"{listed(names)}; only what all {parts.parted} have is learned"
        )


def check_alike(parts: Parts, columns: Sequence[str], numbers: Sequence[str] = ()) -> None:
    """Raise a DataError where a part lacks a column, or holds something else in it than the first.

    Args:
        numbers: columns of which any kind of number is the same.
    """
    for origin, schema in zip(parts.names, parts.schemas, strict=True):
        try:
            check_columns(schema, columns)
        except DataError as error:
            raise DataError(f"{origin}: {error}") from None
        for name in columns:
            here, first = schema.field(name).type, parts.schemas[0].field(name).type
            natures = {_nature(kind, is_feature=name in numbers) for kind in (here, first) if not kinds.is_null(kind)}
            if len(natures) > 1:
                raise DataError(
                    f"{origin}: column {name!r} holds {here}, in {parts.names[0]} it holds {first}: all {parts.parted} "
                    "must be alike"
                )


def common_types(parts: Parts, grouping: Grouping) -> Common:
    """As what those columns are read that the parts, which are alike, keep in several types.

    Raises:
        DataError: some are ordered by a dictionary, and others by their text.
    """
    classes = grouping.roles.labels if grouping.roles.target.needs.of_classes else ()
    words = [name for name in (grouping.key, *grouping.roles.words, *classes) if len(_kinds(parts, name)) > 1]
    places = _kinds(parts, grouping.order_by)
    if len(places) == 1:
        return Common(tuple(words))
    if not all(map(is_number, places)):
        return Common(tuple(words), grouping.order_by, _common_text(parts, grouping.order_by))
    order = _common_number(places)
    floating = next((kind for kind in places if kinds.is_floating(kind)), None)
    return Common(tuple(words), grouping.order_by, order, _holding(parts, grouping.order_by, floating))


def in_common(rows: pa.Table, origin: str, common: Common) -> pa.Table:
    """Rows of a part, with the types that all parts have in common.

    Raises:
        DataError: it has places in the order that are one in the common type; names `origin`.
    """
    for name in common.words:
        rows = rows.set_column(rows.column_names.index(name), name, texts_of(flat(rows[name])))
    if common.order is None:
        return rows
    cells = flat(rows[common.order_by])
    try:
        # of a decimal the nearest: their order stays as it is, and two that become one are told
        cells = cells.cast(common.order, safe=not kinds.is_decimal(cells.type))
    except pa.ArrowInvalid:
        raise DataError(
            f"{origin}: column {common.order_by!r} (data.order_by) holds {cells.type} beyond 2**53, and "
            f"{common.floating} has it as floating-point numbers, which do not tell those apart: write it everywhere "
            "as whole numbers"
        ) from None
    return rows.set_column(rows.column_names.index(common.order_by), common.order_by, cells)


def _kinds(parts: Parts, column: str) -> list[pa.DataType]:
    """The types that a column has, each once; null is none, where there are others."""
    found = (schema.field(column).type for schema in parts.schemas if schema.names.count(column) == 1)
    types = list(dict.fromkeys(found))
    return [kind for kind in types if not kinds.is_null(kind)] or types[:1]


def _holding(parts: Parts, column: str, kind: pa.DataType | None) -> str:
    found = (name for name, schema in zip(parts.names, parts.schemas, strict=True) if schema.field(column).type == kind)
    return next(found, "")


def _common_text(parts: Parts, column: str) -> pa.DataType | None:
    """For places that are text, in dictionaries or not."""
    types = _kinds(parts, column)
    ordered, others = [kind for kind in types if is_ordered(kind)], [kind for kind in types if not is_ordered(kind)]
    if ordered and others:
        raise DataError(
            f"{_holding(parts, column, ordered[0])}: column {column!r} (data.order_by) has an ordered dictionary, and "
            f"none in {_holding(parts, column, others[0])}: all {parts.parted} must be alike"
        )
    plain = [kind.value_type if kinds.is_dictionary(kind) else kind for kind in others]
    return pa.large_string() if plain and all(map(is_text, plain)) else None


def _common_number(types: Sequence[pa.DataType]) -> pa.DataType:
    """A type that keeps whole numbers and decimals apart from one another as they are; floating-point where one is."""
    if any(map(kinds.is_floating, types)):
        return pa.float64()
    if all(map(kinds.is_integer, types)) and not any(map(kinds.is_uint64, types)):
        return pa.int64()
    decimals = [kind for kind in types if kinds.is_decimal(kind)]
    scale = max((kind.scale for kind in decimals), default=0)
    digits = max([_WHOLE_DIGITS, *(kind.precision - kind.scale for kind in decimals)]) + max(0, scale)
    return pa.decimal256(digits, max(0, scale)) if digits <= _MOST_DIGITS else pa.float64()


def _nature(kind: pa.DataType, *, is_feature: bool) -> tuple[int, str]:
    """What parts may not differ in: how lists are nested, and what the innermost values are."""
    levels = depth(kind)
    for _ in range(levels):
        kind = kind.value_type
    if is_number(kind):
        return levels, "boolean" if kinds.is_boolean(kind) and not is_feature else "number"
    kind = kind.value_type if kinds.is_dictionary(kind) else kind
    return levels, "string" if kinds.is_large_string(kind) else str(kind)
