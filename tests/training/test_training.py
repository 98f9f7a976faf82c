"""A run from the outside: what is in its directory, what the user sees, and what each mistake is told."""

import io
import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch
from rich.console import Console

from rayrnn.errors import ClusterError, DataError, RunError, UsageError
from rayrnn.generation import Drawing, generate
from rayrnn.recipe import load_recipe, validate_recipe
from rayrnn.runs.checkpoints import read_checkpoint
from rayrnn.runs.directory import open_run
from rayrnn.runs.model import load_network
from rayrnn.training.driver import train
from rayrnn.training.summary import Summary
from tests.training.recipes import small

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> tuple[Summary, str]:
    """A run of six rounds, and what was on the screen."""
    screen = io.StringIO()
    out = tmp_path_factory.mktemp("runs") / "small"
    return train(small(), out=out, console=Console(file=screen, width=100)), screen.getvalue()


def test_a_run_directory_has_everything_and_no_pickle(finished: tuple[Summary, str]) -> None:
    run = finished[0].run
    names = {path.name.split(".out.")[0] for path in run.path.iterdir()}
    assert {"recipe.yaml", "vocabulary.json", "metrics.jsonl", "model.safetensors", "checkpoints", "events"} <= names
    assert load_recipe(run.path / "recipe.yaml") == small()
    suffixes = {path.suffix for path in run.path.rglob("*") if path.is_file()} - {".log", ".vm"}
    assert not suffixes & {".pkl", ".pt", ".pth", ".bin"}


@pytest.mark.slow
def test_auto_takes_as_many_workers_as_find_room_and_says_so(tmp_path: Path) -> None:
    screen = io.StringIO()
    recipe = small(averaging={"workers": "auto", "rounds": 2}, training={"batch_size": 8})
    run = train(recipe, out=tmp_path / "run", console=Console(file=screen, width=100)).run
    there = int(ray.cluster_resources()["CPU"])
    # a test before this one may hold a CPU for some seconds more
    assert all(2 < len(line["workers"]) <= there for line in run.metrics())
    assert f"workers   {there} (auto), " in screen.getvalue()
    assert "minibatches of 8 in 2 parts (scaling: auto), 12 updates" in screen.getvalue()
    assert run.recipe.averaging.workers == "auto"


@pytest.mark.slow
def test_rounds_whose_averages_travel_are_told_of_in_order_and_the_header_says_so(tmp_path: Path) -> None:
    screen = io.StringIO()
    recipe = small(averaging={"overlap": 1, "rounds": 9}, training={"evaluate_every": 4, "checkpoint_every": 3})
    run = train(recipe, out=tmp_path / "run", console=Console(file=screen, width=120)).run
    assert " while the next one is learned" in screen.getvalue().replace("\n", " ")
    metrics = run.metrics()
    assert [line["round"] for line in metrics] == list(range(1, 10))
    assert [line["round"] for line in metrics if "held_out_loss" in line] == [4, 8, 9]
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["round-000006", "round-000009"]
    assert all(line["seconds"] > 0 and len(line["workers"]) == 2 for line in metrics)
    assert metrics[0]["learning_rate"] == recipe.training.learning_rate
    learned = {worker["updates"] for line in metrics for worker in line["workers"]}
    assert len(learned) == 1, "every round is learned whole"


def test_metrics_have_one_line_a_round(finished: tuple[Summary, str]) -> None:
    metrics = finished[0].run.metrics()
    assert [line["round"] for line in metrics] == [1, 2, 3, 4, 5, 6]
    assert [line["round"] for line in metrics if "held_out_loss" in line] == [2, 4, 6]
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    for line in metrics:
        assert [worker["worker"] for worker in line["workers"]] == [0, 1]
        assert line["steps"] == sum(worker["steps"] for worker in line["workers"])
        assert line["bytes"] > 0


def test_the_loss_curve_of_two_workers_is_the_golden_one(finished: tuple[Summary, str]) -> None:
    """A refactor leaves these as they are; whoever changes the numerics on purpose writes the new ones down."""
    metrics = finished[0].run.metrics()
    losses = [line["loss"] for line in metrics]
    held_out = [line["held_out_loss"] for line in metrics if "held_out_loss" in line]
    assert losses == pytest.approx([2.455, 2.2839, 2.2399, 2.161, 2.0123, 1.7488], rel=5e-3)
    assert held_out == pytest.approx([2.2577, 2.0693, 1.5212], rel=5e-3)


