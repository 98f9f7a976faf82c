"""What a database answers to a query -> sequences: any database that SQLAlchemy speaks to."""

import datetime
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

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
        conditions, address = data.conditions(wanted.where), _address(data)
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
    if address.get_backend_name() != "sqlite":
        return address
    place = Path(address.database or "")
    if not place.is_file():
        raise DataError(f"data.connection is {data.connection}, and there is no file {place}")
    # the task that reads has another directory; and SQLite would make a file that is not there
    return address.set(database=f"file:{place.absolute()}", query={"mode": "ro", "uri": "true"})


def _names(address: sqlalchemy.URL, query: str, conditions: Sequence[Condition]) -> list[str]:
    """The columns of the answer, of which not a row is asked for."""
    nothing = sqlalchemy.select(sqlalchemy.text("*")).select_from(_subquery(query)).where(sqlalchemy.false())
    with _asked(address) as connection:
        names = list(_answer(connection, nothing).keys())
    if not names:
        raise DataError(f"data.query gives no rows: due is a SELECT, and it is {query}")
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
    if key is None:
        asked: Any = sqlalchemy.text(_literally(query))
    else:
        asked = sqlalchemy.select(*map(sqlalchemy.column, columns)).select_from(_subquery(query))
        asked = asked.where(*map(_holds, conditions)).order_by(sqlalchemy.column(key))
    with _asked(address) as connection:
        for rows in _parts(_answer(connection, asked)):
            yield rows if key is not None else kept(rows, conditions).select(columns)


def _subquery(query: str) -> Any:
    return sqlalchemy.text(f"({_literally(query)}\n) AS answer")  # a comment at its end ends with the line


def _literally(query: str) -> str:
    """The query, of whose colons none begins a parameter."""
    return query.replace(":", "\\:")


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


def _answer(connection: sqlalchemy.Connection, asked: Any) -> sqlalchemy.CursorResult[Any]:
    try:
        return connection.execute(asked)
    except (SQLAlchemyError, ValueError) as error:
        raise DataError(f"the database cannot answer data.query: {_told(error)}") from None


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
