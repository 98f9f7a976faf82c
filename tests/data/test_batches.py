"""Rows become padded tensors whose masks say what counts, and segments that together are the whole."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rayrnn.data.batches import Minibatch, collate, pad
from rayrnn.data.encoding import Encoding, Scaling
from rayrnn.data.rows import canonical
from rayrnn.data.vocabulary import END, UNKNOWN, Vocabulary
from rayrnn.errors import DataError

ABC = Encoding(task="language_model", vocabulary=Vocabulary(("a", "b", "c")))
UNSCALED = Scaling("none", (0.0, 0.0), (1.0, 1.0))


def rows(task: str, **columns: Any) -> pa.Table:
    count = len(next(iter(columns.values())))
    keys = [f"row {number}" for number in range(count)]
    return canonical(pa.table({"key": keys, **columns}), task, labelled="label" in columns)


def texts(*values: str) -> Minibatch:
    return collate(rows("language_model", text=list(values)), ABC)


def test_a_language_model_learns_the_next_symbol() -> None:
    minibatch = texts("abcab", "cba")
    assert minibatch.inputs.tolist() == [[0, 1, 2, 0], [2, 1, 0, 0]]
    assert minibatch.targets.tolist() == [[1, 2, 0, 1], [1, 0, 0, 0]]
    assert minibatch.mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert minibatch.target_mask.tolist() == minibatch.mask.tolist()
    assert (minibatch.inputs.dtype, minibatch.targets.dtype) == (torch.int64, torch.int64)
    assert minibatch.keys == ("row 0", "row 1")
    assert minibatch.steps == 6


def test_words_are_learned_like_characters() -> None:
    encoding = Encoding(task="language_model", vocabulary=Vocabulary(("10", "9", "end")))
    minibatch = collate(rows("language_model", symbols=[["9", "10", "end"], ["end", "9"]]), encoding)
    assert minibatch.inputs.tolist() == [[1, 0], [2, 0]]
    assert minibatch.targets.tolist() == [[0, 2], [1, 0]]


@given(st.lists(st.text("abc", min_size=2, max_size=12), min_size=1, max_size=9))
def test_every_symbol_of_every_text_is_where_it_belongs(values: list[str]) -> None:
    minibatch = texts(*values)
    assert minibatch.steps == sum(len(value) - 1 for value in values)
    for row, value in enumerate(values):
        mask = minibatch.mask[row]
        assert "".join(ABC.text_vocabulary.decode(minibatch.inputs[row][mask].tolist())) == value[:-1]
        assert "".join(ABC.text_vocabulary.decode(minibatch.targets[row][mask].tolist())) == value[1:]
        assert mask.tolist() == sorted(mask.tolist(), reverse=True)


def test_a_symbol_that_was_not_learned_is_named() -> None:
    with pytest.raises(DataError, match="sequence 'row 1': the symbol 'x' is not in the vocabulary"):
        texts("abc", "abx", "aby")


def test_classification_has_one_class_a_sequence() -> None:
    encoding = Encoding(
        task="classification",
        scaling=UNSCALED,
        num_features=2,
        classes=("no", "yes"),
        class_counts=(1, 2),
        per_step=False,
    )
    table = rows("classification", values=[[[1, 2], [3, 4], [5, 6]], [[7, 8]], [[9, 9]]], label=["yes", "no", None])
    minibatch = collate(table, encoding)
    assert minibatch.inputs.tolist() == [[[1, 2], [3, 4], [5, 6]], [[7, 8], [0, 0], [0, 0]], [[9, 9], [0, 0], [0, 0]]]
    assert minibatch.inputs.dtype == torch.float32
    assert minibatch.targets.tolist() == [1, 0, 0]
    assert minibatch.target_mask.tolist() == [True, True, False]


def test_tagging_has_one_class_a_step_and_null_is_none() -> None:
    encoding = Encoding(task="tagging", vocabulary=Vocabulary((UNKNOWN, "a", "dog")), classes=("DET", "NOUN"))
    table = rows(
        "tagging",
        symbols=[["a", "dog"], ["cat"], ["a", "a", "dog"]],
        label=[["DET", "NOUN"], ["NOUN"], ["DET", None, "NOUN"]],
    )
    minibatch = collate(table, encoding)
    assert minibatch.inputs.tolist() == [[1, 2, 0], [0, 0, 0], [1, 1, 2]]
    assert minibatch.targets.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert minibatch.target_mask.tolist() == [[True, True, False], [True, False, False], [True, False, True]]
    assert minibatch.mask.tolist() == [[True, True, False], [True, False, False], [True, True, True]]


def test_regression_has_numbers_a_sequence() -> None:
    encoding = Encoding(task="regression", scaling=UNSCALED, num_features=2, num_answers=2, per_step=False)
    table = rows("regression", values=[[[1, 2]], [[3, 4]], [[5, 6]]], label=[[0.5, 1.5], [2.5, None], None])
    minibatch = collate(table, encoding)
    assert minibatch.targets.tolist() == [[0.5, 1.5], [0, 0], [0, 0]]
    assert minibatch.target_mask.tolist() == [True, False, False]


def test_regression_has_numbers_a_step() -> None:
    encoding = Encoding(task="regression", scaling=UNSCALED, num_features=2, num_answers=1)
    table = rows("regression", values=[[[1, 2], [3, 4]], [[5, 6]]], label=[[[1.0], [float("nan")]], [[3.0]]])
    minibatch = collate(table, encoding)
    assert minibatch.targets.tolist() == [[[1], [0]], [[3], [0]]]
    assert minibatch.target_mask.tolist() == [[True, False], [True, False]]


def test_a_forecast_is_the_series_itself_so_many_steps_ahead() -> None:
    encoding = Encoding(
        task="regression", scaling=Scaling("standardize", (1.0, 0.0), (2.0, 1.0)), num_features=2, horizon=2
    )
    table = rows("regression", values=[[[1, 0], [3, 1], [5, 2], [7, 3]], [[1, 5], [1, 6], [9, 7]]])
    minibatch = collate(table, encoding)
    assert minibatch.inputs.tolist() == [[[0, 0], [1, 1], [2, 2], [3, 3]], [[0, 5], [0, 6], [4, 7], [0, 0]]]
    assert minibatch.targets.tolist() == [[[2, 2], [3, 3], [0, 0], [0, 0]], [[4, 7], [0, 0], [0, 0], [0, 0]]]
    assert minibatch.target_mask.tolist() == [[True, True, False, False], [True, False, False, False]]
    assert encoding.in_own_units(minibatch.targets.numpy())[0, 0].tolist() == [5, 2]


def test_a_sequence_no_longer_than_the_horizon_has_no_target() -> None:
    encoding = Encoding(task="regression", scaling=UNSCALED, num_features=2, horizon=5)
    assert not collate(rows("regression", values=[[[1, 0], [3, 1]]]), encoding).target_mask.any()


def test_categories_become_features_beside_the_scaled_values() -> None:
    encoding = Encoding(
        task="classification",
        scaling=Scaling("min_max", (10.0,), (10.0,)),
        categories=(("green", "red"), ("no", "yes")),
        classes=("a", "b"),
        num_features=1,
        per_step=False,
    )
    table = rows(
        "classification",
        values=[[10.0, 20.0], [15.0]],
        categories=[[["red", "no"], ["green", "yes"]], [["blue", "yes"]]],
        label=["a", "b"],
    )
    minibatch = collate(table, encoding)
    assert encoding.num_inputs == 5
    assert minibatch.inputs[0].tolist() == [[0, 0, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert minibatch.inputs[1][0].tolist() == [0.5, 0, 0, 0, 1]


def test_rows_without_labels_have_no_targets() -> None:
    encoding = Encoding(task="classification", scaling=UNSCALED, num_features=2, classes=("a", "b"), per_step=False)
    minibatch = collate(rows("classification", values=[[[1, 2]], [[3, 4]]]), encoding)
    assert (minibatch.targets.tolist(), minibatch.target_mask.tolist()) == ([0, 0], [False, False])
    tagging = Encoding(task="tagging", scaling=UNSCALED, num_features=2, classes=("a", "b"))
    minibatch = collate(rows("tagging", values=[[[1, 2], [3, 4]], [[3, 4]]]), tagging)
    assert minibatch.target_mask.tolist() == [[False, False], [False, False]]


def test_a_label_outside_the_classes_is_told_with_its_sequence() -> None:
    encoding = Encoding(task="tagging", vocabulary=Vocabulary((UNKNOWN, "a")), classes=("DET", "NOUN"))
    with pytest.raises(DataError, match="sequence 'row 1' has the label 'VERB', which is not among the 2 classes: DET"):
        collate(rows("tagging", symbols=[["a"], ["a", "a"]], label=[["DET"], ["NOUN", "VERB"]]), encoding)


def test_sequences_of_another_width_than_was_learned_are_refused() -> None:
    encoding = Encoding(task="classification", scaling=UNSCALED, num_features=2, classes=("a", "b"), per_step=False)
    with pytest.raises(DataError, match="the sequences have 3 features, the model learned 2"):
        collate(rows("classification", values=[[[1, 2, 3]]]), encoding)
    with pytest.raises(DataError, match="the model learned sequences of values"):
        collate(rows("classification", symbols=[["a"]]), encoding)


@given(st.lists(st.integers(1, 23), min_size=1, max_size=6), st.integers(0, 25))
def test_segments_together_are_the_minibatch(lengths: list[int], truncate: int) -> None:
    minibatch = texts(*[("abc" * 10)[: length + 1] for length in lengths])
    segments = minibatch.segments(truncate)
    for name in ("inputs", "targets", "mask", "target_mask"):
        assert torch.cat([getattr(segment, name) for segment in segments], dim=1).equal(getattr(minibatch, name))
    assert len(segments) == (-(-max(lengths) // truncate) if truncate else 1)
    assert sum(segment.steps for segment in segments) == minibatch.steps
    assert all(segment.steps for segment in segments)


def test_what_is_padding_to_every_sequence_is_dropped() -> None:
    mask = torch.tensor([[True, True, True, False, False, False, False], [True] * 2 + [False] * 5])
    inputs = torch.zeros(2, 7, dtype=torch.int64)
    minibatch = Minibatch(inputs=inputs, targets=inputs, mask=mask, target_mask=mask, keys=("a", "b"))
    assert [segment.mask.shape[1] for segment in minibatch.segments(2)] == [2, 1]
    assert [segment.mask.shape[1] for segment in minibatch.segments(0)] == [3]


@pytest.mark.parametrize("truncate", [1, 2, 3, 5])
def test_one_answer_a_sequence_belongs_to_the_segment_in_which_it_ends(truncate: int) -> None:
    encoding = Encoding(task="classification", scaling=UNSCALED, num_features=2, classes=("a", "b"), per_step=False)
    lengths = [1, 2, 3, 4, 5]
    values = [[[1, 1]] * length for length in lengths]
    minibatch = collate(rows("classification", values=values, label=["a", "b", "a", None, "b"]), encoding)
    segments = minibatch.segments(truncate)
    answered = torch.stack([segment.target_mask for segment in segments])
    assert answered.sum(dim=0).tolist() == [1, 1, 1, 0, 1]
    for row in (0, 1, 2, 4):
        assert int(answered[:, row].nonzero()) == (lengths[row] - 1) // truncate


def test_an_empty_table_is_an_empty_minibatch() -> None:
    table = rows("language_model", text=["ab"]).slice(0, 0)
    minibatch = collate(table, ABC)
    assert (minibatch.steps, minibatch.keys, minibatch.segments(5)) == (0, (), [])


@given(st.lists(st.integers(0, 9), min_size=1, max_size=9))
def test_padding_lays_rows_side_by_side(sizes: list[int]) -> None:
    flat = np.arange(1, sum(sizes) + 1)
    padded, mask = pad(flat, np.array(sizes))
    assert padded[mask].tolist() == flat.tolist()
    assert not padded[~mask].any()
    assert mask.sum(axis=1).tolist() == sizes


def test_the_end_of_a_whole_text_is_learned() -> None:
    encoding = Encoding(task="language_model", vocabulary=Vocabulary.from_counts({"a": 1, "b": 1, END: 1}))
    minibatch = collate(rows("language_model", text=[f"ab{END}"]), encoding)
    assert minibatch.targets.tolist() == [[encoding.text_vocabulary.encode("b")[0], encoding.text_vocabulary.end]]
