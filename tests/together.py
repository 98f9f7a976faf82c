"""Workers of one group as threads of one process: the averaging's arithmetic without a network."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


class Thread:
    """One member of a group of threads; adds up in rank order, so that every member gets the same bits."""

    def __init__(self, rank: int, size: int, shared: list[torch.Tensor | None], barrier: threading.Barrier) -> None:
        self.rank = rank
        self.size = size
        self._shared = shared
        self._barrier = barrier

    def open_round(self) -> None:
        """The members never change."""

    def sum(self, flat: torch.Tensor) -> bool:
        flat.copy_(torch.stack(self.gather(flat)).sum(0))
        return True

    def gather(self, own: torch.Tensor) -> list[torch.Tensor]:
        self._shared[self.rank] = own.clone()
        self._barrier.wait()
        parts = [tensor.clone() for tensor in self._shared if tensor is not None]
        self._barrier.wait()
        return parts


def together(size: int, work: Callable[[Thread], T]) -> list[T]:
    """Run `work` once a member, all at the same time; their results in rank order."""
    barrier, shared = threading.Barrier(size), [None] * size
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: work(Thread(rank, size, shared, barrier)), range(size)))
