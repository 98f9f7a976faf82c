"""The class of a worker's process: Ray Train's own, behind a name that costs nothing to load.

Whoever is handed a worker's actor loads its class, and so does the coordinator, to see that the worker lives: it must
not load Ray Train for that.
"""

from importlib import import_module
from typing import Any


class RayTrainWorker:
    """Hands everything that Ray Train's controller asks of its worker on to one."""

    def __init__(self) -> None:
        self._worker: Any = import_module("rayrnn.training.train_internals").make_worker()

    def execute(self, *arguments: Any, **named: Any) -> Any:
        return self._worker.execute(*arguments, **named)

    def get_metadata(self) -> Any:
        return self._worker.get_metadata()

    def init_train_context(self, *arguments: Any, **named: Any) -> None:
        self._worker.init_train_context(*arguments, **named)

    def run_train_fn(self, *arguments: Any) -> None:
        self._worker.run_train_fn(*arguments)

    def poll_status(self) -> Any:
        return self._worker.poll_status()

    def shutdown(self) -> None:
        self._worker.shutdown()
