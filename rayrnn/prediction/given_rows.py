"""What a program or request gives -> canonical rows: mappings in the row schema, or by the features' names."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from rayrnn.data.prepare import needs_to_read
from rayrnn.data.rows import CONTENTS, canonical
from rayrnn.errors import DataError, UsageError
from rayrnn.runs.model import Trained
from rayrnn.wording import listed


def rows_of_given(rows: Any, model: Trained) -> pa.Table:
    """Canonical rows of what is given: one object, or a list of them, each in the row schema.

    The numbers of `values` may also stand by the names of the features that were learned, a list a name.

    Raises:
        UsageError: it is no row.
        DataError: a row holds something else than what was learned; names it and its step.
    """
    given = rows if isinstance(rows, list) else [rows]
    if not given:
        raise UsageError("there are no rows: give an object a sequence")
    plain = [_row(row, place, model) for place, row in enumerate(given)]
    names = {name for row in plain for name in row}
    columns = {name: _column([row.get(name) for row in plain], name) for name in sorted(names)}
    return checked_rows(pa.table(columns), model)


def _row(row: Any, place: int, model: Trained) -> dict[str, Any]:
    where = f"row {place}"
    if not isinstance(row, Mapping):
        raise UsageError(f"{where} is {_shown(row)}; a row is an object such as {_example(model)}")
    own = dict(row)
    key = own.pop("key", None)
    own = {name: value for name, value in own.items() if name not in ("label", "target") and value is not None}
    names = model.encoding.column_names
    if names and not model.encoding.symbols and set(own) >= set(names):
        own = _by_names(own, names, model, where)
    unknown = [name for name in own if name not in CONTENTS]
    if unknown or not own:
        what = f"has {listed(unknown)}, which is not read" if unknown else "holds no sequence"
        raise UsageError(f"{where} {what}; a row is an object such as {_example(model)}")
    if empty := [name for name, cells in own.items() if isinstance(cells, list | str) and not cells]:
        raise UsageError(f"{where} has no step: {listed(empty)} is empty")
    return {"key": str(place) if key is None else str(key), **own}


def _by_names(own: Mapping[str, Any], names: tuple[str, ...], model: Trained, where: str) -> dict[str, Any]:
    """`values` and `categories` out of a list for each name."""
    sizes = {name: len(own[name]) if isinstance(own[name], list) else -1 for name in names}
    if min(sizes.values()) != max(sizes.values()) or min(sizes.values()) < 0:
        told = listed([f"{name} ({size if size >= 0 else 'no list'})" for name, size in sizes.items()])
        raise UsageError(f"{where}: every feature has a list, all of one length; here are {told}")
    width = model.encoding.inputs.num_columns - len(getattr(model.encoding.inputs, "category_names", ()))
    steps = [list(step) for step in zip(*(own[name] for name in names), strict=True)]
    found: dict[str, Any] = {"values": [step[:width] for step in steps]} if width else {}
    if width < len(names):
        found["categories"] = [[str(word) for word in step[width:]] for step in steps]
    return found


def _column(cells: list[Any], name: str) -> pa.Array:
    try:
        return pa.array(cells)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise DataError(f"`{name}` cannot be read: {next(iter(str(error).splitlines()), '')}") from None


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
