"""What the columns of a set of CSV files are for, found out once, from the first of them."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rayrnn.data.sources.labels import Target
from rayrnn.data.sources.tables import Roles
from rayrnn.errors import DataError, RecipeError
from rayrnn.recipe.data_sections import Column, CsvData

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|infinity|nan)", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """How the lines of every file become steps."""

    #: the file that this was read from
    origin: str
    delimiter: str
    skip_lines: int
    #: one name a column: the header's, or the column's place where there is none
    names: tuple[str, ...]
    #: a header says which column is which: other files may order them in another way
    by_name: bool
    roles: Roles


def layout_of(
    content: bytes, origin: str, data: CsvData, target: Target, *, labelled: bool = True, num_columns: int | None = None
) -> Layout:
    """Read the columns' names and number off a file and settle what each is for.

    Args:
        labelled: without it label columns are neither labels nor features, and need not be there.
        num_columns: how many columns the model learned from, where labels are not wanted.

    Raises:
        DataError: the file has no line left after `skip_lines`, or lacks a column that the recipe names.
    """
    names, first, is_named = _columns(content, origin, data)
    named = [*_several(data.label_column), *(data.features or ()), *data.categorical, *data.ignore]
    by_name = any(isinstance(column, str) for column in named) or (is_named and data.features is None)
    if by_name and data.skip_lines == 0:
        _refuse_names(named, first, origin)

    def resolve(columns: Sequence[Column]) -> tuple[str, ...]:
        return tuple(_resolve(column, names, origin, data.skip_lines) for column in columns)

    labels = resolve(_several(data.label_column)) if labelled else ()
    others = {*labels, *_ignored(data.ignore, names)}
    if not labelled:
        others |= _left_alone(data, names, others, num_columns)
    features = resolve(data.features) if data.features is not None else tuple(n for n in names if n not in others)
    words = resolve(data.categorical)
    roles = Roles(
        tuple(n for n in features if n not in words),
        tuple(n for n in features if n in words),
        labels,
        target,
        are_named=is_named,
    )
    _check(roles, words, origin)
    return Layout(origin, data.delimiter, data.skip_lines, names, by_name, roles)


def label_layout_of(content: bytes, origin: str, data: CsvData, target: Target) -> Layout:
    """The layout of a file that holds nothing but labels: one column, or where these are numbers one for each."""
    names, _, is_named = _columns(content, origin, data)
    if len(names) > 1 and target.needs.of_classes:
        raise DataError(f"{origin} has {len(names)} columns; a label file has one (task {target.needs.task})")
    return Layout(origin, data.delimiter, data.skip_lines, names, is_named, Roles((), (), names, target))


def records(
    content: bytes, origin: str, delimiter: str, *, skip_lines: int = 0, strict: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """Every record of a file, its skipped lines too, with the line it begins at (1-based); careful and slow.

    Args:
        skip_lines: each is one record, whatever quotes it opens.
        strict: refuse quotes that RFC 4180 does not know.

    Raises:
        DataError: the file is not UTF-8, or a record cannot be read; names file and line.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{origin}: byte {error.start} is not UTF-8 text; save the file as UTF-8") from None
    lines = io.StringIO(text, newline="")
    line = 0
    try:
        for line in range(1, skip_lines + 1):
            yield line, next(csv.reader([lines.readline()], delimiter=delimiter), [])
        reader = csv.reader(lines, delimiter=delimiter, strict=strict)
        line = skip_lines + 1
        for record in reader:
            yield line, record
            line = skip_lines + reader.line_num + 1
    except csv.Error as error:
        unclosed = "unexpected end of data" in str(error)
        raise DataError(f"{origin}:{line}: {'a quote is opened and never closed' if unclosed else error}") from None


def is_number(cell: str) -> bool:
    """Whether a cell's text is one that is read as a number."""
    return _NUMBER.fullmatch(cell.strip(" \t")) is not None


def _columns(content: bytes, origin: str, data: CsvData) -> tuple[tuple[str, ...], list[str], bool]:
    """The columns' names, the cells of the first step, and whether the names are a header's."""
    header, first = _first_lines(content, origin, data)
    if header is None or len(header) != len(first):
        return _places(len(first)), first, False
    return unique_names(header), first, not any(map(is_number, header))


