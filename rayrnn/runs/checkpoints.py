"""Checkpoints that are complete or absent: files first, a manifest of their SHA-256 last, then one rename.

checkpoints/round-000120/
  model.safetensors          the common parameters
  outer.safetensors          the outer optimizer's memory
  optimizer-000.safetensors  one a worker, by its number: its optimizer's state and its random generator
  progress.json              the next round, the data's cursor, the best held-out loss
  MANIFEST.json              name -> bytes and SHA-256 of each of the above
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from rayrnn.durable import make_folder, sync_folder, write_durably
from rayrnn.errors import RunError
from rayrnn.foreign import memory_bytes, read_inside
from rayrnn.runs.schema import StoredFile, StoredManifest, StoredProgress, checked, read_stored

MANIFEST = "MANIFEST.json"
KEPT = 2
_BEFORE = ".before"

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """All that training needs to go on as if it had never stopped."""

    model: Tensors
    outer: Tensors
    #: one a worker, in the order of their numbers
    optimizers: tuple[Tensors, ...]
    progress: dict[str, Any]
    #: their numbers; empty where they count from 0 without a gap
    workers: tuple[int, ...] = ()

    @property
    def numbers(self) -> tuple[int, ...]:
        """The number of each worker whose state this has."""
        return self.workers or tuple(range(len(self.optimizers)))

    def state_for(self, number: int) -> tuple[Tensors, bool]:
        """The state from which worker `number` goes on, and whether it is another's."""
        if number in self.numbers:
            return self.optimizers[self.numbers.index(number)], False
        return self.optimizers[number % len(self.optimizers)], True


def write_checkpoint(folder: Path, round_number: int, checkpoint: Checkpoint) -> Path:
    """Store a checkpoint under `folder`, whole or not at all, and keep the newest two.

    Raises:
        OSError: the disk is full or read-only; what was there before is untouched.
    """
    files = {
        "model.safetensors": save_tensors(checkpoint.model),
        "outer.safetensors": save_tensors(checkpoint.outer),
        "progress.json": json.dumps(checkpoint.progress, indent=1).encode(),
    }
    for number, tensors in zip(checkpoint.numbers, checkpoint.optimizers, strict=True):
        files[f"optimizer-{number:03d}.safetensors"] = save_tensors(tensors)
    name = name_of(round_number)
    with unfinished_checkpoint(folder, name) as unfinished:
        for file, content in files.items():
            write_durably(unfinished / file, content)
        write_durably(unfinished / MANIFEST, _manifest(files))
    remove_old(folder, newest=round_number)
    return folder / name


