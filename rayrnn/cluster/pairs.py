"""What a host of the cluster can do: compute, and talk to every other; measured by one actor on each host."""

import secrets
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import ray.util
import torch

T = TypeVar("T")

PINGS = 20
#: seconds of sending, and bytes at most
SENDING = 0.6
MOST = 256 * 2**20
#: seconds until the other side must have answered
PATIENCE = 20.0
SECRET_BYTES = 16


@dataclass(frozen=True)
class Speed:
    """Of the way between two hosts."""

    #: seconds of a round trip
    latency: float
    #: bits a second, one way
    bandwidth: float


class Prober:
    """Lives on one host. Its `measure` talks to the `listen` of another, over plain TCP as averaging does."""

    def compute(self) -> str:
        """Multiply two matrices on every device, check it, and name the versions that did it.

        Raises:
            RuntimeError: a device computes something else than the others.
        """
        torch.manual_seed(0)
        left, right = torch.rand(256, 128), torch.rand(128, 64)
        expected = left.double() @ right.double()
        devices = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        for device in devices:
            product = (left.to(device) @ right.to(device)).cpu().double()
            if not torch.allclose(product, expected, rtol=1e-2):
                raise RuntimeError(f"{device} computes a wrong product of two matrices")
        return f"torch {torch.__version__} on {', '.join(devices)}"

    def listen(self) -> tuple[int, bytes]:
        """Wait for one measurement in the background; its port, and the secret that opens it."""
        secret = secrets.token_bytes(SECRET_BYTES)
        server = socket.create_server((ray.util.get_node_ip_address(), 0))
        server.settimeout(PATIENCE)
        threading.Thread(target=_answer, args=(server, secret), daemon=True).start()
        return server.getsockname()[1], secret

    def measure(self, address: str, port: int, secret: bytes) -> Speed:
        """The way from here to where another Prober listens.

        Raises:
            OSError: there is none.
        """
        with socket.create_connection((address, port), timeout=PATIENCE) as link:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.sendall(secret)
            times = [_ping(link) for _ in range(PINGS)]
            return Speed(sorted(times)[PINGS // 2], _send(link))


def rounds_of_pairs(hosts: Sequence[T]) -> Iterator[list[tuple[T, T]]]:
    """All pairs, in rounds in which no host has two: as in a tournament where everybody plays everybody."""
    ring: list[T | None] = [*hosts, *([None] * (len(hosts) % 2))]
    for _ in range(len(ring) - 1):
        half = len(ring) // 2
        pairs = zip(ring[:half], reversed(ring[half:]), strict=True)
        yield [(first, second) for first, second in pairs if first is not None and second is not None]
        ring = [ring[0], ring[-1], *ring[1:-1]]


def _ping(link: socket.socket) -> float:
    started = time.monotonic()
    link.sendall(b".")
    if not link.recv(1):
        raise ConnectionError("the other side has hung up")
    return time.monotonic() - started


def _send(link: socket.socket) -> float:
    """Bits a second, until the other side has it all."""
    block, sent, started = bytes(65_536), 0, time.monotonic()
    while sent < MOST and time.monotonic() - started < SENDING:
        link.sendall(block)
        sent += len(block)
    link.shutdown(socket.SHUT_WR)
    if not link.recv(1):
        raise ConnectionError("the other side has hung up")
    return 8 * sent / (time.monotonic() - started)


def _answer(server: socket.socket, secret: bytes) -> None:
    """Echo the pings and swallow the rest, for the one that knows the secret."""
    with server, suppress(OSError):
        link, _ = server.accept()
        with link:
            link.settimeout(PATIENCE)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not secrets.compare_digest(_receive(link, SECRET_BYTES), secret):
                return
            for _ in range(PINGS):
                link.sendall(_receive(link, 1))
            while link.recv(2**20):
                pass
            link.sendall(b".")


def _receive(link: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size and (part := link.recv(size - len(received))):
        received += part
    return received
