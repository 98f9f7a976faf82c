"""The only file that knows Ray Train's inside: one worker, started, watched and replaced by Ray Train, from a thread.

Ray Train's own controller of several workers restarts all of them when two die at once, or when one is to be added; and
while it replaces one it waits for each of the others, also for one that hangs. Controllers of one worker each have
nobody to wait for. tests/training/test_train_internals.py says what is relied on in each name that Ray Train does not
promise to keep.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import ray
from ray.train import FailureConfig, Result, RunConfig, ScalingConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import (
    ENABLE_CONTROLLER_STRUCTURED_LOGGING_ENV_VAR,
    ENABLE_PREEMPTION_WATCHER_ENV_VAR,
    HEALTH_CHECK_INTERVAL_S_ENV_VAR,
    WORKER_GROUP_START_TIMEOUT_S_ENV_VAR,
    WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR,
)
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.failure_handling import FailureDecision, FailurePolicy
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup, state, worker_group
from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.placement_group import PlacementGroup

#: what Ray Train is told through the environment, unless the user has: how soon it replaces a dead worker, and one that
#: hangs for good; how long a worker waits for one place before it looks for another
SETTINGS = {
    HEALTH_CHECK_INTERVAL_S_ENV_VAR: "0.5",
    WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR: "60",
    WORKER_GROUP_START_TIMEOUT_S_ENV_VAR: "5",
}
#: what it is told in any case: each worker looks for preemptions itself (rayrnn/training/placement.py); its controllers
#: live in the user's process, whose logging is the user's, and set up by two at once it locks both out for good
ALWAYS = {ENABLE_PREEMPTION_WATCHER_ENV_VAR: "0", ENABLE_CONTROLLER_STRUCTURED_LOGGING_ENV_VAR: "0"}
#: what Ray Train starts a process for that has nothing to do here: shards of a dataset, and the end of a controller
#: that died
UNUSED = (DatasetsCallback, PlacementGroupCleanerCallback)


class Supervisor(Protocol):
    """Who decides where a worker goes, and what its failures mean."""

    def choose_node(self, number: int) -> str | None:
        """The node for a worker that starts now; None leaves it to Ray."""

    def see_request(self, number: int, place: PlacementGroup) -> None:
        """The worker has asked for its place."""

    def see_start(self, number: int) -> None:
        """The worker has its place, and a process there."""

    def find_no_room(self, number: int) -> bool:
        """No node has room for the worker; whether to try again."""

    def see_failure(self, number: int, error: Exception) -> bool:
        """The worker failed, or did not start; whether to start another in its place."""


class Solo(DataParallelTrainer):  # type: ignore[misc]
    """A Ray Train run with one worker, controlled from the thread that calls `fit`; inside `adapted` only.

    Args:
        work: what the worker runs, with `config`.
        resources: what it takes of its node, by Ray's names.
        folder: where Ray Train may write on this host.
    """

    def __init__(
        self,
        work: Callable[[dict[str, Any]], None],
        config: dict[str, Any],
        *,
        number: int,
        resources: dict[str, int],
        folder: str,
        supervisor: Supervisor,
    ) -> None:
        super().__init__(
            work,
            train_loop_config=config,
            scaling_config=ScalingConfig(num_workers=1, use_gpu="GPU" in resources, resources_per_worker=resources),
            run_config=RunConfig(name=f"worker-{number}", storage_path=folder),
        )
        self._number = number
        self._supervisor = supervisor
        self._control: tuple[asyncio.AbstractEventLoop, asyncio.Task[None]] | None = None

    def cancel(self) -> None:
        """Let `fit` end at its next look at the worker, with asyncio's CancelledError; from another thread."""
        if self._control is not None:
            loop, task = self._control
            with suppress(RuntimeError):  # it has ended already
                loop.call_soon_threadsafe(task.cancel)

    def _initialize_and_run_controller(self, **parts: Any) -> Result:
        """Ray Train would start an actor for the controller; here it runs in this thread."""
        ours = {
            "failure_policy": _RetryAsTold(self._number, self._supervisor),
            "scaling_policy": _OneWorker(self.scaling_config),
        }
        controller = _Controller(**parts | ours)
        asyncio.run(self._run(controller))
        return controller.get_result()

    async def _run(self, controller: TrainController) -> None:
        task = asyncio.ensure_future(controller.run())
        self._control = asyncio.get_running_loop(), task
        await task

    def _create_default_callbacks(self) -> list[Any]:
        usual = super()._create_default_callbacks()
        kept = [callback for callback in usual if not isinstance(callback, UNUSED)]
        return [*kept, _Placement(self._number, self._supervisor)]


