"""Updates as DL4J makes them, so that what it began goes on here without a step in the curve.

They differ from torch's in what a loss is divided by, in where clipping and penalties stand, in Adam's epsilon, in what
RMSProp's running mean begins with, and in that a gate has one bias. The two versions differ from one another, too:

    1.0.0   gradient of the sum of losses / sequences -> clip -> + l2 w + l1 sign(w) -> updater
    0.9.1   gradient of the sum of losses -> clip -> updater -> + l2 w + l1 sign(w) -> / sequences

Formulas: org.nd4j.linalg.learning (RmsPropUpdater, AdamUpdater, NesterovsUpdater), and BaseMultiLayerUpdater of both
versions, as the numbers of networks that DL4J trained pin them.
"""

import math
from typing import Any

import torch
from torch import nn

from rayrnn.dl4j.description import states_of
from rayrnn.dl4j.parameters import parameters_of
from rayrnn.errors import RecipeError
from rayrnn.recipe.sections import Dl4jRules, Dl4jSchedule, Training
from rayrnn.tasks import Numeric, Task


class Dl4jUpdates(torch.optim.Optimizer):
    """SGD, Nesterov's momentum, RMSProp or Adam by DL4J's rules.

    Args:
        network: one that DL4J has; the second biases of torch's layers stay as they are.
        training: with a section `dl4j`.

    Raises:
        RecipeError: DL4J has no network like this.
    """

    def __init__(self, network: nn.Module, training: Training) -> None:
        assert training.dl4j is not None, "the recipe says whose rules"
        try:
            found = parameters_of(network)
        except ValueError as error:
            raise RecipeError(f"training.dl4j is for networks that DL4J has: {error}; leave the section out") from None
        named = dict(network.named_parameters())
        #: rayrnn's tensors of every matrix of DL4J's, which it clips together; and those of a layer
        self._matrices = [[named[part.name] for part in one.parts] for one in found]
        self._layers = [
            [value for one, matrix in zip(found, self._matrices, strict=True) if one.layer == layer for value in matrix]
            for layer in sorted({one.layer for one in found})
        ]
        self._biases = {id(named[part.name]) for one in found if one.is_bias for part in one.parts}
        self._rules: Dl4jRules = training.dl4j
        self._kind, self._decay, self._l2 = training.optimizer, training.decay, training.l2
        self._clip, self._clip_by = training.clip, training.clip_by
        #: of the minibatch of the next update; None: nothing is learned, the state alone is made
        self.sequences: int | None = None
        super().__init__([value for matrix in self._matrices for value in matrix], {"lr": training.learning_rate})

    def loss(self, total: torch.Tensor, task: Task, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """What the next update goes down, of the losses of a minibatch added up; see `added_up_as_dl4j`.

        Args:
            outputs: of the network, the sequences of the minibatch along the first axis.
            targets: as the task's loss takes them.
        """
        self.sequences = len(outputs)
        whole = added_up_as_dl4j(total, task, outputs, targets)
        return whole / self.sequences if self._rules.version == "1.0.0" else whole

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of all parameters, whose gradients are there."""
        assert closure is None, "there is one gradient"
        group = self.param_groups[0]
        if self.sequences is not None:
            clip(self._layers, self._matrices, self._clip, self._clip_by)
        for value in group["params"]:
            state = self._state(value)
            if self.sequences is None:
                continue
            gradient = value.grad if value.grad is not None else torch.zeros_like(value)
            penalty = None if id(value) in self._biases else self._penalty(value)
            before = self._rules.version == "1.0.0"
            if penalty is not None and before:
                gradient = gradient + penalty
            step = self._step(gradient, state, group["lr"] * self._share(float(state["step"])))
            if not before:
                step = (step if penalty is None else step + penalty) / self.sequences
            value.sub_(step)
            state["step"] += 1
        self.sequences = None

    def _state(self, value: torch.Tensor) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = self.state[value]
        if not state:
            state["step"] = torch.zeros(())
            state |= {name: torch.zeros_like(value) for name in states_of(self._kind, self._rules.momentum)}
        return state

    def _penalty(self, value: torch.Tensor) -> torch.Tensor | None:
        """The slope of l1 |w| + l2 / 2 w^2."""
        if not self._l2 and not self._rules.l1:
            return None
        return self._l2 * value + self._rules.l1 * value.sign()

    def _step(self, gradient: torch.Tensor, state: dict[str, torch.Tensor], rate: float) -> torch.Tensor:
        """What is taken from the parameter."""
        rules = self._rules
        if self._kind == "rmsprop":
            square = state["mean_square"]
            if not state["step"]:  # DL4J's begins with epsilon in the place of 0
                square.copy_(torch.where(square == 0, rules.epsilon, square))
            square.mul_(self._decay).addcmul_(gradient, gradient, value=1 - self._decay)
            return rate * gradient / (square.sqrt() + rules.epsilon)
        if self._kind == "adam":
            mean, square, t = state["exp_avg"], state["exp_avg_sq"], float(state["step"]) + 1
            mean.mul_(rules.beta1).add_(gradient, alpha=1 - rules.beta1)
            square.mul_(rules.beta2).addcmul_(gradient, gradient, value=1 - rules.beta2)
            rate *= math.sqrt(1 - rules.beta2**t) / (1 - rules.beta1**t)
            return rate * mean / (square.sqrt() + rules.epsilon)
        if not rules.momentum:
            return rate * gradient
        velocity = state["velocity"]
        before = velocity.clone()
        velocity.mul_(rules.momentum).sub_(gradient, alpha=rate)
        return rules.momentum * before - (1 + rules.momentum) * velocity

    def _share(self, updates: float) -> float:
        """What the schedule makes of the rate after so many updates."""
        return 1.0 if self._rules.schedule is None else share_of_rate(self._rules.schedule, updates)


def share_of_rate(schedule: Dl4jSchedule, updates: float) -> float:
    """What is left of the learning rate (org.nd4j.linalg.schedule)."""
    if schedule.kind == "step":
        return float(schedule.decay ** math.floor(updates / schedule.every))
    if schedule.kind == "exponential":
        return float(schedule.decay**updates)
    if schedule.kind == "inverse":
        return float((1 + schedule.decay * updates) ** -schedule.power)
    if schedule.kind == "sigmoid":
        return 1 / (1 + math.exp(-schedule.decay * (updates - schedule.every)))
    return float((1 - min(updates, schedule.every) / schedule.every) ** schedule.power)


def clip(layers: list[list[nn.Parameter]], matrices: list[list[nn.Parameter]], bound: float, by: str) -> None:
    """Bound gradients in place: each `value`, the norm of each layer's, or that of each matrix of DL4J's."""
    if bound == 0:
        return
    if by == "value":
        torch.nn.utils.clip_grad_value_([value for matrix in matrices for value in matrix], bound)
        return
    for together in layers if by == "layer_norm" else matrices:
        gradients = [value.grad for value in together if value.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(one) for one in gradients]))
        if norm > bound:
            for one in gradients:
                one.mul_(bound / norm)


def added_up_as_dl4j(total: torch.Tensor, task: Task, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The losses of some targets as DL4J adds them up.

    Its squared error of a step is the mean over the step's numbers, of which rayrnn adds up each; its binary
    cross-entropy the sum over the classes, of which rayrnn takes the mean.

    Args:
        total: what the task adds up.
        outputs: the numbers or classes of an answer along the last axis.
    """
    if not targets.is_floating_point():
        return total
    width = outputs.shape[-1]
    if isinstance(task, Numeric):
        return total if task.loss_name == "bernoulli" else total / width
    return total * width


def penalties_of(network: nn.Module, training: Training) -> float:
    """What DL4J adds to a score: l1 |w| + l2 / 2 w^2 over all weights, and never over a bias."""
    rules = training.dl4j
    assert rules is not None, "the recipe says whose rules"
    named = dict(network.named_parameters())
    weights = [
        named[part.name].detach().double() for one in parameters_of(network) if not one.is_bias for part in one.parts
    ]
    return math.fsum(float(rules.l1 * one.abs().sum() + training.l2 / 2 * one.square().sum()) for one in weights)
