"""What requests hold -> canonical rows: JSON, or one CSV file."""

import json
from typing import Any, NoReturn

import pyarrow as pa

from rayrnn.data.prepare import needs_to_read
from rayrnn.data.rows import REASONS
from rayrnn.data.sources.csv import rows_of_csv
from rayrnn.data.sources.source import Wanted
from rayrnn.errors import UsageError
from rayrnn.prediction.given_rows import checked_rows, rows_of_given
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
        data = CsvData(source="csv", path="the request", features=list(model.encoding.column_names) or None)
    needs = needs_to_read(model.recipe, model.encoding)
    wanted = Wanted(
        needs,
        labelled=False,
        num_columns=model.encoding.inputs.num_columns,
        column_names=model.encoding.column_names,
        say=lambda _: None,
    )
    rows = rows_of_csv(content, "the CSV", data, wanted)
    return checked_rows(rows.drop_columns([name for name in REASONS if name in rows.column_names]), model)