@contextmanager
def adapted(worker_class: type) -> Iterator[None]:
    """Inside, Ray Train's parts fit a worker that is alone, and controllers that share a process.

    Args:
        worker_class: of a worker's process, in the place of Ray Train's RayTrainWorker.
    """
    barrier, shutdown, usual = worker_group.SynchronizationActor, state._shutdown_sync_actor, _Group._worker_cls
    worker_group.SynchronizationActor, state._shutdown_sync_actor = _NoBarrier, _pass_over
    _Group._worker_cls = worker_class
    try:
        with environment(ALWAYS | {name: os.environ.get(name, value) for name, value in SETTINGS.items()}):
            yield
    finally:
        worker_group.SynchronizationActor, state._shutdown_sync_actor = barrier, shutdown
        _Group._worker_cls = usual


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Inside, the environment has these values."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def make_worker() -> Any:
    """What Ray Train's controller expects in a worker's process."""
    return RayTrainWorker()


class _Group(WorkerGroup):  # type: ignore[misc]
    """The one worker's group."""

    def _create_placement_group(self, *arguments: Any, **named: Any) -> Any:
        handle = super()._create_placement_group(*arguments, **named)
        for callback in self._callbacks:
            if isinstance(callback, _Placement):
                callback.see_request(handle.placement_group)
        return handle

    def _init_train_context_on_workers(
        self, workers: list[Any], sync_actor: str, train_context_args: dict[str, list[Any]]
    ) -> None:
        """As Ray Train does, without its controller, which is no actor here: a worker tells it of checkpoints only."""
        (worker,) = workers
        given = {name: value for name, (value,) in train_context_args.items()}
        context = worker.actor.init_train_context.remote(
            train_run_context=self._train_run_context,
            distributed_context=worker.distributed_context,
            synchronization_actor=sync_actor,
            storage_context=self._storage_context,
            worker_callbacks=self._worker_callbacks_to_propagate,
            controller_actor=None,
            **given,
        )
        ray.get(context)
        self._decorate_worker_log_file_paths(workers)

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Any) -> Any:
        """Settings are for the controller: a worker without any of its own takes a process that Ray has ready."""
        return custom_runtime_env


class _Controller(TrainController):  # type: ignore[misc]
    worker_group_cls = _Group


class _OneWorker(FixedScalingPolicy):  # type: ignore[misc]
    """One worker, and no word of it to a process that counts what all the cluster's users want.

    Ray Train would start that process and wait for it, five seconds at most. A cluster that grows sees the place that
    is asked for.
    """

    def after_controller_start(self, *_: Any) -> None:
        """Nothing to say."""

    async def before_controller_shutdown(self) -> None:
        """Nothing to take back."""

    def _maybe_send_resource_request(self) -> None:
        """Nothing to repeat."""


class _NoBarrier:
    """In the place of a process in which workers wait for one another: a worker that is alone never does."""

    @staticmethod
    def options(**_: Any) -> "type[_NoBarrier]":
        return _NoBarrier

    @staticmethod
    def remote(**_: Any) -> str:
        return "nobody to wait for"


def _pass_over(_: str) -> None:
    """There is no such process to end."""


class _Placement(ControllerCallback, WorkerGroupCallback):  # type: ignore[misc]
    """Asks the supervisor for a node each time the worker starts."""

    def __init__(self, number: int, supervisor: Supervisor) -> None:
        self._number = number
        self._supervisor = supervisor

    def on_controller_start_worker_group(self, **_: Any) -> dict[str, str] | None:
        node = self._supervisor.choose_node(self._number)
        return {"ray.io/node-id": node} if node is not None else None

    def see_request(self, place: PlacementGroup) -> None:
        self._supervisor.see_request(self._number, place)

    def after_worker_group_start(self, worker_group: Any) -> None:
        self._supervisor.see_start(self._number)


class _RetryAsTold(FailurePolicy):  # type: ignore[misc]
    """Starts the worker again as long as the supervisor wants it."""

    def __init__(self, number: int, supervisor: Supervisor) -> None:
        super().__init__(FailureConfig())
        self._number = number
        self._supervisor = supervisor

    def make_decision(self, training_failed_error: Exception) -> FailureDecision:
        cause = getattr(training_failed_error, "controller_failure", training_failed_error)
        if isinstance(cause, WorkerGroupStartupTimeoutError):
            again = self._supervisor.find_no_room(self._number)
        else:
            again = self._supervisor.see_failure(self._number, training_failed_error)
        return FailureDecision.RETRY if again else FailureDecision.RAISE
