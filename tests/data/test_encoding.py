"""What the numbers mean is fitted once over the data, and stays with the run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray.data

from rayrnn.data.batches import Minibatch
from rayrnn.data.encoding import Classes, Encoding, Numbers
from rayrnn.data.fitting import fit_encoding
from rayrnn.data.order import Plan
from rayrnn.data.prepare import prepare
from rayrnn.data.rows import with_feature_names
from rayrnn.data.sequences import Part, Sequences, gather, split, take
from rayrnn.data.sources import read
from rayrnn.data.vocabulary import UNKNOWN
from rayrnn.errors import DataError, RunError
from rayrnn.recipe import task_named, validate_recipe
from rayrnn.recipe.data_sections import Data
from rayrnn.recipe.text_sections import TextData
from rayrnn.runs.directory import Run
from rayrnn.tasks import Choices
from tests.asked import needs

pytestmark = pytest.mark.usefixtures("ray_cluster")


def gathered(task: str, *blocks: dict[str, Any], horizon: int = 0) -> Sequences:
    """Sequences of some blocks, named in their order."""
    tables, start = [], 0
    for block in blocks:
        count = len(next(iter(block.values())))
        tables.append(pa.table({"key": [f"row {start + number}" for number in range(count)], **block}))
        start += count
    return gather(ray.data.from_arrow(tables), needs(task, horizon))


def everything(task: str, sequences: Sequences, encoding: Encoding) -> Minibatch:
    return task_named(task).minibatch(take(sequences, np.arange(len(sequences))), encoding)


def classes_of(encoding: Encoding) -> Classes:
    assert isinstance(encoding.targets, Classes)
    return encoding.targets


def test_a_language_model_knows_every_character_of_both_parts() -> None:
    sequences = gathered("language_model", {"text": ["abca", "bad"]}, {"text": ["zäh", "🌹a"]})
    encoding = fit_encoding(sequences, np.array([0, 1]), task_named("language_model"), Choices())
    assert encoding.vocabulary.symbols == tuple(sorted("abcdzhä🌹"))
    assert (encoding.num_inputs, encoding.num_outputs, encoding.symbols, encoding.per_step) == (8, 8, True, True)
    assert encoding.describe() == "8 symbols"
    others = gathered("language_model", {"text": ["xy"]})
    encoding = fit_encoding(sequences, np.arange(4), task_named("language_model"), Choices(), held_out=others)
    assert {"x", "y"} < set(encoding.vocabulary.symbols)


def test_a_language_model_of_words_knows_them_all() -> None:
    sequences = gathered(
        "language_model", {"symbols": [["a", "rose", "is"], ["a", "rose"]]}, {"symbols": [["is", "once"]]}
    )
    encoding = fit_encoding(sequences, np.array([0, 1]), task_named("language_model"), Choices())
    assert encoding.vocabulary.symbols == ("a", "is", "once", "rose")


def test_tagging_learns_rare_words_as_the_unknown_one_and_every_tag() -> None:
    words = [["the", "dog", "the", "dog"], ["the", "zygote", "cat"], ["cat"]]
    tags = [["D", "N", "D", "N"], ["D", "N", None], ["X"]]
    sequences = gathered(
        "tagging", {"symbols": words[:2], "label": tags[:2]}, {"symbols": words[2:], "label": tags[2:]}
    )
    encoding = fit_encoding(sequences, np.array([0, 1]), task_named("tagging"), Choices())
    assert encoding.vocabulary.symbols == (UNKNOWN, "dog", "the")
    assert encoding.targets == Classes(("D", "N", "X"), (3, 3, 0))
    assert encoding.describe() == "3 symbols, 3 classes"
    assert everything("tagging", sequences, encoding).inputs[1].tolist() == [2, 0, 0, 0]


def test_classes_are_found_and_sorted_as_people_sort() -> None:
    values = [[1.0]] * 5
    numbers = gathered(
        "classification", {"values": values[:3], "label": [10, 9, 2]}, {"values": values[:2], "label": [9, -1]}
    )
    encoding = fit_encoding(numbers, np.array([0, 1, 3]), task_named("classification"), Choices())
    assert encoding.targets == Classes(("-1", "2", "9", "10"), (0, 0, 2, 1))
    assert (encoding.num_inputs, encoding.num_outputs, encoding.symbols, encoding.per_step) == (1, 4, False, False)
    assert encoding.describe() == "1 feature, 4 classes"
    names = gathered("classification", {"values": values[:3], "label": ["b", "10", "a"]})
    assert classes_of(fit_encoding(names, np.arange(3), task_named("classification"), Choices())).names == (
        "10",
        "a",
        "b",
    )


def test_classes_may_be_given_and_keep_their_order() -> None:
    sequences = gathered("classification", {"values": [[1.0], [2.0]], "label": ["walk", "run"]})
    encoding = fit_encoding(
        sequences, np.arange(2), task_named("classification"), Choices(classes=("walk", "run", "sit"))
    )
    assert encoding.targets == Classes(("walk", "run", "sit"), (1, 1, 0))
    assert everything("classification", sequences, encoding).targets.tolist() == [0, 1]
    sequences = gathered("classification", {"values": [[1.0], [2.0]], "label": [2, 0]})
    assert classes_of(
        fit_encoding(sequences, np.arange(2), task_named("classification"), Choices(classes=("0", "1", "2")))
    ).names == ("0", "1", "2")


def test_a_label_outside_the_classes_is_told_before_training_starts() -> None:
    sequences = gathered(
        "classification", {"values": [[1.0]] * 2, "label": ["walk", "run"]}, {"values": [[1.0]], "label": ["fly"]}
    )
    with pytest.raises(
        DataError, match="sequence 'row 2' has the label 'fly', which is not among the 2 classes: walk, run"
    ):
        fit_encoding(sequences, np.arange(2), task_named("classification"), Choices(classes=("walk", "run")))
    sequences = gathered("tagging", {"symbols": [["a"], ["a", "a"]], "label": [[0], [1, 3]]})
    with pytest.raises(
        DataError, match="sequence 'row 1' has the label '3', which is not among the 3 classes: 0, 1, 2"
    ):
        fit_encoding(sequences, np.arange(2), task_named("tagging"), Choices(classes=("0", "1", "2")))


def test_scaling_and_categories_come_from_the_training_part() -> None:
    values = [[[0.0], [10.0]], [[5.0]], [[1000.0]]]
    categories = [[["red", "x"], ["blue", "x"]], [["red", "y"]], [["green", "x"]]]
    sequences = gathered(
        "classification",
        {"values": values[:2], "categories": categories[:2], "label": [0, 1]},
        {"values": values[2:], "categories": categories[2:], "label": [1]},
    )
    encoding = fit_encoding(sequences, np.array([0, 1]), task_named("classification"), Choices(), normalize="min_max")
    assert isinstance(encoding.inputs, Numbers)
    assert encoding.inputs.categories == (("blue", "red"), ("x", "y"))
    assert (encoding.inputs.num_columns, encoding.num_inputs) == (3, 5)
    minibatch = everything("classification", sequences, encoding)
    assert minibatch.inputs[0].tolist() == [[0, 0, 1, 1, 0], [1, 1, 0, 1, 0]]
    assert minibatch.inputs[2, 0].tolist() == [100, 0, 0, 1, 0]


def test_steps_of_nothing_but_categories_are_learned() -> None:
    sequences = gathered("classification", {"categories": [[["a", "x"]], [["b", "x"], ["a", "y"]]], "label": [0, 1]})
    encoding = fit_encoding(sequences, np.arange(2), task_named("classification"), Choices(), normalize="standardize")
    assert encoding.num_inputs == 4
    assert everything("classification", sequences, encoding).inputs[1].tolist() == [[0, 1, 1, 0], [1, 0, 0, 1]]


def test_regression_knows_how_many_numbers_answer_what() -> None:
    whole = gathered("regression", {"values": [[[1.0, 2.0]]], "label": [[1.0, 2.0, 3.0]]})
    encoding = fit_encoding(whole, np.arange(1), task_named("regression"), Choices())
    assert (encoding.num_inputs, encoding.num_outputs, encoding.per_step) == (2, 3, False)
    assert encoding.describe() == "2 features, 3 numbers to predict"
    steps = gathered("regression", {"values": [[[1.0], [2.0]]], "label": [[[1.0], [2.0]]]})
    encoding = fit_encoding(steps, np.arange(1), task_named("regression"), Choices())
    assert (encoding.num_outputs, encoding.per_step) == (1, True)
    series = gathered("regression", {"values": [[[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]]]}, horizon=1)
    encoding = fit_encoding(series, np.arange(1), task_named("regression"), Choices(horizon=1), normalize="standardize")
    assert (encoding.num_outputs, encoding.per_step) == (2, True)
    assert encoding.describe() == "2 features, 2 numbers to predict, 1 step ahead"
    with pytest.raises(DataError, match=r"data\.horizon is 1, but these sequences hold no numbers to forecast"):
        fit_encoding(
            gathered("regression", {"symbols": [["a", "b"]]}, horizon=1),
            np.arange(1),
            task_named("regression"),
            Choices(horizon=1),
        )


@pytest.mark.parametrize(
    ("task", "block", "horizon"),
    [
        ("language_model", {"text": ["ab\x03", "🌹a"]}, 0),
        ("tagging", {"symbols": [["a", "a"], ["b"]], "label": [["x", None], ["y"]]}, 0),
        (
            "classification",
            {"values": [[1.0, 2.0], [3.0]], "categories": [[["p"], ["q"]], [["p"]]], "label": [1, 0]},
            0,
        ),
        ("regression", {"values": [[1.0, 2.0], [3.0]], "label": [0.5, 1.5]}, 0),
        ("regression", {"values": [[1.0, 2.0], [3.0, 4.0]]}, 1),
    ],
)
def test_an_encoding_is_plain_json_that_encodes_the_same(task: str, block: dict[str, Any], horizon: int) -> None:
    sequences = gathered(task, block, horizon=horizon)
    normalize = "standardize" if "values" in block else "none"
    encoding = fit_encoding(sequences, np.arange(2), task_named(task), Choices(horizon=horizon), normalize=normalize)
    stored = Encoding.from_json(json.loads(json.dumps(encoding.to_json(), allow_nan=False)))
    assert stored == encoding
    ours, theirs = everything(task, sequences, encoding), everything(task, sequences, stored)
    assert ours.inputs.equal(theirs.inputs)
    assert ours.targets.equal(theirs.targets)


STORED = {
    "version": 1,
    "inputs": {
        "kind": "numbers",
        "scaling": {"kind": "none", "shift": [0.0], "scale": [1.0]},
        "categories": [["a"]],
        "names": ["x"],
        "category_names": ["y"],
    },
    "targets": {"kind": "classes", "names": ["no", "yes"], "counts": [1, 2]},
    "per_step": False,
    "ahead": 0,
}


@pytest.mark.parametrize(
    ("half", "key", "value", "message"),
    [
        (None, None, [], "should be an object"),
        (None, "version", 7, "its version is 7, this rayrnn reads 1"),
        (None, "targets", None, 'key "targets" is None'),
        (None, "per_step", "yes", "key \"per_step\" is 'yes'"),
        (None, "ahead", 1.5, 'key "ahead" is 1.5'),
        (None, "ahead", -1, 'key "ahead" is -1'),
        (None, "behind", 0, 'key "behind" is 0'),
        ("inputs", "kind", "classes", "expected tags: 'symbols', 'numbers'"),
        ("inputs", "scaling", {"kind": "none", "shift": [0.0], "scale": []}, "shift has 1 numbers, scale 0"),
        ("inputs", "scaling", {"kind": "none", "shift": [0.0], "scale": [0.0]}, 'scale.0" is 0.0'),
        ("inputs", "scaling", {"kind": "none", "shift": ["x"], "scale": [1.0]}, "shift.0\" is 'x'"),
        ("inputs", "scaling", {"kind": "log", "shift": [0.0], "scale": [1.0]}, "scaling.kind\" is 'log'"),
        ("inputs", "categories", ["a"], "categories.0\" is 'a'"),
        ("inputs", "categories", [["a", "a"]], "categories.0 has a word twice"),
        ("inputs", "names", [1], 'names.0" is 1'),
        ("inputs", "names", ["x", "y"], "there are 2 names, and scaling is of 1 features"),
        ("inputs", "category_names", ["x", "y"], "there are 2 category_names for 1 columns"),
        ("targets", "counts", [1.5, 2], 'counts.0" is 1.5'),
        ("targets", "counts", [-1, 2], 'counts.0" is -1'),
        ("targets", "counts", [1], "there are 1 counts for 2 classes"),
        ("targets", "names", ["no", "no"], "names has a word twice"),
        ("targets", "kind", "symbols", 'vocabulary": Field required'),
    ],
)
def test_a_damaged_encoding_is_told_with_its_file(
    half: str | None, key: str | None, value: Any, message: str, tmp_path: Path
) -> None:
    damaged: Any = STORED if half is None else STORED[half]
    damaged = damaged | {key: value} if key is not None else value
    path = tmp_path / "vocabulary.json"
    path.write_text(json.dumps(damaged if half is None else STORED | {half: damaged}))
    with pytest.raises(RunError) as told:
        _ = Run(tmp_path).encoding
    assert str(told.value).startswith(f"{path} cannot be used: ")
    assert message in str(told.value)
    path.write_text(json.dumps(STORED))
    assert Run(tmp_path).encoding.to_json() == Encoding.from_json(STORED).to_json()


def test_a_model_that_reads_numbers_has_no_vocabulary() -> None:
    sequences = gathered("classification", {"values": [[[1.0, 2.0]], [[3.0, 4.0]]], "label": [1, 2]})
    with pytest.raises(DataError, match="this model reads 2 numbers a step, no symbols"):
        _ = fit_encoding(sequences, np.arange(2), task_named("classification"), Choices()).vocabulary


def test_one_class_alone_is_nothing_to_learn() -> None:
    sequences = gathered("classification", {"values": [[1.0], [2.0]], "label": ["up", "up"]})
    with pytest.raises(DataError, match="every label is 'up': there is nothing to tell apart"):
        fit_encoding(sequences, np.arange(2), task_named("classification"), Choices())
    unlabelled = gathered("tagging", {"values": [[1.0, 2.0]], "label": pa.array([[None, None]], pa.list_(pa.string()))})
    with pytest.raises(DataError, match="no step of any sequence has a label"):
        fit_encoding(unlabelled, np.arange(1), task_named("tagging"), Choices())


def test_sequences_whose_features_have_other_names_are_not_taken_together() -> None:
    blocks = [pa.table({"key": [name], "values": [[[1.0, 2.0]]], "label": [name]}) for name in "ab"]
    named = [
        with_feature_names(block, {"values": names})
        for block, names in zip(blocks, (("x", "y"), ("y", "x")), strict=True)
    ]
    with pytest.raises(DataError, match="'a' holds the features x, y, sequence 'b' holds y, x: all must be alike"):
        gather(ray.data.from_arrow(named), needs("classification"))


def test_from_text_to_minibatches_every_symbol_is_learned_once_an_epoch() -> None:
    text = "".join(chr(97 + number % 26) for number in range(5000))
    sequences = gather(read(TextData(text=text, length=64), needs("language_model")), needs("language_model"))
    learned, held_out = split(sequences, 0.1, seed=1, last=True)
    encoding = fit_encoding(sequences, learned, task_named("language_model"), Choices())
    plan = Plan(sequences.steps, learned, batch_size=7, seed=1)
    task = task_named("language_model")
    numbers = [plan.minibatch(number) for number in range(plan.minibatches_an_epoch)]
    minibatches = [task.minibatch(take(sequences, own), encoding) for own in numbers]
    assert sum(minibatch.steps for minibatch in minibatches) == sequences.steps[learned].sum()
    assert sequences.steps.sum() == len(text) - 1
    assert sorted(key for minibatch in minibatches for key in minibatch.keys) == sorted(f"text:{i}" for i in learned)
    assert len(held_out) == 8


def test_held_out_sequences_of_their_own_are_read_from_where_they_lie(ray_cluster: None, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("cab" * 4)
    section = {"text": "abc" * 9, "held_out": str(tmp_path / "test.txt"), "length": 5}
    prepared = prepare(validate_recipe({"name": "apart", "data": section}))
    assert [text for part in (prepared.training, prepared.held_out) for text in texts_of(part)] == [
        *("abcabc", "cabcab", "bcabca", "abcabc", "cabcab", "bc"),
        *("cabcab", "bcabca", "ab"),
    ]


def texts_of(part: Part) -> list[str]:
    texts: list[str] = take(part.sequences, part.indices)["text"].to_pylist()
    return texts


def test_a_source_that_nobody_reads_is_told() -> None:
    with pytest.raises(DataError, match=r"nothing here reads data\.source 'stone'"):
        read(Data(source="stone"), needs("classification"))
