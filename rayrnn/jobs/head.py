"""The head of a cluster file, reached over SSH as Ray's launcher reaches it: commands there, files to and fro."""

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ray.autoscaler._private.command_runner import SSHOptions
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler.sdk import get_head_node_ip

from rayrnn.cluster.cluster_file import ClusterFile
from rayrnn.cluster.logs import quiet_ray
from rayrnn.errors import ClusterError

#: where `rayrnn up` installs rayrnn on a host
HOST_PATH = '"$HOME/.rayrnn/venv/bin:$PATH"'
#: seconds for a connection
CONNECT_SECONDS = 10
#: what ssh ends with when it could not reach the host, or lost it; rsync has several for that
SSH_FAILED = 255
RSYNC_LOST = (10, 12, 30, 35, 255)
#: files that were there when rsync listed them; the next look finds those that took their place
RSYNC_VANISHED = 24


class Unreachable(ClusterError):
    """The head does not answer, or the link broke in the middle."""


@dataclass(frozen=True)
class Head:
    """Where the cluster's driver runs, and how this machine gets there."""

    file: ClusterFile
    #: user@address
    target: str
    #: of ssh
    options: tuple[str, ...]

    def run(self, script: str, *, input: str | None = None) -> str:
        """Run a shell script on the head; its stdout.

        Raises:
            Unreachable: the head could not be reached.
            ClusterError: the script failed; says its last words.
        """
        ended = subprocess.run(
            self.command(script),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            # Ctrl-C in the terminal is for us, not for what runs there
            start_new_session=True,
        )
        if ended.returncode == SSH_FAILED:
            raise self.unreachable(ended.stderr)
        if ended.returncode:
            raise ClusterError(f"the head {self.target} could not do its part:\n{_last_words(ended.stderr)}")
        return ended.stdout

    def command(self, script: str) -> list[str]:
        """The ssh command that runs a script on the head, in a login shell that finds rayrnn first."""
        login = f"PATH={HOST_PATH}; {script}"
        return ["ssh", *self.options, self.target, f"bash --login -c {shlex.quote(login)}"]

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
        return Unreachable(
            f"the head {self.target} of {self.file.path} cannot be reached over SSH:\n{_last_words(said)}\n"
            f"  try: {shlex.join(['ssh', *self.options[:2], self.target])}"
        )

    def _rsync(self, arguments: list[str], *, input: str | None = None) -> None:
        shell = shlex.join(["ssh", *self.options])
        ended = subprocess.run(
            ["rsync", "--times", "--compress", "--partial-dir=.rsync-partial", "--rsh", shell, *arguments],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            start_new_session=True,
        )
        if ended.returncode in RSYNC_LOST:
            raise self.unreachable(ended.stderr)
        if ended.returncode not in (0, RSYNC_VANISHED):
            raise ClusterError(
                f"files could not be copied between here and {self.target}:\n{_last_words(ended.stderr)}"
            )


def find_head(file: ClusterFile) -> Head:
    """The head of a cluster that is up, with the key and the options that Ray's launcher takes.

    Raises:
        ClusterError: a cloud has no such head, or what runs there runs in a container.
    """
    config = yaml.safe_load(file.path.read_text(encoding="utf-8"))
    if (config.get("docker") or {}).get("container_name"):
        raise ClusterError(
            f'{file.path}: the hosts run Ray in a container (key "docker"), which rayrnn does not enter: submit from '
            "inside with `rayrnn train RECIPE --address auto`"
        )
    if file.hosts:
        return _head(file, file.hosts[0], config["auth"])
    try:
        with quiet_ray():
            return _head(file, get_head_node_ip(str(file.path)), _bootstrap_config(config)["auth"])
    except Exception as error:  # every cloud's library raises its own
        raise ClusterError(
            f"the head of {file.path} is not found: {error}; `rayrnn up {file.path}` starts it"
        ) from None


def _head(file: ClusterFile, address: str, auth: dict[str, Any]) -> Head:
    key = auth.get("ssh_private_key")
    options = SSHOptions(
        str(Path(key).expanduser()) if key else None,
        ProxyCommand=auth.get("ssh_proxy_command"),
        LogLevel="ERROR",
        BatchMode="yes",
    )
    return Head(file, f"{auth['ssh_user']}@{address}", tuple(options.to_ssh_options_list(timeout=CONNECT_SECONDS)))


def _last_words(text: str) -> str:
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-6:]) or "  (no word)"
