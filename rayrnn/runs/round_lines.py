"""metrics.jsonl of a run: one line a round, whole or not at all, written by the driver and read by everybody."""

import errno
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from rayrnn.durable import replace_durably
from rayrnn.errors import RunError
from rayrnn.foreign import open_inside, read_inside
from rayrnn.runs.layout import METRICS
from rayrnn.runs.schema import StoredRound, checked

#: bytes of the file that are read: some million rounds
MOST_METRICS = 2 * 2**30

Kind = TypeVar("Kind", bound=StoredRound)
Line = dict[str, Any]


def append_line(folder: Path, line: Mapping[str, Any]) -> None:
    """Add a line, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    data = (json.dumps(line) + "\n").encode()
    with open(open_inside(folder, METRICS, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab", buffering=0) as file:
        start = os.fstat(file.fileno()).st_size
        if file.write(data) < len(data):
            file.truncate(start)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), METRICS)


def replace_lines(folder: Path, lines: Iterable[Line]) -> None:
    """Put these in the place of all that are there.

    Raises:
        OSError: they cannot be written.
    """
    replace_durably(folder / METRICS, "".join(json.dumps(line) + "\n" for line in lines).encode())


def read_lines(folder: Path) -> list[Line]:
    """One mapping a round; what a kill or a full disk left of a line is passed over.

    Raises:
        RunError: the file cannot be read, or a line is of no round; names it and the key.
    """
    return [values for values, _ in _checked(folder, StoredRound)]


def read_rounds(folder: Path, kind: type[Kind]) -> list[Kind]:
    """The same lines as values of a kind, which says what of them is read.

    Raises:
        RunError: the file cannot be read, or a line is none of this kind; names it and the key.
    """
    return [line for _, line in _checked(folder, kind)]


def _checked(folder: Path, kind: type[Kind]) -> list[tuple[Line, Kind]]:
    try:
        content = read_inside(folder, METRICS, most=MOST_METRICS)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"{folder / METRICS} cannot be used: {error.strerror}") from None
    lines = enumerate(content.decode("utf-8", errors="replace").split("\n")[:-1], start=1)
    parsed = [(number, line, values) for number, line in lines if (values := _parsed(line)) is not None]
    return [(values, checked(line.encode(), kind, f"{folder / METRICS}:{number}")) for number, line, values in parsed]


def _parsed(line: str) -> Line | None:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) and "round" in values else None
