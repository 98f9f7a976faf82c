"""Fits an encoding: one look through all blocks, in Ray tasks.

S steps of all sequences together, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
import pyarrow as pa
import ray

from rayrnn.data.arrow_lists import depth, flat, is_list, matrix, unwrap
from rayrnn.data.encoding import Encoding, Scaling, check_labels, labels_of, naturally
from rayrnn.data.rows import feature_names
from rayrnn.data.sequences import Sequences, results
from rayrnn.data.vocabulary import Vocabulary, add_counts, count_characters, count_words
from rayrnn.errors import DataError

#: a word that the training part holds only once is learned as the unknown one, so that there is something to learn
RARE = 2


@dataclass(frozen=True)
class Survey:
    """What was found."""

    #: symbol -> how often; of a language model in all sequences, else in the training part
    symbols: dict[str, int] = field(default_factory=dict)
    #: of every categorical column, word -> how often in the training part
    categories: tuple[dict[str, int], ...] = ()
    #: class -> the first sequence that has it, of all sequences
    labels: dict[str, str] = field(default_factory=dict)
    #: class -> how often in the training part
    label_counts: dict[str, int] = field(default_factory=dict)


def survey(sequences: Sequences, train_indices: np.ndarray, held_out: Sequences | None, *, task: str) -> Survey:
    """Survey every block in a Ray task of its own.

    Args:
        train_indices: ascending.
        held_out: sequences of which none is learned.
    """
    ends = np.searchsorted(train_indices, sequences.offsets)
    survey_block = ray.remote(_survey_block)
    tasks = [
        survey_block.remote(block, train_indices[start:end] - offset, task)
        for block, offset, start, end in zip(sequences.blocks, sequences.offsets, ends, ends[1:], strict=False)
    ]
    if held_out is not None:
        tasks += [survey_block.remote(block, np.zeros(0, np.int64), task) for block in held_out.blocks]
    return _merge(results(tasks))


def _survey_block(table: pa.Table, train_rows: np.ndarray, task: str) -> Survey:
    train = table if len(train_rows) == len(table) else table.take(pa.array(train_rows))
    counted = table if task == "language_model" else train
    classes = task in ("classification", "tagging")
    return Survey(
        symbols=_count_symbols(counted),
        categories=_count_categories(train),
        labels=labels_of(table) if classes else {},
        label_counts=_count_labels(train) if classes else {},
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
    return tuple(count_words(words.take(pa.array(np.arange(place, len(words), width)))) for place in range(width))


def _count_labels(table: pa.Table) -> dict[str, int]:
    labels = flat(table["label"])
    return count_words(unwrap(labels)[1] if is_list(labels.type) else labels)


def _merge(surveys: list[Survey]) -> Survey:
    labels: dict[str, str] = {}
    for found in surveys:
        labels = found.labels | labels
    columns = zip(*(found.categories for found in surveys), strict=True)
    return Survey(
        symbols=add_counts(found.symbols for found in surveys),
        categories=tuple(add_counts(column) for column in columns),
        labels=labels,
        label_counts=add_counts(found.label_counts for found in surveys),
    )


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


def fit_encoding(
    sequences: Sequences,
    train_indices: np.ndarray,
    *,
    task: str,
    held_out: Sequences | None = None,
    normalize: str = "none",
    classes: tuple[str, ...] | None = None,
    num_classes: int | None = None,
    horizon: int = 0,
) -> Encoding:
    """Look once through all blocks, in Ray tasks.

    A language model's symbols and the classes (where they are not given) are those of all sequences; words of other
    tasks, categories, scaling and the counts of classes come from the training part alone.

    Args:
        held_out: where the held-out sequences are a dataset of their own.
        classes, num_classes: the classes by name, or their number when they are 0 .. num_classes - 1.

    Raises:
        DataError: a label is not among the classes (names it and its sequence), there is one class only, or there is
            nothing to forecast.
    """
    found = survey(sequences, train_indices, held_out, task=task)
    if num_classes is not None:
        classes = tuple(str(number) for number in range(num_classes))
    if task in ("classification", "tagging"):
        classes = classes or tuple(naturally(found.labels))
        check_labels(found.labels, classes)
        _check_enough(classes)
    schema = sequences.schema
    if horizon and "values" not in schema.names:
        raise DataError(f"data.horizon is {horizon}, but these sequences hold no numbers to forecast")
    scaling = None
    if "values" in schema.names:
        scaling = fit_scaling(sequences.blocks, sequences.offsets, train_indices, kind=normalize)
    return Encoding(
        task=task,
        vocabulary=_vocabulary(found.symbols, task) if found.symbols else None,
        scaling=scaling,
        categories=tuple(tuple(sorted(column)) for column in found.categories),
        classes=classes,
        class_counts=tuple(found.label_counts.get(label, 0) for label in classes or ()),
        per_step=_answers_every_step(task, schema, horizon),
        horizon=horizon,
        num_features=_width(schema, "values"),
        feature_names=feature_names(schema, "values"),
        category_names=feature_names(schema, "categories"),
        num_answers=_width(schema, "label") if task == "regression" else 0,
    )


def _check_enough(classes: tuple[str, ...]) -> None:
    if not classes:
        raise DataError("no step of any sequence has a label: there is nothing to learn")
    if len(classes) == 1:
        raise DataError(
            f"every label is {classes[0]!r}: there is nothing to tell apart; give sequences of other classes too, or "
            "see whether this is the right column"
        )


def _vocabulary(counts: dict[str, int], task: str) -> Vocabulary:
    if task == "language_model":
        return Vocabulary.from_counts(counts)
    return Vocabulary.from_counts(counts, rarest=RARE, unknown=True)


def _answers_every_step(task: str, schema: pa.Schema, horizon: int) -> bool:
    if task == "regression" and not horizon:
        return depth(schema.field("label").type) == 2
    return task != "classification"


def _width(schema: pa.Schema, name: str) -> int:
    """Numbers a step, or an answer; 0 where there is no such column."""
    if name not in schema.names:
        return 0
    kind = schema.field(name).type
    return int((kind if pa.types.is_fixed_size_list(kind) else kind.value_type).list_size)
