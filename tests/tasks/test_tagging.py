"""Tagging learns one class a step; a step without one counts for nothing."""

import pytest
import torch

from rayrnn.data.encoding import Classes, Encoding, Numbers, Scaling
from rayrnn.data.symbols import Symbols
from rayrnn.data.vocabulary import UNKNOWN, Vocabulary
from rayrnn.errors import DataError
from rayrnn.tasks import Choices
from rayrnn.tasks.tagging import Tagging
from tests.asked import rows

TASK = Tagging()
WORDS = Encoding(Symbols(Vocabulary((UNKNOWN, "a", "dog"))), Classes(("DET", "NOUN")), per_step=True)


def test_tagging_has_one_class_a_step_and_null_is_none() -> None:
    table = rows(
        "tagging",
        symbols=[["a", "dog"], ["cat"], ["a", "a", "dog"]],
        label=[["DET", "NOUN"], ["NOUN"], ["DET", None, "NOUN"]],
    )
    minibatch = TASK.minibatch(table, WORDS)
    assert minibatch.inputs.tolist() == [[1, 2, 0], [0, 0, 0], [1, 1, 2]]
    assert minibatch.targets.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert minibatch.target_mask.tolist() == [[True, True, False], [True, False, False], [True, False, True]]
    assert minibatch.mask.tolist() == [[True, True, False], [True, False, False], [True, True, True]]


def test_a_label_outside_the_classes_is_told_with_its_sequence() -> None:
    with pytest.raises(DataError, match="sequence 'row 1' has the label 'VERB', which is not among the 2 classes: DET"):
        TASK.minibatch(rows("tagging", symbols=[["a"], ["a", "a"]], label=[["DET"], ["NOUN", "VERB"]]), WORDS)


def test_rows_without_labels_have_no_targets() -> None:
    encoding = Encoding(Numbers(Scaling.none(2)), Classes(("a", "b")), per_step=True)
    minibatch = TASK.minibatch(rows("tagging", values=[[[1, 2], [3, 4]], [[3, 4]]]), encoding)
    assert minibatch.target_mask.tolist() == [[False, False], [False, False]]


def test_tags_are_learned_segment_by_segment_and_from_both_sides() -> None:
    assert TASK.faults(Choices(truncate=5)) == []
    assert TASK.faults(Choices(bidirectional=True)) == []


def test_balanced_losses_weigh_every_tag_by_the_inverse_of_its_count() -> None:
    encoding = Encoding(WORDS.inputs, Classes(("DET", "NOUN"), (2, 6)), per_step=True)
    weights = TASK.balanced(encoding, torch.device("cpu")).class_weights
    assert weights is not None
    assert weights.tolist() == pytest.approx([2, 2 / 3])
