"""What is relied on in each name that Ray Train does not promise to keep; and that its parts fit a worker alone."""

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import ray
from ray.train.v2._internal import constants
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.failure_handling import FailureDecision, FailurePolicy
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup, state, worker_group
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import ControllerError

from rayrnn.training import train_actor
from rayrnn.training.train_internals import ALWAYS, SETTINGS, adapted, environment


def source(thing: Callable[..., Any] | type) -> str:
    return inspect.getsource(thing)


def test_the_trainer_makes_its_controller_in_a_method_of_its_own() -> None:
    fit = source(DataParallelTrainer.fit)
    assert "self._initialize_and_run_controller(" in fit
    assert "callbacks=self._create_default_callbacks()" in fit
    assert "failure_policy=" in fit, "which ours replaces"
    made = source(DataParallelTrainer._create_default_callbacks)
    assert DatasetsCallback.__name__ in made
    assert PlacementGroupCleanerCallback.__name__ in made


def test_the_controller_is_followed_by_one_coroutine_that_sleeps_between_looks() -> None:
    assert inspect.iscoroutinefunction(TrainController.run)
    assert "asyncio.sleep" in source(TrainController._poll_workers), "there a cancelled controller ends"
    caught = source(TrainController._run_control_loop_iteration)
    assert "except Exception" in caught
    assert "except BaseException" not in caught, "which would swallow the cancellation"
    assert "self.worker_group_cls.create(" in source(TrainController._start_worker_group)
    assert hasattr(TrainController, "get_result")


def test_the_controller_asks_callbacks_for_a_node_and_the_policy_what_a_failure_means() -> None:
    assert hasattr(ControllerCallback, "on_controller_start_worker_group")
    assert hasattr(WorkerGroupCallback, "after_worker_group_start")
    assert "label_selector" in source(TrainController._start_worker_group)
    assert list(inspect.signature(FailurePolicy.make_decision).parameters)[1:] == ["training_failed_error"]
    assert {"RETRY", "RAISE"} <= set(FailureDecision.__members__)
    assert list(inspect.signature(FailurePolicy.__init__).parameters)[1:] == ["failure_config"]
    wrapped = ControllerError(WorkerGroupStartupTimeoutError(1))
    assert isinstance(wrapped.controller_failure, WorkerGroupStartupTimeoutError)


def test_settings_are_read_from_the_environment_by_those_names() -> None:
    group, controller = source(WorkerGroup.__init__), source(TrainController.__init__)
    for name in (*SETTINGS, *ALWAYS):
        (constant,) = (constant for constant, value in vars(constants).items() if value == name)
        assert constant in group + controller
    assert list(inspect.signature(WorkerGroup._get_worker_runtime_env).parameters) == ["custom_runtime_env"]


def test_the_barrier_is_started_and_ended_by_two_names_and_used_for_nothing_else() -> None:
    assert "SynchronizationActor.options(" in source(WorkerGroup._start_impl)
    assert "_shutdown_sync_actor(self.sync_actor)" in source(state.WorkerGroupState)
    assert list(inspect.signature(state._shutdown_sync_actor).parameters) == ["sync_actor"]


def test_a_worker_is_given_its_context_by_a_method_that_ours_replaces() -> None:
    method = WorkerGroup._init_train_context_on_workers
    assert list(inspect.signature(method).parameters)[1:] == ["workers", "sync_actor", "train_context_args"]
    for name in ("train_run_context", "distributed_context", "synchronization_actor", "storage_context"):
        assert f"{name}=" in source(method)
    for name in ("self._train_run_context", "self._storage_context", "self._worker_callbacks_to_propagate"):
        assert name in source(method)
    assert "current_actor" in source(method), "which a controller in a thread of the driver does not have"
    assert hasattr(WorkerGroup, "_decorate_worker_log_file_paths")
    assert "DefaultPlacementGroupHandle(" in source(WorkerGroup._create_placement_group)
    assert "self._callbacks" in source(WorkerGroup.__init__)


def test_a_worker_is_asked_for_no_more_than_ours_hands_on() -> None:
    asked = set(re.findall(r"\.actor\.(\w+)\b", inspect.getsource(worker_group) + inspect.getsource(state)))
    handed_on = {name for name in vars(train_actor.RayTrainWorker) if not name.startswith("_")} | {"execute"}
    # of the others one is for several workers, and one for preemptions, which is off
    assert asked - handed_on <= {"clear_result_queue", "mark_preempt"}
    assert "self._worker_cls" in source(WorkerGroup._create_workers)


def test_a_scaling_policy_speaks_to_the_clusters_counter_in_three_methods_which_ours_leaves_out() -> None:
    for name in ("after_controller_start", "before_controller_shutdown", "_maybe_send_resource_request"):
        assert callable(getattr(FixedScalingPolicy, name))
    assert "num_workers" in source(FixedScalingPolicy.make_decision_for_non_running_worker_group)


def test_whoever_is_handed_a_worker_loads_neither_torch_nor_ray_train() -> None:
    program = (
        "import sys, rayrnn.training.train_actor, rayrnn.training.coordinator\n"
        "print(sorted({'torch', 'ray.train', 'ray.data', 'pandas', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == "[]\n"


def test_what_is_adapted_is_as_it_was_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    name = constants.WORKER_GROUP_START_TIMEOUT_S_ENV_VAR
    monkeypatch.setenv(name, "7")
    monkeypatch.delenv(constants.HEALTH_CHECK_INTERVAL_S_ENV_VAR, raising=False)
    barrier, shutdown = worker_group.SynchronizationActor, state._shutdown_sync_actor
    with adapted(train_actor.RayTrainWorker):
        assert os.environ[name] == "7", "what the user has set stays"
        assert os.environ[constants.HEALTH_CHECK_INTERVAL_S_ENV_VAR] == "0.5"
        assert worker_group.SynchronizationActor is not barrier
        given = worker_group.SynchronizationActor.options(label_selector={}).remote(timeout_s=None)
        state._shutdown_sync_actor(given)
    assert (worker_group.SynchronizationActor, state._shutdown_sync_actor) == (barrier, shutdown)
    assert constants.HEALTH_CHECK_INTERVAL_S_ENV_VAR not in os.environ


def test_an_environment_is_put_back_when_the_block_raises() -> None:
    def fail() -> None:
        with environment({"RAYRNN_TEST_ONLY": "1"}):
            raise ValueError(os.environ["RAYRNN_TEST_ONLY"])

    with pytest.raises(ValueError, match="1"):
        fail()
    assert "RAYRNN_TEST_ONLY" not in os.environ


def test_the_node_of_a_worker_is_chosen_by_a_label_that_ray_gives_to_each() -> None:
    assert ray._raylet.RAY_NODE_ID_KEY == "ray.io/node-id"
