"""A network's outputs as columns people can use: labels and probabilities, or numbers, in the data's own units.

    key            string                      the sequence's name
    label          string                      the likeliest class (classification, tagging)
    probabilities  struct<CLASS: float32 ...>  of every class
    prediction     float32                     a regression's number; fixed_size_list<float32, O> where it has O

With an answer a step, label, probabilities and prediction are lists with an item a step. A sequence without steps has
none of them.
"""

import numpy as np
import pyarrow as pa

from rayrnn.data.encoding import Encoding
from rayrnn.data.ragged import side_by_side, wrap
from rayrnn.data.schema import step_counts


def answers_of(rows: pa.Table, outputs: np.ndarray, encoding: Encoding) -> pa.Table:
    """What the network says of canonical rows, in their order.

    Args:
        outputs: float32 [steps of all rows, V], or [rows, V] with one answer a row.
    """
    steps = step_counts(rows)
    unanswered = steps == 0
    columns = _classes(outputs, encoding) if encoding.classes is not None else _numbers(outputs, encoding)
    for name, items in columns.items():
        columns[name] = wrap(items, steps) if encoding.per_step else _without(items, unanswered)
    return pa.table({"key": rows["key"], **columns})


def _classes(outputs: np.ndarray, encoding: Encoding) -> dict[str, pa.Array]:
    assert encoding.classes is not None
    chances = np.exp(outputs - outputs.max(axis=1, keepdims=True, initial=-np.inf))
    chances /= chances.sum(axis=1, keepdims=True)
    labels = pa.array(encoding.classes, pa.string()).take(pa.array(chances.argmax(axis=1)))
    fields = [pa.array(np.ascontiguousarray(column)) for column in chances.T]
    return {"label": labels, "probabilities": pa.StructArray.from_arrays(fields, names=list(encoding.classes))}


def _numbers(outputs: np.ndarray, encoding: Encoding) -> dict[str, pa.Array]:
    values = encoding.in_own_units(outputs).astype(np.float32)
    if values.shape[1] == 1:
        return {"prediction": pa.array(values[:, 0])}
    return {"prediction": side_by_side(values.reshape(-1), values.shape[1])}


def _without(items: pa.Array, unanswered: np.ndarray) -> pa.Array:
    if not unanswered.any():
        return items
    return items.take(pa.array(np.arange(len(items)), mask=unanswered))
