"""Numbers read as people write them."""

import pytest

from rayrnn.wording import counted, size


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [
        (1, "minibatch", "1 minibatch"),
        (0, "minibatch", "0 minibatches"),
        (3, "class", "3 classes"),
        (2000, "local file", "2,000 local files"),
    ],
)
def test_a_noun_goes_with_its_number(number: int, noun: str, said: str) -> None:
    assert counted(number, noun) == said


@pytest.mark.parametrize(
    ("num_bytes", "said"),
    [(0, "0 bytes"), (999, "999 bytes"), (114_000, "114 kB"), (3.64e6, "3.64 MB"), (999_700, "1 MB"), (5e12, "5.0 TB")],
)
def test_a_size_has_three_digits(num_bytes: float, said: str) -> None:
    assert size(num_bytes) == said
