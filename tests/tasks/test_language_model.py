"""A language model learns and is measured on the next symbol of every step."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rayrnn.data.batches import Minibatch
from rayrnn.data.encoding import Encoding
from rayrnn.data.symbols import Symbols
from rayrnn.data.vocabulary import END, Vocabulary
from rayrnn.errors import DataError
from rayrnn.tasks import Choices
from rayrnn.tasks.language_model import LanguageModel
from tests.asked import rows
from tests.tasks.segments import ONE_TO_THREE, segment

TASK = LanguageModel()


def of(*symbols: str) -> Encoding:
    known = Symbols(Vocabulary(symbols))
    return Encoding(known, known, per_step=True)


ABC = of("a", "b", "c")


def texts(*values: str) -> Minibatch:
    return TASK.minibatch(rows("language_model", text=list(values)), ABC)


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
    encoding = of("10", "9", "end")
    minibatch = TASK.minibatch(rows("language_model", symbols=[["9", "10", "end"], ["end", "9"]]), encoding)
    assert minibatch.inputs.tolist() == [[1, 0], [2, 0]]
    assert minibatch.targets.tolist() == [[0, 2], [1, 0]]


@given(st.lists(st.text("abc", min_size=2, max_size=12), min_size=1, max_size=9))
def test_every_symbol_of_every_text_is_where_it_belongs(values: list[str]) -> None:
    minibatch = texts(*values)
    assert minibatch.steps == sum(len(value) - 1 for value in values)
    for row, value in enumerate(values):
        mask = minibatch.mask[row]
        assert "".join(ABC.vocabulary.decode(minibatch.inputs[row][mask].tolist())) == value[:-1]
        assert "".join(ABC.vocabulary.decode(minibatch.targets[row][mask].tolist())) == value[1:]
        assert mask.tolist() == sorted(mask.tolist(), reverse=True)


def test_a_symbol_that_was_not_learned_is_named() -> None:
    with pytest.raises(
        DataError, match=r"sequence 'row 1': the symbol 'x' is not in the vocabulary.*leave this sequence out"
    ):
        texts("abc", "abx", "aby")


def test_the_end_of_a_whole_text_is_learned() -> None:
    encoding = of(*sorted(("a", "b", END)))
    minibatch = TASK.minibatch(rows("language_model", text=[f"ab{END}"]), encoding)
    assert minibatch.targets.tolist() == [[encoding.vocabulary.encode_characters("b")[0], encoding.vocabulary.end]]


def test_an_empty_table_is_an_empty_minibatch() -> None:
    minibatch = TASK.minibatch(rows("language_model", text=["ab"]).slice(0, 0), ABC)
    assert (minibatch.steps, minibatch.keys, minibatch.segments(5)) == (0, (), [])


def test_a_language_model_is_measured_in_nats_bits_and_perplexity() -> None:
    metrics = TASK.metrics(of("a", "b"))
    outputs = torch.tensor([[ONE_TO_THREE, ONE_TO_THREE, ONE_TO_THREE]])
    TASK.measure(
        metrics, outputs, segment(torch.tensor([[0, 1, 0]]), torch.tensor([[True, True, False]])), of("a", "b")
    )
    loss = (math.log(4) + math.log(4 / 3)) / 2
    assert TASK.results(metrics) == pytest.approx(
        {"loss": loss, "perplexity": math.exp(loss), "bits_per_symbol": loss / math.log(2), "accuracy": 0.5}
    )
    assert TASK.describe_loss(math.log(2)) == "0.6931 nats a step = 1.000 bits"


def test_a_language_model_must_not_see_the_symbol_it_predicts() -> None:
    assert TASK.faults(Choices(truncate=50)) == []
    (fault,) = TASK.faults(Choices(bidirectional=True))
    assert "model.bidirectional must be none" in fault
