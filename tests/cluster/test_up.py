"""Up and down on three hosts, as a user types them on the laptop; and everything that is wrong with hosts, named."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution, version
from pathlib import Path

import pytest

from rayrnn.cluster.packages import packages_for_hosts
from rayrnn.runs.checkpoints import newest_checkpoint
from tests.cluster.bed import Bed, Host
from tests.cluster.disk import ROOT
from tests.cluster.test_training import RECIPE

SHIPPED = (ROOT / "cluster.yaml").read_text()


@pytest.fixture(autouse=True)
def _in_order(bed: Bed) -> Iterator[None]:
    """The shipped cluster file lies in the laptop's home; afterwards no host has anything of a cluster."""
    (bed.laptop.home / "cluster.yaml").write_text(SHIPPED)
    yield
    for host in bed.hosts:
        if host.is_alive:
            host.thaw()
            host.mend()
    rayrnn(bed, "down", "cluster.yaml", "--yes")


def rayrnn(bed: Bed, *words: str, **options: object) -> "subprocess.CompletedProcess[str]":
    return bed.laptop.run("rayrnn", *words, timeout=280, **options)  # type: ignore[arg-type]


def up(bed: Bed, *words: str) -> "subprocess.CompletedProcess[str]":
    return rayrnn(bed, "up", "cluster.yaml", "--yes", *words)


@contextmanager
def knowing_nobody(bed: Bed) -> Iterator[None]:
    """Inside, the laptop's user has never logged in on a host."""
    known, away = bed.laptop.home / ".ssh" / "known_hosts", bed.laptop.home / "known_hosts"
    known.rename(away)
    try:
        yield
    finally:
        away.rename(known)


def raylets(hosts: list[Host]) -> set[int]:
    """Ray's own process on each host."""
    return {process.pid for host in hosts for process in host.processes() if process.name() == "raylet"}


def assert_nothing_is_left(hosts: list[Host]) -> None:
    for host in hosts:
        assert [process.name() for process in host.processes()] == []
        assert host.listening() == {("0.0.0.0", 22)}
        assert not (host.home / ".ray" / "auth_token").exists()
        assert not (host.home / "ray_bootstrap_key.pem").exists()
        assert not list(host.tmp.glob("rayrnn-*"))


def test_a_host_that_is_off_is_named_before_anything_is_touched(bed: Bed) -> None:
    bed.hosts[2].kill()
    ended = up(bed)
    assert ended.returncode == 4
    assert "192.0.2.12 is not reached by `ssh" in ended.stderr
    assert_nothing_is_left(bed.hosts[:2])
    assert not list(bed.hosts[0].home.glob(".rayrnn"))


def test_what_is_wrong_with_hosts_is_named_with_its_fix_and_changes_nothing(bed: Bed) -> None:
    first, second, third = bed.hosts
    (second.home / ".ray").mkdir()
    (second.home / ".ray" / "auth_token").write_text("of somebody else")
    stranger = shutil.copy("/bin/sleep", third.home / "raylet")
    process = third.popen(f"{bed.home}/raylet", "1000")
    ended = up(bed)
    process.kill()
    assert ended.returncode == 4
    assert "192.0.2.11: ~/.ray/auth_token is another one than here; move it away" in ended.stderr
    assert re.search(r"192\.0\.2\.12: another Ray runs there: raylet \(process \d+, user number 0\)", ended.stderr)
    assert [p.name() for p in third.processes()] == ["raylet"]
    for left in third.processes():
        left.kill()
    Path(stranger).unlink()
    shutil.rmtree(second.home / ".ray")
    assert not list(first.home.glob(".rayrnn"))


def test_names_that_mean_the_loopback_are_noted(bed: Bed) -> None:
    with bed.own_names_mean_loopback():
        ended = rayrnn(bed, "up", "cluster.yaml", "--dry-run")
    assert ended.returncode == 0
    assert "note: 192.0.2.10: the name alder means 127.0.1.1; training goes by address, but Spark needs" in ended.stderr
    assert_nothing_is_left(bed.hosts)


