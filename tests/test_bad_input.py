"""Bad input, each kind as a user meets it: one clear message on stderr, the exit code of its kind, no traceback."""

import os
import sys
from pathlib import Path

import pytest

from rayrnn.cli import main

pytestmark = pytest.mark.usefixtures("ray_cluster")

TEXT = """
name: bad
data: {path: text.txt, length: 20, held_out: 0}
model: {hidden: 4, layers: 1}
averaging: {workers: 1, rounds: 1}
"""
CSV = """
name: bad
task: classification
data: {source: csv, path: files, skip_lines: 1, label_column: kind, held_out: 0}
model: {hidden: 4, layers: 1}
averaging: {workers: 1, rounds: 1}
"""
GOOD = "x,kind\n1,up\n2,up\n"


def told(
    recipe: str,
    files: dict[str, str | bytes],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    *settings: str,
) -> tuple[int, str]:
    """Train by the command line in a directory with these files: its exit code, and what it says on stderr."""
    for name, content in {"bad.yaml": recipe, **files}.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(place)
    overrides = [part for setting in settings for part in ("--set", setting)]
    monkeypatch.setattr(sys, "argv", ["rayrnn", "train", "bad.yaml", *overrides])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capfd.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    assert isinstance(ended.value.code, int)
    return ended.value.code, said.err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.hiden=3", 'recipe key "model.hiden" is unknown; did you mean "hidden"?'),
        ("model.hidden=many", "recipe key \"model.hidden\" is 'many'"),
        ("model.hidden=0", "recipe key \"model.hidden\" is '0'"),
        ("model.dropout=1", "recipe key \"model.dropout\" is '1'"),
        ("model.cell=lstmm", "recipe key \"model.cell\" is 'lstmm'"),
        (
            "data.source=cvs",
            "data.source 'cvs' is unknown; the sources here are audio, avro, csv, delta",
        ),
        ("model.bidirectional=sum", "a language model must not see the symbol it predicts"),
        ("task=tagging", "data.source text has no labels for tagging"),
        ("model.front=conv", "model.front must be none: language_model must not see the symbol it predicts"),
        ("model.parallel=conv", "model.parallel must be none: language_model has an answer at every step"),
        ("model.mask_steps=3", "model.mask_steps and model.mask_features are for inputs that are numbers"),
        ("model.front_channels=[64, 1000000000]", 'recipe key "model.front_channels.1" is 1000000000'),
        ("model.parallel_channels=[]", 'recipe key "model.parallel_channels" is []'),
        ("model.front_stride=[]", 'recipe key "model.front_stride" is []'),
        ("model.front_width=wide", "recipe key \"model.front_width\" is 'wide'"),
    ],
)
def test_a_recipe_that_is_wrong_exits_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], setting: str, message: str
) -> None:
    code, said = told(TEXT, {}, tmp_path, monkeypatch, capfd, setting)
    assert code == 2
    assert message in said
    assert os.listdir(tmp_path) == ["bad.yaml"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.front=conv", "training.truncate=8"], "training.truncate must be 0 with model.front: conv"),
        (
            ["model.front=conv", "model.front_width=[3, 3, 3]"],
            "model.front_width has 3 numbers",
        ),
        (["model.parallel=conv", "model.parallel_widths=[8, 5]"], "model.parallel_widths has 2 numbers"),
        (
            ["model.front=conv", "model.front_stride=[1, 2]", "task=tagging"],
            "model.front_stride must be 1: tagging",
        ),
        (["model.parallel=conv", "task=tagging"], "model.parallel must be none: tagging has an answer at every step"),
        (["model.residual=true"], "model.residual is for forecasts of numbers: set data.horizon"),
        (
            [
                *("model.residual=true", "task=regression", "data.horizon=2", "data.label_column=null"),
                "training.loss=negative_binomial",
            ],
            "training.loss negative_binomial answers in another",
        ),
        (
            ["model.front=conv", "task=regression", "data.horizon=2", "data.label_column=null"],
            "model.front must be none with data.horizon: a forecast must not see what it forecasts",
        ),
        (
            ["training.class_weights=balanced", "data.several=true"],
            "training.class_weights is for one class a sequence",
        ),
        (["model.embedding=3"], "model.embedding is 3, and the inputs are numbers: only symbols can be embedded"),
        (["model={network: normed:Net}"], "changed norm.running_mean"),
    ],
)
def test_a_network_that_does_not_fit_the_data_exits_with_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    settings: list[str],
    message: str,
) -> None:
    files = {"files/a.csv": GOOD, "files/b.csv": "x,kind\n1,down\n2,down\n", "normed.py": NORMED}
    monkeypatch.syspath_prepend(tmp_path)
    code, said = told(CSV, files, tmp_path, monkeypatch, capfd, *settings)
    assert code == 2
    assert message in said


