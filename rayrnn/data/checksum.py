"""Whether data is still what it was: one number for all that rows hold, in any order and in any blocks."""

import zlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

#: stands for a null
_NULL = np.uint64(0x9E3779B97F4A7C15)


def checksum_of(rows: pa.Table) -> int:
    """A sum modulo 2**64 over what every cell, and every item of a list, holds in which row, column and place.

    Other rows have another sum, unless by an unlikely chance. The same rows in another order have the same.
    """
    with np.errstate(over="ignore"):
        owners = _hashed(rows["key"].combine_chunks()) | np.uint64(1)
        others = [name for name in rows.column_names if name != "key"]
        sums = {name: _sum(rows[name].combine_chunks(), owners) for name in others} | {"key": int(owners.sum())}
    return sum((2 * zlib.crc32(name.encode()) + 1) * number for name, number in sums.items()) % 2**64


def _sum(cells: pa.Array, owners: np.ndarray) -> int:
    """
    Args:
        owners: one number a row, odd.
    """
    row, lists = np.arange(len(cells)), 0
    while pa.types.is_list(cells.type) or pa.types.is_large_list(cells.type) or pa.types.is_fixed_size_list(cells.type):
        sizes = np.asarray(pc.list_value_length(cells).fill_null(0))
        row, lists = np.repeat(row, sizes), lists + len(cells) + 3 * cells.null_count
        cells = cells.flatten()
    counts = np.bincount(row, minlength=len(owners))
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    factors = owners[row] + 2 * place.astype(np.uint64)
    return lists + int((_hashed(cells) * factors).sum())


def _hashed(cells: pa.Array) -> np.ndarray:
    """One number a cell, uint64."""
    if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
        encoded = cells.dictionary_encode()
        words = [zlib.crc32(text) << 32 | zlib.adler32(text) for text in map(_bytes, encoded.dictionary.to_pylist())]
        numbers = np.array([*words, 0], np.uint64)[np.asarray(encoded.indices.fill_null(len(words)))]
    else:
        plain = np.ascontiguousarray(pc.fill_null(cells, False if pa.types.is_boolean(cells.type) else 0))
        numbers = (plain if plain.dtype == bool else plain.view(f"u{plain.dtype.itemsize}")).astype(np.uint64)
    return np.where(np.asarray(cells.is_null()), _NULL, _mixed(numbers))


def _bytes(word: str) -> bytes:
    return word.encode("utf-8", "surrogatepass")


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """So that two changes do not make up for one another (of splitmix64, Steele et al. 2014, OOPSLA)."""
    numbers = (numbers + _NULL) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = numbers ^ (numbers >> np.uint64(31))
    return mixed
