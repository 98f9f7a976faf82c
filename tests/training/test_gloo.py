"""The links of a group: they carry sums, and nobody else gets through to them."""

import os
import socket
import threading
import time
from datetime import timedelta

import psutil
import pytest
import torch
from torch.distributed import HashStore, PrefixStore

from rayrnn.training.gloo import Links, all_reduce, link

HOST = "127.0.0.1"
TIMEOUT = timedelta(seconds=30)


def linked(store: HashStore, name: str, size: int) -> list[Links]:
    """A group of threads of this process."""
    links: dict[int, Links] = {}

    def join(rank: int) -> None:
        links[rank] = link(PrefixStore(name, store), rank, size, host=HOST, timeout=TIMEOUT)

    threads = [threading.Thread(target=join, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [links[rank] for rank in range(size)]


def summed(group: list[Links]) -> list[float]:
    values = [torch.ones(1) for _ in group]
    threads = [threading.Thread(target=all_reduce, args=pair) for pair in zip(group, values, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [float(value) for value in values]


def listening() -> set[tuple[str, int]]:
    connections = psutil.Process().net_connections("tcp")
    return {tuple(connection.laddr) for connection in connections if connection.status == psutil.CONN_LISTEN}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_nobody_can_connect_to_a_group_that_stands() -> None:
    before, opened = listening(), descriptors()
    store = HashStore()
    first = linked(store, "first", 3)
    assert listening() == before
    assert summed(first) == [3.0] * 3
    second = linked(store, "second", 2)  # as when a member was lost
    assert (summed(first), summed(second)) == ([3.0] * 3, [2.0] * 2)
    del first, second
    deadline = time.monotonic() + 20
    while descriptors() > opened and time.monotonic() < deadline:
        time.sleep(0.05)
    assert descriptors() <= opened


def test_strangers_who_connect_while_a_group_links_harm_nobody_and_are_rid_of_with_it() -> None:
    """600 of them, who say nothing, and as many attempts when the group stands."""
    store, opened = HashStore(), descriptors()
    before = listening()
    first: list[Links] = []
    linking = threading.Thread(target=lambda: first.append(link(store, 0, 2, host=HOST, timeout=TIMEOUT)))
    linking.start()
    while not (new := listening() - before):
        time.sleep(0.01)
    (address,) = new
    strangers = [socket.create_connection(address) for _ in range(600)]
    second = link(store, 1, 2, host=HOST, timeout=TIMEOUT)
    linking.join()
    for _ in range(600):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
    assert summed([*first, second]) == [2.0] * 2
    for stranger in strangers:
        stranger.close()
    first.clear()
    del second
    deadline = time.monotonic() + 20
    while descriptors() > opened and time.monotonic() < deadline:
        time.sleep(0.05)
    assert descriptors() <= opened
