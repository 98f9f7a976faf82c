"""What is wrong with a host is named with its fix: on this machine as it is, and on hosts as they might be."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from rayrnn.cluster.checks import check
from rayrnn.cluster.survey import Host
from tests.test_cli import run_rayrnn

TOKEN = "d1"
SOUND: dict[str, Any] = {
    "python": platform.python_version(),
    "can_make_venv": True,
    "target": None,
    "build": None,
    "host_name": "alder",
    "names": {"alder": "192.0.2.10"},
    "cpus": 2,
    "gpus": 0,
    "memory": 8 * 2**30,
    "shared_memory": 4 * 2**30,
    "disk": {"/home/ubuntu": 50 * 2**30, "/tmp": 50 * 2**30},
    "busy_ports": [],
    "rays": [],
    "token": {"sha256": None, "mode": None},
    "tools": ["rsync"],
}


def found(clock: float = 0.0, given: str | None = None, **facts: Any) -> list[str]:
    """What is said about a head that differs in this from a sound one."""
    host = Host("192.0.2.10", None, SOUND | facts, clock)
    return [str(finding) for finding in check([host, Host("192.0.2.11", None, SOUND)], token=TOKEN, python=given)]


def test_nothing_is_said_about_sound_hosts() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"python": "3.9.2"}, "192.0.2.10: Python 3.9.2, here is"),
        ({"can_make_venv": False}, "its Python cannot make a venv; apt-get install python"),
        ({"tools": []}, "rsync is not installed; apt-get install rsync"),
        ({"disk": {"/home/ubuntu": 2**30, "/tmp": 2**33}}, "1.0 GiB are free on /home/ubuntu, 6 are needed"),
        ({"shared_memory": 64 * 2**20}, "/dev/shm has 0.1 GiB, Ray wants 2.4"),
        ({"busy_ports": [6379]}, "port 6379, Ray's own, is taken; end what listens there"),
        ({"token": {"sha256": "d2", "mode": 0o600}}, "~/.ray/auth_token is another one than here"),
        ({"token": {"sha256": TOKEN, "mode": 0o644}}, "~/.ray/auth_token has mode 0644; `rayrnn up` makes it 0600"),
        ({"names": {"alder": None}}, "does not know the name alder; training goes by address, but Spark needs"),
        ({"names": {"alder": "127.0.1.1"}}, "the name alder means 127.0.1.1"),
        ({"clock": -90.0}, "its clock is 90 s behind this machine's; `timedatectl set-ntp true` there"),
    ],
)
def test_a_host_that_differs_is_named_with_its_fix(facts: dict[str, Any], said: str) -> None:
    (finding,) = found(**facts)
    assert said in finding


def test_a_python_that_should_have_rayrnn_is_held_to_these_versions() -> None:
    packages = {"ray": "2.40.0", "rayrnn": version("rayrnn")}
    target = {"python": platform.python_version(), "packages": packages}
    (about_ray, *others) = found(given="/opt/python", target=target)
    assert f"ray 2.40.0 in /opt/python, here is {version('ray')}; `/opt/python -m pip install" in about_ray
    assert others == ["192.0.2.11: there is no Python /opt/python; mend --python, or leave it out to install one"]


def test_the_doctor_looks_at_this_machine(tmp_path: Path) -> None:
    ended = run_rayrnn("doctor", home=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert platform.python_version() in ended.stdout
    assert version("ray") in ended.stdout


def test_a_recipe_that_needs_more_cpus_than_there_are_is_named(tmp_path: Path) -> None:
    recipe = tmp_path / "greedy.yaml"
    shipped = run_rayrnn("recipes", "python", home=tmp_path).stdout
    recipe.write_text(shipped.replace("workers: 2", "workers: 5000"))
    ended = run_rayrnn("doctor", "--recipe", str(recipe), home=tmp_path)
    assert ended.returncode == 4
    assert "needs 5000 (5000 for the workers); --set averaging.workers=" in ended.stderr
