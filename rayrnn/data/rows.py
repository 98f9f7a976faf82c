"""What a row of a dataset of sequences holds, and the one Arrow type that each column is brought to.

    key          string                                      names the sequence
    text         string                                      its steps: characters,
    symbols      list<string>                                or words (whole numbers are words too),
    values       list<fixed_size_list<float64, F>>           or F numbers each,
    categories   list<fixed_size_list<string, C>>            and / or C words of categorical columns each, "" = none
    label        string                                      one class a sequence, null (NaN, "") = none
                 list<string>                                one class a step, null = none
                 list<string>                                several classes a sequence (`a;b` too), null = nobody knows
                 fixed_size_list<float64, O>                 O numbers a sequence, NaN = none
                 list<fixed_size_list<float64, O>>           O numbers a step, NaN = none
    target       list<string>                                symbols of an answer with a length of its own (a string is
                                                             cut into them), null = none
    future       list<fixed_size_list<float64, K>>           of the steps after the last, the K numbers known ahead
    weight       float64, or list<float64>                   how much a sequence counts, or each of its steps

A source may add `fault` or `skipped`: why a row, whose other columns are null, cannot be used (`keyed` in tables.py).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from rayrnn.data.arrow_lists import are_flags, depth, ends, flat, numbers, side_by_side, unwrap, wrap
from rayrnn.data.beside_steps import check_future, read_future, read_weights, roles_of, with_roles
from rayrnn.data.units import CHARACTERS, Units
from rayrnn.data.words import texts_of
from rayrnn.errors import DataError
from rayrnn.wording import listed

_KEY = b"rayrnn.features"
#: of one table
MOST_COLUMNS = 100_000
CONTENTS = ("text", "symbols", "values", "categories")
REASONS = ("fault", "skipped")
#: all columns that a row may have
ROW = ("key", *CONTENTS, "label", "target", "future", "weight", *REASONS)
SYMBOLS = pa.list_(pa.string())
#: what the column `target` knows where it was cut from texts
_TEXT = ("text",)


class Label(Enum):
    """What a row's column `label` holds."""

    NOTHING = "nothing that is learned"
    CLASS = "one class a sequence"
    CLASSES = "one class a step"
    NUMBERS = "one number, or several, a sequence or a step"
    SET = "several classes a sequence"
    SEQUENCE = "symbols of a sequence of its own length, in the column `target`"


@dataclass(frozen=True)
class Needs:
    """What a task needs of a row: all that sources, rows and sequences need to know about it."""

    #: as messages call it
    task: str
    #: what is to be learned; where it is not NOTHING every row must have it
    label: Label = Label.NOTHING
    #: the columns that the steps may lie in
    contents: tuple[str, ...] = CONTENTS
    #: the answer is the row itself so many steps later: no more steps than these have none
    ahead: int = 0
    #: whether the last `ahead` steps are read; if not, they are answers only
    reads_last: bool = True
    #: whether every symbol of all sequences must be known; if not, rare ones are learned as the unknown one
    every_symbol: bool = False
    #: that is what the training part has less often
    rarest: int = 2
    rarest_target: int = 1
    #: symbols that there are, seen or not
    known_symbols: tuple[str, ...] = ()
    #: what a text is cut into, that is read and that is the target
    units: Units = CHARACTERS
    target_units: Units = CHARACTERS
    #: whether later steps are the answer, so that what is known of the future is read; and how many steps after the
    #: last must be known where there is an answer to give
    forecasts: bool = False
    told_ahead: int = 0
    #: whether weights are read, where something is learned
    weighed: bool = True

    @property
    def column(self) -> str:
        """Where the answer stands, if there is something to learn in one."""
        return "target" if self.takes_sequences else "label"

    @property
    def is_labelled(self) -> bool:
        """Whether there is something to learn in a label or a target."""
        return self.label is not Label.NOTHING

    @property
    def takes_sets(self) -> bool:
        """Whether the label names any number of classes."""
        return self.label is Label.SET

    @property
    def takes_sequences(self) -> bool:
        """Whether the answer has a length of its own."""
        return self.label is Label.SEQUENCE

    @property
    def can_cut(self) -> bool:
        """Whether it is known how texts are cut, or is still to be found in the training part."""
        return self.units.are_found and self.target_units.are_found

    @property
    def of_classes(self) -> bool:
        """Whether the label names classes."""
        return self.label in (Label.CLASS, Label.CLASSES, Label.SET)

    @property
    def answers_steps(self) -> bool:
        """Whether there is an answer at every step; numbers may be that too, which only the data says."""
        return self.label in (Label.CLASSES, Label.NOTHING)

    def steps(self, table: pa.Table) -> np.ndarray:
        """The steps that a network reads of every row of a canonical table: int64 [N]."""
        return step_counts(table) - (0 if self.reads_last else self.ahead)


