"""What --vary may say, and what it is refused for."""

import pytest

from rayrnn.errors import UsageError
from rayrnn.recipe import read_recipe
from rayrnn.tuning.ranges import Choice, Range, check_varied, read_varied


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("training.learning_rate=1e-4..1e-2", Range("training.learning_rate", 1e-4, 1e-2, True, False)),
        ("training.learning_rate=1e-4..1e-2:linear", Range("training.learning_rate", 1e-4, 1e-2, False, False)),
        ("training.l2=0..0.1", Range("training.l2", 0, 0.1, False, False)),
        ("model.hidden=32..512", Range("model.hidden", 32, 512, True, True)),
        ("model.layers=1..3", Range("model.layers", 1, 3, False, True)),
        ("model.layers=1..3:log", Range("model.layers", 1, 3, True, True)),
        ("model.dropout=.1...5", Range("model.dropout", 0.1, 0.5, False, False)),
        ("model.hidden=64,128", Choice("model.hidden", ("64", "128"))),
        ("model.cell= lstm, gru", Choice("model.cell", ("lstm", "gru"))),
        ("model.decoder.input_feeding=true,false", Choice("model.decoder.input_feeding", ("true", "false"))),
        ("model.front_channels=[32,32],[64]", Choice("model.front_channels", ("[32,32]", "[64]"))),
    ],
)
def test_a_range_or_a_list_is_read(word: str, found: Range | Choice) -> None:
    assert read_varied([word]) == (found,)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "there is nothing to search"),
        (["model.hidden"], "--vary takes KEY=VALUES"),
        (["=1..2"], "--vary takes KEY=VALUES"),
        (["model.hidden="], "--vary takes KEY=VALUES"),
        (["model.hidden=64"], "names one value"),
        (["model.hidden=64,"], "names an empty value"),
        (["model.hidden=64,64"], "has a value twice"),
        (["model.hidden=64..64"], "is empty: the range ends at 64"),
        (["model.hidden=128..64"], "is empty: the range ends at 64, which is not above 128"),
        (["training.l2=0..1:log"], "a range by log begins above 0"),
        (["training.l2=0..1:square"], "by log or linear, not by 'square'"),
        (["training.l2=a..b"], "the ends of a range are numbers"),
        (["training.l2=0..inf"], "finite numbers"),
        (["training.l2=nan..1"], "finite numbers"),
        (["model.hidden=1..2", "model.hidden=3,4"], "model.hidden stands twice"),
    ],
)
def test_what_is_neither_is_refused(words: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        read_varied(words)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("training.lerning_rate=1e-4..1e-2", 'is unknown; did you mean "learning_rate"'),
        ("trainin.learning_rate=1e-4..1e-2", 'is unknown; did you mean "training"'),
        ("model.hidden=0..64", "--vary model.hidden, 0: .* greater than 0"),
        ("model.hidden=32..64.5", "--vary model.hidden, 32.0|64.5"),
        ("model.cell=lstm,lsmt", "--vary model.cell, lsmt"),
        ("training.monitor=accuracy,f1", "--vary training.monitor"),
        ("model.bidirectional=none,concat", "a language model must not see the symbol it predicts"),
        ("seed=1..5", "a search does not vary the seed"),
        ("name=a,b", "a search does not vary the name"),
    ],
)
def test_what_the_recipe_does_not_bear_is_refused_before_anything_is_tried(word: str, told: str) -> None:
    origin, text = read_recipe("python")
    with pytest.raises(UsageError, match=told):
        check_varied(read_varied([word]), text, origin, [])
