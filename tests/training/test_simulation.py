"""Simulated workers, from which the scaling rules come, learn what real ones learn."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.scaling import Simulation
from rayrnn.data.prepare import prepare
from rayrnn.runs.checkpoints import newest_checkpoint
from rayrnn.runs.directory import open_run
from rayrnn.training.driver import train
from rayrnn.training.learner import WorkerSpec
from tests.training.recipes import small

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.mark.parametrize(
    "averaging",
    [
        pytest.param({"outer": "nesterov", "outer_learning_rate": 0.7, "outer_momentum": 0.5}, marks=pytest.mark.slow),
        pytest.param({"optimizer_state": "average", "wire": "int8"}, marks=pytest.mark.slow),
        pytest.param({"overlap": 1, "rounds": 8}, marks=pytest.mark.slow),
        {"overlap": 2, "rounds": 8, "wire": "bfloat16", "outer": "nesterov"},
    ],
    ids=["nesterov", "moments averaged, int8", "overlap", "overlap of all, nesterov, bfloat16"],
)
def test_two_simulated_workers_learn_what_two_real_ones_do_bit_for_bit(
    averaging: dict[str, Any], tmp_path: Path
) -> None:
    recipe = small(
        model={"hidden": 8, "layers": 2, "dropout": 0.2},
        training={"optimizer": "adam", "learning_rate": 0.01, "batch_size": 8, "evaluate_every": 3},
        averaging={"workers": 2, "rounds": 5, "frequency": 2, **averaging},
    )
    train(recipe, out=tmp_path / "run")
    run = open_run(tmp_path / "run")
    prepared = prepare(recipe)
    simulation = Simulation(WorkerSpec(recipe, prepared.encoding, prepared.training, prepared.held_out), 2)
    simulation.learn()
    checkpoint, _ = newest_checkpoint(run.checkpoints)
    assert checkpoint is not None
    for learner in simulation.learners:
        weights = learner.weights()
        assert all(torch.equal(weights[name], value) for name, value in checkpoint.model.items())
    for learner, state in zip(simulation.learners, checkpoint.optimizers, strict=True):
        own = learner.own_state()
        assert all(torch.equal(own[name], value) for name, value in state.items() if name != "random")
    told = [(line["round"], line["held_out_loss"]) for line in run.metrics() if "held_out_loss" in line]
    assert [number for number, _ in told] == [number for number, _ in simulation.curve]
    assert [loss for _, loss in told] == pytest.approx([loss for _, loss in simulation.curve], abs=1e-6)
