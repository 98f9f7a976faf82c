"""The index of a DataFrame, which its writer stores beside the columns: nobody means it to be learned."""

import json
import re
from collections.abc import Callable, Collection, Sequence

import pyarrow as pa

#: what pandas calls an index without a name in Parquet, and such a column of a CSV file that it has read again
_NAMES = re.compile(r"__index_level_\d+__|Unnamed: 0(_level_\d+)?(\.\d+)*")
#: what Spark calls the first column of a CSV file, where it has no name
_OF_SPARK = re.compile(r"_c\d+")
_WHOLE = re.compile(r"\d+", re.ASCII)


def index_columns(schema: pa.Schema) -> list[str]:
    """The columns of a table that are an index."""
    names = schema.names
    stored = _stored_by_pandas(schema)
    found = [name for name in names if name in stored or _NAMES.fullmatch(name)]
    # without a header all columns are called so
    if names[:1] == ["_c0"] and sum(bool(_OF_SPARK.fullmatch(name)) for name in names) == 1 < len(names):
        found.append("_c0")
    return found


def index_of_header(names: Sequence[str], header: Sequence[str]) -> list[str]:
    """The first column of a CSV file, where the line before the first step has a name for all others; by its stand-in.

    Args:
        names: of the columns.
        header: the cells of that line, if there is one.
    """
    if len(header) != len(names) or not (header[0] or header.count("") == 1):
        return []  # where several have no name, none is an index
    return [names[0]] if not header[0] or _NAMES.fullmatch(header[0]) else []


def index_of_lines(lines: Sequence[Sequence[str]]) -> bool:
    """Whether the first cells of a table's lines are an index: the header has no name for it, and all are numbers."""
    header, *others = lines or [[]]
    numbers = [line[0] for line in others]
    are_numbers = len(set(numbers)) == len(numbers) > 0 and all(map(_WHOLE.fullmatch, numbers))
    return len(header) > 1 and bool(index_of_header(header, header)) and are_numbers


def say_no_label(origin: str, say: Callable[[str], None]) -> None:
    """Tell of such a column where there are labels."""
    say(f"the first column of {origin} is the index of a DataFrame: it is left out, and is no label")


def left_out(
    found: Sequence[str], asked: Collection[str], learned: Collection[str], say: Callable[[str], None]
) -> set[str]:
    """Of the columns that are an index those that are not learned; the user is told.

    Args:
        asked: the columns that the recipe names.
        learned: those that a model has learned, where there is one.
    """
    out = {name for name in found if name not in asked and name not in learned}
    for name in found:
        if name in out:
            written = name if name.startswith("{") else repr(name)
            say(f"column {written} is the index of a DataFrame and is not learned; data.features may name it")
    return out


def not_learned(names: Sequence[str], learned: Collection[str]) -> set[str]:
    """The columns that a model does not read, where all that it has learned are there; these are found by name."""
    there = set(names)
    return there - set(learned) if learned and there >= set(learned) else set()


def _stored_by_pandas(schema: pa.Schema) -> set[str]:
    try:
        stored = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))["index_columns"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return set()
    # an index that only counts is no column, but a mapping
    return {name for name in stored if isinstance(name, str)} if isinstance(stored, list) else set()
