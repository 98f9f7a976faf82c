"""Serving on the cluster of a cluster file from this machine: the runs travel to its head, and a port comes back.

One ssh connection carries all of it: the server there, whose end is the connection's, and the port here.
"""

import functools
import json
import secrets
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from rich.console import Console

from rayrnn.cluster.cluster_file import read_cluster_file
from rayrnn.cluster.on_host.facts import RUNS
from rayrnn.cluster.ssh import Head, find_head
from rayrnn.errors import ClusterError, RayrnnError, RunError
from rayrnn.remote.follow import ask, error_of
from rayrnn.remote.submit import check_versions
from rayrnn.runs.directory import Run
from rayrnn.runs.layout import DETECT, ENCODING, MODEL, RECIPE
from rayrnn.serving.serve import FOLLOW_SECONDS, Address, ServeOptions, check_free, version_of
from rayrnn.terminal import Terminal
from rayrnn.user_code import files_of

#: below the user's home on the head
SERVED = str(PurePosixPath(RUNS).with_name("served"))
#: for the server there to finish what it answers
END_SECONDS = 60.0
GREET = f"""mkdir -p {SERVED}/{{name}} && chmod 700 {SERVED}/{{name}}
python3 -c "from importlib.metadata import version as v; print(v('rayrnn'), v('ray'))" || echo none"""
#: ends when the connection does, for then nobody holds its standard input open any more
SERVE = """cd {folder} || exit 1
trap 'rm -rf "$HOME"/{folder}' EXIT
exec 4<&0
rayrnn serve {arguments} < /dev/null &
server=$!
(cat <&4 > /dev/null; kill -TERM $server) > /dev/null 2>&1 &
wait $server"""
FREE_PORT = """python3 -c "
import socket
with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    print(probe.getsockname()[1])
\""""


@dataclass
class There:
    """A server on the head, seen from here."""

    address: Address
    #: called now and then; whether the server has ended by itself
    has_ended: Callable[[], bool]


@contextmanager
def serving_there(
    runs: Mapping[str, Run], options: ServeOptions, file: Path, *, console: Console | None = None
) -> Iterator[There]:
    """Inside, the runs are served on the cluster's hosts.

    Its head listens at 127.0.0.1, and this machine at the port of `options`, through ssh; with another `options.host`
    the head listens there, for other machines.

    Raises:
        UsageError: the port is in use here.
        ClusterError: the head cannot be reached, has another rayrnn, or no Ray runs there.
        RayrnnError: what the server there ended with.
    """
    screen = console or Terminal(stderr=True)
    is_private = options.host in ("127.0.0.1", "localhost", "::1")
    if is_private:
        options = replace(options, port=check_free(options.host, options.port))
    for run in runs.values():
        _check_model(run)
    head = find_head(read_cluster_file(file))
    folder = f"{SERVED}/{secrets.token_hex(6)}"
    check_versions(head, head.run(GREET.format(name=PurePosixPath(folder).name)).split())
    try:
        ray = ask(head, "address")["address"]
        _send_all(head, runs, options, folder, screen)
        port = int(head.run(FREE_PORT).split()[-1]) if is_private else options.port
    except RayrnnError:
        head.run(f"rm -rf {folder}")
        raise
    script = SERVE.format(folder=folder, arguments=shlex.join(_arguments(runs, options, port, ray, is_private)))
    forward = ("-o", "ExitOnForwardFailure=yes", "-L", f"{options.host}:{options.port}:127.0.0.1:{port}")
    # a connection of its own, which ends with this command; of an option that is given twice ssh takes the first
    first = ("-o", "ControlPath=none", *(forward if is_private else ()))
    shell = replace(head.shell, options=(*first, *head.shell.options))
    # a session of its own: Ctrl-C in the terminal is for us, who end the server by the end of its input
    process = subprocess.Popen(
        shell.command(script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        there = _port_there(process, head)
        host = options.host if is_private else head.shell.address
        address = Address(host, options.port if is_private else there, options.token)
        follow = _Following(head, runs, folder) if options.follow else None
        yield There(address, functools.partial(_has_ended, process, follow))
        if (code := process.poll()) is not None:
            raise ClusterError(f"the server on {head.target} has ended by itself, or the link to it has (code {code})")
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _check_model(run: Run) -> None:
    if not (run.path / MODEL).exists():
        raise RunError(f"{run.name}/{MODEL} is not there: the run has no model yet; train it with --resume")


def _send_all(head: Head, runs: Mapping[str, Run], options: ServeOptions, folder: str, screen: Console) -> None:
    """All that the server there reads: the runs, the code that they name, the token."""
    for name, run in runs.items():
        screen.print(f"sending {run.name} to {head.target} ...")
        _send(head, run, f"{folder}/{name}")
    for own in [own for run in runs.values() for own in files_of(run.recipe.named_code)]:
        head.send(Path(own.folder), tuple(own.content), folder)
    if options.token is not None:
        head.run(f"umask 077; cat > {folder}/token", input=options.token)


def _send(head: Head, run: Run, there: str) -> None:
    """What answering needs of a run."""
    names = [name for name in (RECIPE, ENCODING, MODEL, DETECT) if (run.path / name).exists()]
    head.run(f"mkdir -p {shlex.quote(there)}")
    head.send(run.path, names, there)


def _arguments(runs: Mapping[str, Run], options: ServeOptions, port: int, ray: str, is_private: bool) -> Sequence[str]:
    fewest, most = options.replicas
    limits = options.limits
    return [
        *(f"{name}={name}" for name in runs),
        *("--json", "--address", ray, "--port", str(port)),
        *("--host", "127.0.0.1" if is_private else options.host),
        *("--replicas", f"{fewest}:{most}"),
        *(["--no-token"] if options.token is None else ["--token-file", "token"]),
        *(["--follow"] if options.follow else []),
        *(["--trust"] if any(run.trusted for run in runs.values()) else []),
        *("--max-requests", str(limits.requests), "--max-body", str(limits.body // 2**20)),
        *("--max-sessions", str(limits.sessions), "--session-idle", str(limits.idle)),
    ]


def _port_there(process: "subprocess.Popen[str]", head: Head) -> int:
    """Where the server there listens; what it says until then, on its stderr, the user sees."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        code = process.wait(END_SECONDS)
        raise error_of(code)(f"the server on {head.target} did not start: its words are above (code {code})")
    return int(json.loads(line)["url"].rpartition(":")[2])


class _Following:
    """Sends newer models of the runs after those that are served; the server there looks for them by itself."""

    def __init__(self, head: Head, runs: Mapping[str, Run], folder: str) -> None:
        self._head = head
        self._runs = runs
        self._folder = folder
        self._versions = {name: version_of(run) for name, run in runs.items()}
        self._looked = time.monotonic()

    def look(self) -> None:
        """Send what is newer; not more often than every FOLLOW_SECONDS."""
        if time.monotonic() - self._looked < FOLLOW_SECONDS:
            return
        for name, run in self._runs.items():
            try:
                version = version_of(run)
            except RunError:
                continue  # training puts a newer one in its place
            if version != self._versions[name]:
                _send(self._head, run, f"{self._folder}/{name}")
                self._versions[name] = version
        self._looked = time.monotonic()


def _has_ended(process: "subprocess.Popen[str]", follow: _Following | None) -> bool:
    if follow is not None:
        follow.look()
    return process.poll() is not None
