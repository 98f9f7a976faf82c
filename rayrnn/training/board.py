"""The run's metrics as TensorBoard event files."""

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.summary import scalar

#: between two moments at which what was shown reaches the disk
FLUSH_SECONDS = 10.0


class Board:
    """One event file, written by the caller's own thread: tensorboardX's thread dies at a full disk, and whoever goes
    on showing values then waits for it forever.

    Args:
        folder: where the file is made, at the first value.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: EventsWriter | None = None
        self._flushed = 0.0

    def show(self, round_number: int, values: Mapping[str, float | None]) -> None:
        """Add the values that are there to the curves of their names.

        Raises:
            OSError: the file cannot be written.
        """
        if self._writer is None:
            self._writer = EventsWriter(str(self._folder / "events"))
        for name, value in values.items():
            if value is not None:
                self._writer.write_event(Event(wall_time=time.time(), step=round_number, summary=scalar(name, value)))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Write what is left.

        Raises:
            OSError: it cannot be written.
        """
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()
