"""Sequences in Ray's object store, addressed by number: gathered once, then taken by any process, in any order."""

import functools
import logging
import re
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from pyarrow import fs
from ray.data import DataContext, Dataset
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayrnn.data.block_files import BlockFiles, take_away
from rayrnn.data.checksum import checksum_of
from rayrnn.data.narrowing import lost_of_rows
from rayrnn.data.rows import (
    REASONS,
    Label,
    Needs,
    all_skipped,
    canonical,
    feature_names,
    raise_faults,
    step_counts,
)
from rayrnn.errors import ClusterError, DataError, RayrnnError
from rayrnn.recipe.sources import extra_of

#: what one process keeps of the blocks it fetched; those of its own machine are shared memory, not copies
KEPT_BYTES = 512 * 2**20
#: of a host's object store, that blocks may fill and leave room for what else is on its way through it
SHARE_OF_STORE = 0.5


def results(references: Sequence[ray.ObjectRef]) -> list[Any]:
    """The tasks' results in order.

    Raises:
        RayrnnError: what the first task to fail raised, without Ray's wrapping around it.
        ClusterError: its host lacks what it reads with.
    """
    try:
        return list(ray.get(list(references)))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RayrnnError):
            raise error.cause from None
        _check_libraries(error)
        raise


def _check_libraries(error: ray.exceptions.RayTaskError) -> None:
    """
    Raises:
        ClusterError: a task has failed because its host lacks a library.
    """
    told = str(error)
    for library in re.findall(r"No module named '(\w+)", told)[-1:]:
        host = re.findall(r"\bip=([\w.:]+)", told)[-1:] or ["of the cluster"]
        extra = extra_of(library)
        raise ClusterError(
            f"host {host[0]} has no {library}, which reads this data: pip install "
            + (f"'rayrnn[{extra}]'" if extra else library)
            + " into the Python that Ray has there, or have `rayrnn up` bring up the cluster, which installs it"
        ) from None


def streamed(blocks: Iterable[ray.ObjectRef]) -> list[ray.ObjectRef]:
    """What a task gives one after another, when it has given all.

    Raises:
        RayrnnError: what it raised; as above.
    """
    references = list(blocks)
    results(references[-1:])  # where it failed, the last one says so
    return references


def beside(filesystem: fs.FileSystem) -> dict[str, Any]:
    """Options for tasks that read it: local files are those of this host, which other hosts do not have."""
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    if filesystem.type_name != "local" or len(nodes) < 2:
        return {}
    here = ray.get_runtime_context().get_node_id()
    # a head that offers no CPU to anybody still reads its own files
    cpus = {} if nodes[here]["Resources"].get("CPU") else {"num_cpus": 0}
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)} | cpus


def quiet_ray_data() -> None:
    """No progress bars, no notes on execution: Ray Data's own log file has them. Blocks keep their order."""
    _settle(DataContext.get_current())
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.ERROR)


def settle(dataset: Dataset) -> Dataset:
    """The same for a dataset that somebody else made."""
    quiet_ray_data()
    _settle(dataset.context)
    return dataset


def _settle(context: DataContext) -> None:
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # the order of the blocks decides which sequence has which number, and so what is learned in which round
    context.execution_options.preserve_order = True


class Blocks:
    """The blocks one process fetched, the least recently used dropped first. Travels empty; threads may share it.

    Args:
        on_disk: the name under which every host keeps the blocks that it fetched in files; empty where they are left
            to the object store.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES, on_disk: str = "") -> None:
        self._kept_bytes = kept_bytes
        self._on_disk = on_disk
        self._files: BlockFiles | None = None
        self._tables: OrderedDict[ray.ObjectRef, pa.Table] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def __reduce__(self) -> tuple[type["Blocks"], tuple[int, str]]:
        return Blocks, (self._kept_bytes, self._on_disk)

    def close(self) -> None:
        """Have what is on this host's disk go, with the processes that are ending now."""
        if not self._on_disk:
            return
        with self._lock:
            self._tables.clear()
            self._bytes = 0
            if self._files is not None:
                self._files.close()
                self._files = None
        take_away(self._on_disk)

    @property
    def num_bytes(self) -> int:
        """What is kept now."""
        return self._bytes

    def fetch(self, reference: ray.ObjectRef) -> pa.Table:
        """The block's table.

        Raises:
            DataError: it is to be in a file, and there is no room.
        """
        with self._lock:
            if reference in self._tables:
                self._tables.move_to_end(reference)
                return self._tables[reference]
            if self._on_disk and self._files is None:
                self._files = BlockFiles(self._on_disk)
        if self._files is None:
            table = ray.get(reference)
        else:
            table = self._files.table(reference.hex(), functools.partial(ray.get, reference))
        with self._lock:
            if reference not in self._tables:
                self._tables[reference] = table
                self._bytes += table.nbytes
            while self._bytes > self._kept_bytes and len(self._tables) > 1:
                self._bytes -= self._tables.popitem(last=False)[1].nbytes
        return table


