"""A layer that reads every row from both ends.

Shapes: B batch, T time, F features, H hidden.
"""

import torch
from torch import nn

from rayrnn.models.cells import make_cell


class BothDirections(nn.Module):
    """Two cells, the second over each row reversed within its own length, so that padding stays at the end."""

    def __init__(self, cell: str, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.forwards = make_cell(cell, input_size, hidden_size)
        self.backwards = make_cell(cell, input_size, hidden_size)

    def forward(self, inputs: torch.Tensor, mask: torch.Tensor | None) -> list[torch.Tensor]:
        """Both directions' outputs_BTH, each at the step it belongs to: the second has seen that step and all after."""
        ahead, _ = self.forwards(inputs)
        back, _ = self.backwards(reverse(inputs, mask))
        return [ahead, reverse(back, mask)]


def reverse(steps: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Turn the existing steps of each row (BT or BTF) around; padding stays where it is. Twice is nothing."""
    if mask is None:
        return steps.flip(1)
    position = torch.arange(mask.shape[1], device=mask.device)
    mirrored = mask.sum(1, keepdim=True) - 1 - position
    index = torch.where(mirrored >= 0, mirrored, position)
    return steps.gather(1, index.reshape(index.shape + (1,) * (steps.dim() - 2)).expand_as(steps))


def merge(directions: list[torch.Tensor], how: str) -> torch.Tensor:
    """Join the directions along features (`concat`) or add them (`sum`); a single one stays as it is."""
    if len(directions) == 1:
        return directions[0]
    return torch.cat(directions, dim=-1) if how == "concat" else directions[0] + directions[1]
