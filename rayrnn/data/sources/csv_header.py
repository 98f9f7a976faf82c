"""What the columns of a CSV file are called, and which of them a recipe means: by its name, or by its place."""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass

from rayrnn.data.contents import charset_of, no_text, way_to_utf8
from rayrnn.data.rows import check_width
from rayrnn.data.sources.csv_blanks import without_blanks_around
from rayrnn.data.sources.csv_dialect import advice_on_delimiter, is_number
from rayrnn.errors import DataError, RecipeError
from rayrnn.recipe.data_sections import Column, CsvData, Place
from rayrnn.wording import listed

_PLACE = re.compile(r"-?\d+", re.ASCII)
#: characters in one cell that are read, also in a column that nobody wants; Python's own limit is 131,072
MOST_IN_A_CELL = 2**31 - 1


@dataclass(frozen=True)
class Columns:
    """The columns of one file."""

    origin: str
    #: one for each: the header's, or what stands for one that is missing or not the only one of its kind
    names: tuple[str, ...]
    #: the cells of the line that names the columns, without blanks around; none where no line does
    header: tuple[str, ...]
    #: the last line that is skipped, whether it names the columns or not
    skipped: tuple[str, ...]
    #: the first step
    first: tuple[str, ...]
    #: the number of skipped lines
    line: int
    delimiter: str
    decimal: str

    @property
    def spare(self) -> str | None:
        """The name of a last column that every line seems to have only because it ends with a delimiter."""
        is_spare = len(self.header) > 1 and not self.header[-1] and not self.first[-1]
        return self.names[-1] if is_spare else None

    @property
    def perhaps_names(self) -> tuple[str, ...]:
        """The cells of a skipped line, such as years, that is not known to name the columns and may; else none."""
        is_one_each = 1 < len(self.skipped) == len(set(self.skipped)) == len(self.names)
        return self.skipped if is_one_each and not self.header else ()

    def find(self, column: Column) -> str:
        """The name in `names` of the column that a recipe means. A name that is in the header wins over a place.

        Raises:
            DataError: there is none; or it is there twice, or may be a name as well as a place.
            RecipeError: the recipe names columns, and no line of the file does.
        """
        if (name := self.look_up(column)) is not None:
            return name
        if isinstance(column, Place) or (_PLACE.fullmatch(column) and not self.header):
            place = column.place if isinstance(column, Place) else column
            raise DataError(f"there is no column {place} in {self.origin}: it has {len(self.names)}, {self._places()}")
        raise self._unknown(column)

    def look_up(self, column: Column) -> str | None:
        """The same; None where there is no such column.

        Raises:
            DataError: it is there twice, or may be a name as well as a place.
        """
        if isinstance(column, Place):
            return self._at(column.place)
        if self.header.count(column) > 1:
            places = " and ".join(f"{{place: {place}}}" for place, name in enumerate(self.header) if name == column)
            raise DataError(
                f"column {column!r} is there {self.header.count(column)} times in {self.origin}:{self.line}: "
                f"write {places} for it in the recipe, whichever is meant"
            )
        if column in self.names and (self.header or _PLACE.fullmatch(column)):
            return column
        if not _PLACE.fullmatch(column) or self._at(int(column)) is None:
            return None
        if self._are_called_like(column):
            raise DataError(
                f"there is no column called {column} in {self.origin}:{self.line}; the columns are "
                f"{listed(self.names)}: if the column at this place is meant, write {{place: {column}}}"
            )
        return self._at(int(column))

    def is_by_place(self, column: Column) -> bool:
        """Whether the recipe's word for a column is a place in this file."""
        if isinstance(column, Place):
            return True
        return column not in self.header and bool(_PLACE.fullmatch(column)) and not self._are_called_like(column)

    def _at(self, place: int) -> str | None:
        return self.names[place] if -len(self.names) <= place < len(self.names) else None

    def _places(self) -> str:
        return f"0 .. {len(self.names) - 1}"

    def _are_called_like(self, number: str) -> bool:
        """Whether columns are called by numbers here, so that this one is rather a name than a place."""
        return any(_PLACE.fullmatch(name) and (name[0] == "-") == (number[0] == "-") for name in self.header)

    def _unknown(self, column: str) -> DataError | RecipeError:
        """Why there is no column of this name."""
        where = f"{self.origin}:{self.line}"
        names, first = (self.delimiter.join(cells) for cells in (self.skipped or self.first, self.first))
        if column not in (self.skipped or self.first) and (advice := advice_on_delimiter(names, first, column)):
            also = "" if self.line else ", and data.skip_lines: 1"
            return DataError(
                f"there is no column {column!r} in {self.origin}:{max(self.line, 1)}, which begins {names[:60]}: "
                f"{advice}{also}"
            )
        if self.header:
            return DataError(f"there is no column {column!r} in {where}; the columns are {listed(self.names)}")
        if self.line and column in self.skipped:
            return self.uneven(column)
        if self.line:
            return DataError(
                f"there is no column {column!r} in {where}, which begins {', '.join(self.skipped[:3])}: give the "
                f"column's place, {self._places()}, or see whether data.skip_lines and data.delimiter are right"
            )
        if column in self.first:
            return RecipeError(f"{self.origin}:1 holds the columns' names and is no step: set data.skip_lines: 1")
        return RecipeError(
            f"the recipe names column {column!r}, but with data.skip_lines: 0 no line names the columns "
            f"({self.origin}:1 begins {', '.join(self.first[:3])}): give the column's place, {self._places()}, or set "
            "data.skip_lines"
        )

    def has_names_of_rows(self) -> bool:
        """Whether the first column seems to hold names of rows, for which the header has no name, as R writes it."""
        if self.header or len(self.first) != len(self.skipped) + 1 or len(self.skipped) < 2:
            return False
        return not any(is_number(name, self.decimal) for name in self.skipped)

    def uneven(self, column: str = "") -> DataError:
        """The line that names the columns has fewer or more cells than the first step.

        Args:
            column: one that a recipe calls by its name there.
        """
        names, cells = len(self.skipped), len(self.first)
        told = f"{self.origin}:{self.line} has {names} names ({listed(self.skipped)}), the first step has {cells} cells"
        if cells != names + 1:
            return DataError(f"{told}: see whether data.delimiter is right, or give columns by place, {self._places()}")
        given = f" ({column!r} is {{place: {self.skipped.index(column) + 1}}})" if column else ""
        return DataError(
            f"{told}; it seems that the first column has no name, as R writes names of rows. Give columns by place"
            f"{given}, and leave that one out with data.ignore: [{{place: 0}}], or name all that are learned in "
            "data.features"
        )


