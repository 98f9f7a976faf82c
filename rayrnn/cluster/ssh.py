"""A shell on another host, and on a cluster's head."""

import json
import os
import shlex
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ray.autoscaler.sdk import get_head_node_ip

from rayrnn.cluster.cluster_file import ClusterFile
from rayrnn.cluster.environment import quiet_ray, settings_for_hosts
from rayrnn.cluster.host_keys import HostKey, KeyFault, accept, find_fault, known_hosts_files
from rayrnn.cluster.local_head import cluster_folder
from rayrnn.cluster.on_host import facts
from rayrnn.cluster.ray_internals import cloud_login, ssh_options
from rayrnn.errors import ClusterError
from rayrnn.runs.layout import PARTIAL
from rayrnn.wording import command_line, path_of

T = TypeVar("T")
#: seconds for a connection
CONNECT_SECONDS = 10
#: what ssh ends with when it could not reach the host, or lost it
SSH_FAILED = 255
#: a shell's way to rayrnn on a host, where `rayrnn up` puts it
HOST_PATH = f'"$HOME/{facts.VENV}/bin:$PATH"'
#: what rsync ends with when it could not reach the host, or lost it
RSYNC_LOST = (10, 12, 30, 35, 255)
#: files that were there when rsync listed them; the next look finds those that took their place
RSYNC_VANISHED = 24


class Unreachable(ClusterError):
    """A host does not answer over SSH, or the link broke in the middle."""


class UntrustedHost(Unreachable):
    """ssh does not talk to a host whose key is not known, or is another than before."""

    def __init__(self, address: str, fault: KeyFault) -> None:
        super().__init__(f"{address} is not talked to: {fault.what}; {fault.fix}")
        self.fault = fault


@dataclass(frozen=True)
class Shell:
    """The way to one host, by the address that the cluster file names."""

    address: str
    #: user@address
    target: str
    #: of ssh
    options: tuple[str, ...]

    def command(self, script: str, *, terminal: bool = False) -> list[str]:
        """The ssh command that runs a script there, in a login shell that finds rayrnn first.

        Without a terminal, stdout has what the script prints and nothing of what the user's own settings say there.
        """
        inside = f"PATH={HOST_PATH}; {script}"
        if terminal:
            return ["ssh", "-t", *self.options, self.target, _login_shell(inside)]
        outside = f"exec 3>&1 1>&2; exec {_login_shell(f'exec 1>&3 3>&-; {inside}')}"
        return ["ssh", *self.options, self.target, f"bash -c {shlex.quote(outside)}"]

    def run(self, script: str, *, input: str = "", timeout: float | None = None) -> str:
        """Run a script there; its stdout.

        Raises:
            Unreachable: there is no way to the host.
            ClusterError: the script failed; says its last words.
        """
        try:
            # a session of its own: Ctrl-C in the terminal is for us, not for what runs there
            ended = subprocess.run(
                self.command(script),
                input=input,
                capture_output=True,
                text=True,
                timeout=timeout,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise Unreachable(f"{self.address} has not answered for {timeout:g} s: does it hang?") from None
        if ended.returncode == SSH_FAILED:
            if fault := find_fault(self.target, self.options):
                raise UntrustedHost(self.address, fault)
            raise Unreachable(f"{self.address} is not reached by `{self._how()}`: {last_line(ended.stderr)}")
        if ended.returncode:
            raise ClusterError(f"{self.address} could not do its part:\n{last_lines(ended.stderr or ended.stdout)}")
        return ended.stdout

    def ask(self, verb: str, *arguments: str, timeout: float | None = None) -> Any:
        """What rayrnn/cluster/on_host/facts.py answers there, whether or not rayrnn is there.

        Raises:
            Unreachable: there is no way to the host.
            ClusterError: it failed; says its last words.
        """
        program = Path(facts.__file__).read_text(encoding="utf-8")
        return self.answer(f"exec python3 - {shlex.join([verb, *arguments])}", input=program, timeout=timeout)

    def answer(self, script: str, *, input: str = "", timeout: float | None = None) -> Any:
        """What a script prints last, a line of JSON.

        Raises:
            Unreachable: there is no way to the host.
            ClusterError: it failed; says its last words.
        """
        said = self.run(script, input=input, timeout=timeout)
        try:
            return json.loads(said.splitlines()[-1])
        except (IndexError, ValueError):
            raise ClusterError(f"{self.address} has said what is no answer of rayrnn's:\n{last_lines(said)}") from None

    def enter(self, cluster: str) -> None:
        """Become a shell on the host, whose commands find the Ray of a cluster and show it the token."""
        inside = f"exec bash --rcfile <(echo {shlex.quote(_settings(cluster))}) -i"
        command = self.command(inside, terminal=True)
        os.execvp(command[0], command)

    def _how(self) -> str:
        key = self.options[:2] if self.options[0] == "-i" else ()
        return shlex.join(["ssh", *key, self.target])


def _login_shell(script: str) -> str:
    return f"bash --login -c {shlex.quote(script)}"


def _settings(cluster: str) -> str:
    """What an interactive shell does first: the user's own settings, and ours over them.

    No RAY_TMPDIR: by that `rayrnn down` knows the processes that it ends.
    """
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings_for_hosts().items())
    address = f"{facts.folder_of(cluster)}/ray/ray_current_cluster"
    return (
        f"[ ! -r ~/.bashrc ] || . ~/.bashrc; export PATH={HOST_PATH} {exports}; "
        f"[ ! -r {address} ] || export RAY_ADDRESS=$(cat {address})"
    )


