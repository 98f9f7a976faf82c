"""The recipe's `data` section for tables that are no mere files: of versions, catalogues, databases, programs."""

import re
from collections.abc import Iterable, Mapping, Set
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import pydantic
from pydantic import BeforeValidator, Field, PrivateAttr

from rayrnn.errors import RecipeError, UsageError
from rayrnn.recipe.data_sections import FilteredTable, TableData, check_has_place

#: stands for a variable of the environment of whoever reads
_VARIABLE = re.compile(r"\$\{[^{}]*\}")
#: names of settings that nobody writes into a recipe, which is kept with the run
_SECRET = re.compile(r"token|secret|password|passwd|credential|access-?_?key|account-?_?key|api-?_?key", re.IGNORECASE)
#: `user:password@` in an address, or `?password=` behind it
_PASSWORD = re.compile(rf"://[^/@:]*:(?P<before>[^@]+)@|[?&][^=&]*(?:{_SECRET.pattern})[^=&]*=(?P<behind>[^&]+)", re.I)
#: keys of several columns: those whose order is that of the features, and those whose order says nothing
_IN_ORDER = ("features", "categorical", "forecast", "known_ahead", "static")
_IN_ANY_ORDER = ("ignore", "missing")
_NO_SECRET = "a recipe is kept with its run, and tells nobody a secret: write ${NAME}, a variable of the environment"

Table = TypeVar("Table", bound=TableData)
Version = Annotated[int, Field(ge=0, lt=2**63)] | Annotated[str, Field(min_length=1)] | None


def _version(value: object) -> object:
    """Digits are a number, whether YAML or the command line gave them."""
    if isinstance(value, int | float) and (isinstance(value, float) or value < 0):
        raise ValueError("a version is a whole number, 0 or more, or text")
    return int(value) if isinstance(value, str) and value.isdecimal() and str(int(value)) == value else value


def as_time(text: str) -> datetime | None:
    """A time of ISO 8601, in UTC where it has no zone; None where it is none."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


class VersionedTable(FilteredTable):
    """Tables that can be read as they were."""

    #: which state of the table is read; without a word the newest, and a run goes on with the one that it began with
    version: Annotated[Version, BeforeValidator(_version)] = None
    #: the same for `held_out`, where that is a place of its own
    held_out_version: Annotated[Version, BeforeValidator(_version)] = None

    def version_of(self, where: str | None) -> int | str | None:
        """That of what is at `where`; None is the section's own place. What nobody has named a version for is new."""
        return self.version if where is None else self.held_out_version if where == self.held_out else None

    @property
    def versions(self) -> dict[str, int]:
        """Those that are known by their number, by their keys."""
        given = {"version": self.version, "held_out_version": self.held_out_version}
        return {key: version for key, version in given.items() if isinstance(version, int)}

    def at(self, versions: Mapping[str, int]) -> Self:
        """The same section, at these versions."""
        return self.model_copy(update=dict(versions))

    @pydantic.model_validator(mode="after")
    def _held_out_has_versions(self) -> Self:
        check_has_place(self, "held_out_version")
        return self

    def describe(self) -> str:
        return super().describe() + ("" if self.version is None else f", version {self.version}")


class DeltaData(VersionedTable):
    """A Delta Lake table."""

    source: Literal["delta"] = "delta"
    #: the table's directory: local, s3://, gs:// or hdfs://; `version` is a number of its log, or a time, such as
    #: 2024-01-31T09:05:00Z
    path: str

    @pydantic.model_validator(mode="after")
    def _versions_are_numbers_or_times(self) -> Self:
        for key in ("version", "held_out_version"):
            version = getattr(self, key)
            if isinstance(version, str) and as_time(version) is None:
                raise ValueError(f"data.{key} is {version!r}: due is a number, or a time such as 2024-01-31T09:05:00Z")
        return self


class IcebergData(VersionedTable):
    """An Apache Iceberg table."""

    file_keys: ClassVar[tuple[str, ...]] = ()

    source: Literal["iceberg"] = "iceberg"
    #: the table's name in the catalogue, such as plant.sensors; or a file of metadata, .../metadata/....metadata.json;
    #: `version` is a snapshot's number, a tag, or a time, such as 2024-01-31T09:05:00Z
    table: str
    #: the catalogue by pyiceberg's own properties (type, uri, warehouse and others), with its name in pyiceberg's own
    #: configuration as `name`; a secret is written as ${NAME}, a variable of the environment
    catalog: dict[str, str] = Field(default_factory=dict)

    _schemas: dict[str, int] = PrivateAttr(default_factory=dict)

    def schema_of(self, where: str | None) -> int | None:
        """The number of the columns with which what is at `where` is read, where that is known."""
        key = "schema" if where is None else "held_out_schema" if where == self.held_out else ""
        return self._schemas.get(key)

    @property
    def versions(self) -> dict[str, int]:
        """With the numbers of the columns, which change without a snapshot."""
        return super().versions | self._schemas

    def at(self, versions: Mapping[str, int]) -> Self:
        schemas = {key: number for key, number in versions.items() if key.endswith("schema")}
        found = super().at({key: number for key, number in versions.items() if key not in schemas})
        found._schemas = self._schemas | schemas
        return found

    @property
    def commands(self) -> tuple[str, ...]:
        """A catalogue may name classes that are imported, and is told what the environment holds."""
        return ("catalog",) if self.catalog else ()

    def describe(self) -> str:
        return f"iceberg {self.table}" + super().describe().removeprefix(self.source)

    @pydantic.model_validator(mode="after")
    def _tells_no_secret(self) -> Self:
        for name, value in self.catalog.items():
            if (_SECRET.search(name) and not _VARIABLE.search(value)) or _tells_password(value):
                raise ValueError(f"data.catalog.{name} is written out; {_NO_SECRET}")
        return self


