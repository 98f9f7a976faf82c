"""Kills a process at its k-th step on the file system, for every k: run as a program, prints what each left behind.

    python -m tests.crashing FOLDER [ROUND ...] NEW

writes the checkpoints of the given rounds below FOLDER/<k>, then that of NEW in a process of its own that dies at its
k-th step; a JSON line each says what `newest_checkpoint` finds then, and what is there after the next checkpoint.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rayrnn.runs import checkpoints
from rayrnn.runs.checkpoints import Checkpoint, newest_checkpoint, write_checkpoint
from rayrnn.training.progress import Progress

DIED = 9
#: what Python tells its audit hooks of: each precedes a step that changes the file system or reads its state
STEPS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.listdir", "shutil.rmtree")


def progress_of(round_number: int, cursor: int = 0) -> dict[str, Any]:
    return Progress(round=round_number, cursor=cursor).to_json()


def checkpoint(round_number: int, version: int = 0) -> Checkpoint:
    tensor = torch.full((16,), float(round_number))
    progress = progress_of(round_number, cursor=version)
    return Checkpoint(model={"weight": tensor}, outer={}, optimizers=({"0.step": tensor},), progress=progress)


def die_at(step: int) -> None:
    """End this process before its `step`-th step, from 0, and cut the last write in half."""
    seen = 0

    def count(event: str, _arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in STEPS:
            if seen == step:
                os._exit(DIED)
            seen += 1

    whole = checkpoints.write_durably

    def write(path: Path, content: bytes) -> None:
        nonlocal seen
        if seen == step:
            path.write_bytes(content[: len(content) // 2])
            os._exit(DIED)
        seen += 1
        whole(path, content)

    checkpoints.write_durably = write
    sys.addaudithook(count)


def in_a_process_that_dies(step: int, work: Callable[[], object]) -> bool:
    """Whether it died before the work was done."""
    child = os.fork()
    if child == 0:
        die_at(step)
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == DIED


def main(folder: Path, rounds: list[int], new: int) -> None:
    for step in range(1000):
        place = folder / str(step)
        for number in rounds:
            write_checkpoint(place, number, checkpoint(number))
        died = in_a_process_that_dies(
            step, lambda place=place: write_checkpoint(place, new, checkpoint(new, version=1))
        )
        found, damages = newest_checkpoint(place)
        write_checkpoint(place, new + 1, checkpoint(new + 1))
        left = sorted(path.name for path in place.iterdir())
        print(json.dumps({"died": died, "found": found and found.progress, "damages": damages, "left": left}))
        if not died:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(number) for number in sys.argv[2:-1]], int(sys.argv[-1]))
