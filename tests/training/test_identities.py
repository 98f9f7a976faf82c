"""What must be equal: averaging is plain training where it should be, and a resumed run is the run itself."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from rayrnn.data.order import Plan
from rayrnn.data.prepare import prepare
from rayrnn.data.sequences import take
from rayrnn.models.state import detached
from rayrnn.recipe import Recipe, task_of
from rayrnn.runs.checkpoints import read_checkpoint
from rayrnn.runs.model import build_network
from rayrnn.training.driver import train
from rayrnn.training.loop import learning_rate, make_optimizer
from tests.training.recipes import small

pytestmark = pytest.mark.usefixtures("ray_cluster")

Weights = dict[str, torch.Tensor]


def trained(recipe: Recipe, out: Path, *, resume: bool = False) -> Weights:
    """The common parameters after the last round."""
    train(recipe, out=out, resume=resume, console=Console(quiet=True))
    return read_checkpoint(out / "checkpoints" / f"round-{recipe.averaging.rounds:06d}").model


def plainly_trained(recipe: Recipe, minibatches: int) -> Weights:
    """The same network trained by a loop without workers, rounds or averaging."""
    torch.set_num_threads(1)
    material = prepare(recipe)
    torch.manual_seed(recipe.seed)
    model = build_network(recipe, material.encoding)
    optimizer = make_optimizer(model, recipe.training)
    part = material.training
    plan = Plan(
        part.sequences.steps,
        part.indices,
        part.sequences.offsets,
        batch_size=recipe.training.batch_size,
        seed=recipe.seed,
    )
    for number in range(minibatches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe.training, number // recipe.averaging.frequency, recipe.averaging.rounds)
        minibatch = task_of(recipe).minibatch(take(part.sequences, plan.minibatch(number)), material.encoding)
        state = None
        for segment in minibatch.segments(recipe.training.truncate):
            outputs, state = model(segment.inputs, state, segment.mask)
            losses = torch.nn.functional.cross_entropy(
                outputs.flatten(0, 1), segment.targets.flatten(), reduction="none"
            )
            loss = (losses * segment.target_mask.flatten()).sum() / segment.target_mask.sum()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.training.clip)
            optimizer.step()
            state = detached(state)
    return dict(model.state_dict())


def assert_bit_equal(first: Weights, second: Weights) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("wire", ["float32", pytest.param("int8", marks=pytest.mark.slow)])
def test_one_worker_at_any_frequency_is_plain_training_bit_for_bit(wire: str, tmp_path: Path) -> None:
    recipe = small(averaging={"workers": 1, "frequency": 3, "rounds": 4, "wire": wire})
    assert_bit_equal(trained(recipe, tmp_path / "run"), plainly_trained(recipe, minibatches=12))


def test_two_workers_averaging_each_update_are_one_worker_on_the_joined_minibatch(tmp_path: Path) -> None:
    sections = {"data": {"held_out": 0, "text": ("abcabd" * 400)[: 40 * 16 + 1]}}
    learning = {"optimizer": "sgd", "learning_rate": 0.5, "truncate": 0, "clip": 0}
    two = small(**sections, training=learning | {"batch_size": 4}, averaging={"frequency": 1, "rounds": 5})
    one = small(
        **sections, training=learning | {"batch_size": 8}, averaging={"frequency": 1, "rounds": 5, "workers": 1}
    )
    after_two, after_one = trained(two, tmp_path / "two"), trained(one, tmp_path / "one")
    for name, values in after_two.items():
        torch.testing.assert_close(values, after_one[name], msg=name)


@pytest.mark.parametrize(
    ("policy", "wire"),
    [
        ("average", "float32"),
        # `make test` resumes one of these from the command line
        pytest.param("keep", "float32", marks=pytest.mark.slow),
        pytest.param("average", "int8", marks=pytest.mark.slow),
    ],
)
def test_resumed_training_equals_uninterrupted_training_bit_for_bit(policy: str, wire: str, tmp_path: Path) -> None:
    settings = {"model": {"dropout": 0.2, "layers": 2}}
    averaging = {"optimizer_state": policy, "outer": "nesterov", "wire": wire}
    whole = trained(small(**settings, averaging=averaging | {"rounds": 6}), tmp_path / "whole")
    trained(small(**settings, averaging=averaging | {"rounds": 4}), tmp_path / "parts")
    resumed = trained(small(**settings, averaging=averaging | {"rounds": 6}), tmp_path / "parts", resume=True)
    assert_bit_equal(whole, resumed)
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == (
        tmp_path / "parts" / "model.safetensors"
    ).read_bytes()
