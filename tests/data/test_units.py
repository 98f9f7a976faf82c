"""Texts become symbols and symbols texts: characters, words, pieces of words."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayrnn.data.symbols import Symbols
from rayrnn.data.units import CHARACTERS, WORDS, Units, check_pieces, find_pieces
from rayrnn.data.vocabulary import END, UNKNOWN, Vocabulary
from rayrnn.errors import DataError

VERSES = [
    f"the {one} sees the {other}\nand the {other} sees\n" for one in ("cat", "dog", "cow") for other in ("sun", "sea")
]


@pytest.fixture(scope="module")
def pieces() -> Units:
    return find_pieces(VERSES, 100, where="data.pieces")


@given(text=st.text())
def test_characters_make_the_text_again(text: str) -> None:
    assert CHARACTERS.join(CHARACTERS.cut(text)) == text


def test_words_stand_between_blanks_and_a_line_end_is_one() -> None:
    assert WORDS.cut(" to be,\tor\n\nnot ") == ["to", "be,", "or", "\n", "\n", "not"]
    assert WORDS.join(["to", "be,", "or", "\n", "\n", "not"]) == "to be, or\n\nnot"


@given(text=st.text(alphabet="catdogsun eé\n  \x03", max_size=60))
def test_pieces_make_the_text_again_whatever_stands_in_it(pieces: Units, text: str) -> None:
    assert pieces.join(pieces.cut(text)) == text


def test_pieces_are_found_in_lines_of_letters_of_many_bytes() -> None:
    """sentencepiece passes over lines of more than 4,192 bytes unless it is told otherwise."""
    line = "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e " * 300
    found = find_pieces([line] * 3, 40, where="data.pieces")
    assert len(found.cut(line)) < len(line) / 2


def test_pieces_are_longer_than_characters_where_the_text_is_like_what_was_learned(pieces: Units) -> None:
    assert len(pieces.cut("the cat sees the sea")) < len("the cat sees the sea") / 2


def test_as_many_pieces_are_found_as_there_are_and_no_more() -> None:
    few = find_pieces(["ab", "ab", "abab"], 5000, where="data.pieces")
    assert few.join(few.cut("abba")) == "abba"


@pytest.mark.parametrize("texts", [[], ["", "  ", "\n"]])
def test_pieces_of_nothing_are_an_error(texts: list[str]) -> None:
    with pytest.raises(DataError, match=r"40 pieces cannot be found in these texts \(data\.pieces\): give more text"):
        find_pieces(texts, 40, where="data.pieces")


def test_a_null_has_no_symbols() -> None:
    assert WORDS.cut_all(pa.array(["a b", None, ""])).to_pylist() == [["a", "b"], None, []]


def test_a_model_of_pieces_that_is_none_is_refused(pieces: Units) -> None:
    check_pieces(pieces.model)
    for model in (b"", b"nonsense", pieces.model[: len(pieces.model) // 2]):
        with pytest.raises(ValueError, match="no model of sentencepiece's"):
            check_pieces(model)


@pytest.mark.parametrize("units", ["characters", "words", "pieces"])
def test_symbols_are_stored_and_read_with_their_units(units: str, pieces: Units) -> None:
    kept = pieces if units == "pieces" else Units(units)
    vocabulary = Vocabulary.from_counts(dict.fromkeys([*kept.cut(VERSES[0]), END], 2), unknown=True)
    symbols = Symbols(vocabulary, kept, longest=7)
    again = Symbols.from_json(symbols.to_json())
    assert again == symbols
    assert again.text_of(again.numbers_of("the cat")) == "the cat"


def test_symbols_of_runs_that_do_not_tell_their_units_are_known_by_their_length() -> None:
    assert Symbols.from_json({"vocabulary": ["a", "b"]}).units == CHARACTERS
    assert Symbols.from_json({"vocabulary": [UNKNOWN, "one", "two"]}).units == WORDS


def test_what_is_not_known_is_the_unknown_symbol() -> None:
    symbols = Symbols(Vocabulary.from_counts({"the": 3, "cat": 2}, unknown=True), WORDS)
    assert symbols.text_of(symbols.numbers_of("the dog")) == f"the {UNKNOWN}"


def test_targets_are_padded_and_end() -> None:
    symbols = Symbols(Vocabulary.from_counts({"a": 1, "b": 1, END: 1}, unknown=True), WORDS)
    rows = pa.table({"key": ["1", "2", "3"], "target": pa.array([["a"], ["b", "a", "x"], None], pa.list_(pa.string()))})
    numbers, mask = symbols.targets(rows)
    a, b, end, unknown = (symbols.vocabulary.symbols.index(symbol) for symbol in ("a", "b", END, UNKNOWN))
    assert numbers.tolist() == [[a, end, 0, 0], [b, a, unknown, end], [0, 0, 0, 0]]
    assert mask.sum(axis=1).tolist() == [2, 4, 0]
    assert symbols.targets(rows, with_end=False)[1].sum(axis=1).tolist() == [1, 3, 0]
    assert symbols.targets(rows.drop_columns(["target"]))[1].sum() == 0
