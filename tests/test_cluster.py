"""A Ray head on this machine, and the ways to it: real heads, each in a home of its own."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray

from rayrnn.cluster import connect
from rayrnn.cluster.environment import ensure_token, quiet_ray
from rayrnn.cluster.local_head import load_head
from rayrnn.cluster.sessions import PLACE, processes_of, run_folder
from rayrnn.errors import ClusterError
from tests.small_disk import fill, small_disk
from tests.test_cli import environment_of, run_rayrnn

JOIN = """
import json, os, psutil, subprocess, sys
from rayrnn.cluster import connect
with connect() as connection:
    import ray
    from rayrnn.cluster.ray_internals import session_folder
    class Learner:
        def python(self):
            return os.environ["PYSPARK_PYTHON"]
    learner = ray.remote(Learner).remote()
    python = ray.get(learner.python.remote())
    command = [sys.executable, "-m", "rayrnn.cli", "status", "--json", "--address", connection.address]
    status = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
    sockets = [socket for process in psutil.Process().children(recursive=True) for socket in process.net_connections()]
    listening = [socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN]
    folder = str(session_folder().parent)
    seen = {"origin": connection.origin, "embedded": connection.embedded, "python": python, "status": status}
    print(json.dumps(seen | {"listening": listening, "folder": folder}))
"""
LOOPBACK = {"127.0.0.1", "::ffff:127.0.0.1"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's home in which `rayrnn up` has been typed."""
    path = tmp_path_factory.mktemp("home")
    ended = run_rayrnn("up", "--cpus", "3", "--memory", "2GB", home=path)
    assert ended.returncode == 0, ended.stderr
    assert "rayrnn is up" in ended.stderr
    yield path
    run_rayrnn("down", home=path)


