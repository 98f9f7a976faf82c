"""This machine as another host: a real sshd for one connection at a time, with a home of its own.

It needs no port and no process that waits: ssh starts it as its proxy command.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from rayrnn.cluster.cluster_file import ClusterFile, read_cluster_file
from rayrnn.cluster.ssh import Head, find_head

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
#: what ssh calls it
ADDRESS = "192.0.2.10"


@dataclass(frozen=True)
class SshHost:
    """Where it is, seen from here."""

    folder: Path
    cluster: Path

    @property
    def home(self) -> Path:
        return self.folder / "home of the host"

    @property
    def host_key(self) -> Path:
        return self.folder / "host_key"

    @property
    def file(self) -> ClusterFile:
        return read_cluster_file(self.cluster)

    @property
    def head(self) -> Head:
        return find_head(self.file)

    @property
    def fingerprint(self) -> str:
        """Of its key, as ssh-keygen says it."""
        command = ["ssh-keygen", "-lf", str(self.host_key)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1]

    def change_key(self) -> None:
        """From now on it shows another."""
        self.host_key.unlink()
        make_key(self.host_key)


def make_host(folder: Path) -> SshHost:
    """A host in this folder, and the cluster file that names it as the head."""
    if not (SSHD and shutil.which("ssh") and shutil.which("rsync")):
        pytest.skip("this needs ssh, sshd and rsync")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own, which its service makes
    host = SshHost(folder, folder / "cluster.yaml")
    host.home.mkdir()
    for key in (host.host_key, folder / "key"):
        make_key(key)
    config = folder / "sshd_config"
    config.write_text(
        f"HostKey {host.host_key}\nAuthorizedKeysFile {folder}/key.pub\nStrictModes no\nUsePAM no\nPidFile none\n"
        f"PermitRootLogin yes\nPasswordAuthentication no\nUseDNS no\n"
        # the home that /etc/passwd names is this machine's
        f'ForceCommand export HOME="{host.home}" && cd && eval "$SSH_ORIGINAL_COMMAND"\n'
    )
    path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"])
    (host.home / ".bash_profile").write_text(
        f"export PATH={path}:$PATH PYTHONPATH={os.environ.get('PYTHONPATH', '')}\n"
    )
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    host.cluster.write_text(
        f"cluster_name: one\nprovider: {{type: local, head_ip: {ADDRESS}, worker_ips: []}}\n"
        f"auth: {{ssh_user: {user}, ssh_private_key: {folder}/key, ssh_proxy_command: '{SSHD} -i -f {config}'}}\n"
    )
    return host


def make_key(path: Path) -> None:
    """A new key, and its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