def with_feature_names(rows: pa.Table, names: Mapping[str, Sequence[str]]) -> pa.Table:
    """The same rows, whose columns (those that are there) know their features' names; none are no names."""
    fields = [
        field.with_metadata({**(field.metadata or {}), _KEY: json.dumps(names[field.name])})
        if names.get(field.name)
        else field
        for field in rows.schema
    ]
    return pa.Table.from_arrays(rows.columns, schema=pa.schema(fields))


def check_width(columns: int, origin: str) -> None:
    """
    Raises:
        DataError: a table has more columns than anybody learns; its rows may be what was meant by columns.
    """
    if columns > MOST_COLUMNS:
        raise DataError(
            f"{origin} has {columns:,} columns, and at most {MOST_COLUMNS:,} are read: a row is one step of a "
            "sequence; turn the table if its columns are the steps"
        )


def feature_names(schema: pa.Schema, column: str) -> tuple[str, ...]:
    """The names of the features in `values` or `categories`; none where they are not known."""
    metadata = schema.field(column).metadata if column in schema.names else None
    return tuple(json.loads(metadata[_KEY])) if metadata and _KEY in metadata else ()


def places_of(learned: Sequence[str], here: Sequence[str]) -> np.ndarray | None:
    """Where the features that were learned stand among those that are here; None where they need not be moved.

    Raises:
        DataError: one of them is not here.
    """
    if not learned or not here or tuple(learned) == tuple(here):
        return None
    places = {name: place for place, name in enumerate(here)}
    missing = [name for name in learned if name not in places]
    if missing:
        raise DataError(
            f"the model learned the features {listed(learned)}; these sequences have {listed(here)}, "
            f"and no {listed(missing)}"
        )
    return np.array([places[name] for name in learned])


def canonical(table: pa.Table, needs: Needs, *, labelled: bool) -> pa.Table:
    """Bring the rows of one block to the canonical types.

    Args:
        labelled: whether a label that is needed must be there (learning); without it one that is there is used.

    Raises:
        DataError: a column is missing or holds something else; names the column, or the sequence and its step.
    """
    _check_columns(table.column_names, needs, labelled)
    keys = _keys(flat(table["key"]))
    columns = {"key": keys}
    for name in CONTENTS:
        if name in table.column_names:
            columns[name] = _READERS[name](flat(table[name]), keys)
    if "text" in columns and needs.units.kind != "characters" and needs.units.are_found:
        columns["symbols"] = needs.units.cut_all(columns.pop("text"))
    steps = step_counts(pa.table(columns))
    if "categories" in columns and "values" in columns:
        _check_sizes("categories", unwrap(columns["categories"])[0], steps, keys)
    if needs.column in table.column_names and needs.is_labelled:
        columns[needs.column] = _labels(flat(table[needs.column]), needs, steps, keys)
    columns |= _beside(table, columns, needs, steps, labelled=labelled)
    names = {name: feature_names(table.schema, name) for name in ("values", "categories", "future")}
    if "target" in columns and (depth(flat(table["target"]).type) == 0 or was_text(table.schema)):
        names["target"] = _TEXT
    rows = with_feature_names(pa.table(columns), names)
    if needs.told_ahead and not labelled:
        check_future(rows, steps, needs.told_ahead, names["future"])
    return with_roles(rows, roles_of(table.schema))


def _beside(
    table: pa.Table, columns: Mapping[str, pa.Array], needs: Needs, steps: np.ndarray, *, labelled: bool
) -> dict[str, pa.Array]:
    found = {}
    if needs.forecasts and "future" in table.column_names:
        found["future"] = read_future(flat(table["future"]), columns["key"])
    if needs.weighed and labelled and "weight" in table.column_names:
        per_step = needs.answers_steps or (needs.label is Label.NUMBERS and depth(columns["label"].type) == 2)
        found["weight"] = read_weights(flat(table["weight"]), steps, columns["key"], per_step=per_step)
    return found


def was_text(schema: pa.Schema) -> bool:
    """Whether the targets of canonical rows were texts, and not lists of symbols."""
    return feature_names(schema, "target") == _TEXT


def step_counts(table: pa.Table) -> np.ndarray:
    """Characters, words or rows of values in every sequence of a canonical table: int64 [N]."""
    name = next(name for name in CONTENTS if name in table.column_names)
    cells = flat(table[name])
    return np.asarray(pc.utf8_length(cells) if name == "text" else pc.list_value_length(cells), np.int64)


def raise_faults(faults: Sequence[str]) -> None:
    """
    Raises:
        DataError: the first few faults, where there are any.
    """
    if faults:
        more = [f"and {len(faults) - 3} more"] if len(faults) > 3 else []
        raise DataError("\n".join([*faults[:3], *more]))


