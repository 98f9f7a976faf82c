"""`rayrnn.sequences`: what a program has in frames, tables, lists and datasets of Ray's, as sequences to learn."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import ray.data

from rayrnn.cluster import stay_connected
from rayrnn.data.frames import is_frame, library_of
from rayrnn.data.sources.given import labels_of, list_of, sequences_of
from rayrnn.data.sources.source import Wanted
from rayrnn.errors import RecipeError, UsageError
from rayrnn.recipe import LABELLED, task_named
from rayrnn.recipe.table_sections import GivenData, section_of
from rayrnn.tasks import Choices

#: what says where a table's steps are
_CONTENTS = ("order_by", "values", "symbols", "text", "categorical")


def sequences(
    data: Any,
    *,
    labels: Sequence[Any] | None = None,
    key: str | None = None,
    order_by: str | None = None,
    features: Sequence[str] | None = None,
    values: str | None = None,
    symbols: str | None = None,
    text: str | None = None,
    categorical: Sequence[str] = (),
    ignore: Sequence[str] = (),
    label: str | None = None,
    target: str | None = None,
    missing: Sequence[str] = (),
    forecast: Sequence[str | Mapping[str, int]] | None = None,
    known_ahead: Sequence[str] = (),
    static: Sequence[str] = (),
    weight: str | None = None,
    task: str = LABELLED,
) -> ray.data.Dataset:
    """Make a dataset of sequences of what a program holds: `rayrnn.train(recipe, data=rayrnn.sequences(...))`.

    A table has one row a step, with `key` and `order_by`: its steps are brought together and in order. Without
    `order_by` every row is one sequence, and one of `values`, `symbols` and `text` names its column. A list needs no
    names.

    Args:
        data: a frame of pandas' or polars', an Arrow table, a dataset of Ray's, a Spark DataFrame (which goes to
            `rayrnn_spark.sequences`); or a list of sequences (or an array of them): arrays of T numbers or T x F,
            texts, lists of words, or mappings in the row schema.
        labels: of the sequences of a list, as many: a class or a number each, or a list of them, one a step.
        key: the column that names a sequence; rows that are sequences are numbered without it.
        order_by: the column that orders a sequence's steps.
        features: one row a step: the columns to learn from; without a word all but key, order_by and label.
        values: the column of numbers, a list a row, or a list of lists.
        symbols: the column of words or whole numbers, a list a row.
        text: the column of text.
        categorical: those of the features that hold words.
        ignore: one row a step: columns that are no features even without a word on features.
        label: the label's column.
        target: one row a sequence: the column of targets with a length of their own, text or lists of words.
        missing: words that stand where there is no value, such as `NA`.
        forecast: those of the features that are forecast (one row a sequence: their places in `values`, such as
            `{"place": 0}`); without a word all but those known ahead and static.
        known_ahead: features that are known of later steps, too.
        static: features that are the same at every step of a sequence.
        weight: the column of numbers that say how much a sequence or step counts.
        task: what the labels are for, as a recipe's `task`.

    Returns:
        rows of the row schema (see rayrnn/data/rows.py), in Ray's object store for as long as this process lives.

    Raises:
        RecipeError: the columns contradict each other.
        DataError: a column is missing or does not fit, or there are no rows.
        UsageError: `data` is nothing of these; or `labels` do not fit it.
    """
    columns: dict[str, Any] = {
        **{"key": key, "order_by": order_by, "values": values, "symbols": symbols, "text": text},
        **{"label": label, "target": target, "categorical": categorical, "ignore": ignore, "features": features},
        **{"weight": weight, "static": static, "forecast": forecast, "known_ahead": known_ahead},
    }
    if library_of(data) == "pyspark":
        if labels is not None:
            raise UsageError("labels are of a list of sequences; those of a DataFrame are a column: label=...")
        taken: ray.data.Dataset = import_module("rayrnn_spark").sequences(data, missing=missing, task=task, **columns)
        return taken
    is_list = not (is_frame(data) or isinstance(data, ray.data.Dataset))
    data = list_of(data) if is_list else data
    if is_list and (given := [name for name, value in columns.items() if _is_given(value)]):
        raise UsageError(f"{', '.join(given)} name columns, and a list has none: leave them out")
    if labels is not None:
        if not is_list:
            raise UsageError("labels are of a list of sequences; those of a table are a column: label=...")
        labels = labels_of(labels)
    stay_connected()
    if not is_list and not any(_is_given(columns[name]) for name in _CONTENTS):
        raise RecipeError(
            "say what the columns are for: key and order_by (one row a step), or values, symbols or text (one row a "
            "sequence)"
        )
    section = section_of(GivenData, columns | {"missing": missing if _is_given(missing) else None})
    return sequences_of(data, section, Wanted(task_named(task).needs(Choices())), labels)


def _is_given(value: Any) -> bool:
    """Whether a keyword says something: neither nothing nor no columns."""
    return value is not None and not (hasattr(value, "__len__") and len(value) == 0)
