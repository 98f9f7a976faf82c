"""The optimizer `muon`: recurrent matrices gate by gate, everything else by AdamW."""

import pytest
import torch
from torch import nn

from rayrnn.averaging.optimizer_state import moments, prepare_state
from rayrnn.errors import RecipeError
from rayrnn.models.cells import make_cell
from rayrnn.models.network import Network
from rayrnn.training.loop import make_optimizer
from rayrnn.training.muon import Muon, gates_of, orthogonal
from tests.training.recipes import small

SETTINGS = {"optimizer": "muon", "learning_rate": 0.01, "l2": 0.1}


def small_network() -> Network:
    return Network(num_inputs=10, num_outputs=10, symbols=True, cell="lstm", hidden_size=24, num_layers=1)


def gradients(parameters: list[torch.Tensor], seed: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(parameter.shape, generator=random) for parameter in parameters]


@pytest.mark.parametrize(
    ("cell", "gates", "dim"), [("lstm", 4, 0), ("gru", 3, 0), ("rnn", 1, 0), ("graves_lstm", 4, 1)]
)
def test_every_gate_moves_as_a_matrix_of_its_own_in_torchs_muon(cell: str, gates: int, dim: int) -> None:
    torch.manual_seed(3)
    layer = make_cell(cell, 6, 8)
    matrices = list(gates_of(layer))
    assert sorted(matrix.numel() for matrix in matrices) == sorted([6 * 8 * gates, 8 * 8 * gates])
    apart = [nn.Parameter(gate.detach().clone()) for matrix in matrices for gate in matrix.chunk(gates, dim)]
    theirs = torch.optim.Muon(apart, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    ours = Muon(layer, lr=0.01, weight_decay=0.1, dtype=torch.bfloat16)
    for seed in range(3):
        for matrix, gradient in zip(matrices, gradients(list(matrices), seed), strict=True):
            matrix.grad = gradient
        own = [gate for matrix in matrices if matrix.grad is not None for gate in matrix.grad.chunk(gates, dim)]
        for gate, gradient in zip(apart, own, strict=True):
            gate.grad = gradient.contiguous()
        ours.step()
        theirs.step()
        moved = [gate for matrix in matrices for gate in matrix.detach().chunk(gates, dim)]
        for gate, expected in zip(moved, apart, strict=True):
            # a step is about 0.002 in each value; bfloat16 rounds it to a hundredth of that
            torch.testing.assert_close(gate, expected.detach(), atol=2e-4, rtol=0)


def test_everything_but_the_recurrent_matrices_moves_as_with_adamw() -> None:
    recipe = small(training=SETTINGS)
    torch.manual_seed(3)
    network, copy = (small_network() for _ in range(2))
    copy.load_state_dict(network.state_dict())
    optimizers = (
        make_optimizer(network, recipe.training),
        torch.optim.AdamW(copy.parameters(), lr=0.01, weight_decay=0.1),
    )
    for seed in range(3):
        for one in (network, copy):
            for parameter, gradient in zip(one.parameters(), gradients(list(one.parameters()), seed), strict=True):
                parameter.grad = gradient
        for optimizer in optimizers:
            optimizer.step()
    matrices = {id(matrix) for matrix in gates_of(network)}
    pairs = list(zip(network.parameters(), copy.parameters(), strict=True))
    assert len(matrices) == 2
    for ours, theirs in pairs:
        assert torch.allclose(ours, theirs, atol=1e-6) == (id(ours) not in matrices)


def test_the_iterations_leave_singular_values_around_one() -> None:
    matrices = torch.cat([torch.randn(3, 24, 40), 1000 * torch.randn(3, 24, 40)])
    for found in (orthogonal(matrices), orthogonal(matrices.mT).mT, orthogonal(matrices.to(torch.bfloat16)).float()):
        values = torch.linalg.svdvals(found)
        assert values.min() > 0.5
        assert values.max() < 1.35
    assert torch.equal(orthogonal(torch.zeros(1, 4, 4)), torch.zeros(1, 4, 4))


def test_its_moments_are_one_a_recurrent_value_and_two_for_every_other() -> None:
    recipe = small(training=SETTINGS)
    network = small_network()
    optimizer = make_optimizer(network, recipe.training)
    prepare_state(optimizer)
    recurrent = sum(matrix.numel() for matrix in gates_of(network))
    everything = sum(parameter.numel() for parameter in network.parameters())
    assert sum(moment.numel() for moment in moments(optimizer)) == recurrent + 2 * (everything - recurrent)
    assert all(not moment.any() for moment in moments(optimizer))


def test_a_network_without_recurrent_layers_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"training\.optimizer: muon .* Linear has none .* take adam"):
        make_optimizer(nn.Linear(3, 3), small(training=SETTINGS).training)
