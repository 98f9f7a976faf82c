"""Who of the listed hosts is to be the cluster, and what Ray's launcher hears of it."""

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rayrnn.cluster.bring_up import refuse_restart, why_restart
from rayrnn.cluster.capacity import places
from rayrnn.cluster.cluster_file import read_cluster_file
from rayrnn.cluster.inspection import Host
from rayrnn.cluster.launcher import HostPackages, launch_config
from rayrnn.cluster.on_host import facts
from rayrnn.cluster.plan import UpOptions, UpPlan, choose, plan_up
from rayrnn.errors import ClusterError, UsageError
from tests.typed import typed

SHIPPED = Path(__file__).parent.parent / "cluster.yaml"
HEAD, FIRST, SECOND = "192.0.2.10", "192.0.2.11", "192.0.2.12"


def host(address: str, state: str = "idle") -> Host:
    rays: list[dict[str, Any]] = [{"ours": True}] if state == "running" else []
    return Host(address, "it is off" if state == "off" else None, {"rays": rays, "python": platform.python_version()})


def chosen(first: str, second: str, *, least: int | None = None, most: int = 2) -> list[str]:
    hosts = [host(HEAD), host(FIRST, first), host(SECOND, second)]
    return [found.address for found in choose(hosts, least=least, most=most)]


def test_every_listed_host_is_wanted_where_nothing_is_said() -> None:
    assert chosen("idle", "idle") == [HEAD, FIRST, SECOND]
    assert chosen("off", "idle") == [HEAD, FIRST, SECOND]


def test_hosts_that_are_not_reached_are_left_out_where_enough_are_left() -> None:
    assert chosen("off", "idle", least=1) == [HEAD, SECOND]
    assert chosen("idle", "idle", least=1) == [HEAD, FIRST, SECOND]
    assert chosen("off", "off", least=0) == [HEAD]
    assert chosen("off", "off", least=1) == [HEAD, FIRST, SECOND]


def test_at_most_so_many_are_taken_and_those_that_can_before_those_that_cannot() -> None:
    assert chosen("idle", "idle", most=1) == [HEAD, FIRST]
    assert chosen("off", "idle", most=1) == [HEAD, SECOND]
    assert chosen("idle", "running", most=1) == [HEAD, SECOND]
    assert chosen("idle", "idle", most=0) == [HEAD]


@pytest.mark.parametrize("options", [UpOptions(min_workers=3), UpOptions(min_workers=2, max_workers=1)])
def test_more_workers_than_there_can_be_are_refused_before_any_host_is_asked(options: UpOptions) -> None:
    with pytest.raises(UsageError, match=rf"--min-workers {options.min_workers}, but there are"):
        plan_up(read_cluster_file(SHIPPED), options)


@pytest.mark.parametrize("more", ["", "min_workers: 0\n", "min_workers: 1\nmax_workers: 1\n"])
def test_the_launcher_starts_all_that_are_chosen(tmp_path: Path, more: str) -> None:
    """With `min_workers: 0` Ray would start none of them before there is work for it."""
    path = tmp_path / "cluster.yaml"
    path.write_text(SHIPPED.read_text() + more)
    host_packages = HostPackages(tmp_path / "token", tmp_path / "rayrnn.whl", "b1", ("ray==2.60.0",), tmp_path)
    for hosts in ((HEAD, SECOND), (HEAD, FIRST, SECOND)):
        config = launch_config(read_cluster_file(path), host_packages, hosts)
        assert config["provider"]["worker_ips"] == list(hosts[1:])
        assert (config["min_workers"], config["max_workers"]) == (len(hosts) - 1, len(hosts) - 1)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where on_host keeps a cluster's files."""
    place = Path(facts.folder_of("rayrnn-plan"))
    (place / "ray").mkdir(parents=True)
    yield place
    shutil.rmtree(place)


def test_a_ray_that_runs_hears_of_workers_that_were_not_listed_before(folder: Path) -> None:
    state = folder / "ray" / "cluster-rayrnn-plan.state"
    there = {FIRST: {"tags": {"ray-node-type": "worker", "ray-node-status": "up-to-date"}, "state": "running"}}
    state.write_text(json.dumps(there))
    command = [sys.executable, facts.__file__, "add_workers", "rayrnn-plan", FIRST, SECOND]
    assert json.loads(subprocess.run(command, capture_output=True, check=True).stdout) == {}
    new = {"tags": {"ray-node-type": "worker"}, "state": "terminated"}
    assert json.loads(state.read_text()) == there | {SECOND: new}


def test_down_asks_hosts_that_are_away_only_where_they_had_something_of_the_cluster(tmp_path: Path) -> None:
    away = f'#!/bin/sh\ncase "$*" in *ubuntu@{SECOND}*) exit 255;; esac\necho \'{{"ended": 0}}\'\n'
    (tmp_path / "bin").mkdir()
    for tool in ("ssh", "rsync"):
        (tmp_path / "bin" / tool).write_text(away)
        (tmp_path / "bin" / tool).chmod(0o755)
    folder = tmp_path / ".local" / "state" / "rayrnn" / "clusters" / "rayrnn"
    for touched, exit_code in (((HEAD, FIRST), 0), ((HEAD, FIRST, SECOND), 4), ((), 4)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hosts").write_text("\n".join(touched))
        ended = typed("down", str(SHIPPED), "--yes", home=tmp_path, PATH=f"{tmp_path}/bin:/usr/bin:/bin")
        assert ended.returncode == exit_code, ended.stderr
        assert (f"{SECOND} is not reached" in ended.stderr) == bool(exit_code)


#: what makes `up` start a Ray again that runs: the build on the head, the options, the mark of an `up` that failed
RESTARTS = [
    ("b1", UpOptions(), False, False),
    ("b2", UpOptions(), False, True),
    ("b2", UpOptions(no_restart=True), False, False),
    ("b2", UpOptions(python="/usr/bin/python3"), False, False),
    ("b1", UpOptions(), True, True),
    ("b1", UpOptions(no_restart=True), True, False),
]


@pytest.mark.parametrize(("build", "options", "failed", "restarts"), RESTARTS)
def test_a_ray_that_is_in_use_is_never_started_again(
    tmp_path: Path, build: str, options: UpOptions, failed: bool, restarts: bool
) -> None:
    packages = HostPackages(
        tmp_path / "token", tmp_path / "rayrnn.whl", "b1", ("ray==2.60.0",), tmp_path, options.python
    )
    about = {"rays": [{"ours": True}], "build": build, "installed": ["ray==2.60.0"]}
    for users in ([], [{"process": 12, "command": "python notebook.py"}]):
        head = Host(HEAD, None, about | {"users": users})
        plan = UpPlan(read_cluster_file(SHIPPED), options, [head], [], [head])
        why = why_restart(plan, packages, failed=failed)
        assert bool(why) == restarts
        if restarts and users:
            with pytest.raises(ClusterError, match=r"in use:\n  process 12 on 192\.0\.2\.10: python notebook"):
                refuse_restart(plan, why)
        else:
            refuse_restart(plan, why)


def test_what_fits_on_a_host_is_bounded_by_what_it_has_least_of() -> None:
    host = {"CPU": 8.0, "GPU": 1.0, "memory": 4e9}
    assert places(host, {"CPU": 3}) == 2
    assert places(host, {"CPU": 1, "GPU": 1}) == 1
    assert places(host, {"CPU": 1, "another": 1}) == 0
