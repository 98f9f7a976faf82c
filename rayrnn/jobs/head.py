"""The head of a cluster file, reached over SSH as Ray's launcher reaches it: commands there, files to and fro."""

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rayrnn.cluster.cluster_file import ClusterFile
from rayrnn.cluster.shell import Shell, Unreachable, last_lines, shell_of_head
from rayrnn.errors import ClusterError
from rayrnn.layout import PARTIAL

#: what rsync ends with when it could not reach the host, or lost it
RSYNC_LOST = (10, 12, 30, 35, 255)
#: files that were there when rsync listed them; the next look finds those that took their place
RSYNC_VANISHED = 24


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
