"""A network, a task and a source in the user's directory alone: a Ray that was started elsewhere has them too."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.data.test_own_source import waves
from tests.test_cli import environment_of

ROOT = Path(__file__).parent.parent
#: what it does with each sequence is done in Ray's tasks
SOURCE = """
import json

import pyarrow as pa
import ray.data

from rayrnn.data.files import list_files, read_bytes
from rayrnn.recipe.data_sections import Data


class JsonLinesData(Data):
    path: str


def parse(block: pa.Table) -> pa.Table:
    rows = [json.loads(line) for line in block["line"].to_pylist()]
    columns = {"key": [row["name"] for row in rows], "values": [row["steps"] for row in rows]}
    return pa.table(columns | {"label": [row["kind"] for row in rows]})


class JsonLines:
    section = JsonLinesData

    def read(self, data: JsonLinesData, wanted: object) -> ray.data.Dataset:
        lines = read_bytes(list_files(wanted.where or data.path), 0).decode().splitlines()
        return ray.data.from_arrow(pa.table({"line": lines})).map_batches(parse, batch_format="pyarrow")
"""
TASK = """
from rayrnn.tasks.classification import Classification
from words import UNIT


class Kinds(Classification):
    unit = UNIT
"""
RECIPE = """
name: mine
task: "kinds:Kinds"
data: {source: "lines:JsonLines", path: waves.jsonl, held_out: 0.25}
model: {network: "parts.gru:MinimalGRU", options: {hidden: 8}}
training: {batch_size: 8}
averaging: {workers: 2, rounds: 2}
"""
#: what else lies in the user's directory, and whoever imports it ends
BY_CHANCE = ("numpy", "torch", "pandas", "yaml", "json", "types", "random", "queue", "csv", "typer", "ray/__init__")
Rayrnn = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The user's directory: a package and two modules, a recipe and data."""
    place = tmp_path / "place"
    (place / "parts").mkdir(parents=True)
    shutil.copy(ROOT / "examples" / "minimal_gru.py", place / "parts" / "gru.py")
    (place / "kinds.py").write_text(TASK)
    (place / "words.py").write_text('UNIT = "(of the user\'s own)"\n')
    beside(place)
    (place / "lines.py").write_text(SOURCE)
    (place / "recipe.yaml").write_text(RECIPE)
    (place / "waves.jsonl").write_text("\n".join(json.dumps(waves(number, labelled=True)) for number in range(32)))
    return place


def beside(place: Path) -> None:
    """Files of the user's, called as libraries are."""
    for name in BY_CHANCE:
        file = place / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text("raise SystemExit(f'{__file__} is not what you want')\n")


@pytest.mark.parametrize("arguments", ["recipes", "train recite --set model.hiden=3"])
def test_files_that_are_called_as_libraries_are_do_not_hide_them(tmp_path: Path, arguments: str) -> None:
    beside(tmp_path)
    (tmp_path / "types.py").unlink()  # with which `python -m` itself ends, before anything is ours
    command = [sys.executable, "-m", "rayrnn.cli", *arguments.split()]
    ended = subprocess.run(command, env=environment_of(tmp_path), cwd=tmp_path, capture_output=True, text=True)
    assert "not what you want" not in ended.stderr
    assert ended.returncode == (2 if "hiden" in arguments else 0), ended.stderr


@pytest.fixture
def rayrnn(tmp_path: Path) -> Iterator[Rayrnn]:
    """The command line of a user whose Ray was started in another directory, and whose PYTHONPATH has no modules."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    environment = environment_of(home) | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "plugins")))}
    # as the command does, which does not look into the current directory
    program = "import sys; sys.path.pop(0); from rayrnn.cli import main; main()"

    def run(*arguments: str, cwd: Path = elsewhere) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=300)

    ended = run("up", "--cpus", "4")
    assert ended.returncode == 0, ended.stderr
    yield run
    run("down")


@pytest.mark.slow
def test_they_train_measure_and_answer_on_a_ray_that_was_started_elsewhere(place: Path, rayrnn: Rayrnn) -> None:
    def said(*arguments: str) -> str:
        ended = rayrnn(*arguments, cwd=place)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    assert json.loads(said("train", "recipe.yaml", "--json"))["rounds"] == 2
    assert "(of the user's own)" in said("evaluate", "runs/mine", "--trust")
    said("predict", "runs/mine", "--trust", "--data", "waves.jsonl", "--out", "answers.jsonl")
    answers = [json.loads(line) for line in (place / "answers.jsonl").read_text().splitlines()]
    assert [answer["key"] for answer in answers] == [f"wave {number}" for number in range(32)]
