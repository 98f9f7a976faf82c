"""What goes over SSH to a host, and what comes back: a real ssh, a real sshd."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from rayrnn.cluster.holding import held
from rayrnn.cluster.on_host import facts
from rayrnn.errors import ClusterError
from rayrnn.recipe import validate_recipe
from rayrnn.remote.fetch import Fetcher, Record
from rayrnn.remote.follow import ask
from rayrnn.remote.submit import train_on_cluster
from rayrnn.runs.checkpoints import Checkpoint, name_of, write_checkpoint
from rayrnn.runs.directory import create_run
from tests.crashing import progress_of
from tests.ssh_host import SshHost, make_host
from tests.test_cli import run_rayrnn

#: what the login shell of a host may have to say
BANNERS = ["the system is running", "running", "free", '{"error": "of nobody", "exit_code": 1}', "round-000099"]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SshHost:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return make_host(tmp_path)


def say_at_login(host: SshHost, banner: str) -> None:
    with (host.home / ".bash_profile").open("a") as profile:
        profile.write(f"echo '{banner}'\n")


def test_what_a_login_shell_says_is_no_answer(host: SshHost) -> None:
    for banner in BANNERS:
        say_at_login(host, banner)
    assert host.head.run("echo mine") == "mine\n"
    python = host.home / facts.VENV / "bin" / "python3"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 0.0.1 2.0.0\n")
    python.chmod(0o755)
    with pytest.raises(ClusterError, match=r"has rayrnn 0\.0\.1 with Ray 2\.0\.0"):
        train_on_cluster(validate_recipe({"name": "small", "data": {"text": "abcabc", "length": 3}}), host.cluster)
    for answer in ("", "no JSON"):
        python.write_text(f"#!/bin/sh\necho {answer}\n")
        with pytest.raises(ClusterError, match="no answer of rayrnn's"):
            ask(host.head, "list")


@pytest.mark.parametrize("name", ["two  words", "it's", "$HOME;*"])
def test_a_run_comes_home_and_goes_back_whatever_its_directory_is_called(host: SshHost, name: str) -> None:
    """The names of a run are the user's own, and no part of a command."""
    there = create_run(host.home / facts.RUNS / "small-01234567" / "work" / "runs" / name)
    write_checkpoint(there.checkpoints, 3, Checkpoint({}, {}, ({},), progress_of(3)))
    there.append_metrics({"round": 3})
    here = create_run(Path("runs") / name)
    fetcher = Fetcher(host.head, Record("small-01234567", f"runs/{name}"), here, pytest.fail)
    fetcher.fetch_all()
    assert [path.name for path in here.checkpoints.iterdir()] == [name_of(3)]
    assert here.metrics() == [{"round": 3}]
    (here.path / "model.safetensors").write_bytes(b"only here")
    fetcher.send_back()
    fetcher.close()
    assert (there.path / "model.safetensors").read_bytes() == b"only here"
    assert sorted(path.name for path in there.path.parent.iterdir()) == [name]


def test_one_command_at_a_time_is_at_work_on_a_cluster(host: SshHost, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(host.file):
        with pytest.raises(ClusterError, match="on this machine"), held(host.file):
            pytest.fail("two on one machine")
        monkeypatch.setenv("XDG_STATE_HOME", str(host.folder / "state of another machine"))
        with pytest.raises(ClusterError, match=r"on 192\.0\.2\.10, from \w+@"), held(host.file):
            pytest.fail("two on one head")
        for verb in ("up", "down"):
            ended = run_rayrnn(verb, str(host.cluster), "--yes", home=host.folder)
            assert ended.returncode == 4
            assert "is at work on the cluster one" in ended.stderr
    with held(host.file):
        pass


HOLD = """
import sys
from pathlib import Path
from rayrnn.cluster.cluster_file import read_cluster_file
from rayrnn.cluster.holding import held
with held(read_cluster_file(Path(sys.argv[1]))):
    print("held", flush=True)
    input()
"""


def test_a_command_that_was_killed_holds_no_cluster(host: SshHost) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLD, str(host.cluster)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.kill()
    deadline = time.monotonic() + 60
    while True:
        try:
            with held(host.file):
                return
        except ClusterError:
            assert time.monotonic() < deadline
