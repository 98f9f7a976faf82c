"""Keeps two commands on one cluster apart: of `rayrnn up FILE` and `rayrnn down FILE` one at a time is at work.

There is a lock on this machine and one on the cluster's head, for another machine may have the same cluster file.
"""

import json
import shlex
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from filelock import FileLock, Timeout

from rayrnn.cluster.cluster_file import ClusterFile
from rayrnn.cluster.environment import user_name
from rayrnn.cluster.local_head import state_folder
from rayrnn.cluster.ssh import Shell, shell_of
from rayrnn.errors import ClusterError

#: seconds between two signs of life, and without one until the head lets go
SIGN_SECONDS = 10.0
SILENT_SECONDS = 60
#: for the head to hear that the command has ended
END_SECONDS = 5.0
#: any Python 3 runs this on the head: its arguments are the cluster, who holds it, and for how long without a sign.
#: It leaves nothing there; the file that it has locked may have lost its name to the one before.
HOLD = """
import fcntl, json, os, select, socket, sys
place = os.path.expanduser("~/.rayrnn/held")
path = os.path.join(place, sys.argv[1] + "@" + socket.gethostname())
linked = False
while not linked:
    try:
        os.makedirs(place, exist_ok=True)
        file = open(path, "a+")
    except FileNotFoundError:
        continue
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        print(json.dumps({"held_by": file.read()}))
        sys.exit()
    linked = os.fstat(file.fileno()).st_nlink > 0
try:
    file.truncate(0)
    file.write(sys.argv[2])
    file.flush()
    print(json.dumps({"held_by": None}), flush=True)
    while select.select([0], [], [], float(sys.argv[3]))[0] and os.read(0, 100):
        pass
finally:
    os.unlink(path)
    try:
        os.rmdir(place)
        os.rmdir(os.path.dirname(place))
    except OSError:
        pass
"""


@contextmanager
def held(file: ClusterFile) -> Iterator[None]:
    """Inside, no other `rayrnn up` or `rayrnn down` is at work on the cluster.

    A head that is not reached keeps nobody away; whatever is to be done there will not reach it either.

    Raises:
        ClusterError: another is at work; says where, as far as that is known.
    """
    with _held_here(file.name):
        if not file.hosts:
            yield  # a cloud may have no head yet
            return
        with _held_there(shell_of(file, file.hosts[0]), file.name):
            yield


@contextmanager
def _held_here(name: str) -> Iterator[None]:
    place = state_folder() / "held"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with FileLock(place / name, timeout=0):
            yield
    except Timeout:
        raise _busy(name, "on this machine") from None


@contextmanager
def _held_there(head: Shell, name: str) -> Iterator[None]:
    script = f"exec python3 -c {shlex.quote(HOLD)} {shlex.join([name, _who(), str(SILENT_SECONDS)])}"
    pipe = subprocess.PIPE
    with subprocess.Popen(
        # a session of its own: Ctrl-C in the terminal is for us
        head.command(script),
        stdin=pipe,
        stdout=pipe,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as link:
        assert link.stdout is not None
        ended = threading.Event()
        # a link that breaks ends it: the head lets go then, and no other step of the command reaches it either
        signs = threading.Thread(target=_give_signs, args=(link, ended), name="hold", daemon=True)
        try:
            answer = link.stdout.readline()
            if answer.startswith(b"{") and (holder := json.loads(answer).get("held_by")) is not None:
                raise _busy(name, f"on {head.address}, from {holder}")
            signs.start()
            yield
        finally:
            ended.set()
            _end(link)


def _give_signs(link: "subprocess.Popen[bytes]", ended: threading.Event) -> None:
    assert link.stdin is not None
    with suppress(OSError, ValueError):
        while not ended.wait(SIGN_SECONDS):
            link.stdin.write(b"\n")
            link.stdin.flush()


def _end(link: "subprocess.Popen[bytes]") -> None:
    assert link.stdin is not None
    with suppress(OSError):
        link.stdin.close()
    try:
        link.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        link.kill()


def _busy(name: str, where: str) -> ClusterError:
    return ClusterError(
        f"another `rayrnn up` or `rayrnn down` is at work on the cluster {name} ({where}): wait until it has ended"
    )


def _who() -> str:
    return f"{user_name()}@{socket.gethostname()}"
