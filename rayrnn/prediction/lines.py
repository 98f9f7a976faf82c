"""Answers as text: a JSON object a sequence, or lines of CSV."""

import csv
import io
import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.types as kinds

from rayrnn.data.ragged import ends, flat, unwrap


def json_lines(answers: pa.Table) -> bytes:
    """One object a sequence, as in answers.py; probabilities are an object from class to number."""
    names = answers.column_names
    rows = zip(*(_plain(flat(column)) for column in answers.columns), strict=True)
    return "".join(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n" for row in rows).encode()


def csv_lines(answers: pa.Table) -> bytes:
    """One line a sequence, or with an answer a step one line a step, which `step` numbers from 0."""
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(_flattened(answers), buffer, pyarrow.csv.WriteOptions(include_header=False))
    return buffer.getvalue()


def csv_header(answers: pa.Table) -> bytes:
    """The columns' names: key, step, label, probability_CLASS ... or prediction, or prediction_0 ..."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(_flattened(answers.slice(0, 0)).column_names)
    return line.getvalue().encode()


def _plain(cells: pa.Array) -> list[Any]:
    """Python's own values, as JSON takes them."""
    if kinds.is_struct(cells.type):
        names = [field.name for field in cells.type]
        rows = zip(*(_plain(field) for field in cells.flatten()), strict=True)
        valid = cells.is_valid().to_pylist()
        return [dict(zip(names, row, strict=True)) if there else None for row, there in zip(rows, valid, strict=True)]
    if kinds.is_list(cells.type) or kinds.is_fixed_size_list(cells.type):
        sizes, items = unwrap(cells)
        places, values = ends(sizes).tolist(), _plain(items)
        valid = cells.is_valid().to_pylist()
        pairs = zip(places, places[1:], valid, strict=False)
        return [values[start:end] if there else None for start, end, there in pairs]
    return _shortest(cells) if kinds.is_float32(cells.type) else list(cells.to_pylist())


def _shortest(cells: pa.Array) -> list[float | None]:
    """Numbers with the digits that tell them apart as float32, not as float64; JSON knows neither NaN nor infinity."""
    values = cells.cast(pa.string()).cast(pa.float64()).to_pylist()
    return [value if value is not None and math.isfinite(value) else None for value in values]


def _flattened(answers: pa.Table) -> pa.Table:
    """A column a number."""
    columns: dict[str, pa.Array] = {}
    for name, column in zip(answers.column_names, map(flat, answers.columns), strict=True):
        if kinds.is_list(column.type):
            sizes, column = unwrap(column)
            if "step" not in columns:
                columns["key"] = columns["key"].take(pa.array(np.repeat(np.arange(len(sizes)), sizes)))
                columns["step"] = pa.array(np.arange(sizes.sum()) - np.repeat(ends(sizes)[:-1], sizes))
        if kinds.is_struct(column.type):
            fields = zip(column.type, column.flatten(), strict=True)
            columns |= {f"probability_{field.name}": cells for field, cells in fields}
        elif kinds.is_fixed_size_list(column.type):
            columns |= {f"{name}_{place}": pc.list_element(column, place) for place in range(column.type.list_size)}
        else:
            columns[name] = column
    return pa.table(columns)
