"""Symbols become numbers and come back; those that nobody knows are named."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayrnn.data.symbols import Symbols
from rayrnn.data.units import CHARACTERS, WORDS
from rayrnn.data.vocabulary import END, UNKNOWN, Vocabulary, add_counts, count_characters, count_words
from rayrnn.errors import DataError


def encoded(vocabulary: Vocabulary, words: list[str]) -> np.ndarray:
    return vocabulary.encode_words(pa.array(words, pa.string()))


TEXTS = st.lists(st.text(max_size=30), min_size=1, max_size=8)
SOME_WORDS = st.lists(st.text("abc0 ", min_size=1, max_size=4), min_size=1, max_size=30)


@given(TEXTS)
def test_any_text_comes_back_from_its_numbers(texts: list[str]) -> None:
    vocabulary = Vocabulary.from_counts(count_characters(pa.array(texts, pa.string())))
    for text in texts:
        numbers = vocabulary.encode_characters(text)
        assert numbers.dtype == "int64"
        assert "".join(vocabulary.decode(numbers)) == text
        assert encoded(vocabulary, list(text)).tolist() == numbers.tolist()


@given(SOME_WORDS)
def test_words_come_back_from_their_numbers(words: list[str]) -> None:
    vocabulary = Vocabulary.from_counts(count_words(pa.array(words, pa.string())))
    assert vocabulary.decode(encoded(vocabulary, words)) == words
    assert vocabulary.symbols == tuple(sorted(set(words)))


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_counting_in_parts_is_counting_the_whole(parts: list[list[str]]) -> None:
    found = add_counts(count_characters(pa.array(texts, pa.string())) for texts in parts)
    assert found == Counter("".join(text for texts in parts for text in texts))
    found = add_counts(count_words(pa.array(texts, pa.string())) for texts in parts)
    assert found == Counter(text for texts in parts for text in texts)


@pytest.mark.parametrize("stranger", ["x", "é", "🌹", "\x00", "\ud800"])
def test_a_character_that_nobody_knows_is_named(stranger: str) -> None:
    with pytest.raises(DataError) as caught:
        Vocabulary(("a", "b", "c")).encode_characters(f"ab{stranger}c{stranger}")
    assert f"the symbol {stranger!r} is not in the vocabulary of 3 symbols: 'a' 'b' 'c'" in str(caught.value)


def test_a_word_that_nobody_knows_is_named_unless_there_is_an_unknown_one() -> None:
    with pytest.raises(DataError, match="the symbol 'fox' is not in the vocabulary of 2 symbols"):
        encoded(Vocabulary(("lazy", "dog")), ["dog", "fox"])
    vocabulary = Vocabulary((UNKNOWN, "dog", "lazy"))
    assert encoded(vocabulary, ["dog", "fox", UNKNOWN]).tolist() == [1, 0, 0]
    assert Vocabulary((UNKNOWN, "a")).encode_characters("ab").tolist() == [1, 0]


def test_rare_words_are_learned_as_the_unknown_one() -> None:
    vocabulary = Vocabulary.from_counts({"the": 5, "cat": 2, "zygote": 1}, rarest=2, unknown=True)
    assert vocabulary.symbols == (UNKNOWN, "cat", "the")
    assert encoded(vocabulary, ["the", "zygote"]).tolist() == [2, 0]


def test_joined_symbols_are_text_without_its_end_and_words_with_spaces() -> None:
    vocabulary = Vocabulary.from_counts({"a": 1, "b": 1, END: 1})
    assert vocabulary.end == 0
    letters = Symbols(vocabulary, CHARACTERS)
    assert letters.text_of(letters.numbers_of(f"abba{END}")) == "abba"
    assert Vocabulary(("a", "b")).end == -1
    words = Symbols(Vocabulary(("brown", "quick", "the")), WORDS)
    assert "".join(map(words.appended, words.numbers_of("the quick brown"))) == "the quick brown "
