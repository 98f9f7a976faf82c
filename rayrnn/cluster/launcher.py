"""Ray's own cluster launcher, run as a program: `ray up` and `ray down` with the file that rayrnn gives it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rayrnn.cluster.cluster_file import ClusterFile
from rayrnn.cluster.token import token_path
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
#: what a line ends with where the terminal would be told to go back or change its colour
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\x07]")


def check_this_machine(file: ClusterFile) -> None:
    """What the launcher needs here: ssh, rsync, and the files that the cluster file names.

    Raises:
        ClusterError: something is missing, or a key is no secret; names all of it.
    """
    missing = [f"{tool} is not installed on this machine" for tool in ("ssh", "rsync") if not shutil.which(tool)]
    for key, path in file.local_files.items():
        here = Path(path).expanduser()
        if not here.exists() and here != token_path():
            missing.append(f'{file.path}: "{key}" names {path}, which is not on this machine')
        elif key == "auth.ssh_private_key" and _is_open(here):
            missing.append(
                f'{file.path}: "{key}" names {path}, which others may read: ssh refuses it; `chmod 600 {path}`'
            )
    if missing:
        raise ClusterError("\n".join(missing))


def _is_open(key: Path) -> bool:
    """Whether ssh takes a key for no secret."""
    about = key.stat()
    return about.st_uid == os.getuid() and bool(about.st_mode & 0o077)


def run_launcher(
    verb: str, file: ClusterFile, given: Path, say: Callable[[str], None], options: Iterable[str] = ()
) -> None:
    """Run `ray up` or `ray down`; each of its lines goes to `say` as it comes.

    Args:
        file: the user's.
        given: what the launcher reads in its place; its folder takes what the launcher remembers of listed hosts.

    Raises:
        ClusterError: the launcher failed; the message has what it said last.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", verb, str(given), "--yes", *options]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
    if file.provider == "local":
        environment = FOR_HOSTS | {"RAY_TMPDIR": str(given.parent), "TMPDIR": str(given.parent)} | environment
    with subprocess.Popen(
        [*command, "--log-style=pretty", "--log-color=false"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            said = [_passed_on(line, say) for line in _readable(process.stdout)]
        except KeyboardInterrupt:
            process.terminate()
            raise
    if process.returncode != 0:
        last = "\n".join(f"  {line}" for line in said[-12:])
        raise ClusterError(f"Ray's launcher could not bring {verb} {file.path}; it said last\n{last}")


def _readable(lines: Iterable[str]) -> Iterator[str]:
    """What the launcher says to people: each thing once, without its log of itself and the frames of a traceback."""
    said: set[str] = set()
    in_traceback = False
    for raw in lines:
        line = CONTROL.sub("", raw)
        in_traceback = "Traceback (most recent call last)" in line or (in_traceback and line.startswith(" "))
        words = line.strip()
        if not (in_traceback or words in said or words in ("", "!!!") or LOG_LINE.match(line)):
            said.add(words)
            yield line.rstrip()


def _passed_on(line: str, say: Callable[[str], None]) -> str:
    say(line)
    return line