@dataclass(frozen=True)
class Sequences:
    """N sequences, numbered through all blocks. Small: it travels to the workers, the blocks stay where they are."""

    #: Arrow tables of canonical rows (see rayrnn/data/rows.py) in Ray's object store, owned by the driver
    blocks: tuple[ray.ObjectRef, ...]
    #: steps that are read of every sequence, int64 [N]
    steps: np.ndarray
    #: the number of every block's first sequence, and N: int64 [blocks + 1]
    offsets: np.ndarray
    #: of every block
    schema: pa.Schema
    #: rows left out because they have no step, or no target, to learn
    num_dropped: int = 0
    #: why rows were left out that the source could not read (`on_error: skip`)
    skipped: tuple[str, ...] = ()
    #: column -> two of its numbers that became one on the way here
    lost: dict[str, tuple[str, str]] = field(default_factory=dict)
    #: a sum over all that the rows hold, the same in whatever order they come
    content: int = 0
    fetched: Blocks = field(default_factory=Blocks, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True)
class Part:
    """Some of the sequences: the ones to learn from, or the ones held out."""

    sequences: Sequences
    #: global indices into `sequences`, int64
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def steps(self) -> np.ndarray:
        """Those that are read of every sequence, int64."""
        steps: np.ndarray = self.sequences.steps[self.indices]
        return steps

    @property
    def num_steps(self) -> int:
        """Of all its sequences, without padding."""
        return int(self.steps.sum())


def beyond_memory(num_bytes: int) -> bool:
    """Whether blocks of so many bytes would keep one another out of the object store of some host."""
    stores = [node["Resources"].get("object_store_memory", 0) for node in ray.nodes() if node["Alive"]]
    return num_bytes > SHARE_OF_STORE * min(stores, default=0)


def gather(dataset: ray.data.Dataset, needs: Needs) -> Sequences:
    """Bring a dataset of sequences to canonical rows in blocks of our own, and count their steps.

    The blocks outlive the dataset and where it came from. Rows without a step, and rows without a target (a class that
    is null, or no more steps than the task looks ahead), are dropped and counted.

    Raises:
        DataError: the rows do not fit the schema or the task, differ from block to block, or none is left.
        ClusterError: a host lacks what the dataset is read with.
    """
    try:
        blocks = settle(dataset).to_arrow_refs()
    except ray.exceptions.RayTaskError as error:
        _check_libraries(error)
        raise
    return _gathered(blocks, needs)


def cut_again(sequences: Sequences, needs: Needs) -> Sequences:
    """The same sequences, whose texts are cut as they are to be since that was found; see `Needs.can_cut`.

    Raises:
        DataError: none is left.
    """
    cut = _gathered(sequences.blocks, needs)
    num_dropped = sequences.num_dropped + cut.num_dropped
    return replace(cut, num_dropped=num_dropped, skipped=sequences.skipped, lost=sequences.lost)


def _gathered(references: Sequence[ray.ObjectRef], needs: Needs) -> Sequences:
    convert = ray.remote(num_returns=2)(_convert)
    tasks = [convert.remote(reference, needs) for reference in references]
    findings = results([finding for finding, _ in tasks])
    raise_faults([fault for finding in findings for fault in finding.faults])
    kept = [(finding, block) for finding, (_, block) in zip(findings, tasks, strict=True) if len(finding.steps)]
    num_dropped = sum(finding.num_dropped for finding in findings)
    skipped = tuple(reason for finding in findings for reason in finding.skipped)
    if not kept:
        raise _nothing_left(num_dropped, skipped, needs)
    return Sequences(
        blocks=tuple(block for _, block in kept),
        steps=np.concatenate([finding.steps for finding, _ in kept]),
        offsets=np.cumsum([0] + [len(finding.steps) for finding, _ in kept]),
        schema=_common_schema([finding for finding, _ in kept]),
        num_dropped=num_dropped,
        skipped=skipped,
        lost={name: pair for finding in findings for name, pair in finding.lost.items()},
        content=sum(finding.content for finding in findings) % 2**64,
        fetched=Blocks(on_disk=uuid.uuid4().hex if beyond_memory(sum(f.num_bytes for f in findings)) else ""),
    )


