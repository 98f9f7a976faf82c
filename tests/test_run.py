"""The run directory: who may write to it, and what a kill leaves there."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rayrnn.errors import DataError, UsageError
from rayrnn.runs.checkpoints import write_checkpoint
from rayrnn.runs.copies import landed
from rayrnn.runs.directory import Run, create_run, taken
from rayrnn.runs.layout import METRICS
from tests.crashing import checkpoint
from tests.training.recipes import small

HOLD = """
import sys, time
from pathlib import Path
from rayrnn.runs.directory import Run
with Run(Path(sys.argv[1])).held():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(tmp_path / "run")


def test_only_one_process_trains_in_a_directory_and_a_killed_one_lets_go(run: Run) -> None:
    command = [sys.executable, "-c", HOLD, str(run.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(UsageError, match=rf"trained by another process \(number {holder.pid}\)"), run.held():
                pass
        finally:
            os.kill(holder.pid, signal.SIGKILL)
    with run.held():
        pass


def test_a_directory_is_free_after_its_training(run: Run) -> None:
    for _ in range(2):
        with run.held():
            assert (run.path / ".lock").read_text() == str(os.getpid())


#: what a run writes, appends to, replaces or removes
FILES = (
    *("recipe.yaml", "vocabulary.json", "metrics.jsonl", "model.safetensors", "train.log", "skipped.txt", ".lock"),
    "report.html",
    *(".recipe.yaml.unfinished", ".model.safetensors.unfinished", "events.out.tfevents.1.here", "screen.jsonl"),
    "checkpoints/round-000003/model.safetensors",
)
FOLDERS = (
    "checkpoints",
    *(f"checkpoints/{name}" for name in ("round-000001", ".round-2.unfinished", ".round-4.before")),
)


@pytest.mark.parametrize("name", FILES + FOLDERS)
@pytest.mark.parametrize("resume", [False, True])
def test_a_run_writes_through_no_link(tmp_path: Path, name: str, resume: bool) -> None:
    outside = tmp_path / "outside"
    if name in FOLDERS:
        write_checkpoint(outside, 9, checkpoint(9))
    else:
        outside.write_text(small().to_yaml())
    before = content(outside)
    path = tmp_path / "run"
    (path / name).parent.mkdir(parents=True)
    (path / name).symlink_to(outside)
    if resume and name != "recipe.yaml":
        (path / "recipe.yaml").write_text(small().to_yaml())
    with pytest.raises(UsageError, match=rf"{path / name} is a link to {outside}|holds a run already"):
        train_a_little(path, resume=resume)
    assert content(outside) == before
    assert (path / name).is_symlink()


def test_a_run_directory_may_itself_lie_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "first").mkdir()
    (tmp_path / "disk" / "second").symlink_to(tmp_path / "disk" / "first")
    (tmp_path / "disk" / "first" / "notes.txt").symlink_to(tmp_path / "nowhere")  # which is none of the run's business
    for resume in (False, True):
        train_a_little(tmp_path / "runs" / "second", resume=resume)
    assert (tmp_path / "disk" / "first" / "checkpoints" / "round-000001" / "MANIFEST.json").exists()


def train_a_little(path: Path, *, resume: bool) -> None:
    with landed(path, small(), resume=resume, warn=pytest.fail) as run:
        run.write_recipe(small())
        run.append_metrics({"round": 1})
        run.write_model({})
        for number in (1, 2):
            write_checkpoint(run.checkpoints, number, checkpoint(number))


def content(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in (path, *path.rglob("*")) if file.is_file()}


@pytest.mark.parametrize(
    "torn", [b'{"round": 3, "lo', b"\x00\x00\x00\n", b'{"round": 3, "lo\n', b"\xff\xfe\n", b"[]\n"]
)
def test_lines_that_a_kill_tore_are_passed_over(run: Run, torn: bytes) -> None:
    for number in (1, 2):
        run.append_metrics({"round": number})
    with (run.path / METRICS).open("ab") as file:
        file.write(torn)
    assert [line["round"] for line in run.metrics()] == [1, 2]
    run.cut_metrics(1)
    run.append_metrics({"round": 2, "again": True})
    assert run.metrics() == [{"round": 1}, {"round": 2, "again": True}]


@pytest.mark.parametrize(
    ("before", "said", "left"),
    [
        (None, "", None),
        ([], "", []),
        (["notes.txt"], "", ["notes.txt"]),
        (None, "why it failed", [".lock", "checkpoints", "train.log"]),
    ],
)
def test_of_a_run_that_has_not_begun_nothing_is_left_but_what_it_has_said(
    tmp_path: Path, before: list[str] | None, said: str, left: list[str] | None
) -> None:
    path = tmp_path / "run"
    for name in before or ():
        path.mkdir(exist_ok=True)
        (path / name).touch()
    if before == []:
        path.mkdir()
    with pytest.raises(DataError):
        fail_before_the_first_round(path, said)
    assert (sorted(file.name for file in path.iterdir()) if path.exists() else None) == left


def fail_before_the_first_round(path: Path, said: str) -> None:
    with taken(path, small(), resume=False) as run:
        run.append_log(said)
        raise DataError("there is nothing to learn from")