class OrcData(FilteredTable):
    """ORC files."""

    source: Literal["orc"] = "orc"
    #: files, directories or glob patterns: local, s3://, gs:// or hdfs://
    path: str | tuple[str, ...]


class AvroData(FilteredTable):
    """Avro files."""

    source: Literal["avro"] = "avro"
    #: files, directories or glob patterns: local, s3://, gs:// or hdfs://
    path: str | tuple[str, ...]


class SqlData(FilteredTable):
    """What a database answers to a query. `held_out` is a fraction, or another query."""

    file_keys: ClassVar[tuple[str, ...]] = ()

    source: Literal["sql"] = "sql"
    #: the database by its address, as SQLAlchemy takes it: sqlite:///plant.db, postgresql+psycopg://me:${NAME}@host/plant;
    #: a secret is written as ${NAME}, a variable of the environment
    connection: str
    #: a SELECT
    query: str

    @property
    def commands(self) -> tuple[str, ...]:
        """A query may do what its author likes, in a database of whoever reads, which is told a secret."""
        return ("connection", "query")

    def describe(self) -> str:
        return f"sql {self.query}"

    @pydantic.model_validator(mode="after")
    def _tells_no_secret(self) -> Self:
        if _tells_password(self.connection):
            raise ValueError(f"data.connection has a password in it; {_NO_SECRET}")
        return self


def _tells_password(address: str) -> bool:
    found = [one["before"] or one["behind"] for one in _PASSWORD.finditer(address)]
    return not all(map(_VARIABLE.fullmatch, found))


def section_of(kind: type[Table], columns: Mapping[str, object]) -> Table:
    """The section that says what some columns are for; None is no word on it.

    Raises:
        RecipeError: they contradict each other.
        UsageError: what is to be several columns is one text, or has no order where that is the features' order.
    """
    given = {name: value for name, value in columns.items() if value is not None}
    for name in {*_IN_ORDER, *_IN_ANY_ORDER} & given.keys():
        value = given[name]
        is_unordered = isinstance(value, Set | Mapping) and name in _IN_ORDER
        if isinstance(value, str) or is_unordered or not isinstance(value, Iterable):
            raise UsageError(f"{name} is {value!r}; due is a list, such as {name}=[{_an_example(value)!r}]")
        given[name] = tuple(value)
    try:
        return kind.model_validate(given)
    except pydantic.ValidationError as error:
        raise RecipeError("\n".join(fault["msg"].removeprefix("Value error, ") for fault in error.errors())) from None


def _an_example(value: object) -> object:
    if isinstance(value, Set | Mapping):
        return min(map(str, value), default="x")
    return value if isinstance(value, str) else "x"


class GivenData(TableData):
    """Sequences that a program hands over, `rayrnn.train(recipe, data=...)`: nothing is read from anywhere.

    Where columns are named, a data frame or a dataset has them, in one of the two shapes; else its rows are in the row
    schema.
    """

    source: Literal["given"] = "given"

    @property
    def names_columns(self) -> bool:
        """Whether it says what the columns are for; else they are the row schema's."""
        return self.order_by is not None or bool(self.columns(labelled=True))

    @pydantic.model_validator(mode="after")
    def _one_shape(self) -> "GivenData":
        if isinstance(self.held_out, str):
            raise ValueError("data.held_out is a path, and a program hands the sequences over: give a fraction")
        if self.names_columns:
            super()._one_shape()  # type: ignore[operator]
        return self

    @pydantic.model_serializer(mode="wrap")
    def _without_defaults(self, dump: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is said of no columns is not written: a recipe whose data is named later begins with little."""
        written, fields = dump(self), type(self).model_fields
        unsaid = {name for name, field in fields.items() if getattr(self, name) == field.default}
        return {name: value for name, value in written.items() if name in ("source", "held_out") or name not in unsaid}

    def describe(self) -> str:
        return "what a program hands over"
