"""Columns that stand in the names of directories (`kind=up/part-0.parquet`), as Spark and Hive write them."""

from collections.abc import Sequence
from urllib.parse import unquote

import pyarrow as pa

_NULL = "__HIVE_DEFAULT_PARTITION__"


def partition_values(path: str) -> dict[str, str | None]:
    """Column -> value, of all directories `name=value` in which a file lies."""
    pairs = (directory.split("=", 1) for directory in path.split("/")[:-1] if "=" in directory)
    return {unquote(name): None if value == _NULL else unquote(value) for name, value in pairs if name}


def partition_columns(paths: Sequence[str]) -> dict[str, pa.Array]:
    """The columns that all files have, a value a file: whole numbers where all values are, else strings."""
    values = [partition_values(path) for path in paths]
    names = [name for name in values[0] if all(name in own for own in values)] if values else []
    return {name: _typed([own[name] for own in values]) for name in names}


def _typed(texts: Sequence[str | None]) -> pa.Array:
    given = [text for text in texts if text is not None]
    if given and all(text.removeprefix("-").isdecimal() and str(int(text)) == text for text in given):
        return pa.array([None if text is None else int(text) for text in texts], pa.int64())
    return pa.array(texts, pa.string())