@contextmanager
def unfinished_checkpoint(folder: Path, name: str) -> Iterator[Path]:
    """An empty directory to fill; at the end of the block it is the checkpoint `name` of `folder`, whatever was before.

    Of a block that fails nothing stays, and what was there before is untouched. At every moment, that of a death too,
    `newest_checkpoint` finds what was there before or what has come in its place.

    Raises:
        OSError: the disk is full or read-only.
    """
    _clear_up(folder)
    unfinished = folder / f".{name}.unfinished"
    make_folder(unfinished)
    try:
        yield unfinished
        sync_folder(unfinished)
        _put_in_place(unfinished, folder / name)
    except Exception:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def remove_old(folder: Path, newest: int | None = None) -> None:
    """Leave the newest few; what claims to be later than `newest`, which was just written, could not be read."""
    paths = [path for path in _newest_first(folder) if not path.name.startswith(".")]
    later = [path for path in paths if newest is not None and round_of(path.name) > newest]
    for path in later + paths[len(later) :][KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def name_of(round_number: int) -> str:
    """The checkpoint of that round, as a directory below a run's checkpoints."""
    return f"round-{round_number:06d}"


def round_of(name: str) -> int:
    """The round that a directory's name tells; -1 for what is no checkpoint's name."""
    found = re.fullmatch(r"round-(\d+)", name)
    return int(found[1]) if found else -1


def newest_name(folder: Path) -> str:
    """The newest checkpoint's name, complete or not; empty where there is none."""
    names = [path.name for path in folder.glob("round-*") if round_of(path.name) >= 0]
    return max(names, key=round_of, default="")


def pack(tensors: Tensors) -> bytes:
    """Tensors as plain bytes: they pass through processes that know no tensors."""
    content: bytes = save_tensors(tensors)
    return content


def unpack(content: bytes) -> Tensors:
    """What `pack` was given."""
    tensors: Tensors = load_tensors(content)
    return tensors


def digest(*parts: Tensors) -> str:
    """A fingerprint of all values, the same on every worker that holds the same bits."""
    seen = hashlib.sha256()
    for tensors in parts:
        for name in sorted(tensors):
            seen.update(name.encode())
            seen.update(tensors[name].contiguous().numpy().tobytes())
    return seen.hexdigest()


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that verifies, and one line for every newer one that does not.

    Returns:
        (None, []) where there is no checkpoint at all.

    Raises:
        RunError: there are checkpoints, and none of them verifies.
    """
    damages: list[str] = []
    for path in _newest_first(folder):
        try:
            return read_checkpoint(path), damages
        except RunError as damage:
            damages.append(str(damage))
    if damages:
        raise RunError("no checkpoint is complete:\n" + "\n".join(damages))
    return None, []


def newest_round(folder: Path) -> int:
    """The round of the newest checkpoint that verifies; -1 where there is none."""
    try:
        checkpoint, _ = newest_checkpoint(folder)
    except RunError:
        return -1
    return -1 if checkpoint is None else int(checkpoint.progress["round"])


def read_checkpoint(path: Path) -> Checkpoint:
    """Load one checkpoint after checking every file against the manifest.

    Raises:
        RunError: a file is missing, truncated or altered, or holds something else; names it, and the key.
    """
    if linked := next((place for place in (path, path.parent) if place.is_symlink()), None):
        raise RunError(f"checkpoint {path} cannot be used: {linked} is a link, and none is followed inside a run")
    files = _verified(path)
    states = {int(number[1]): name for name in files if (number := re.fullmatch(r"optimizer-(\d+)\.safetensors", name))}
    progress = checked(files["progress.json"], StoredProgress, f"checkpoint {path / 'progress.json'}")
    if f"round-{progress.round:06d}" not in path.name:
        raise RunError(f"checkpoint {path / 'progress.json'} cannot be used: it is of round {progress.round}")
    return Checkpoint(
        model=_tensors(path, "model.safetensors", files),
        outer=_tensors(path, "outer.safetensors", files),
        optimizers=tuple(_tensors(path, states[number], files) for number in sorted(states)),
        progress=progress.model_dump(exclude_unset=True),
        workers=tuple(sorted(states)),
    )


def _tensors(path: Path, name: str, files: Mapping[str, bytes]) -> Tensors:
    try:
        return unpack(files[name])
    except Exception as error:  # safetensors raises its own, torch and KeyError theirs: all mean the same here
        raise RunError(f"checkpoint {path / name} cannot be used: {error}") from None


def _manifest(files: Mapping[str, bytes]) -> bytes:
    entries = {name: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in files.items()}
    return json.dumps(entries, indent=1).encode()


def _verified(path: Path) -> dict[str, bytes]:
    manifest = _read_manifest(path)
    files = {name: _read(path, name, entry) for name, entry in manifest.items()}
    if unknown := sorted({file.name for file in path.iterdir()} - files.keys() - {MANIFEST}):
        raise RunError(f"checkpoint {path} is damaged: {MANIFEST} does not know of {', '.join(unknown)}")
    return files


def _read_manifest(path: Path) -> dict[str, StoredFile]:
    try:
        return read_stored(path, MANIFEST, StoredManifest, what=f"checkpoint {path / MANIFEST}").root
    except FileNotFoundError:
        raise RunError(f"checkpoint {path} is incomplete: it has no {MANIFEST}") from None


def _read(path: Path, name: str, entry: StoredFile) -> bytes:
    """A file of the size that the manifest says, and with that content; of another size it is not read."""
    try:
        content = read_inside(path, name, most=min(entry.bytes, memory_bytes()))
    except OSError as error:
        raise RunError(f"checkpoint {path / name} cannot be used: {error.strerror}") from None
    if (len(content), hashlib.sha256(content).hexdigest()) != (entry.bytes, entry.sha256):
        raise RunError(f"checkpoint {path / name} is damaged: size or SHA-256 is not the one in {MANIFEST}")
    return content


def _newest_first(folder: Path) -> list[Path]:
    """All that may be a checkpoint; where a death interrupted an exchange, what was there before it too."""
    found = [(round_of(path.name), 1, path) for path in folder.glob("round-*")]
    found += [(round_of(_owner(path)), 0, path) for path in folder.glob(f".round-*{_BEFORE}")]
    return [path for number, _, path in sorted(found, reverse=True) if number >= 0]


def _put_in_place(unfinished: Path, target: Path) -> None:
    """A directory cannot replace another in one step: what is there steps aside first, to a name that readers know."""
    before = target.with_name(f".{target.name}{_BEFORE}")
    if target.exists():
        target.rename(before)
    try:
        unfinished.rename(target)
    except OSError:
        if before.exists():
            before.rename(target)
        raise
    sync_folder(target.parent)
    shutil.rmtree(before, ignore_errors=True)


def _clear_up(folder: Path) -> None:
    """Finish or undo what a death has interrupted: nobody else writes here now."""
    for before in folder.glob(f".round-*{_BEFORE}"):
        if (folder / _owner(before)).exists():
            shutil.rmtree(before, ignore_errors=True)
        else:
            before.rename(folder / _owner(before))
            sync_folder(folder)
    for unfinished in folder.glob(".round-*.unfinished"):
        shutil.rmtree(unfinished, ignore_errors=True)


def _owner(before: Path) -> str:
    """The name of the checkpoint that stepped aside."""
    return before.name.removeprefix(".").removesuffix(_BEFORE)