def status_of(home: Path) -> dict[str, object]:
    ended = run_rayrnn("status", "--json", home=home)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def join(home: Path, **environment: str) -> dict[str, object]:
    """What a program of this user sees that asks for a Ray and says nothing else."""
    ended = subprocess.run(
        [sys.executable, "-c", JOIN],
        env=environment_of(home) | environment,
        cwd=home,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return json.loads(ended.stdout)


def folder_of(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the head of this home writes."""
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    head = load_head()
    assert head is not None
    return head.folder


def test_up_again_says_that_it_is_up_already(home: Path) -> None:
    before = status_of(home)["address"]
    ended = run_rayrnn("up", home=home)
    assert ended.returncode == 0
    assert "up already" in ended.stderr
    assert "down` first" not in ended.stderr
    assert "down` first" in run_rayrnn("up", "--cpus", "2", home=home).stderr
    assert status_of(home)["address"] == before


def test_status_tells_what_the_cluster_offers(home: Path) -> None:
    status = status_of(home)
    (node,) = status["nodes"]
    assert node["alive"]
    assert len(bytes.fromhex(node["id"])) == 28, "as `ray drain-node` takes it"
    assert node["cpus"] == {"total": 3.0, "used": 0.0}
    assert node["memory"]["total"] == 2 * 2**30
    assert status["jobs"] == []
    assert status["dashboard"] is None
    table = run_rayrnn("status", home=home).stdout
    assert "0 of 3" in table
    assert "nobody uses it" in table


def test_the_head_listens_on_the_loopback_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = processes_of(folder_of(home, monkeypatch))
    sockets = [socket for process in processes for socket in process.net_connections()]
    listening = {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}
    assert listening
    assert listening <= LOOPBACK


def test_only_its_owner_can_read_what_the_head_writes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Path(folder_of(home, monkeypatch)).stat().st_mode & 0o077 == 0
    assert (home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600


def test_a_program_finds_what_up_started_and_status_shows_it(home: Path) -> None:
    seen = join(home)
    assert (seen["origin"], seen["embedded"], seen["python"]) == ("rayrnn up", False, sys.executable)
    (job,) = seen["status"]["jobs"]
    assert job["actors"] == {"Learner": 1}
    assert status_of(home)["jobs"] == []


def test_a_wrong_token_is_refused_with_advice(home: Path) -> None:
    ended = run_rayrnn("status", home=home, RAY_AUTH_TOKEN="not the token")
    assert ended.returncode == 4
    assert "does not take this token" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "home_is"),
    [
        *((command, None) for command in ("train recite", "up", "status", "down")),
        ("up", "nowhere"),
        *(pytest.param(command, "nowhere", marks=pytest.mark.slow) for command in ("train recite", "status", "down")),
    ],
)
def test_a_user_without_a_home_is_told_to_set_one(tmp_path: Path, command: str, home_is: str | None) -> None:
    environment = {name: value for name, value in environment_of(tmp_path).items() if name != "HOME"}
    # the system knows the user of these tests: as it is where it does not
    program = (
        "import os, pwd, sys\n"
        "def unknown(_): raise KeyError\n"
        "pwd.getpwuid = unknown\n"
        "from rayrnn.cli import main; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, *command.split()],
        # torchmetrics brings matplotlib along where it is installed, and that has words of its own on a missing home
        env=environment | {"MPLCONFIGDIR": str(tmp_path)} | ({} if home_is is None else {"HOME": home_is}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ended.stderr.count("\n") == 1
    assert ended.returncode == 4
    assert "set HOME to a directory where this user may write" in ended.stderr
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("command", [pytest.param("train recite", marks=pytest.mark.slow), "up"])
def test_where_few_files_can_be_open_it_is_told_what_to_raise(tmp_path: Path, command: str) -> None:
    script = f"ulimit -n 64; exec {sys.executable} -m rayrnn.cli {command}"
    ended = subprocess.run(
        ["sh", "-c", script], env=environment_of(tmp_path), cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 4
    assert "may have 64 files open at once" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_as_many_files_can_be_open_as_may_be(tmp_path: Path) -> None:
    program = (
        "import resource; from rayrnn.cluster.environment import prepare_environment; prepare_environment(); "
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    script = f"ulimit -Sn 64; ulimit -Hn 4096; exec {sys.executable} -c '{program}'"
    ended = subprocess.run(["sh", "-c", script], env=environment_of(tmp_path), capture_output=True, text=True)
    assert ended.stdout == "4096\n", ended.stderr


NO_WORKER = """
import os, sys
if any("default_worker" in word for word in sys.orig_argv):
    os.write(2, b"this machine has no library for you\\n")  # in one piece: several processes write to one file
    os._exit(3)
"""


def test_a_worker_that_cannot_start_ends_the_command_with_what_it_said(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_WORKER)
    program = (
        "from rayrnn.cluster import connection; from rayrnn.cli import main; connection.FAILED_SECONDS = 1; main()"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    ended = subprocess.run(
        [sys.executable, "-c", program, "train", "recite"],
        env=environment_of(tmp_path) | {"PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 4
    assert "no worker process of Ray has started" in ended.stderr
    assert "  this machine has no library for you\n" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_without_up_a_program_gets_a_ray_of_its_own_that_ends_with_it(tmp_path: Path) -> None:
    seen = join(tmp_path)
    assert (seen["origin"], seen["embedded"], seen["python"]) == ("this process", True, sys.executable)
    assert set(seen["listening"]) <= LOOPBACK
    assert not Path(seen["folder"]).exists()
    assert not [p for p in psutil.process_iter(["cmdline"]) if seen["folder"] in " ".join(p.info["cmdline"] or [])]


def test_the_folder_of_a_killed_program_is_removed_by_the_next_and_a_living_one_is_not() -> None:
    pipe = subprocess.PIPE
    hold = "from rayrnn.cluster.sessions import run_folder\nwith run_folder() as f:\n print(f, flush=True)\n input()"
    programs = [subprocess.Popen([sys.executable, "-c", hold], stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    folders = [Path(program.stdout.readline().strip()) for program in programs]
    for folder in folders:
        os.utime(folder, (0, 0))
    programs[0].kill()
    programs[0].wait()
    with run_folder() as third:
        assert [folder.exists() for folder in (*folders, Path(third))] == [False, True, True]
    programs[1].communicate("")
    assert [folder.exists() for folder in (*folders, Path(third))] == [False, False, False]


def test_down_ends_what_up_started_and_no_other_ray(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_rayrnn("up", "--cpus", "1", home=tmp_path).returncode == 0
    folder = folder_of(tmp_path, monkeypatch)
    assert run_rayrnn("down", home=tmp_path).returncode == 0
    assert processes_of(folder) == []
    assert not Path(folder).exists()
    assert ray.get(ray.remote(lambda: "alive").remote()) == "alive"
    again = run_rayrnn("down", home=tmp_path)
    assert again.returncode == 0
    assert "nothing to end" in again.stderr


@pytest.mark.slow
def test_a_head_that_died_is_reported_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_rayrnn("up", "--cpus", "1", home=tmp_path).returncode == 0
    folder = folder_of(tmp_path, monkeypatch)
    for process in processes_of(folder):
        process.kill()
    ended = run_rayrnn("status", home=tmp_path)
    assert ended.returncode == 4
    assert "has died" in ended.stderr
    assert "rayrnn is up\n" in run_rayrnn("up", "--cpus", "1", home=tmp_path).stderr
    assert not Path(folder).exists()
    assert "rayrnn is down" in run_rayrnn("down", home=tmp_path).stderr


def test_status_without_a_cluster_exits_4(tmp_path: Path) -> None:
    ended = run_rayrnn("status", "--json", home=tmp_path)
    assert (ended.returncode, ended.stdout) == (4, "")
    assert "`rayrnn up` starts one" in ended.stderr


@pytest.mark.parametrize("address", ["somewhere", "http://127.0.0.1:8265", "ray://127.0.0.1:10001", "127.0.0.1:"])
def test_an_address_of_another_kind_is_refused(tmp_path: Path, address: str) -> None:
    ended = run_rayrnn("status", home=tmp_path, RAY_ADDRESS=address)
    assert ended.returncode == 4
    assert f"RAY_ADDRESS is '{address}'" in ended.stderr


def test_an_address_where_nobody_answers_is_refused(tmp_path: Path) -> None:
    ended = run_rayrnn("status", "--address", "127.0.0.1:1", home=tmp_path)
    assert ended.returncode == 4
    assert "no Ray answers at 127.0.0.1:1 (--address): Connection refused" in ended.stderr


def test_a_ray_that_the_program_has_joined_is_used_and_left_alone(ray_cluster: None) -> None:
    with connect() as connection:
        assert (connection.origin, connection.embedded) == ("this process", False)
    assert ray.is_initialized()


def test_a_token_is_made_once_and_narrowed_where_it_was_wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = ensure_token()
    assert path == tmp_path / ".ray" / "auth_token"
    token = path.read_text()
    assert len(token) == 64
    path.chmod(0o644)
    assert ensure_token().read_text() == token
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_token_file_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=str(tmp_path)):
        ensure_token()


def test_what_ray_says_goes_to_the_log_file_and_not_to_the_screen(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    handlers = logging.getLogger("ray").handlers[:]
    with quiet_ray(tmp_path / "log"):
        logging.getLogger("ray.data").warning("of data")
        logging.getLogger("ray.train").warning("of training")
        message = "of Python"
        warnings.warn(message, stacklevel=1)
    said = (tmp_path / "log").read_text()
    assert [said.count(of) for of in ("of data", "of training", "of Python")] == [1, 1, 1]
    assert capfd.readouterr().err == ""
    assert logging.getLogger("ray").handlers == handlers


HOLD = """
from rayrnn.cluster import connect
with connect(num_cpus=1):
    import ray
    from rayrnn.cluster.ray_internals import session_folder
    class Idler:
        def ready(self):
            return True
    idler = ray.remote(Idler).remote()
    ray.get(idler.ready.remote())
    print(session_folder().parent, flush=True)
    input()
"""


def test_the_processes_that_a_killed_program_left_are_ended_by_the_next(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLD]
    with subprocess.Popen(command, env=environment_of(tmp_path), stdin=pipe, stdout=pipe, text=True) as program:
        folder = Path(program.stdout.readline().strip()).parent
        idlers = [process for process in processes_of(str(folder)) if process.name() == "ray::Idler"]
        idlers[0].suspend()  # a process that hangs does not notice that its Ray is gone
        program.kill()
    with run_folder():
        assert processes_of(str(folder)) == []
        assert not folder.exists()


def begin_up(home: Path) -> "subprocess.Popen[str]":
    """`rayrnn up`, when its Ray has processes already and is not there yet."""
    command = [sys.executable, "-m", "rayrnn.cli", "up", "--cpus", "1"]
    process = subprocess.Popen(command, env=environment_of(home), cwd=home, stderr=subprocess.PIPE, text=True)
    record, deadline = home / ".local/state/rayrnn/head.json", time.monotonic() + 60
    while not (record.exists() and processes_of(json.loads(record.read_text())["folder"])):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_an_up_that_is_ended_in_the_middle_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    with begin_up(tmp_path) as process:
        folder = folder_of(tmp_path, monkeypatch)
        process.send_signal(number)
        assert process.wait(60) == 130
    assert processes_of(folder) == []
    assert not Path(folder).exists()
    assert "nothing to end" in run_rayrnn("down", home=tmp_path).stderr


def test_what_an_up_that_was_killed_has_left_is_known_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with begin_up(tmp_path) as process:
        folder = folder_of(tmp_path, monkeypatch)
        process.kill()
    assert run_rayrnn("status", home=tmp_path).returncode == 4
    assert "rayrnn is down" in run_rayrnn("down", home=tmp_path).stderr
    assert processes_of(folder) == []
    assert not Path(folder).exists()


@pytest.mark.parametrize("obstacle", ["a full disk", "a file in its place", "a folder in place of the record"])
def test_an_up_whose_record_cannot_be_written_starts_nothing(tmp_path: Path, obstacle: str) -> None:
    before = set(PLACE.glob("rayrnn-head-*"))
    with small_disk(tmp_path / "disk", kilobytes=64) as disk:
        if obstacle == "a file in its place":
            (disk / "rayrnn").touch()
        elif obstacle == "a full disk":
            fill(disk)
        else:
            (disk / "rayrnn" / "head.json").mkdir(parents=True)
        ended = run_rayrnn("up", "--cpus", "1", home=tmp_path, XDG_STATE_HOME=str(disk))
    assert ended.returncode == 4, ended.stderr
    assert "cannot be written" in ended.stderr
    assert "nothing was started" in ended.stderr
    assert set(PLACE.glob("rayrnn-head-*")) <= before