def take(sequences: Sequences, indices: np.ndarray) -> pa.Table:
    """The rows with these numbers, in this order."""
    if not len(indices):
        return sequences.schema.empty_table()
    block_of = np.searchsorted(sequences.offsets, indices, side="right") - 1
    order = np.argsort(block_of, kind="stable")
    blocks, starts = np.unique(block_of[order], return_index=True)
    pieces = []
    for block, rows in zip(blocks, np.split(order, starts[1:]), strict=True):
        table = sequences.fetched.fetch(sequences.blocks[block])
        pieces.append(table.take(pa.array(indices[rows] - sequences.offsets[block])))
    return pieces[0] if len(pieces) == 1 else pa.concat_tables(pieces).take(pa.array(np.argsort(order)))


def split(sequences: Sequences, held_out: float, *, seed: int, last: bool) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the sequences to learn from, and of those held out: a fraction of all, at least one if it is not 0.

    Args:
        last: hold out the last ones, as is usual with one long text; otherwise ones drawn by `seed`.

    Returns:
        two int64 arrays, both ascending; the first is never empty.
    """
    count = len(sequences)
    num_held_out = min(count - 1, max(1, round(held_out * count))) if held_out else 0
    order = np.arange(count) if last else np.random.default_rng(seed).permutation(count)
    return np.sort(order[: count - num_held_out]), np.sort(order[count - num_held_out :])


@dataclass(frozen=True)
class _Finding:
    """What a task found in one block."""

    steps: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    schema: pa.Schema = None
    first_key: str = ""
    num_dropped: int = 0
    faults: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    lost: dict[str, tuple[str, str]] = field(default_factory=dict)
    content: int = 0
    #: of the rows
    num_bytes: int = 0


def _convert(table: pa.Table, needs: Needs) -> tuple[_Finding, pa.Table]:
    """One block's useful rows; what is wrong with it is told, not raised: Ray would print a traceback beside it."""
    faults, skipped = ([] if name not in table.column_names else _reasons(table[name]) for name in REASONS)
    for name in REASONS:
        if name in table.column_names:
            table = table.filter(table[name].is_null()).drop_columns([name])
    nothing, lost = pa.table({}), lost_of_rows(table)
    if faults or not len(table):
        return _Finding(faults=tuple(faults), skipped=tuple(skipped)), nothing
    try:
        rows, num_dropped = _useful(canonical(table, needs, labelled=True), needs)
    except DataError as error:
        return _Finding(faults=(str(error),)), nothing
    first_key = rows["key"][0].as_py() if len(rows) else ""
    finding = _Finding(
        needs.steps(rows), rows.schema, first_key, num_dropped, (), tuple(skipped), lost, checksum_of(rows), rows.nbytes
    )
    return finding, rows.combine_chunks()


def _reasons(column: pa.ChunkedArray) -> list[str]:
    return list(column.drop_null().to_pylist())


def _useful(rows: pa.Table, needs: Needs) -> tuple[pa.Table, int]:
    """The rows with a step and a target, and the number of the others."""
    useful = step_counts(rows) > needs.ahead
    if needs.label in (Label.CLASS, Label.SET, Label.SEQUENCE):
        useful &= np.asarray(rows[needs.column].combine_chunks().is_valid())
    return rows if useful.all() else rows.filter(pa.array(useful)), int((~useful).sum())


def _common_schema(findings: list[_Finding]) -> pa.Schema:
    first = findings[0]
    for other in findings[1:]:
        if other.schema.equals(first.schema, check_metadata=True):
            continue
        ours, theirs = _difference(first.schema, other.schema)
        raise DataError(
            f"sequence {first.first_key!r} holds {ours}, sequence {other.first_key!r} holds {theirs}: all must be alike"
        )
    return first.schema


def _difference(one: pa.Schema, other: pa.Schema) -> tuple[str, str]:
    if one.names != other.names:
        return ", ".join(one.names), ", ".join(other.names)
    name = next(name for name in one.names if not one.field(name).equals(other.field(name), check_metadata=True))
    if one.field(name) != other.field(name):
        return f"{name}: {one.field(name).type}", f"{name}: {other.field(name).type}"
    ours, theirs = (", ".join(feature_names(schema, name)) or "ones without names" for schema in (one, other))
    return f"the features {ours}", theirs


def _nothing_left(num_dropped: int, skipped: tuple[str, ...], needs: Needs) -> DataError:
    if skipped:
        return all_skipped(skipped)
    if num_dropped and needs.ahead and needs.reads_last:
        return DataError(
            f"none of the {num_dropped} sequences is longer than data.horizon, {needs.ahead} steps: lower it, or give "
            f"longer sequences"
        )
    if num_dropped:
        return DataError(f"none of the {num_dropped} sequences has a step and a target to learn")
    return DataError("the dataset holds no sequences")