def test_the_best_model_is_the_one_with_the_best_held_out_loss(finished: tuple[Summary, str]) -> None:
    outcome, _ = finished
    losses = {line["round"]: line["held_out_loss"] for line in outcome.run.metrics() if "held_out_loss" in line}
    assert outcome.best_round == min(losses, key=losses.__getitem__)
    assert outcome.best_loss == pytest.approx(min(losses.values()))


def test_all_workers_and_the_last_checkpoint_hold_one_model(finished: tuple[Summary, str]) -> None:
    run = finished[0].run
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["round-000004", "round-000006"]
    checkpoint = read_checkpoint(run.checkpoints / "round-000006")
    assert len(checkpoint.optimizers) == 2
    if finished[0].best_round == 6:
        best = load_network(run).state_dict()
        assert all(torch.equal(best[name], value) for name, value in checkpoint.model.items())


def test_the_screen_gives_the_account_a_line_a_round_and_the_next_command(finished: tuple[Summary, str]) -> None:
    outcome, screen = finished
    assert "each worker: 2 minibatches of 4, 6 updates" in screen
    assert "--resume" in screen
    for number in range(1, 7):
        assert f"{number}/6 loss" in screen
    assert "held-out" in screen
    assert f"rayrnn generate {outcome.run.path}"[:40] in screen


def test_tensorboard_reads_the_events(finished: tuple[Summary, str]) -> None:
    (file,) = finished[0].run.path.glob("events.out.tfevents.*")
    assert b"held_out_loss" in file.read_bytes()


def test_a_new_run_does_not_overwrite_another(finished: tuple[Summary, str]) -> None:
    path = finished[0].run.path
    before = (path / "metrics.jsonl").read_bytes()
    with pytest.raises(UsageError, match=r"holds a run already.*--resume"):
        train(small(), out=path, console=Console(quiet=True))
    assert (path / "metrics.jsonl").read_bytes() == before


def test_a_run_is_not_resumed_with_another_network(finished: tuple[Summary, str]) -> None:
    with pytest.raises(UsageError, match="another recipe: model differ"):
        train(small(model={"hidden": 25}), out=finished[0].run.path, resume=True, console=Console(quiet=True))


def test_a_run_is_not_resumed_with_fewer_rounds_than_it_has_learned(finished: tuple[Summary, str]) -> None:
    run = finished[0].run
    before = (run.path / "recipe.yaml").read_bytes()
    with pytest.raises(UsageError, match=r"averaging\.rounds is 3, and .* has learned 6 rounds.*give it 6 or more"):
        train(small(averaging={"rounds": 3}), out=run.path, resume=True, console=Console(quiet=True))
    assert (run.path / "recipe.yaml").read_bytes() == before


def test_too_few_cpus_are_refused_with_the_sum(tmp_path: Path) -> None:
    recipe = small(averaging={"workers": 3, "cpus_per_worker": 2})
    with pytest.raises(ClusterError, match=r"3 workers with 2 CPU each need 6 CPUs, the cluster has 4.*workers to 2"):
        train(recipe, out=tmp_path / "run", console=Console(quiet=True))


def test_missing_data_is_named(tmp_path: Path) -> None:
    recipe = small(data={"text": None, "path": str(tmp_path / "nothing.txt")})
    with pytest.raises(DataError, match=r"nothing\.txt"):
        train(recipe, out=tmp_path / "run", console=Console(quiet=True))
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_run_is_not_written_where_nothing_is_known_to_take_it() -> None:
    with pytest.raises(UsageError, match="http:/somewhere/run is no directory of this machine"):
        train(small(), out="http://somewhere/run", console=Console(quiet=True))


