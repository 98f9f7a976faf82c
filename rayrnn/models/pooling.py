"""How the steps of a sequence become one vector.

Shapes: B batch, T time, H hidden.
"""

import torch


def pool(steps: torch.Tensor, mask: torch.Tensor | None, how: str, backward: bool = False) -> torch.Tensor:
    """One vector_BH a row from the existing steps of steps_BTH; zeros where a row has none.

    Args:
        mask: BT, True where a step exists; None: everywhere.
        how: `last` (the step that has read the whole row), `mean` or `max`.
        backward: the steps were read from the end, so that the first step has read the whole row.
    """
    if mask is None:
        mask = torch.ones(steps.shape[:2], dtype=torch.bool, device=steps.device)
    count = mask.sum(1)
    if how == "mean":
        return steps.masked_fill(~mask.unsqueeze(-1), 0).sum(1) / count.clamp(min=1).unsqueeze(-1)
    if how == "max":
        lowest = torch.finfo(steps.dtype).min
        pooled = steps.masked_fill(~mask.unsqueeze(-1), lowest).amax(1)
    else:
        rows = torch.arange(len(steps), device=steps.device)
        pooled = steps[rows, torch.zeros_like(count) if backward else (count - 1).clamp(min=0)]
    return pooled.masked_fill((count == 0).unsqueeze(-1), 0)
