"""Listens to a job on the head over a link that may break, and asks the head about its jobs."""

import queue
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rayrnn.cluster.on_host.facts import RUNS
from rayrnn.cluster.ssh import Head
from rayrnn.errors import ClusterError, DataError, Interrupted, RayrnnError, RunError, UsageError
from rayrnn.remote.job import PID
from rayrnn.remote.screen_log import Transcript, Word, word_of, words_of
from rayrnn.runs.layout import SCREEN

#: between two attempts to reach the head again
RETRY_SECONDS = 3.0
#: so often the caller gets a turn, whether there is a word or not
TURN_SECONDS = 0.2
#: in the job's folder: whether the process that wrote its number down still does this job
ALIVE = f'grep -q -e {{job}} "/proc/$(cat {PID} 2>/dev/null)/cmdline" 2>/dev/null'
#: prints the words from line {first} on, until the job's process ends
LISTEN = f"""cd {RUNS}/{{job}} && if {ALIVE}
then exec tail --lines=+{{first}} --follow=name --retry --sleep-interval=0.2 --pid="$(cat {PID})" {SCREEN} 2>/dev/null
else exec tail --lines=+{{first}} {SCREEN}; fi"""


class Listener:
    """One job's words. Those that have come are kept in a file: who listens again hears the rest.

    Args:
        transcript: takes every line; what it has already is not asked for.
        patience: seconds without the head before it is given up.
    """

    def __init__(self, head: Head, job: str, transcript: Path, *, patience: float) -> None:
        self._head = head
        self._job = job
        self._transcript = Transcript(transcript)
        #: lines of the run's file that were read
        self._heard = 0
        self._patience = patience

    def known(self) -> list[Word]:
        """The words that have come before; those to come follow them."""
        lines = self._transcript.lines()
        self._heard = len(lines)
        return words_of(lines)

    def words(self, *, cut: Callable[[], None], mended: Callable[[], None]) -> Iterator[Word | None]:
        """The words to come, and None now and then; ends when the job has ended.

        Args:
            cut: called when the link has broken; `mended` when there is one again.

        Raises:
            ClusterError: the head was out of reach for longer than `patience`.
        """
        broken_since: float | None = None
        while True:
            with _Link(self._head.shell.command(self._listen())) as link:
                for line in link.lines():
                    if line and broken_since is not None:
                        broken_since = None
                        mended()
                    yield self._take(line) if line else None
            if not _is_broken(link.returncode):
                return
            if broken_since is None:
                broken_since = time.monotonic()
                cut()
            if time.monotonic() - broken_since > self._patience:
                raise self._head.unreachable(link.said)
            yield from self._pause()

    def _listen(self) -> str:
        return LISTEN.format(job=shlex.quote(self._job), first=self._heard + 1)

    def _take(self, line: str) -> Word | None:
        self._transcript.take(self._heard, line)
        self._heard += 1
        return word_of(line)

    def _pause(self) -> Iterator[None]:
        until = time.monotonic() + RETRY_SECONDS
        while time.monotonic() < until:
            time.sleep(TURN_SECONDS)
            yield None


def _is_broken(returncode: int | None) -> bool:
    """Whether a link ended before what it listens to: the way failed, or a signal ended one of its two ends."""
    return returncode is None or returncode < 0 or returncode > 128  # SSH_FAILED is 255


class _Link:
    """One ssh process, read by a thread so that the caller is never stuck."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        self._lines: queue.Queue[str | BaseException | None] = queue.Queue()
        self.said = ""
        self.returncode: int | None = None
        # whatever it dies of is raised by `lines`
        self._reader = threading.Thread(target=self._read, name="link", daemon=True)
        self._reader.start()

    def lines(self) -> Iterator[str]:
        """Whole lines; empty where none has come for a moment.

        Raises:
            ClusterError: what came could not be read.
        """
        while True:
            try:
                line = self._lines.get(timeout=TURN_SECONDS)
            except queue.Empty:
                yield ""
                continue
            if line is None:
                self.returncode = self._process.wait()
                return
            if isinstance(line, BaseException):
                raise ClusterError(f"what the run says could not be read: {type(line).__name__}: {line}") from line
            yield line

    def _read(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        try:
            for line in self._process.stdout:
                if line.endswith("\n"):
                    self._lines.put(line)
            self.said = self._process.stderr.read()
            self._lines.put(None)
        except BaseException as error:
            self._lines.put(error)

    def __enter__(self) -> "_Link":
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()


#: exit code -> what this side raises
ERRORS: dict[int, type[RayrnnError]] = {
    error.exit_code: error for error in (RunError, UsageError, DataError, ClusterError, Interrupted)
}


def error_of(exit_code: int) -> type[RayrnnError]:
    """What this side raises for what the other side ended with."""
    return ERRORS.get(exit_code, RunError)


def runs_of(head: Head) -> dict[str, Any]:
    """The runs that lie on the head, and the cluster as it sees itself."""
    return ask(head, "list")


def ask(head: Head, *question: str) -> dict[str, Any]:
    """Put one question to the head's server.

    Raises:
        RayrnnError: the answer is an error.
    """
    question_there = f"exec python3 -P -m rayrnn.remote.server {shlex.join(question)}"
    answer: dict[str, Any] = head.shell.answer(question_there)
    if "error" in answer:
        raise error_of(answer["exit_code"])(answer["error"])
    return answer


def find_run(name: str, runs: list[dict[str, Any]], file: Path) -> dict[str, Any]:
    """The newest run of this name (of its recipe, its directory or its job)."""
    for run in runs:
        if name in (run["job"], run["out"], Path(run["out"]).name, run["recipe"]["name"]):
            return run
    known = ", ".join(run["out"] for run in runs) or "none"
    raise UsageError(f"there is no run {name} on the head of {file}; there are {known}")
