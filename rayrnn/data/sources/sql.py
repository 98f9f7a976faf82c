"""What a database answers to a query -> sequences: any database that SQLAlchemy speaks to."""

import datetime
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pyarrow as pa
import ray
import ray.data
import sqlalchemy
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError

from rayrnn.data.files import open_file_system
from rayrnn.data.sequences import beside, streamed
from rayrnn.data.sources.any_table import sequences_of_blocks
from rayrnn.data.sources.conditions import columns_of, kept, with_variables
from rayrnn.data.sources.source import Wanted
from rayrnn.data.sources.tables import check_columns
from rayrnn.errors import DataError, UsageError
from rayrnn.recipe.row_conditions import Condition
from rayrnn.recipe.table_sections import SqlData

#: of an answer, that travel together
ROWS = 50_000
_SQLITE = "sqlite"
#: SQLite's whole numbers are smaller
_SQLITE_WHOLE = 2**63
#: what cannot hold a parameter, and what may be one
_NO_PARAMETERS = re.compile(r"'[^']*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/|::", re.DOTALL)
_PARAMETER = re.compile(r"\?\d*|[:@$]\w+")


class Sql:
    """A query, whose answer's rows are sequences or steps."""

    section = SqlData

    def read(self, data: SqlData, wanted: Wanted) -> ray.data.Dataset:
        """The sequences of a section, read by one task beside the driver. Nothing that a query does is kept.

        Raises:
            DataError: the database does not answer, or not to this query, or a column is missing or does not fit.
            UsageError: there is no driver for this database.
        """
        query = (wanted.where or data.query).strip().rstrip(";")
        address = _address(data)
        conditions = list(data.conditions(wanted.where))
        if address.get_backend_name() == _SQLITE:
            conditions = list(map(_without_booleans, conditions))
        columns = _used(data, wanted, _names(address, query, conditions))
        look = ray.remote(num_returns="streaming", **beside(open_file_system("/")[0]))(_rows)
        in_order = data.order_by is None and data.key is None
        blocks = streamed(look.remote(address, query, columns, conditions, None if in_order else data.key))
        if not blocks:
            raise DataError("the query gives no rows" + (": data.where keeps none" if conditions else ""))
        return sequences_of_blocks(blocks, data, wanted)


def _address(data: SqlData) -> sqlalchemy.URL:
    """The database's address, with the secret that it names.

    Raises:
        DataError: it is none, or names a file that is not there.
        UsageError: there is no driver for it.
    """
    try:
        whole = re.fullmatch(r"\$\{[^{}]*\}", data.connection) is not None
        written = with_variables(data.connection, "data.connection", as_part=None if whole else quote_plus)
        address = sqlalchemy.make_url(written)
        sqlalchemy.create_engine(address)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"data.connection is {data.connection}, and its driver {error.name} is not installed here: "
            f"pip install {error.name}"
        ) from None
    except (SQLAlchemyError, ValueError) as error:
        known = "no database that SQLAlchemy knows" if isinstance(error, NoSuchModuleError) else str(error)
        raise DataError(
            f"data.connection is {data.connection}, {known}: an address such as sqlite:///plant.db is due"
        ) from None
    if address.get_backend_name() != _SQLITE:
        return address
    place = Path(address.database or "")
    if not place.is_file():
        raise DataError(f"data.connection is {data.connection}, and there is no file {place}")
    # the task that reads has another directory; and SQLite would make a file that is not there
    return address.set(database=f"file:{quote(str(place.absolute()))}", query={"mode": "ro", "uri": "true"})


def _names(address: sqlalchemy.URL, query: str, conditions: Sequence[Condition]) -> list[str]:
    """The columns of the answer, of which not a row is asked for."""
    nothing = sqlalchemy.select(sqlalchemy.text("*")).select_from(_subquery(query)).where(sqlalchemy.false())
    with _asked(address) as connection:
        names = list(_answer(connection, nothing, query).keys())
    if not names:
        raise DataError(f"data.query gives no rows: due is a SELECT, and it is {query}")
    # inside of another query a database may call two columns of one name otherwise
    with _asked(address) as connection, _answer(connection, sqlalchemy.text(_literally(query)), query) as answer:
        times = Counter(answer.keys())
    for name in (name for name in times if times[name] > 1):
        raise DataError(
            f"data.query gives {times[name]} columns {name!r}: name the columns that are to be read, each once (SELECT "
            f"one.{name}, other.{name} AS other_{name}, ...)"
        )
    check_columns(pa.schema([(name, pa.null()) for name in names]), columns_of(conditions))
    return names


def _used(data: SqlData, wanted: Wanted, names: Sequence[str]) -> list[str]:
    """Of the columns of the answer those that are used; all that are named have to be there."""
    named = data.named_columns(labelled=wanted.labelled, weighed=wanted.weighed)
    check_columns(pa.schema([(name, pa.null()) for name in names]), sorted(named))
    if data.order_by is None or data.features is not None:
        return [name for name in names if name in named]
    return [name for name in names if name not in data.ignore or name in named]


