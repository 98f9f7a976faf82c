"""Pairs of a text and its answer -> rows of the row schema: two columns of a table, or the lines of two files."""

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import ray.data
from pyarrow import fs

from rayrnn.data.contents import read_whole, unpacked_name
from rayrnn.data.files import Listing, list_files
from rayrnn.data.sequences import beside
from rayrnn.data.sources.csv_header import records, tabulated, text_lines
from rayrnn.data.sources.source import Wanted
from rayrnn.errors import DataError, UsageError
from rayrnn.recipe.data_sections import Column, Place
from rayrnn.recipe.text_sections import PairsData
from rayrnn.wording import counted, listed

#: bytes of files that one task reads, about
TASK_BYTES = 4 * 2**20
#: endings of files whose columns stand between tabulators
TABULATED = (".tsv", ".txt", ".tab")
#: what people call such columns
_NAME = re.compile(
    "id|key|index|source|target|src|tgt|input|output|text|label|word|sentence|question|answer|query|sql|translation|"
    "original|prompt|response|completion|title|summary|en|fr|de|es|it|english|french|german|spanish|phoneme|phone|sound|"
    "pronunciation|spelling|grapheme|(text|label|word|sentence|question|answer|phoneme|phone|sound|grapheme)s",
    re.IGNORECASE,
)
_ROWS = pa.schema({"key": pa.string(), "text": pa.string(), "target": pa.string()})


@dataclass(frozen=True)
class _Line:
    """A pair, or why there is none in a line."""

    number: int
    text: str = ""
    target: str | None = None
    fault: str = ""


class Pairs:
    """Texts, each with an answer that is a text too: in another column, or in the same line of another file."""

    section = PairsData

    def read(self, data: PairsData, wanted: Wanted) -> ray.data.Dataset:
        """Every line as one sequence, read when the dataset is consumed.

        Returns:
            rows of `key` ("file:line"), `text`, `target` (where targets are wanted), and why a line is no pair, in
            `fault` (data.on_error: stop) or `skipped` (skip).

        Raises:
            DataError: there are no files; or two files that belong together do not have as many lines.
        """
        listing = list_files(wanted.where or data.path, endpoint=data.endpoint, say=wanted.say)
        where = _targets(data, wanted) if wanted.labelled else None
        lines: list[str] | None = None
        if where is not None:
            if len(listing) != 1:
                raise DataError(
                    f"{data.path} names {len(listing)} files and {where} holds the answers to one: give one file in "
                    "data.path, or pairs in two columns"
                )
            lines = _lines_of_targets(where, data)
        elif data.targets is None and wanted.labelled:
            _say_what_is_meant(listing, data, wanted.say)
        files = pa.table({"path": listing.paths, "origin": listing.names})
        groups = [files.take(pa.array(group)) for group in listing.groups(TASK_BYTES)]
        read = functools.partial(
            _read_group,
            data=data,
            labelled=wanted.labelled,
            filesystem=listing.filesystem,
            where=where,
            lines=lines,
        )
        return ray.data.from_arrow(groups).map_batches(
            read, batch_size=None, batch_format="pyarrow", **beside(listing.filesystem)
        )


def _say_what_is_meant(listing: Listing, data: PairsData, say: Callable[[str], None]) -> None:
    """Tell which columns are read where nobody said, and of a first line that seems to name them; of the first file."""
    if (
        listing.sizes[0] > TASK_BYTES
        or data.skip_lines
        or (data.input, data.target) != (Place(place=0), Place(place=1))
    ):
        return
    origin = listing.names[0]
    try:
        found = _cells(read_whole(listing.filesystem, listing.paths[0], origin), origin, data, on_fault=lambda *_: None)
        cells = next((cells for _, cells in found if len(cells) > 1), [])
    except DataError:
        return  # which is told when the file is read
    if len(cells) > 2:
        say(
            f"of the {len(cells)} columns of {origin} the first is read, {cells[0]!r}, and the second, {cells[1]!r}, "
            "is the answer: data.input and data.target name others"
        )
    if len(cells) > 1 and all(_NAME.fullmatch(cell.strip()) for cell in cells):
        say(f"the first line of {origin}, {listed(cells)}, is read as a pair: data.skip_lines: 1 leaves it out")


def _cells(
    content: bytes, origin: str, data: PairsData, *, on_fault: Callable[[int, str], object] | None
) -> Iterator[tuple[int, list[str]]]:
    delimiter = _delimiter(origin, data)
    if delimiter == "\t":
        return tabulated(content, origin)
    return records(content, origin, delimiter, strict=True, on_fault=on_fault)


def _delimiter(origin: str, data: PairsData) -> str:
    return data.delimiter or ("\t" if unpacked_name(origin).lower().endswith(TABULATED) else ",")


def _targets(data: PairsData, wanted: Wanted) -> str | None:
    """The file of answers to these texts; None where a column has them.

    Raises:
        DataError: only the answers to other texts are known.
        UsageError: answers are given in a file, and what was learned has them in a column.
    """
    if wanted.labels is not None and data.targets is None:
        raise UsageError(
            f"answers are given ({wanted.labels}), and they come from data.target, a column of {data.path}: leave them "
            "out, and give pairs in columns"
        )
    if wanted.labels is not None or data.targets is None or wanted.where in (None, data.path):
        return wanted.labels or data.targets
    if wanted.where == data.held_out:
        return data.held_out_targets
    raise DataError(
        f"{wanted.where} is not data.path, whose answers are {data.targets}: say where its own are, with "
        "data.held_out_targets in a recipe, with --labels for `rayrnn evaluate`"
    )


