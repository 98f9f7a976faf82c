"""The shell that `rayrnn attach` opens, with an ssh that runs here what it is asked to run there."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rayrnn.cluster.on_host.facts import folder_of
from tests.test_cli import environment_of

FILE = """
cluster_name: attached
provider: {type: local, head_ip: 192.0.2.10, worker_ips: []}
auth: {ssh_user: ubuntu}
"""
#: the last word is the script, which the login shell at the other end would get
SSH = '#!/bin/sh\nfor script; do :; done\nexec sh -c "$script"\n'
RAY = '#!/bin/sh\necho "ray $* at ${RAY_ADDRESS-nowhere} in mode $RAY_AUTH_MODE, ${RAY_TMPDIR-no folder}"\n'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home that is the user's on both sides, whose own settings put another ray first on PATH."""
    place(tmp_path / "bin" / "ssh", SSH)
    place(tmp_path / "own" / "ray", "#!/bin/sh\necho another ray\n")
    place(tmp_path / ".rayrnn" / "venv" / "bin" / "ray", RAY)
    (tmp_path / ".bashrc").write_text(f"export PATH={tmp_path}/own:$PATH MINE=kept\n")
    (tmp_path / "cluster.yaml").write_text(FILE)
    return tmp_path


def place(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(script)
    path.chmod(0o755)


def attach(home: Path, typed: str) -> str:
    command = [sys.executable, "-m", "rayrnn.cli", "attach", "cluster.yaml"]
    environment = environment_of(home) | {"PATH": f"{home}/bin:/usr/bin:/bin"}
    pipe = subprocess.PIPE
    ended = subprocess.run(
        command, cwd=home, env=environment, input=typed, stdout=pipe, stderr=pipe, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_shell_has_our_ray_first_its_address_and_the_mode_of_the_token(home: Path) -> None:
    ray = Path(folder_of("attached")) / "ray"
    ray.mkdir(parents=True)
    try:
        (ray / "ray_current_cluster").write_text("192.0.2.10:6379")
        said = attach(home, "ray status; echo $MINE\n")
    finally:
        shutil.rmtree(ray.parent)
    assert said.splitlines() == ["ray status at 192.0.2.10:6379 in mode token, no folder", "kept"]


def test_the_shell_opens_where_no_ray_runs(home: Path) -> None:
    assert attach(home, "ray status\n") == "ray status at nowhere in mode token, no folder\n"
