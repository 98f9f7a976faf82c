"""What a worker does alone: learn minibatches by truncated backpropagation, and evaluate held-out ones."""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import cast

import torch

from rayrnn.data.batches import Minibatch
from rayrnn.data.encoding import Encoding
from rayrnn.data.symbols import Symbols
from rayrnn.dl4j.updates import Dl4jUpdates
from rayrnn.models.state import detached
from rayrnn.recipe import Recipe, task_of
from rayrnn.recipe.sections import Training
from rayrnn.tasks import Search, Searching, Task, Weighable
from rayrnn.tasks.metrics import Metrics
from rayrnn.training.muon import Muon
from rayrnn.training.scaling import parts_of_minibatch


@dataclass(frozen=True)
class LearningSettings:
    """How one minibatch is learned."""

    #: steps in one segment; 0 = the whole sequence
    truncate: int
    #: the bound on the gradient; 0 = no clipping
    clip: float
    clip_by: str
    #: multiply in bfloat16
    bf16: bool = False
    #: that are learned one after the other
    parts: int = 1

    @classmethod
    def of(cls, recipe: Recipe, *, workers: int, device: torch.device) -> "LearningSettings":
        """Those of a recipe, where so many average together."""
        training = recipe.training
        parts = parts_of_minibatch(recipe, workers=workers, device=device.type)
        bf16 = computes_in_bf16(training.precision, device)
        bound = 0.0 if training.dl4j else training.clip  # DL4J's rules clip on their own
        return cls(training.truncate, bound, training.clip_by, bf16, parts)


@dataclass(frozen=True)
class Work:
    """What a worker learned in one round."""

    #: unmasked
    steps: int = 0
    #: steps that were computed and masked
    padding: int = 0
    updates: int = 0
    #: over all targets
    loss_sum: float = 0.0
    #: the worker's weight in the mean: the targets, or where they have weights the sum of these
    num_targets: float = 0.0
    learning_seconds: float = 0.0
    waiting_seconds: float = 0.0
    #: the first update of the round whose loss was not finite, from 1; 0 = all was well
    broken_at: int = 0

    def and_then(self, later: "Work") -> "Work":
        """Both, one after the other."""
        broken_at = self.broken_at or (later.broken_at and self.updates + later.broken_at)
        sums = {name: value + getattr(later, name) for name, value in vars(self).items()}
        return Work(**(sums | {"broken_at": broken_at}))


@dataclass(frozen=True)
class Evaluation:
    """Sums over one worker's part of the held-out sequences."""

    loss_sum: float = 0.0
    num_targets: float = 0.0
    num_correct: float = 0.0
    num_sequences: int = 0
    seconds: float = 0.0
    #: see `Metrics.sums`; where the loss alone is asked for, none
    sums: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64), compare=False)

    def to_vector(self) -> torch.Tensor:
        """All of it as float64 numbers."""
        numbers = (self.loss_sum, self.num_targets, self.num_correct, self.num_sequences, self.seconds)
        return torch.cat([torch.tensor(numbers, dtype=torch.float64), self.sums])

    @classmethod
    def from_vector(cls, vector: torch.Tensor) -> "Evaluation":
        """What `to_vector` gave."""
        loss_sum, num_targets, num_correct, num_sequences, seconds = vector[:5].tolist()
        return cls(loss_sum, num_targets, num_correct, int(num_sequences), seconds, vector[5:])


@dataclass(frozen=True)
class Measured:
    """What is measured beside the loss, and what its answers mean."""

    metrics: Metrics
    encoding: Encoding


