"""What requests hold -> canonical rows: JSON, or one CSV file."""

import json
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayrnn.data.arrow_lists import flat, side_by_side, unwrap, wrap
from rayrnn.data.encoding import Numbers
from rayrnn.data.rows import REASONS, feature_names, places_of, with_feature_names
from rayrnn.data.sources.csv import rows_of_csv
from rayrnn.errors import UsageError
from rayrnn.prediction.given_rows import checked_rows, rows_of_given
from rayrnn.prediction.given_steps import known_ahead_names, static_names, wanted_of
from rayrnn.recipe.data_sections import CsvData
from rayrnn.runs.model import Trained

#: rows of one request
MOST_ROWS = 100_000


def parse_json(body: bytes) -> Any:
    """
    Raises:
        UsageError: it is no JSON, or holds NaN or an infinite number, which JSON does not know.
    """
    try:
        return json.loads(body, parse_constant=_no_number)
    except RecursionError:
        raise UsageError("the body is JSON that is nested too deeply") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise UsageError(f"the body is no JSON: {error}") from None


def _no_number(word: str) -> NoReturn:
    raise UsageError(f"the body holds {word}, which is no number: fill it in, or leave the sequence out")


def rows_of_json(rows: Any, model: Trained) -> pa.Table:
    """Canonical rows of what a request gives.

    Raises:
        UsageError: it is no row, or there are too many.
        DataError: a row holds something else than what was learned; names it and its step.
    """
    if isinstance(rows, list) and len(rows) > MOST_ROWS:
        raise UsageError(f"there are {len(rows):,} rows; one request takes {MOST_ROWS:,}: send several")
    return rows_of_given(rows, model)


def rows_of_csv_body(content: bytes, model: Trained) -> pa.Table:
    """The one canonical row that a CSV is, a line a step, read as the run's own files are.

    Raises:
        DataError: it cannot be read so; names the line.
    """
    data = model.recipe.data
    if not isinstance(data, CsvData):
        features, ahead = list(model.encoding.column_names) or None, known_ahead_names(model)
        words, static = getattr(model.encoding.inputs, "category_names", ()), static_names(model)
        asked = {"features": features, "categorical": words, "known_ahead": ahead, "static": static}
        named = {"skip_lines": 0 if features is None else 1}
        data = CsvData.model_validate({"source": "csv", "path": "the request", **named, **asked})
    rows = rows_of_csv(content, "the CSV", data, wanted_of(model))
    rows = checked_rows(rows.drop_columns([name for name in REASONS if name in rows.column_names]), model)
    return _in_order(rows, model)


def _in_order(rows: pa.Table, model: Trained) -> pa.Table:
    """With the features in the order of those that were learned, by which they are called from here on."""
    inputs = model.encoding.inputs
    if not isinstance(inputs, Numbers):
        return rows
    learned = {"values": inputs.names, "categories": inputs.category_names}
    for name in learned.keys() & set(rows.column_names):
        places = places_of(learned[name], feature_names(rows.schema, name))
        if places is not None:
            sizes, steps = unwrap(flat(rows[name]))
            cells = pc.list_flatten(steps)
            order = np.arange(len(steps))[:, None] * (len(cells) // max(1, len(steps))) + places
            moved = wrap(side_by_side(cells.take(pa.array(order.reshape(-1))), len(places)), sizes)
            rows = rows.set_column(rows.column_names.index(name), name, moved)
    return with_feature_names(rows, learned)
