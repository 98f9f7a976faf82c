"""The bytes of many CSV files -> their steps in columns, parsed in one go; and where a file is at fault.

Files are joined and parsed by one call, which is many times faster than one call a file. That is only trusted
where the records found are as many as the lines counted; otherwise the files are parsed in halves, down to the
single file, which is then read carefully to name the line at fault.
"""

import csv
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from rayrnn.data.arrow_lists import ends, flat
from rayrnn.data.narrowing import lost_in_float64
from rayrnn.data.rows import Label
from rayrnn.data.sources.csv_blanks import without_blanks, without_blanks_around
from rayrnn.data.sources.csv_columns import Layout
from rayrnn.data.sources.csv_dialect import advice_on_cell, is_number
from rayrnn.data.sources.csv_header import records, unique_names
from rayrnn.data.sources.labels import Faults
from rayrnn.errors import DataError
from rayrnn.wording import counted, listed, shortened

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Parsed:
    """The steps of the files that could be parsed, in the files' order, and why the others could not."""

    steps: pa.Table
    #: int64 [parsed files]: which of the given files they are, and how many steps each has
    files: np.ndarray
    lengths: np.ndarray
    #: file -> `origin:line: reason`
    reasons: dict[int, str]
    #: column -> two whole numbers that are one in float64
    lost: dict[str, tuple[str, str]]

    @property
    def offsets(self) -> np.ndarray:
        """int64 [parsed files + 1]: where each file's steps begin and end."""
        return ends(self.lengths)


class _File(NamedTuple):
    number: int
    origin: str
    content: bytes
    header: bytes
    body: bytes


class _Part(NamedTuple):
    """Files whose steps were parsed together; or one file and the reason why it could not be parsed."""

    files: Sequence[_File]
    steps: pa.Table | None
    lengths: list[int]
    reason: str = ""
    lost: Mapping[str, tuple[str, str]] = MappingProxyType({})


def parse(contents: Sequence[bytes], origins: Sequence[str], layout: Layout) -> Parsed:
    """Turn every file's lines into steps.

    Args:
        contents: every file, whole.
        origins: how messages name each file.

    Returns:
        the steps, one column for each column that has a role, null where a cell is empty.
    """
    files = [_split(number, *file, layout) for number, file in enumerate(zip(origins, contents, strict=True))]
    turned = _turned(files, layout)
    files = [file for file in files if file.number not in turned]
    parts = [
        part
        for header, run in itertools.groupby(files, lambda file: file.header if layout.by_name else b"")
        for part in _parse_run(list(run), layout)
    ]
    parsed = [part for part in parts if part.steps is not None]
    return Parsed(
        steps=pa.concat_tables([part.steps for part in parsed]) if parsed else _schema(layout).empty_table(),
        files=np.array([file.number for part in parsed for file in part.files], np.int64),
        lengths=np.array([length for part in parsed for length in part.lengths], np.int64),
        reasons=turned | {part.files[0].number: part.reason for part in parts if part.steps is None},
        lost={name: pair for part in parsed for name, pair in part.lost.items()},
    )


def located(
    faults: Faults, parsed: Parsed, contents: Sequence[bytes], origins: Sequence[str], layout: Layout
) -> dict[int, str]:
    """Faults of parsed files -> file -> `origin:line: reason`."""
    numbers = {int(parsed.files[index]): fault for index, fault in faults.items()}
    return {
        number: f"{origins[number]}:{_line_of(contents[number], origins[number], step, layout)}: {reason}"
        for number, (step, reason) in numbers.items()
    }


def _split(number: int, origin: str, content: bytes, layout: Layout) -> _File:
    """Part the skipped lines from the steps; line ends at the file's end are no steps."""
    if b"\n" not in content:
        # lines that end as on a Macintosh of old
        content = content.replace(b"\r", b"\n")
    start = 0
    while content.startswith(_BYTE_ORDER_MARK, start):
        start += len(_BYTE_ORDER_MARK)
    header = b""
    for _ in range(layout.skip_lines):
        end = content.find(b"\n", start) + 1 or len(content)
        header, start = content[start:end].rstrip(b"\r\n"), end
    body = without_blanks(content[start:], layout.delimiter).rstrip(b"\r\n")
    return _File(number, origin, content, header, body + b"\n" if body else b"")


