"""Rows become padded tensors whose masks say what counts, and segments that together are the whole."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rayrnn.data.batches import Minibatch, pad
from rayrnn.data.encoding import Encoding
from rayrnn.data.symbols import Symbols
from rayrnn.data.vocabulary import Vocabulary
from rayrnn.tasks.language_model import LanguageModel
from tests.asked import rows

ABC = Symbols(Vocabulary(("a", "b", "c")))


def texts(*values: str) -> Minibatch:
    return LanguageModel().minibatch(rows("language_model", text=list(values)), Encoding(ABC, ABC, per_step=True))


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


@pytest.mark.parametrize("truncate", [0, 1, 2, 5])
def test_targets_of_their_own_length_belong_whole_to_the_segment_in_which_a_sequence_ends(truncate: int) -> None:
    lengths, target_lengths = torch.tensor([1, 5, 2]), torch.tensor([7, 3, 4])
    inputs = torch.zeros(3, 5, dtype=torch.int64)
    targets = torch.arange(21).reshape(3, 7)
    mask, target_mask = torch.arange(5) < lengths[:, None], torch.arange(7) < target_lengths[:, None]
    minibatch = Minibatch(inputs, targets, mask, target_mask, keys=("a", "b", "c"), per_step=False)
    segments = minibatch.segments(truncate)
    assert all(segment.targets.equal(targets) for segment in segments)
    assert torch.stack([segment.target_mask for segment in segments]).sum(0).equal(target_mask.long())
    for number, segment in enumerate(segments):
        answered = segment.target_mask.any(dim=1).tolist()
        assert answered == [not truncate or (length - 1) // truncate == number for length in lengths.tolist()]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=9))
def test_padding_lays_rows_side_by_side(sizes: list[int]) -> None:
    flat = np.arange(1, sum(sizes) + 1)
    padded, mask = pad(flat, np.array(sizes))
    assert padded[mask].tolist() == flat.tolist()
    assert not padded[~mask].any()
    assert mask.sum(axis=1).tolist() == sizes
