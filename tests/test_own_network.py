"""A network of the user's own learns, is stored, goes on and answers as rayrnn's does; a stranger's is not loaded."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import rayrnn
from examples.minimal_gru import MinimalGRU
from rayrnn.data.encoding import Classes
from rayrnn.data.prepare import prepare
from rayrnn.errors import RecipeError, UsageError
from rayrnn.generation import Drawing
from rayrnn.recipe import Recipe, validate_recipe
from rayrnn.runs.checkpoints import read_checkpoint
from rayrnn.runs.directory import Run, create_run
from rayrnn.runs.model import build_network, find_network
from rayrnn.training.driver import train
from rayrnn.training.summary import Summary
from tests.models.test_contract import Buffered, LooksAhead
from tests.training.recipes import small
from tests.typed import typed
from tests.untrained import COUNT, outputs_of, wave, write_files

ROOT = Path(__file__).parent.parent
EXAMPLE = "examples.minimal_gru:MinimalGRU"


def with_options(**options: object) -> Recipe:
    values = small().model_dump(mode="json")
    return validate_recipe(values | {"model": {"network": EXAMPLE, "options": options}})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> tuple[Summary, str]:
    """The example over two workers, and what was on the screen."""
    screen = io.StringIO()
    out = tmp_path_factory.mktemp("runs") / "own"
    return train(with_options(hidden=24), out=out, console=Console(file=screen, width=100)), screen.getvalue()


def test_the_example_learns_over_two_workers(finished: tuple[Summary, str]) -> None:
    outcome, screen = finished
    metrics = outcome.run.metrics()
    assert [len(line["workers"]) for line in metrics] == [2] * 6
    assert metrics[-1]["held_out_loss"] < metrics[1]["held_out_loss"]
    assert f"{EXAMPLE}, 1,837 parameters" in screen
    assert "--trust" in screen


def test_a_run_of_it_has_its_name_and_options_and_none_of_its_code(finished: tuple[Summary, str]) -> None:
    run = finished[0].run
    assert run.recipe.model_dump(mode="json")["model"] == {"network": EXAMPLE, "options": {"hidden": 24}}
    assert {path.suffix for path in run.path.rglob("*") if path.is_file()} <= {
        *(".yaml", ".json", ".jsonl", ".safetensors", ".log", ".vm", ".lock", ""),
        *(path.suffix for path in run.path.glob("events.out.*")),
    }


@pytest.mark.slow
def test_stopped_and_resumed_it_is_the_one_that_was_never_stopped(
    finished: tuple[Summary, str], tmp_path: Path
) -> None:
    whole = read_checkpoint(finished[0].run.checkpoints / "round-000006")
    values = with_options(hidden=24).model_dump(mode="json")
    half = validate_recipe(values | {"averaging": values["averaging"] | {"rounds": 4}})
    train(half, out=tmp_path / "run", console=Console(quiet=True))
    run = train(with_options(hidden=24), out=tmp_path / "run", resume=True, trust=True, console=Console(quiet=True)).run
    resumed = read_checkpoint(run.checkpoints / "round-000006")
    assert resumed.progress == whole.progress
    for before, after in zip((whole.model, *whole.optimizers), (resumed.model, *resumed.optimizers), strict=True):
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_that_was_opened_with_trust_answers_and_without_is_refused(finished: tuple[Summary, str]) -> None:
    path = finished[0].run.path
    trusted, strange = rayrnn.open_run(path, trust=True), rayrnn.open_run(path)
    assert rayrnn.evaluate(trusted).metrics["loss"] == pytest.approx(finished[0].best_loss, rel=1e-4)
    texts = rayrnn.generate(trusted, prime="the ", length=20, samples=2, drawing=Drawing())
    assert [len("".join(text)) for text in zip(*texts, strict=True)] == [24, 24]
    refused = rf"{path} names {EXAMPLE}, which is not rayrnn's: .*runs the code .*--trust"
    with pytest.raises(UsageError, match=refused):
        rayrnn.evaluate(strange)
    with pytest.raises(UsageError, match=refused):
        list(rayrnn.generate(strange, prime="the ", length=20, samples=2, drawing=Drawing()))
    with pytest.raises(UsageError, match=refused):
        train(with_options(hidden=24), out=path, resume=True, console=Console(quiet=True))


def test_step_by_step_it_writes_what_the_whole_text_says(finished: tuple[Summary, str]) -> None:
    run = rayrnn.open_run(finished[0].run.path, trust=True)
    drawing = Drawing(temperature=0)
    ((whole,), *rest) = list(rayrnn.generate(run, prime="the cat", length=12, samples=1, drawing=drawing))
    text = whole + "".join(symbol for (symbol,) in rest)
    for cut in (9, 14):
        (_, (following,)) = list(rayrnn.generate(run, prime=text[:cut], length=1, samples=1, drawing=drawing))
        assert following == text[cut]


@pytest.mark.usefixtures("ray_cluster")
def test_a_class_is_handed_to_train_in_the_place_of_the_recipes_network(tmp_path: Path) -> None:
    recipe = small(averaging={"rounds": 1, "workers": 1})
    run = train(recipe, network=MinimalGRU, out=tmp_path / "run", console=Console(quiet=True)).run
    assert run.recipe.model.network == EXAMPLE
    assert rayrnn.evaluate(run).num_sequences > 0


@pytest.mark.usefixtures("ray_cluster")
def test_a_network_that_breaks_the_contract_ends_the_run_before_its_first_round(tmp_path: Path) -> None:
    recipe = validate_recipe(
        {
            "name": "buffered",
            "task": "tagging",
            "data": {"source": "csv", "path": str(labelled_waves(tmp_path)), "label_column": -1},
            "averaging": {"workers": 1},
        }
    )
    with pytest.raises(RecipeError, match=r"tests\.models\.test_contract:Buffered does not keep .*norm\.running_mean"):
        train(recipe, network=Buffered, out=tmp_path / "run", console=Console(quiet=True))
    assert not (tmp_path / "run" / "recipe.yaml").exists()
    with pytest.raises(RecipeError, match=r"there is no module nowhere on "):
        train(
            validate_recipe(recipe.model_dump(mode="json") | {"model": {"network": "nowhere:Net"}}),
            out=tmp_path / "run",
            console=Console(quiet=True),
        )


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_it_predicts_what_it_says_of_each_sequence_by_itself(task: str, tmp_path: Path) -> None:
    run = untrained(tmp_path / "run", task, str(labelled_waves(tmp_path)))
    rayrnn.predict(run, tmp_path / "files", tmp_path / "out.jsonl", console=Console(quiet=True))
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(rows) == COUNT
    outputs, targets = outputs_of(run), run.encoding.targets
    assert isinstance(targets, Classes)
    for row in rows:
        likeliest = np.atleast_1d(outputs[row["key"]].argmax(-1).numpy())
        labels = row["label"] if task == "tagging" else [row["label"]]
        assert labels == [targets.names[number] for number in likeliest]


def labelled_waves(folder: Path) -> Path:
    return write_files(folder / "files", lambda number, step: [*wave(number, step), "ab"[number % 2]])


def untrained(path: Path, task: str, data: str) -> Run:
    """A run of the example with the values that it was born with."""
    recipe = validate_recipe(
        {
            "name": "untrained",
            "task": task,
            "data": {"source": "csv", "path": data, "label_column": -1},
            "model": {"network": EXAMPLE, "options": {"layers": 2}},
        }
    )
    encoding = prepare(recipe).encoding
    run = create_run(path)
    run.trusted = True
    run.write_recipe(recipe)
    run.write_encoding(encoding)
    torch.manual_seed(0)
    run.write_model(build_network(recipe, encoding, find_network(recipe)).state_dict())
    return run


# At the command line


class Project:
    """A directory with a module of one's own that leaves a trace when it is imported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trace = folder / "imported.txt"
        self.trace.touch()
        leave = f"open({str(self.trace)!r}, 'a').write('yes\\n')\n"
        (folder / "mine.py").write_text((ROOT / "examples" / "minimal_gru.py").read_text() + leave)
        (folder / "words.txt").write_text("abcd efgh ijkl " * 200)
        (folder / "mine.yaml").write_text(
            "name: mine\ndata: {path: words.txt, length: 30, held_out: 0.1}\n"
            "model: {network: 'mine:MinimalGRU', options: {hidden: 8}}\n"
            "training: {batch_size: 4, truncate: 10, evaluate_every: 1, checkpoint_every: 1}\n"
            "averaging: {workers: 2, frequency: 1, rounds: 2}\n"
        )

    @property
    def imported(self) -> bool:
        return bool(self.trace.read_text())

    def rayrnn(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = "import sys; sys.path.pop(0); from rayrnn.cli import main; main()"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")])}
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def strangers(project: Project) -> Project:
    """The same, and the run of somebody who chose the network's name, and brought its module."""
    text = "abcd efgh ijkl " * 20
    (project.folder / "example.txt").write_text(text)
    recipe = small(data={"text": text, "length": 30})
    values = recipe.model_dump(mode="json") | {"model": {"network": EXAMPLE, "options": {"hidden": 8}}}
    known = validate_recipe(values)
    encoding = prepare(known).encoding
    run = create_run(project.folder / "run")
    run.write_encoding(encoding)
    run.write_model(build_network(known, encoding, find_network(known)).state_dict())
    run.write_recipe(validate_recipe(values | {"model": {"network": "mine:MinimalGRU", "options": {"hidden": 8}}}))
    shutil.copytree(run.path, project.folder / "task")
    written = (project.folder / "task" / "recipe.yaml").read_text()
    (project.folder / "task" / "recipe.yaml").write_text(written.replace("task: language_model", "task: mine:Task"))
    return project


@pytest.mark.usefixtures("ray_cluster")
def test_a_strangers_task_is_not_imported_without_trust(strangers: Project) -> None:
    for command in (
        ("generate", "task"),
        ("train", "task/recipe.yaml", "--out", "again"),
        ("train", "mine.yaml", "--out", "task", "--resume", "--trust"),
        ("doctor", "--recipe", "task/recipe.yaml"),
    ):
        if "--trust" in command:  # which is for what the user's recipe names, and this names another task
            (strangers.folder / "mine.yaml").write_text("name: mine\ndata: {path: words.txt, length: 30}\n")
        ended = typed(*command, home=strangers.folder)
        assert ended.returncode == 2, ended.stderr
        assert "mine:Task" in ended.stderr
        assert not strangers.imported, command


@pytest.mark.usefixtures("ray_cluster")
def test_a_strangers_module_is_not_imported_without_trust(strangers: Project) -> None:
    for command in (
        ("generate", "run"),
        ("evaluate", "run"),
        ("predict", "run", "--data", "words.txt", "--out", "answers.csv"),
        ("train", "run/recipe.yaml", "--out", "again"),
        ("train", "run/recipe.yaml", "--out", "run", "--resume"),
        ("train", "mine.yaml", "--out", "run", "--resume"),
    ):
        ended = typed(*command, home=strangers.folder)
        assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
        if command[0] != "predict":  # which a language model does not do anyway
            assert "names mine:MinimalGRU, which is not rayrnn's" in ended.stderr
            assert "--trust" in ended.stderr
        assert not strangers.imported, command


@pytest.mark.usefixtures("ray_cluster")
def test_with_trust_it_is_imported_and_answers(strangers: Project) -> None:
    ended = strangers.rayrnn("generate", "run", "--length", "5", "--prime", "ab", "--trust")
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.rstrip("\n")) == 7
    assert strangers.imported


