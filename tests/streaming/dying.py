"""Follows a directory, and is killed at its k-th step on the file system and the journal, for many k: run as a program.

    python -m tests.streaming.dying RUN DIRECTORY FOLDER EVERY

A process of its own answers the files of DIRECTORY into FOLDER/<k> and is killed (SIGKILL) before its k-th step; k goes
up from 0 by EVERY until one lives. Another one then follows to the end. A JSON line each says if the first was killed,
what stood in the directory of answers then, and a checksum of the answers and of all states at the end.
"""

import hashlib
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rayrnn.runs.directory import open_run
from rayrnn.streaming.journal import FOLDER
from tests.crashing import STEPS
from tests.streaming.streams import contents, followed


def die_at(step: int, out: Path) -> None:
    """Kill this process before its `step`-th step below `out`, or at one of its statements to the journal."""
    seen = 0

    def count() -> None:
        nonlocal seen
        if seen == step:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event in STEPS and isinstance(arguments[0], str | Path) and str(arguments[0]).startswith(str(out)):
            count()

    class Counting(sqlite3.Connection):
        def execute(self, *given: Any) -> sqlite3.Cursor:
            count()
            return super().execute(*given)

        def executemany(self, *given: Any) -> sqlite3.Cursor:
            count()
            cursor = super().executemany(*given)
            count()
            return cursor

    connect, sync = sqlite3.connect, os.fsync
    sqlite3.connect = lambda *given, **named: connect(*given, **named, factory=Counting)  # type: ignore[assignment]
    os.fsync = lambda descriptor: (count(), sync(descriptor))[1]
    sys.addaudithook(hear)


def in_a_process(work: Callable[[], object]) -> int:
    """How it ended: below 0 by a signal."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def checksum(out: Path) -> str:
    """Of the answers, and of what the journal knows of every file and sequence but in what order it wrote them down."""
    seen = hashlib.sha256(repr(contents(out)).encode())
    with sqlite3.connect(out / FOLDER / "journal.sqlite") as journal:
        for asked in (
            "name, size, modified, answers, sequences, steps, told FROM files ORDER BY name",
            "key, steps, newest, state FROM sequences ORDER BY key",
        ):
            seen.update(repr(journal.execute(f"SELECT {asked}").fetchall()).encode())
    return seen.hexdigest()


def main(run: str, directory: str, folder: Path, every: int) -> None:
    followed(open_run(run), directory, folder / "whole")  # all is imported before a process dies
    print(json.dumps({"killed": False, "end": checksum(folder / "whole")}), flush=True)
    for step in range(0, 10_000, every):
        out = folder / str(step)

        def follow(out: Path = out) -> None:
            followed(open_run(run), directory, out)

        def follow_and_die(out: Path = out, step: int = step) -> None:
            die_at(step, out)
            follow(out)

        ended = in_a_process(follow_and_die)
        assert ended in (0, -signal.SIGKILL), ended
        left = {name: hashlib.sha256(content).hexdigest() for name, content in contents(out).items()}
        assert in_a_process(follow) == 0
        drafts = len(list((out / FOLDER).glob("draft-*")))
        print(json.dumps({"killed": ended != 0, "left": left, "drafts": drafts, "end": checksum(out)}), flush=True)
        if ended == 0:
            return


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
