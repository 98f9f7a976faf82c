"""Keeps a run's workers: those that die are replaced, and more are taken on while there is room for them.

Every worker is a Ray Train run of its own: Ray Train starts it, watches it and replaces it, and nobody else.
"""

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar, Protocol

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
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
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayrnn.training.messages import Assignment
from rayrnn.training.placement import Need, free_places
from rayrnn.training.worker import train_worker

#: what Ray Train does otherwise unless the user says so: it asks its worker how it is every 2 s, and starts a process
#: that looks for preemptions, as each worker does by itself (rayrnn/training/placement.py)
SETTINGS = {HEALTH_CHECK_INTERVAL_S_ENV_VAR: "0.5", ENABLE_PREEMPTION_WATCHER_ENV_VAR: "0"}
#: what Ray Train starts a process for that has nothing to do here: shards of a dataset, and the end of a controller
#: that died, which the employer sees to
UNUSED = (DatasetsCallback, PlacementGroupCleanerCallback)
#: between two looks whether there is room for another worker
LOOK_SECONDS = 1.0
#: for Ray Train to let go of the workers
CLOSING_SECONDS = 5.0


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


def start_crew(assignment: Assignment, *, need: Need, begin_with: int, settings: Mapping[str, str]) -> ActorHandle:
    """Start a run's workers; they live no longer than the caller.

    Args:
        need: what one worker takes of its host.
        begin_with: workers to start now; up to `averaging.workers` more follow when there is room.
        settings: of Ray Train, as environment variables.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "scheduling_strategy": here, "max_concurrency": 4}
    crew = ray.remote(**options)(Crew).remote(assignment, need, dict(settings))
    ray.get(crew.start.remote(begin_with))
    return crew


class Crew:
    """One a run, beside the driver. Every worker has a thread here that follows its Ray Train run."""

    def __init__(self, assignment: Assignment, need: Need, settings: dict[str, str]) -> None:
        os.environ.update(SETTINGS | settings)
        self._assignment = assignment
        self._need = need
        self._most = assignment.recipe.averaging.most
        self._folder = tempfile.TemporaryDirectory(prefix="rayrnn-train-")
        self._lock = threading.Lock()
        self._threads: dict[int, threading.Thread] = {}
        #: where each worker is, or is about to be; and the workers that have their place
        self._nodes: dict[int, str] = {}
        self._places: dict[int, PlacementGroup] = {}
        self._waiting: set[int] = set()
        #: nobody is taken on any more
        self._closing = False

    def start(self, count: int) -> None:
        """Start so many workers, and look for room for more."""
        for number in range(count):
            self._employ(number)
        if count < self._most:
            threading.Thread(target=self._grow, name="grow", daemon=True).start()

    def running(self) -> bool:
        """Whether there are workers, or will be."""
        return any(thread.is_alive() for thread in list(self._threads.values()))

    def close(self) -> None:
        """End the workers that are left, and give back their places."""
        self._closing = True
        for place in list(self._places.values()):
            with suppress(RayError):
                remove_placement_group(place)
        deadline = time.monotonic() + CLOSING_SECONDS
        for thread in list(self._threads.values()):
            thread.join(max(0.0, deadline - time.monotonic()))
        self._folder.cleanup()

    def choose_node(self, number: int) -> str | None:
        """The node with room that has the fewest of this run's workers; see `Employer`."""
        with self._lock:
            self._nodes.pop(number, None)
            self._places.pop(number, None)
            free = self._free_places()
            if not free:
                return None
            taken = list(self._nodes.values())
            chosen = min(free, key=lambda node: (taken.count(node), -free[node], node))
            self._nodes[number] = chosen
            return chosen

    def take_in(self, number: int, placement_group: PlacementGroup) -> None:
        """Remember a place that must be given back; see `Employer`."""
        with self._lock:
            self._places[number] = placement_group
            self._waiting.discard(number)
        if self._closing:
            remove_placement_group(placement_group)

    def find_no_room(self, number: int) -> bool:
        """Say it once, and try again; see `Employer`."""
        if number not in self._waiting:
            self._waiting.add(number)
            self._post({"kind": "no room", "worker": number})
        return not self._closing

    def see_failure(self, number: int, error: Exception) -> bool:
        """The driver counts them; see `Employer`."""
        if not self._closing:
            self._post({"kind": "restart", "worker": number, "error": f"{type(error).__name__}: {error}"})
        return not self._closing

    def _employ(self, number: int) -> None:
        name = f"worker-{number}"
        self._threads[number] = threading.Thread(target=self._follow, args=(number,), name=name, daemon=True)
        self._threads[number].start()

    def _follow(self, number: int) -> None:
        """One worker after another under the same number, until one ends its work well."""
        while not self._closing:
            solo = Solo(self._assignment, number, need=self._need, folder=self._folder.name, employer=self)
            try:
                solo.fit()
                return
            except Exception as error:  # Ray Train gave up, which is not its place: say so, and start anew
                self.see_failure(number, error)
                time.sleep(LOOK_SECONDS)

    def _grow(self) -> None:
        """Take on another worker when there was room in two looks on end: what is free for a moment is not room."""
        seen = False
        while not self._closing and self.running():
            room = self._room_for_another()
            if room and seen:
                self._employ(min(set(range(self._most)) - self._threads.keys()))
            seen = room and not seen
            time.sleep(LOOK_SECONDS)

    def _room_for_another(self) -> bool:
        with self._lock:
            settled = self._threads.keys() == self._places.keys()
            return settled and len(self._threads) < self._most and bool(self._free_places())

    def _free_places(self) -> dict[str, int]:
        """Without the places of workers that are just starting: Ray still counts those as free."""
        free = free_places(self._need)
        for number, node in self._nodes.items():
            if number not in self._places and node in free:
                free[node] -= 1
        return {node: places for node, places in free.items() if places > 0}

    def _post(self, event: dict[str, object]) -> None:
        self._assignment.mailbox.post.remote(event)
