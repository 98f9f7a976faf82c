"""A CSV file of events that are known -> intervals of steps, by sequence.

    series,start,end      `series` is the key of a sequence; `key` is a name for it too
    A-1.csv,2149,2349     the event's first and last step, both in it; the first step of a sequence is 0

Where whole sequences are judged, every sequence that the file names is anomalous, and `start` and `end` may be missing.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from rayrnn.anomalies.intervals import Interval, merged
from rayrnn.data.files import list_files, read_bytes
from rayrnn.errors import DataError
from rayrnn.wording import counted, did_you_mean, listed

#: what the column may be called that names the sequence
_SERIES = ("series", "key")
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
    for series, interval in _lines(csv.reader(io.StringIO(text, newline="")), path, with_steps=with_steps):
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
            if not cells["series"]:
                raise DataError(f"{path}, line {number}: the event names no sequence")
            yield cells["series"], _interval(cells, f"{path}, line {number}") if with_steps else (0, 0)
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
    return {"series": places[series]} | {name: places[name] for name in ("start", "end") if name in places}


def _interval(cells: Mapping[str, str], where: str) -> Interval:
    for name in ("start", "end"):
        digits = cells[name]
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= _MOST_DIGITS):
            raise DataError(f"{where}: {name} is {digits!r}; it is the number of a step, a whole number from 0 on")
    start, end = int(cells["start"]), int(cells["end"])
    if end < start:
        raise DataError(f"{where}: the event ends at step {end}, before it starts at step {start}")
    return start, end


def check_events(
    events: Mapping[str, list[Interval]], keys: list[str], steps: np.ndarray, path: str, *, with_steps: bool
) -> None:
    """See whether known events are of sequences that are here, and lie inside of them.

    Args:
        keys: of the sequences that were judged.
        steps: of each.

    Raises:
        DataError: they are not; names the first that is none.
    """
    lengths = dict(zip(keys, steps.tolist(), strict=True))
    strangers = [series for series in events if series not in lengths]
    if strangers:
        first = strangers[0]
        more = f" (and {counted(len(strangers) - 1, 'other')})" if len(strangers) > 1 else ""
        raise DataError(
            f"{path} has events of {first!r}{more}, and no sequence here has this name"
            f"{did_you_mean(first, lengths)}; the names are {listed(list(lengths), 5)}"
        )
    if len(lengths) < len(keys):
        twice = Counter(keys).most_common(1)[0][0]
        raise DataError(f"two sequences are called {twice!r}, so that nobody knows which of them {path} means")
    if not with_steps:
        return
    for series, own in events.items():
        if own[-1][1] >= lengths[series]:
            raise DataError(
                f"{path} has an event of {series!r} from step {own[-1][0]} to {own[-1][1]}, and the sequence ends at "
                f"step {lengths[series] - 1}: steps are counted from 0"
            )
