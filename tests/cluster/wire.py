"""Delays and loses what hosts send: `python wire.py DELAY_SECONDS LOSS_FRACTION TAP...` (a kernel may lack netem).

Frames that the kernel redirects into a tap come out of the same tap again, later or never.
"""

import fcntl
import os
import random
import selectors
import struct
import sys
import time
from collections import deque

TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
LONGEST_FRAME = 65_536


def main(delay: float, loss: float, taps: list[str]) -> None:
    """Carry frames until killed."""
    selector = selectors.DefaultSelector()
    for tap in taps:
        selector.register(_open(tap), selectors.EVENT_READ)
    print("ready", flush=True)
    on_the_way: deque[tuple[float, int, bytes]] = deque()
    while True:
        patience = on_the_way[0][0] - time.monotonic() if on_the_way else None
        for key, _ in selector.select(None if patience is None else max(patience, 0)):
            for frame in _frames(key.fd):
                if random.random() >= loss:
                    on_the_way.append((time.monotonic() + delay, key.fd, frame))
        while on_the_way and on_the_way[0][0] <= time.monotonic():
            _, tap, frame = on_the_way.popleft()
            os.write(tap, frame)


def _open(name: str) -> int:
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return tap


def _frames(tap: int, at_most: int = 64) -> list[bytes]:
    frames: list[bytes] = []
    try:
        while len(frames) < at_most:
            frames.append(os.read(tap, LONGEST_FRAME))
    except BlockingIOError:
        pass
    return frames


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