def all_skipped(reasons: Sequence[str]) -> DataError:
    """What is wrong where every sequence was left out."""
    return DataError(f"no sequence is left: {len(reasons)} were skipped, the first because: {reasons[0]}")


def _check_columns(names: list[str], needs: Needs, labelled: bool) -> None:
    contents = [name for name in CONTENTS if name in names]
    if "key" not in names or contents not in (
        ["text"],
        ["symbols"],
        ["values"],
        ["categories"],
        ["values", "categories"],
    ):
        raise DataError(
            f"the columns are {listed(names)}; a row of sequences has `key` (a string that names it) and one of "
            f"`text`, `symbols` and `values` (beside which `categories` may stand)"
        )
    if not set(contents) <= set(needs.contents):
        learned = " or ".join(f"`{name}`" for name in needs.contents)
        raise DataError(f"{needs.task} learns {learned}; these sequences hold {' and '.join(contents)}")
    if labelled and needs.is_labelled and needs.column not in names:
        raise DataError(f"{needs.task} needs labels, a column `{needs.column}` of each row; these have {listed(names)}")


def _keys(cells: pa.Array) -> pa.Array:
    try:
        return texts_of(cells).fill_null("")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(f"column `key` holds {cells.type}; it names the sequences, with text or numbers") from None


def _text(cells: pa.Array, keys: pa.Array) -> pa.Array:
    return _text_or_null("text", cells).fill_null("")


def _text_or_null(name: str, cells: pa.Array) -> pa.Array:
    kind = cells.type.value_type if kinds.is_dictionary(cells.type) else cells.type
    if not (kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_null(kind)):
        raise DataError(f"column `{name}` holds {kind}, not strings")
    return cells.cast(pa.string())


def _symbols(cells: pa.Array, keys: pa.Array) -> pa.Array:
    if depth(cells.type) != 1:
        raise DataError(f"column `symbols` holds {cells.type}; every row must be a list of words or of whole numbers")
    sizes, items = unwrap(cells)
    words = _words(items, "symbols")
    _check_no_nulls("symbols", words, sizes, keys)
    return wrap(words, sizes)


def values_of(cells: pa.Array, keys: pa.Array) -> pa.Array:
    """Numbers at steps as canonical rows have them.

    Raises:
        DataError: they are something else; names the sequence and its step.
    """
    sizes, items = _items("values", cells, (1, 2))
    matrix = _matrix("values", items, sizes, keys)
    broken = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(broken):
        raise DataError(
            f"{_place(broken[0], sizes, keys)}: `values` holds {matrix[broken[0]].tolist()}; null, NaN and infinity "
            f"cannot be learned from: fill them in, or leave the sequence out"
        )
    return wrap(side_by_side(matrix.reshape(-1), matrix.shape[1]), sizes)


def _categories(cells: pa.Array, keys: pa.Array) -> pa.Array:
    sizes, items = _items("categories", cells, (2,))
    widths, words = unwrap(items)
    _check_widths("categories", widths, sizes, keys)
    return wrap(side_by_side(_words(words, "categories").fill_null(""), int(widths[0]) if len(widths) else 1), sizes)


_READERS = {"text": _text, "symbols": _symbols, "values": values_of, "categories": _categories}


def _labels(cells: pa.Array, needs: Needs, steps: np.ndarray, keys: pa.Array) -> pa.Array:
    if needs.label is Label.CLASS:
        if depth(cells.type) != 0:
            raise DataError(
                f"column `label` holds {cells.type}; {needs.task} takes one class a sequence, and several where "
                "data.several is true"
            )
        return _words(cells, "label")
    if needs.label is Label.SET:
        return _sets(cells)
    if needs.label is Label.SEQUENCE:
        return _targets(cells, needs, keys)
    if needs.label is Label.CLASSES:
        sizes, items = _items("label", cells, (1,))
        _check_sizes("label", sizes, steps, keys)
        return wrap(_words(items, "label"), sizes)
    if depth(cells.type) < 2:
        return _answers(cells, keys)
    sizes, items = _items("label", cells, (2,))
    _check_sizes("label", sizes, steps, keys)
    matrix = _matrix("label", items, sizes, keys)
    return wrap(side_by_side(matrix.reshape(-1), matrix.shape[1]), sizes)


def _sets(cells: pa.Array) -> pa.Array:
    """The classes of every sequence, each once; of a text those between its semicolons."""
    if depth(cells.type) > 1:
        raise DataError(f"column `label` holds {cells.type}; several classes are a list, or text such as a;b")
    lists = cells if depth(cells.type) else pc.split_pattern(_words(cells, "label"), ";")
    sizes, items = unwrap(lists)
    if are_flags(sizes, items):
        raise DataError(
            "column `label` holds a 0 or 1 for every class; several classes are a list of those that apply, by their "
            "names or numbers, such as [2, 5]"
        )
    words = iter(pc.utf8_trim_whitespace(_words(items, "label").fill_null("")).to_pylist())
    rows = [[next(words) for _ in range(size)] for size in sizes.tolist()]
    classes = [list(dict.fromkeys(word for word in row if word)) for row in rows]
    return pa.array(classes, SYMBOLS, mask=np.asarray(lists.is_null()))