@pytest.mark.slow
def test_a_recipe_of_the_users_own_trains_from_its_directory_and_is_resumed_and_measured(project: Project) -> None:
    ended = project.rayrnn("train", "mine.yaml", "--json")
    assert ended.returncode == 0, ended.stderr
    assert "mine:MinimalGRU" in ended.stderr
    assert json.loads(ended.stdout)["rounds"] == 2
    resumed = project.rayrnn("train", "mine.yaml", "--set", "averaging.rounds=3", "--resume", "--trust", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["rounds"] == 3
    measured = project.rayrnn("evaluate", "runs/mine", "--trust", "--json")
    assert measured.returncode == 0, measured.stderr
    assert json.loads(measured.stdout)["loss"] == pytest.approx(json.loads(resumed.stdout)["best_held_out_loss"])


@pytest.mark.slow
def test_what_a_script_defines_travels_as_it_is(project: Project) -> None:
    example = (project.folder / "mine.py").read_text()
    (project.folder / "script.py").write_text(
        f"{example}\n"
        "import rayrnn\n"
        "from rich.console import Console\n"
        "recipe = rayrnn.load_recipe('mine.yaml', ['model={}', 'averaging.workers=1'])\n"
        "run = rayrnn.train(recipe, network=MinimalGRU, console=Console(quiet=True)).run\n"
        "print(run.recipe.model.network, rayrnn.evaluate(rayrnn.open_run(run.path, trust=True)).num_sequences > 0)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")])}
    program = [sys.executable, "script.py"]
    ended = subprocess.run(program, cwd=project.folder, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "__main__:MinimalGRU True"
    elsewhere = project.rayrnn("generate", "runs/mine", "--trust")
    assert elsewhere.returncode == 2
    assert "it was defined in a script or notebook, and can be found only there" in elsewhere.stderr


def test_a_network_for_forecasts_must_not_see_what_it_forecasts(tmp_path: Path) -> None:
    recipe = validate_recipe(
        {
            "name": "ahead",
            "task": "regression",
            "data": {"source": "csv", "path": str(labelled_waves(tmp_path)), "horizon": 1, "features": [0]},
            "averaging": {"workers": 1},
        }
    )
    with pytest.raises(RecipeError, match=r"LooksAhead does not keep .*"):
        train(recipe, network=LooksAhead, out=tmp_path / "run", console=Console(quiet=True))
