"""A CSV file of events that are known -> intervals of steps, by sequence.

    series,start,end      `series` is the key of a sequence; `key` is a name for it too
    A-1.csv,2149,2349     the event's first and last step, both in it; the first step of a sequence is 0

Where whole sequences are judged, every sequence that the file names is anomalous, and `start` and `end` may be missing.
A column `label`, `anomaly` or `is_anomaly` says of each line whether it is one: 1 or 0, or such words.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from posixpath import splitext

import numpy as np

from rayrnn.anomalies.intervals import Interval, merged
from rayrnn.data.files import list_files, read_bytes
from rayrnn.errors import DataError
from rayrnn.wording import did_you_mean, listed

#: what the column may be called that names the sequence
_SERIES = ("series", "key")
#: what the column may be called that says whether a line is an event, and what it may say
_IS_EVENT = ("label", "anomaly", "is_anomaly")
_YES = ("1", "1.0", "true", "yes", "anomaly", "anomalous", "abnormal")
_NO = ("0", "0.0", "false", "no", "normal")
#: between columns: the first of these that is in the first line
_DELIMITERS = (",", ";", "\t")
#: of a step's number
_MOST_DIGITS = 18


def read_events(path: str, *, with_steps: bool, endpoint: str | None = None) -> dict[str, list[Interval]]:
    """The events of every sequence that has any, in order; those that share a step are one.

    Args:
        with_steps: whether `start` and `end` are needed.

    Raises:
        DataError: the file cannot be read, has no event, or a line is none; names the line.
    """
    listing = list_files(path, endpoint=endpoint)
    if len(listing) != 1:
        raise DataError(f"--events is one CSV file, and {path} is {len(listing)} files: name the file")
    try:
        text = read_bytes(listing, 0).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}; save it as CSV in UTF-8") from None
    found: dict[str, list[Interval]] = {}
    header = text.lstrip().partition("\n")[0]
    delimiter = next((mark for mark in _DELIMITERS if mark in header), ",")
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    for series, interval in _lines(rows, path, with_steps=with_steps):
        found.setdefault(series, []).append(interval)
    if not found:
        raise DataError(
            f"{path} has no event: without one nothing can be measured; leave --events out, or see the file"
        )
    return {series: merged(events) for series, events in found.items()}


def _lines(rows: Iterable[list[str]], path: str, *, with_steps: bool) -> Iterator[tuple[str, Interval]]:
    columns: dict[str, int] = {}
    try:
        for number, row in enumerate(rows, start=1):
            if not row or not any(cell.strip() for cell in row):
                continue
            if not columns:
                columns = _columns(row, path, with_steps=with_steps)
                continue
            cells = {name: row[place].strip() if place < len(row) else "" for name, place in columns.items()}
            where = f"{path}, line {number}"
            if not cells["series"]:
                raise DataError(f"{where}: the event names no sequence")
            if _is_event(cells.get("label", "1"), where):
                yield cells["series"], _interval(cells, where) if with_steps else (0, 0)
    except csv.Error as error:
        raise DataError(f"{path} is no CSV file: {error}") from None


def _columns(names: list[str], path: str, *, with_steps: bool) -> dict[str, int]:
    places = {name.strip().lower(): place for place, name in reversed(list(enumerate(names)))}
    series = next((name for name in _SERIES if name in places), None)
    missing = [] if series else ["series"]
    missing += [name for name in ("start", "end") if with_steps and name not in places]
    if series is None or missing:
        raise DataError(
            f"{path} has no column {listed(missing)}; its first line is {','.join(names)!r}, and it names the columns: "
            f"{'series,start,end' if with_steps else 'series'}"
        )
    label = next(({"label": places[name]} for name in _IS_EVENT if name in places), {})
    return {"series": places[series]} | {name: places[name] for name in ("start", "end") if name in places} | label


def _is_event(cell: str, where: str) -> bool:
    if cell.lower() in _YES + _NO:
        return cell.lower() in _YES
    raise DataError(f"{where}: {cell!r} says neither that this is an anomaly (1) nor that it is none (0)")


def _interval(cells: Mapping[str, str], where: str) -> Interval:
    start, end = (_step(cells[name], name, where) for name in ("start", "end"))
    if end < start:
        raise DataError(f"{where}: the event ends at step {end}, before it starts at step {start}")
    return start, end


def _step(cell: str, name: str, where: str) -> int:
    digits = cell.removesuffix(".0")  # as a table writes it that has an empty cell in this column
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _MOST_DIGITS):
        raise DataError(
            f"{where}: {name} is {cell!r}; it is the number of a step (no time), a whole number from 0 on, in the "
            "order in which the run reads them"
        )
    return int(digits)


def match_events(
    events: Mapping[str, list[Interval]], keys: list[str], steps: np.ndarray, path: str, *, with_steps: bool
) -> tuple[dict[str, list[Interval]], list[str]]:
    """Known events by the sequences that are here. A name may lack what follows the file name's last dot.

    Args:
        keys: of the sequences that were judged.
        steps: of each.

    Returns:
        the events, and the names of which there is no sequence here.

    Raises:
        DataError: there is none of all these, two sequences have a name that is meant, or an event does not lie inside
            of its sequence.
    """
    lengths, times = dict(zip(keys, steps.tolist(), strict=True)), Counter(keys)
    stems: dict[str, list[str]] = {}
    for key in lengths:
        stems.setdefault(splitext(key)[0], []).append(key)
    own: dict[str, list[Interval]] = {}
    others = []
    for series, found in events.items():
        meant = [series] if series in lengths else stems.get(series, [])
        if not meant:
            others.append(series)
        elif len(meant) > 1 or times[meant[0]] > 1:
            twice = listed(meant) if len(meant) > 1 else f"two of {meant[0]!r}"
            raise DataError(f"{path} means {series!r}, and there are several sequences of this name ({twice})")
        else:
            own[meant[0]] = merged([*own.get(meant[0], []), *found])
    if not own:
        raise DataError(
            f"{path} has events of {others[0]!r}{f' (and {len(others) - 1:,} others)' * (len(others) > 1)}, and no "
            f"sequence here has such a name{did_you_mean(others[0], lengths)}; the names are {listed(list(lengths), 5)}"
        )
    if with_steps:
        _check_inside(own, lengths, path)
    return own, others


def _check_inside(events: Mapping[str, list[Interval]], lengths: Mapping[str, int], path: str) -> None:
    for series, own in events.items():
        if own[-1][1] >= lengths[series]:
            raise DataError(
                f"{path} has an event of {series!r} from step {own[-1][0]} to {own[-1][1]}, and the sequence ends at "
                f"step {lengths[series] - 1}: steps are counted from 0"
            )
