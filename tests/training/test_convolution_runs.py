"""Runs with convolutions: averaging, resuming, Muon, prediction and recipes of strangers work as with any network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from rayrnn.data.encoding import Classes, Encoding, Numbers, Scaling
from rayrnn.data.prepare import prepare
from rayrnn.data.sequences import take
from rayrnn.errors import RecipeError, RunError
from rayrnn.models.cells import TorchCell
from rayrnn.recipe import Recipe, validate_recipe
from rayrnn.runs.checkpoints import read_checkpoint
from rayrnn.runs.model import build_network, check_encoding, check_network, outputs_of, trained
from rayrnn.training.driver import train
from rayrnn.training.loop import make_optimizer
from rayrnn.training.muon import gates_of
from tests.training.recipes import small
from tests.untrained import make_run, wave, write_files
from tests.untrained import outputs_of as each_alone

CONVOLUTIONS = {
    **{"front": "conv", "front_channels": [8, 8], "front_width": 3, "front_stride": [1, 2]},
    **{"parallel": "conv", "parallel_channels": [8, 16], "parallel_widths": [4, 3]},
}
NUMBERS = Numbers(Scaling.none(2))


@pytest.fixture
def series(tmp_path: Path) -> dict[str, Any]:
    """Thirty sequences of up to twelve steps with two numbers each, of two classes."""
    files = write_files(tmp_path / "series", lambda number, step: [*wave(number, step), "ab"[number % 2]])
    return {"source": "csv", "path": str(files), "label_column": {"place": -1}, "normalize": "standardize"}


def recipe_of(data: dict[str, Any], model: dict[str, Any] | None = None, **sections: dict[str, Any]) -> Recipe:
    values = small().model_dump(mode="json") | {"task": "classification", "data": data | {"held_out": 0}}
    values["training"] |= {"truncate": 0, **sections.get("training", {})}
    values["averaging"] |= sections.get("averaging", {})
    given = {"cell": "gru", "hidden": 6, "layers": 1, **CONVOLUTIONS, **(model or {})}
    return validate_recipe(values | {"model": given})


def learned(recipe: Recipe, out: Path, *, resume: bool = False) -> dict[str, torch.Tensor]:
    train(recipe, out=out, resume=resume, console=Console(quiet=True))
    return read_checkpoint(out / "checkpoints" / f"round-{recipe.averaging.rounds:06d}").model


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_resumed_run_with_hidden_runs_equals_the_uninterrupted_one_bit_for_bit(
    series: dict[str, Any], tmp_path: Path
) -> None:
    def recipe(rounds: int) -> Recipe:
        hidden = {"mask_steps": 4, "mask_features": 1, "dropout": 0.2}
        return recipe_of(series, hidden, averaging={"rounds": rounds, "frequency": 1})

    whole = learned(recipe(4), tmp_path / "whole")
    learned(recipe(2), tmp_path / "parts")
    resumed = learned(recipe(4), tmp_path / "parts", resume=True)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    unhidden = learned(recipe_of(series, {"dropout": 0.2}, averaging={"rounds": 4, "frequency": 1}), tmp_path / "un")
    assert not torch.equal(unhidden["front.convolutions.0.weight"], whole["front.convolutions.0.weight"])


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.slow
def test_two_workers_averaging_each_update_are_one_worker_on_the_joined_minibatch(
    series: dict[str, Any], tmp_path: Path
) -> None:
    learning = {"optimizer": "sgd", "learning_rate": 0.1, "clip": 0}
    # sequences of one length have equal work
    files = write_files(tmp_path / "even", lambda number, step: [*wave(number, step), "ab"[number % 2]])
    for number, file in enumerate(sorted(files.iterdir())):
        lines = [",".join(map(str, [*wave(number, step), "ab"[number % 2]])) for step in range(9)]
        file.write_text("\n".join(lines) + "\n")
    data = series | {"path": str(files)}
    averaging = {"frequency": 1, "rounds": 3, "scaling": "none"}
    two = recipe_of(data, training=learning | {"batch_size": 5}, averaging=averaging)
    one = recipe_of(data, training=learning | {"batch_size": 10}, averaging=averaging | {"workers": 1})
    after_two, after_one = learned(two, tmp_path / "two"), learned(one, tmp_path / "one")
    for name, values in after_two.items():
        torch.testing.assert_close(values, after_one[name], msg=name)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_answers_in_minibatches_are_those_of_each_sequence_alone(
    series: dict[str, Any], tmp_path: Path, task: str
) -> None:
    per_step = {"front_stride": 1, "parallel": "none"} if task == "tagging" else {}
    run = make_run(tmp_path / "run", task, series | {"held_out": 0}, CONVOLUTIONS | per_step)
    alone, model = each_alone(run), trained(run)
    sequences = prepare(run.recipe).training.sequences
    rows = take(sequences, np.arange(len(sequences.steps)))
    found = outputs_of(rows, model, model.network())
    expected = torch.cat([value.reshape(-1, 2) for value in alone.values()]).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_muon_takes_the_recurrent_matrices_and_adamw_the_convolutions(series: dict[str, Any]) -> None:
    recipe = recipe_of(series, {"cell": "lstm"}, training={"optimizer": "muon"})
    network = build_network(recipe, Encoding(NUMBERS, Classes(("a", "b")), per_step=False))
    (layer,) = [module for module in network.modules() if isinstance(module, TorchCell)]
    assert set(gates_of(network)) == {layer.recurrence.weight_ih_l0, layer.recurrence.weight_hh_l0}
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    optimizer = make_optimizer(network, recipe.training)
    network(torch.randn(3, 7, 2), None, None)[0].square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(value, before[name]) for name, value in network.named_parameters())


class Images:
    """What a section of data says whose steps are images."""

    step_shape = (6, 5, 3)


@pytest.mark.parametrize("optimizer", ["muon", "adam", "sgd", "rmsprop"])
def test_images_are_read_where_the_data_says_that_steps_are_images(
    series: dict[str, Any], monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    recipe = recipe_of(series, training={"optimizer": optimizer})
    monkeypatch.setattr(type(recipe.data), "step_shape", Images.step_shape)
    encoding = Encoding(Numbers(Scaling.none(90)), Classes(("a", "b")), per_step=False)
    network = build_network(recipe, encoding)
    strides = [layer.stride for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert strides == [(1, 1), (2, 2)]
    answers, _ = network(torch.randn(3, 7, 90), None, None)
    answers.square().sum().backward()
    make_optimizer(network, recipe.training).step()
    small = Encoding(Numbers(Scaling.none(12)), Classes(("a", "b")), per_step=False)
    monkeypatch.setattr(type(recipe.data), "step_shape", (2, 2, 3))
    with pytest.raises(RecipeError, match="front: conv leaves one value of an image of 2 x 2 to be normalized"):
        check_network(recipe, small, None)
    monkeypatch.setattr(type(recipe.data), "step_shape", Images.step_shape)
    plain = recipe_of(series, {"front_stride": None})
    strides = [layer.stride for layer in build_network(plain, encoding).modules() if isinstance(layer, nn.Conv2d)]
    assert strides == [(2, 2), (2, 2)]


@pytest.mark.parametrize(
    ("model", "encoding", "message"),
    [
        ({}, Encoding(NUMBERS, Numbers(Scaling.none(1)), per_step=True), "model.parallel must be none"),
        (
            {"parallel": "none"},
            Encoding(NUMBERS, Numbers(Scaling.none(1)), per_step=True),
            "model.front_stride must be 1",
        ),
        ({"embedding": 4}, Encoding(NUMBERS, Numbers(Scaling.none(1)), per_step=False), "model.embedding is 4"),
    ],
)
def test_what_only_the_data_can_say_is_an_error_before_training_and_in_a_stored_run(
    series: dict[str, Any], tmp_path: Path, model: dict[str, Any], encoding: Encoding, message: str
) -> None:
    values = recipe_of(series).model_dump(mode="json")
    recipe = validate_recipe(values | {"task": "regression", "model": values["model"] | model})
    with pytest.raises(RecipeError, match=message):
        check_network(recipe, encoding, None)
    with pytest.raises(RunError, match=message):
        check_encoding(recipe, encoding, where=tmp_path)


@pytest.mark.parametrize(
    "sizes",
    [
        {"front_channels": [100_000, 100_000], "front_width": [1000]},
        {"parallel_channels": [100_000] * 100, "parallel_widths": [1000]},
    ],
    ids=list,
)
def test_convolutions_for_which_no_machine_has_room_are_refused_before_memory_is_taken(
    series: dict[str, Any], sizes: dict[str, Any]
) -> None:
    recipe = recipe_of(series, {"front_stride": None, **sizes})
    with pytest.raises(RecipeError, match=r"needs .* of memory; this machine has .*or the channels of convolutions"):
        check_network(recipe, Encoding(NUMBERS, Classes(("a", "b")), per_step=False), None)