def learn_alone(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    minibatches: Iterator[Minibatch],
    *,
    task: Task,
    settings: LearningSettings,
) -> Work:
    """Learn every minibatch once, part after part: an update a segment, the recurrent state carried on, detached.

    The loss of a segment is the mean over its unmasked targets, weighted where they have weights.
    """
    device = next(model.parameters()).device
    steps = padding = 0
    sums: list[torch.Tensor] = []
    counts: list[torch.Tensor] = []
    started, waited = time.perf_counter(), 0.0
    for minibatch, seconds in _timed(minibatches):
        waited += seconds
        steps += minibatch.steps
        padding += minibatch.mask.numel() - minibatch.steps
        for part in minibatch.to(device).parts(settings.parts):
            state: object = None
            for segment in part.segments(settings.truncate):
                total, targets, state = _update(model, optimizer, segment, state, task=task, settings=settings)
                sums.append(total)
                counts.append(targets)
    losses = torch.stack(sums).tolist() if sums else []
    healthy = all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
    return Work(
        steps=steps,
        padding=padding,
        updates=len(losses),
        loss_sum=math.fsum(losses) if all(map(math.isfinite, losses)) else math.nan,
        num_targets=float(sum(float(number) for number in counts)),
        learning_seconds=time.perf_counter() - started - waited,
        waiting_seconds=waited,
        broken_at=_first_broken(losses, healthy),
    )


def _update(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    segment: Minibatch,
    state: object,
    *,
    task: Task,
    settings: LearningSettings,
) -> tuple[torch.Tensor, torch.Tensor, object]:
    """One update; the loss added up over the targets, their number, and the state after the segment."""
    outputs, state = _answers(model, segment, state, task=task, settings=settings)
    total, targets = task.loss(outputs, segment)
    optimizer.zero_grad()
    if isinstance(optimizer, Dl4jUpdates):
        loss = optimizer.loss(total, task, outputs, segment.targets)
    else:  # where nothing counts the loss is 0; weights may add up to less than 1
        loss = total / torch.where(targets > 0, targets, torch.ones_like(targets))
    loss.backward()  # type: ignore[no-untyped-call]
    clip_gradients(model, settings.clip, settings.clip_by)
    optimizer.step()
    return total.detach(), targets, detached(state)


def _answers(
    model: torch.nn.Module, segment: Minibatch, state: object, *, task: Task, settings: LearningSettings
) -> tuple[torch.Tensor, object]:
    """What the network answers, in the precision of the settings, and its state after the segment."""
    with torch.autocast(segment.inputs.device.type, torch.bfloat16, enabled=settings.bf16):
        return task.call(model, segment, state)


@torch.no_grad()
def evaluate(
    model: torch.nn.Module,
    minibatches: Iterable[Minibatch],
    *,
    task: Task,
    settings: LearningSettings,
    measured: Measured | None = None,
) -> Evaluation:
    """The model's loss on minibatches it does not learn from, in the precision it learns in; dropout is off.

    Args:
        measured: takes what else is to be counted.
    """
    device = next(model.parameters()).device
    started = time.perf_counter()
    loss = torch.zeros((), dtype=torch.float64)
    num_targets = num_correct = 0.0
    num_sequences = 0
    model.eval()
    for minibatch in minibatches:
        num_sequences += len(minibatch.keys)
        state: object = None
        for segment in minibatch.to(device).segments(settings.truncate):
            outputs, state = _answers(model, segment, state, task=task, settings=settings)
            total, targets = task.loss(outputs, segment)
            loss += total.cpu()
            num_targets += float(targets)
            if task.right_or_wrong:
                right = (outputs.argmax(-1) == segment.targets) & segment.target_mask
                num_correct += float(right.sum())
            if measured is not None:
                task.measure(measured.metrics, outputs, segment, measured.encoding)
        if measured is not None and isinstance(task, Searching):
            _count_answers(model, minibatch.to(device), task, measured)
    model.train()
    return Evaluation(float(loss), num_targets, num_correct, num_sequences, time.perf_counter() - started)


def _count_answers(model: torch.nn.Module, minibatch: Minibatch, task: Searching, measured: Measured) -> None:
    """Answer every sequence with the likeliest symbols, one after the other, and compare; one without a target is left
    out."""
    targets = cast(Symbols, measured.encoding.targets)
    found = task.search(model, minibatch, measured.encoding, Search(beam=1))
    due = [numbers[there].tolist() for numbers, there in zip(minibatch.targets, minibatch.target_mask, strict=True)]
    pairs = [
        (targets.text_of(hypotheses[0].symbols if hypotheses else ()), targets.text_of(truth))
        for hypotheses, truth in zip(found, due, strict=True)
        if truth
    ]
    task.count_answers(measured.metrics, [answer for answer, _ in pairs], [truth for _, truth in pairs])


