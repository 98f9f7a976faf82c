"""What a program or request gives -> canonical rows: mappings in the row schema, or by the features' names."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from rayrnn.data.prepare import needs_to_read
from rayrnn.data.rows import CONTENTS, canonical
from rayrnn.errors import DataError, UsageError
from rayrnn.prediction.given_steps import known_ahead_names, rows_of_lists, static_names, step_names
from rayrnn.runs.model import Trained
from rayrnn.wording import did_you_mean, listed

#: as JSON calls them
_KINDS = {float: "numbers", str: "texts", bool: "truth values", dict: "objects", list: "lists"}


def rows_of_given(rows: Any, model: Trained) -> pa.Table:
    """Canonical rows of what is given: one object, or a list of them, each in the row schema.

    The steps may also stand by the names of the columns that were learned, a list a name.

    Raises:
        UsageError: it is no row.
        DataError: a row holds something else than what was learned; names it and its step.
    """
    given = rows if isinstance(rows, list) else [rows]
    if not given:
        raise UsageError("there are no rows: give an object a sequence")
    names = step_names(model)
    keys, plain = zip(*(_row(row, place, names, model) for place, row in enumerate(given)), strict=True)
    by_names = [_stands_by_names(row, names) for row in plain]
    if not any(by_names):
        every = sorted({name for row in plain for name in row})
        columns = {name: _column([row.get(name) for row in plain], name) for name in every}
        return checked_rows(pa.table({"key": pa.array(keys, pa.string()), **columns}), model)
    if not all(by_names):
        where = by_names.index(not by_names[0])
        raise UsageError(f"row {where} has other names than row 0: give all rows of a request in one form")
    lists = {name: _column([row[name] for row in plain], name) for name in names}
    return checked_rows(rows_of_lists(lists, keys, model), model)


def _stands_by_names(row: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether each feature has a list of its own; a feature that is called `values` may be, or the row schema's."""
    if not names or not set(names) <= set(row):
        return False
    return not any(name in CONTENTS and _are_steps(row[name]) for name in names)


def _are_steps(cells: Any) -> bool:
    return isinstance(cells, list) and bool(cells) and isinstance(cells[0], list)


def _row(row: Any, place: int, names: Sequence[str], model: Trained) -> tuple[str, dict[str, Any]]:
    """A row's key, and what is read of it."""
    where = f"row {place}"
    if not isinstance(row, Mapping):
        raise UsageError(f"{where} is {_shown(row)}; a row is an object such as {_example(model)}")
    own = {str(name): cells for name, cells in row.items() if cells is not None}
    key = None if "key" in names else own.pop("key", None)
    own = {name: cells for name, cells in own.items() if name in names or name not in ("label", "target")}
    if _stands_by_names(own, names):
        own = _with_lists({name: own[name] for name in names}, model)
        if wrong := [name for name, cells in own.items() if not isinstance(cells, list)]:
            raise UsageError(f"{where}: every feature has a list, a value a step; {listed(wrong)} has none")
    else:
        unknown = [name for name in own if name not in (*CONTENTS, *_beside(model))]
        if set(own) & set(names) and (missing := [name for name in names if name not in own]):
            meant = "".join(did_you_mean(name, missing) for name in unknown if name not in names)
            raise UsageError(f"{where} has no {listed(missing)}: every feature that was learned has a list{meant}")
        if unknown or not own:
            what = f"has {listed(unknown)}, which is not read" if unknown else "holds no sequence"
            raise UsageError(f"{where} {what}; a row is an object such as {_example(model)}")
        if "categories" in own:
            own["categories"] = _words_of(own["categories"])
    if empty := [name for name, cells in own.items() if isinstance(cells, list | str) and not cells]:
        raise UsageError(f"{where} has no step: {listed(empty)} is empty")
    return str(place) if key is None else str(key), own


def _beside(model: Trained) -> tuple[str, ...]:
    """What a row may have beside its steps."""
    forecast = model.encoding.forecast
    return ("future",) if forecast is not None and forecast.known else ()


def _with_lists(row: dict[str, Any], model: Trained) -> dict[str, Any]:
    """What is the same at every step, given once, at each of them."""
    static = static_names(model)
    others = {*static, *known_ahead_names(model)}
    lengths = [len(cells) for name, cells in row.items() if isinstance(cells, list) and name not in others]
    longest = max(lengths, default=0)
    return {
        name: [cells] * longest if name in static and not isinstance(cells, list) else cells
        for name, cells in row.items()
    }


def _words_of(steps: Any) -> Any:
    """The words of each step; whole numbers are words too."""
    if not isinstance(steps, list) or not all(isinstance(step, list) for step in steps):
        return steps
    return [[_word(word) for word in step] for step in steps]


def _word(word: Any) -> Any:
    if isinstance(word, float) and word.is_integer():
        word = int(word)
    return str(word) if isinstance(word, int) and not isinstance(word, bool) else word


def _column(cells: list[Any], name: str) -> pa.Array:
    try:
        return pa.array(cells)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        where = _odd_one(cells, [])
        raise DataError(f"`{name}` cannot be read: {where or next(iter(str(error).splitlines()), '')}") from None


def _odd_one(cells: Any, kinds: list[type], *places: int) -> str:
    """The first cell of another kind than those before it, by its row and step; empty where there is none."""
    if isinstance(cells, list):
        return next((told for n, cell in enumerate(cells) if (told := _odd_one(cell, kinds, *places, n))), "")
    kind = float if isinstance(cells, int) and not isinstance(cells, bool) else type(cells)
    if cells is None or kind in (kinds or [kind]):
        kinds += [kind] * (cells is not None)
        return ""
    row, *step = places
    where = f"row {row}, step {step[0]}" if step else f"row {row}"
    return f"{where} holds {_shown(cells)}, where {_KINDS.get(kinds[0], 'something else')} stood before"


def checked_rows(table: pa.Table, model: Trained) -> pa.Table:
    """Canonical rows, checked by what the run learned: those that cannot be read are told of here, by themselves.

    Raises:
        DataError: a row holds something else than what was learned; names it and its step.
    """
    rows = canonical(table, needs_to_read(model.recipe, model.encoding), labelled=False)
    model.encoding.inputs.read(rows)
    return rows


def _example(model: Trained) -> str:
    if "text" in needs_to_read(model.recipe, model.encoding).contents and model.encoding.symbols:
        return '{"text": "..."} or {"symbols": ["...", "..."]}'
    width = model.encoding.inputs.num_columns
    step = ", ".join(["0.0"] * min(width, 3)) + (", ..." if width > 3 else "")
    return f'{{"values": [[{step}], [{step}]]}}'


def _shown(value: Any) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}..."