def _rows(
    address: sqlalchemy.URL, query: str, columns: list[str], conditions: Sequence[Condition], key: str | None
) -> Iterator[pa.Table]:
    """The rows of the answer: in the order of `key`, or without one in the query's own."""
    is_sqlite = address.get_backend_name() == _SQLITE
    if key is None:
        asked: Any = sqlalchemy.text(_literally(query))
    else:
        used = [*columns, *(columns_of(conditions) if is_sqlite else ())]
        asked = sqlalchemy.select(*map(sqlalchemy.column, dict.fromkeys(used))).select_from(_subquery(query))
        asked = asked.where(*map(_may_hold if is_sqlite else _holds, conditions)).order_by(sqlalchemy.column(key))
    with _asked(address) as connection:
        for rows in _parts(_answer(connection, asked, query)):
            if len(found := kept(rows, conditions).select(columns) if key is None or is_sqlite else rows):
                yield found


def _subquery(query: str) -> Any:
    return sqlalchemy.text(f"({_literally(query)}\n) AS answer")  # a comment at its end ends with the line


def _literally(query: str) -> str:
    """The query, of whose colons none begins a parameter."""
    return query.replace(":", "\\:")


def _without_booleans(condition: Condition) -> Condition:
    """With numbers for true and false, as SQLite has them."""
    value = condition.value
    if isinstance(value, tuple):
        return condition._replace(value=tuple(int(one) if isinstance(one, bool) else one for one in value))
    return condition._replace(value=int(value)) if isinstance(value, bool) else condition


def _may_hold(condition: Condition) -> Any:
    """What SQLite can say of a condition before it is seen to.

    It takes any text for more than any number, where a column has no type of its own; elsewhere '3' is a number. So it
    leaves out only cells of the value's own kind.
    """
    values = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    if condition.value is None:
        return _holds(condition)
    kind = sqlalchemy.func.typeof(sqlalchemy.column(condition.column))
    if all(isinstance(value, str) for value in values):
        return _holds(condition) | kind.not_in(["text", "null"])
    if all(isinstance(value, int | float) and abs(value) < _SQLITE_WHOLE for value in values):
        return _holds(condition) | kind.not_in(["integer", "real", "null"])
    return sqlalchemy.true()


def _holds(condition: Condition) -> Any:
    column: Any = sqlalchemy.column(condition.column)
    comparison, value = condition.comparison, condition.value
    if value is None:
        return column.is_(None) if comparison == "==" else column.is_not(None)
    if isinstance(value, tuple):
        values = [_bound(one) for one in value]
        return column.in_(values) if comparison == "in" else column.not_in(values)
    operator = {"==": "=", "!=": "<>"}.get(comparison, comparison)
    return column.op(operator, is_comparison=True)(_bound(value))


def _bound(value: object) -> Any:
    # without a type, which the database would take for another than the column's
    return sqlalchemy.literal(value, sqlalchemy.types.NullType())


def _asked(address: sqlalchemy.URL) -> sqlalchemy.Connection:
    engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool)
    try:
        return engine.connect().execution_options(stream_results=True)
    except SQLAlchemyError as error:
        raise DataError(f"the database {address} does not answer: {_told(error)}") from None


def _answer(connection: sqlalchemy.Connection, asked: Any, query: str) -> sqlalchemy.CursorResult[Any]:
    try:
        return connection.execute(asked)
    except (SQLAlchemyError, ValueError) as error:
        found = _PARAMETER.search(_NO_PARAMETERS.sub(" ", query))
        advice = f"; a query takes no parameters, such as {found[0]} seems to be: write the value" if found else ""
        raise DataError(f"the database cannot answer data.query: {_told(error).rstrip('.')}{advice}") from None


def _parts(answer: sqlalchemy.CursorResult[Any]) -> Iterator[pa.Table]:
    names = list(answer.keys())
    try:
        for rows in answer.partitions(ROWS):
            columns = zip(*rows, strict=True)
            cells = [_cells(name, list(values)) for name, values in zip(names, columns, strict=True)]
            yield pa.Table.from_arrays(cells, names=names)
    except (SQLAlchemyError, ValueError) as error:
        raise DataError(f"the database cannot answer data.query to its end: {_told(error)}") from None


def _cells(name: str, values: list[Any]) -> pa.Array:
    try:
        return pa.array([_plain(value) for value in values])
    except (pa.ArrowException, OverflowError) as error:
        kinds = sorted({type(value).__name__ for value in values if value is not None})
        raise DataError(
            f"column {name!r} of the answer holds {' and '.join(kinds)}: CAST it to one type in data.query ({error})"
        ) from None


def _plain(value: Any) -> Any:
    """A value of the database's own class, such as a UUID, as text."""
    known = (str, int, float, bytes, list, dict, datetime.date, datetime.time, datetime.timedelta)
    return value if value is None or isinstance(value, known) or hasattr(value, "as_tuple") else str(value)


def _told(error: Exception) -> str:
    return " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())
