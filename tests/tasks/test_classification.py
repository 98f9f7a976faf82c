"""A classification learns one class a sequence, and is measured by accuracy, macro F1 and confusions."""

import math

import pyarrow as pa
import pytest
import torch

from rayrnn.data.encoding import Classes, Encoding, Numbers, Scaling, Survey
from rayrnn.errors import DataError
from rayrnn.tasks import Choices
from rayrnn.tasks.classification import Classification
from tests.asked import rows
from tests.tasks.segments import ONE_TO_THREE, segment

TASK = Classification()
TWO_NUMBERS = Numbers(Scaling.none(2))
NO_YES = Encoding(TWO_NUMBERS, Classes(("no", "yes"), (1, 2)), per_step=False)


def test_classification_has_one_class_a_sequence() -> None:
    table = rows("classification", values=[[[1, 2], [3, 4], [5, 6]], [[7, 8]], [[9, 9]]], label=["yes", "no", None])
    minibatch = TASK.minibatch(table, NO_YES)
    assert minibatch.inputs.tolist() == [[[1, 2], [3, 4], [5, 6]], [[7, 8], [0, 0], [0, 0]], [[9, 9], [0, 0], [0, 0]]]
    assert minibatch.inputs.dtype == torch.float32
    assert minibatch.targets.tolist() == [1, 0, 0]
    assert minibatch.target_mask.tolist() == [True, True, False]


def test_categories_become_features_beside_the_scaled_values() -> None:
    inputs = Numbers(Scaling("min_max", (10.0,), (10.0,)), (("green", "red"), ("no", "yes")))
    encoding = Encoding(inputs, Classes(("a", "b")), per_step=False)
    table = rows(
        "classification",
        values=[[10.0, 20.0], [15.0]],
        categories=[[["red", "no"], ["green", "yes"]], [["blue", "yes"]]],
        label=["a", "b"],
    )
    minibatch = TASK.minibatch(table, encoding)
    assert encoding.num_inputs == 5
    assert minibatch.inputs[0].tolist() == [[0, 0, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert minibatch.inputs[1][0].tolist() == [0.5, 0, 0, 0, 1]


def test_rows_without_labels_have_no_targets() -> None:
    minibatch = TASK.minibatch(rows("classification", values=[[[1, 2]], [[3, 4]]]), NO_YES)
    assert (minibatch.targets.tolist(), minibatch.target_mask.tolist()) == ([0, 0], [False, False])


def test_sequences_of_another_width_than_was_learned_are_refused() -> None:
    with pytest.raises(DataError, match="the sequences have 3 features, the model learned 2"):
        TASK.minibatch(rows("classification", values=[[[1, 2, 3]]]), NO_YES)
    with pytest.raises(DataError, match="the model learned sequences of values"):
        TASK.minibatch(rows("classification", symbols=[["a"]]), NO_YES)


@pytest.mark.parametrize("truncate", [1, 2, 3, 5])
def test_the_class_belongs_to_the_segment_in_which_a_sequence_ends(truncate: int) -> None:
    lengths = [1, 2, 3, 4, 5]
    values = [[[1, 1]] * length for length in lengths]
    table = rows("classification", values=values, label=["no", "yes", "no", None, "yes"])
    segments = TASK.minibatch(table, NO_YES).segments(truncate)
    answered = torch.stack([segment.target_mask for segment in segments])
    assert answered.sum(dim=0).tolist() == [1, 1, 1, 0, 1]
    for row in (0, 1, 2, 4):
        assert int(answered[:, row].nonzero()) == (lengths[row] - 1) // truncate


def test_balanced_losses_are_those_of_classes_that_are_all_as_frequent() -> None:
    outputs, targets = torch.tensor([ONE_TO_THREE] * 2), segment(torch.tensor([0, 1]), torch.tensor([True, True]))
    balanced = TASK.balanced(Encoding(TWO_NUMBERS, Classes(("a", "b"), (1, 3)), per_step=False), torch.device("cpu"))
    loss, count = balanced.loss(outputs, targets)
    assert loss.item() == pytest.approx(2 * math.log(4) + 2 / 3 * math.log(4 / 3))
    assert count.item() == 2
    assert TASK.loss(outputs, targets)[0].item() == pytest.approx(math.log(4) + math.log(4 / 3))


def test_a_class_that_is_nowhere_in_the_training_part_weighs_as_if_it_were_there_once() -> None:
    encoding = Encoding(TWO_NUMBERS, Classes(("a", "b"), (0, 3)), per_step=False)
    weights = TASK.balanced(encoding, torch.device("cpu")).class_weights
    assert weights is not None
    assert weights.tolist() == pytest.approx([2, 2 / 3])


def test_classes_are_those_that_were_found_or_given() -> None:
    found = Survey(pa.schema([]), labels={"10": "row 0", "9": "row 1"}, label_counts={"10": 5})
    assert TASK.encoding(TWO_NUMBERS, found, Choices()).targets == Classes(("9", "10"), (0, 5))
    given = TASK.encoding(TWO_NUMBERS, found, Choices(classes=("10", "9", "8")))
    assert (given.targets, given.per_step) == (Classes(("10", "9", "8"), (5, 0, 0)), False)


def test_classes_are_measured_by_accuracy_macro_f1_and_the_confusion_matrix() -> None:
    encoding = Encoding(TWO_NUMBERS, Classes(("a", "b", "c")), per_step=False)
    metrics = TASK.metrics(encoding)
    answers, targets = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 2, 2, 0])
    outputs = torch.nn.functional.one_hot(answers, 3).float()
    mask = torch.tensor([True, True, True, True, True, False])
    TASK.measure(metrics, outputs[:2], segment(targets[:2], mask[:2]), encoding)
    TASK.measure(metrics, outputs[2:], segment(targets[2:], mask[2:]), encoding)
    values = TASK.results(metrics)
    assert values["confusion_matrix"] == [[1, 0, 0], [1, 1, 0], [0, 0, 2]]
    assert values["accuracy"] == pytest.approx(4 / 5)
    assert values["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    right, wrong = math.log(2 + math.e) - 1, math.log(2 + math.e)
    assert values["loss"] == pytest.approx((4 * right + wrong) / 5)


def test_a_class_is_known_only_at_the_sequences_end() -> None:
    assert TASK.faults(Choices(bidirectional=True)) == []
    (fault,) = TASK.faults(Choices(truncate=5))
    assert "training.truncate must be 0" in fault
