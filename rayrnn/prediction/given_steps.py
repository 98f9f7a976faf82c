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
from rayrnn.data.sources.source import Wanted
from rayrnn.data.sources.tables import Roles, check_columns, joined, rows_of_steps, with_words
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
    names = step_names(model)
    sizes, items = zip(*(unwrap(flat(columns[name])) for name in names), strict=True)
    for name, own in zip(names, sizes, strict=True):
        for row in np.flatnonzero(own != sizes[0])[:1]:
            raise UsageError(
                f"sequence {keys[row]}: every feature has a list, all of one length; {names[0]} has "
                f"{counted(int(sizes[0][row]), 'step')}, and {name} has {own[row]}"
            )
    for row in np.flatnonzero(sizes[0] == 0)[:1]:
        raise UsageError(f"sequence {keys[row]} has no step")
    return rows_of_named_steps(pa.table(dict(zip(names, items, strict=True))), ends(sizes[0]), keys, model)


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
        return Roles(inputs.names, inputs.category_names, (), target)
    return Roles((), step_names(model), (), target)
