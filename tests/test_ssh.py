"""What goes over SSH to a host, and what comes back: a real ssh, a real sshd."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from rayrnn.cluster.holding import held
from rayrnn.cluster.host_keys import accepted_file, known_keys, write_checking_ssh
from rayrnn.cluster.on_host import facts
from rayrnn.cluster.ray_internals import ssh_options
from rayrnn.cluster.ssh import UntrustedHost, accept_new_hosts
from rayrnn.errors import ClusterError, RunError, UsageError
from rayrnn.recipe import validate_recipe
from rayrnn.remote.fetch import Fetcher, Record
from rayrnn.remote.follow import ask
from rayrnn.remote.screen_log import ScreenLog
from rayrnn.remote.submit import follow_run, train_on_cluster
from rayrnn.runs.checkpoints import Checkpoint, name_of, write_checkpoint
from rayrnn.runs.directory import create_run
from tests.crashing import progress_of
from tests.ssh_host import ADDRESS, SshHost, make_host
from tests.test_remote_threads import wait_until
from tests.typed import typed

#: what the login shell of a host may have to say
BANNERS = ["the system is running", "running", "free", '{"error": "of nobody", "exit_code": 1}', "round-000099"]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SshHost:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    host = make_host(tmp_path)
    accept_new_hosts(host.file)
    return host


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


def test_the_reason_of_a_run_that_has_left_nothing_to_fetch_is_told(host: SshHost) -> None:
    run = create_run(Path("run"))
    run.write_recipe(validate_recipe({"name": "small", "data": {"text": "abcabc", "length": 3}}))
    Record("small-01234567", "runs/small").save(run, host.cluster)
    there = host.home / facts.RUNS / "small-01234567"
    (there / "work").mkdir(parents=True)
    ScreenLog(there / "screen.jsonl").end(RunError("the reason"))
    with pytest.raises(RunError, match="the reason"):
        follow_run("run", host.cluster)


def test_of_a_run_that_was_trained_here_it_is_said_where_its_words_are(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run")
    run.write_recipe(validate_recipe({"name": "small", "data": {"text": "abcabc", "length": 3}}))
    with pytest.raises(UsageError, match=rf"rounds are in {run.path}/metrics\.jsonl, and what Ray said in {run.log}"):
        follow_run(str(run.path), None)


def test_a_host_whose_key_is_not_known_is_shown_and_accepted_once(host: SshHost) -> None:
    accepted_file().unlink()
    with pytest.raises(UntrustedHost, match="is not known on this machine") as caught:
        host.head.run("touch reached")
    assert host.fingerprint in str(caught.value)
    assert "--accept-new-hosts" in str(caught.value)
    assert not (host.home / "reached").exists()
    ((address, key),) = accept_new_hosts(host.file)
    assert (address, str(key)) == (ADDRESS, f"ssh-ed25519 {host.fingerprint}")
    host.head.run("touch reached")
    assert accept_new_hosts(host.file) == []
    assert len(accepted_file().read_text().splitlines()) == 1


def test_a_host_whose_key_has_changed_is_always_refused(host: SshHost) -> None:
    before = host.fingerprint
    host.change_key()
    for _ in range(2):
        with pytest.raises(UntrustedHost, match="is another than before") as caught:
            host.head.run("touch reached")
        assert accept_new_hosts(host.file) == []
    for words in (before, host.fingerprint, f"ssh-keygen -R {ADDRESS} -f {accepted_file()}"):
        assert words in str(caught.value)
    assert not (host.home / "reached").exists()
    subprocess.run(["ssh-keygen", "-R", ADDRESS, "-f", str(accepted_file())], check=True, capture_output=True)
    accept_new_hosts(host.file)
    host.head.run("touch reached")


def test_who_only_cannot_log_in_hears_nothing_of_keys(host: SshHost) -> None:
    (host.folder / "key.pub").write_text("")
    with pytest.raises(ClusterError, match=f"{ADDRESS} is not reached by .*Permission denied"):
        host.head.run("true")


@pytest.mark.parametrize("verb", ["up", "doctor"])
def test_the_commands_name_a_host_that_is_not_known_and_accept_it(tmp_path: Path, verb: str) -> None:
    host = make_host(tmp_path)
    rest = ("--dry-run",) if verb == "up" else ()
    refused = typed(verb, str(host.cluster), *rest, home=tmp_path)
    assert refused.returncode == 4
    assert host.fingerprint in refused.stderr
    accepted = typed(verb, str(host.cluster), *rest, "--accept-new-hosts", home=tmp_path)
    assert f"accepted: {ADDRESS} ssh-ed25519 {host.fingerprint}" in accepted.stderr
    assert "is not known" not in accepted.stderr


def test_rays_launcher_talks_to_hosts_that_are_known_alone(host: SshHost) -> None:
    """It calls ssh, and rsync with ssh, with options of its own that check nothing."""
    shell, folder = host.head.shell, host.folder / "of the launcher" / "ssh"
    careless = ssh_options(str(host.folder / "key"), timeout=10, ProxyCommand=host.file.auth["ssh_proxy_command"])
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    for keys, status in ((known_keys(shell.target, shell.options), 0), ([], 255)):
        write_checking_ssh(folder, [([ADDRESS, "another-name"], keys)])
        command = ["ssh", *careless, shell.target, "true"]
        assert subprocess.run(command, env=environment, capture_output=True).returncode == status
        copied = ["rsync", "--rsh", shlex.join(["ssh", *careless]), str(host.cluster), f"{shell.target}:copied"]
        assert (subprocess.run(copied, env=environment, capture_output=True).returncode == 0) == (status == 0)
    assert (host.home / "copied").exists()
    version = subprocess.run(["ssh", "-V"], env=environment, capture_output=True, text=True)
    assert version.stderr.startswith("OpenSSH")


def test_one_command_at_a_time_is_at_work_on_a_cluster(host: SshHost, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(host.file):
        with pytest.raises(ClusterError, match="on this machine"), held(host.file):
            pytest.fail("two on one machine")
        other = host.folder / "state of another machine"
        monkeypatch.setenv("XDG_STATE_HOME", str(other))
        accept_new_hosts(host.file)
        with pytest.raises(ClusterError, match=r"on 192\.0\.2\.10, from \w+@"), held(host.file):
            pytest.fail("two on one head")
        for verb in ("up", "down"):
            ended = typed(verb, str(host.cluster), "--yes", home=host.folder, XDG_STATE_HOME=str(other))
            assert ended.returncode == 4
            assert "is at work on the cluster one" in ended.stderr
    assert not (host.home / ".rayrnn").exists()
    with held(host.file):
        assert (host.home / ".rayrnn" / "held").exists()


def can_hold(host: SshHost) -> bool:
    try:
        with held(host.file):
            return True
    except ClusterError:
        return False


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
    wait_until(lambda: can_hold(host))


def test_a_lock_whose_link_is_killed_is_let_go(host: SshHost) -> None:
    """The command that held it goes on, and fails where it next needs the head."""
    with held(host.file):
        link = next(p for p in psutil.Process().children() if p.name() == "ssh")
        link.kill()
        link.wait(60)
        wait_until(lambda: not (host.home / ".rayrnn").exists())
