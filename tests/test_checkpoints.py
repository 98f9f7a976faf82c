"""A checkpoint is complete or absent, whatever happens to its files."""

import errno
from pathlib import Path

import pytest
import torch

import rayrnn.checkpoints
from rayrnn.checkpoints import Checkpoint, newest_checkpoint, read_checkpoint, write_checkpoint
from rayrnn.errors import RunError


def checkpoint(value: float) -> Checkpoint:
    tensor = torch.full((4, 3), value)
    return Checkpoint(
        model={"weight": tensor},
        outer={"common": tensor},
        optimizers=({"0.step": tensor}, {"0.step": tensor + 1}),
        progress={"round": int(value)},
    )


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 7, checkpoint(7))
    found, damages = newest_checkpoint(tmp_path)
    assert found is not None
    assert not damages
    assert found.progress == {"round": 7}
    assert torch.equal(found.optimizers[1]["0.step"], torch.full((4, 3), 8.0))


def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    for number in (5, 90, 100, 1000):
        write_checkpoint(tmp_path, number, checkpoint(number))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["round-000100", "round-001000"]


def test_a_new_run_has_no_checkpoint(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "nowhere") == (None, [])


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "remove"])
def test_damage_to_any_file_falls_back_to_the_checkpoint_before_and_says_so(tmp_path: Path, damage: str) -> None:
    write_checkpoint(tmp_path, 1, checkpoint(1))
    for position in range(len(files(write_checkpoint(tmp_path, 2, checkpoint(2))))):
        file = files(write_checkpoint(tmp_path, 2, checkpoint(2)))[position]
        content = file.read_bytes()
        if damage == "remove":
            file.unlink()
        else:
            half = len(content) // 2
            flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
            file.write_bytes({"truncate": content[:half], "flip": flipped, "empty": b""}[damage])
        found, damages = newest_checkpoint(tmp_path)
        assert found is not None
        assert found.progress == {"round": 1}, file.name
        assert len(damages) == 1
        assert "round-000002" in damages[0]


def test_damage_everywhere_is_an_error_that_names_the_files(tmp_path: Path) -> None:
    for number in (1, 2):
        (write_checkpoint(tmp_path, number, checkpoint(number)) / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(RunError, match=r"round-000002/model.safetensors(.|\n)*round-000001/model.safetensors"):
        newest_checkpoint(tmp_path)


def test_a_hostile_manifest_reads_no_file_outside_the_checkpoint(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 1, checkpoint(1))
    (tmp_path / "secret").write_text("secret")
    (path / "MANIFEST.json").write_text('{"../secret": {"bytes": 6, "sha256": "0"}}')
    with pytest.raises(RunError, match="incomplete"):
        read_checkpoint(path)


class Stopped(BaseException):
    """What a kill is to a process that dies inside a write."""


def test_a_writer_that_dies_at_any_write_leaves_a_complete_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path, 1, checkpoint(1))
    whole = rayrnn.checkpoints.write_durably
    for fatal in range(100):
        calls = 0

        def write(path: Path, content: bytes, fatal: int = fatal) -> None:
            nonlocal calls
            calls += 1
            if calls > fatal:
                path.write_bytes(content[: len(content) // 2])
                raise Stopped
            whole(path, content)

        monkeypatch.setattr(rayrnn.checkpoints, "write_durably", write)
        try:
            write_checkpoint(tmp_path, 2, checkpoint(2))
        except Stopped:
            found, damages = newest_checkpoint(tmp_path)
            assert found is not None
            assert found.progress == {"round": 1}
            assert not damages
        else:
            break
    assert fatal == 6  # five files and the manifest were each cut short once
    found, _ = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.progress == {"round": 2}


def test_a_full_disk_is_reported_and_costs_no_older_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path, 1, checkpoint(1))

    def write(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rayrnn.checkpoints, "write_durably", write)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(tmp_path, 2, checkpoint(2))
    assert [path.name for path in tmp_path.iterdir()] == ["round-000001"]
