"""Carries events from the workers to the driver, and the driver's wish to stop to the workers."""

from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

Event = dict[str, Any]


def open_mailbox() -> ActorHandle:
    """Start a run's mailbox on this node; it lives as long as the caller."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Mailbox).remote()


class Mailbox:
    """One a run, beside the driver; no call ever waits.

    The newest checkpoint rests here too, so that workers which Ray starts again go on from it.
    """

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._stop = False
        self._checkpoint: Any = None

    def post(self, event: Event) -> bool:
        """Leave an event; True when the workers should finish their round and stop."""
        self._events.append(event)
        return self._stop

    def collect(self) -> list[Event]:
        """Take all events, oldest first."""
        events, self._events = self._events, []
        return events

    def request_stop(self) -> None:
        self._stop = True

    def stop_requested(self) -> bool:
        return self._stop

    def keep_checkpoint(self, checkpoint: Any) -> None:
        self._checkpoint = checkpoint

    def checkpoint(self) -> Any:
        """The newest complete checkpoint, or None at the start of a new run."""
        return self._checkpoint
