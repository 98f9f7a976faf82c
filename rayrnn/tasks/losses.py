"""What a task asks of the network: answers at which steps, and which loss.

Shapes: B batch, T time, V symbols or classes, O numbers of a regression's answer.
"""

import torch
from torch.nn import functional


def has_steps(task: str, *, per_step: bool = False) -> bool:
    """Whether the network answers at every step (True) or once a sequence.

    Args:
        per_step: whether a regression's numbers stand at every step; the other tasks know by themselves.
    """
    return task in ("language_model", "tagging") or (task == "regression" and per_step)


def loss_sum(
    task: str,
    outputs: torch.Tensor,
    targets: torch.Tensor,
    target_mask: torch.Tensor,
    class_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add up the losses of all targets that count.

    Args:
        outputs: BTV logits (BV for one answer a sequence), or BTO (BO) numbers for a regression.
        targets: BT (B) integers, or BTO (BO) numbers, where NaN stands for "no number here".
        target_mask: BT (B), True where a target counts; what stands elsewhere contributes nothing, whatever it is.
        class_weights: V factors for the losses of a classification or tagging.

    Returns:
        The sum, in nats (a regression: of squared errors), and the number of targets (numbers) that count.
    """
    if task == "regression":
        return _squared_errors(outputs, targets, target_mask)
    counted = targets.masked_fill(~target_mask, -100)
    loss = functional.cross_entropy(
        outputs.flatten(0, -2).float(), counted.flatten(), weight=class_weights, ignore_index=-100, reduction="sum"
    )
    return loss, target_mask.sum()


def counted_numbers(targets: torch.Tensor, target_mask: torch.Tensor) -> torch.Tensor:
    """True for every number of a regression's targets (BTO or BO) that is there and counts."""
    return target_mask.unsqueeze(-1) & ~targets.isnan()


def _squared_errors(
    outputs: torch.Tensor, targets: torch.Tensor, target_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    counted = counted_numbers(targets, target_mask)
    # the difference is masked before it is squared: NaN times zero would be a NaN gradient
    errors = (outputs.float() - targets).masked_fill(~counted, 0.0)
    return errors.square().sum(), counted.sum()
