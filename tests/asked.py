"""What the tasks ask for, by their names."""

from typing import Any

import pyarrow as pa

from rayrnn.data.rows import Needs, canonical
from rayrnn.recipe import task_named
from rayrnn.tasks import Choices


def needs(task: str, horizon: int = 0) -> Needs:
    """What a task needs of a row."""
    return task_named(task).needs(Choices(horizon=horizon))


def rows(task: str, *, horizon: int = 0, **columns: Any) -> pa.Table:
    """Canonical rows, called `row 0`, `row 1` ..."""
    count = len(next(iter(columns.values())))
    keys = [f"row {number}" for number in range(count)]
    table = pa.table({"key": keys, **columns})
    return canonical(table, needs(task, horizon), labelled="label" in columns)
