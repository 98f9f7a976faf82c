"""One look through all sequences: which symbols, categories and labels there are, and how often."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import ray

from rayrnn.data.classes import labels_of
from rayrnn.data.ragged import flat, is_list, unwrap
from rayrnn.data.remote import results
from rayrnn.data.sequences import Sequences
from rayrnn.data.vocabulary import add_counts, count_characters, count_words


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
