"""Spark is refused, with the sum, where it would wait for ever."""

import signal
import subprocess
from pathlib import Path

import pytest
import ray
from rayrnn_spark import launch, spark_session
from rayrnn_spark.preflight import check_names, check_room, executors_that_fit, parse_memory, unresolved

from rayrnn.errors import ClusterError, UsageError

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_too_many_cores_are_refused_with_the_sum() -> None:
    sum_of_cpus = r"Spark needs 7 CPUs \(3 executors x 2 cores \+ 1 to take the sequences over\), the cluster has 4"
    with pytest.raises(ClusterError, match=sum_of_cpus), spark_session(executors=3, cores=2):
        pass


def test_too_much_memory_is_refused_with_the_sum() -> None:
    with pytest.raises(ClusterError, match=r"Spark needs 4096.0 GB of memory \(2 executors x 2t\), the cluster has"):
        check_room(2, 1, "2t")


def test_an_executor_fits_on_one_host_or_nowhere() -> None:
    gigabyte = 2**30
    hosts = [{"CPU": 3.0, "memory": 8.0 * gigabyte}, {"CPU": 3.0, "memory": 1.0 * gigabyte}, {"memory": 9.0 * gigabyte}]
    assert executors_that_fit(hosts, cores=2, size=gigabyte) == 2
    assert executors_that_fit(hosts, cores=1, size=2 * gigabyte) == 3
    assert executors_that_fit(hosts, cores=4, size=gigabyte) == 0


def test_cpus_that_others_use_are_not_counted() -> None:
    @ray.remote(num_cpus=3)
    class Other:
        def there(self) -> bool:
            return True

    other = Other.remote()
    assert ray.get(other.there.remote())
    with pytest.raises(ClusterError, match=r"Spark needs 3 CPUs .*; free are 1 CPUs and .*, the rest is in use"):
        check_room(2, 1, "512m")
    ray.kill(other)


@pytest.mark.parametrize(("memory", "size"), [("512m", 512 * 2**20), ("2g", 2**31), ("1 GB", 2**30), ("4k", 4096)])
def test_memory_is_read_as_spark_reads_it(memory: str, size: int) -> None:
    assert parse_memory(memory) == size


@pytest.mark.parametrize("memory", ["lots", "1.5g", "12"])
def test_memory_without_a_number_or_a_unit_is_refused(memory: str) -> None:
    with pytest.raises(UsageError, match="give a whole number and its unit"):
        parse_memory(memory)


def test_hosts_are_known_by_name_or_named() -> None:
    assert unresolved(["localhost", "no-such-host.invalid"]) == ["no-such-host.invalid"]
    check_names()


def test_a_java_that_never_answers_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "SECONDS_TO_START", 0.1)
    with subprocess.Popen(["sleep", "600"]) as java, launch.bounded(java):
        assert java.wait(timeout=60) == -signal.SIGKILL


def test_java_home_that_does_not_serve_stops_a_session_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ClusterError, match="JAVA_HOME"), spark_session():
        pass
