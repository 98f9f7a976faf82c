"""Links the members of a round with one another over gloo, and moves vectors along the links.

Values on a GPU travel through main memory. Gloo raises a RuntimeError when a member is lost.
"""

import os
import select
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import ray
import ray.util
import torch
from ray.actor import ActorHandle
from torch.distributed.distributed_c10d import ProcessGroupGloo, Store

from rayrnn.training.messages import GRACE_SECONDS, View

#: in which gloo's thread has done what its epoll had told it
TURN_SECONDS = 0.05
#: what is new among this process's descriptors belongs to one device
ONE_AT_A_TIME = threading.Lock()

#: a ProcessGroupGloo, whose type stub knows neither its options nor its collectives
Links = Any


def connect(coordinator: ActorHandle, view: View, rank: int, patience: float) -> Links:
    """Link this member of the view, at its rank, with all others.

    Args:
        patience: seconds to wait for those who do not come, now and in every collective.

    Raises:
        RuntimeError: a member was lost on the way.
    """
    store = _Rendezvous(coordinator, view.linked, patience)
    timeout = timedelta(seconds=max(patience - GRACE_SECONDS, patience / 2))
    return link(store, rank, len(view.members), host=ray.util.get_node_ip_address(), timeout=timeout)


def link(store: Store, rank: int, size: int, *, host: str, timeout: timedelta) -> Links:
    """Link with the others of this store, at an address of this host; then nobody else can connect to it any more.

    Raises:
        RuntimeError: one of the others did not come.
    """
    gloo: Any = ProcessGroupGloo
    options = gloo._Options()
    with ONE_AT_A_TIME:
        before = _descriptors()
        # by address: the host's name may resolve to 127.0.1.1, or not at all
        options._devices = [gloo.create_device(hostname=host)]
        listener = _listening(_descriptors() - before, host)
    options._timeout = timeout
    links = gloo(store, rank, size, options)
    if listener is not None:
        _close(*listener)
    return links


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


# Gloo listens for as long as the links live, to anybody on the network, and keeps every connection for ever. All links
# are made when the group stands, and another group has a listener of its own: then this one has no use any more.


def _descriptors() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd")} if os.path.isdir("/proc/self/fd") else set()


def _listening(descriptors: set[int], host: str) -> tuple[int, int] | None:
    """The listening socket among the descriptors, and the epoll that watches it; None where gloo has none such."""
    for epoll in descriptors:
        for watched in _watched_by(epoll) & descriptors:
            with suppress(OSError), socket.socket(fileno=os.dup(watched)) as found:
                listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if listens and found.getsockname()[0] == host:
                    return watched, epoll
    return None


def _watched_by(descriptor: int) -> set[int]:
    with suppress(OSError), open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
        return {int(line.split()[1]) for line in file if line.startswith("tfd:")}
    return set()


def _close(listener: int, epoll: int) -> None:
    """Put in the listener's place what nobody can connect to: gloo takes its descriptor back when the links end."""
    with suppress(OSError), select.epoll.fromfd(os.dup(epoll)) as watch:
        watch.unregister(listener)
        time.sleep(TURN_SECONDS)  # for gloo's thread to accept what it was told of before
        silent = os.eventfd(0, os.EFD_CLOEXEC)
        os.dup2(silent, listener, inheritable=False)
        os.close(silent)
        watch.register(listener, 0)


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