#: what is averaged to nonsense: every worker has its own running mean
NORMED = """
import torch

class Net(torch.nn.Module):
    def __init__(self, num_inputs, num_outputs):
        super().__init__()
        self.convolution = torch.nn.Conv1d(num_inputs, num_outputs, 3, padding=1)
        self.norm = torch.nn.BatchNorm1d(num_outputs)

    def forward(self, inputs, state, mask):
        steps = self.norm(self.convolution(inputs.masked_fill(~mask.unsqueeze(2), 0).transpose(1, 2)))
        return steps.masked_fill(~mask.unsqueeze(1), 0).sum(2) / mask.sum(1, keepdim=True), None
"""


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"txt.txt": "a"}, "there is no text.txt"),
        ({"text.txt": ""}, "text.txt is empty"),
        ({"text.txt": b"abc\xe4"}, "text.txt is not UTF-8: byte 3 is 0xe4"),
        ({"text.txt": "short"}, "text.txt has 5 symbols; one sequence with data.length 20 needs 21"),
    ],
)
def test_text_that_cannot_be_learned_exits_with_3(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    files: dict[str, str | bytes],
    message: str,
) -> None:
    code, said = told(TEXT, files, tmp_path, monkeypatch, capfd)
    assert code == 3
    assert message in said


@pytest.mark.parametrize(
    ("file", "settings", "message"),
    [
        ("x,kind\n1,down\nzwei,down\n", [], "files/b.csv:3: column 'x' is 'zwei', which is no number"),
        ("x,kind\n1,down\n2\n", [], "files/b.csv:3: 1 column where 2 are due"),
        ("", [], "files/b.csv is empty"),
        ('x,kind\n1,"down\n', [], "files/b.csv:2: a quote is opened and never closed"),
        ("x,kind\n1,sideways\n", ["data.classes=[up, down]"], "files/b.csv:2: the label is 'sideways'"),
        ("x,y,kind\n1,2,down\n", [], "files/b.csv:1: the columns are x, y, kind; those of files/a.csv are x, kind"),
        ("x,kind\n1,up\n", [], "every label is 'up'"),
        ("x,kind\n1,down\n", ["data.label_column=kin"], "there is no column 'kin' in files/a.csv:1"),
        ("x,kind\n1,down\n", ["data.label_column=null", "data.labels=labels"], "there is no labels"),
    ],
)
def test_csv_files_that_cannot_be_learned_exit_with_3(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    file: str,
    settings: list[str],
    message: str,
) -> None:
    code, said = told(CSV, {"files/a.csv": GOOD, "files/b.csv": file}, tmp_path, monkeypatch, capfd, *settings)
    assert code == 3
    assert message in said


def test_a_missing_pair_exits_with_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    files: dict[str, str | bytes] = {"files/a.csv": "x\n1\n", "files/b.csv": "x\n2\n", "labels/a.csv": "y\nup\n"}
    settings = ["data.label_column=null", "data.labels=labels"]
    code, said = told(CSV, files, tmp_path, monkeypatch, capfd, *settings)
    assert code == 3
    assert "files/b.csv has no label: there is none for it in labels" in said


def test_too_few_cpus_exit_with_4_and_say_the_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = ["averaging.workers=9", "averaging.cpus_per_worker=2"]
    code, said = told(TEXT, {"text.txt": "all is well " * 20}, tmp_path, monkeypatch, capfd, *settings)
    assert code == 4
    assert "9 workers with 2 CPU each need 18 CPUs" in said
