"""Checkpoints that are complete or absent: files first, a manifest of their SHA-256 last, then one rename.

checkpoints/round-000120/
  model.safetensors          the common parameters
  outer.safetensors          the outer optimizer's memory
  optimizer-000.safetensors  one a worker: its optimizer's state and its random generator
  progress.json              the next round, the data's cursor, the best held-out loss
  MANIFEST.json              name -> bytes and SHA-256 of each of the above
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from rayrnn.errors import RunError

MANIFEST = "MANIFEST.json"
KEPT = 2

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """All that training needs to go on as if it had never stopped."""

    model: Tensors
    outer: Tensors
    #: one a worker, in rank order
    optimizers: tuple[Tensors, ...]
    progress: dict[str, Any]


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
    for rank, tensors in enumerate(checkpoint.optimizers):
        files[f"optimizer-{rank:03d}.safetensors"] = save_tensors(tensors)
    target = folder / f"round-{round_number:06d}"
    unfinished = folder / f".{target.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        for name, content in files.items():
            write_durably(unfinished / name, content)
        write_durably(unfinished / MANIFEST, _manifest(files))
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
        _sync_folder(folder)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _remove_old(folder)
    return target


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
    for path in sorted(folder.glob("round-*"), reverse=True):
        try:
            return read_checkpoint(path), damages
        except RunError as damage:
            damages.append(str(damage))
    if damages:
        raise RunError("no checkpoint is complete:\n" + "\n".join(damages))
    return None, []


def read_checkpoint(path: Path) -> Checkpoint:
    """Load one checkpoint after checking every file against the manifest.

    Raises:
        RunError: a file is missing, truncated or altered; names it.
    """
    files = _verified(path)
    ranks = sorted(name for name in files if name.startswith("optimizer-"))
    try:
        return Checkpoint(
            model=load_tensors(files["model.safetensors"]),
            outer=load_tensors(files["outer.safetensors"]),
            optimizers=tuple(load_tensors(files[name]) for name in ranks),
            progress=json.loads(files["progress.json"]),
        )
    except Exception as error:  # safetensors raises its own, json and KeyError theirs: all mean the same here
        raise RunError(f"checkpoint {path} is no checkpoint of rayrnn: {error}") from None


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_durably(path: Path, content: bytes) -> None:
    """Put new content in place of a file in one rename: a reader sees the old one or the new one."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    write_durably(unfinished, content)
    unfinished.replace(path)


def _manifest(files: Mapping[str, bytes]) -> bytes:
    entries = {name: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in files.items()}
    return json.dumps(entries, indent=1).encode()


def _verified(path: Path) -> dict[str, bytes]:
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        files = {str(name): (path / Path(name).name).read_bytes() for name in manifest}
        sums = {str(name): str(entry["sha256"]) for name, entry in manifest.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(f"checkpoint {path} is incomplete: {error}") from None
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != sums[name]:
            raise RunError(f"checkpoint {path / name} is damaged: its SHA-256 is not the one in {MANIFEST}")
    return files


def _sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_old(folder: Path) -> None:
    for path in sorted(folder.glob("round-*"))[:-KEPT]:
        shutil.rmtree(path, ignore_errors=True)
