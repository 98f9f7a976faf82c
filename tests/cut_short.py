"""Cuts the writes of a run short at the k-th step on the file system, for many k: run as a program.

    python -m tests.cut_short FOLDER die|fail|full EVERY [resumed]

A process of its own trains a run of two rounds below FOLDER/<k>, without workers: it dies at its k-th step, or that
step fails, or all steps from that one on do; k goes up by EVERY. A JSON line each says what it had told of, and what
the next resume finds.
"""

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from rayrnn import durable
from rayrnn.data.encoding import Encoding
from rayrnn.data.symbols import Symbols
from rayrnn.data.vocabulary import Vocabulary
from rayrnn.errors import RayrnnError
from rayrnn.runs import directory
from rayrnn.runs.checkpoints import newest_checkpoint
from rayrnn.runs.copies import landed
from rayrnn.runs.directory import has_run
from rayrnn.runs.layout import MODEL
from rayrnn.training.recorder import Recorder
from tests.crashing import DIED, STEPS, checkpoint
from tests.training.recipes import small
from tests.training.test_recorder import evaluated, part, round_learned

SYMBOLS = Symbols(Vocabulary(tuple("ab")))
ENCODING = Encoding(SYMBOLS, SYMBOLS, per_step=True)
ROUNDS = 2


class Cutter:
    """Counts this process's steps on the file system below a folder, and cuts the chosen one short."""

    def __init__(self, step: int, mode: str, folder: Path) -> None:
        self._step = step
        self._mode = mode
        self._folder = str(folder)
        self._seen = 0
        self.has_struck = False

    def install(self) -> None:
        sync = os.fsync
        os.fsync = lambda descriptor: self.take(lambda: None) or sync(descriptor)

        def cutting_open(*given: Any, **named: Any) -> "_Cut":
            return _Cut(open(*given, **named), self)

        for module in (durable, directory):
            module.open = cutting_open  # type: ignore[attr-defined]
        sys.addaudithook(self._hear)

    def take(self, half: Callable[[], object]) -> None:
        """One step; `half` does a part of it, in the place of all of it."""
        struck = self._seen == self._step or (self._mode == "full" and self._seen > self._step)
        self._seen += 1
        if not struck:
            return
        self.has_struck = True
        half()
        if self._mode == "die":
            os._exit(DIED)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in STEPS and isinstance(arguments[0], str | Path):
            path = str(arguments[0])
            # relative to an open directory, or below the folder: no module that is imported
            if path.startswith(self._folder) or not path.startswith("/"):
                self.take(lambda: None)


class _Cut:
    """A file whose writes are steps."""

    def __init__(self, file: Any, cutter: Cutter) -> None:
        self._file = file
        self._cutter = cutter

    def write(self, content: Any) -> int:
        def half() -> None:
            self._file.write(content[: len(content) // 2])
            self._file.flush()

        self._cutter.take(half)
        written: int = self._file.write(content)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_Cut":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def live(path: Path, told: Callable[[object], None], *, to: int = ROUNDS) -> None:
    """Train to so many rounds, each with a better model and a checkpoint; tell of what is safe."""
    with landed(path, small(), resume=has_run(path), warn=lambda _: None) as run:
        begun, _ = newest_checkpoint(run.checkpoints)
        first = begun.progress["round"] if begun else 0
        run.cut_metrics(first)
        run.write_recipe(small())
        run.write_encoding(ENCODING)
        recorder = Recorder(run, lambda _: None)
        for number in range(first + 1, to + 1):
            recorder.take_round(round_learned(number))
            recorder.take_evaluation(evaluated(number, 1 / number, {"weight": torch.full((64,), float(number))}))
            for worker in (0, 1):
                recorder.take_checkpoint_part(part(worker, generation=number, number=number))
            if recorder.write_checkpoint() is not None:
                told(number)
        recorder.write_model(None)
        recorder.close()


def cut(step: int, mode: str, path: Path) -> dict[str, Any]:
    """What a process had told of whose `step`-th step is cut short, and how it ended."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        cutter = Cutter(step, mode, path)
        cutter.install()

        def tell(word: object) -> None:
            os.write(writing, f"{json.dumps(word)}\n".encode())

        try:
            live(path, tell, to=ROUNDS)
        except Exception as error:
            tell(f"{'' if isinstance(error, RayrnnError | OSError) else 'unforeseen: '}{type(error).__name__}: {error}")
        os._exit(0 if not cutter.has_struck else DIED)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        told = [json.loads(line) for line in pipe]
    _, status = os.waitpid(child, 0)
    return {
        "cut": os.waitstatus_to_exitcode(status) == DIED,
        "told": max((word for word in told if isinstance(word, int)), default=0),
        "said": [word for word in told if isinstance(word, str)],
    }


def aftermath(path: Path) -> dict[str, Any]:
    """What a resume finds, and what is there after it has gone on."""
    try:
        with landed(path, small(), resume=True, warn=lambda _: None) as run:
            found, damages = newest_checkpoint(run.checkpoints)
            seen = {
                "found": found.progress["round"] if found else 0,
                "damages": damages,
                "rounds": [line["round"] for line in run.metrics()],
                "has_recipe": has_run(path),
                "has_encoding": run.stored_encoding is not None,
                "model": load_file(path / MODEL)["weight"].mean().item() if (path / MODEL).exists() else 0,
            }
            run.write_recipe(small())
            run.write_encoding(ENCODING)
            run.cut_metrics(seen["found"])
            run.write_model({"weight": torch.zeros(2)})
            run.write_checkpoint(9, checkpoint(9))
    except RayrnnError as error:
        return {"refused": str(error)}
    left = [file.name for file in path.rglob(".*") if file.name != ".lock"]
    return seen | {"refused": "", "left": left, "kept": sorted(file.name for file in run.checkpoints.iterdir())}


def main(folder: Path, mode: str, *, every: int, resumed: bool) -> None:
    for step in range(0, 10_000, every):
        path = folder / str(step)
        if resumed:
            live(path, lambda _: None, to=1)
        end = cut(step, mode, path)
        print(json.dumps(end | aftermath(path)), flush=True)
        if not end["cut"]:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], every=int(sys.argv[3]), resumed=sys.argv[4:] == ["resumed"])
