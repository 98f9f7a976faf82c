"""The bed for the tests of this folder, or the reason why it cannot be here."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.bed import FAST, ISOLATED, Bed

#: program -> the package of Debian and its children that has it
PROGRAMS = {
    "ip": "iproute2",
    "tc": "iproute2",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "rsync": "rsync",
    "setpriv": "util-linux",
    "nsenter": "util-linux",
}


@pytest.fixture(scope="session")
def bed_is_possible() -> None:
    """Install what a bed needs where that can be done; skip where it cannot be had."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a bed of hosts needs Linux and root")
    missing = sorted({package for program, package in PROGRAMS.items() if not _has(program)})
    if missing:
        if not shutil.which("apt-get"):
            pytest.skip(f"a bed of hosts needs {', '.join(missing)}")
        _install(missing)
    inside = "ip link add switch type bridge && ip link add port type veth peer name end && mount -t tmpfs none /mnt"
    tried = subprocess.run(["unshare", *ISOLATED, "sh", "-c", inside], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"a bed of hosts needs namespaces, bridges and mounts: {tried.stderr.strip()}")


@pytest.fixture(scope="module")
def shared_bed(bed_is_possible: None) -> Iterator[Bed]:
    """One bed for the tests of a module; take `bed`, which has it in order."""
    with Bed() as bed:
        yield bed


@pytest.fixture
def bed(shared_bed: Bed) -> Iterator[Bed]:
    """A laptop and three hosts whose links are fast and whose hosts are all on; after the test they are again."""
    yield shared_bed
    for host in shared_bed.hosts:
        if not host.is_alive:
            host.start()
        host.thaw()
        host.mend()
    if shared_bed.link != FAST:
        shared_bed.shape(FAST)


def _has(program: str) -> bool:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is not None


def _install(packages: list[str]) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with _no_services():
        for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
            ended = subprocess.run(["apt-get", *words], env=environment, capture_output=True, text=True)
            if ended.returncode != 0:
                pytest.skip(f"a bed of hosts needs {', '.join(packages)}: {ended.stderr.strip()}")


@contextmanager
def _no_services() -> Iterator[None]:
    """Inside, a package that is installed starts no service: an sshd on this machine is not what is asked for."""
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            policy.unlink()
