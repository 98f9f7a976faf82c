"""A cluster of several hosts, brought up and taken down by Ray's own launcher."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rayrnn.cluster.cluster_file import ClusterFile
from rayrnn.cluster.token import ensure_token, token_path
from rayrnn.errors import ClusterError

#: Ray's own settings for hosts that exist already; the user's go first
FOR_HOSTS = {
    # seconds until a host that does not answer over SSH is given up; Ray would wait 15 minutes, as for a new machine
    "AUTOSCALER_NODE_START_WAIT_S": "60",
    # with hosts over SSH, Ray 2.60's new autoscaler never starts the workers
    "RAY_UP_enable_autoscaler_v2": "0",
}
#: a line of the launcher's log of itself
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+\s+[A-Z]+ ")


def launch(file: ClusterFile, say: Callable[[str], None]) -> None:
    """Run `ray up`; each of its lines goes to `say` as it comes.

    Raises:
        ClusterError: the launcher failed; the message has what it said last.
    """
    ensure_token()
    _run_ray("up", file, say)


def check_this_machine(file: ClusterFile) -> None:
    """What the launcher needs here: ssh, rsync, and the files that the cluster file names.

    Raises:
        ClusterError: something is missing; names all of it.
    """
    missing = [f"{tool} is not installed on this machine" for tool in ("ssh", "rsync") if not shutil.which(tool)]
    for key, path in file.local_files.items():
        here = Path(path).expanduser()
        if not here.exists() and here != token_path():
            missing.append(f'{file.path}: "{key}" names {path}, which is not on this machine')
    if missing:
        raise ClusterError("\n".join(missing))


def take_down(file: ClusterFile, say: Callable[[str], None]) -> None:
    """Run `ray down`; each of its lines goes to `say` as it comes.

    Raises:
        ClusterError: the launcher failed; the message has what it said last.
    """
    _run_ray("down", file, say)


def _run_ray(verb: str, file: ClusterFile, say: Callable[[str], None]) -> None:
    command = [sys.executable, "-m", "ray.scripts.scripts", verb, str(file.path), "--yes"]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
    if file.provider == "local":
        environment = FOR_HOSTS | environment
    with subprocess.Popen(
        [*command, "--log-style=pretty", "--log-color=false"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = [_passed_on(line, say) for line in _readable(process.stdout)]
    if process.returncode != 0:
        last = "\n".join(f"  {line}" for line in said[-8:])
        raise ClusterError(f"Ray's launcher could not bring {verb} {file.path}; it said last\n{last}")


def _readable(lines: Iterable[str]) -> Iterator[str]:
    """What the launcher says to people: each thing once, without its log of itself and the frames of a traceback."""
    said: set[str] = set()
    in_traceback = False
    for line in lines:
        in_traceback = "Traceback (most recent call last)" in line or (in_traceback and line.startswith(" "))
        words = line.strip()
        if not (in_traceback or words in said or words in ("", "!!!") or LOG_LINE.match(line)):
            said.add(words)
            yield line.rstrip()


def _passed_on(line: str, say: Callable[[str], None]) -> str:
    say(line)
    return line
