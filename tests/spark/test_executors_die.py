"""The death of an executor costs a retry, not the run."""

import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from rayrnn_spark.transfer import cache_arrow, fetch, release, to_blocks

PARTITIONS = 8
ROWS = 4000


def executors() -> list[psutil.Process]:
    """The processes of the test session's executors, by the memory they were given."""
    return [process for process in psutil.Process().children(recursive=True) if is_executor(process)]


def is_executor(process: psutil.Process) -> bool:
    try:
        return process.name() == "java" and "-Xmx512M" in process.cmdline()
    except psutil.Error:
        return False


def registered(spark: Any) -> list[psutil.Process]:
    """Those that Spark knows: RayDP counts one that dies before as if it lived, and takes nobody in its place."""
    infos = spark.sparkContext._jsc.sc().statusTracker().getExecutorInfos()
    ports = {info.port() for info in infos}
    return [process for process in executors() if ports & set(listening(process))]


def listening(process: psutil.Process) -> list[int]:
    try:
        return [each.laddr.port for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    except psutil.Error:
        return []


def wait_for_both(spark: Any) -> list[psutil.Process]:
    give_up = time.monotonic() + 60
    while len(there := registered(spark)) < 2:
        assert time.monotonic() < give_up, f"{len(there)} executors are there"
        time.sleep(0.2)
    return there


def keys_of(tables: list[ray.ObjectRef]) -> list[int]:
    return sorted(key for table in tables for key in ray.get(table)["id"].to_pylist())


def test_an_executor_killed_while_it_computes_is_replaced(spark: Any, tmp_path: Path) -> None:
    both = wait_for_both(spark)
    running = tmp_path / "running"

    def slowly(batches: Any) -> Any:
        for batch in batches:
            running.touch()
            time.sleep(0.2)
            yield batch

    def kill_once_it_runs() -> None:
        while not running.exists():
            time.sleep(0.05)
        both[0].kill()

    killer = threading.Thread(target=kill_once_it_runs)
    killer.start()
    frame = spark.range(ROWS, numPartitions=PARTITIONS)
    dataset = to_blocks(frame.mapInArrow(slowly, frame.schema))
    killer.join()
    assert keys_of(dataset.to_arrow_refs()) == list(range(ROWS))


@pytest.mark.slow
def test_what_a_killed_executor_held_is_computed_again(spark: Any) -> None:
    both = wait_for_both(spark)
    cached = cache_arrow(spark.range(ROWS, numPartitions=PARTITIONS))
    both[0].kill()
    assert keys_of(fetch(cached)) == list(range(ROWS))
    release(cached)


@pytest.mark.slow
def test_an_executor_killed_while_it_answers_is_asked_again(spark: Any) -> None:
    both = wait_for_both(spark)
    frame = spark.range(ROWS, numPartitions=PARTITIONS).selectExpr("id", "repeat('x', 20000) as bulk")
    cached = cache_arrow(frame)
    killer = threading.Timer(0.3, both[-1].kill)
    killer.start()
    tables = fetch(cached)
    killer.join()
    assert keys_of(tables) == list(range(ROWS))
    release(cached)


@pytest.mark.slow
def test_an_executor_that_took_a_dead_one_s_place_stays(spark: Any) -> None:
    """Ray asks every Java for a garbage collection every ten seconds for as long as something waits for CPUs."""

    @ray.remote(num_cpus=4)
    def never() -> None: ...

    both = wait_for_both(spark)
    waiting = never.remote()
    both[0].kill()
    both = wait_for_both(spark)
    time.sleep(15)
    assert registered(spark) == both
    ray.cancel(waiting)


@pytest.mark.slow
def test_sequences_are_taken_over_after_every_executor_was_killed(spark: Any) -> None:
    both = wait_for_both(spark)
    for executor in both:
        executor.kill()
    assert keys_of(to_blocks(spark.range(ROWS, numPartitions=PARTITIONS)).to_arrow_refs()) == list(range(ROWS))


@pytest.mark.slow
def test_an_executor_whose_place_was_taken_holds_nobody_up(spark: Any) -> None:
    @ray.remote(num_cpus=3)
    class Intruder:
        pass

    both = wait_for_both(spark)
    cached = cache_arrow(spark.range(ROWS, numPartitions=PARTITIONS))
    intruder = Intruder.remote()  # waits for a third CPU
    both[0].kill()
    assert keys_of(fetch(cached)) == list(range(ROWS))
    release(cached)
    ray.kill(intruder)
    wait_for_both(spark)
