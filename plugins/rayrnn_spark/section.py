"""The recipe's `data` section for `source: spark`; without Ray and Spark, as every recipe's validation loads it."""

from typing import Annotated, ClassVar, Literal

import pydantic
from pydantic import BeforeValidator, Field, PositiveInt

from rayrnn.recipe.data_sections import TableData, spelled


def _as_spark_writes(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


Setting = Annotated[str, BeforeValidator(_as_spark_writes)]


class SparkData(TableData):
    """What Spark reads: one row a sequence, or (with `order_by`) one row a step, grouped and sorted by Spark.

    A Spark of its own is there while the sequences are taken over, and gone before training starts; with `connect` it
    is somebody else's. `sql: QUERY` is short for `format: sql` and `query: QUERY`.
    """

    read_by_hosts: ClassVar[bool] = True

    source: Literal["spark"] = "spark"
    #: what Spark reads
    format: Literal["parquet", "csv", "json", "orc", "jdbc", "table", "sql"]
    #: files and directories by the addresses that Spark takes (parquet, csv, json, orc)
    path: str | tuple[str, ...] | None = None
    #: a table of Spark's catalog (table), or of the database (jdbc)
    table: str | None = None
    #: what to select: from Spark's own tables and files (sql), or from the database (jdbc)
    query: str | None = None
    #: options of Spark's reader of this format; csv has header and inferSchema unless they say otherwise
    options: dict[str, Setting] = Field(default_factory=dict)
    #: a Spark that is there already, by Spark Connect: sc://HOST:PORT; or SPARK_REMOTE, for the address that this
    #: variable of the environment has (the place for one with a token); without it a Spark is started on this Ray
    connect: str | None = None
    #: with `connect`: where that Spark writes what is taken over: a directory that its hosts share with these, or
    #: s3://, gs://, hdfs://; without it a temporary directory, for a Spark on this host
    staging: str | None = None
    #: Java processes that compute; each takes `cores` CPUs and `memory`, and one CPU takes the sequences over
    executors: PositiveInt = 1
    #: CPUs of each executor: so many tasks at once
    cores: PositiveInt = 1
    #: memory of each executor
    memory: Annotated[str, spelled(r"\d+[kmgtKMGT][bB]?", "a whole number and a unit, such as 512m or 4g")] = "1g"
    #: further settings of Spark by their own names
    config: dict[str, Setting] = Field(default_factory=dict)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, values: object) -> object:
        if not isinstance(values, dict) or "sql" not in values:
            return values
        if others := sorted({"format", "query"} & values.keys()):
            raise ValueError(f"data.sql is short for data.format: sql and data.query: leave {' and '.join(others)} out")
        return {name: value for name, value in values.items() if name != "sql"} | {
            "format": "sql",
            "query": values["sql"],
        }

    @pydantic.model_validator(mode="after")
    def _one_spark(self) -> "SparkData":
        if self.connect is None:
            if self.staging is not None:
                raise ValueError("data.staging goes with data.connect: Spark on this Ray stages nothing")
            return self
        if own := sorted({"executors", "cores", "memory", "config"} & self.changed_keys()):
            keys = ", ".join(f"data.{name}" for name in own)
            raise ValueError(f"data.connect is a Spark that is there already: {keys} are of one that is started")
        if "token=" in self.connect.lower():
            raise ValueError(
                "data.connect has a token, which the run would keep: set the environment variable SPARK_REMOTE to this "
                "address, and data.connect to SPARK_REMOTE"
            )
        if self.connect != "SPARK_REMOTE" and not self.connect.startswith("sc://"):
            raise ValueError("data.connect is sc://HOST, sc://HOST:PORT or SPARK_REMOTE")
        return self

    def changed_keys(self) -> set[str]:
        """The keys whose values are not the usual ones: a run's own recipe has all of them."""
        fields = type(self).model_fields
        return {name for name in fields if getattr(self, name) != fields[name].get_default(call_default_factory=True)}

    @pydantic.model_validator(mode="after")
    def _one_origin(self) -> "SparkData":
        allowed = {"table": {"table"}, "sql": {"query"}, "jdbc": {"table", "query"}}.get(self.format, {"path"})
        given = {name for name in ("path", "table", "query") if getattr(self, name) is not None}
        if len(given) != 1 or not given <= allowed:
            wanted = " or ".join(f"data.{name}" for name in sorted(allowed))
            raise ValueError(f"data.format {self.format} takes {wanted}, and none of the other two")
        if self.format == "jdbc" and "url" not in self.options:
            raise ValueError("data.format jdbc needs the database's address: data.options.url, such as jdbc:...")
        return self

    @property
    def files(self) -> dict[str, str | tuple[str, ...]]:
        """What names files, by its key; beside a table or a query, `held_out` is another one."""
        return {} if self.path is None else super().files

    @property
    def commands(self) -> tuple[str, ...]:
        """Settings name Java agents and jars, SQL calls Java's methods, and a database's driver runs scripts."""
        can = {"config": True, "query": self.format == "sql", "options": self.format == "jdbc"}
        return tuple(key for key, obeyed in can.items() if obeyed and getattr(self, key))

    def describe(self) -> str:
        return f"spark {self.format} {super().describe() if self.path is not None else self.table or self.query}"
