"""Runs over words and over pieces of words; targets in tables; several labels; vectors of words."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from rayrnn.data.prepare import prepare
from rayrnn.data.units import WORDS
from rayrnn.errors import RecipeError
from rayrnn.recipe import Recipe, validate_recipe
from rayrnn.runs.checkpoints import read_checkpoint
from rayrnn.runs.directory import open_run
from rayrnn.training.driver import train
from tests.training.recipes import words
from tests.typed import said

pytestmark = pytest.mark.usefixtures("ray_cluster")


def learned(recipe: Recipe, out: Path, *, resume: bool = False) -> Path:
    train(recipe, out=out, resume=resume, console=Console(quiet=True))
    return out


def language(folder: Path, rounds: int = 4, **data: Any) -> Recipe:
    (folder / "text.txt").write_text(f"{words(410)} once\n{words(200, seed=1)}")
    return validate_recipe(
        {
            "name": "text",
            "data": {"path": str(folder / "text.txt"), "length": 40} | data,
            "model": {"cell": "gru", "hidden": 24, "layers": 1, "embedding": 8},
            "training": {"learning_rate": 0.02, "batch_size": 2, "truncate": 20, "checkpoint_every": 2},
            "averaging": {"frequency": 2, "rounds": rounds},
        }
    )


@pytest.mark.parametrize(
    ("units", "keys"),
    [
        ("words", {}),
        pytest.param("pieces", {"pieces": 40}, marks=pytest.mark.slow),
        pytest.param("characters", {"rare": 2}, marks=pytest.mark.slow),
    ],
)
def test_a_language_model_of_any_units_takes_what_it_does_not_know_for_the_unknown_symbol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], units: str, keys: dict[str, Any]
) -> None:
    run = learned(language(tmp_path, units=units, **keys), tmp_path / "run")
    text = said(capsys, "generate", run, "--prime", "the zebra é", "--length", 12, "--seed", 3)
    assert text.startswith("the zebra é")
    assert "unknown" not in text
    (tmp_path / "other.txt").write_text("the cat saw é zebra.\n" * 30)
    report = json.loads(said(capsys, "evaluate", run, "--data", tmp_path / "other.txt", "--json"))
    assert report["loss"] > 0


def test_a_word_that_is_seen_once_is_not_learned_as_one(tmp_path: Path) -> None:
    run = learned(language(tmp_path, rounds=1, units="words"), tmp_path / "run")
    symbols = open_run(run).encoding.vocabulary.symbols
    assert "once" not in symbols
    assert {"the", "cat", "sat", "<unknown>"} <= set(symbols)


@pytest.mark.slow
@pytest.mark.parametrize("units", ["words", "pieces"])
def test_a_run_of_other_units_goes_on_to_the_same_bits(tmp_path: Path, units: str) -> None:
    def recipe(rounds: int) -> Recipe:
        return language(tmp_path, rounds, units=units, pieces=40)

    learned(recipe(4), tmp_path / "whole")
    learned(recipe(2), tmp_path / "parts")
    learned(recipe(4), tmp_path / "parts", resume=True)
    whole, parts = (
        read_checkpoint(tmp_path / name / "checkpoints" / "round-000004").model for name in ("whole", "parts")
    )
    assert all(tensor.equal(parts[name]) for name, tensor in whole.items())


def test_an_embedding_begins_with_the_vectors_of_its_words(tmp_path: Path) -> None:
    (tmp_path / "vectors.txt").write_text("the " + " ".join(["5"] * 8) + "\n")
    where = str(tmp_path / "vectors.txt")
    recipe = language(tmp_path, rounds=1, units="words", vectors=where)
    run = open_run(learned(recipe, tmp_path / "run"))
    weights = read_checkpoint(run.checkpoints / "round-000001").model["embedding.weight"]
    place = run.encoding.vocabulary.symbols.index("the")
    assert weights[place].mean().item() == pytest.approx(5, abs=0.5)
    assert weights.abs().mean() < 2


def test_vectors_of_words_for_characters_are_refused(ray_cluster: None, tmp_path: Path) -> None:
    (tmp_path / "vectors.txt").write_text("t " + " ".join(["5"] * 8) + "\n")
    recipe = language(tmp_path, units="characters", vectors=str(tmp_path / "vectors.txt"))
    with pytest.raises(RecipeError, match=r"texts are cut into characters: set data\.units: words"):
        prepare(recipe, begins=True)


def answered(folder: Path, table: dict[str, Any], **data: Any) -> Recipe:
    pq.write_table(pa.table(table), folder / "rows.parquet")
    return validate_recipe(
        {
            "name": "rows",
            "task": "transduction",
            "data": {"source": "parquet", "path": str(folder / "rows.parquet"), "target": "answer"} | data,
            "model": {"cell": "gru", "hidden": 16, "layers": 1},
            "training": {"batch_size": 4},
            "averaging": {"frequency": 1, "rounds": 2},
        }
    )


TEXTS, LISTS = ["one two", "two", "one"] * 8, [["one", "two"], ["two"], ["one"]] * 8


@pytest.mark.parametrize(
    ("column", "cells", "answers"),
    [
        ("text", ["a b", "c", "a b c"] * 8, TEXTS),
        pytest.param(
            "values", [[[1.0, 2.0], [3.0, 4.0]], [[1.0, 1.0]], [[0.0, 2.0]] * 3] * 8, TEXTS, marks=pytest.mark.slow
        ),
        ("symbols", [["a", "b"], ["c"], ["a", "b", "c"]] * 8, LISTS),
        ("text", ["a b", "c", "a b c"] * 8, LISTS),
    ],
)
def test_a_table_has_its_targets_in_a_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str, cells: list[Any], answers: list[Any]
) -> None:
    data = {column: "input"} | ({"target_units": "words"} if isinstance(answers[0], str) else {})
    run = learned(answered(tmp_path, {"input": cells, "answer": answers}, **data), tmp_path / "run")
    said(capsys, "predict", run, "--data", tmp_path / "rows.parquet", "--out", tmp_path / "out.csv")
    lines = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert len(lines) == 24
    assert {word for line in lines for word in line["answer"].split()} <= {"one", "two"}
    encoding = open_run(run).encoding
    assert (encoding.targets.units, encoding.targets.text_of(encoding.targets.numbers_of("one two"))) == (
        WORDS,
        "one two",
    )
    if column == "symbols":
        assert encoding.inputs.units == WORDS
        looked = tmp_path / "looked.json"
        said(capsys, "generate", run, "--prime", "a b", "--attention", looked)
        assert json.loads(looked.read_text())["read"] == ["a", "b"]


@pytest.mark.parametrize(
    ("answers", "keys", "says"),
    [
        (["a", "", "b"] * 8, {}, "has an empty target: give it one, or leave the sequence out"),
        (["a", "b", "c"], {"target_rare": 5, "held_out": 0}, "no symbol of the targets is there 5 times or more"),
        ([1, 2, 3], {}, "column `target` holds int64, not strings"),
        ([["a"], ["b"]] * 8, {"target_units": "pieces"}, "data.target_units is pieces, which texts are cut into"),
    ],
)
def test_targets_that_cannot_be_learned_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answers: list[Any], keys: dict[str, Any], says: str
) -> None:
    recipe = answered(tmp_path, {"input": ["x y"] * len(answers), "answer": answers}, text="input", **keys)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert says in said(capsys, "train", tmp_path / "recipe.yaml", "--out", tmp_path / "run", exits=3)


def sets(folder: Path, labels: list[Any], **keys: Any) -> Recipe:
    values = [[[float("a" in str(label)), float("b" in str(label))]] * 3 for label in labels]
    pq.write_table(pa.table({"steps": values, "kinds": labels}), folder / "rows.parquet")
    data = {"source": "parquet", "path": str(folder / "rows.parquet"), "values": "steps", "label": "kinds"}
    return validate_recipe(
        {
            "name": "sets",
            "task": "classification",
            "data": data | {"several": True} | keys,
            "model": {"cell": "gru", "hidden": 8, "layers": 1},
            "training": {"batch_size": 4, "learning_rate": 0.05},
            "averaging": {"frequency": 2, "rounds": 20},
        }
    )


@pytest.mark.parametrize(
    "labels",
    [["a;b", "a", "b", ""] * 10, pytest.param([["a", "b"], ["a"], ["b"], []] * 10, marks=pytest.mark.slow)],
)
def test_several_labels_are_learned_measured_and_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: list[Any]
) -> None:
    run = learned(sets(tmp_path, labels), tmp_path / "run")
    report = json.loads(said(capsys, "evaluate", run, "--data", tmp_path / "rows.parquet", "--json"))
    assert report["mean_average_precision"] > 0.95
    assert report["micro_f1"] > 0.9
    said(capsys, "predict", run, "--data", tmp_path / "rows.parquet", "--out", tmp_path / "out.csv")
    lines = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert {line["labels"] for line in lines} <= {"a;b", "a", "b", ""}
    assert lines[0]["labels"] == "a;b"


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([["a"], ["b"], ["a", "b"]] * 4, "takes one class a sequence, and several where data.several is true"),
        (["a", "b", "a;b"] * 4, "the label 'a;b' of sequence"),
    ],
)
def test_several_labels_where_one_is_due_say_what_to_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: list[Any], says: str
) -> None:
    recipe = sets(tmp_path, labels, several=False)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    told = said(capsys, "train", tmp_path / "recipe.yaml", "--out", tmp_path / "run", exits=3)
    assert says in told
    assert "data.several" in told


@pytest.mark.slow
def test_one_label_each_is_learned_where_several_are_allowed(tmp_path: Path) -> None:
    learned(sets(tmp_path, ["a", "b", "a"] * 8), tmp_path / "run")
