"""What decides which model is the best, and how long a run is: the task's metrics, and minutes."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from rayrnn.data.encoding import Classes, Encoding, Numbers, Scaling
from rayrnn.errors import RecipeError
from rayrnn.prediction.evaluate import evaluate
from rayrnn.recipe import Recipe, load_recipe, validate_recipe
from rayrnn.runs.checkpoints import read_checkpoint
from rayrnn.runs.directory import open_run
from rayrnn.tasks.classification import SetClassification
from rayrnn.tasks.metrics import class_metrics, count_answers
from rayrnn.training.driver import train
from rayrnn.training.loop import learning_rate
from rayrnn.training.progress import Length, Monitor, Progress
from tests.tasks.segments import segment
from tests.training.recipes import small
from tests.untrained import lengths, wave, write_files


def spelling(folder: Path, task: str) -> dict[str, Any]:
    """Pairs of letters and their names."""
    names = {"a": "al", "b": "bra", "c": "char"}
    words = [one + two + three for one in names for two in names for three in ["", *names]]
    (folder / "pairs.tsv").write_text("".join(f"{word}\t{' '.join(names[sign] for sign in word)}\n" for word in words))
    model = {"cell": "gru", "hidden": 16, "layers": 1, "embedding": 8}
    data = {"source": "pairs", "path": str(folder / "pairs.tsv"), "held_out": 0.3}
    units = {"target_units": "words"}
    return {"task": task, "model": model, "data": data | units}


def waves(folder: Path, task: str, **data: Any) -> dict[str, Any]:
    files = write_files(folder / "files", wave)
    labels = [f"{number:02d}.csv,{'high' if length > 6 else 'low'}\n" for number, length in enumerate(lengths())]
    (folder / "labels.csv").write_text("".join(labels))
    given = {"source": "csv", "path": str(files), "held_out": 0.4, "normalize": "standardize"} | data
    return {"task": task, "model": {"cell": "gru", "hidden": 8, "layers": 1}, "data": given}


def monitored(values: dict[str, Any], monitor: str, **averaging: Any) -> Recipe:
    training = {"learning_rate": 0.02, "batch_size": 4, "evaluate_every": 2, "monitor": monitor}
    averaging = {"frequency": 2, "rounds": 4} | averaging
    return validate_recipe({"name": "watched", "training": training, "averaging": averaging} | values)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("task", "monitor"),
    [
        pytest.param("classification", "macro_f1", marks=pytest.mark.slow),
        ("regression", "r2"),
        pytest.param("transduction", "chrf", marks=pytest.mark.slow),
        ("ctc", "character_error_rate"),
    ],
)
def test_two_workers_measure_together_what_evaluate_measures_of_the_best_model(
    task: str, monitor: str, tmp_path: Path
) -> None:
    if task in ("transduction", "ctc"):
        values = spelling(tmp_path, task)
        if task == "ctc":  # two steps for every symbol, so that there is room
            lines = (tmp_path / "pairs.tsv").read_text().splitlines()
            doubled = ["\t".join((4 * line.split("\t")[0], line.split("\t")[1])) for line in lines]
            (tmp_path / "pairs.tsv").write_text("".join(f"{line}\n" for line in doubled))
    elif task == "classification":
        values = waves(tmp_path, task, labels=str(tmp_path / "labels.csv"))
    else:
        values = waves(tmp_path, task, horizon=1)
    screen = io.StringIO()
    summary = train(monitored(values, monitor), out=tmp_path / "run", console=Console(file=screen, width=200))
    told = [line[f"held_out_{monitor}"] for line in summary.run.metrics() if "held_out_loss" in line]
    higher = Monitor.of(summary.run.recipe).higher_is_better
    assert len(told) == 2
    assert summary.best_value == (max(told) if higher else min(told))
    beam = {"beam": 1} if task in ("transduction", "ctc") else {}
    measured = evaluate(open_run(tmp_path / "run"), **beam).metrics
    assert measured[monitor] == pytest.approx(summary.best_value, rel=1e-5)
    assert measured["loss"] > 0
    assert f"{monitor} {summary.best_value:.4f}, at its best after round {summary.best_round}" in screen.getvalue()
    assert summary.to_json()["monitor"] == monitor


@pytest.mark.usefixtures("ray_cluster")
def test_early_stopping_goes_by_the_monitor(tmp_path: Path) -> None:
    screen = io.StringIO()
    recipe = small(
        training={"monitor": "accuracy", "early_stopping": 2, "evaluate_every": 1, "learning_rate": 1e-9},
        averaging={"rounds": 40},
    )
    summary = train(recipe, out=tmp_path / "run", console=Console(file=screen, width=200))
    assert summary.reason == "no better"
    assert summary.rounds < 40
    assert "no better accuracy of what is held out" in screen.getvalue()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_run_that_goes_on_by_another_monitor_begins_anew_to_compare(tmp_path: Path) -> None:
    train(small(), out=tmp_path / "run", console=Console(file=io.StringIO()))
    longer = small(training={"monitor": "accuracy"}, averaging={"rounds": 10})
    summary = train(longer, out=tmp_path / "run", resume=True, console=Console(file=io.StringIO()))
    told = {line["round"]: line.get("held_out_accuracy") for line in summary.run.metrics()}
    assert summary.monitor == "accuracy"
    assert summary.best_round > 6
    assert summary.best_value == max(value for number, value in told.items() if number > 6 and value is not None)


@pytest.mark.parametrize(
    ("name", "monitor", "told"),
    [
        ("python", "acuracy", 'did you mean "accuracy"\\?; it may be loss, perplexity, bits_per_symbol, accuracy'),
        ("python", "macro_f1", "by which language_model is not measured; it may be loss, perplexity"),
        ("japanese-vowels", "rmse", "by which classification is not measured; it may be loss, accuracy, macro_f1"),
    ],
)
def test_a_monitor_that_the_task_does_not_know_is_refused_with_those_that_it_knows(
    name: str, monitor: str, told: str
) -> None:
    with pytest.raises(RecipeError, match=told):
        load_recipe(name, [f"training.monitor={monitor}"])


def test_a_monitor_needs_something_that_is_held_out() -> None:
    with pytest.raises(RecipeError, match=r"training\.monitor is accuracy, and nothing is held out"):
        small(training={"monitor": "accuracy"}, data={"held_out": 0})


def test_scores_that_keep_every_answer_are_added_up_over_workers_of_unequal_shares() -> None:
    task = SetClassification()
    encoding = Encoding(Numbers(Scaling.none(1)), Classes(("a", "b", "c"), several=True), per_step=False)
    logits, sets = torch.randn(7, 3), (torch.rand(7, 3) > 0.5).float()
    alone, together = task.metrics(encoding), task.metrics(encoding)
    task.measure(alone, logits, segment(sets, torch.ones(7, dtype=torch.bool)), encoding)
    for rows in (slice(0, 4), slice(4, 7), slice(7, 7)):
        share = task.metrics(encoding)
        task.measure(share, logits[rows], segment(sets[rows], torch.ones(len(sets[rows]), dtype=torch.bool)), encoding)
        together.add_sums(share.sums(rows=4, width=3), rows=4, width=3)
    assert task.results(together) == pytest.approx(task.results(alone))
    assert together.num_targets == 7


def test_a_share_without_a_target_changes_nothing() -> None:
    alone, together = class_metrics(3), class_metrics(3)
    answers, truths, there = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1]), torch.ones(5, dtype=torch.bool)
    alone.add_loss(torch.tensor(2.0), torch.tensor(5))
    count_answers(alone, answers, truths, there)
    for counted in (class_metrics(3), alone, class_metrics(3)):
        together.add_sums(counted.sums(rows=5, width=3), rows=5, width=3)
    assert together.value("accuracy") == alone.value("accuracy")
    assert together.loss == alone.loss


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_run_of_minutes_ends_by_its_clock_and_its_schedule_with_it(tmp_path: Path) -> None:
    screen = io.StringIO()
    recipe = small(training={"schedule": "cosine", "checkpoint_every": 1000}, averaging={"minutes": 0.05, "rounds": 2})
    summary = train(recipe, out=tmp_path / "run", console=Console(file=screen, width=100))
    rates = [line["learning_rate"] for line in summary.run.metrics()]
    assert summary.reason == "finished"
    assert summary.rounds > 2
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 0.01
    assert rates[-1] < 0.005
    assert "held_out_loss" in summary.run.metrics()[-1]
    assert "as many as 0.05 minutes allow" in screen.getvalue()
    assert "rounds" not in summary.run.recipe.model_dump()["averaging"]
    progress = read_checkpoint(summary.run.checkpoints / f"round-{summary.rounds:06d}").progress
    assert progress["seconds"] >= 3.0
    again = train(summary.run.recipe, out=tmp_path / "run", resume=True, console=Console(file=io.StringIO()))
    assert again.rounds == summary.rounds
    longer = small(training={"schedule": "cosine"}, averaging={"minutes": 0.08})
    assert train(longer, out=tmp_path / "run", resume=True).rounds > summary.rounds


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.slow
def test_a_command_whose_minutes_are_over_ends_in_order_and_the_next_one_goes_on(tmp_path: Path) -> None:
    screen = io.StringIO()
    recipe = small(training={"max_minutes": 0.03}, averaging={"rounds": 100_000})
    summary = train(recipe, out=tmp_path / "run", console=Console(file=screen, width=200))
    assert summary.reason == "out of time"
    assert 0 < summary.rounds < 100_000
    assert "training.max_minutes" in screen.getvalue()
    assert (summary.run.checkpoints / f"round-{summary.rounds:06d}" / "MANIFEST.json").exists()
    again = train(recipe, out=tmp_path / "run", resume=True, console=Console(file=io.StringIO()))
    assert again.rounds > summary.rounds
    assert again.reason == "out of time"


def test_the_rate_of_a_run_of_minutes_goes_by_what_has_passed_of_them() -> None:
    training = small(training={"schedule": "cosine", "learning_rate": 1.0}).training
    half = learning_rate(training, 3, 10**9, seconds=30.0, of_seconds=60.0)
    assert half == pytest.approx(learning_rate(training, 5, 10))
    assert learning_rate(training, 3, 10**9, seconds=90.0, of_seconds=60.0) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("seconds", "may_end", "reason"), [(20.0, True, ""), (40.0, True, "finished"), (40.0, False, "")]
)
def test_a_run_of_minutes_ends_when_a_round_has_used_them_up(seconds: float, may_end: bool, reason: str) -> None:
    length = Length(10**9, 60.0)
    progress = Progress(seconds=25.0).after(
        cursor=0, broken=[False], stop=False, length=length, seconds=seconds, may_end=may_end
    )
    assert (progress.reason, progress.seconds) == (reason, 25.0 + seconds)
    assert progress.resumed(length=Length(10**9, 1000.0)).reason == ""


def test_progress_by_a_metric_keeps_the_best_value_and_survives_json() -> None:
    accuracy, progress = Monitor("accuracy", higher_is_better=True), Progress()
    for loss, value in ((2.0, 0.5), (1.0, 0.4), (3.0, 0.7), (0.5, math.nan), (0.5, None)):
        progress = progress.after(cursor=0, broken=[False], stop=False, length=Length(100))
        progress = progress.after_evaluation(loss, early_stopping=0, monitor=accuracy, value=value)
    assert (progress.best, progress.best_loss, progress.best_round) == (0.7, 3.0, 3)
    assert Progress.from_json(json.loads(json.dumps(progress.to_json()))) == progress
    fresh = progress.after_evaluation(0.4, early_stopping=0)
    assert (fresh.best, fresh.monitor) == (0.4, "loss")
