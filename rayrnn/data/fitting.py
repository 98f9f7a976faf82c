"""Fits an encoding: one look through all blocks, in Ray tasks.

S steps of all sequences together, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pyarrow as pa
import ray

from rayrnn.data.arrow_lists import flat, is_list, matrix, unwrap
from rayrnn.data.encoding import Encoding, Numbers, Scaling, Survey, Symbols, labels_of
from rayrnn.data.narrowing import lost_in_float32
from rayrnn.data.rows import Needs, feature_names
from rayrnn.data.sequences import Sequences, results
from rayrnn.data.vocabulary import Vocabulary, add_counts, count_characters, count_words
from rayrnn.errors import DataError
from rayrnn.tasks import Choices, Task

#: as messages call numbers to predict
LABEL = "the label"
#: a word that the training part holds only once is learned as the unknown one, so that there is something to learn
RARE = 2


def survey(sequences: Sequences, train_indices: np.ndarray, held_out: Sequences | None, needs: Needs) -> Survey:
    """Survey every block in a Ray task of its own.

    Args:
        train_indices: ascending.
        held_out: sequences of which none is learned.
    """
    ends = np.searchsorted(train_indices, sequences.offsets)
    survey_block = ray.remote(_survey_block)
    tasks = [
        survey_block.remote(block, train_indices[start:end] - offset, needs)
        for block, offset, start, end in zip(sequences.blocks, sequences.offsets, ends, ends[1:], strict=False)
    ]
    if held_out is not None:
        tasks += [survey_block.remote(block, np.zeros(0, np.int64), needs) for block in held_out.blocks]
    return _merge(sequences.schema, results(tasks))


def _survey_block(table: pa.Table, train_rows: np.ndarray, needs: Needs) -> Survey:
    train = table if len(train_rows) == len(table) else table.take(pa.array(train_rows))
    return Survey(
        symbols=_count_symbols(table if needs.every_symbol else train),
        categories=_count_categories(train),
        labels=labels_of(table) if needs.of_classes else {},
        label_counts=_count_labels(train) if needs.of_classes else {},
    )


def _count_symbols(table: pa.Table) -> dict[str, int]:
    if "text" in table.column_names:
        return count_characters(flat(table["text"]))
    return count_words(unwrap(flat(table["symbols"]))[1]) if "symbols" in table.column_names else {}


def _count_categories(table: pa.Table) -> tuple[dict[str, int], ...]:
    if "categories" not in table.column_names:
        return ()
    items = unwrap(flat(table["categories"]))[1]
    words, width = items.flatten(), items.type.list_size
    columns = (words.take(pa.array(np.arange(place, len(words), width))) for place in range(width))
    return tuple({word: count for word, count in count_words(column).items() if word} for column in columns)


def _count_labels(table: pa.Table) -> dict[str, int]:
    labels = flat(table["label"])
    return count_words(unwrap(labels)[1] if is_list(labels.type) else labels)


def _merge(schema: pa.Schema, surveys: list[Survey]) -> Survey:
    labels: dict[str, str] = {}
    for found in surveys:
        labels = found.labels | labels
    columns = zip(*(found.categories for found in surveys), strict=True)
    return Survey(
        schema,
        symbols=add_counts(found.symbols for found in surveys),
        categories=tuple(add_counts(column) for column in columns),
        labels=labels,
        label_counts=add_counts(found.label_counts for found in surveys),
    )


def fit_scaling(
    blocks: Sequence[ray.ObjectRef], offsets: np.ndarray, indices: np.ndarray, *, kind: str, names: Sequence[str] = ()
) -> Scaling:
    """Look once at the values of some sequences, a Ray task a block; `none` looks at nothing but their width.

    A feature that never changes gets scale 1.

    Args:
        blocks: tables with a column `values`.
        offsets: int64 [blocks + 1], the number of every block's first sequence.
        indices: the numbers of the sequences to look at.
        names: the features', where they have names.

    Raises:
        DataError: a feature's values are too large.
    """
    if kind == "none":
        return Scaling.none(results([ray.remote(_num_features).remote(blocks[0])])[0])
    block_of = np.searchsorted(offsets, indices, side="right") - 1
    look = ray.remote(_moments)
    tasks = [look.remote(blocks[n], indices[block_of == n] - offsets[n]) for n in np.unique(block_of)]
    moments = reduce(merge, results(tasks))
    constant = moments.highest == moments.lowest
    if kind == "standardize":
        shift, scale = moments.mean, np.sqrt(moments.squares / moments.count)
    else:
        with np.errstate(over="ignore"):
            shift, scale = moments.lowest, moments.highest - moments.lowest
    # what is so small that its square is 0 is left as it is
    scale = np.where(constant | (scale == 0), 1.0, scale)
    _check_scalable(shift, scale, moments, names)
    return Scaling(kind, tuple(shift.tolist()), tuple(scale.tolist()))


def _check_scalable(shift: np.ndarray, scale: np.ndarray, moments: "Moments", names: Sequence[str]) -> None:
    """
    Raises:
        DataError: the values of a feature are so large that sums of them are infinite.
    """
    for place in np.flatnonzero(~(np.isfinite(shift) & np.isfinite(scale))).tolist():
        raise DataError(
            f"{_called(names, place)} is between {moments.lowest[place]:g} and {moments.highest[place]:g}, too large "
            "to be scaled: make it smaller before (by another unit, or its logarithm), or leave it out"
        )


def _called(names: Sequence[str], place: int) -> str:
    return f"column {names[place]!r}" if names else f"feature {place}"


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
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is told of
        mean = values.mean(axis=0, dtype=np.float64)
        squares = np.square(values - mean).sum(axis=0)
    return Moments(len(values), mean, squares, values.min(axis=0).astype(float), values.max(axis=0).astype(float))


def merge(one: Moments, other: Moments) -> Moments:
    """What both parts together say, without the cancellation that sums of squares suffer from.

    Source: Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances, 1979.
    """
    count = one.count + other.count
    with np.errstate(over="ignore", invalid="ignore"):
        delta = other.mean - one.mean
        mean = one.mean + delta * (other.count / count)
        squares = one.squares + other.squares + np.square(delta) * (one.count * other.count / count)
    return Moments(count, mean, squares, np.minimum(one.lowest, other.lowest), np.maximum(one.highest, other.highest))


def _moments(table: pa.Table, rows: np.ndarray) -> Moments:
    return moments_of(matrix(unwrap(flat(table["values"].take(pa.array(rows))))[1]))


def _num_features(table: pa.Table) -> int:
    return int(table.schema.field("values").type.value_type.list_size)


def fit_encoding(
    sequences: Sequences,
    train_indices: np.ndarray,
    task: Task,
    choices: Choices,
    *,
    held_out: Sequences | None = None,
    normalize: str = "none",
) -> Encoding:
    """Look once through all blocks, in Ray tasks; the task says what the targets mean.

    Classes that are not given, and the symbols where all of them must be known, are those of all sequences; other
    words, categories, scaling and the counts of classes come from the training part alone.

    Args:
        held_out: where the held-out sequences are a dataset of their own.

    Raises:
        DataError: a label is not among the classes (names it and its sequence), there is one class only, or there is
            nothing to forecast; or a categorical column is empty everywhere.
    """
    needs = task.needs(choices)
    found = survey(sequences, train_indices, held_out, needs)
    if found.symbols:
        return task.encoding(Symbols(_vocabulary(found.symbols, needs)), found, choices)
    scaling = Scaling.none(0)
    if "values" in found.schema.names:
        names = feature_names(found.schema, "values")
        scaling = fit_scaling(sequences.blocks, sequences.offsets, train_indices, kind=normalize, names=names)
    _check_words(found)
    inputs = Numbers(
        scaling,
        categories=tuple(tuple(sorted(column)) for column in found.categories),
        names=feature_names(found.schema, "values"),
        category_names=feature_names(found.schema, "categories"),
    )
    return task.encoding(inputs, found, choices)


def _check_words(found: Survey) -> None:
    """
    Raises:
        DataError: a categorical column holds no word at all.
    """
    names = feature_names(found.schema, "categories")
    for place, words in enumerate(found.categories):
        if not words:
            name = f"column {names[place]!r}" if names else f"categorical column {place}"
            raise DataError(f"{name} is empty in every sequence that is learned: leave it out of the features")


def losses(sequences: Sequences, encoding: Encoding) -> list[str]:
    """What to know about numbers that were told apart where the sequences lie, and are not by a network.

    Raises:
        DataError: a number is beyond what float32 holds, in which networks compute.
    """
    look = ray.remote(_lost)
    found: dict[str, tuple[float, float]] = {}
    for lost in results([look.remote(block, encoding) for block in sequences.blocks]):
        found = lost | found
    said = [
        f"column {name!r} holds whole numbers such as {one} and {other}, which are one in float64, in which they are "
        "scaled: take something off before, or cut the column in two"
        for name, (one, other) in sequences.lost.items()
    ]
    scaled = isinstance(encoding.inputs, Numbers) and encoding.inputs.scaling.kind != "none"
    way_out = "leave out what lies far off, or cut the column in two" if scaled else "set data.normalize: standardize"
    return said + [
        f"{name} holds numbers such as {one!r} and {other!r}, which are one in float32, in which networks compute: "
        + ("take something off before" if name == LABEL else way_out)
        for name, (one, other) in found.items()
    ]


def _lost(table: pa.Table, encoding: Encoding) -> dict[str, tuple[float, float]]:
    """The columns of one block that have such numbers, and two of each."""
    found = {}
    if isinstance(encoding.inputs, Numbers) and "values" in table.column_names:
        scaling, names = encoding.inputs.scaling, feature_names(table.schema, "values")
        narrowed = encoding.inputs.read(table)[:, : scaling.width]
        values = matrix(unwrap(flat(table["values"]))[1])
        for place, scale in enumerate(scaling.scale):
            if pair := lost_in_float32(values[:, place], narrowed[:, place], scale):
                found[_called(names, place)] = pair
    if isinstance(encoding.targets, Numbers) and "label" in table.column_names:
        values, narrowed = encoding.targets.labels(table), encoding.targets.of_labels(table)[0]
        there = np.isfinite(values).all(axis=1)
        for place in range(encoding.targets.size):
            if pair := lost_in_float32(values[there, place], narrowed[there, place], 1.0):
                found[LABEL] = pair
    return found


def _vocabulary(counts: dict[str, int], needs: Needs) -> Vocabulary:
    if needs.every_symbol:
        return Vocabulary.from_counts(counts)
    return Vocabulary.from_counts(counts, rarest=RARE, unknown=True)
