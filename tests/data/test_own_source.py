"""A source of one's own is a class that the recipe names: it trains, measures and answers like any other."""

import json
import math
import sys
from pathlib import Path

import pytest

from rayrnn.data.sources import read
from rayrnn.errors import RecipeError, UsageError
from rayrnn.recipe import load_recipe, validate_recipe
from tests.test_cli import run_rayrnn

SOURCE = '''
"""Sequences as JSON lines: {"name": ..., "steps": [[...], ...], "kind": ...}."""

import json

import pyarrow as pa
import ray.data

from rayrnn.data.files import list_files, read_bytes
from rayrnn.data.sources import Wanted
from rayrnn.recipe.data_sections import Data


class JsonLinesData(Data):
    path: str
    label: str = "kind"


class JsonLines:
    section = JsonLinesData

    def read(self, data: JsonLinesData, wanted: Wanted) -> ray.data.Dataset:
        listing = list_files(wanted.where or data.path, endpoint=data.endpoint)
        lines = [line for number in range(len(listing)) for line in read_bytes(listing, number).splitlines()]
        rows = [json.loads(line) for line in lines]
        columns = {"key": [row["name"] for row in rows], "values": [row["steps"] for row in rows]}
        if wanted.labelled:
            columns["label"] = [row[data.label] for row in rows]
        return ray.data.from_arrow(pa.table(columns))
'''
RECIPE = """
name: lines
task: classification
data: {source: "json_lines:JsonLines", path: learned.jsonl, held_out: kept.jsonl}
model: {cell: gru, hidden: 8, layers: 1}
training: {learning_rate: 0.02, batch_size: 8}
averaging: {workers: 2, rounds: 20}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "json_lines.py").write_text(SOURCE)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    for name, labelled in (("learned", True), ("kept", True), ("asked", False)):
        lines = [json.dumps(waves(number, labelled=labelled)) for number in range(24)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    return tmp_path


def waves(number: int, *, labelled: bool) -> dict[str, object]:
    steps = [[math.sin(step * (1 + number % 2)), number % 2 - 0.5] for step in range(6 + number % 5)]
    return {"name": f"wave {number}", "steps": steps} | ({"kind": ["slow", "fast"][number % 2]} if labelled else {})


@pytest.mark.slow
def test_a_source_of_ones_own_trains_measures_and_answers(place: Path) -> None:
    def said(*arguments: str) -> str:
        ended = run_rayrnn(*arguments, home=place, PYTHONPATH=":".join(entry for entry in sys.path if entry))
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    said("train", "recipe.yaml", "--out", "run")
    report = json.loads(said("evaluate", "run", "--trust", "--data", "learned.jsonl", "--json"))
    assert (report["sequences"], report["accuracy"]) == (24, 1.0)
    said("predict", "run", "--trust", "--data", "asked.jsonl", "--out", "answers.jsonl")
    answers = [json.loads(line) for line in (place / "answers.jsonl").read_text().splitlines()]
    assert [answer["label"] for answer in answers] == ["slow", "fast"] * 12
    assert answers[5]["key"] == "wave 5"


def test_a_module_that_a_stranger_names_is_not_imported(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(place))
    with pytest.raises(UsageError, match=r"data\.source is 'json_lines:JsonLines'.*--trust"):
        load_recipe(place / "recipe.yaml", trusted=False)
    assert "json_lines" not in sys.modules


def test_the_section_of_a_source_of_ones_own_is_validated(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(place))
    with pytest.raises(RecipeError, match=r'recipe\.yaml: recipe key "data\.lable" is unknown; did you mean "label"'):
        load_recipe(place / "recipe.yaml", ["data.lable=x"])


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("nowhere:JsonLines", ", and there is no module nowhere on .* current directory"),
        ("json:JsonLines", ", and module json has no JsonLines; its classes are none"),
        ("json:JSONDecoder", " is no source: it has no `section`"),
    ],
)
def test_what_is_no_source_is_told(source: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=f"{source}{reason}"):
        validate_recipe({"name": "x", "data": {"source": source, "path": "x"}})


def install_plugin(place: Path, source: str) -> None:
    """As pip would, in a directory that Python looks into."""
    about = place / "lines-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lines\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[rayrnn.sources]\nlines = {source}\n")


def test_a_source_of_a_plugin_is_known_by_its_name_whoever_asks(
    ray_cluster: None, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(place, "json_lines:JsonLines")
    monkeypatch.syspath_prepend(str(place))
    recipe = load_recipe(
        place / "recipe.yaml", ["data.source=lines", f"data.path={place}/learned.jsonl"], trusted=False
    )
    rows = read(recipe.data, recipe.task).take_all()
    assert [row["key"] for row in rows] == [f"wave {number}" for number in range(24)]


def test_a_plugin_that_is_broken_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(place, "jason_lines:JsonLines")
    monkeypatch.syspath_prepend(str(place))
    with pytest.raises(
        UsageError, match=r"the plugin for data\.source lines cannot be used: .* no module jason_lines on"
    ):
        load_recipe(place / "recipe.yaml", ["data.source=lines"])
