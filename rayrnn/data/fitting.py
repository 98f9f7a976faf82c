"""Fits an encoding: one look through all blocks, in Ray tasks."""

import numpy as np
import pyarrow as pa

from rayrnn.data.classes import check_labels, naturally
from rayrnn.data.encoding import Encoding
from rayrnn.data.feature_names import feature_names
from rayrnn.data.moments import fit_scaling
from rayrnn.data.ragged import depth
from rayrnn.data.sequences import Sequences
from rayrnn.data.survey import survey
from rayrnn.data.vocabulary import Vocabulary
from rayrnn.errors import DataError

#: a word that the training part holds only once is learned as the unknown one, so that there is something to learn
RARE = 2


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
