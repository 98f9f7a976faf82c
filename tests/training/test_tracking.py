"""Runs that a tracker hears of: MLflow on a database of its own, on a server, and on one that does not answer."""

import io
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from rayrnn.errors import RecipeError, UsageError
from rayrnn.recipe import Recipe, validate_recipe
from rayrnn.runs.directory import Run, create_run
from rayrnn.training import tracking
from rayrnn.training.driver import train
from rayrnn.training.tracking import tracked
from tests.training.recipes import small

mlflow = pytest.importorskip("mlflow.tracking", reason="needs rayrnn[mlflow]")

ROOT = Path(__file__).parent.parent.parent
#: where `make check-all` installs the whole of MLflow
SERVER = ROOT / ".venv" / "mlflow-server" / "bin" / "mlflow"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    uri = f"sqlite:///{tmp_path}/tracked.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(tracking, "END_SECONDS", 120.0)  # a machine may be slow, and the database is new
    monkeypatch.chdir(tmp_path)
    return uri


def run_in(folder: Path, recipe: Recipe) -> Run:
    run = create_run(folder)
    run.write_recipe(recipe)
    return run


def found_at(uri: str) -> list[mlflow.MlflowClient]:
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("rayrnn")
    return [] if experiment is None else client.search_runs([experiment.experiment_id])


@pytest.mark.usefixtures("ray_cluster")
def test_a_run_and_its_resumption_are_one_run_at_mlflow(database: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(small(averaging={"rounds": 4}), out=out, console=Console(file=io.StringIO()))
    (run,) = found_at(database)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "small"
    assert run.data.params["training.learning_rate"] == "0.01"
    assert run.data.params["averaging.rounds"] == "4"
    assert len(run.data.params["data.text"]) == 500  # cut: a text of any length may stand in a recipe
    assert run.data.tags["rayrnn.task"] == "language_model"
    history = mlflow.MlflowClient(tracking_uri=database).get_metric_history(run.info.run_id, "loss")
    assert [one.step for one in history] == [1, 2, 3, 4]
    assert {"held_out_loss", "held_out_accuracy", "steps_per_second", "learning_rate"} <= run.data.metrics.keys()
    names = {one.path for one in mlflow.MlflowClient(tracking_uri=database).list_artifacts(run.info.run_id)}
    assert names == {"recipe.yaml", "vocabulary.json", "model.safetensors", "report.html"}
    train(small(averaging={"rounds": 6}), out=out, resume=True, console=Console(file=io.StringIO()))
    (again,) = found_at(database)
    assert again.info.run_id == run.info.run_id
    assert again.data.tags["resumed.averaging.rounds"] == "6"
    history = mlflow.MlflowClient(tracking_uri=database).get_metric_history(run.info.run_id, "loss")
    assert [one.step for one in history] == [1, 2, 3, 4, 5, 6]


def test_a_run_that_fails_is_told_as_failed_and_one_that_learned_nothing_not_at_all(
    database: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError):
        _fail(run_in(tmp_path / "a", small()), rounds=0)
    assert found_at(database) == []
    with pytest.raises(UsageError):
        _fail(run_in(tmp_path / "b", small()), rounds=1)
    (run,) = found_at(database)
    assert run.info.status == "FAILED"
    assert run.data.metrics == {"loss": 2.0}


def _fail(run: Run, *, rounds: int) -> None:
    with tracked(small(), run, print) as told:
        assert told is not None
        for number in range(1, rounds + 1):
            told.show(number, {"loss": 2.0, "absent": None})
        raise UsageError("the chosen error")


def test_a_run_that_the_tracker_has_no_more_is_another_one_there(database: str, tmp_path: Path) -> None:
    run = run_in(tmp_path / "run", small())
    (run.path / "tracking.json").write_text('{"tracker": "mlflow", "run": "0123456789abcdef"}')
    with tracked(small(), run, print) as told:
        assert told is not None
        told.show(1, {"loss": 2.0})
    (found,) = found_at(database)
    assert found.info.run_id in (run.path / "tracking.json").read_text()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes every connection and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        yield listening.getsockname()[1]


def test_a_tracker_that_never_answers_costs_one_warning_and_no_waiting_in_training(
    silent_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent_port}")
    monkeypatch.setattr(tracking, "END_SECONDS", 1.0)
    warnings: list[str] = []
    with tracked(small(), run_in(tmp_path / "run", small()), warnings.append) as told:
        assert told is not None
        for number in range(1, tracking.MOST_POINTS + 100):
            told.show(number, {"loss": 1.0})
    assert len(warnings) == 1
    assert "mlflow has not taken all of this run within 1 s" in warnings[0]


def test_a_tracker_that_is_down_is_said_once_and_taken_again_when_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "later"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{blocked}/tracked.db")
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.2)
    monkeypatch.setattr(tracking, "END_SECONDS", 60.0)
    monkeypatch.chdir(tmp_path)
    blocked.write_text("no directory")
    warnings: list[str] = []
    with tracked(small(), run_in(tmp_path / "run", small()), warnings.append) as told:
        assert told is not None
        told.show(1, {"loss": 3.0})
        while not warnings:
            time.sleep(0.05)
        blocked.unlink()
        blocked.mkdir()
        told.show(2, {"loss": 2.0})
    (run,) = found_at(f"sqlite:///{blocked}/tracked.db")
    assert [word.split(" (")[0] for word in warnings] == ["mlflow does not take the run", "mlflow takes the run again"]
    history = mlflow.MlflowClient(tracking_uri=f"sqlite:///{blocked}/tracked.db").get_metric_history(
        run.info.run_id, "loss"
    )
    assert [one.value for one in history] == [3.0, 2.0]