def _first_lines(content: bytes, origin: str, data: CsvData) -> tuple[list[str] | None, list[str]]:
    """The last skipped line, if any, and the first that is a step."""
    header = None
    for line, record in records(content, origin, data.delimiter, skip_lines=data.skip_lines):
        if line > data.skip_lines and record:
            return header, record
        header = record
    raise DataError(f"{origin} is empty" + (f" after data.skip_lines: {data.skip_lines}" if content.strip() else ""))


def unique_names(header: Sequence[str]) -> tuple[str, ...]:
    """A column without a name, or with one that another has, is called by its place."""
    stripped = [name.strip() for name in header]
    return tuple(n if n and stripped.count(n) == 1 else str(place) for place, n in enumerate(stripped))


def _places(count: int) -> tuple[str, ...]:
    return tuple(str(place) for place in range(count))


def _several(columns: Column | tuple[Column, ...] | None) -> tuple[Column, ...]:
    """One column, several or none as so many."""
    if columns is None:
        return ()
    return columns if isinstance(columns, tuple) else (columns,)


def _refuse_names(wanted: Sequence[Column], first: list[str], origin: str) -> None:
    """The recipe names columns, but tells of no line that does."""
    named = [column for column in wanted if isinstance(column, str)]
    cells = [cell.strip() for cell in first]
    if all(name in cells for name in named):
        raise RecipeError(f"{origin}:1 holds the columns' names and is no step: set data.skip_lines: 1")
    raise RecipeError(
        f"the recipe names column {named[0]!r}, but with data.skip_lines: 0 no line names the columns ({origin}:1 "
        f"begins {', '.join(cells[:3])}): give the column's place, 0 .. {len(first) - 1}, or set data.skip_lines"
    )


def _resolve(column: Column, names: tuple[str, ...], origin: str, line: int) -> str:
    if isinstance(column, int):
        if not -len(names) <= column < len(names):
            raise DataError(f"there is no column {column} in {origin}: it has {len(names)}, 0 .. {len(names) - 1}")
        return names[column]
    if column not in names:
        raise DataError(f"there is no column {column!r} in {origin}:{line}; the columns are {', '.join(names)}")
    return column


def _ignored(columns: Sequence[Column], names: tuple[str, ...]) -> set[str]:
    """Those of the columns that are there."""
    places = {column for column in columns if isinstance(column, int) and -len(names) <= column < len(names)}
    return {names[place] for place in places} | {column for column in columns if isinstance(column, str)}


def _left_alone(data: CsvData, names: tuple[str, ...], ignored: set[str], num_columns: int | None) -> set[str]:
    """The label's columns; none where they are known by place and the file has no more than what was learned."""
    columns = _several(data.label_column)
    by_place = any(isinstance(column, int) for column in columns)
    num_features = len(names) - len(ignored & set(names)) if data.features is None else len(data.features)
    return set() if by_place and num_features == num_columns else _ignored(columns, names)


def _check(roles: Roles, words: tuple[str, ...], origin: str) -> None:
    needs = roles.target.needs
    if not roles.numbers and not roles.words:
        raise DataError(f"{origin} has no column to learn from: {', '.join(roles.labels)} is the label")
    if unused := [name for name in words if name not in roles.words]:
        raise RecipeError(f"data.categorical names column {unused[0]!r}, which is not among the features")
    if needs.of_classes and len(roles.labels) > 1:
        raise RecipeError(f"data.label_column names {len(roles.labels)} columns; task {needs.task} takes one")
    others = roles.numbers if needs.of_classes else roles.words if needs.is_labelled else ()
    if both := set(roles.labels) & set(others):
        raise RecipeError(
            f"column {both.pop()!r} is the label and a feature of another kind: take it out of data.features"
        )
    if "values" not in needs.contents and (roles.numbers or len(roles.words) != 1):
        raise RecipeError(f"{needs.task} learns one column of symbols: name it in data.features and data.categorical")
