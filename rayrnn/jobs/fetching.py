"""Brings a run directory from the head to this machine: newest checkpoints while it trains, everything at the end."""

import shlex
import threading
from contextlib import suppress
from pathlib import PurePosixPath

from rayrnn.checkpoints import read_checkpoint, remove_old, round_of, unfinished_checkpoint
from rayrnn.errors import ClusterError, RunError
from rayrnn.jobs.folder import RUNS, WORK
from rayrnn.jobs.head import Head
from rayrnn.jobs.record import Record
from rayrnn.layout import RECIPE, RECORD, SCREEN
from rayrnn.run import Run

#: what each side has its own of, what is not finished, and checkpoints, which come whole or not at all
OWN = (f"/{RECIPE}", f"/{RECORD}", f"/{SCREEN}", ".*", "/ray-train", "/checkpoints")


class Fetcher:
    """One run's way home; a thread fetches checkpoints, and where one follows another closely, the newer."""

    def __init__(self, head: Head, record: Record, run: Run) -> None:
        self._head = head
        self._there = f"{RUNS}/{record.job}/{WORK}/{PurePosixPath(record.out)}"
        self._run = run
        self._wanted = ""
        self._wakes = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._work, name="fetcher", daemon=True)
        self._thread.start()

    def want(self, checkpoint: str) -> None:
        """Fetch this checkpoint soon."""
        if round_of(checkpoint) >= 0:  # screen.jsonl may be somebody else's
            self._wanted = checkpoint
            self._wakes.set()

    def close(self) -> None:
        """Finish what is being fetched."""
        self._ending = True
        self._wakes.set()
        self._thread.join()

    def fetch_all(self) -> None:
        """Everything that the run directory has there and lacks here.

        Raises:
            ClusterError: it cannot be copied.
        """
        self._head.fetch(self._there, self._run.path, exclude=OWN)
        for name in self._head.run(f"ls {shlex.quote(self._there)}/checkpoints 2>/dev/null || true").split():
            if round_of(name) >= 0 and not (self._run.checkpoints / name).exists():
                self._fetch_checkpoint(name)
        remove_old(self._run.checkpoints)

    def send_back(self) -> None:
        """What is newer here, or only here: to go on from, where the head has lost it."""
        self._head.run(f"mkdir -p {shlex.quote(self._there)}")
        self._head.update(self._run.path, self._there, exclude=OWN[:-1])

    def _work(self) -> None:
        while not self._ending:
            self._wakes.wait()
            self._wakes.clear()
            name, self._wanted = self._wanted, ""
            if name:
                # the next one, or the end of the run, tries again
                with suppress(ClusterError):
                    self._head.fetch(self._there, self._run.path, exclude=OWN)
                    self._fetch_checkpoint(name)
                    remove_old(self._run.checkpoints)

    def _fetch_checkpoint(self, name: str) -> None:
        """Whole or not at all: the head removes old ones, perhaps while they are copied."""
        with suppress(RunError), unfinished_checkpoint(self._run.checkpoints, name) as unfinished:
            self._head.fetch(f"{self._there}/checkpoints/{name}", unfinished)
            read_checkpoint(unfinished)  # fails where a newer one has taken its place
