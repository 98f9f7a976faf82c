"""A run on an MLflow server: parameters, metrics by round, tags, and its files as artifacts."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow.entities import Metric, Param, RunTag
from mlflow.environment_variables import MLFLOW_EXPERIMENT_NAME
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from rayrnn.training.tracking import About, Point

#: MLflow's own limits: of a name, of a parameter's value, and of one request
MOST_OF_NAME, MOST_OF_VALUE = 250, 500
MOST_PARAMETERS, MOST_METRICS = 100, 1000
#: where MLFLOW_EXPERIMENT_NAME says no other
EXPERIMENT = "rayrnn"
_STATES = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class Mlflow:
    """The server that MLFLOW_TRACKING_URI names; without it MLflow's own default."""

    def __init__(self) -> None:
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        self._client = MlflowClient()
        self._run = ""

    def begin(self, about: About, known: str | None) -> str:
        past = self._past(known)
        if past is None:
            made = self._client.create_run(self._experiment(), run_name=about.name, tags=dict(about.tags))
            self._run, past = made.info.run_id, {}
        else:
            assert known is not None
            self._run = known
            self._client.update_run(self._run, status="RUNNING")
        self._log_recipe(about, past)
        return self._run

    def _past(self, known: str | None) -> Mapping[str, str] | None:
        """The parameters of the run of this name; None where the server has none."""
        if known is None:
            return None
        try:
            run = self._client.get_run(known)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return None if run.info.lifecycle_stage == "deleted" else dict(run.data.params)

    def _experiment(self) -> str:
        name = MLFLOW_EXPERIMENT_NAME.get() or EXPERIMENT  # type: ignore[no-untyped-call]
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found is not None else self._client.create_experiment(name))

    def _log_recipe(self, about: About, past: Mapping[str, str]) -> None:
        """What a resumed run has changed stands in tags: a parameter is never written twice."""
        params = {key[:MOST_OF_NAME]: value[:MOST_OF_VALUE] for key, value in about.recipe.items()}
        new = [Param(key, value) for key, value in params.items() if key not in past]
        for start in range(0, len(new), MOST_PARAMETERS):
            self._client.log_batch(self._run, params=new[start : start + MOST_PARAMETERS])
        changed = [RunTag(f"resumed.{key}", value) for key, value in params.items() if past.get(key, value) != value]
        if changed:
            self._client.log_batch(self._run, tags=changed[:MOST_PARAMETERS])

    def log(self, points: Sequence[Point]) -> None:
        metrics = [
            Metric(name, value, point.milliseconds, point.round)
            for point in points
            for name, value in point.values.items()
        ]
        for start in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(self._run, metrics=metrics[start : start + MOST_METRICS])

    def end(self, state: str, files: Sequence[Path]) -> None:
        self._client.set_terminated(self._run, status=_STATES[state])
        for file in files:
            self._client.log_artifact(self._run, str(file))
