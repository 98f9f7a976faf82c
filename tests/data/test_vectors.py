"""Vectors of words that others have learned."""

from pathlib import Path

import numpy as np
import pytest

from rayrnn.data.vectors import read_vectors
from rayrnn.data.vocabulary import Vocabulary
from rayrnn.errors import DataError, RecipeError

WORDS = Vocabulary.from_counts({"the": 9, "cat": 3, "naïve": 2}, unknown=True)


def written(folder: Path, content: str) -> str:
    (folder / "vectors.txt").write_text(content)
    return str(folder / "vectors.txt")


@pytest.mark.parametrize("header", ["", "4 2\n"])
def test_the_vectors_of_known_words_are_taken(tmp_path: Path, header: str) -> None:
    where = written(tmp_path, f"{header}cat 1 -2.5\r\ndog 3 4\nnaïve 5e-1 6 \n")
    vectors = read_vectors(where, WORDS, size=2)
    by_word = dict(zip(WORDS.symbols, vectors.values.tolist(), strict=True))
    assert by_word["cat"] == [1, -2.5]
    assert by_word["naïve"] == [0.5, 6]
    assert np.isnan(by_word["the"]).all()
    assert "vectors of 2 numbers for 2 of 4 symbols" in vectors.describe()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("dog 1 2\n", "has none of the 4 symbols that are learned"),
        ("", "has none of the 4 symbols that are learned"),
        ("dog 1 2\ncat 1 x\n", "vectors.txt:2 (data.vectors) is no word with 2 numbers behind it"),
        ("dog 1 2\ncat 1\n", "vectors.txt:2 (data.vectors) is no word with 2 numbers behind it"),
        ("dog 1 2\ncat 1 nan\n", "vectors.txt:2 (data.vectors) is no word with 2 numbers behind it"),
        ("4 3\ncat \x01\x02 \x03\n", "a binary file of word2vec is to be saved as text"),
        ("PK\x03\x04 1 2\n", "is a zip file"),
        ("cat\n", "vectors.txt:1 (data.vectors) is no word with numbers behind it"),
    ],
)
def test_what_are_no_vectors_is_told(tmp_path: Path, content: str, says: str) -> None:
    with pytest.raises(DataError) as refused:
        read_vectors(written(tmp_path, content), WORDS, size=2)
    assert says in str(refused.value)


def test_vectors_of_another_size_than_the_embedding_say_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"of 3 numbers, and model\.embedding is 2: set model\.embedding to 3"):
        read_vectors(written(tmp_path, "cat 1 2 3\n"), WORDS, size=2)
