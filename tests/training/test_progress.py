"""Whether the workers go on after an evaluation."""

import math

import pytest

from rayrnn.training.progress import Length, Progress


def after(*losses: float, early_stopping: int) -> Progress:
    progress = Progress()
    for loss in losses:
        progress = progress.after(cursor=0, broken=[False], stop=False, length=Length(100))
        progress = progress.after_evaluation(loss, early_stopping=early_stopping)
    return progress


@pytest.mark.parametrize(
    ("losses", "without_better", "reason"),
    [
        ((3.0, 2.0, 1.0), 0, ""),
        ((1.0, 2.0), 1, ""),
        ((1.0, 2.0, 3.0), 2, "no better"),
        # an evaluation without a loss compares nothing
        ((math.inf, math.inf, math.inf), 0, ""),
        ((1.0, math.inf, math.nan, math.inf), 0, ""),
        ((1.0, math.inf, 2.0), 1, ""),
        ((1.0, 2.0, math.inf, 2.0), 2, "no better"),
    ],
)
def test_early_stopping_counts_evaluations_with_a_loss(
    losses: tuple[float, ...], without_better: int, reason: str
) -> None:
    progress = after(*losses, early_stopping=2)
    assert (progress.evaluations_without_better, progress.reason) == (without_better, reason)
    assert progress.sums == 2 * len(losses)