def test_files_that_cannot_be_read_are_skipped_counted_and_listed(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for number in range(12):
        rows = "".join(f"{step * (number % 2)},{number % 2}\n" for step in range(5))
        (files / f"{number:02d}.csv").write_text(rows if number != 3 else "0,1\nspoilt,1\n")
    labelled = {"source": "csv", "path": str(files), "label_column": 1, "on_error": "skip", "held_out": 0}
    recipe = validate_recipe(
        {
            "name": "skips",
            "task": "classification",
            "data": labelled,
            "model": {"hidden": 8, "layers": 1},
            "averaging": {"rounds": 2, "frequency": 1},
        }
    )
    screen = io.StringIO()
    outcome = train(recipe, out=tmp_path / "run", console=Console(file=screen, width=200))
    assert "1 sequences could not be read" in screen.getvalue()
    assert "03.csv:2" in (outcome.run.path / "skipped.txt").read_text()


def test_a_loss_that_is_not_finite_stops_the_run_and_names_worker_round_and_update(tmp_path: Path) -> None:
    recipe = small(training={"optimizer": "sgd", "learning_rate": 1e38, "clip": 0})
    with pytest.raises(RunError, match=r"worker 0 is not finite: round 1, update \d.*learning_rate \(now 1e\+38\)"):
        train(recipe, out=tmp_path / "run", console=Console(quiet=True))
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.slow
def test_more_workers_than_sequences_train_to_the_end(tmp_path: Path) -> None:
    recipe = small(
        data={"text": "abcabcabc", "length": 4, "held_out": 0}, averaging={"workers": 3, "frequency": 2, "rounds": 3}
    )
    outcome = train(recipe, out=tmp_path / "run", console=Console(quiet=True))
    assert outcome.rounds == 3
    assert all(worker["steps"] > 0 for line in outcome.run.metrics() for worker in line["workers"])


@pytest.mark.slow
def test_training_stops_early_when_the_held_out_loss_gets_no_better(tmp_path: Path) -> None:
    recipe = small(
        training={"learning_rate": 1e-30, "early_stopping": 2, "evaluate_every": 1}, averaging={"rounds": 50}
    )
    outcome = train(recipe, out=tmp_path / "run", console=Console(quiet=True))
    assert outcome.reason == "no better"
    assert outcome.rounds == 3, "the first evaluation is the best, and each round has its own"


def test_a_damaged_checkpoint_is_passed_over_and_said(finished: tuple[Summary, str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished[0].run.path, out)
    model = out / "checkpoints" / "round-000006" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-10])
    screen = io.StringIO()
    outcome = train(small(), out=out, resume=True, console=Console(file=screen, width=200))
    assert outcome.rounds == 6
    assert "round-000006/model.safetensors is damaged" in screen.getvalue()
    assert "going on after round 4" in screen.getvalue()
    assert [line["round"] for line in outcome.run.metrics()] == [1, 2, 3, 4, 5, 6]


class Trap:
    """Unpickling this leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.write_text, (self.path, "unpickled")


def pieces(path: Path) -> Iterator[list[str]]:
    return generate(open_run(path), prime="the", length=5, samples=1, drawing=Drawing())


def test_a_hostile_model_file_is_refused_and_never_unpickled(finished: tuple[Summary, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("recipe.yaml", "vocabulary.json"):
        (run / name).write_bytes((finished[0].run.path / name).read_bytes())
    (run / "model.safetensors").write_bytes(pickle.dumps(Trap(tmp_path / "trap")))
    with pytest.raises(RunError, match=r"model\.safetensors is no model of this run"):
        list(pieces(run))
    assert not (tmp_path / "trap").exists()


def test_generated_text_begins_with_the_prime_and_is_the_same_for_the_same_seed(finished: tuple[Summary, str]) -> None:
    run = finished[0].run

    def texts(seed: int) -> list[str]:
        drawn = generate(run, prime="the ", length=20, samples=3, drawing=Drawing(), seed=seed)
        return ["".join(sample) for sample in zip(*drawn, strict=True)]

    assert texts(1) == texts(1) != texts(2)
    assert all(text.startswith("the ") and len(text) == 24 for text in texts(1))
    assert len(set(texts(1))) > 1


def test_without_a_prime_each_sample_begins_with_a_symbol_drawn_at_random(finished: tuple[Summary, str]) -> None:
    drawn = list(generate(finished[0].run, prime=None, length=3, samples=12, drawing=Drawing(), seed=5))
    assert len(set(drawn[0])) > 1
    assert all(len(symbol) == 1 for symbol in drawn[0])


def test_a_prime_with_an_unknown_symbol_names_it(finished: tuple[Summary, str]) -> None:
    with pytest.raises(DataError, match="symbol 'Z' is not in the vocabulary"):
        list(generate(finished[0].run, prime="the Z", length=1, samples=1, drawing=Drawing()))


def test_metrics_are_json_that_any_reader_takes(finished: tuple[Summary, str]) -> None:
    for line in (finished[0].run.path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
