"""What a full disk does to a run that is going on: it costs lines, and is told of."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rayrnn.errors import RunError
from rayrnn.remote.screen_log import ScreenLog
from rayrnn.runs.checkpoints import newest_checkpoint
from rayrnn.runs.copies import landed
from rayrnn.runs.directory import Run, create_run
from rayrnn.training.recorder import Recorder
from tests.small_disk import empty, fill, small_disk
from tests.training.recipes import small
from tests.training.test_recorder import evaluated, part, round_learned
from tests.training.test_screen import learned

ROUNDS = 200


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", kilobytes=512) as place:
        yield place


@pytest.fixture
def run(disk: Path) -> Run:
    return create_run(disk / "run")


def test_rounds_on_a_full_disk_are_told_of_once_and_come_back_with_room(run: Run, disk: Path) -> None:
    said: list[str] = []
    recorder = Recorder(run, said.append)
    recorder.take_round(round_learned(1))
    fill(disk)
    for number in range(2, ROUNDS):
        recorder.take_round(round_learned(number))
    assert len(said) == 1
    assert "No space left" in said[0]
    assert str(run.path) in said[0]
    empty(disk)
    recorder.take_round(round_learned(ROUNDS))
    recorder.close()
    rounds = [line["round"] for line in run.metrics()]
    assert (rounds[0], rounds[-1]) == (1, ROUNDS)
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == len(rounds), "no line is torn"


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_disk_that_cannot_be_written_at_the_start_is_told_in_one_sentence(run: Run, disk: Path, how: str) -> None:
    run.write_recipe(small())
    before = (run.path / "recipe.yaml").read_text()
    if how == "full":
        fill(disk)
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    told = f"the run cannot be written to {run.path}: (No space|Read-only)"
    with pytest.raises(RunError, match=told) as caught, landed(run.path, small(), resume=True, warn=pytest.fail):
        pass
    assert (caught.value.exit_code, str(caught.value).count("\n")) == (1, 0)
    assert (run.path / "recipe.yaml").read_text() == before


def test_the_best_model_waits_for_room(run: Run, disk: Path) -> None:
    recorder = Recorder(run, print)
    recorder.take_round(round_learned(1))
    fill(disk)
    recorder.take_evaluation(evaluated(1, 1.0, {"weight": torch.ones(2)}))
    assert not (run.path / "model.safetensors").exists()
    with pytest.raises(RunError, match=r"model\.safetensors.*No space left"):
        recorder.write_model(None)
    empty(disk)
    recorder.write_model(None)
    assert (run.path / "model.safetensors").exists()


def test_a_checkpoint_without_room_is_left_out_and_the_next_one_written(run: Run, disk: Path) -> None:
    said: list[str] = []
    recorder = Recorder(run, said.append)
    fill(disk)
    for number in (0, 1):
        recorder.take_checkpoint_part(part(number))
    assert recorder.write_checkpoint() is None
    assert "checkpoint of round 4 could not be written" in said[0]
    empty(disk)
    for number in (0, 1):
        recorder.take_checkpoint_part(part(number, generation=8))
    assert recorder.write_checkpoint() is not None
    checkpoint, damages = newest_checkpoint(run.checkpoints)
    assert checkpoint is not None
    assert damages == []


def test_what_a_run_on_a_full_disk_says_at_a_distance_waits_for_room(disk: Path) -> None:
    log = ScreenLog(disk / "screen.jsonl")
    log.say("before")
    fill(disk)
    for number in range(ROUNDS):
        log.round(learned(number, 0))
        log.warn(f"while it is full {number}")
    empty(disk)
    log.round(learned(ROUNDS, 0))
    log.end(RunError("the last word"))
    words = [json.loads(line) for line in (disk / "screen.jsonl").read_text().splitlines()]
    said = [word["message"] for word in words if word["word"] in ("say", "warn", "end")]
    assert said == ["before", *(f"while it is full {number}" for number in range(ROUNDS)), "the last word"]
    assert words[-1]["word"] == "end"
    assert len(words) < 2 * ROUNDS, "rounds are not kept"
