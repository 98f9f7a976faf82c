"""Rows of a table -> rows of sequences, for tables with one row a step and tables with one row a sequence.

Shapes: S steps of all sequences together, N sequences, F numeric features, C categorical ones, O numbers to predict.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from rayrnn.data.arrow_lists import depth, flat, is_list, numbers, side_by_side, unwrap, wrap
from rayrnn.data.beside_steps import with_roles
from rayrnn.data.narrowing import lost_before, lost_in_float64, with_lost
from rayrnn.data.rows import Label, with_feature_names
from rayrnn.data.sources.labels import Faults, first_faults, sequence_labels, step_labels
from rayrnn.data.sources.roles import Roles, changing, not_finite, places_of_roles, without_future
from rayrnn.data.words import can_be_words, missing_numbers, present, texts_of, words
from rayrnn.errors import DataError
from rayrnn.wording import closest, listed


def rows_of_steps(steps: pa.Table, offsets: np.ndarray, roles: Roles) -> tuple[pa.Table, Faults]:
    """Group steps that lie in order, sequence after sequence, into one row a sequence.

    Args:
        steps: the S steps; numeric columns of any number type, a null where a cell is empty.
        offsets: int64 [N + 1]; sequence n owns the steps offsets[n] .. offsets[n + 1], at least one.

    Returns:
        the columns of the row schema, without `key`, and what is wrong by sequence (such rows hold nonsense).
    """
    values, names = _matrix(steps, roles.numbers, roles.target.missing)
    places, future = places_of_roles(roles, names), None
    faults: Faults = {}
    if roles.known_ahead:
        steps, offsets, values, future, faults = without_future(steps, offsets, values, roles, names)
    columns, input_faults = _inputs(steps, offsets, values, names, roles)
    faults = changing(steps, offsets, values, roles, names) | faults | input_faults
    if future is not None:
        columns["future"] = future
    if roles.weight is not None:
        weights = _matrix(steps, [roles.weight], roles.target.missing)[0][:, 0]
        columns["weight"] = wrap(pa.array(weights), np.diff(offsets))
    if roles.labels and roles.target.needs.is_labelled:
        columns["label"], label_faults = _labels(steps, offsets, roles)
        faults = label_faults | faults
    rows = with_roles(pa.table(columns), places)
    if not roles.are_named:
        return rows, faults
    ahead = [names[place] for place in places.known]
    return with_feature_names(rows, {"values": names, "categories": roles.words, "future": ahead}), faults


def rows_of_sequences(
    table: pa.Table, names: Mapping[str, str], categorical: Sequence[str] = (), missing: Sequence[str] = ()
) -> pa.Table:
    """Give the columns of a table that has one row a sequence the names they have in the row schema.

    Args:
        names: the row schema's name -> the table's.
        categorical: columns that are lists with one word a step each; they become `categories`.
        missing: words that stand where there is no value.

    Raises:
        DataError: a column is missing, or categorical columns disagree about the number of steps.
    """
    check_columns(table.schema, [*names.values(), *categorical])
    for name in categorical:
        kind = table.schema.field(name).type
        if depth(kind) != 1 or not can_be_words(kind.value_type):
            raise DataError(
                f"column {name!r} (data.categorical) holds {kind}; where a row is a sequence "
                "it is a list with a word for each step"
            )
    columns = {name: flat(table[column]) for name, column in names.items()}
    for name in {"key", "symbols", "label"} & columns.keys():
        columns[name] = present(columns[name], missing)
    if categorical:
        lists = [unwrap(flat(table[name])) for name in categorical]
        sizes = lists[0][0]
        for name, (others, _) in zip(categorical, lists, strict=True):
            for row in np.flatnonzero(others != sizes):
                raise DataError(
                    f"row {row}: column {name!r} has {others[row]} words, {categorical[0]!r} has {sizes[row]}"
                )
        columns["categories"] = wrap(
            abreast([_words_of(name, items, missing) for name, (_, items) in zip(categorical, lists, strict=True)]),
            sizes,
        )
    return pa.table(columns)


def _words_of(name: str, items: pa.Array, missing: Sequence[str]) -> pa.Array:
    try:
        return words(items, missing)
    except pa.ArrowInvalid as error:
        raise DataError(f"column {name!r} (data.categorical) cannot be words: {error}") from None


def with_words(steps: pa.Table, roles: Roles) -> pa.Table:
    """The same steps, whose words (and labels that are classes) have no blanks around, and are null without a value."""
    for name in (*roles.words, *(roles.labels if roles.target.needs.of_classes else ())):
        cells = words(flat(steps[name]), roles.target.missing)
        steps = steps.set_column(steps.column_names.index(name), name, cells)
    return steps


def joined(pieces: Sequence[pa.Table], roles: Roles) -> pa.Table:
    """All steps in one table, their numbers as float64, whatever types of numbers the pieces have.

    It knows which columns have numbers that are one in float64 (`rows.with_lost`).
    """
    lost = [lost_before(piece) | _lost(piece, roles) for piece in pieces]
    steps = pa.concat_tables([_with_floats(piece, roles) for piece in pieces], promote_options="permissive")
    return with_lost(steps, {name: pair for found in lost for name, pair in found.items()})


def _with_floats(steps: pa.Table, roles: Roles) -> pa.Table:
    for name in roles.all_numbers:
        kind = pa.float64()
        for _ in range(depth(steps.schema.field(name).type)):
            kind = pa.list_(kind)
        steps = steps.set_column(steps.column_names.index(name), name, steps[name].cast(kind, safe=False))
    return steps


def _lost(steps: pa.Table, roles: Roles) -> dict[str, tuple[str, str]]:
    lost = {}
    for name in roles.all_numbers:
        cells = flat(steps[name])
        if pair := lost_in_float64(unwrap(cells)[1] if depth(cells.type) else cells):
            lost[name] = pair
    return lost


def check_columns(schema: pa.Schema, names: Sequence[str]) -> None:
    """Raise a DataError where a table lacks a column, or has two of its name."""
    times = Counter(schema.names)
    for name in names:
        if times[name] > 1:
            raise DataError(
                f"column {name!r} is there {times[name]} times: give each a name of its own, leave all but one out of "
                "the table, or leave them out of what is learned (data.ignore, or data.features without them)"
            )
        if not times[name]:
            raise DataError(
                f"there is no column {name!r}; the columns are {listed(schema.names)}{_meant(name, schema)}"
            )


def _meant(name: str, schema: pa.Schema) -> str:
    """The end of a sentence about a column that is not there."""
    outer = name.partition(".")[0]
    if outer in schema.names and pa.types.is_struct(schema.field(outer).type):
        return f"; {outer!r} has fields, which are not read: give {name!r} a column of its own"
    close = closest(name, schema.names)
    return f"; did you mean {close!r}?" if close else ""


def keyed(keys: pa.Array, rows: pa.Table, places: np.ndarray, reasons: Mapping[int, str], *, on_error: str) -> pa.Table:
    """Put the key first, and last the reason of every sequence that cannot be used (its other columns are null).

    The last column is `fault` where one such sequence ends the run, `skipped` where it is only left out.

    Args:
        keys: of all sequences.
        rows: what could be read; row i is sequence places[i], and is left out where that has a reason.
    """
    column = "fault" if on_error == "stop" else "skipped"
    bad = np.isin(np.arange(len(keys)), list(reasons))
    why = pa.array([reasons[number] for number in sorted(reasons)], pa.string())
    unusable = pa.table({"key": keys.filter(pa.array(bad)), column: why})
    if bad.all():
        return unusable
    usable = rows.add_column(0, "key", keys.take(pa.array(places))).filter(pa.array(~bad[places]))
    if not reasons:
        return usable.append_column(column, pa.nulls(len(usable), pa.string()))
    return pa.concat_tables([usable, unusable], promote_options="default").combine_chunks()


def _inputs(
    steps: pa.Table, offsets: np.ndarray, values: np.ndarray, names: tuple[str, ...], roles: Roles
) -> tuple[dict[str, pa.Array], Faults]:
    """What the network reads, and what is wrong."""
    faults = not_finite(values, offsets, names)
    texts = [texts_of(flat(steps[name])) for name in roles.words]
    if len(texts) == 1 and not roles.numbers:
        empty = np.flatnonzero(np.asarray(texts[0].is_null()))
        why = f"column {roles.words[0]!r} is empty; every step needs a symbol: fill it in, or leave the sequence out"
        faults = first_faults(empty, offsets, [why] * len(empty)) | faults
        return {"symbols": wrap(texts[0].fill_null(""), np.diff(offsets))}, faults
    columns = {"values": _rows(values, offsets)} if roles.numbers else {}
    if texts:
        columns["categories"] = wrap(abreast([text.fill_null("") for text in texts]), np.diff(offsets))
    return columns, faults


def abreast(words: Sequence[pa.Array]) -> pa.FixedSizeListArray:
    """C columns of words -> C words a step; word c of step s is number c * S + s of all."""
    order = np.arange(len(words) * len(words[0])).reshape(len(words), -1).T.reshape(-1)
    return side_by_side(pa.concat_arrays(words).take(pa.array(order)), len(words))


def _labels(steps: pa.Table, offsets: np.ndarray, roles: Roles) -> tuple[pa.Array, Faults]:
    if roles.target.needs.label is Label.NUMBERS:
        answers, names = _matrix(steps, roles.labels, roles.target.missing)
        faults = not_finite(np.where(np.isinf(answers), answers, 0), offsets, names)
        return _rows(answers, offsets), faults
    cells = steps[roles.labels[0]]
    if roles.target.needs.label is Label.CLASSES:
        return step_labels(cells, offsets, roles.target)
    return sequence_labels(cells, offsets, roles.target)


def _matrix(steps: pa.Table, names: Sequence[str], missing: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numeric columns side by side: float64 [S, numbers], NaN where a cell is empty; and each number's name.

    A column of lists is as many numbers as its longest list has: `name[0]`, `name[1]` ...
    """
    parts, called = [np.zeros((len(steps), 0))], []
    for name in names:
        cells = flat(steps[name])
        part = _lists(cells) if is_list(cells.type) else numbers(cells)[:, None]
        parts.append(part)
        called += [f"{name}[{place}]" for place in range(part.shape[1])] if is_list(cells.type) else [name]
    matrix = np.concatenate(parts, axis=1)
    if absent := missing_numbers(missing):
        matrix[np.isin(matrix, absent)] = np.nan
    return matrix, tuple(called)


def _lists(cells: pa.Array) -> np.ndarray:
    sizes, items = unwrap(cells)
    matrix = np.full((len(cells), int(sizes.max(initial=1))), np.nan)
    matrix[np.arange(matrix.shape[1]) < sizes[:, None]] = numbers(items)
    return matrix


def _rows(values: np.ndarray, offsets: np.ndarray) -> pa.ListArray:
    """float64 [S, W] -> list<fixed_size_list<float64, W>> [N]."""
    return wrap(side_by_side(values.reshape(-1), values.shape[1]), np.diff(offsets))
