"""Several classes a sequence: each is a question of its own."""

import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from rayrnn.data.encoding import Classes, Encoding, Numbers, Scaling, Survey
from rayrnn.data.rows import Label, Needs, canonical
from rayrnn.errors import DataError
from rayrnn.tasks.classification import SetClassification
from tests.tasks.segments import segment

CLASSES = Classes(("a", "b", "c"), several=True)
ENCODING = Encoding(Numbers(Scaling.none(1)), CLASSES, per_step=False)
NEEDS = Needs("classification", Label.SET)


def labelled(*labels: object) -> pa.Table:
    keys, values = [f"row {number}" for number in range(len(labels))], [[[0.5], [1.0]]] * len(labels)
    return canonical(pa.table({"key": keys, "values": values, "label": list(labels)}), NEEDS, labelled=True)


@pytest.mark.parametrize("labels", [["a;c", " b ", None, "c;c;"], [["a", "c"], ["b"], None, ["c", "c"]]])
def test_cells_are_lists_or_texts_with_semicolons(labels: list[object]) -> None:
    assert labelled(*labels)["label"].to_pylist() == [["a", "c"], ["b"], None, ["c"]]


@pytest.mark.parametrize("labels", [[[0, 1, 0], [1, 0, 0]], [[1.0, 1.0], [0.0, 1.0]], [[True, False], [False, True]]])
def test_a_flag_for_every_class_is_no_list_of_classes(labels: list[object]) -> None:
    with pytest.raises(DataError, match="holds a 0 or 1 for every class; several classes are a list of those that"):
        labelled(*labels)


def test_classes_may_be_called_by_the_numbers_0_and_1() -> None:
    assert labelled([0], [1], [0, 1], [])["label"].to_pylist() == [["0"], ["1"], ["0", "1"], []]


@pytest.mark.parametrize("joined", ["cat,dog", "cat | dog", "dog cat", "['cat', 'dog']", "cat/dog"])
def test_other_signs_than_semicolons_between_classes_are_told(joined: str) -> None:
    labels = {"cat": "row 0", "dog": "row 1", joined: "row 2"}
    found = Survey(labels=labels, label_counts=dict.fromkeys(labels, 1))
    with pytest.raises(DataError, match=r"of sequence 'row 2' is several classes .* put semicolons between them"):
        Classes.fit(found, None, several=True)


def test_of_classes_behind_commas_one_that_others_have_alone_is_enough() -> None:
    labels = {"cat": "row 0", "cat,dog": "row 1"}
    found = Survey(labels=labels, label_counts=dict.fromkeys(labels, 1))
    with pytest.raises(DataError, match="put semicolons between them"):
        Classes.fit(found, None, several=True)
    assert Classes.fit(found, None).names == ("cat", "cat,dog")


def test_names_that_look_joined_and_are_not_of_others_are_names() -> None:
    labels = {"New York": "row 0", "a,b": "row 1", "York": "row 2"}
    found = Survey(labels=labels, label_counts=dict.fromkeys(labels, 1))
    assert set(Classes.fit(found, None, several=True).names) == set(labels)


def test_targets_are_one_where_a_class_applies_and_a_row_without_labels_counts_for_nothing() -> None:
    minibatch = SetClassification().minibatch(labelled("a;c", "b", None), ENCODING)
    assert minibatch.targets[:2].tolist() == [[1, 0, 1], [0, 1, 0]]
    assert minibatch.target_mask.tolist() == [True, True, False]


def test_no_class_at_all_is_an_answer_too() -> None:
    minibatch = SetClassification().minibatch(labelled(["a"], []), ENCODING)
    assert minibatch.targets[1].tolist() == [0, 0, 0]
    assert minibatch.target_mask.tolist() == [True, True]


def test_a_class_that_is_not_known_is_told_with_its_sequence() -> None:
    with pytest.raises(DataError, match=r"sequence 'row 1' has the label 'd', which is not among the 3 classes"):
        SetClassification().minibatch(labelled("a", "b;d"), ENCODING)


def test_the_loss_is_the_mean_cross_entropy_of_all_answers_to_a_sequence() -> None:
    outputs = torch.tensor([[0.0, math.log(3), 0.0], [9.0, 9.0, 9.0]])
    sets = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    loss, count = SetClassification().loss(outputs, segment(sets, torch.tensor([True, False])))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4 / 3) + math.log(2)) / 3)
    assert count.item() == 1


def average_precision(scores: np.ndarray, there: np.ndarray) -> float:
    """The mean, over the sequences that have a class, of the precision among all that score as high."""
    order = np.argsort(-scores)
    hits = there[order].cumsum()
    return float((hits / np.arange(1, len(order) + 1))[there[order] == 1].mean())


def test_measures_are_those_of_their_definitions_whoever_counted() -> None:
    generator = np.random.default_rng(5)
    outputs = generator.normal(size=(40, 3)).astype(np.float32)
    sets = (generator.random((40, 3)) < 0.4).astype(np.float32)
    task = SetClassification()
    workers = [task.metrics(ENCODING) for _ in range(2)]
    for number, rows in enumerate((slice(0, 13), slice(13, 40))):
        targets = torch.from_numpy(sets[rows])
        task.measure(
            workers[number],
            torch.from_numpy(outputs[rows]),
            segment(targets, torch.ones(len(targets), dtype=torch.bool)),
            ENCODING,
        )
    workers[0].merge(workers[1:])
    results = task.results(workers[0])
    said, due = outputs > 0, sets > 0
    both, either = (said & due).sum(), said.sum() + due.sum()
    assert results["micro_f1"] == pytest.approx(2 * both / either)
    assert results["hit_at_1"] == pytest.approx(due[np.arange(40), outputs.argmax(1)].mean())
    means = [average_precision(outputs[:, place], sets[:, place]) for place in range(3)]
    assert results["mean_average_precision"] == pytest.approx(np.mean(means), rel=1e-5)


def test_a_class_that_applies_to_nothing_that_is_measured_does_not_count() -> None:
    task = SetClassification()
    metrics = task.metrics(ENCODING)
    targets = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    outputs = torch.where(targets > 0, 5.0, -5.0)
    task.measure(metrics, outputs, segment(targets, torch.ones(2, dtype=torch.bool)), ENCODING)
    results = task.results(metrics)
    assert [results[name] for name in ("mean_average_precision", "macro_f1", "micro_f1")] == [1.0] * 3


def test_answers_are_the_classes_that_are_likelier_than_not() -> None:
    answers = CLASSES.answers(np.array([[2.0, -1.0, 0.5], [-1.0, -2.0, -3.0]], np.float32))
    assert answers["labels"].to_pylist() == [["a", "c"], []]
    assert answers["probabilities"].to_pylist()[0]["a"] == pytest.approx(1 / (1 + math.exp(-2)))
