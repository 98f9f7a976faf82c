"""One trial of a search: `rayrnn train` in a process of its own, and its run directory."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rayrnn.errors import RayrnnError
from rayrnn.runs.directory import Run, has_run
from rayrnn.runs.layout import METRICS

#: bytes of what a trial said that are looked at, for the last line of it
_LAST_WORDS = 4000
#: `rayrnn` in a process that is asked to stop when the one that made it is gone, however that ended
_PROGRAM = """
import os, signal, sys, threading, time
parent = int(sys.argv.pop(1))
def watch():
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=watch, name="search", daemon=True).start()
from rayrnn.cli import main
main()
"""


class Trial:
    """A run that another process trains.

    Args:
        arguments: of `rayrnn train`, without `--out` and `--resume`.
        said: takes all that the process says.
    """

    def __init__(self, folder: Path, arguments: Sequence[str], said: Path) -> None:
        self.folder = folder
        self._said = said
        resume = ["--resume"] if has_run(folder) else []
        python = [sys.executable, "-P", "-c", _PROGRAM]
        # the keyboard's Ctrl-C is for the search, which tells its trials
        with open(said, "ab") as log:
            self._process = subprocess.Popen(
                [*python, str(os.getpid()), "train", *arguments, "--out", str(folder), *resume],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        self._seen: tuple[int, int] = (0, 0)

    @property
    def exit_code(self) -> int | None:
        """None while it learns; below 0 where a signal has ended it."""
        return self._process.poll()

    def stop(self) -> None:
        """Have it finish its round and write a checkpoint."""
        if self.exit_code is None:
            self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it at once."""
        if self.exit_code is None:
            self._process.kill()
            self._process.wait()

    def news(self) -> list[dict[str, object]] | None:
        """All its rounds, where there is something new; None where there is not."""
        try:
            found = (self.folder / METRICS).stat()
            mark = (found.st_mtime_ns, found.st_size)
            if mark == self._seen:
                return None
            rounds = Run(self.folder).metrics()
        except (OSError, RayrnnError):  # it is not there yet, or a line is just being written
            return None
        self._seen = mark
        return rounds

    def last_words(self) -> str:
        """What it said last, in one line."""
        try:
            words = self._said.read_bytes()[-_LAST_WORDS:].decode(errors="replace")
        except OSError:
            return ""
        lines = [line.strip() for line in words.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error:")]
        return (errors or lines or [""])[-1].removeprefix("error:").strip()
