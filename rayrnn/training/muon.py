"""Muon for the recurrent matrices, gate by gate, and Adam for everything else.

Shapes: G gates, R rows and C columns of one gate's matrix.
"""

import torch
from torch import nn

from rayrnn.errors import RecipeError
from rayrnn.models.graves_lstm import GravesLSTM

#: of the running average of gradients
MOMENTUM = 0.95
#: the quintic iteration's number and coefficients (Jordan et al. 2024, "Muon: An optimizer for hidden layers")
ITERATIONS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Steps of equal length in every direction for the matrices of recurrent layers; Adam's for all other parameters.

    A matrix of several gates is as many matrices: each is made orthogonal by itself. The steps are scaled to have the
    root mean square of Adam's (Liu et al. 2025, arXiv:2502.16982), so that one learning rate serves both.

    Args:
        model: whose parameters are optimized.
        weight_decay: apart from the gradient, for all parameters.
        dtype: what the iterations are computed in.

    Raises:
        RecipeError: the model has no recurrent layer of torch or rayrnn.
    """

    def __init__(self, model: nn.Module, *, lr: float, weight_decay: float, dtype: torch.dtype) -> None:
        self._gates = gates_of(model)
        if not self._gates:
            raise RecipeError(
                f"training.optimizer: muon is for the matrices of recurrent layers, and {type(model).__name__} has "
                "none of torch's (nn.LSTM, nn.GRU, nn.RNN and their cells) or rayrnn's; take adam"
            )
        others = [parameter for parameter in model.parameters() if parameter not in self._gates]
        super().__init__(list(self._gates), {"lr": lr, "weight_decay": weight_decay})
        self._adam = torch.optim.AdamW(others, lr=lr, weight_decay=weight_decay, fused=True)
        # one optimizer to everybody else: Adam's groups and state are among these
        self.param_groups += self._adam.param_groups
        self._adam.state = self.state
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the gradients as they are."""
        self._adam.step()
        group = self.param_groups[0]
        for parameter in group["params"]:
            if parameter.grad is not None:
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
                ahead = _by_gate(parameter.grad.lerp(momentum, MOMENTUM), *self._gates[parameter])
                steps = orthogonal(ahead.to(self._dtype)).to(parameter.dtype)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                _by_gate(parameter, *self._gates[parameter]).add_(
                    steps, alpha=-group["lr"] * 0.2 * max(ahead.shape[-2:]) ** 0.5
                )


def _by_gate(matrix: torch.Tensor, num_gates: int, dim: int) -> torch.Tensor:
    """A matrix of gates along `dim` as a view, G x R x C."""
    shape = [num_gates, -1, matrix.shape[1]] if dim == 0 else [matrix.shape[0], num_gates, -1]
    return matrix.view(shape).movedim(dim, 0)


def gates_of(model: nn.Module) -> dict[nn.Parameter, tuple[int, int]]:
    """Every recurrent layer's matrices: how many gates, and along which dimension they lie."""
    found: dict[nn.Parameter, tuple[int, int]] = {}
    for module in model.modules():
        if isinstance(module, nn.RNNBase | nn.RNNCellBase):
            matrices = [parameter for parameter in module.parameters(recurse=False) if parameter.dim() == 2]
            found |= {matrix: (len(matrix) // module.hidden_size, 0) for matrix in matrices}
        elif isinstance(module, GravesLSTM):
            found |= dict.fromkeys((module.input_weights, module.recurrent_weights), (4, 1))
    return found


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """The nearest orthogonal matrices of each of G x R x C, roughly: singular values between 0.7 and 1.2."""
    first, third, fifth = COEFFICIENTS
    turned = matrices.shape[-2] > matrices.shape[-1]
    found = matrices.mT if turned else matrices
    found = found / found.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = torch.bmm(found, found.mT)
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=third, alpha=fifth), found, beta=first)
    return found.mT if turned else found
