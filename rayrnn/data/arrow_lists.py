"""Arrow lists as NumPy sees them: how many items each row has, and all items in one piece.

Shapes: N rows, S items of all rows together, W numbers an item.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds


def flat(cells: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The cells in one piece; tensors (of Ray Data) become lists, views and UUIDs the text that they show.

    Cells of other types that are none of Arrow's own, such as pandas' intervals, become what these are stored as.
    """
    if isinstance(cells, pa.ChunkedArray):
        cells = cells.combine_chunks() if cells.num_chunks != 1 else cells.chunk(0)
    if isinstance(cells.type, pa.UuidType):
        return _texts_of_uuids(cells.storage)
    if isinstance(cells.type, pa.ExtensionType):
        return _lists_of_tensors(cells)
    if kinds.is_dictionary(cells.type) and is_extended(cells.type):
        return _lists_of_tensors(cells.dictionary).take(cells.indices)
    plain = without_views(cells.type)
    return cells if plain == cells.type else cells.cast(plain)


def is_extended(kind: pa.DataType) -> bool:
    """Whether cells of this type, or the words of its dictionary, are of a type that is none of Arrow's own."""
    return isinstance(kind.value_type if kinds.is_dictionary(kind) else kind, pa.ExtensionType)


def without_views(kind: pa.DataType) -> pa.DataType:
    """The same type with text and bytes in one piece; Arrow sorts, counts and compares no views of them."""
    if kinds.is_string_view(kind):
        return pa.large_string()
    if kinds.is_binary_view(kind):
        return pa.large_binary()
    if kinds.is_dictionary(kind):
        return pa.dictionary(kind.index_type, without_views(kind.value_type), kind.ordered)
    if not is_list(kind) or (items := without_views(kind.value_type)) == kind.value_type:
        return kind
    if kinds.is_fixed_size_list(kind):
        return pa.list_(items, kind.list_size)
    return pa.large_list(items) if kinds.is_large_list(kind) else pa.list_(items)


def is_list(kind: pa.DataType) -> bool:
    """Whether cells of this type hold items."""
    return bool(kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind))


def depth(kind: pa.DataType) -> int:
    """How many lists lie around a cell's innermost values."""
    return 1 + depth(kind.value_type) if is_list(kind) else 0


def unwrap(cells: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Items in every row (int64 [N]; a null row has none), and the S items."""
    return np.asarray(pc.list_value_length(cells).fill_null(0), np.int64), pc.list_flatten(cells)


def wrap(items: pa.Array, sizes: np.ndarray) -> pa.ListArray:
    """The inverse of `unwrap`: list<...> [N]."""
    return pa.ListArray.from_arrays(pa.array(ends(sizes).astype(np.int32)), items)


def ends(sizes: np.ndarray) -> np.ndarray:
    """Where every row begins, and the last one ends: int64 [N + 1]."""
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


def side_by_side(items: np.ndarray | pa.Array, width: int) -> pa.FixedSizeListArray:
    """S * W innermost values -> fixed_size_list<..., W> [S]."""
    return pa.FixedSizeListArray.from_arrays(items if isinstance(items, pa.Array) else pa.array(items), width)


def by_name(values: np.ndarray, names: Sequence[str]) -> pa.StructArray:
    """The W columns of numbers [S, W] as the fields of a struct."""
    return pa.StructArray.from_arrays([pa.array(np.ascontiguousarray(own)) for own in values.T], names=list(names))


def numbers(items: pa.Array) -> np.ndarray:
    """Numbers, null becoming NaN: float64, for they are narrowed once they are scaled."""
    return np.asarray(items.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)


def are_flags(sizes: np.ndarray, items: pa.Array) -> bool:
    """Whether lists say of every class if it applies, one after the other: nobody names a class twice."""
    if kinds.is_boolean(items.type):
        return bool(len(items))
    if not (kinds.is_integer(items.type) or kinds.is_floating(items.type)):
        return False
    if not set(pc.unique(items).to_pylist()) <= {0, 1}:
        return False
    owners = np.repeat(np.arange(len(sizes)), sizes)
    ones = np.bincount(owners, weights=numbers(items), minlength=len(sizes))
    return bool(((ones > 1) | (sizes - ones > 1)).any())


def matrix(items: pa.Array) -> np.ndarray:
    """fixed_size_list<float64, W> [S], without nulls -> float64 [S, W]."""
    return numbers(items.flatten()).reshape(len(items), items.type.list_size)


def _texts_of_uuids(cells: pa.FixedSizeBinaryArray) -> pa.Array:
    """As RFC 9562 writes them, 36 characters each."""
    digits = np.frombuffer(b"".join(cells.fill_null(bytes(16)).to_pylist()).hex().encode(), np.uint8).reshape(-1, 32)
    texts = np.insert(digits, (8, 12, 16, 20), ord("-"), axis=1)
    whole = pa.FixedSizeBinaryArray.from_buffers(pa.binary(36), len(cells), [None, pa.py_buffer(texts.tobytes())])
    return pc.if_else(cells.is_valid(), whole.cast(pa.string()), pa.scalar(None, pa.string()))


def _lists_of_tensors(cells: pa.ExtensionArray) -> pa.Array:
    storage = cells.storage
    if kinds.is_struct(storage.type) and {"data", "shape"} <= {child.name for child in storage.type}:
        shapes = np.asarray(storage.field("shape").to_pylist(), np.int64).reshape(len(cells), -1)
        values = pc.list_flatten(storage.field("data"))
    elif is_list(storage.type) and hasattr(cells.type, "shape"):
        shapes = np.tile(np.asarray(cells.type.shape, np.int64), (len(cells), 1))
        values = pc.list_flatten(storage)
    else:
        return storage
    for axis in range(shapes.shape[1] - 1, -1, -1):
        # one list of this axis' size for every item of the axes before it
        values = wrap(values, np.repeat(shapes[:, axis], shapes[:, :axis].prod(axis=1)))
    return values