def shell_of(file: ClusterFile, address: str, auth: dict[str, Any] | None = None) -> Shell:
    """The way to a host of the file."""
    auth = auth or file.auth
    key = auth.get("ssh_private_key")
    options = ssh_options(
        str(path_of(key)) if key else None,
        timeout=CONNECT_SECONDS,
        ProxyCommand=auth.get("ssh_proxy_command"),
        **_host_key_options(file),
    )
    return Shell(address, f"{auth['ssh_user']}@{address}", options)


def _host_key_options(file: ClusterFile) -> dict[str, str | None]:
    """Which hosts ssh talks to: those whose keys are known; of a cloud's new machines, those that stay the same."""
    if file.hosts:
        files = {"UserKnownHostsFile": None, "GlobalKnownHostsFile": known_hosts_files()}
        return {"StrictHostKeyChecking": "yes"} | files
    folder = cluster_folder(file.name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {"StrictHostKeyChecking": "accept-new", "UserKnownHostsFile": f'"{folder / "known_hosts"}"'}


def accept_new_hosts(file: ClusterFile) -> list[tuple[str, HostKey]]:
    """Take the keys of hosts that are not known yet for the right ones; which hosts, and which keys."""

    def accept_one(address: str) -> HostKey | None:
        shell = shell_of(file, address)
        return accept(shell.target, shell.options)

    keys = side_by_side(file.hosts, accept_one)
    return [(address, key) for address, key in zip(file.hosts, keys, strict=True) if key]


def shell_of_head(file: ClusterFile) -> Shell:
    """The way to the head; a cloud says where that is.

    Raises:
        ClusterError: the cloud knows no head of this cluster.
    """
    if file.hosts:
        return shell_of(file, file.hosts[0])
    try:
        with quiet_ray():
            return shell_of(file, get_head_node_ip(str(file.path)), cloud_login(file.config))
    except Exception as error:  # every cloud's library raises its own
        raise ClusterError(
            f"the head of {file.path} is not found: {error}; `{command_line('rayrnn', 'up', file.path)}` starts it"
        ) from None


def side_by_side(items: Sequence[T], work: Callable[[T], Any]) -> list[Any]:
    """What `work` gives for each item, all at once; a ClusterError that it raises is given, not raised.

    Whatever else it raises is raised here, when the others are done.
    """

    def attempt(item: T) -> Any:
        try:
            return work(item)
        except ClusterError as error:
            return error

    # not pool.map: at the first exception it drops what has not begun
    with ThreadPoolExecutor(max(1, min(len(items), 32))) as pool:
        attempts = [pool.submit(attempt, item) for item in items]
    return [done.result() for done in attempts]


def last_line(text: str) -> str:
    """The last line with something on it."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no word")


def last_lines(text: str) -> str:
    """The last six of them, indented."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-6:]) or "  no word"


@dataclass(frozen=True)
class Head:
    """Where the cluster's driver runs, and how this machine gets there."""

    file: ClusterFile
    shell: Shell

    @property
    def target(self) -> str:
        """user@address"""
        return self.shell.target

    def run(self, script: str, *, input: str = "") -> str:
        """Run a shell script on the head; its stdout.

        Raises:
            Unreachable: there is no way to the head.
            ClusterError: the script failed; says its last words.
        """
        return self.shell.run(script, input=input)

    def send(self, root: Path, files: Sequence[str], there: str) -> None:
        """Copy files below `root`, named relatively, to the folder `there` below the user's home on the head."""
        where = ["--relative", "--no-implied-dirs", "--files-from=-", f"{root}/", f"{self.target}:{there}/"]
        self._rsync(["--copy-links", *where], input="\n".join(files))

    def update(self, folder: Path, there: str, *, exclude: Sequence[str]) -> None:
        """Copy what is newer in `folder` than in `there`."""
        left_out = [f"--exclude={pattern}" for pattern in exclude]
        self._rsync(["--recursive", "--update", *left_out, f"{folder}/", f"{self.target}:{there}/"])

    def fetch(self, there: str, folder: Path, *, exclude: Sequence[str] = ()) -> None:
        """Copy the folder `there`, below the user's home on the head, over `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        left_out = [f"--exclude={pattern}" for pattern in exclude]
        self._rsync(["--recursive", *left_out, f"{self.target}:{there}/", f"{folder}/"])

    def unreachable(self, said: str) -> Unreachable:
        return Unreachable(f"the head {self.target} of {self.file.path} is not reached over SSH:\n{last_lines(said)}")

    def _rsync(self, arguments: list[str], *, input: str | None = None) -> None:
        shell = shlex.join(["ssh", *self.shell.options])
        ended = subprocess.run(
            # the head's shell does not see the paths
            [
                "rsync",
                "--protect-args",
                "--times",
                "--compress",
                f"--partial-dir={PARTIAL}",
                "--rsh",
                shell,
                *arguments,
            ],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            start_new_session=True,
        )
        if ended.returncode in RSYNC_LOST:
            raise self.unreachable(ended.stderr)
        if ended.returncode not in (0, RSYNC_VANISHED):
            raise ClusterError(f"files could not be copied between here and {self.target}:\n{last_lines(ended.stderr)}")


def find_head(file: ClusterFile) -> Head:
    """The head of a cluster that is up, with the key and the options that Ray's launcher takes.

    Raises:
        ClusterError: a cloud has no such head, or what runs there runs in a container.
    """
    if (file.config.get("docker") or {}).get("container_name"):
        raise ClusterError(
            f'{file.path}: the hosts run Ray in a container (key "docker"), which rayrnn does not enter: submit from '
            "inside with `rayrnn train RECIPE --address auto`"
        )
    return Head(file, shell_of_head(file))