@pytest.mark.slow
def test_up_brings_rayrnn_to_bare_hosts_and_down_leaves_nothing(bed: Bed) -> None:
    ended = up(bed)
    assert ended.returncode == 0, ended.stderr
    assert "rayrnn is up\n" in ended.stderr
    assert "hosts      3: 192.0.2.10, 192.0.2.11, 192.0.2.12" in ended.stderr
    assert len(re.findall(r"192\.0\.2\.1\d +192\.0\.2\.1\d +[\d.]+ ms +\d+ Mbit/s", ended.stderr)) == 3
    for host in bed.hosts:
        assert (host.home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
        installed = (host.home / ".rayrnn" / "venv" / "rayrnn-build").read_text().splitlines()
        assert set(installed[1:]) == set(packages_for_hosts())
        assert host.run(".rayrnn/venv/bin/rayrnn", "--version").stdout == rayrnn(bed, "--version").stdout
    refused = rayrnn(bed, "status", "--address", "192.0.2.10:6379", environment={"RAY_AUTH_TOKEN": "wrong"})
    assert refused.returncode == 4
    assert "does not take this token" in refused.stderr

    attached = rayrnn(bed, "attach", "cluster.yaml", input="ray status; rayrnn --version\n")
    assert "0.0/6.0 CPU" in attached.stdout, attached.stderr
    assert rayrnn(bed, "--version").stdout in attached.stdout
    status = json.loads(rayrnn(bed, "status", "cluster.yaml", "--json").stdout)
    assert len({node["id"] for node in status["cluster"]["nodes"]}) == 3

    before = raylets(bed.hosts)
    again = up(bed)
    assert again.returncode == 0, again.stderr
    assert "rayrnn is up already" in again.stderr
    assert raylets(bed.hosts) == before

    assert rayrnn(bed, "down", "cluster.yaml", "--yes").returncode == 0
    assert_nothing_is_left(bed.hosts)


@pytest.mark.slow
def test_a_host_that_comes_back_is_taken_in_again_by_another_up(bed: Bed) -> None:
    assert up(bed).returncode == 0
    bed.hosts[1].kill()
    bed.hosts[1].start()
    ended = up(bed)
    assert ended.returncode == 0, ended.stderr
    assert "3: 192.0.2.10, 192.0.2.11, 192.0.2.12" in ended.stderr


@pytest.mark.slow
def test_a_host_that_is_off_is_left_out_where_others_are_enough_and_joins_later(bed: Bed) -> None:
    first, second, third = bed.hosts
    third.kill()
    ended = up(bed, "--min-workers", "1")
    assert ended.returncode == 0, ended.stderr
    assert "left out: 192.0.2.12" in ended.stderr
    assert "hosts      2: 192.0.2.10, 192.0.2.11" in ended.stderr
    before = raylets([first, second])
    third.start()
    ended = up(bed)
    assert ended.returncode == 0, ended.stderr
    assert "rayrnn is up already" in ended.stderr
    assert "hosts      3: 192.0.2.10, 192.0.2.11, 192.0.2.12" in ended.stderr
    assert raylets([first, second]) == before


@pytest.mark.slow
def test_of_two_ups_one_is_refused_and_down_lets_a_run_write_its_checkpoint(bed: Bed) -> None:
    home, head = bed.laptop.home, bed.hosts[0]
    with knowing_nobody(bed):
        unknown = up(bed)
        assert unknown.returncode == 4
        assert unknown.stderr.count("its SSH key is not known on this machine: ssh-ed25519 SHA256:") == 3
        assert raylets(bed.hosts) == set()
        pipe = subprocess.PIPE
        command = ("rayrnn", "up", "cluster.yaml", "--yes", "--accept-new-hosts")
        both = [bed.laptop.popen(*command, stdout=pipe, stderr=pipe) for _ in range(2)]
        said = [process.communicate(timeout=280)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 4], said
    assert "is at work on the cluster rayrnn" in "".join(said)
    assert len(raylets(bed.hosts)) == 3

    (home / "words.yaml").write_text(RECIPE % 100_000)
    (home / "words.txt").write_text("abcdefgh ijkl mnop " * 6000)
    detached = rayrnn(bed, "train", "words.yaml", "--cluster", "cluster.yaml", "--detach")
    assert detached.returncode == 0, detached.stderr
    refused = rayrnn(bed, "down", "cluster.yaml")
    assert refused.returncode == 2
    assert "runs/words" in refused.stderr
    assert "nobody can answer" in refused.stderr
    assert len(raylets(bed.hosts)) == 3
    ended = rayrnn(bed, "down", "cluster.yaml", "--yes")
    assert ended.returncode == 0, ended.stderr
    assert_nothing_is_left(bed.hosts)
    (checkpoints,) = head.home.glob(".rayrnn/runs/*/work/runs/words/checkpoints")
    checkpoint, damages = newest_checkpoint(checkpoints)
    assert checkpoint is not None
    assert damages == []
    assert checkpoint.progress["round"] % 20, "the one that it wrote when it was asked to stop"


@pytest.mark.slow
def test_down_does_not_ask_for_a_host_that_was_left_out_and_is_away(bed: Bed) -> None:
    bed.hosts[2].kill()
    assert up(bed, "--min-workers", "0", "--max-workers", "1").returncode == 0
    assert rayrnn(bed, "down", "cluster.yaml", "--yes").returncode == 0
    assert_nothing_is_left(bed.hosts[:2])


@pytest.mark.slow
def test_hosts_whose_names_mean_the_loopback_are_a_cluster(bed: Bed) -> None:
    with bed.own_names_mean_loopback():
        ended = up(bed)
    assert ended.returncode == 0, ended.stderr
    assert "hosts      3: 192.0.2.10, 192.0.2.11, 192.0.2.12" in ended.stderr


@pytest.mark.slow
def test_a_host_that_cannot_join_is_named_with_what_the_log_says_and_down_cleans_up(bed: Bed) -> None:
    text = SHIPPED + "worker_setup_commands: ['[ $(hostname) != cedar ] || (echo the driver is missing; exit 3)']\n"
    (bed.laptop.home / "cluster.yaml").write_text(text)
    ended = up(bed)
    assert ended.returncode == 4
    assert "192.0.2.12 has not joined the cluster; the head's log says" in ended.stderr
    assert "joined: 192.0.2.10, 192.0.2.11;" in ended.stderr
    assert rayrnn(bed, "down", "cluster.yaml", "--yes").returncode == 0
    assert_nothing_is_left(bed.hosts)


@pytest.mark.slow
def test_down_after_an_up_that_failed_on_the_head_leaves_nothing(bed: Bed) -> None:
    (bed.laptop.home / "cluster.yaml").write_text(SHIPPED + "head_start_ray_commands: [ray start --no-such-option]\n")
    ended = up(bed)
    assert ended.returncode == 4
    assert "no-such-option" in ended.stderr
    assert (bed.hosts[0].home / ".ray" / "auth_token").exists()
    assert rayrnn(bed, "down", "cluster.yaml", "--yes").returncode == 0
    assert_nothing_is_left(bed.hosts)


@pytest.mark.slow
def test_hosts_that_have_rayrnn_are_used_as_they_are_and_a_wrong_ray_is_named(bed_is_possible: None) -> None:
    python = f"{sys.base_prefix}/bin/python3"
    with Bed(with_rayrnn=True) as bed:
        (bed.laptop.home / "cluster.yaml").write_text(SHIPPED)
        about_ray = Path(str(distribution("ray").locate_file(f"ray-{version('ray')}.dist-info"))) / "METADATA"
        text = about_ray.read_text().replace(f"\nVersion: {version('ray')}\n", "\nVersion: 2.40.0\n", 1)
        bed.hosts[1].replace(about_ray, text)
        wrong = up(bed, "--python", python)
        assert wrong.returncode == 4
        assert (
            f"192.0.2.11: ray 2.40.0 in {python}, here is 2.60.0; `{python} -m pip install ray==2.60.0`" in wrong.stderr
        )
        bed.hosts[1].restore(about_ray)
        ended = up(bed, "--python", python)
        assert ended.returncode == 0, ended.stderr
        assert (bed.hosts[1].home / ".rayrnn" / "venv").is_symlink()
        assert rayrnn(bed, "down", "cluster.yaml", "--yes").returncode == 0
        assert_nothing_is_left(bed.hosts)
