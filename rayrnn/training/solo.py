"""One worker as a Ray Train run of its own: Ray Train starts it, watches it and replaces it, and nobody else."""

import asyncio
import os
import threading
from typing import Any, ClassVar, Protocol

from ray.train import FailureConfig, Result, RunConfig, ScalingConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import (
    ENABLE_CONTROLLER_STRUCTURED_LOGGING_ENV_VAR,
    ENABLE_PREEMPTION_WATCHER_ENV_VAR,
    HEALTH_CHECK_INTERVAL_S_ENV_VAR,
)
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.failure_handling import FailureDecision, FailurePolicy
from ray.train.v2._internal.logging.logging import LoggingManager
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.placement_group import PlacementGroup

from rayrnn.training.assignment import Assignment
from rayrnn.training.room import Need
from rayrnn.training.worker import train_worker

#: what Ray Train does otherwise unless the user says so: it asks its worker how it is every 2 s, and starts a process
#: that looks for preemptions, as each worker does by itself (rayrnn/training/notice.py)
SETTINGS = {HEALTH_CHECK_INTERVAL_S_ENV_VAR: "0.5", ENABLE_PREEMPTION_WATCHER_ENV_VAR: "0"}
#: what Ray Train starts a process for that has nothing to do here: shards of a dataset, and the end of a controller
#: that died, which the employer sees to
UNUSED = (DatasetsCallback, PlacementGroupCleanerCallback)


class Employer(Protocol):
    """Who decides where a worker goes, and what its failures mean."""

    def choose_node(self, number: int) -> str | None:
        """The node for a worker that starts now; None leaves it to Ray."""

    def take_in(self, number: int, placement_group: PlacementGroup) -> None:
        """The worker has its place."""

    def find_no_room(self, number: int) -> bool:
        """No node has room for the worker; whether to try again."""

    def see_failure(self, number: int, error: Exception) -> bool:
        """The worker failed, or did not start; whether to start another in its place."""


class Solo(DataParallelTrainer):  # type: ignore[misc]
    """A Ray Train run with one worker, controlled from the thread that calls `fit`.

    Ray Train's own controller of several workers restarts all of them when two die at once, or when one is to be
    added; and while it replaces one it waits for each of the others, also for one that hangs. Controllers of one
    worker each have nobody to wait for.

    Args:
        folder: where Ray Train may write on this host.
    """

    _setting_up: ClassVar = threading.Lock()
    _is_set_up: ClassVar = False

    def __init__(self, assignment: Assignment, number: int, *, need: Need, folder: str, employer: Employer) -> None:
        super().__init__(
            train_worker,
            train_loop_config={"assignment": assignment, "number": number},
            scaling_config=ScalingConfig(num_workers=1, use_gpu=need.gpus > 0, resources_per_worker=need.resources()),
            run_config=RunConfig(name=f"worker-{number}", storage_path=folder),
        )
        self._number = number
        self._employer = employer

    def _initialize_and_run_controller(self, **parts: Any) -> Result:
        """Ray Train would start an actor for the controller; here it runs in this thread."""
        self._set_up_logging(parts["train_run_context"])
        policy = _Patience(self._number, self._employer)
        controller = TrainController(**parts | {"failure_policy": policy})
        asyncio.run(controller.run())
        return controller.get_result()

    @classmethod
    def _set_up_logging(cls, context: Any) -> None:
        """Once a process: a controller that does it while another writes its first line can lock both out for good."""
        with cls._setting_up:
            if not cls._is_set_up:
                os.environ[ENABLE_CONTROLLER_STRUCTURED_LOGGING_ENV_VAR] = "0"
                LoggingManager.configure_controller_logger(context)
                cls._is_set_up = True

    def _create_default_callbacks(self) -> list[Any]:
        usual = super()._create_default_callbacks()
        kept = [callback for callback in usual if not isinstance(callback, UNUSED)]
        return [*kept, _Placement(self._number, self._employer)]


class _Placement(ControllerCallback, WorkerGroupCallback):  # type: ignore[misc]
    """Asks the employer for a place each time the worker starts."""

    def __init__(self, number: int, employer: Employer) -> None:
        self._number = number
        self._employer = employer

    def on_controller_start_worker_group(self, **_: Any) -> dict[str, str] | None:
        node = self._employer.choose_node(self._number)
        return {"ray.io/node-id": node} if node is not None else None

    def after_worker_group_start(self, worker_group: Any) -> None:
        handle = worker_group.get_worker_group_state().placement_group_handle
        self._employer.take_in(self._number, handle.placement_group)


class _Patience(FailurePolicy):  # type: ignore[misc]
    """Starts the worker again as long as the employer wants it."""

    def __init__(self, number: int, employer: Employer) -> None:
        super().__init__(FailureConfig())
        self._number = number
        self._employer = employer

    def make_decision(self, training_failed_error: Exception) -> FailureDecision:
        cause = getattr(training_failed_error, "controller_failure", training_failed_error)
        if isinstance(cause, WorkerGroupStartupTimeoutError):
            again = self._employer.find_no_room(self._number)
        else:
            again = self._employer.see_failure(self._number, training_failed_error)
        return FailureDecision.RETRY if again else FailureDecision.RAISE