@pytest.mark.usefixtures("ray_cluster")
def test_a_port_where_nobody_listens_does_not_keep_a_run_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{taken.getsockname()[1]}")
        screen = io.StringIO()
        out = tmp_path / "run"
        summary = train(small(averaging={"rounds": 2}), out=out, console=Console(file=screen, width=300))
    assert summary.reason == "finished"
    assert screen.getvalue().count("training goes on") + screen.getvalue().count("has not taken all") == 1
    assert not (out / "tracking.json").exists()


def test_no_tracker_is_told_where_the_recipe_says_none(database: str, tmp_path: Path) -> None:
    recipe = validate_recipe(small().model_dump() | {"track": "none"})
    with tracked(recipe, run_in(tmp_path / "run", recipe), print) as told:
        assert told is None


def test_a_tracker_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    recipe = validate_recipe(small().model_dump() | {"track": "wandb"})
    with pytest.raises(UsageError, match=r"track: wandb, which is not installed: pip install 'rayrnn\[wandb\]'"):
        train(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    warnings: list[str] = []
    with tracked(small(), run_in(tmp_path / "other", small()), warnings.append) as told:
        assert told is None
    assert "mlflow is not installed (pip install 'rayrnn[mlflow]'): the run is not tracked" in warnings[0]


def test_a_tracker_that_nobody_knows_is_refused() -> None:
    with pytest.raises(RecipeError, match=r'"track" is \'neptune\': .*mlflow'):
        validate_recipe(small().model_dump() | {"track": "neptune"})


def test_wandb_writes_a_directory_where_it_is_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs rayrnn[wandb]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(tracking, "END_SECONDS", 120.0)
    recipe = validate_recipe(small().model_dump() | {"track": "wandb"})
    run, warnings = run_in(tmp_path / "run", recipe), list[str]()
    with tracked(recipe, run, warnings.append) as told:
        assert told is not None
        told.show(1, {"loss": 2.0})
    assert warnings == []
    (written,) = (run.path / "wandb").glob("offline-run-*/*.wandb")
    assert written.stat().st_size > 0
    assert written.stem.removeprefix("run-") in (run.path / "tracking.json").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_an_mlflow_server_has_the_run_and_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not SERVER.is_file():
        pytest.skip("there is no MLflow server: `make check-all` installs one in .venv/mlflow-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination",
        str(tmp_path / "kept"),
    ]
    command = [str(SERVER), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *store]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with open(tmp_path / "server.log", "wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=tmp_path, env=environment, start_new_session=True
        )
    try:
        uri = f"http://127.0.0.1:{port}"
        _wait_for(port)
        # a machine may be slow; what is the matter with one that is down is the matter of other tests
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
        mlflow.MlflowClient(tracking_uri=uri).search_experiments()  # a new database has tables from now on
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setattr(tracking, "END_SECONDS", 120.0)
        screen = io.StringIO()
        train(small(averaging={"rounds": 4}), out=tmp_path / "run", console=Console(file=screen, width=300))
        assert [line for line in screen.getvalue().splitlines() if line.startswith("mlflow")] == []
        (run,) = found_at(uri)
        names = {one.path for one in mlflow.MlflowClient(tracking_uri=uri).list_artifacts(run.info.run_id)}
    finally:
        os.killpg(server.pid, 15)
        server.wait()
    assert run.info.status == "FINISHED"
    assert run.data.metrics["held_out_loss"] > 0
    assert names == {"recipe.yaml", "vocabulary.json", "model.safetensors", "report.html"}


def _wait_for(port: int) -> None:
    for _ in range(600):
        with socket.socket() as connection:
            if connection.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError("the server did not start")