def task_to_learn(recipe: Recipe, encoding: Encoding, device: torch.device) -> Task:
    """The recipe's task as it is learned: its losses weighed by class, if the recipe says so."""
    task = task_of(recipe)
    if recipe.training.class_weights == "none":
        return task
    assert isinstance(task, Weighable), "a recipe's validation has seen to it"
    return task.balanced(encoding, device)


def make_optimizer(model: torch.nn.Module, training: Training) -> torch.optim.Optimizer:
    """The optimizer that the recipe names; `l2` is its weight decay (apart from the gradient for adamw and muon).

    Raises:
        RecipeError: it is not for this network.
    """
    if training.dl4j is not None:
        return Dl4jUpdates(model, training)
    parameters, rate, l2 = list(model.parameters()), training.learning_rate, training.l2
    if training.optimizer == "muon":
        bf16 = computes_in_bf16(training.precision, parameters[0].device)
        return Muon(model, lr=rate, weight_decay=l2, dtype=torch.bfloat16 if bf16 else torch.float32)
    if training.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, weight_decay=l2, fused=True)
    if training.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=rate, alpha=training.decay, weight_decay=l2, foreach=True)
    if training.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=l2, fused=True)
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=l2, fused=True)


def computes_in_bf16(precision: str, device: torch.device) -> bool:
    """Whether a worker on this device multiplies in bfloat16.

    `auto` says so where the device has instructions for it: on other processors bfloat16 takes many times as long.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def learning_rate(
    training: Training, round_number: int, rounds: int, *, seconds: float = 0.0, of_seconds: float | None = None
) -> float:
    """The rate of one round, from 0; cosine ends at a hundredth of the rate it began with.

    Args:
        seconds: that were learned before it, of so many where the run is so long.
    """
    if training.schedule == "cosine":
        past, whole = (round_number, rounds) if of_seconds is None else (min(seconds, of_seconds), of_seconds)
        share = (1 + math.cos(math.pi * past / whole)) / 2
        return training.learning_rate * (0.01 + 0.99 * share)
    if training.schedule == "step":
        return float(training.learning_rate * training.schedule_factor ** (round_number // training.schedule_every))
    return training.learning_rate


def clip_gradients(model: torch.nn.Module, bound: float, by: str) -> None:
    """Bound the gradients in place: their `norm` over all parameters, each `value`, each layer's or tensor's norm."""
    if bound == 0:
        return
    if by == "norm":
        torch.nn.utils.clip_grad_norm_(model.parameters(), bound)
    elif by == "value":
        torch.nn.utils.clip_grad_value_(model.parameters(), bound)
    else:
        together = layers(model) if by == "layer_norm" else [[parameter] for parameter in model.parameters()]
        for parameters in together:
            torch.nn.utils.clip_grad_norm_(parameters, bound)


def layers(model: torch.nn.Module) -> list[list[torch.nn.Parameter]]:
    """The model's parameters by layer: what one innermost module owns is one layer."""
    owned = (list(module.parameters(recurse=False)) for module in model.modules())
    return [parameters for parameters in owned if parameters]


def _timed(minibatches: Iterator[Minibatch]) -> Iterator[tuple[Minibatch, float]]:
    """Each minibatch with the seconds the loop waited for it."""
    while True:
        started = time.perf_counter()
        minibatch = next(minibatches, None)
        if minibatch is None:
            return
        yield minibatch, time.perf_counter() - started


def _first_broken(losses: list[float], healthy: bool) -> int:
    for number, loss in enumerate(losses, start=1):
        if not math.isfinite(loss):
            return number
    return 0 if healthy else len(losses)