def _parse_run(files: Sequence[_File], layout: Layout) -> Iterator[_Part]:
    """Parse neighbouring files that have the same header."""
    for file in files:
        if not file.body:
            after = f" after data.skip_lines: {layout.skip_lines}" if file.content.strip() else ""
            yield _Part([file], None, [], f"{file.origin} is empty{after}; a sequence needs at least one line")
    full = [file for file in files if file.body]
    if not full:
        return
    names = layout.names
    if layout.by_name:
        names, reason = _header(full[0], layout)
        if reason:
            for file in full:
                yield _Part([file], None, [], f"{file.origin}:{layout.skip_lines}: {reason}")
            return
    yield from _parse_together(full, names, layout)


def _header(file: _File, layout: Layout) -> tuple[tuple[str, ...], str]:
    """The names of a file's columns, and why they cannot be those that are wanted."""
    try:
        cells = _cells(file.header, layout)
    except (UnicodeDecodeError, csv.Error):
        return (), "the line that names the columns is not UTF-8 text; leave other files than CSV out of data.path"
    # the second: only the steps end with a delimiter
    for names in (unique_names([*cells, ""]), unique_names(cells)):
        if sorted(names) == sorted(layout.names):
            return names, ""
    here = listed([name if name.isprintable() else repr(name) for name in names])
    return names, f"the columns are {here}; those of {layout.origin} are {listed(layout.names)}"


def _cells(header: bytes, layout: Layout) -> list[str]:
    line = without_blanks_around(header.decode("utf-8"), layout.delimiter)
    return next(csv.reader([line], delimiter=layout.delimiter), [])


def _turned(files: Sequence[_File], layout: Layout) -> dict[int, str]:
    """Files whose skipped line holds the first file's cells in another order, as where it names columns: and why not.

    Numbers, such as years, may name columns, and nothing else says whether they do.
    """
    reasons = {}
    for header in {file.header for file in files} if layout.skipped else ():
        try:
            cells = tuple(cell.strip() for cell in _cells(header, layout))
        except (UnicodeDecodeError, csv.Error):
            continue
        if cells != layout.skipped and sorted(cells) == sorted(layout.skipped):
            reasons[header] = (
                f"the skipped line is {listed(cells)}, in {layout.origin} it is {listed(layout.skipped)}: it seems "
                "that the columns are in another order. Name them in data.features, so that they count by name, or "
                "give them there by place, such as {place: 0}, so that this line does not count"
            )
    return {
        file.number: f"{file.origin}:{layout.skip_lines}: {reasons[file.header]}"
        for file in files
        if file.header in reasons
    }


def _parse_together(files: Sequence[_File], names: Sequence[str], layout: Layout) -> Iterator[_Part]:
    body = b"".join(file.body for file in files)
    steps = error = None
    try:
        steps = _read(body, names, layout)
    except pa.ArrowInvalid as fault:
        error = str(fault)
    lengths = [_count_lines(file.body) for file in files]
    if steps is not None and len(steps) == sum(lengths) and not _has_blank_line(body) and _are_closed(files):
        yield _Part(files, steps, lengths, lost=_lost(body, steps, names, layout))
        return
    if len(files) > 1:
        middle = len(files) // 2
        yield from _parse_together(files[:middle], names, layout)
        yield from _parse_together(files[middle:], names, layout)
        return
    reason = _first_fault(files[0], names, layout)
    if reason is None and steps is not None:
        yield _Part(files, steps, [len(steps)], lost=_lost(body, steps, names, layout))
    else:
        yield _Part(files, None, [], reason or f"{files[0].origin}: {error}")


def _lost(body: bytes, steps: pa.Table, names: Sequence[str], layout: Layout) -> dict[str, tuple[str, str]]:
    """The columns that have whole numbers which are one in float64, and two of each."""
    numbers = [field.name for field in steps.schema if field.type == pa.float64()]
    large = [name for name in numbers if len(steps) and _is_large(steps[name])]
    if not large:
        return {}
    texts = _read(body, names, layout, pa.schema(dict.fromkeys(large, pa.string())))
    found = {name: lost_in_float64(flat(texts[name])) for name in large}
    return {name: pair for name, pair in found.items() if pair}


def _is_large(numbers: pa.ChunkedArray) -> bool:
    return any(end is not None and abs(end) >= 2**53 for end in pc.min_max(numbers).as_py().values())


