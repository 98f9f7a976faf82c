"""A task of one's own is one class that the recipe names: it trains, measures and answers like any other."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from rich.console import Console
from torchmetrics import MeanAbsoluteError

from rayrnn.data.batches import Minibatch, inputs_of
from rayrnn.data.encoding import Encoding, Numbers, Scaling, Survey
from rayrnn.data.rows import Needs
from rayrnn.data.symbols import Symbols
from rayrnn.errors import RecipeError, UsageError
from rayrnn.prediction.evaluate import evaluate
from rayrnn.prediction.predict import predict
from rayrnn.recipe import Recipe, load_recipe, validate_recipe
from rayrnn.runs.directory import Run
from rayrnn.tasks import Choices
from rayrnn.tasks.losses import numbers_added_up
from rayrnn.tasks.metrics import Metrics, Results, on_cpu
from rayrnn.tasks.number_losses import SQUARED
from rayrnn.training.driver import train
from tests.untrained import lengths, wave, write_files

NAME = "tests.tasks.test_own_task:StepsSoFar"


class StepsSoFar:
    """How many tens of steps were read, at every step: no column of a row says so."""

    generates = False
    holds_out_last = False
    right_or_wrong = False
    unit = "(tens of steps, squared)"

    def faults(self, choices: Choices) -> list[str]:
        return ["training.truncate must be 0: counting begins at a sequence's begin"] if choices.truncate else []

    def needs(self, choices: Choices) -> Needs:
        return Needs("counting")

    def encoding(self, inputs: Symbols | Numbers, found: Survey, choices: Choices) -> Encoding:
        return Encoding(inputs, Numbers(Scaling.none(1)), per_step=True)

    def minibatch(self, rows: pa.Table, encoding: Encoding) -> Minibatch:
        inputs, mask = inputs_of(rows, encoding)
        counts = np.cumsum(mask, axis=1, dtype=np.float32)[..., None] / 10
        return Minibatch.of(rows, (inputs, mask), (counts, mask))

    def call(self, network: torch.nn.Module, segment: Minibatch, state: object) -> tuple[torch.Tensor, object]:
        counts_BT1, state = network(segment.inputs, state, segment.mask)
        return counts_BT1, state

    def loss(self, outputs: torch.Tensor, segment: Minibatch) -> tuple[torch.Tensor, torch.Tensor]:
        return numbers_added_up(SQUARED.losses, outputs.unsqueeze(-1), segment.targets, segment.target_mask)

    def describe_loss(self, loss: float) -> str:
        return f"{10 * math.sqrt(loss):.1f} steps off"

    def metrics(self, encoding: Encoding) -> Metrics:
        return Metrics({"steps_off": MeanAbsoluteError()})

    def measure(self, metrics: Metrics, outputs: torch.Tensor, segment: Minibatch, encoding: Encoding) -> None:
        outputs, segment = on_cpu(outputs, segment)
        metrics.add_loss(*self.loss(outputs, segment))
        mask = segment.target_mask
        metrics.scores["steps_off"].update(10 * outputs[mask], 10 * segment.targets[mask])

    def results(self, metrics: Metrics) -> Results:
        return {"loss": metrics.loss, "steps_off": metrics.value("steps_off")}

    def answers(self, outputs: np.ndarray, encoding: Encoding) -> dict[str, pa.Array]:
        return {"steps": pa.array(np.rint(10 * outputs[:, 0]).astype(np.int64))}


class Unfinished:
    unit = "nothing"


def values(files: Path, task: str = NAME) -> dict[str, object]:
    return {
        "name": "counting",
        "task": task,
        "data": {"source": "csv", "path": str(files), "normalize": "standardize", "held_out": 0.2},
        "model": {"cell": "gru", "hidden": 16, "layers": 1},
        "training": {"learning_rate": 0.02, "batch_size": 8, "evaluate_every": 10},
        "averaging": {"workers": 2, "frequency": 5, "rounds": 30},
    }


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return write_files(tmp_path / "files", wave)


@pytest.fixture
def recipe(files: Path) -> Recipe:
    return validate_recipe(values(files))


@pytest.mark.usefixtures("ray_cluster")
def test_a_task_of_ones_own_trains_measures_and_answers(recipe: Recipe, files: Path, tmp_path: Path) -> None:
    outcome = train(recipe, out=tmp_path / "run", console=Console(quiet=True))
    assert outcome.best_loss is not None
    assert outcome.best_loss < 0.02
    run: Run = outcome.run
    assert "held_out_accuracy" not in {name for line in run.metrics() for name, value in line.items() if value}
    report = evaluate(run, path=files)
    assert 0 < float(report.metrics["steps_off"]) < 1.5  # type: ignore[arg-type]
    assert "(tens of steps, squared)" in report.to_text()
    assert "steps off" in report.to_text()
    predict(run, files, tmp_path / "answers.jsonl", console=Console(quiet=True))
    answers = [json.loads(line)["steps"] for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert list(map(len, answers)) == lengths()
    wrong = [abs(said - step) for own in answers for step, said in enumerate(own, start=1)]
    assert sum(wrong) / len(wrong) < 1.5


def test_a_task_says_what_of_a_recipe_does_not_fit(files: Path) -> None:
    with pytest.raises(RecipeError, match="counting begins at a sequence's begin"):
        validate_recipe(values(files) | {"training": {"truncate": 5}})
    with pytest.raises(RecipeError, match=rf"training.class_weights is for classes; the task is {NAME}"):
        validate_recipe(values(files) | {"training": {"class_weights": "balanced"}})


def test_a_task_that_a_stranger_names_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_strangers_task.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "recipe.yaml").write_text(f"name: x\ntask: a_strangers_task:Task\ndata: {{text: {'abc' * 9}}}\n")
    with pytest.raises(UsageError, match=r"task is 'a_strangers_task:Task'.*--trust"):
        load_recipe(tmp_path / "recipe.yaml", trusted=False)
    assert "a_strangers_task" not in sys.modules


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("clasification", 'task .clasification. is unknown; did you mean "classification"\\?; the tasks here are'),
        ("nowhere:Task", "task is nowhere:Task, and there is no module nowhere on .* current directory"),
        ("json:Task", "task is json:Task, and module json has no Task; its classes are none"),
        ("json:dumps", "task is json:dumps, which makes nothing without an argument"),
        (f"{__name__}:Unfinished", "is no task: it has no answers, call, describe_loss"),
    ],
)
def test_a_task_that_is_none_is_told(files: Path, task: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        validate_recipe(values(files, task))


def test_a_plugins_task_is_known_by_its_entry_point(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "counting-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[rayrnn.tasks]\ncounting = {NAME}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "recipe.yaml").write_text(json.dumps(values(files, "counting")))
    # installing a plugin is trusting it
    assert load_recipe(tmp_path / "recipe.yaml", trusted=False).task == "counting"
