"""The state of an optimizer as tensors: its running averages and its counts of updates, read and written in place."""

from collections.abc import Iterator

import torch


def moments(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    """The optimizer's running averages, in a fixed order; its counts of updates, which are scalars, are none."""
    return (value for _, value in _named_state(optimizer) if value.dim() > 0)


@torch.no_grad()
def prepare_state(optimizer: torch.optim.Optimizer) -> None:
    """Make the optimizer create its state now (all zeros), so that every worker has the same tensors."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    reset_state(optimizer)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def reset_state(optimizer: torch.optim.Optimizer) -> None:
    """Forget all moments and counts, in place."""
    for state in optimizer.state.values():
        for value in state.values():
            value.zero_()


def own_state(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What only this worker has: its optimizer's state and its random generator."""
    state = {name: value.detach().cpu().clone() for name, value in _named_state(optimizer)}
    return state | {"random": torch.get_rng_state()}


@torch.no_grad()
def load_own_state(optimizer: torch.optim.Optimizer, state: dict[str, torch.Tensor]) -> None:
    """Go on from what `own_state` returned, in place."""
    for name, value in _named_state(optimizer):
        value.copy_(state[name])
    torch.set_rng_state(state["random"])


def _named_state(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.Tensor]]:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in enumerate(parameters):
        for name, value in sorted(optimizer.state[parameter].items()):
            yield f"{number}.{name}", value
