"""Training that begins with what another run has learned: at its loss, with more symbols, with another head."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from rayrnn.data.encoding import Encoding
from rayrnn.data.prepare import prepare
from rayrnn.errors import RecipeError, RunError, UsageError
from rayrnn.exports.export import export
from rayrnn.prediction.evaluate import evaluate
from rayrnn.recipe import Recipe, validate_recipe
from rayrnn.runs.beginning import begin_from
from rayrnn.runs.directory import Run, create_run
from rayrnn.runs.model import build_network, find_network, load_network
from rayrnn.training.driver import train
from rayrnn.training.summary import Summary
from tests.s3_store import Store
from tests.training.recipes import small, words
from tests.untrained import make_run, wave, write_files

pytestmark = pytest.mark.usefixtures("ray_cluster")

#: so small that a round changes nothing that a loss would show
STILL = {"learning_rate": 1e-12, "evaluate_every": 1}
ONE_ROUND = {"rounds": 1}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Run:
    """A language model of six rounds."""
    return train(small(), out=tmp_path_factory.mktemp("learned") / "run", console=Console(quiet=True)).run


def trained(recipe: Recipe, out: Path, **options: Any) -> tuple[Summary, str]:
    screen = io.StringIO()
    return train(recipe, out=out, console=Console(file=screen, width=300), **options), screen.getvalue()


def beginning_of(recipe: Recipe, encoding: Encoding | None = None) -> tuple[dict[str, torch.Tensor], str]:
    begin = begin_from(recipe, encoding or prepare(recipe).encoding, find_network(recipe), None)
    return begin.weights, begin.told


def from_run(run: Run | Path | str, **sections: dict[str, Any]) -> Recipe:
    where = str(run.path if isinstance(run, Run) else run)
    training = sections.pop("training", {}) | {"start_from": where}
    return small(training=training, **sections)


@pytest.mark.parametrize("workers", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_fine_tuning_begins_at_the_loss_that_was_reached(learned: Run, tmp_path: Path, workers: int) -> None:
    before = evaluate(learned).to_json()["loss"]
    recipe = from_run(learned, training=STILL, averaging=ONE_ROUND | {"workers": workers})
    outcome, screen = trained(recipe, tmp_path / "run")
    assert outcome.best_loss == pytest.approx(before, rel=1e-5)
    assert f"begins with {learned.path}: 6 of 6 tensors\n" in screen
    unlike = trained(small(training=STILL, averaging=ONE_ROUND), tmp_path / "unlike")[0]
    assert unlike.best_loss is not None
    assert unlike.best_loss > before * 1.05


def test_a_file_of_weights_is_begun_with_as_the_run_is(learned: Run, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    export(learned, str(file))
    weights, told = beginning_of(from_run(file))
    assert told == f"begins with {file}: 6 of 6 tensors"
    for name, value in load_network(learned).state_dict().items():
        assert torch.equal(weights[name], value), name


def test_torchs_own_weights_give_the_recurrent_layers_and_the_head_is_new(tmp_path: Path) -> None:
    recipe = from_run(tmp_path / "lstm.safetensors")
    encoding = prepare(recipe).encoding
    layer = torch.nn.LSTM(encoding.num_inputs, 24)
    save_file(layer.state_dict(), tmp_path / "lstm.safetensors", metadata={"format": "pt"})
    weights, told = beginning_of(recipe, encoding)
    assert torch.equal(weights["layers.0.recurrence.weight_hh_l0"], layer.weight_hh_l0)
    assert "4 of 6 tensors; a new head for " in told


def test_new_symbols_are_added_and_known_ones_keep_what_was_learned(learned: Run, tmp_path: Path) -> None:
    recipe = from_run(learned, data={"text": words() + " ÄÖ" * 9, "length": 40})
    before, now = learned.encoding.vocabulary, prepare(recipe).encoding.vocabulary
    assert {*now.symbols} - {*before.symbols} == {"Ä", "Ö"}
    weights, told = beginning_of(recipe)
    assert told == f"begins with {learned.path}: 6 of 6 tensors; 2 new symbols"
    old, fresh = load_network(learned).state_dict(), _fresh(recipe)
    for name, axis in (("projection.weight", 0), ("projection.bias", 0), ("layers.0.recurrence.weight_ih_l0", 1)):
        for place, symbol in enumerate(now.symbols):
            there = before.symbols.index(symbol) if symbol in before.symbols else None
            expected = fresh[name].select(axis, place) if there is None else old[name].select(axis, there)
            assert torch.equal(weights[name].select(axis, place), expected), (name, symbol)
    assert trained(recipe, tmp_path / "run")[0].run.encoding.num_inputs == len(before) + 2


def _fresh(recipe: Recipe) -> dict[str, torch.Tensor]:
    torch.manual_seed(recipe.seed)
    return dict(build_network(recipe, prepare(recipe).encoding).state_dict())


def labelled(path: Path, classes: int) -> Path:
    return write_files(path, lambda number, step: [*wave(number, step), f"class {number % classes}"], "a,b,label")


def classifying(data: Path, **training: Any) -> dict[str, Any]:
    return {
        "name": "classifying",
        "task": "classification",
        "data": {"source": "csv", "path": str(data), "label_column": "label", "skip_lines": 1, "held_out": 0.2},
        "model": {"cell": "gru", "hidden": 8, "layers": 1},
        "training": {"batch_size": 4, **training},
        "averaging": {"workers": 1, "rounds": 2},
    }


def series_of(data: Path, *features: str) -> dict[str, Any]:
    return {"source": "csv", "path": str(data), "horizon": 1, "skip_lines": 1, "features": list(features)}


def test_other_classes_have_a_new_head(tmp_path: Path) -> None:
    values = classifying(labelled(tmp_path / "three", 3))
    run = make_run(tmp_path / "run", values["task"], values["data"])
    recipe = validate_recipe(classifying(labelled(tmp_path / "four", 4), start_from=str(run.path)))
    weights, told = beginning_of(recipe)
    assert told == f"begins with {run.path}: 4 of 6 tensors; a new head for 4 classes"
    assert torch.equal(weights["projection.weight"], _fresh(recipe)["projection.weight"])
    same = validate_recipe(classifying(tmp_path / "three", start_from=str(run.path)))
    assert beginning_of(same)[1] == f"begins with {run.path}: 6 of 6 tensors"


def test_another_task_has_a_new_head_over_what_reads(tmp_path: Path) -> None:
    data = write_files(tmp_path / "series", wave, "a,b")
    run = make_run(tmp_path / "run", "regression", series_of(data, "a", "b"))
    recipe = validate_recipe(classifying(labelled(tmp_path / "labelled", 2), start_from=str(run.path)))
    weights, told = beginning_of(recipe)
    assert told == f"begins with {run.path}: 4 of 6 tensors; a new head for 2 classes"
    name = "layers.0.recurrence.weight_ih_l0"
    assert torch.equal(weights[name], load_network(run).state_dict()[name])


def test_features_are_known_by_their_names(tmp_path: Path) -> None:
    data = write_files(tmp_path / "two", wave, "a,b")
    run = make_run(tmp_path / "run", "regression", series_of(data, "a", "b"))
    more = write_files(tmp_path / "three", lambda number, step: [number, *reversed(wave(number, step))], "c,b,a")
    recipe = validate_recipe(
        {
            "name": "more",
            "task": "regression",
            "data": series_of(more, "c", "b", "a"),
            "model": {"cell": "gru", "hidden": 8, "layers": 1},
            "training": {"start_from": str(run.path)},
        }
    )
    weights, told = beginning_of(recipe)
    assert told == f"begins with {run.path}: 4 of 6 tensors; 1 new feature; a new head for 3 numbers"
    name, old = "layers.0.recurrence.weight_ih_l0", load_network(run).state_dict()
    assert torch.equal(weights[name][:, 1:], old[name].flip(1))
    assert torch.equal(weights[name][:, 0], _fresh(recipe)[name][:, 0])


@pytest.mark.parametrize(
    ("model", "there", "here"),
    [
        ({"hidden": 32}, "1 x 24 lstm", "1 x 32 lstm"),
        ({"layers": 2}, "1 x 24 lstm", "2 x 24 lstm"),
        ({"cell": "gru"}, "1 x 24 lstm", "1 x 24 gru"),
        ({"cell": "graves_lstm"}, "1 x 24 lstm", "1 x 24 graves_lstm"),
        ({"embedding": 7}, "absent there", "1 x 24 lstm"),
    ],
)
def test_other_sizes_are_refused_with_both(learned: Run, model: dict[str, Any], there: str, here: str) -> None:
    with pytest.raises(RecipeError, match=r"leave training\.start_from out") as refused:
        beginning_of(from_run(learned, model=model))
    assert there in str(refused.value)
    assert here in str(refused.value)


def test_numbers_are_not_begun_with_symbols(learned: Run, tmp_path: Path) -> None:
    values = classifying(labelled(tmp_path / "labelled", 2), start_from=str(learned.path))
    recipe = validate_recipe(values | {"model": {"cell": "lstm", "hidden": 24, "layers": 1}})
    with pytest.raises(RecipeError, match=r"which reads 1\d symbols, and this recipe's data has 2 features"):
        beginning_of(recipe)


def test_what_is_not_there_is_told(learned: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no run"):
        trained(from_run(tmp_path / "nothing"), tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.yaml").exists()
    with pytest.raises(RecipeError, match=r"training.start_from: .*absent\.safetensors"):
        beginning_of(from_run(tmp_path / "absent.safetensors"))
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(RecipeError, match=r"text\.safetensors, which is no such file"):
        beginning_of(from_run(tmp_path / "text.safetensors"))
    with pytest.raises(RecipeError, match="what is in it can be computed, not learned"):
        beginning_of(from_run(tmp_path / "model.onnx"))
    bare = create_run(tmp_path / "bare")
    bare.write_recipe(learned.recipe)
    bare.write_encoding(learned.encoding)
    with pytest.raises(RunError, match="the run has no model yet"):
        beginning_of(from_run(bare))


@pytest.mark.slow
def test_a_run_that_goes_on_does_not_begin_again(learned: Run, tmp_path: Path) -> None:
    beginning = tmp_path / "weights.safetensors"
    export(learned, str(beginning))
    whole = trained(from_run(beginning, averaging={"rounds": 4}), tmp_path / "whole")[0]
    first = from_run(beginning, averaging={"rounds": 2})
    trained(first, tmp_path / "halves")
    beginning.unlink()
    rest, screen = trained(from_run(beginning, averaging={"rounds": 4}), tmp_path / "halves", resume=True)
    assert "begins with" not in screen
    expected, found = (load_network(outcome.run).state_dict() for outcome in (whole, rest))
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
    assert rest.loss is not None
    assert math.isfinite(rest.loss)


def test_a_network_of_the_users_own_takes_what_has_its_names_and_shapes(tmp_path: Path) -> None:
    own = {"network": "examples.minimal_gru:MinimalGRU", "options": {"hidden": 24}}
    values = small().model_dump(mode="json") | {"model": own}
    run = train(validate_recipe(values), out=tmp_path / "own", console=Console(quiet=True)).run
    training = values["training"] | {"start_from": str(run.path)}
    again = validate_recipe(values | {"training": training})
    weights, told = beginning_of(again)
    assert told == f"begins with {run.path}: 5 of 5 tensors"
    for name, value in load_network(Run(run.path, trusted=True)).state_dict().items():
        assert torch.equal(weights[name], value), name
    wider = validate_recipe(values | {"training": training, "model": own | {"options": {"hidden": 25}}})
    assert "1 of 5 tensors" in beginning_of(wider)[1]
    with pytest.raises(RecipeError, match=r"minimal_gru:MinimalGRU, and this recipe's network is 1 x 24 lstm"):
        beginning_of(from_run(run))


def test_a_run_in_a_store_is_begun_with(learned: Run, s3_environment: Store) -> None:
    for name in ("recipe.yaml", "vocabulary.json", "model.safetensors"):
        with s3_environment.filesystem().open_output_stream(f"{s3_environment.bucket}/begun/{name}") as stream:
            stream.write((learned.path / name).read_bytes())
    address = f"s3://{s3_environment.bucket}/begun"
    assert beginning_of(from_run(address))[1] == f"begins with {address}: 6 of 6 tensors"
    with pytest.raises(UsageError, match="is no run"):
        beginning_of(from_run(f"{address}/absent"))
