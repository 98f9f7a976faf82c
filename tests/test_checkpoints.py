"""A checkpoint is complete or absent, whatever happens to its files."""

from pathlib import Path

import pytest
import torch

from rayrnn.errors import RunError
from rayrnn.runs.checkpoints import Checkpoint, newest_checkpoint, read_checkpoint, write_checkpoint
from tests.crashing import progress_of


def checkpoint(value: float) -> Checkpoint:
    tensor = torch.full((4, 3), value)
    return Checkpoint(
        model={"weight": tensor},
        outer={"common": tensor},
        optimizers=({"0.step": tensor}, {"0.step": tensor + 1}),
        progress=progress_of(int(value)),
    )


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 7, checkpoint(7))
    found, damages = newest_checkpoint(tmp_path)
    assert found is not None
    assert not damages
    assert found.progress == progress_of(7)
    assert torch.equal(found.optimizers[1]["0.step"], torch.full((4, 3), 8.0))


def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    for number in (5, 90, 100, 1000, 999_999, 1_000_000):
        write_checkpoint(tmp_path, number, checkpoint(number))
    assert {path.name for path in tmp_path.iterdir()} == {"round-999999", "round-1000000"}
    found, _ = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.progress == progress_of(1_000_000)


def test_a_damaged_later_one_does_not_take_the_place_of_what_a_resumed_run_writes(tmp_path: Path) -> None:
    for number in (10, 20):
        write_checkpoint(tmp_path, number, checkpoint(number))
    (tmp_path / "round-000020" / "model.safetensors").write_bytes(b"junk")
    write_checkpoint(tmp_path, 15, checkpoint(15))
    assert {path.name for path in tmp_path.iterdir()} == {"round-000010", "round-000015"}


def test_no_byte_of_a_manifest_can_change_what_is_read(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 1, checkpoint(1))
    whole = read_checkpoint(path)
    manifest = (path / "MANIFEST.json").read_bytes()
    refused = 0
    for position, byte in enumerate(manifest):
        for bit in (1, 32):
            (path / "MANIFEST.json").write_bytes(manifest[:position] + bytes([byte ^ bit]) + manifest[position + 1 :])
            try:
                found = read_checkpoint(path)
            except RunError:
                refused += 1
                continue
            assert found.progress == whole.progress
            assert len(found.optimizers) == 2
            assert all(torch.equal(*pair) for pair in zip(found.model.values(), whole.model.values(), strict=True))
    assert refused > len(manifest)  # what is left is white space and the like


def test_a_file_that_the_manifest_does_not_know_is_named(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 1, checkpoint(1))
    (path / "optimizer-002.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match=r"does not know of optimizer-002\.safetensors"):
        read_checkpoint(path)


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
        assert found.progress == progress_of(1), file.name
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
    (path / "MANIFEST.json").write_text('{"../secret": {"bytes": 6, "sha256": "%s"}}' % ("0" * 64))
    with pytest.raises(RunError, match="is no file of a checkpoint"):
        read_checkpoint(path)
