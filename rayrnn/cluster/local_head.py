"""A Ray head on this machine that outlives the command that started it: `rayrnn up` and `rayrnn down`.

What `up` remembers of it lets `down` end that one and no other.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from rayrnn.cluster.environment import home, prepare_environment
from rayrnn.cluster.on_host import facts
from rayrnn.cluster.ray_internals import bind_to_loopback
from rayrnn.cluster.sessions import end_processes_of, is_head_alive, make_folder
from rayrnn.durable import replace_durably
from rayrnn.errors import ClusterError

#: seconds that Ray may take to start
START_TIMEOUT = 120


@dataclass(frozen=True)
class LocalHead:
    """A Ray head on this machine; without an address one that is being started, or whose `up` was killed.

    `folder` holds all that it writes; its processes carry the folder's name in their environment, and are known by it.
    """

    address: str
    folder: str
    dashboard: str | None
    #: seconds since 1970
    started: float


def load_head() -> LocalHead | None:
    """The head that `up` recorded, alive or not; None when there is no record (or only a broken one)."""
    try:
        return LocalHead(**json.loads(_record().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def save_head(head: LocalHead) -> None:
    """Record a head; the record is complete or absent."""
    replace_durably(_record(), json.dumps(asdict(head)).encode())


def forget_head() -> None:
    """Remove the record."""
    _record().unlink(missing_ok=True)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold the lock that keeps two `up` or `down` of the same user apart.

    Raises:
        ClusterError: this machine's state cannot be written.
    """
    lock = FileLock(state_folder() / "lock")
    try:
        state_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise _unwritable(error) from None
    try:
        yield
    finally:
        lock.release()


def _unwritable(error: OSError) -> ClusterError:
    return ClusterError(
        f"what `rayrnn up` has to remember cannot be written to {state_folder()}: {error}; nothing was started. "
        "Make room there, or set XDG_STATE_HOME to a folder that can be written"
    )


def cluster_folder(name: str) -> Path:
    """What this machine remembers of a cluster of several hosts that it has brought up."""
    return state_folder() / "clusters" / name


def state_folder() -> Path:
    """What this machine remembers.

    Raises:
        ClusterError: the user has no home directory.
    """
    home()
    return Path(facts.state_folder())


def _record() -> Path:
    return Path(facts.record_of_head())


@dataclass(frozen=True)
class HeadOptions:
    """What a head is started with; None leaves the number to Ray, which counts the machine's."""

    num_cpus: int | None = None
    num_gpus: int | None = None
    #: bytes
    memory: int | None = None
    dashboard: bool = False


def running_head() -> LocalHead | None:
    """The head that `up` started, if it is alive."""
    head = load_head()
    return head if head and head.address and is_head_alive(head.folder) else None


def start_head(options: HeadOptions) -> tuple[LocalHead, bool]:
    """The head of this machine, and whether it had to be started; what a dead one left is cleaned first.

    It listens on 127.0.0.1 alone and answers only who shows the token.

    Raises:
        ClusterError: Ray did not start, the message has its last words; or the record cannot be written.
    """
    with one_at_a_time():
        if head := running_head():
            return head, False
        _clean()
        prepare_environment()
        return _start(options), True


def stop_head() -> bool:
    """End what `start_head` started, every process by its id, and remove its folder; whether anything was there.

    Raises:
        ClusterError: a process does not end.
    """
    with one_at_a_time():
        return _clean()


def _clean() -> bool:
    head = load_head()
    if head is None:
        return False
    _end(head.folder)
    return True


def _end(folder: str) -> None:
    """End what runs there; the record goes last: who is interrupted before can do it again."""
    end_processes_of(folder)
    shutil.rmtree(folder, ignore_errors=True)
    forget_head()


def _start(options: HeadOptions) -> LocalHead:
    """Whatever ends this ends what it has started; what a kill leaves is known by the record, which is there before."""
    try:
        folder, started = make_folder("head"), time.time()
    except OSError as error:
        raise _unwritable(error) from None
    try:
        save_head(LocalHead("", folder, None, started))
        said = _run_ray_start(options, folder)
        address = (Path(folder) / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip()
        dashboard = re.search(r"http://127\.0\.0\.1:\d+", said)
        head = LocalHead(address, folder, dashboard.group() if dashboard else None, started)
        save_head(head)
        return head
    except BaseException as error:
        with _undisturbed(), suppress(OSError):  # there may be no record that could be removed
            _end(folder)
        if isinstance(error, OSError):
            raise _unwritable(error) from None
        raise


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Inside, no second Ctrl-C, and no terminal that is closed, ends the tidying up; they wait."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_ray_start(options: HeadOptions, folder: str) -> str:
    hook = f"{bind_to_loopback.__module__}.{bind_to_loopback.__name__}"
    environment = {**os.environ, "RAY_TMPDIR": folder, "RAY_START_HOOK": hook}
    environment.pop("RAY_ADDRESS", None)
    try:
        ended = subprocess.run(
            _ray_start(options),
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=START_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"Ray's head did not start within {START_TIMEOUT} s") from None
    if ended.returncode != 0:
        raise ClusterError(f"Ray's head did not start; its last words were\n{_last_words(ended.stdout)}")
    return ended.stdout


def _ray_start(options: HeadOptions) -> list[str]:
    numbers = {"--num-cpus": options.num_cpus, "--num-gpus": options.num_gpus, "--memory": options.memory}
    return [
        *(
            sys.executable,
            "-P",
            "-m",
            "ray.scripts.scripts",
            "start",
            "--head",
            "--log-style=record",
            "--log-color=false",
        ),
        *("--port=0", "--no-monitor", "--disable-usage-stats"),
        *(f"--include-dashboard={options.dashboard}", "--dashboard-host=127.0.0.1"),
        *(f"{name}={number}" for name, number in numbers.items() if number is not None),
    ]


def _last_words(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-5:])
