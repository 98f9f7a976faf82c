"""What must be equal: averaging is plain training where it should be, and a resumed run is the run itself."""

import subprocess
import sys
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
from tests.training.recipes import small, words

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
    averaging = {"frequency": 1, "rounds": 5, "scaling": "none"}
    two = small(**sections, training=learning | {"batch_size": 4}, averaging=averaging)
    one = small(**sections, training=learning | {"batch_size": 8}, averaging=averaging | {"workers": 1})
    after_two, after_one = trained(two, tmp_path / "two"), trained(one, tmp_path / "one")
    for name, values in after_two.items():
        torch.testing.assert_close(values, after_one[name], msg=name)


@pytest.mark.parametrize(
    "chosen",
    [
        {"overlap": 1},  # which keeps the optimizers' states
        # `make test` resumes this one from the command line
        pytest.param({"optimizer_state": "average"}, marks=pytest.mark.slow),
        pytest.param({"optimizer_state": "keep"}, marks=pytest.mark.slow),
        pytest.param({"optimizer_state": "average", "wire": "int8"}, marks=pytest.mark.slow),
    ],
    ids=lambda chosen: ", ".join(f"{name} {value}" for name, value in chosen.items()),
)
@pytest.mark.parametrize("optimizer", ["adam", pytest.param("muon", marks=pytest.mark.slow)])
def test_resumed_training_equals_uninterrupted_training_bit_for_bit(
    chosen: dict[str, object], optimizer: str, tmp_path: Path
) -> None:
    settings: dict[str, dict[str, object]] = {
        "model": {"dropout": 0.2, "layers": 2},
        "training": {"batch_size": 8, "optimizer": optimizer},
    }
    averaging = {"outer": "nesterov", **chosen}
    whole = trained(small(**settings, averaging=averaging | {"rounds": 6}), tmp_path / "whole")
    trained(small(**settings, averaging=averaging | {"rounds": 4}), tmp_path / "parts")
    resumed = trained(small(**settings, averaging=averaging | {"rounds": 6}), tmp_path / "parts", resume=True)
    assert_bit_equal(whole, resumed)
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == (
        tmp_path / "parts" / "model.safetensors"
    ).read_bytes()


#: trains in a Ray of its own with so many CPUs
ELSEWHERE = """
import sys
from pathlib import Path
import ray
from rich.console import Console
from rayrnn.recipe import load_recipe
from rayrnn.training.driver import train
ray.init(address="local", num_cpus=int(sys.argv[1]), include_dashboard=False, log_to_driver=False)
train(load_recipe(sys.argv[2]), out=sys.argv[3], console=Console(quiet=True))
"""


@pytest.mark.slow
@pytest.mark.parametrize("cpus", [2, 11])
def test_a_run_that_is_resumed_where_there_are_other_cpus_goes_on_in_the_same_order(cpus: int, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}.txt").write_text(f"{number:06} " + words(4000, seed=number))
    data = {"text": None, "path": f"{tmp_path}/*.txt", "length": 2, "held_out": 0}
    settings: dict[str, dict[str, object]] = {"data": data, "training": {"batch_size": 1024}}

    def recipe(rounds: int) -> Recipe:
        return small(**settings, averaging={"workers": 1, "frequency": 8, "rounds": rounds})

    whole = trained(recipe(6), tmp_path / "whole")
    (tmp_path / "elsewhere.yaml").write_text(recipe(4).to_yaml())
    command = [sys.executable, "-c", ELSEWHERE, str(cpus), str(tmp_path / "elsewhere.yaml"), str(tmp_path / "parts")]
    subprocess.run(command, check=True, timeout=300)
    assert_bit_equal(whole, trained(recipe(6), tmp_path / "parts", resume=True))
