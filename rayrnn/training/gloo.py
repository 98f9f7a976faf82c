"""Links the members of a round with one another over gloo, and moves vectors along the links.

Values on a GPU travel through main memory. Gloo raises a RuntimeError when a member is lost.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import ray
import ray.util
import torch
from ray.actor import ActorHandle
from torch.distributed.distributed_c10d import ProcessGroupGloo, Store

from rayrnn.training.messages import GRACE_SECONDS, View

#: a ProcessGroupGloo, whose type stub knows neither its options nor its collectives
Links = Any


def connect(coordinator: ActorHandle, view: View, rank: int, patience: float) -> Links:
    """Link this member of the view, at its rank, with all others.

    Args:
        patience: seconds to wait for those who do not come, now and in every collective.

    Raises:
        RuntimeError: a member was lost on the way.
    """
    gloo: Any = ProcessGroupGloo
    options = gloo._Options()
    # by address: the host's name may resolve to 127.0.1.1, or not at all
    options._devices = [gloo.create_device(hostname=ray.util.get_node_ip_address())]
    options._timeout = timedelta(seconds=max(patience - GRACE_SECONDS, patience / 2))
    return gloo(_Rendezvous(coordinator, view.linked, patience), rank, len(view.members), options)


def all_reduce(links: Links, values: torch.Tensor) -> None:
    """Add up `values` over the members, in place."""
    host = values.cpu()
    links.allreduce([host]).wait()
    if host is not values:
        values.copy_(host)


def all_gather(links: Links, own: torch.Tensor, into: Sequence[torch.Tensor]) -> None:
    """Write what each member passes as `own`, as long on all of them, over `into`, in the order of the ranks."""
    hosts = [values.cpu() for values in into]
    links.allgather([hosts], [own.cpu()]).wait()
    for values, host in zip(into, hosts, strict=True):
        if host is not values:
            values.copy_(host)


class _Rendezvous(Store):
    """Gloo's rendezvous through the coordinator: no port of its own, and it ends when a member is lost."""

    def __init__(self, coordinator: ActorHandle, linked: int, patience: float) -> None:
        super().__init__()
        self._coordinator = coordinator
        self._linked = linked
        self._patience = patience

    def set(self, key: str, value: Any) -> None:
        data = value.encode() if isinstance(value, str) else bytes(value)
        ray.get(self._coordinator.put.remote(self._linked, key, data))

    def get(self, key: str) -> bytes:
        value: bytes | None = ray.get(self._coordinator.take.remote(self._linked, key), timeout=self._patience)
        if value is None:
            raise RuntimeError("a member was lost while the members linked")
        return value

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        for key in keys:
            self.get(key)
