"""Runs on the head after the launcher: waits for every host, has each compute and any two talk.

`python -m rayrnn.cluster.on_host.verify NAME SECONDS HOST...` prints what it sees as lines of JSON, each `{word: ...}`:

    joined   the addresses that have joined
    absent   address -> what the head's log says about it; these are not waited for any more
    fault    the addresses of a host (or two), and what is wrong there
    computes address -> with what
    pair     two addresses, seconds of a round trip, bits a second
    done     the addresses that have joined, at the end
"""

import glob
import json
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
import ray.util
import torch
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayrnn.cluster import connect
from rayrnn.cluster.local_head import LocalHead, one_at_a_time, save_head
from rayrnn.cluster.on_host.facts import folder_of
from rayrnn.cluster.ray_internals import hosts_being_started, reason_of
from rayrnn.errors import ClusterError

T = TypeVar("T")
PINGS = 20
#: seconds of sending, and bytes at most
SENDING = 0.6
MOST = 256 * 2**20
#: seconds until the other side must have answered
PATIENCE = 20.0
SECRET_BYTES = 16
#: seconds that a host may be neither there nor on its way
QUIET_SECONDS = 60.0
#: seconds that a host which Ray has done with may take to be seen among those that have joined
FAILED_SECONDS = 8.0
#: seconds that an actor's Python and torch may take to start on a host
START_SECONDS = 120.0
LOOK_SECONDS = 1.0


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
        # whatever it dies of closes the link, and the other side says so; nobody who comes at all ends it too
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


def main(name: str, patience: float, hosts: list[str]) -> int:
    """Verify the cluster `name`; 0 when all of `hosts` have joined, compute, and talk to each other."""
    folder = folder_of(name)
    try:
        address = (Path(folder) / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip()
        with one_at_a_time():
            # whoever logs in on the head finds this Ray as if `rayrnn up` had been typed there
            save_head(LocalHead(address, folder, None, time.time()))
        with connect(address):
            joined, faults = verify(hosts, folder, patience)
    except (ClusterError, OSError) as error:
        tell("fault", [[hosts[0]], f"Ray does not run on the head: {error}"])
        return 1
    tell("done", sorted(joined))
    return 0 if set(hosts) <= set(joined) and not faults else 1


def verify(hosts: Sequence[str], folder: str, patience: float) -> tuple[dict[str, str], int]:
    """The hosts that have joined, and how many of them cannot do their part.

    Ray may still count a host that has just died: such a one is waited for again.
    """
    while True:
        joined = wait_for(hosts, folder, patience)
        faults, lost = prove(joined)
        if not lost:
            return joined, faults


def tell(word: str, value: Any) -> None:
    """One line for the side that asked."""
    print(json.dumps({word: value}), flush=True)


def wait_for(hosts: Sequence[str], folder: str, patience: float) -> dict[str, str]:
    """The hosts that have joined, address -> Ray's name for it, once it is clear who will not.

    Args:
        patience: seconds for all of it; a host that Ray has given up, or never begun with, is given up before.
    """
    started = last_sign = hope = time.monotonic()
    joined: dict[str, str] = {}
    on_the_way: set[str] = set()
    failed: set[str] = set()
    while True:
        before = (sorted(joined), on_the_way)
        joined = _alive()
        pending = hosts_being_started()
        failed = (failed | (on_the_way - pending)) - set(joined) - pending
        on_the_way = pending
        now = time.monotonic()
        if (sorted(joined), on_the_way) != before:
            tell("joined", sorted(joined))
            last_sign = now
        missing = set(hosts) - set(joined)
        if not missing <= failed:
            hope = now
        gave_up = now - hope > FAILED_SECONDS or (now - last_sign > QUIET_SECONDS and not missing & on_the_way)
        if not missing or gave_up or now - started > patience:
            if missing:
                tell("absent", {host: log_lines_about(host, folder) for host in sorted(missing)})
            return joined
        time.sleep(LOOK_SECONDS)


def prove(nodes: dict[str, str]) -> tuple[int, bool]:
    """Have each host compute and each pair talk; how many cannot, and whether one died meanwhile."""
    probers = {address: _start(node) for address, node in nodes.items()}
    able, faults = [], 0
    for address, prober in probers.items():
        try:
            tell("computes", [address, ray.get(prober.compute.remote(), timeout=START_SECONDS)])
            able.append(address)
        except RayError as error:
            if nodes[address] not in _alive().values():
                return 0, True
            tell("fault", [[address], f"does not compute: {reason_of(error)}"])
            faults += 1
    for pairs in rounds_of_pairs(able):
        where = [probers[second].listen.remote() for _, second in pairs]
        speeds = [
            _speed(probers[first], second, listening) for (first, second), listening in zip(pairs, where, strict=True)
        ]
        faults += sum(not _tell_of_pair(*pair, speed) for pair, speed in zip(pairs, speeds, strict=True))
    return faults, False


def log_lines_about(host: str, folder: str) -> list[str]:
    """What the head's log says about starting a host, the last of it."""
    said: list[str] = []
    for path in sorted(glob.glob(f"{folder}/ray/session_latest/logs/monitor*")):
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
        said += [line.strip() for line in lines if host in line or "rror" in line or "ailed" in line]
    return said[-200:]


def _alive() -> dict[str, str]:
    return {node["NodeManagerAddress"]: node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _start(node: str) -> ActorHandle:
    where = NodeAffinitySchedulingStrategy(node, soft=False)
    # no CPU of its own: a cluster that is at work can be verified too
    return ray.remote(Prober).options(num_cpus=0, scheduling_strategy=where).remote()


def _speed(prober: ActorHandle, second: str, listening: ray.ObjectRef) -> ray.ObjectRef:
    try:
        port, secret = ray.get(listening, timeout=PATIENCE)
    except RayError:
        return listening
    return prober.measure.remote(second, port, secret)


def _tell_of_pair(first: str, second: str, measured: ray.ObjectRef) -> bool:
    try:
        speed: Speed = ray.get(measured, timeout=3 * PATIENCE)
    except RayError as error:
        tell("fault", [[first, second], f"cannot talk to each other: {reason_of(error)}"])
        return False
    tell("pair", [first, second, speed.latency, speed.bandwidth])
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))
