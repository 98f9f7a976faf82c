"""How CSV files write numbers and part cells; and how they probably do where they were read in another way."""

import csv
import re
from collections.abc import Iterable

#: what parts the cells of a line, of most files
DELIMITERS = (",", ";", "\t", "|")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|infinity|nan)", re.ASCII | re.IGNORECASE)
_WITH_COMMA = re.compile(r"[+-]?\d*,\d+", re.ASCII)
#: how a day, or a time of it, begins
_TIME = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}|\d{1,2}:\d{2}")
_THOUSANDS = re.compile(
    r"[+-]?\d{1,3}(?:([,.' \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}])\d{3})(?:\1\d{3})*([,.]\d+)?"
)


def is_number(cell: str, decimal: str = ".") -> bool:
    """Whether a cell's text is one that is read as a number.

    Args:
        decimal: what parts the whole of a number from its fraction.
    """
    return _NUMBER.fullmatch(_with_point(cell.strip(" \t"), decimal)) is not None


def number_of(cell: str, decimal: str) -> float:
    """
    Raises:
        ValueError: it is none.
    """
    if not is_number(cell, decimal):
        raise ValueError(cell)
    return float(_with_point(cell, decimal))


def cells_of(line: str, delimiter: str) -> list[str]:
    """The cells of one line, without blanks around them; none where it cannot be read."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []


def advice_on_delimiter(names: str, first: str, column: str) -> str:
    """What to set, where the line that names the columns has such a one with another delimiter; or nothing.

    Args:
        first: the line of the first step.
    """
    for delimiter in DELIMITERS:
        if column in cells_of(names, delimiter):
            comma = delimiter != "," and any(map(_WITH_COMMA.fullmatch, cells_of(first, delimiter)))
            return f"set data.delimiter: {_written(delimiter)}" + (' and data.decimal: ","' if comma else "")
    return ""


def advice_on_cell(cell: str, *, decimal: str, delimiter: str, is_label: bool) -> str:
    """What to do about a cell that is no number, where numbers are due."""
    ways = list(_ways_to_read(cell.strip(), decimal, delimiter))
    if not ways and is_label:
        return "see whether data.label_column names the right column"
    if _TIME.match(cell.strip()) and not ways:
        return "times are not learned: leave the column out, with data.ignore (or of data.features)"
    usual = "list it in data.categorical, or leave it out (of data.features, or with data.ignore where there are none)"
    return " or ".join(ways) or usual


def _ways_to_read(cell: str, decimal: str, delimiter: str) -> Iterable[str]:
    if decimal == "." and _WITH_COMMA.fullmatch(cell):
        yield 'set data.decimal: "," where the comma parts the fraction'
    if decimal == "," and is_number(cell):
        yield 'set data.decimal: "." where the point parts the fraction'
    if found := _THOUSANDS.fullmatch(cell):
        other = {",": ".", ".": ","}[decimal]
        fraction = f' and set data.decimal: "{other}"' if (found[2] or decimal).startswith(other) else ""
        yield f"write the files without {found[1]!r} between thousands{fraction}"
    for other in DELIMITERS:
        if other != delimiter and other in cell and not _WITH_COMMA.fullmatch(cell) and not found:
            yield f"set data.delimiter: {_written(other)} where that parts the cells"


def _with_point(number: str, decimal: str) -> str:
    """The number with a point before its fraction; nothing where it had one for something else."""
    if decimal == ".":
        return number
    return "" if "." in number else number.replace(decimal, ".")


def _written(delimiter: str) -> str:
    return "tab" if delimiter == "\t" else f'"{delimiter}"'