def _read(body: bytes, names: Sequence[str], layout: Layout, schema: pa.Schema | None = None) -> pa.Table:
    schema = schema or _schema(layout)
    return pyarrow.csv.read_csv(
        pa.BufferReader(body),
        # one block: the columns come in one piece
        pyarrow.csv.ReadOptions(use_threads=False, block_size=min(len(body) + 1, 2**31 - 1), column_names=list(names)),
        pyarrow.csv.ParseOptions(delimiter=layout.delimiter, newlines_in_values=b'"' in body, ignore_empty_lines=False),
        pyarrow.csv.ConvertOptions(
            column_types=schema,
            include_columns=schema.names,
            null_values=["", *layout.roles.target.missing],
            strings_can_be_null=True,
            decimal_point=layout.decimal,
        ),
    )


def _schema(layout: Layout) -> pa.Schema:
    """The columns that have a role, and one that must be empty."""
    roles = layout.roles
    answers = pa.float64() if roles.target.needs.label is Label.NUMBERS else pa.string()
    kinds = dict.fromkeys(roles.labels, answers)
    kinds |= dict.fromkeys((*roles.numbers, *roles.weights), pa.float64()) | dict.fromkeys(roles.words, pa.string())
    return pa.schema(kinds | ({layout.spare: pa.null()} if layout.spare else {}))


def _count_lines(body: bytes) -> int:
    if b'"' not in body:
        return body.count(b"\n")
    characters = np.frombuffer(body, np.uint8)
    # a byte may overflow: only whether the number of quotes before a character is odd matters
    quoted = np.cumsum(characters == ord('"'), dtype=np.uint8) & 1
    return int(np.count_nonzero((characters == ord("\n")) & (quoted == 0)))


def _are_closed(files: Sequence[_File]) -> bool:
    """Whether every file closes the quotes it opens: an open one would swallow the file behind it."""
    return all(file.body.count(b'"') % 2 == 0 for file in files)


def _has_blank_line(body: bytes) -> bool:
    if body.startswith((b"\n", b"\r\n")) or b"\n\n" in body:
        return True
    # most files have none, and looking for one character takes a fraction of the time
    return b"\r" in body and b"\n\r\n" in body


def _first_fault(file: _File, names: Sequence[str], layout: Layout) -> str | None:
    """Read one file record by record and say what is wrong with the first bad one."""
    numeric = [place for place, name in enumerate(names) if _schema_type(name, layout) == pa.float64()]
    try:
        for line, record in _records(file.content.rstrip(b"\r\n"), file.origin, layout, strict=True):
            if line > layout.skip_lines and (reason := _fault_of(record, names, numeric, layout)):
                at_start = (
                    line == 1
                    and numeric
                    and not any(is_number(record[p], layout.decimal) for p in numeric if p < len(record))
                )
                hint = "; if this line names the columns, set data.skip_lines: 1" if at_start else ""
                return f"{file.origin}:{line}: {reason}{hint}"
    except DataError as error:
        return str(error)
    return None


def _schema_type(name: str, layout: Layout) -> pa.DataType | None:
    schema = _schema(layout)
    return schema.field(name).type if name in schema.names else None


def _fault_of(record: Sequence[str], names: Sequence[str], numeric: Sequence[int], layout: Layout) -> str | None:
    if not record:
        return "the line is blank; every line is a step"
    if len(record) != len(names):
        due = "1 is due" if len(names) == 1 else f"{len(names)} are due"
        return f"{counted(len(record), 'column')} where {due} (as {layout.origin} has)"
    if layout.spare and (cell := record[names.index(layout.spare)]):
        return (
            f"column {layout.spare} has no name, and holds {shortened(cell)}: name it in the line that names the "
            f"columns, or leave it out with data.ignore: [{layout.spare}]"
        )
    no_value = ("", *layout.roles.target.missing)
    for place in numeric:
        if record[place] not in no_value and not is_number(record[place], layout.decimal):
            is_label = names[place] in layout.roles.labels
            advice = advice_on_cell(
                record[place], decimal=layout.decimal, delimiter=layout.delimiter, is_label=is_label
            )
            return f"column {names[place]!r} is {shortened(record[place])}, which is no number; {advice}"
    return None


def _line_of(content: bytes, origin: str, step: int, layout: Layout) -> int:
    lines = (line for line, _ in _records(content, origin, layout) if line > layout.skip_lines)
    return next(itertools.islice(lines, step, None))


def _records(content: bytes, origin: str, layout: Layout, *, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
    return records(content, origin, layout.delimiter, skip_lines=layout.skip_lines, strict=strict)