def _targets(cells: pa.Array, needs: Needs, keys: pa.Array) -> pa.Array:
    """Symbols of every target; a text is cut into them, unless it is still to be found how."""
    if depth(cells.type) == 0:
        texts = _text_or_null("target", cells)
        _check_targets(pc.utf8_length(texts), keys)
        return needs.target_units.cut_all(texts) if needs.target_units.are_found else texts
    if depth(cells.type) != 1:
        raise DataError(f"column `target` holds {cells.type}; it must be text, or lists of words")
    _check_targets(pc.list_value_length(cells), keys)
    sizes, items = unwrap(cells)
    words = _words(items, "target")
    _check_no_nulls("target", words, sizes, keys)
    return pc.if_else(cells.is_valid(), wrap(words, sizes), pa.scalar(None, SYMBOLS))


def _check_targets(sizes: pa.Array, keys: pa.Array) -> None:
    empty = np.flatnonzero(np.asarray(pc.equal(sizes, 0).fill_null(False)))
    if len(empty):
        raise DataError(
            f"sequence {keys[int(empty[0])].as_py()!r} has an empty target: give it one, or leave the sequence out"
        )


def _answers(cells: pa.Array, keys: pa.Array) -> pa.Array:
    """One number, or O of them, a sequence; a row without has NaN."""
    matrix = _matrix("label", cells, np.ones(len(cells), np.int64), keys)
    return side_by_side(matrix.reshape(-1), matrix.shape[1])


def _items(name: str, cells: pa.Array, depths: tuple[int, ...]) -> tuple[np.ndarray, pa.Array]:
    if depth(cells.type) not in depths:
        nested = " or ".join("lists of lists" if depth == 2 else "lists" for depth in depths)
        raise DataError(f"column `{name}` holds {cells.type}; its rows must be {nested}, an item a step")
    return unwrap(cells)


def _words(cells: pa.Array, name: str) -> pa.Array:
    """Strings, null where there is no value; whole numbers as their digits, also where a table keeps them as 1.0."""
    try:
        if kinds.is_floating(cells.type):
            cells = pc.if_else(pc.is_nan(cells), pa.scalar(None, cells.type), cells).cast(pa.int64())
        return texts_of(cells)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"column `{name}` holds {cells.type}, not words or whole numbers: {error}") from None


def _matrix(name: str, items: pa.Array, sizes: np.ndarray, keys: pa.Array) -> np.ndarray:
    """Numbers, or equally long lists of numbers (a null one becomes NaN) -> float64 [items, numbers]."""
    try:
        if depth(items.type) == 0:
            return numbers(items).reshape(-1, 1)
        there = np.asarray(items.is_valid())
        widths, values = unwrap(items)
        _check_widths(name, np.where(there, widths, widths[there][:1]) if there.any() else widths, sizes, keys)
        matrix = np.full((len(items), int(widths[there][0]) if there.any() else 1), np.nan)
        matrix[there] = numbers(values).reshape(-1, matrix.shape[1])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(f"column `{name}` holds {items.type}, not numbers") from None
    return matrix


def _check_widths(name: str, widths: np.ndarray, sizes: np.ndarray, keys: pa.Array) -> None:
    bad = np.flatnonzero((widths != widths[:1]) | (widths == 0))
    if len(bad):
        raise DataError(
            f"{_place(bad[0], sizes, keys)}: `{name}` holds {widths[bad[0]]} items, the first step has {widths[0]}"
        )


def _check_sizes(name: str, sizes: np.ndarray, steps: np.ndarray, keys: pa.Array) -> None:
    bad = np.flatnonzero(sizes != steps)
    if len(bad):
        row = int(bad[0])
        raise DataError(f"sequence {keys[row].as_py()!r} has {steps[row]} steps, but `{name}` has {sizes[row]} items")


def _check_no_nulls(name: str, items: pa.Array, sizes: np.ndarray, keys: pa.Array) -> None:
    if items.null_count:
        step = int(np.flatnonzero(np.asarray(items.is_null()))[0])
        raise DataError(f"{_place(step, sizes, keys)}: `{name}` is empty; every step needs one")


def _place(step: int, sizes: np.ndarray, keys: pa.Array) -> str:
    """The sequence and its step, from 0, that a step of all sequences together is."""
    row = int(np.searchsorted(ends(sizes), step, side="right")) - 1
    return f"sequence {keys[row].as_py()!r}, step {step - int(ends(sizes)[row])}"
