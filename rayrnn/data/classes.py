"""The classes that labels name: found in a table, sorted, checked."""

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa

from rayrnn.data.ragged import flat, is_list, unwrap
from rayrnn.errors import DataError


def check_labels(labels: Mapping[str, str], classes: Iterable[str]) -> None:
    """Raise a DataError for a label (mapped to a sequence that has it) that is not among the classes."""
    known = set(classes)
    for label, key in labels.items():
        if label not in known:
            shown = list(classes)
            more = f" and {len(shown) - 20} more" if len(shown) > 20 else ""
            raise DataError(
                f"sequence {key!r} has the label {label!r}, which is not among the {len(shown)} classes: "
                f"{', '.join(shown[:20])}{more}"
            )


def labels_of(table: pa.Table) -> dict[str, str]:
    """Every class in a table's labels -> the key of the first row that has it."""
    labels, keys = flat(table["label"]), flat(table["key"])
    owners, items = np.arange(len(labels)), labels
    if is_list(labels.type):
        sizes, items = unwrap(labels)
        owners = np.repeat(owners, sizes)
    there = np.asarray(items.is_valid())
    encoded = items.drop_null().dictionary_encode()
    first = np.unique(np.asarray(encoded.indices), return_index=True)[1]
    rows = keys.take(pa.array(owners[there][first]))
    return dict(zip(encoded.dictionary.to_pylist(), rows.to_pylist(), strict=True))


def naturally(symbols: Iterable[str]) -> list[str]:
    """Sorted as people sort: whole numbers by their value before all else, the rest by their characters."""
    return sorted(symbols, key=lambda symbol: (0, int(symbol), symbol) if _is_integer(symbol) else (1, 0, symbol))


def _is_integer(symbol: str) -> bool:
    digits = symbol.removeprefix("-")
    return digits.isascii() and digits.isdigit()
