"""What the columns of a set of CSV files are for, found out once, from the first of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rayrnn.data.sources.csv_header import Columns, columns_of
from rayrnn.data.sources.index_columns import index_of_header, left_out, not_learned, say_no_label
from rayrnn.data.sources.labels import Target
from rayrnn.data.sources.roles import Roles
from rayrnn.data.sources.source import Wanted
from rayrnn.errors import DataError, RecipeError
from rayrnn.recipe.data_sections import Column, CsvData


@dataclass(frozen=True)
class Layout:
    """How the lines of every file become steps."""

    #: the file that this was read from
    origin: str
    delimiter: str
    skip_lines: int
    #: one name a column: the header's, or one that stands for it
    names: tuple[str, ...]
    #: a header says which column is which: other files may order them in another way
    by_name: bool
    roles: Roles
    #: what parts the whole of a number from its fraction
    decimal: str = "."
    #: a last column that has no name and, as far as is known, no cell
    spare: str | None = None
    #: the cells of the skipped line before the first step, where they may name columns and are not known to
    skipped: tuple[str, ...] = ()


def layout_of(content: bytes, origin: str, data: CsvData, target: Target, wanted: Wanted) -> Layout:
    """Read the columns' names and number off a file and settle what each is for.

    Where labels are not wanted their columns are neither labels nor features, and need not be there.

    Raises:
        DataError: the file has no line left after `skip_lines`, or lacks a column that the recipe names.
    """
    more = (*data.known_ahead, *data.static)
    named = [*_several(data.label_column), *(data.features or ()), *data.categorical, *data.ignore, *more]
    named += [*(data.forecast or ()), *_several(data.weight)]
    columns = columns_of(content, origin, data, (*named, *wanted.column_names))
    names = columns.names

    def resolve(key: str, wanted: Sequence[Column]) -> tuple[str, ...]:
        found = tuple(map(columns.find, wanted))
        if twice := [name for name in found if found.count(name) > 1]:
            raise RecipeError(f"{key} names column {twice[0]!r} of {origin} twice")
        return found

    labels = resolve("data.label_column", _several(data.label_column)) if wanted.labelled else ()
    spare = columns.spare if columns.spare not in _those_there(named, columns) else None
    weight = resolve("data.weight", _several(data.weight)) if wanted.weighed else ()
    others = {*labels, *weight, *_those_there(data.ignore, columns), *({spare} if spare else ())}
    if data.features is None:
        said = (*_several(data.label_column), *_several(data.weight), *data.categorical, *more)
        asked = {*others, *_those_there(said, columns)}
        named_here = columns.header[:-1] if spare else columns.skipped
        found = index_of_header(names[:-1] if spare else names, named_here)
        index = [name for name in found if asked | {name} < {*names}]
        others |= left_out(index, asked, wanted.column_names, wanted.say) | not_learned(names, wanted.column_names)
    left = [*(() if wanted.labelled else _several(data.label_column))]
    left += () if wanted.weighed else _several(data.weight)
    others |= _left_alone(left, data, columns, others, wanted.num_columns)
    features = resolve("data.features", data.features) if data.features is not None else ()
    if data.features is None:
        features = tuple(name for name in names if name not in others)
        if columns.has_names_of_rows() and names[0] in features:
            raise columns.uneven()
    known_ahead, static = resolve("data.known_ahead", data.known_ahead), resolve("data.static", data.static)
    features = tuple(dict.fromkeys((*features, *known_ahead, *static)))
    words = resolve("data.categorical", data.categorical)
    roles = Roles(
        tuple(n for n in features if n not in words),
        tuple(n for n in features if n in words),
        labels,
        target,
        are_named=bool(columns.header),
        forecast=resolve("data.forecast", data.forecast or ()),
        known_ahead=known_ahead,
        static=static,
        weight=weight[0] if weight else None,
    )
    _check(roles, words, origin)
    roles.check()
    by_name = bool(columns.header) and (data.features is None or not all(map(columns.is_by_place, named)))
    skipped = columns.perhaps_names if data.features is None else ()
    return Layout(origin, data.delimiter, data.skip_lines, names, by_name, roles, data.decimal, spare, skipped)


def label_layout_of(content: bytes, origin: str, data: CsvData, target: Target, say: Callable[[str], None]) -> Layout:
    """The layout of a file that holds nothing but labels: one column, or where these are numbers one for each.

    Args:
        say: how the user is told of an index beside them, which is no label.
    """
    columns = columns_of(content, origin, data)
    names = columns.names
    index = index_of_header(names, columns.skipped) if len(names) > 1 else []
    labels = tuple(name for name in names if name not in index)
    if len(labels) > 1 and target.needs.of_classes:
        raise DataError(f"{origin} has {len(names)} columns; a label file has one (task {target.needs.task})")
    if index:
        say_no_label(origin, say)
    by_name = bool(columns.header)
    roles = Roles((), (), labels, target)
    skipped = columns.perhaps_names
    return Layout(origin, data.delimiter, data.skip_lines, names, by_name, roles, data.decimal, skipped=skipped)


def _several(columns: Column | tuple[Column, ...] | None) -> tuple[Column, ...]:
    """One column, several or none as so many."""
    if columns is None:
        return ()
    return columns if isinstance(columns, tuple) else (columns,)


def _those_there(wanted: Sequence[Column], columns: Columns) -> set[str]:
    """Those of the columns that are there."""
    return {name for column in wanted if (name := columns.look_up(column)) is not None}


def _left_alone(
    left: Sequence[Column], data: CsvData, columns: Columns, ignored: set[str], num_columns: int | None
) -> set[str]:
    """The columns of labels and weights that are not wanted; none where they are known by place and the file has no
    more than what was learned."""
    num_features = len(columns.names) - len(ignored) if data.features is None else len(data.features)
    by_place = any(map(columns.is_by_place, left))
    return set() if by_place and num_features == num_columns else _those_there(left, columns)


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
