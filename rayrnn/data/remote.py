"""Waits for Ray tasks over data, and brings their errors home as our own."""

from collections.abc import Sequence
from typing import Any

import ray
from pyarrow import fs
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayrnn.errors import RayrnnError


def results(references: Sequence[ray.ObjectRef]) -> list[Any]:
    """The tasks' results in order.

    Raises:
        RayrnnError: what the first task to fail raised, without Ray's wrapping around it.
    """
    try:
        return list(ray.get(list(references)))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RayrnnError):
            raise error.cause from None
        raise


def beside(filesystem: fs.FileSystem) -> dict[str, Any]:
    """Options for tasks that read it: local files are those of this host, which other hosts do not have."""
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    if filesystem.type_name != "local" or len(nodes) < 2:
        return {}
    here = ray.get_runtime_context().get_node_id()
    # a head that offers no CPU to anybody still reads its own files
    cpus = {} if nodes[here]["Resources"].get("CPU") else {"num_cpus": 0}
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)} | cpus