def columns_of(content: bytes, origin: str, data: CsvData, named: Sequence[Column] = ()) -> Columns:
    """The columns of a file.

    Args:
        named: all that the recipe names.

    Raises:
        DataError: the file cannot be read, has no line left after `skip_lines`, or more columns than anybody learns.
    """
    skipped, first = _first_lines(content, origin, data)
    check_width(len(first), origin)
    header = skipped
    # every step ends with a delimiter, and the header does not
    if len(first) == len(skipped) + 1 and not first[-1] and (len(skipped) > 1 or any(c in skipped for c in named)):
        header = (*skipped, "")
    is_header = len(header) == len(first) and _names_columns(header, first, named, data.decimal)
    names = unique_names(header) if is_header else tuple(map(str, range(len(first))))
    header = header if is_header else ()
    return Columns(origin, names, header, skipped, first, data.skip_lines, data.delimiter, data.decimal)


def unique_names(header: Sequence[str]) -> tuple[str, ...]:
    """A column without a name, or with one that another has, is called by its place, as a recipe writes it."""
    stripped = [name.strip() for name in header]
    times = Counter(stripped)
    return tuple(n if n and times[n] == 1 else _stand_in(p, times) for p, n in enumerate(stripped))


def records(
    content: bytes,
    origin: str,
    delimiter: str,
    *,
    skip_lines: int = 0,
    strict: bool = False,
    on_fault: Callable[[int, str], object] | None = None,
) -> Iterator[tuple[int, list[str]]]:
    """Every record of a file, its skipped lines too, with the line it begins at (1-based); careful and slow.

    The cells are without the blanks around them, unless these are inside quotes.

    Args:
        skip_lines: each is one record, whatever quotes it opens.
        strict: refuse quotes that RFC 4180 does not know.
        on_fault: called with the line of a record that cannot be read, and the reason; what follows is read from the
            next line on.

    Raises:
        DataError: the file is not UTF-8; or a record cannot be read, and nobody asked for its fault; names file and
            line.
    """
    lines = io.StringIO(decoded(content, origin), newline="")
    csv.field_size_limit(max(csv.field_size_limit(), MOST_IN_A_CELL))
    for line in range(1, skip_lines + 1):
        skipped = without_blanks_around(lines.readline(), delimiter)
        try:
            yield line, next(csv.reader([skipped], delimiter=delimiter), [])
        except csv.Error as error:
            raise DataError(f"{origin}:{line}: {_said(error)}") from None
    steps = io.StringIO(without_blanks_around(lines.read(), delimiter), newline="")
    before = skip_lines
    reader = csv.reader(steps, delimiter=delimiter, strict=strict)
    while True:
        line, begin = before + reader.line_num + 1, steps.tell()
        try:
            record = next(reader, None)
        except csv.Error as error:
            if on_fault is None:
                raise DataError(f"{origin}:{line}: {_said(error)}") from None
            on_fault(line, _said(error))
            steps.seek(begin)
            steps.readline()
            before, reader = line, csv.reader(steps, delimiter=delimiter, strict=strict)
            continue
        if record is None:
            return
        yield line, record


