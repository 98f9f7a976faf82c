"""Steps in columns that a program or a request gives -> rows of the row schema, as the run's own files become them.

S steps of all sequences together, N sequences.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as kinds

from rayrnn.data.arrow_lists import ends, flat, unwrap
from rayrnn.data.encoding import Numbers
from rayrnn.data.prepare import needs_to_read
from rayrnn.data.rows import raise_faults
from rayrnn.data.sources.grouping import holds_numbers
from rayrnn.data.sources.labels import Target
from rayrnn.data.sources.roles import Roles
from rayrnn.data.sources.source import Wanted
from rayrnn.data.sources.tables import check_columns, joined, rows_of_steps, with_words
from rayrnn.data.words import can_be_words
from rayrnn.errors import DataError, UsageError
from rayrnn.recipe.data_sections import StepData
from rayrnn.runs.model import Trained
from rayrnn.wording import counted


def step_names(model: Trained) -> tuple[str, ...]:
    """The columns that a step of the run's sequences has, by name; none where they have no names."""
    if isinstance(model.encoding.inputs, Numbers):
        return model.encoding.column_names
    named = [name for name in getattr(model.recipe.data, "categorical", ()) if isinstance(name, str)]
    return tuple(named) if len(named) == 1 else ()


def rows_of_named_steps(steps: pa.Table, offsets: np.ndarray, keys: Sequence[str], model: Trained) -> pa.Table:
    """Rows of the row schema, of steps whose columns have the names that were learned.

    Args:
        steps: the S steps, sequence after sequence; other columns are left alone.
        offsets: int64 [N + 1]; sequence n owns the steps offsets[n] .. offsets[n + 1], at least one.
        keys: of the N sequences.

    Raises:
        DataError: a column is missing or cannot be read, or a cell is empty; names the column and the step.
    """
    roles = _roles(model)
    check_columns(steps.schema, [*roles.numbers, *roles.words])
    for name in roles.numbers:
        if not holds_numbers(kind := steps.schema.field(name).type) and not kinds.is_null(kind):
            raise DataError(f"column {name!r} holds {kind}, and the run has learned numbers there")
    for name in roles.words:
        if not can_be_words(kind := steps.schema.field(name).type):
            raise DataError(f"column {name!r} holds {kind}, and the run has learned words there")
    table = joined([steps.select([*roles.numbers, *roles.words])], roles)
    rows, faults = rows_of_steps(with_words(table, roles), offsets, roles)
    raise_faults([f"sequence {keys[place]}: step {fault.step}: {fault.reason}" for place, fault in faults.items()])
    return rows.add_column(0, "key", pa.array(keys, pa.string()))


def rows_of_lists(columns: Mapping[str, Any], keys: Sequence[str], model: Trained) -> pa.Table:
    """The same of columns whose cells are lists, a list a sequence.

    Raises:
        UsageError: lists of one sequence differ in length, or one is empty.
        DataError: as above.
    """
    names, ahead = step_names(model), known_ahead_names(model)
    lists = {name: unwrap(flat(columns[name])) for name in names}
    past = [name for name in names if name not in ahead]
    for one, others in (past, past[1:]), (ahead, ahead[1:]):
        for name in others:
            for row in np.flatnonzero(lists[name][0] != lists[one[0]][0])[:1]:
                raise UsageError(
                    f"sequence {keys[row]}: every feature has a list, all of one length; {one[0]} has "
                    f"{counted(int(lists[one[0]][0][row]), 'step')}, and {name} has {lists[name][0][row]}"
                )
    sizes = lists[past[0]][0]
    longest = lists[ahead[0]][0] if ahead else sizes
    for row in np.flatnonzero(sizes == 0)[:1]:
        raise UsageError(f"sequence {keys[row]} has no step")
    for row in np.flatnonzero(longest < sizes)[:1]:
        raise UsageError(
            f"sequence {keys[row]}: {ahead[0]} is known ahead, and has {counted(int(longest[row]), 'step')} where "
            f"{past[0]} has {sizes[row]}"
        )
    steps = {name: _padded(items, own, longest) for name, (own, items) in lists.items()}
    return rows_of_named_steps(pa.table(steps), ends(longest), keys, model)


def known_ahead_names(model: Trained) -> list[str]:
    """Those of the features that are known of later steps; none where they have no names."""
    forecast, inputs = model.encoding.forecast, model.encoding.inputs
    if forecast is None or not isinstance(inputs, Numbers) or not inputs.names:
        return []
    return [inputs.names[place] for place in forecast.known]


def static_names(model: Trained) -> list[str]:
    """Those of the features that are the same at every step, by name."""
    names = step_names(model)
    return [name for name in getattr(model.recipe.data, "static", ()) if name in names]


def _padded(items: pa.Array, sizes: np.ndarray, longest: np.ndarray) -> pa.Array:
    """Lists of `sizes` items, nothing after them, up to `longest`."""
    if (sizes == longest).all():
        return items
    place = np.arange(longest.sum()) - np.repeat(ends(longest)[:-1], longest)
    there = place < np.repeat(sizes, longest)
    numbers = np.cumsum(there) - 1
    return items.take(pa.array(numbers, mask=~there))


def wanted_of(model: Trained) -> Wanted:
    """What is read of data that a request or a program gives: what the run has learned, without labels."""
    return Wanted(
        needs_to_read(model.recipe, model.encoding),
        labelled=False,
        num_columns=model.encoding.inputs.num_columns,
        column_names=model.encoding.column_names,
        say=lambda _: None,
    )


def _roles(model: Trained) -> Roles:
    data, inputs = model.recipe.data, model.encoding.inputs
    no_value = data.no_value if isinstance(data, StepData) else ()
    target = Target(needs_to_read(model.recipe, model.encoding), missing=no_value)
    if isinstance(inputs, Numbers):
        ahead, static = tuple(known_ahead_names(model)), tuple(static_names(model))
        return Roles(inputs.names, inputs.category_names, (), target, known_ahead=ahead, static=static)
    return Roles((), step_names(model), (), target)
