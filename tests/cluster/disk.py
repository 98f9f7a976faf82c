"""What lies on the disks of the bed's hosts before anybody types a command."""

import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
#: of the checkout's own packages, what a host without rayrnn lacks
RAYRNN = ("_rayrnn.pth", "rayrnn-", "rayrnn_spark-")


def make_packages(bed: Path, *, with_rayrnn: bool) -> None:
    """A folder that the hosts have as their Python's site-packages: that of this Python, by links."""
    folder = bed / "packages"
    folder.mkdir()
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if with_rayrnn or not package.name.startswith(RAYRNN):
            (folder / package.name).symlink_to(package)


def make_disk(bed: Path, name: str, addresses: dict[str, str], *, modules: str) -> None:
    """The files of one host: its home with a key for the laptop, its names, its sshd's settings.

    Args:
        modules: where its Python looks for more modules.
    """
    (bed / "home").mkdir(exist_ok=True)
    disk = bed / "hosts" / name
    for folder in ("home/.ssh", "tmp", "run", "etc"):
        (disk / folder).mkdir(parents=True)
    (disk / "tmp").chmod(0o1777)
    (disk / "home" / ".ssh").chmod(0o700)
    lines = ["127.0.0.1 localhost", *(f"{address} {host}" for host, address in addresses.items())]
    (disk / "etc" / "hosts").write_text("\n".join(lines) + "\n")
    # the user comes before root, with root's number: it is who logs in, and may read what root may
    users = Path("/etc/passwd").read_text()
    (disk / "etc" / "passwd").write_text(f"ubuntu:x:0:0:ubuntu:{bed / 'home'}:/bin/bash\n{users}")
    (disk / "etc" / "resolv.conf").write_text("")
    path = f"export PATH={sys.base_prefix}/bin:$PATH PYTHONDONTWRITEBYTECODE=1\n"
    path += f"export PYTHONPATH={modules}\n" if modules else ""
    (disk / "home" / ".bashrc").write_text(path)
    (disk / "home" / ".profile").write_text(path)
    _make_key(disk / "host_key")
    (disk / "sshd_config").write_text(
        f"HostKey {disk / 'host_key'}\nAuthorizedKeysFile .ssh/authorized_keys\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin yes\nPasswordAuthentication no\nMaxStartups 100\nMaxSessions 100\nUseDNS no\n"
        "PrintMotd no\nPrintLastLog no\n"
    )
    if name == "laptop":
        _make_key(disk / "home" / ".ssh" / "id_ed25519")
    else:
        key = bed / "hosts" / "laptop" / "home" / ".ssh" / "id_ed25519.pub"
        (disk / "home" / ".ssh" / "authorized_keys").write_text(key.read_text())


def make_known_hosts(bed: Path, addresses: dict[str, str]) -> None:
    """The laptop's user has logged in on every host before."""
    keys = {host: (bed / "hosts" / host / "host_key.pub").read_text() for host in addresses}
    lines = [f"{address},{host} {keys[host].strip()}\n" for host, address in addresses.items()]
    (bed / "hosts" / "laptop" / "home" / ".ssh" / "known_hosts").write_text("".join(lines))


def _make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
    assert sys.platform == "linux"
