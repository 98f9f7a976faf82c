"""A run in numbers: how much is learned, sent and shared out before it starts, and how it ended."""

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch

from rayrnn.averaging.compression import num_encoded
from rayrnn.averaging.optimizer_state import moments, prepare_state
from rayrnn.data.order import make_plan, padding_share
from rayrnn.data.prepare import Prepared
from rayrnn.recipe import Recipe
from rayrnn.runs.directory import Run
from rayrnn.training.loop import make_optimizer
from rayrnn.training.scaling import parts_of_minibatch
from rayrnn.wording import counted


@dataclass(frozen=True)
class Outline:
    """What the user should know before the first round."""

    num_parameters: int
    #: what each worker sends a round
    bytes_a_round: int
    #: that each worker learns a minibatch in
    parts: int
    #: optimizer updates of each worker in the first round
    updates_a_round: int
    num_training: int
    num_held_out: int
    #: steps in one epoch of the training part
    steps_an_epoch: int
    rounds_an_epoch: float
    #: steps in one sequence: the fewest and the most
    shortest: int
    longest: int
    #: of the steps in the first round's minibatches of one worker
    padding_share: float
    #: workers that the run begins with
    num_workers: int


def outline_of(
    recipe: Recipe, network: torch.nn.Module, prepared: Prepared, *, num_workers: int, device: str
) -> Outline:
    """Count everything once, for the workers that the run begins with, on devices of this type.

    Raises:
        RecipeError: the recipe's optimizer is not for this network.
    """
    sequences, indices = prepared.training.sequences, prepared.training.indices
    plan = make_plan(prepared.training, batch_size=recipe.training.batch_size, seed=recipe.seed)
    averaging = recipe.averaging
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    optimizer = make_optimizer(network, recipe.training)
    num_exact = _num_moments(optimizer) if averaging.optimizer_state == "average" else 0
    first_round = [plan.minibatch(number * num_workers) for number in range(averaging.frequency)]
    parts = parts_of_minibatch(recipe, workers=num_workers, device=device)
    steps = sequences.steps[indices]
    return Outline(
        num_parameters=num_parameters,
        bytes_a_round=num_encoded(num_parameters, averaging.wire if num_workers > 1 else "float32") + 4 * num_exact,
        parts=parts,
        updates_a_round=sum(
            _segments(int(sequences.steps[part].max()), recipe.training.truncate)
            for minibatch in first_round
            for part in np.array_split(minibatch, min(parts, len(minibatch)))
        ),
        num_training=len(indices),
        num_held_out=len(prepared.held_out),
        steps_an_epoch=int(steps.sum()),
        rounds_an_epoch=plan.minibatches_an_epoch / (num_workers * averaging.frequency),
        shortest=int(steps.min()),
        longest=int(steps.max()),
        padding_share=padding_share(sequences.steps, first_round),
        num_workers=num_workers,
    )


def _num_moments(optimizer: torch.optim.Optimizer) -> int:
    prepare_state(optimizer)
    return sum(moment.numel() for moment in moments(optimizer))


def _segments(steps: int, truncate: int) -> int:
    return ceil(steps / truncate) if truncate else 1


@dataclass(frozen=True)
class Summary:
    """How a run ended."""

    run: Run
    #: `finished`, `no better` (early stopping), or `out of time` (training.max_minutes)
    reason: str
    rounds: int
    #: the last round's
    loss: float | None
    best_loss: float | None
    best_round: int
    #: over all workers, unmasked steps
    steps_per_second: float
    #: from the workers' first minibatch to their last
    seconds: float
    #: what says which model is the best, and what it says of it
    monitor: str = "loss"
    best_value: float | None = None

    def __repr__(self) -> str:
        best = "" if self.best_loss is None else f", held-out loss {self.best_loss:.4f} after round {self.best_round}"
        return f"<{self.reason} after {counted(self.rounds, 'round')}{best}; {self.run!r}>"

    def _repr_html_(self) -> str:
        """As a notebook shows it: the run, as far as it has come."""
        return self.run._repr_html_()

    def to_json(self) -> dict[str, Any]:
        """What `rayrnn train --json` prints."""
        return {
            "run": self.run.name,
            "reason": self.reason,
            "rounds": self.rounds,
            "loss": self.loss,
            "best_held_out_loss": self.best_loss,
            "monitor": self.monitor,
            "best_monitored": self.best_value,
            "best_round": self.best_round if self.best_loss is not None else None,
            "steps_per_second": self.steps_per_second,
            "seconds": self.seconds,
        }
