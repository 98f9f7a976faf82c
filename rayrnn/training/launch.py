"""Starts a run's workers with Ray Train, which replaces each one that dies and leaves the others alone."""

from threading import Thread

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.backend import Backend, BackendConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from rayrnn.recipe import Averaging
from rayrnn.run import Run
from rayrnn.training.assignment import Assignment
from rayrnn.training.worker import train_worker

FOR_EVER = -1


class Launch:
    """Ray Train in a thread of its own: the caller listens to the workers and to the user."""

    def __init__(self, assignment: Assignment, run: Run) -> None:
        self.error: BaseException | None = None
        self._trainer = _make_trainer(assignment, run)
        self._thread = Thread(target=self._fit, name="ray-train", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether there are workers, or will be."""
        return self._thread.is_alive()

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        except Exception as error:  # whatever it was, the listening thread decides what to say of it
            self.error = error


class ReplicasBackend(Backend):  # type: ignore[misc]
    """Every worker is a replica group of its own: Ray Train replaces one group at a time."""

    has_replica_groups = True


class Replicas(BackendConfig):  # type: ignore[misc]
    """No process group of torch's: the workers connect by themselves (rayrnn/training/group.py)."""

    @property
    def backend_cls(self) -> type[ReplicasBackend]:
        return ReplicasBackend


def _make_trainer(assignment: Assignment, run: Run) -> DataParallelTrainer:
    return DataParallelTrainer(
        train_worker,
        train_loop_config={"assignment": assignment},
        backend_config=Replicas(),
        scaling_config=_scaling(assignment.recipe.averaging),
        run_config=RunConfig(
            name="ray-train",
            storage_path=str(run.path.absolute()),
            failure_config=FailureConfig(max_failures=FOR_EVER, controller_failure_limit=FOR_EVER),
        ),
    )


def _scaling(averaging: Averaging) -> ScalingConfig:
    use_gpu = ray.cluster_resources().get("GPU", 0) >= averaging.workers
    return ScalingConfig(
        num_workers=averaging.workers,
        use_gpu=use_gpu,
        resources_per_worker={"CPU": averaging.cpus_per_worker} | ({"GPU": 1} if use_gpu else {}),
    )
