"""How fast a table of steps in Spark becomes sequences in Ray's object store, and how little of it the driver holds.

python benchmarks/spark_conversion.py [--keys 20000] [--steps 50] [--features 6] [--executors 2] [--repeats 2]

The table lies in Parquet files, its rows in no order, so that Spark brings together and sorts every sequence. Counted
is everything from reading the files to the first minibatch; starting Ray and Spark is shown on its own. The bytes are
those of the steps as Arrow. The driver is two processes, Python and the Java beside it; the memory that Python shares
with the object store is not counted.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet
from rayrnn_spark import sequences, spark_session

from rayrnn.cluster import connect
from rayrnn.data.fitting import fit_encoding
from rayrnn.data.sequences import gather, take
from rayrnn.recipe import task_named
from rayrnn.tasks import Choices

TASK = "classification"
MEGABYTE = 1e6


def main() -> None:
    """The command line."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder, connect("local", num_cpus=options.cpus):
        started = time.perf_counter()
        with spark_session(executors=options.executors, memory=options.memory) as spark:
            start = time.perf_counter() - started
            write_steps(spark, Path(folder) / "steps", options)
            with _watched() as driver:
                trips = [convert(spark, f"{folder}/steps") for _ in range(1 + options.repeats)]
            stopping = time.perf_counter()
        stopped = time.perf_counter() - stopping
        taken = pyarrow.parquet.read_table(f"{folder}/steps").nbytes
    _report(options.keys * options.steps, taken, (start, stopped), trips, driver)


def convert(spark: Any, path: str) -> np.ndarray:
    """From the files to the first minibatch: seconds to take the steps over, to cut and gather them, to encode them."""
    marks = [time.perf_counter()]
    dataset = sequences(spark.read.parquet(path), key="series", order_by="moment", label="kind")
    marks.append(time.perf_counter())
    found = gather(dataset, task_named(TASK).needs(Choices()))
    marks.append(time.perf_counter())
    encoding = fit_encoding(found, np.arange(len(found)), task_named(TASK), Choices(), normalize="standardize")
    minibatch = task_named(TASK).minibatch(take(found, np.arange(32)), encoding)
    marks.append(time.perf_counter())
    assert minibatch.inputs.shape[0] == 32
    return np.diff(marks)


def write_steps(spark: Any, path: Path, options: argparse.Namespace) -> None:
    """Rows of a step each: whose, when, numbers and the series' class."""
    features = [f"rand({number}) as feature_{number}" for number in range(options.features)]
    frame = spark.range(options.keys * options.steps).selectExpr(
        f"concat('series ', id % {options.keys}) as series",
        f"id div {options.keys} as moment",
        f"concat('kind ', id % {options.keys} % 9) as kind",
        *features,
    )
    frame.repartition(8, "moment", "feature_0").write.parquet(str(path))


class _Memory:
    """The most that each process of the driver held beyond what it held at first."""

    def __init__(self) -> None:
        self._python = psutil.Process()
        self._java = next(process for process in self._python.children() if process.name() == "java")
        self.first = self.peak = self._now()

    def look(self) -> None:
        self.peak = tuple(map(max, self.peak, self._now()))

    def _now(self) -> tuple[int, ...]:
        return self._python.memory_full_info().uss, self._java.memory_info().rss


@contextmanager
def _watched() -> Iterator[_Memory]:
    memory, done = _Memory(), threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            memory.look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield memory
    finally:
        done.set()
        thread.join()


def _report(rows: int, taken: int, ends: tuple[float, float], trips: list[np.ndarray], driver: _Memory) -> None:
    print(f"{rows:,} rows, {taken / MEGABYTE:.0f} MB; Spark starts in {ends[0]:.1f} s and stops in {ends[1]:.1f} s")
    names = {"the first time": trips[:1], "once Java is warm": sorted(trips[1:], key=np.sum)[:1]}
    for name, seconds in [(name, seconds) for name, best in names.items() for seconds in best]:
        print(name)
        _line("Spark reads, groups, sorts; Ray takes over", seconds[0], rows, taken)
        _line("cut into sequences and gathered", seconds[1], rows, taken)
        _line("encoding fitted, first minibatch", seconds[2], rows, taken)
        _line("all of it", seconds.sum(), rows, taken)
    for name, first, peak in zip(("Python", "Java"), driver.first, driver.peak, strict=True):
        held = f"{peak / MEGABYTE:.0f} MB at most, {(peak - first) / MEGABYTE:.0f} MB more than before"
        print(f"the driver, {name}: {held}")


def _line(name: str, seconds: float, rows: int, taken: int) -> None:
    print(f"  {name:43} {seconds:7.2f} s {rows / seconds:11,.0f} rows/s {taken / MEGABYTE / seconds:7.1f} MB/s")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--features", type=int, default=6)
    parser.add_argument("--executors", type=int, default=2)
    parser.add_argument("--memory", default="1g")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--cpus", type=int, default=4)
    return parser.parse_args()


if __name__ == "__main__":
    main()
