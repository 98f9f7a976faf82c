"""Signals that ask a program to end: it finishes what it has begun at the first, and stops at the second."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stop_requests(request: Callable[[], None]) -> Iterator[None]:
    """Call `request` at the first SIGINT, SIGTERM or SIGHUP; the second raises KeyboardInterrupt.

    SIGHUP is a terminal that is closed: it is no impatience, and ignored where the user has said so (nohup). Only the
    main thread gets signals: elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number != signal.SIGHUP:
            raise KeyboardInterrupt
        if not asked:
            asked = True
            request()

    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    before = {number: signal.signal(number, handle) for number in SIGNALS if number not in ignored}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