def _lines_of_targets(where: str, data: PairsData) -> list[str]:
    listing = list_files(where, endpoint=data.endpoint)
    if len(listing) != 1:
        raise DataError(f"{where} (data.targets) names {len(listing)} files; it is one, whose line i answers line i")
    return text_lines(read_whole(listing.filesystem, listing.paths[0], listing.names[0]), listing.names[0])


def _read_group(
    files: pa.Table,
    data: PairsData,
    *,
    labelled: bool,
    filesystem: fs.FileSystem,
    where: str | None,
    lines: list[str] | None,
) -> Iterator[pa.Table]:
    column = "fault" if data.on_error == "stop" else "skipped"
    for path, origin in zip(files["path"].to_pylist(), files["origin"].to_pylist(), strict=True):
        try:
            content = read_whole(filesystem, path, origin)
            if lines is not None:
                found = _side_by_side(text_lines(content, origin), lines, origin, str(where), data.skip_lines)
            elif data.targets is not None and not labelled:  # the file is of texts alone
                texts = enumerate(text_lines(content, origin), start=1)
                found = [_line(number, text, None, "") for number, text in texts if number > data.skip_lines]
            else:
                found = list(_columns(content, origin, data, labelled=labelled))
        except DataError as error:
            yield _table([], origin, labelled=labelled).append_column(column, pa.array([], pa.string()))
            yield pa.table({column: pa.array([str(error)])})
            continue
        good = _table([line for line in found if not line.fault], origin, labelled=labelled)
        bad = [f"{origin}:{line.number}: {line.fault}" for line in found if line.fault]
        good = good.append_column(column, pa.nulls(len(good), pa.string()))
        yield pa.concat_tables([good, pa.table({column: pa.array(bad, pa.string())})], promote_options="default")


def _table(lines: list[_Line], origin: str, *, labelled: bool) -> pa.Table:
    rows = [{"key": f"{origin}:{line.number}", "text": line.text, "target": line.target} for line in lines]
    table = pa.Table.from_pylist(rows, _ROWS)
    return table if labelled else table.drop_columns(["target"])


def _side_by_side(texts: list[str], targets: list[str], origin: str, where: str, skip: int) -> list[_Line]:
    """
    Raises:
        DataError: the two files do not have as many lines.
    """
    if len(texts) != len(targets):
        raise DataError(
            f"{origin} has {counted(len(texts), 'line')} and {where} has {counted(len(targets), 'line')}: line i of "
            "one is answered by line i of the other, so they must have as many; see whether a line is missing, or a "
            "text has a line end in it"
        )
    pairs = enumerate(zip(texts, targets, strict=True), start=1)
    return [_line(number, text, target, where) for number, (text, target) in pairs if number > skip]


def _columns(content: bytes, origin: str, data: PairsData, *, labelled: bool) -> Iterator[_Line]:
    """The pairs of a file of columns.

    Raises:
        DataError: it is no text, or does not have the columns.
    """
    delimiter, broken = _delimiter(origin, data), list[_Line]()
    said = (lambda line, fault: broken.append(_Line(line, fault=fault))) if data.on_error == "skip" else None
    lines = list(_cells(content, origin, data, on_fault=said))
    yield from broken
    by_name = any(
        not isinstance(column, Place) and not column.lstrip("-").isdigit() for column in (data.input, data.target)
    )
    begin = max(data.skip_lines, 1 if by_name else 0)
    if len(lines) <= begin:
        raise DataError(f"{origin} has no pairs" + (f" after {counted(begin, 'line')}" if begin else ": it is empty"))
    header = [cell.strip() for cell in lines[begin - 1][1]] if begin else []
    text = _place(data.input, header, origin, begin)
    target = _place(data.target, header, origin, begin) if labelled else None
    rest = [(number, cells) for number, cells in lines[begin:] if any(cell.strip() for cell in cells)]
    width = len(header if by_name else rest[0][1]) if rest else 0
    for number, cells in rest:
        yield _pair(number, cells, text, target, delimiter, width)


def _place(column: Column, header: list[str], origin: str, line: int) -> int:
    if isinstance(column, Place):
        return column.place
    if header.count(column) == 1:
        return header.index(column)
    if header.count(column) > 1:
        raise DataError(
            f"column {column!r} is there {header.count(column)} times in {origin}:{line}: give its {{place: N}}"
        )
    if column.lstrip("-").isdigit():
        return int(column)
    raise DataError(f"there is no column {column!r} in {origin}:{line}; the columns are {listed(header)}")


def _pair(number: int, cells: list[str], text: int, target: int | None, delimiter: str, width: int) -> _Line:
    due = [text] if target is None else [text, target]
    between = "a tabulator" if delimiter == "\t" else repr(delimiter)
    if any(not -len(cells) <= place < len(cells) for place in due):
        least = max(place + 1 if place >= 0 else -place for place in due)
        tabs = ", and there are tabulators in it: set data.delimiter" if any("\t" in cell for cell in cells) else ""
        return _Line(
            number,
            fault=f"it has {counted(len(cells), 'column')} and at least {least} are due, with {between} between them "
            f"(data.delimiter, data.input, data.target){tabs}",
        )
    if len(cells) > width:
        quotes = "" if delimiter == "\t" else "; a text that has one in it stands in quotes"
        return _Line(
            number,
            fault=f"it has {counted(len(cells), 'column')} and the first line has {width}, with {between} between them"
            f"{quotes} (data.delimiter)",
        )
    return _line(number, cells[text], None if target is None else cells[target], "")


def _line(number: int, text: str, target: str | None, where: str) -> _Line:
    text = text.strip()
    if not text:
        return _Line(number, fault="the text is empty: give one, or leave the line out")
    if target is not None and not (target := target.strip()):
        place = f" in {where}" if where else ""
        return _Line(number, fault=f"the target is empty{place}: give one, or leave the line out")
    return _Line(number, text, target)
