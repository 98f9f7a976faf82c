"""The losses that tasks are made of: added up over all targets that count, never taken apart.

B batch, T time, V symbols or classes, O numbers of an answer.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

from rayrnn.data.encoding import Classes, Encoding


def cross_entropy(
    outputs: torch.Tensor,
    targets: torch.Tensor,
    target_mask: torch.Tensor,
    class_weights: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add up the cross-entropies, in nats, of all targets that count.

    Args:
        outputs: BTV logits, or BV for one answer a sequence.
        targets: BT (B) integers.
        target_mask: BT (B), True where a target counts; what stands elsewhere contributes nothing, whatever it is.
        class_weights: V factors.
        weights: see `added_up`.

    Returns:
        The sum, and the number of targets that count.
    """
    counted = targets.masked_fill(~target_mask, -100)
    losses = functional.cross_entropy(
        outputs.flatten(0, -2).float(),
        counted.flatten(),
        weight=class_weights,
        ignore_index=-100,
        reduction="sum" if weights is None else "none",
    )
    if weights is None:
        return losses, target_mask.sum()
    return added_up(losses.view_as(targets), target_mask, weights)


def added_up(
    losses: torch.Tensor, counted: torch.Tensor, weights: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add up losses, each as often as its weight says.

    Args:
        losses: of any shape; 0 where nothing counts.
        counted: the same shape, True where something does.
        weights: of the shape's first axes, `Minibatch.weights`; None weighs all alike.

    Returns:
        The sum, and what to divide it by for the mean: the number of those that count, or the sum of their weights.
    """
    if weights is None:
        return losses.sum(), counted.sum()
    weights = weights.reshape(weights.shape + (1,) * (losses.dim() - weights.dim())).expand_as(losses)
    return (losses * weights).sum(), weights.masked_fill(~counted, 0).sum()


def balanced_weights(encoding: Encoding, device: torch.device) -> torch.Tensor:
    """V factors: the inverse of every class's count, its mean over all labels 1."""
    assert isinstance(encoding.targets, Classes)
    counts = torch.tensor(encoding.targets.counts, dtype=torch.float32).clamp(min=1)
    return (counts.sum() / (len(counts) * counts)).to(device)


def numbers_added_up(
    losses_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    outputs: torch.Tensor,
    targets: torch.Tensor,
    target_mask: torch.Tensor,
    weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add up any losses of all numbers that count.

    Args:
        losses_of: outputs and targets without NaN -> the loss of every number, BTO or BO.
        outputs: BTOP or BOP, P outputs for each number.
        targets: BTO or BO, where NaN stands for "no number here".
        target_mask: BT (B), True where a target counts.
        weights: see `added_up`.

    Returns:
        The sum, and the number of numbers that count.
    """
    counted = counted_numbers(targets, target_mask)
    # what does not count is a number that any loss takes: NaN times zero would be a NaN gradient
    losses = losses_of(outputs, targets.masked_fill(~counted, 0.0))
    return added_up(losses.masked_fill(~counted, 0.0), counted, weights)


def counted_numbers(targets: torch.Tensor, target_mask: torch.Tensor) -> torch.Tensor:
    """True for every number (BTO or BO) of the targets that is there and counts."""
    return target_mask.unsqueeze(-1) & ~targets.isnan()
