"""The names of a step's features: they travel with the rows, so that nobody takes one column for another.

They stand in the metadata of the columns `values` and `categories`, one name a feature; rows whose source has no names
have none.
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from rayrnn.errors import DataError

_KEY = b"rayrnn.features"


def with_feature_names(rows: pa.Table, names: Mapping[str, Sequence[str]]) -> pa.Table:
    """The same rows, whose columns (those that are there) know their features' names; none are no names."""
    fields = [
        field.with_metadata({_KEY: json.dumps(names[field.name])}) if names.get(field.name) else field
        for field in rows.schema
    ]
    return pa.Table.from_arrays(rows.columns, schema=pa.schema(fields))


def feature_names(schema: pa.Schema, column: str) -> tuple[str, ...]:
    """The names of the features in `values` or `categories`; none where they are not known."""
    metadata = schema.field(column).metadata if column in schema.names else None
    return tuple(json.loads(metadata[_KEY])) if metadata and _KEY in metadata else ()


def places_of(learned: Sequence[str], here: Sequence[str]) -> np.ndarray | None:
    """Where the features that were learned stand among those that are here; None where they need not be moved.

    Raises:
        DataError: one of them is not here.
    """
    if not learned or not here or tuple(learned) == tuple(here):
        return None
    missing = [name for name in learned if name not in here]
    if missing:
        raise DataError(
            f"the model learned the features {', '.join(learned)}; these sequences have {', '.join(here)}, "
            f"and no {', '.join(missing)}"
        )
    return np.array([list(here).index(name) for name in learned])
