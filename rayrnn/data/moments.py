"""One look through the numeric features of the training part, from which they are scaled.

S steps of all sequences together, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pyarrow as pa
import ray

from rayrnn.data.ragged import flat, matrix, unwrap
from rayrnn.data.remote import results
from rayrnn.data.scaling import Scaling


def fit_scaling(blocks: Sequence[ray.ObjectRef], offsets: np.ndarray, indices: np.ndarray, *, kind: str) -> Scaling:
    """Look once at the values of some sequences, a Ray task a block; `none` looks at nothing but their width.

    A feature that never changes gets scale 1.

    Args:
        blocks: tables with a column `values`.
        offsets: int64 [blocks + 1], the number of every block's first sequence.
        indices: the numbers of the sequences to look at.
    """
    if kind == "none":
        num_features = results([ray.remote(_num_features).remote(blocks[0])])[0]
        return Scaling(kind, (0.0,) * num_features, (1.0,) * num_features)
    block_of = np.searchsorted(offsets, indices, side="right") - 1
    look = ray.remote(_moments)
    tasks = [look.remote(blocks[n], indices[block_of == n] - offsets[n]) for n in np.unique(block_of)]
    moments = reduce(merge, results(tasks))
    constant = moments.highest == moments.lowest
    if kind == "standardize":
        shift, scale = moments.mean, np.sqrt(moments.squares / moments.count)
    else:
        shift, scale = moments.lowest, moments.highest - moments.lowest
    return Scaling(kind, tuple(shift.tolist()), tuple(np.where(constant, 1.0, scale).tolist()))


@dataclass(frozen=True)
class Moments:
    """What a part of the data says about every feature, float64 [F] each."""

    count: int
    mean: np.ndarray
    #: the sum of the squared distances from the mean
    squares: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray


def moments_of(values: np.ndarray) -> Moments:
    """Look at values [S, F], S at least 1."""
    mean = values.mean(axis=0, dtype=np.float64)
    squares = np.square(values - mean).sum(axis=0)
    return Moments(len(values), mean, squares, values.min(axis=0).astype(float), values.max(axis=0).astype(float))


def merge(one: Moments, other: Moments) -> Moments:
    """What both parts together say, without the cancellation that sums of squares suffer from.

    Source: Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances, 1979.
    """
    count = one.count + other.count
    delta = other.mean - one.mean
    return Moments(
        count,
        one.mean + delta * (other.count / count),
        one.squares + other.squares + np.square(delta) * (one.count * other.count / count),
        np.minimum(one.lowest, other.lowest),
        np.maximum(one.highest, other.highest),
    )


def _moments(table: pa.Table, rows: np.ndarray) -> Moments:
    return moments_of(matrix(unwrap(flat(table["values"].take(pa.array(rows))))[1]))


def _num_features(table: pa.Table) -> int:
    return int(table.schema.field("values").type.value_type.list_size)
