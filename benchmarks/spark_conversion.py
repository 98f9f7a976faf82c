"""How fast a table of steps in Spark becomes sequences in Ray's object store, and how little of it the driver holds.

python benchmarks/spark_conversion.py [--keys 20000] [--steps 50] [--features 6] [--executors 2] [--cpus 4]

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
from rayrnn.data.batches import collate
from rayrnn.data.fitting import fit_encoding
from rayrnn.data.sequences import gather, take

TASK = "classification"
MEGABYTE = 1e6


def main() -> None:
    """The command line."""
    options = _options()
    rows = options.keys * options.steps
    with tempfile.TemporaryDirectory() as folder, connect("local", num_cpus=options.cpus):
        started = time.perf_counter()
        with spark_session(executors=options.executors, memory=options.memory) as spark:
            start = time.perf_counter() - started
            write_steps(spark, Path(folder) / "steps", options)
            with _watched() as driver:
                marks = [time.perf_counter()]
                frame = spark.read.parquet(f"{folder}/steps")
                dataset = sequences(frame, key="series", order_by="moment", label="kind")
                marks.append(time.perf_counter())
                found = gather(dataset, task=TASK)
                marks.append(time.perf_counter())
        marks.append(time.perf_counter())
        encoding = fit_encoding(found, np.arange(len(found)), task=TASK, normalize="standardize")
        minibatch = collate(take(found, np.arange(32)), encoding)
        marks.append(time.perf_counter())
        taken = pyarrow.parquet.read_table(f"{folder}/steps").nbytes
    assert len(found) == options.keys
    assert minibatch.inputs.shape == (32, options.steps, options.features)
    _report(rows, taken, start, np.diff(marks), driver)


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


def _report(rows: int, taken: int, start: float, seconds: np.ndarray, driver: _Memory) -> None:
    conversion, gathering, stopping, minibatch = seconds
    whole = seconds.sum() - stopping
    print(f"{rows:,} rows, {taken / MEGABYTE:.0f} MB")
    for name, duration in [
        ("Spark starts", start),
        ("Spark reads, groups, sorts; Ray takes over", conversion),
        ("cut into sequences and gathered", gathering),
        ("encoding fitted, first minibatch", minibatch),
        ("Spark stops", stopping),
    ]:
        print(f"{name:45} {duration:7.2f} s")
    print(f"{'taking over':45} {rows / conversion:11,.0f} rows/s {taken / MEGABYTE / conversion:7.1f} MB/s")
    print(f"{'from files to the first minibatch':45} {rows / whole:11,.0f} rows/s {taken / MEGABYTE / whole:7.1f} MB/s")
    for name, first, peak in zip(("Python", "Java"), driver.first, driver.peak, strict=True):
        held = f"{peak / MEGABYTE:7.0f} MB at most, {(peak - first) / MEGABYTE:.0f} MB more than before"
        print(f"{f'the driver, {name}':45} {held}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--features", type=int, default=6)
    parser.add_argument("--executors", type=int, default=2)
    parser.add_argument("--memory", default="1g")
    parser.add_argument("--cpus", type=int, default=4)
    return parser.parse_args()


if __name__ == "__main__":
    main()
