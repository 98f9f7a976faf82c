"""A complete checkpoint is found whatever happens to the one that writes it, and to its disk."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rayrnn.runs.checkpoints import newest_checkpoint, write_checkpoint
from tests.crashing import checkpoint, progress_of
from tests.small_disk import empty, fill, small_disk


@pytest.mark.parametrize(
    ("before", "new"),
    [
        pytest.param([1, 2], 3, id="a-new-round"),
        pytest.param([1, 2], 2, id="a-round-that-is-made-again"),
        pytest.param([], 1, id="the-first"),
    ],
)
def test_a_writer_that_dies_at_any_step_leaves_the_old_or_the_new_one(
    before: list[int], new: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.crashing", str(tmp_path), *map(str, before), str(new)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    deaths = [json.loads(line) for line in output.splitlines()]
    assert [death["died"] for death in deaths] == [True] * (len(deaths) - 1) + [False]
    assert len(deaths) > 15
    old = progress_of(before[-1]) if before else None
    made = progress_of(new, cursor=1)
    found = [death["found"] for death in deaths]
    assert {str(progress) for progress in found} == {str(old), str(made)}
    assert found == sorted(found, key=lambda progress: progress == made)  # never the old one after the new one
    for death in deaths:
        assert not death["damages"]
        assert len(death["left"]) <= 2
        assert all(name.startswith("round-") for name in death["left"])


def test_a_full_disk_costs_no_older_checkpoint_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kilobytes=256) as disk:
        write_checkpoint(disk / "checkpoints", 1, checkpoint(1))
        fill(disk)
        for number in (1, 2):  # one that is made again, and a new one
            with pytest.raises(OSError, match="No space left"):
                write_checkpoint(disk / "checkpoints", number, checkpoint(number, version=1))
            assert [path.name for path in (disk / "checkpoints").iterdir()] == ["round-000001"]
        found, damages = newest_checkpoint(disk / "checkpoints")
        assert found is not None
        assert (found.progress, damages) == (progress_of(1), [])
        empty(disk)
        write_checkpoint(disk / "checkpoints", 2, checkpoint(2))
        assert {path.name for path in (disk / "checkpoints").iterdir()} == {"round-000001", "round-000002"}


def test_a_read_only_disk_can_be_resumed_from_and_says_so_when_written(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kilobytes=256) as disk:
        write_checkpoint(disk, 1, checkpoint(1))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(OSError, match="Read-only"):
            write_checkpoint(disk, 2, checkpoint(2))
        found, damages = newest_checkpoint(disk)
        assert found is not None
        assert (found.progress, damages) == (progress_of(1), [])
