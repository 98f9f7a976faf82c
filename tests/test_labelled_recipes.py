"""The shipped recipes of labelled sequences on their real data: from CSV files to measured and written answers."""

import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from rayrnn.cli import app
from rayrnn.recipe import load_recipe
from rayrnn.runs.directory import Run
from rayrnn.training.driver import train
from tests.ts_files import find_ts, read_ts, write_csv

pytestmark = pytest.mark.usefixtures("ray_cluster")

SEEDS = (1, 2, 3)


def written(name: str, directory: Path) -> Path:
    """The archive as one CSV a sequence: its directory has `train` and `test`."""
    try:
        files = find_ts(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    for part, file in files.items():
        write_csv(read_ts(file), directory / name / part)
    return directory / name


@pytest.fixture(scope="module")
def vowels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written("JapaneseVowels", tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def motions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written("BasicMotions", tmp_path_factory.mktemp("data"))


def trained(recipe: str, data: Path, out: Path, *overrides: str) -> Run:
    loaded = load_recipe(recipe, [f"data.path={data / 'train'}", *overrides])
    return train(loaded, out=out, console=Console(quiet=True)).run


def said(*arguments: object) -> str:
    """What a command prints on stdout."""
    ended = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert ended.exit_code == 0, ended.stderr
    return ended.stdout


def accuracy(run: Run, data: Path) -> float:
    return float(json.loads(said("evaluate", run.path, "--data", data / "test", "--json"))["accuracy"])


def test_vowels_are_trained_on_measured_and_answered(vowels: Path, tmp_path: Path) -> None:
    run = trained("japanese-vowels", vowels, tmp_path / "run", "averaging.rounds=15", "data.held_out=0.1")
    held_out = json.loads(said("evaluate", run.path, "--json"))
    assert held_out["sequences"] == 27
    best = min(line["held_out_loss"] for line in run.metrics() if "held_out_loss" in line)
    assert held_out["loss"] == pytest.approx(best, rel=1e-3)
    report = json.loads(said("evaluate", run.path, "--data", vowels / "test", "--json"))
    assert (report["sequences"], report["steps"], len(report["classes"])) == (370, 5687, 9)
    assert report["accuracy"] > 0.5
    assert report["padding_share"] < 0.1
    assert said("predict", run.path, "--data", vowels / "test", "--out", tmp_path / "answers.jsonl") == ""
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    truth = [label for _, label in read_ts(find_ts("JapaneseVowels")["test"])]
    right = sum(answer["label"] == label for answer, label in zip(answers, truth, strict=True))
    assert right / len(truth) == pytest.approx(report["accuracy"])
    table = said("evaluate", run.path, "--data", vowels / "test")
    assert "accuracy" in table
    assert len(table.splitlines()) == 4 + 1 + 10


@pytest.mark.slow
def test_vowels_are_told_apart_in_the_mean_over_three_seeds(vowels: Path, tmp_path: Path) -> None:
    runs = [trained("japanese-vowels", vowels, tmp_path / str(seed), f"seed={seed}") for seed in SEEDS]
    found = [accuracy(run, vowels) for run in runs]
    assert sum(found) / len(found) >= 0.96, found


@pytest.mark.slow
def test_motions_are_told_apart_in_the_mean_over_three_seeds(motions: Path, tmp_path: Path) -> None:
    runs = [trained("basic-motions", motions, tmp_path / str(seed), f"seed={seed}") for seed in SEEDS]
    found = [accuracy(run, motions) for run in runs]
    assert sum(found) / len(found) >= 0.98, found
