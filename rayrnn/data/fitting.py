"""Fits an encoding: one look through all blocks, in Ray tasks.

S steps of all sequences together, F features.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from rayrnn.data.arrow_lists import flat, is_list, matrix, unwrap
from rayrnn.data.beside_steps import weights_of
from rayrnn.data.encoding import Encoding, Numbers, Scaling, Survey, labels_of
from rayrnn.data.narrowing import lost_in_float32
from rayrnn.data.rows import Label, Needs, feature_names, was_text
from rayrnn.data.sequences import Sequences, results
from rayrnn.data.symbols import Symbols
from rayrnn.data.units import WORDS, Units, find_pieces
from rayrnn.data.vocabulary import END, Vocabulary, add_counts, count_characters, count_words
from rayrnn.errors import DataError
from rayrnn.tasks import Choices, Refusing, Task
from rayrnn.wording import counted

#: as messages call numbers to predict
LABEL = "the label"


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
        weight=0.0 if (weights := weights_of(train)) is None else float(weights[0].sum()),
        **_count_targets(train if needs.label is Label.SEQUENCE else None),
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


def _count_targets(table: pa.Table | None) -> dict[str, Any]:
    if table is None:
        return {}
    sizes, words = unwrap(flat(table["target"]))
    return {"target_symbols": count_words(words), "longest_target": int(sizes.max(initial=0))}


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
        weight=sum(found.weight for found in surveys),
        target_symbols=add_counts(found.target_symbols for found in surveys),
        longest_target=max(found.longest_target for found in surveys),
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
    needs: Needs | None = None,
    held_out: Sequences | None = None,
    normalize: str = "none",
) -> Encoding:
    """Look once through all blocks, in Ray tasks; the task says what the targets mean.

    Classes that are not given, and the symbols where all of them must be known, are those of all sequences; other
    words, categories, scaling and the counts of classes come from the training part alone.

    Args:
        needs: what the task needs, with the units of texts; without it those of the task alone.
        held_out: where the held-out sequences are a dataset of their own.

    Raises:
        DataError: a label is not among the classes (names it and its sequence), there is one class only, or there is
            nothing to forecast; a categorical column is empty everywhere; or no symbol of the targets is known.
    """
    needs = needs or task.needs(choices)
    found = survey(sequences, train_indices, held_out, needs)
    if "weight" in found.schema.names and not found.weight:
        raise DataError(
            f"every weight (data.weight) in the {counted(len(train_indices), 'sequence')} that are learned is 0: "
            "nothing would count; 1 counts once"
        )
    if needs.label is Label.SEQUENCE:
        found = replace(found, targets=_target_symbols(found, needs))
    if found.symbols:
        # a list of symbols is of words, however it came about
        units = needs.units if "text" in found.schema.names or needs.units.kind != "characters" else WORDS
        return task.encoding(Symbols(_vocabulary(found.symbols, needs), units), found, choices)
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


def faults_of_targets(sequences: Sequences, task: Task, encoding: Encoding) -> list[str]:
    """Why some targets cannot be learned: as counts, or with a length of their own; names their sequences."""
    if not isinstance(task, Refusing):
        return []
    look = ray.remote(_faults_of_targets)
    tasks = [look.remote(block, task, encoding) for block in sequences.blocks]
    return [fault for faults in results(tasks) for fault in faults]


def _faults_of_targets(table: pa.Table, task: Refusing, encoding: Encoding) -> list[str]:
    return task.faults_of(table, encoding)


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
        return Vocabulary.from_counts(dict.fromkeys(needs.known_symbols, 1) | counts)
    return Vocabulary.from_counts(counts, rarest=needs.rarest, unknown=True)


def _target_symbols(found: Survey, needs: Needs) -> Symbols:
    """
    Raises:
        DataError: no symbol of the targets is known.
    """
    rarest = needs.rarest_target
    known = {symbol: count for symbol, count in found.target_symbols.items() if count >= rarest}
    if not known:
        raise DataError(
            f"no symbol of the targets is there {counted(rarest, 'time')} or more in the sequences that are learned: "
            "lower data.target_rare, or cut targets into smaller units (data.target_units)"
        )
    vocabulary = Vocabulary.from_counts(known | {END: rarest}, rarest=rarest, unknown=True)
    # a list of symbols is of words, whatever texts are cut into
    return Symbols(vocabulary, needs.target_units if was_text(found.schema) else WORDS, found.longest_target)


def found_units(
    sequences: Sequences, train_indices: np.ndarray, needs: Needs, *, pieces: int, target_pieces: int
) -> Needs:
    """The same needs, with the pieces of words that texts and targets of the training part are made of.

    Args:
        pieces: of the texts that are read, and of the targets: how many there are to be.

    Raises:
        DataError: so many cannot be found, or there are lists of symbols and no texts.
    """
    schema = sequences.schema
    if not needs.units.are_found and "symbols" in schema.names:
        raise DataError("data.units is pieces, which texts are cut into, and the symbols are lists: leave it out")
    if not needs.target_units.are_found and "target" in schema.names and not was_text(schema):
        raise DataError(
            "data.target_units is pieces, which texts are cut into, and the targets are lists: leave it out"
        )
    find = ray.remote(_find_pieces)
    asked = {
        "units": (needs.units, "text", pieces, "data.pieces"),
        "target_units": (needs.target_units, "target", target_pieces, "data.target_pieces"),
    }
    parts = (list(sequences.blocks), sequences.offsets, train_indices)
    tasks = {
        name: find.remote(parts, column, count, key)
        for name, (units, column, count, key) in asked.items()
        if not units.are_found and column in schema.names
    }
    found = dict(zip(tasks, results(list(tasks.values())), strict=True))
    return replace(needs, **found)


def _find_pieces(parts: tuple[list[ray.ObjectRef], np.ndarray, np.ndarray], column: str, count: int, key: str) -> Units:
    blocks, offsets, indices = parts
    ends = np.searchsorted(indices, offsets)

    def texts() -> Iterator[str]:
        for reference, offset, start, end in zip(blocks, offsets, ends, ends[1:], strict=False):
            yield from ray.get(reference)[column].take(pa.array(indices[start:end] - offset)).drop_null().to_pylist()

    return find_pieces(texts(), count, where=key)
