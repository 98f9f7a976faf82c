"""How fast a table of steps becomes sequences in Ray's object store, by every road that leads there.

python benchmarks/roads.py [--keys 20000] [--steps 50] [--features 6] [--repeats 3] [--connect sc://HOST:PORT]

The same rows lie in Parquet files and in a Delta table, in no order. Counted is everything from naming the table to the
last sequence, grouped and in order; starting Ray and Spark is not. Every road has a process, and a Ray, of its own, and
the roads are driven in turn; the first drive of each warms up and does not count. A Spark Connect server is measured
where its address is given.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import ray
import ray.data

from rayrnn.data.sequences import gather
from rayrnn.data.sources import read
from rayrnn.recipe import task_named, validate_recipe
from rayrnn.tasks import Choices

TASK = "classification"
COLUMNS: dict[str, Any] = {"key": "series", "order_by": "moment", "label": "kind"}


def main() -> None:
    """The command line."""
    options = _options()
    roads = ["parquet", "delta", "raydp", "staged", *(["connect"] if options.connect else [])]
    rows = options.keys * options.steps
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options)
        found: dict[str, list[float]] = {road: [] for road in roads}
        drivers = {road: _Driver(road, folder, options) for road in roads}
        for turn in range(1 + options.repeats):
            for road, driver in drivers.items():
                seconds = driver.drive()
                found[road] += [seconds] if turn else []
        for driver in drivers.values():
            driver.end()
    slowest = statistics.median(found["parquet"])
    for road, times in found.items():
        middle = statistics.median(times)
        print(f"{road:<8} {middle:6.2f} s  {rows / middle:>9,.0f} rows/s  {slowest / middle:5.2f} of parquet")


def write(folder: Path, options: argparse.Namespace) -> None:
    """The steps, in no order."""
    import deltalake

    random = np.random.default_rng(1)
    order = random.permutation(options.keys * options.steps)
    series, moment = order % options.keys, order // options.keys
    columns = {f"feature_{number}": random.normal(size=len(order)) for number in range(options.features)}
    kind = np.char.add("kind ", (series % 9).astype(str))
    table = pa.table({"series": np.char.add("series ", series.astype(str)), "moment": moment, "kind": kind, **columns})
    (folder / "steps").mkdir()
    for number, start in enumerate(range(0, len(table), -(-len(table) // 8))):
        piece = table.slice(start, -(-len(table) // 8))
        pyarrow.parquet.write_table(piece, folder / "steps" / f"{number}.parquet")
        deltalake.write_deltalake(str(folder / "delta"), piece, mode="append")


class _Driver:
    """One road, in a process of its own, driven again and again."""

    def __init__(self, road: str, folder: str, options: argparse.Namespace) -> None:
        self._pipe, other = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_drive, args=(road, folder, options, other))
        self._process.start()

    def drive(self) -> float:
        """Seconds."""
        self._pipe.send("drive")
        seconds: float = self._pipe.recv()
        return seconds

    def end(self) -> None:
        """Let it go."""
        self._pipe.send("end")
        self._process.join()


def _drive(road: str, folder: str, options: argparse.Namespace, pipe: Connection) -> None:
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    needs = task_named(TASK).needs(Choices())
    with _road(road, folder, options) as sequences:
        while pipe.recv() == "drive":
            started = time.perf_counter()
            found = gather(sequences(), needs)
            pipe.send(time.perf_counter() - started)
            assert len(found) == options.keys
            assert (found.steps == options.steps).all()
    ray.shutdown()


@contextmanager
def _road(road: str, folder: str, options: argparse.Namespace) -> Iterator[Callable[[], ray.data.Dataset]]:
    if road in ("parquet", "delta"):
        path = f"{folder}/steps" if road == "parquet" else f"{folder}/delta"
        data = {"source": road, "path": path, **COLUMNS}
        recipe = validate_recipe({"name": road, "task": TASK, "data": data})
        yield lambda: read(recipe.data, task_named(TASK).needs(Choices()))
        return
    from rayrnn_spark import sequences, spark_session
    from rayrnn_spark.connect import connected
    from rayrnn_spark.preflight import find_java, java_options

    if road == "raydp":
        with spark_session(executors=1, memory="1g") as spark:
            yield lambda: sequences(spark.read.parquet(f"{folder}/steps"), **COLUMNS)
    elif road == "connect":
        with connected(options.connect) as spark:
            yield lambda: sequences(spark.read.parquet(f"{folder}/steps"), **COLUMNS)
    else:
        from pyspark.sql import SparkSession

        os.environ |= {"JAVA_HOME": str(find_java()), "JDK_JAVA_OPTIONS": java_options()}
        builder: Any = SparkSession.builder
        spark = builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
        spark.sparkContext.setLogLevel("ERROR")
        yield lambda: sequences(spark.read.parquet(f"{folder}/steps"), **COLUMNS)
        spark.stop()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--features", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--connect", help="the address of a Spark Connect server on this machine")
    return parser.parse_args()


if __name__ == "__main__":
    main()
