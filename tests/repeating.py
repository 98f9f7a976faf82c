"""Doing something again until what was asked for has come about: Ray does much of it a moment later."""

import time
from collections.abc import Callable

#: long enough for a busy machine
PATIENCE = 20.0


def again_and_again(call: Callable[[], object]) -> None:
    """Call until it raises; return when it has not for so long."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        call()
