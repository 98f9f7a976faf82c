"""`training.precision`: what a worker multiplies in."""

import math
from typing import Any

import pytest
import torch

from rayrnn.data.prepare import Prepared, prepare
from rayrnn.training.learner import Learner, WorkerSpec
from rayrnn.training.loop import Evaluation, computes_in_bf16
from tests.training.recipes import small

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prepared(ray_cluster: object) -> Prepared:
    return prepare(small())


@pytest.mark.parametrize("has_it", [True, False])
def test_auto_is_bf16_where_the_processor_has_instructions_for_it(
    has_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": has_it})
    assert computes_in_bf16("auto", CPU) == has_it
    assert computes_in_bf16("bf16", CPU)
    assert not computes_in_bf16("fp32", CPU)


def test_auto_is_fp32_where_the_processor_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert not computes_in_bf16("auto", CPU)


def learned(prepared: Prepared, precision: str, **model: Any) -> tuple[Learner, Evaluation]:
    recipe = small(training={"precision": precision}, model=model, averaging={"rounds": 60})
    learner = Learner(WorkerSpec(recipe, prepared.encoding, prepared.training, prepared.held_out), 0, CPU)
    for _ in range(12):
        learner.learn(0, 1)
    evaluation = learner.evaluate(0, 1)
    learner.close()
    return learner, evaluation


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "graves_lstm"])
def test_bf16_learns_what_fp32_does_but_for_rounding_and_keeps_its_parameters_in_float32(
    cell: str, prepared: Prepared
) -> None:
    exact, rounded = (learned(prepared, precision, cell=cell) for precision in ("fp32", "bf16"))
    assert {value.dtype for value in rounded[0].weights().values()} == {torch.float32}
    assert not all(torch.equal(value, rounded[0].weights()[name]) for name, value in exact[0].weights().items())
    losses = [evaluation.loss_sum / evaluation.num_targets for _, evaluation in (exact, rounded)]
    assert losses[0] < 0.9 * math.log(prepared.encoding.num_outputs)
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