def _said(error: csv.Error) -> str:
    return "a quote is opened and never closed" if "unexpected end of data" in str(error) else str(error)


def tabulated(content: bytes, origin: str) -> Iterator[tuple[int, list[str]]]:
    """Every line of a file of columns between tabulators, which has no quotes, with its number (1-based).

    Raises:
        DataError: the file is not UTF-8.
    """
    for number, line in enumerate(text_lines(content, origin), start=1):
        yield number, line.split("\t")


def text_lines(content: bytes, origin: str) -> list[str]:
    """The lines of a file without their ends.

    Raises:
        DataError: the file is not UTF-8.
    """
    lines = decoded(content, origin).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def decoded(content: bytes, origin: str) -> str:
    """The text of a file, without the mark in front of it.

    Raises:
        DataError: the file is no text, or in another encoding than UTF-8.
    """
    if other := no_text(content, origin):
        raise DataError(f"{other}, or leave it out of data.path")
    charset = charset_of(content)
    try:
        text = content.decode("utf-8").lstrip("\N{BYTE ORDER MARK}")
    except UnicodeDecodeError as error:
        raise DataError(f"{origin}: byte {error.start} is not UTF-8 text; {way_to_utf8(charset)}") from None
    if charset:
        raise DataError(f"{origin} is {charset} text, not UTF-8: {way_to_utf8(charset)}")
    return text


def _first_lines(content: bytes, origin: str, data: CsvData) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The cells of the last skipped line, if any, and of the first that is a step, without blanks around them."""
    skipped: tuple[str, ...] = ()
    for line, record in records(content, origin, data.delimiter, skip_lines=data.skip_lines):
        cells = tuple(cell.strip() for cell in record)
        if line > data.skip_lines and record:
            return skipped, cells
        skipped = cells
    raise DataError(f"{origin} is empty" + (f" after data.skip_lines: {data.skip_lines}" if content.strip() else ""))


def _names_columns(skipped: Sequence[str], first: Sequence[str], named: Sequence[Column], decimal: str) -> bool:
    """Whether the line before the first step names the columns. Numbers may be names, or a line that is no header."""
    if not any(is_number(name, decimal) for name in skipped):
        return bool(skipped)
    words = (
        name and not is_number(name) and is_number(cell, decimal) for name, cell in zip(skipped, first, strict=True)
    )
    return any(words) or any(column in skipped for column in named)


def _stand_in(place: int, others: Container[str]) -> str:
    name = f"{{place: {place}}}"
    while name in others:
        name = f"({name})"
    return name
