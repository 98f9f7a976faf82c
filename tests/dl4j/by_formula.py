"""Two GravesLSTMs and a softmax, RmsProp and DL4J 1.0.0's update, written down from the formulas in DL4J's own layout.

Nothing of rayrnn's computes here: float64, one step after the other, gradients by torch's autograd.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rayrnn.dl4j.zip_file import Model


@dataclass(frozen=True)
class Learned:
    """DL4J's vectors after some updates."""

    parameters: np.ndarray
    state: np.ndarray


def learned(model: Model, rows: Sequence[dict[str, Any]], *, together: int = 1, times: int = 1) -> Learned:
    """One update for every `together` rows in turn, all of them so many times."""
    found = model.description
    assert model.state is not None
    vector, square = (torch.tensor(values, dtype=torch.float64) for values in (model.parameters, model.state))
    updater = found.updater
    batches = [rows[start : start + together] for start in range(0, len(rows), together)] * times
    for batch in batches:
        vector = vector.detach().requires_grad_()
        score = sum(_loss(vector, found.num_inputs, found.hidden, found.num_outputs, row) for row in batch)
        (gradient,) = torch.autograd.grad(score / len(batch), vector)  # type: ignore[operator]
        square = updater.decay * square + (1 - updater.decay) * gradient**2
        vector = vector.detach() - updater.learning_rate * gradient / (square.sqrt() + updater.epsilon)
    return Learned(vector.detach().numpy(), square.numpy())


def _loss(vector: torch.Tensor, F: int, hidden: Sequence[int], O: int, row: dict[str, Any]) -> torch.Tensor:  # noqa: E741
    place = 0

    def matrix(rows: int, columns: int) -> torch.Tensor:
        nonlocal place
        piece = vector[place : place + rows * columns]
        place += rows * columns
        return piece.reshape(columns, rows).T

    steps = torch.tensor(row["values"], dtype=torch.float64)
    for H in hidden:
        W, RW, b = matrix(F, 4 * H), matrix(H, 4 * H + 3), matrix(1, 4 * H)
        R, p_f, p_o, p_i = RW[:, : 4 * H], RW[:, 4 * H], RW[:, 4 * H + 1], RW[:, 4 * H + 2]
        h, c, answers = torch.zeros(H, dtype=torch.float64), torch.zeros(H, dtype=torch.float64), []
        for x in steps:
            a, f, o, i = (x @ W + h @ R + b[0]).split(H)
            g, f, i = a.tanh(), (f + p_f * c).sigmoid(), (i + p_i * c).sigmoid()
            c = f * c + i * g
            h = (o + p_o * c).sigmoid() * c.tanh()
            answers.append(h)
        steps, F = torch.stack(answers), H
    W, b = matrix(F, O), matrix(1, O)
    labels = torch.tensor([int(name) for name in row["label"]])
    return torch.nn.functional.cross_entropy(steps @ W + b, labels, reduction="sum")
