"""Standard streams that are closed, or whose reader goes away: neither ends what a program has begun."""

import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO, cast


def lasting(stream: TextIO) -> TextIO:
    """The same stream for talk: when nobody reads it any more, what is written goes nowhere."""
    return cast(TextIO, _Lasting(stream))


def secure_streams() -> bool:
    """Make this process's standard streams safe to use, before it opens anything; whether stdout was open.

    A file that is opened while stdout is closed gets its number, and everything that is printed goes into the file.
    What is closed is opened to nowhere. stderr lasts. Signs that stdout's encoding lacks are written as escapes.
    """
    closed = [number for number in range(3) if not _is_open(number)]
    for number in closed:
        assert os.open(os.devnull, os.O_RDWR) == number
        os.set_inheritable(number, True)
    # Python has None in the place of a stream that was closed
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8")
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr = lasting(sys.stderr or os.fdopen(2, "w", encoding="utf-8"))
    return 1 not in closed


def _is_open(number: int) -> bool:
    with suppress(OSError):
        os.fstat(number)
        return True
    return False


class _Lasting:
    """Passes on what the stream takes; after its first failure nothing more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._gone = False

    def write(self, text: str) -> int:
        """Write, if there is somebody to read it; signs that the stream's encoding lacks are written as escapes."""
        if not isinstance(text, str):
            raise TypeError(f"this takes text, not {type(text).__name__}")
        if not self._gone:
            try:
                self._stream.write(text)
            except UnicodeEncodeError as error:
                self.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
            except (OSError, ValueError):  # its reader is gone, its disk is full, or it is closed
                self._gone = True
        return len(text)

    def flush(self) -> None:
        """Pass on what was kept back."""
        if not self._gone:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._gone = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
