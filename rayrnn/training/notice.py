"""Learns that this worker's node is about to leave the cluster: drained by hand, or by a cloud that takes it back."""

import threading
from contextlib import suppress

import ray
from ray._private.state import state as cluster_state
from ray.exceptions import RayError

#: between two questions
LOOK_SECONDS = 1.0


class Notice:
    """Asks Ray now and then, in a thread of its own; use it as a context."""

    def __init__(self) -> None:
        self._node = ray.get_runtime_context().get_node_id()
        self._given = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, name="notice", daemon=True)

    @property
    def given(self) -> bool:
        """Whether the node is about to leave; never waits."""
        return self._given

    def __enter__(self) -> "Notice":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._given and not self._closed.wait(LOOK_SECONDS):
            with suppress(RayError, RuntimeError):  # the head is away for a moment
                self._given = self._node in cluster_state.get_draining_nodes()
