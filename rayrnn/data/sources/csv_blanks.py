"""Blanks around the cells of a CSV file: they never count, but inside quotes they are part of the cell."""

import functools
import re

_ASCII_BLANKS = " \t\v\f"
#: blanks at the end of a cell, and (kept) elsewhere
_AT_END = r"({blank}++)(?![{delimiter}\r\n]|\Z)|{blank}++"
#: blanks at the start of a cell, behind what comes before it
_AT_START = r"([{delimiter}\r\n]){blank}++"
#: where cells have quotes: a quoted one, with all that is in it, and (not kept) blanks around a cell
_QUOTED = (
    r"(?:\A|(?<=[{delimiter}\r\n])){blank}*(\"[^\"]*+(?:\"\"[^\"]*+)*+\"){blank}*(?=[{delimiter}\r\n]|\Z)"
    r"|(?<!{blank}){blank}+(?=[{delimiter}\r\n]|\Z)|(?<=[{delimiter}\r\n]){blank}+|\A{blank}+"
)


def without_blanks(body: bytes, delimiter: str) -> bytes:
    """The lines of a file, whose cells begin and end without blanks; a blank that is the delimiter is none."""
    if body.isascii() and not _may_have_blanks(body, delimiter):
        return body
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return body  # told of where it is read
    return without_blanks_around(text, delimiter).encode("utf-8")


def without_blanks_around(text: str, delimiter: str) -> str:
    """The same for a text."""
    at_end, at_start, quoted = _patterns(delimiter)
    if '"' in text:
        return quoted.sub(r"\1", text)
    text = _without_single_spaces(text, delimiter)
    if text.isascii() and not _may_have_blanks(text.encode(), delimiter):
        return text
    return at_start.sub(r"\1", at_end.sub(r"\1", "\n" + text))[1:]


def _without_single_spaces(text: str, delimiter: str) -> str:
    """Most blanks are one space behind each delimiter: a hundred times faster than patterns are."""
    if delimiter != " ":
        for edge in (delimiter, "\n"):
            text = text.replace(f"{edge} ", edge).replace(f" {edge}", edge)
    return text


def _may_have_blanks(body: bytes, delimiter: str) -> bool:
    """Whether a cell may begin or end with a blank: much sooner told than which."""
    blanks = [blank for blank in _ASCII_BLANKS if blank != delimiter and blank.encode() in body]
    edges = (delimiter, "\n", "\r")
    return any(
        body.startswith(blank.encode())
        or body.endswith(blank.encode())
        or any((blank + edge).encode() in body or (edge + blank).encode() in body for edge in edges)
        for blank in blanks
    )


@functools.cache
def _patterns(delimiter: str) -> list[re.Pattern[str]]:
    escaped = re.escape(delimiter)
    blank = rf"(?:(?!{escaped})[^\S\r\n])" if delimiter.isspace() else r"[^\S\r\n]"
    written = (_AT_END, _AT_START, _QUOTED)
    return [re.compile(each.replace("{blank}", blank).replace("{delimiter}", escaped)) for each in written]
