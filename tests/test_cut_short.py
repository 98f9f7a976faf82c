"""Whatever step of a run on the file system is cut short: what is left is resumed, and nothing told of is lost."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rayrnn.errors import UsageError
from rayrnn.remote.fetch import Fetcher, Record
from rayrnn.runs.checkpoints import Checkpoint, newest_round, read_checkpoint, write_checkpoint
from rayrnn.runs.copies import landed
from rayrnn.runs.directory import create_run
from tests.crashing import checkpoint
from tests.cut_short import ROUNDS
from tests.training.recipes import small


def cut_everywhere(folder: Path, mode: str, *how: str, every: int = 1) -> list[dict[str, Any]]:
    """What each cut left, or one of so many, and last a run that was not cut."""
    command = [sys.executable, "-m", "tests.cut_short", str(folder), mode, str(every), *how]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ends = [json.loads(line) for line in output.splitlines()]
    assert len(ends) > 100 // every
    assert [end["cut"] for end in ends] == [True] * (len(ends) - 1) + [False]
    assert ends[-1]["found"] == ROUNDS
    return ends


def assert_nothing_is_lost(end: dict[str, Any]) -> None:
    assert end["refused"] == ""
    assert end["found"] >= end["told"]
    assert end["damages"] == []
    assert (end["has_recipe"] and end["has_encoding"]) or not end["found"]
    assert end["model"] >= end["found"], "no checkpoint knows of a best model that is not there"
    assert end["left"] == []
    assert len(end["kept"]) <= 2
    assert not [word for word in end["said"] if word.startswith("unforeseen")]


@pytest.mark.parametrize(
    ("how", "every"),
    [
        (["die"], 5),
        pytest.param(["die"], 1, marks=pytest.mark.slow),
        pytest.param(["die", "resumed"], 1, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_dies_at_any_step_is_resumed(tmp_path: Path, how: list[str], every: int) -> None:
    for end in cut_everywhere(tmp_path, *how, every=every):
        assert_nothing_is_lost(end)
        assert end["rounds"][: end["found"]] == list(range(1, end["found"] + 1))
        assert end["said"] == []


@pytest.mark.slow
@pytest.mark.parametrize("how", [["full"], ["fail"], ["full", "resumed"]])
def test_a_run_of_which_any_step_fails_is_resumed(tmp_path: Path, how: list[str]) -> None:
    for end in cut_everywhere(tmp_path, *how):
        assert_nothing_is_lost(end)  # but lines of metrics.jsonl


# What is damaged, or not there


def damage(folder: Path, number: int) -> None:
    (folder / f"round-{number:06d}" / "model.safetensors").write_bytes(b"damaged")


class Head:
    """A head whose checkpoints lie in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.left_out: tuple[str, ...] = ()

    def run(self, script: str) -> str:
        return "\n".join(path.name for path in (self._folder / "checkpoints").iterdir()) if "ls " in script else ""

    def fetch(self, there: str, folder: Path, *, exclude: tuple[str, ...] = ()) -> None:
        _, _, checkpoint = there.partition("/checkpoints/")
        for path in (self._folder / "checkpoints" / checkpoint).iterdir() if checkpoint else ():
            (folder / path.name).write_bytes(path.read_bytes())

    def update(self, folder: Path, there: str, *, exclude: tuple[str, ...]) -> None:
        self.left_out = exclude


def test_a_damaged_checkpoint_here_hides_no_good_one_of_the_head(tmp_path: Path) -> None:
    here = create_run(tmp_path / "here")
    for folder in (here.checkpoints, tmp_path / "there" / "checkpoints"):
        for number in (1, 2):
            write_checkpoint(folder, number, checkpoint(number))
    damage(here.checkpoints, 2)
    head = Head(tmp_path / "there")
    fetcher = Fetcher(head, Record("job-00000000", "runs/small"), here, pytest.fail)  # type: ignore[arg-type]
    fetcher.send_back()
    assert [name for name in head.left_out if "round-" in name] == ["/checkpoints/round-000002"]
    fetcher.fetch_all()
    fetcher.close()
    assert newest_round(here.checkpoints) == 2


@pytest.mark.parametrize("resume", [False, True])
def test_checkpoints_without_a_recipe_are_refused(tmp_path: Path, resume: bool) -> None:
    write_checkpoint(tmp_path / "run" / "checkpoints", 4, checkpoint(4))
    with (
        pytest.raises(
            UsageError, match=r"has checkpoints \(round-000004\) and no recipe\.yaml.*put its recipe\.yaml back"
        ),
        landed(tmp_path / "run", small(), resume=resume, warn=pytest.fail),
    ):
        pass


def test_a_worker_goes_on_from_the_state_of_its_own_number(tmp_path: Path) -> None:
    """Also where those before it were lost when the checkpoint was made."""
    one = checkpoint(1)
    states = tuple({name: value + number for name, value in one.optimizers[0].items()} for number in (0, 2, 11))
    write_checkpoint(tmp_path, 1, Checkpoint(one.model, one.outer, states, one.progress, workers=(0, 2, 11)))
    found = read_checkpoint(tmp_path / "round-000001")
    assert found.numbers == (0, 2, 11)
    gone_on = [found.state_for(number) for number in (0, 1, 2, 11, 12)]
    assert [(state["0.step"][0].item(), borrowed) for state, borrowed in gone_on] == [
        (1.0, False),
        (3.0, True),
        (3.0, False),
        (12.0, False),
        (1.0, True),
    ]
