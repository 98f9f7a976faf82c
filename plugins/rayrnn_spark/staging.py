"""A DataFrame of a Spark that is not on this Ray -> Arrow tables in Ray's object store, by way of Parquet files.

Spark writes where both can reach, Ray reads, and the files go. What Spark did not write to the end is never read.
"""

import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
from pyarrow import fs

from rayrnn.cluster import stay_connected
from rayrnn.data.files import open_file_system
from rayrnn.data.sequences import beside, results
from rayrnn.errors import ClusterError, DataError, RayrnnError
from rayrnn_spark.frames import is_connect
from rayrnn_spark.spark_errors import RowRefused, translated

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_NAME = ".rayrnn-staging-"


@dataclass(frozen=True)
class Staging:
    """A directory of its own: by the address that Spark takes, and as Ray's side reaches it."""

    address: str
    filesystem: fs.FileSystem
    path: str

    @property
    def is_local(self) -> bool:
        """Whether it is a directory of this host, which Spark's hosts may not share."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def files(self) -> list[str]:
        """What Spark wrote, in the order of its partitions."""
        selector = fs.FileSelector(self.path, allow_not_found=True)
        found = [info for info in self.filesystem.get_file_info(selector) if info.type == fs.FileType.File]
        return sorted(info.path for info in found if info.base_name.startswith("part-"))


@contextmanager
def staging_at(where: str | None) -> Iterator[Staging]:
    """A hidden directory below `where`, or below the temporary directory of this host; gone when the block ends.

    Raises:
        DataError: there is no such place, or nothing may be written there.
    """
    name = _NAME + uuid.uuid4().hex
    if where is None or "://" not in where:
        parent = Path(tempfile.gettempdir() if where is None else where).expanduser().absolute()
        folder = parent / name
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise DataError(
                f"the rows cannot be staged in {parent}: {error.strerror}; choose another place with staging"
            ) from None
        place = Staging((folder / "rows").as_uri(), fs.LocalFileSystem(), str(folder / "rows"))
        above = str(folder)
    else:
        address = f"{where.rstrip('/')}/{name}"
        # Hadoop has names of its own for S3
        filesystem, path = open_file_system(re.sub("^s3[an]://", "s3://", address))
        place, above = Staging(address, filesystem, path), path
    try:
        yield place
    finally:
        with suppress(OSError):
            place.filesystem.delete_dir(above)


def staged_blocks(frame: "DataFrame", where: str | None) -> ray.data.Dataset:
    """Have Spark write a DataFrame, and take it over; each of its partitions becomes a block, in their order.

    Args:
        where: a directory or an address below which the files stand meanwhile.

    Raises:
        DataError: Spark could not compute or write it, it has no rows, or what was written is not here.
        ClusterError: Spark died meanwhile.
    """
    stay_connected()
    with staging_at(where) as place:
        expected = write_parquet(frame, place)
        tables = _read(place)
        rows = sum(count for _, count in tables)
        if expected is not None and rows != expected:
            raise DataError(
                f"Spark wrote {expected:,} rows, and {rows:,} of them are at {place.path}: its hosts do not share that "
                "directory with this one; give one that they share, or a store, as staging (s3://..., gs://..., "
                "hdfs://...)"
            )
        if not rows:
            raise DataError("Spark's DataFrame has no rows")
    return ray.data.from_arrow_refs([table for table, count in tables if count])


def write_parquet(frame: "DataFrame", place: Staging) -> int | None:
    """Have Spark write a DataFrame.

    Returns:
        the rows, where the directory may be one that Spark's hosts do not share with this one.

    Raises:
        DataError: Spark could not compute or write it.
        ClusterError: Spark died meanwhile.
    """
    try:
        with translated():
            frame, rows = _counted(frame) if place.is_local else (frame, lambda: None)
            # a partition is a file: the steps of a sequence stay together
            options = {"compression": "zstd", "maxRecordsPerFile": "0"}
            frame.write.format("parquet").options(**options).save(place.address)
            return rows()
    except RowRefused:
        raise
    except RayrnnError as error:
        kind = ClusterError if isinstance(error, ClusterError) else DataError
        raise kind(f"{error} (while it wrote to {place.address})") from None


def read_back(spark: "SparkSession", dataset: ray.data.Dataset, place: Staging) -> "DataFrame":
    """Write a dataset, and have Spark read it: for as long as the place is there.

    Raises:
        DataError: there are no rows, or Spark finds nothing at the place.
    """
    place.filesystem.create_dir(place.path, recursive=True)
    write = ray.remote(_write_file).options(**beside(place.filesystem))
    blocks = enumerate(dataset.to_arrow_refs())
    rows = results([write.remote(place.filesystem, f"{place.path}/part-{n:05d}.parquet", block) for n, block in blocks])
    if not sum(rows):
        raise DataError("the dataset of predictions has no rows")
    try:
        with translated():
            return spark.read.parquet(place.address)
    except DataError as error:
        raise DataError(
            f"{error} (Spark's hosts may not share {place.path} with this one: give a directory that they share, or a "
            "store, as staging)"
        ) from None


def _write_file(filesystem: fs.FileSystem, path: str, table: pa.Table) -> int:
    if len(table):
        # Spark knows no nanoseconds
        pq.write_table(table, path, filesystem=filesystem, compression="zstd", coerce_timestamps="us")
    return len(table)


def _counted(frame: "DataFrame") -> tuple["DataFrame", Any]:
    """The same frame, and what tells afterwards how many rows of it were written."""
    if is_connect(frame.sparkSession):
        rows = frame.count()
        return frame, lambda: rows
    from pyspark.sql import Observation, functions

    seen = Observation()
    counted = frame.observe(seen, functions.count(functions.lit(1)).alias("rows"))
    return counted, lambda: int(seen.get["rows"])


def _read(place: Staging) -> list[tuple[ray.ObjectRef, int]]:
    """The table of every file, in the object store, and its rows."""
    read = ray.remote(_read_file).options(num_returns=2, **beside(place.filesystem))
    asked = [read.remote(place.filesystem, path) for path in place.files()]
    counts = results([count for _, count in asked])
    return [(table, count) for (table, _), count in zip(asked, counts, strict=True)]


def _read_file(filesystem: fs.FileSystem, path: str) -> tuple[pa.Table, int]:
    # Spark's usual timestamps reach further than nanoseconds do
    table = pq.read_table(path, filesystem=filesystem, coerce_int96_timestamp_unit="us", partitioning=None)
    return table.replace_schema_metadata().combine_chunks(), table.num_rows
