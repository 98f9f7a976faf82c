"""A Spark DataFrame -> Arrow tables in Ray's object store, which the driver never holds; a dead executor costs a retry.

Uses the Java side of RayDP. The Python side (`from_spark_recoverable`) fails once an executor was restarted, and starts
as many processes as there are partitions.
"""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray

from rayrnn.cluster.ray_internals import allow_other_languages
from rayrnn.errors import ClusterError, DataError
from rayrnn_spark.spark_errors import ExecutorLost, translated

#: how often a partition is asked for, and a DataFrame computed, when executors die
TRIES = 5
_SECONDS_TO_COME_BACK = 120.0
#: seconds without any answer, after which it is looked who is still there
_PATIENCE = 5.0


if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: by the reference to an answer: the partition, the tries that are left, the actor, the reference to the table
_Asked = dict[ray.ObjectRef, tuple[int, int, str, ray.ObjectRef]]


@dataclass(frozen=True)
class Cached:
    """The Arrow bytes of a DataFrame's partitions, kept by Spark's executors."""

    spark: "SparkSession"
    rdd: int
    #: Arrow's, as JSON
    schema: str
    #: whom an executor asks to compute a lost partition again
    agent: str
    #: the executor that computed each partition
    executors: tuple[str, ...]


def to_blocks(frame: "DataFrame") -> ray.data.Dataset:
    """Compute a DataFrame and bring it into Ray's object store, where it outlives Spark.

    Lists, strings and numbers are Arrow's own on the whole way, and the rows keep the DataFrame's order.

    Raises:
        DataError: Spark could not compute it (the message has its reason), or it has no rows.
        ClusterError: Spark's executors are gone and do not come back.
    """
    cached = cache_arrow(frame)
    try:
        tables = fetch(cached)
    finally:
        release(cached)
    if not tables:
        raise DataError("Spark's DataFrame has no rows")
    return ray.data.from_arrow_refs(tables)


def cache_arrow(frame: "DataFrame") -> Cached:
    """Compute a DataFrame, and keep the result as Arrow bytes where it was computed."""
    for _ in range(TRIES):
        try:
            with translated():
                return _cache_arrow(frame)
        except ExecutorLost as error:
            reason = error
            _living(frame.sparkSession)
    raise ClusterError(f"Spark's executors died {TRIES} times during one computation: {reason}")


def fetch(cached: Cached) -> list[ray.ObjectRef]:
    """Bring every partition that has rows into Ray's object store, one Arrow table each; this process owns them.

    At most one question at a time goes to an executor: it answers two at once, and one that was restarted needs the
    other place to hear that it may start.
    """
    living = _living(cached.spark)
    tables: dict[int, ray.ObjectRef] = {}
    waiting = deque((partition, TRIES) for partition in range(len(cached.executors)))
    asked: _Asked = {}
    while waiting or asked:
        busy = {actor for _, _, actor, _ in asked.values()}
        for actor in [actor for actor in living.values() if actor not in busy][: len(waiting)]:
            partition, tries = _nearest(waiting, actor, cached, living)
            table, answer = _take_partition.remote(actor, cached.rdd, partition, cached.schema, cached.agent)
            asked[answer] = (partition, tries, actor, table)
        answers, _ = ray.wait(list(asked), num_returns=1, timeout=_PATIENCE)
        if not answers:
            living = _living(cached.spark)
            waiting.extendleft(_given_up(asked, living))
            continue
        answer = answers[0]
        partition, tries, _, table = asked.pop(answer)
        rows, reason = ray.get(answer)
        if reason is None and rows > 0:
            tables[partition] = table
        elif reason is not None:
            if tries == 1:
                raise ClusterError(
                    f"Spark's executors do not give partition {partition} of {len(cached.executors)}: {reason}; where "
                    "memory is short give them more of it (data.memory), or make smaller partitions "
                    "(spark.sql.files.maxPartitionBytes in data.config)"
                )
            waiting.appendleft((partition, tries - 1))
            living = _living(cached.spark)
    return [tables[partition] for partition in sorted(tables)]


def release(cached: Cached) -> None:
    """Let Spark forget the bytes."""
    cached.spark._jvm.org.apache.spark.sql.raydp.ObjectStoreWriter.releaseRecoverableRDD(cached.rdd)


def _cache_arrow(frame: "DataFrame") -> Cached:
    from pyspark import StorageLevel

    context = frame.sparkSession.sparkContext
    level = context._getJavaStorageLevel(StorageLevel.MEMORY_AND_DISK)
    writer: Any = context._jvm.org.apache.spark.sql.raydp.ObjectStoreWriter
    info = writer.prepareRecoverableRDD(frame._jdf, level)
    return Cached(frame.sparkSession, info.rddId(), info.schemaJson(), info.driverAgentUrl(), tuple(info.locations()))


def _living(spark: "SparkSession") -> dict[str, str]:
    """The executors that are there: the number that Spark knows each by, and the actor that it is.

    Waits for one where there is none.
    """
    give_up = time.monotonic() + _SECONDS_TO_COME_BACK
    context: Any = spark.sparkContext
    actors, masters = context._jvm.io.ray.api.Ray, context._jvm.org.apache.spark.deploy.raydp.RayAppMasterUtils
    while not (numbers := context._jsc.sc().getExecutorIds().mkString(" ").split()):
        if time.monotonic() > give_up:
            raise ClusterError(f"Spark's executors are gone, and none came back within {_SECONDS_TO_COME_BACK:g} s")
        time.sleep(0.5)
    # a restarted executor gets a new number from Spark, while its actor keeps its name
    first = masters.getRestartedExecutors(actors.getActor("RAY_APP_MASTER").get())
    return {number: f"raydp-executor-{first.get(number) or number}" for number in numbers}


def _given_up(asked: _Asked, living: Mapping[str, str]) -> list[tuple[int, int]]:
    """Take back the questions to executors that are gone, and for which the cluster may have no place any more."""
    gone = [answer for answer, (_, _, actor, _) in asked.items() if actor not in living.values()]
    return [asked.pop(answer)[:2] for answer in gone]


def _nearest(waiting: deque[tuple[int, int]], actor: str, cached: Cached, living: Mapping[str, str]) -> tuple[int, int]:
    """Take from the waiting partitions one that lies with this executor, if there is one."""
    own = (entry for entry in waiting if living.get(cached.executors[entry[0]]) == actor)
    entry = next(own, waiting[0])
    waiting.remove(entry)
    return entry


@ray.remote(num_cpus=0, num_returns=2, max_retries=TRIES)  # type: ignore[untyped-decorator]
def _take_partition(
    actor: str, rdd: int, partition: int, schema: str, agent: str
) -> tuple[pa.Table | None, tuple[int, str | None]]:
    """One partition as an Arrow table; and its number of rows, or why the executor did not give it."""
    # an actor in another language is spoken to only by who may load code
    allow_other_languages()
    try:
        content = ray.get(ray.get_actor(actor).getRDDPartition.remote(rdd, partition, schema, agent))
    except (ray.exceptions.RayError, ValueError) as error:
        # a stack trace; the cause stands last
        return None, (0, str(error).strip().splitlines()[-1])
    table = pa.ipc.open_stream(pa.py_buffer(content)).read_all().replace_schema_metadata().combine_chunks()
    return table, (table.num_rows, None)
