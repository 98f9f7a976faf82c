"""One replica of the network and its way through the rounds, with whatever group it averages; Ray is not needed here.

A worker of a run (rayrnn/training/worker.py) is one in a process of its own; benchmarks/scaling.py has many in one.
"""

import functools
import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from itertools import islice
from typing import Any, Protocol

import pyarrow as pa
import torch

from rayrnn.averaging import averager
from rayrnn.averaging.averager import Averager, order_of
from rayrnn.averaging.optimizer_state import reset_state
from rayrnn.data.batches import Minibatch, weighed
from rayrnn.data.encoding import Encoding
from rayrnn.data.order import Stream, make_plan, shared_out
from rayrnn.data.sequences import Part
from rayrnn.data.vectors import Vectors
from rayrnn.errors import RunError
from rayrnn.models.own import OwnNetwork
from rayrnn.recipe import Recipe, task_of
from rayrnn.runs.checkpoints import Checkpoint, Tensors
from rayrnn.runs.model import begin_with, build_network, check_tensors
from rayrnn.training.loop import (
    Evaluation,
    LearningSettings,
    Measured,
    Work,
    evaluate,
    learn_alone,
    learning_rate,
    make_optimizer,
    task_to_learn,
)
from rayrnn.training.notes import Average, Notes, write_notes
from rayrnn.training.progress import LOSS, Length, Monitor, Progress

#: the weight of one who takes part and has learned nothing: less than float32 tells apart beside any target's weight
NO_SAY = 1e-20
#: sequences, and steps of all of them, that are evaluated at once where a minibatch has fewer: a core is faster then
MOST_TOGETHER, STEPS_AT_ONCE = 64, 2**13
#: that a convolution over images may answer in such a minibatch: 256 MiB
NUMBERS_AT_ONCE = 2**26


@dataclass(frozen=True)
class WorkerSpec:
    """What a run's workers learn, the same for each of them."""

    recipe: Recipe
    encoding: Encoding
    training: Part
    held_out: Part
    #: the network of the user's own, where the recipe names one
    own: OwnNetwork | None = None
    #: what the embedding of the inputs begins with
    vectors: Vectors | None = None
    #: all that the network begins with, where it goes on from another one's values
    beginning: Tensors | None = None


class Group(averager.Group, Protocol):
    """Those who average together, by their numbers too."""

    @property
    def numbers(self) -> list[int]:
        """The members' numbers in the order of their ranks."""


@dataclass(frozen=True)
class Learned:
    """What one replica has done alone in a round."""

    work: Work
    #: where the next round's minibatches begin
    next_cursor: int
    #: of the round before, where it came while this one was learned
    arrived: Average | None = None
    learning_rate: float = 0.0


@dataclass(frozen=True)
class _UnderWay:
    """An average that travels."""

    group: Group
    learned: Learned


class Learner:
    """One model replica.

    Args:
        number: of its worker; dropout differs from number to number, the first values do not.
    """

    def __init__(self, spec: WorkerSpec, number: int, device: torch.device) -> None:
        recipe = spec.recipe
        self._spec = spec
        self._number = number
        self._device = device
        self._recipe = recipe
        self.progress = Progress()
        self._length = Length.of(recipe)
        self._monitor = Monitor.of(recipe)
        #: when what is told of next began
        self._began = time.perf_counter()
        self.task = task_of(recipe)
        torch.manual_seed(recipe.seed)
        self.model = build_network(recipe, spec.encoding, spec.own)
        if spec.vectors is not None:
            begin_with(self.model, spec.vectors.values)
        if spec.beginning is not None:
            self.model.load_state_dict(spec.beginning)
        self.model.to(device)
        self._optimizer = make_optimizer(self.model, recipe.training)
        self._averager = make_averager(self.model, self._optimizer, recipe)
        self._learned_task = task_to_learn(recipe, spec.encoding, device)
        self._under_way: _UnderWay | None = None
        self._collate = functools.partial(self.task.minibatch, encoding=spec.encoding)
        self._stream = Stream(
            spec.training,
            self._learned_minibatch,
            make_plan(spec.training, batch_size=recipe.training.batch_size, seed=recipe.seed),
            frequency=recipe.averaging.frequency,
            ahead=recipe.training.prefetch,
        )
        torch.manual_seed(recipe.seed + 1 + number)

    def _learned_minibatch(self, rows: pa.Table) -> Minibatch:
        """With the weights of its targets, which only count in what is learned."""
        return weighed(self._collate(rows), rows, self._spec.encoding)

    def restore(self, checkpoint: Checkpoint | None) -> None:
        """Go on from a checkpoint; at the same number of workers exactly as if it had never stopped."""
        if checkpoint is not None:
            self.load({"model": checkpoint.model, "outer": checkpoint.outer, "progress": checkpoint.progress})
            state, borrowed = checkpoint.state_for(self._number)
            self._averager.load_own_state(state, borrowed=borrowed)
        self.progress = self.progress.resumed(length=self._length)
        self._began = time.perf_counter()

    def learn(self, rank: int, size: int) -> Learned:
        """Learn alone what member `rank` of `size` learns in this round.

        An average that is under way (see `send`) is waited for when the recipe's `overlap` minibatches are learned, or
        before all of them by a replica that is broken: it has nothing to go on from.
        """
        under_way = self._under_way
        number = self.progress.round + (under_way is not None)
        rate = self._learning_rate(number)
        for parameters in self._optimizer.param_groups:
            parameters["lr"] = rate
        cursor = self.progress.cursor if under_way is None else under_way.learned.next_cursor
        share = self._stream.share(cursor, rank, size)
        learn = functools.partial(
            learn_alone, self.model, self._optimizer, task=self._learned_task, settings=self._settings(size)
        )
        if under_way is None:
            return Learned(learn(share.minibatches), share.next_cursor, learning_rate=rate)
        ahead = 0 if under_way.learned.work.broken_at else self._recipe.averaging.overlap
        first = learn(islice(share.minibatches, ahead))
        arrived = self._receive(under_way)
        return Learned(first.and_then(learn(share.minibatches)), share.next_cursor, arrived, rate)

    def _learning_rate(self, round_number: int) -> float:
        length, passed = self._length, self.progress.seconds
        return learning_rate(
            self._recipe.training, round_number, length.rounds, seconds=passed, of_seconds=length.seconds
        )

    def average(self, group: Group, learned: Learned, *, stop: bool = False, leaving: bool = False) -> Average:
        """Agree with the members on one model, and on how far they have come.

        Args:
            stop: this worker was told that the user wants to stop.
            leaving: its node is about to go.
        """
        weight, notes = _handed_in(learned.work, stop=stop, leaving=leaving, seconds=self._seconds())
        return self._after(group, learned, self._averager.average(group, weight=weight, notes=notes))

    def may_send(self, size: int) -> bool:
        """Whether this round's average may travel while the next round is learned: nothing needs its model before."""
        recipe, number = self._recipe, self.progress.round + 1
        evaluated = len(self._spec.held_out) > 0 and number % recipe.training.evaluate_every == 0
        ends = self._length.ends_after(number, self.progress.seconds) or number % recipe.training.checkpoint_every == 0
        return recipe.averaging.overlap > 0 and size > 1 and not evaluated and not ends

    def send(self, group: Group, learned: Learned, *, stop: bool = False, leaving: bool = False) -> None:
        """Begin what `average` does, and leave it under way: the next `learn` ends it.

        A wish to stop is seen by all members and has no effect yet: the round after this one does what it asks.
        """
        weight, notes = _handed_in(learned.work, stop=stop, leaving=leaving, seconds=self._seconds())
        self._averager.send(group, weight=weight, notes=notes)
        self._under_way = _UnderWay(group, learned)

    @property
    def sending(self) -> bool:
        """Whether an average is under way."""
        return self._under_way is not None

    def _receive(self, under_way: "_UnderWay") -> Average:
        self._under_way = None
        return self._after(under_way.group, under_way.learned, self._averager.receive(), may_stop=False)

    def _after(self, group: Group, learned: Learned, found: averager.Average, *, may_stop: bool = True) -> Average:
        if learned.work.broken_at:
            reset_state(self._optimizer)
        notes = [Notes(*row) for row in found.notes.tolist()]
        average = Average(dict(zip(group.numbers, notes, strict=True)), found.num_bytes, learned.learning_rate)
        self.progress = self.progress.after(
            cursor=learned.next_cursor,
            broken=[note.broken_at > 0 for note in notes],
            stop=average.stop and may_stop,
            length=self._length,
            seconds=min(note.seconds for note in notes),  # one that has just joined has waited for its first round
            may_end=may_stop,
        )
        return average

    def _seconds(self) -> float:
        """Since this was asked last."""
        before, self._began = self._began, time.perf_counter()
        return self._began - before

    def evaluate(self, rank: int, size: int) -> Evaluation:
        """Evaluate this member's share of what is held out."""
        share = shared_out(
            self._spec.held_out,
            self._collate,
            rank=rank,
            size=size,
            batch_size=self._evaluated_together(),
            ahead=self._recipe.training.prefetch,
        )
        settings, encoding = self._settings(size), self._spec.encoding
        if self._monitor == LOSS:
            return evaluate(self.model, share, task=self.task, settings=settings)
        measured = Measured(self.task.metrics(encoding), encoding)
        found = evaluate(self.model, share, task=self.task, settings=settings, measured=measured)
        return replace(found, sums=measured.metrics.sums(**self._shape_of_sums(size)))

    def monitored(self, evaluations: Mapping[int, Evaluation]) -> float | None:
        """What the recipe's monitor says, all members' shares together; None where that is the loss, or no number."""
        if self._monitor == LOSS:
            return None
        metrics = self.task.metrics(self._spec.encoding)
        for one in evaluations.values():
            metrics.add_sums(one.sums, **self._shape_of_sums(len(evaluations)))
        if not metrics.num_targets:
            return None
        with warnings.catch_warnings(action="ignore"):  # torchmetrics takes what was added for nothing
            value = self.task.results(metrics)[self._monitor.name]
        assert isinstance(value, float)
        return value if math.isfinite(value) else None

    def _shape_of_sums(self, size: int) -> dict[str, int]:
        return {"rows": -(-len(self._spec.held_out) // size), "width": self._spec.encoding.num_outputs}

    def _settings(self, size: int) -> LearningSettings:
        return LearningSettings.of(self._recipe, workers=size, device=self._device)

    def _evaluated_together(self) -> int:
        """Sequences in a minibatch without gradients: more, where the steps that are computed at once stay few."""
        held_out, training = self._spec.held_out, self._recipe.training
        longest = int(held_out.sequences.steps[held_out.indices].max(initial=1))
        at_once = min(training.truncate or longest, longest)
        shape, front = self._recipe.data.step_shape, self._recipe.model.front
        numbers = shape[0] * shape[1] * max(self._recipe.model.front_channels) if shape and front != "none" else 1
        steps = min(STEPS_AT_ONCE, NUMBERS_AT_ONCE // numbers)
        return max(training.batch_size, min(MOST_TOGETHER, steps // at_once))

    def note_evaluation(self, loss: float, monitored: float | None = None) -> None:
        """Remember how this round's model did on all that is held out."""
        self.progress = self.progress.after_evaluation(
            loss, early_stopping=self._recipe.training.early_stopping, monitor=self._monitor, value=monitored
        )

    def own_state(self) -> Tensors:
        """What only this replica has; see `Averager.own_state`."""
        return self._averager.own_state()

    def state(self) -> dict[str, Any]:
        """What all members have in common."""
        progress = self.progress.to_json() | {"parameters": order_of(self.model)}
        return {"model": self.weights(), "outer": self._averager.outer.state(), "progress": progress}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` of another member gave; a round that was begun is given up."""
        self._stream.close()
        self.model.load_state_dict(state["model"])
        self._averager.take_over(state["outer"])
        self.progress = Progress.from_json(state["progress"])

    def weights(self) -> Tensors:
        """A copy of the model's tensors."""
        return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def close(self) -> None:
        """End the preparation of minibatches, and the thread that averages travel in."""
        self._stream.close()
        self._averager.close()


def _handed_in(work: Work, *, stop: bool, leaving: bool, seconds: float) -> tuple[float, tuple[float, ...]]:
    """A worker's weight in the mean, and its notes.

    The weight is the targets that it learned, or the sum of their weights; one who had steps and nothing that counts is
    there all the same, without a say.
    """
    weight = 0.0 if work.broken_at else work.num_targets or NO_SAY * min(work.steps, 1)
    return weight, astuple(write_notes(work, stop=stop, leaving=leaving, seconds=seconds))


def make_averager(model: torch.nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe) -> Averager:
    """What a recipe's workers average with."""
    return Averager(
        model,
        optimizer,
        outer=recipe.averaging.outer,
        outer_learning_rate=recipe.averaging.outer_learning_rate,
        outer_momentum=recipe.averaging.outer_momentum,
        optimizer_state=recipe.averaging.optimizer_state,
        wire=recipe.averaging.wire,
    )


def check_checkpoint(checkpoint: Checkpoint, network: torch.nn.Module, recipe: Recipe, *, where: str) -> None:
    """See whether workers of this network and recipe can go on from a checkpoint.

    Raises:
        RunError: it has other tensors, names the file and the tensor; or the same in another order.
    """
    averager = make_averager(network, make_optimizer(network, recipe.training), recipe)
    check_tensors(checkpoint.model, network.state_dict(), where=f"{where}/model.safetensors")
    if checkpoint.progress.get("parameters", order_of(network)) != order_of(network):
        raise RunError(
            f"{where} cannot be gone on from: it is of a network that makes its parameters in another order, and the "
            "optimizer's state goes by the order; make them in that order again"
        )
    check_tensors(checkpoint.outer, averager.outer.state(), where=f"{where}/outer.safetensors")
    if not checkpoint.optimizers:
        raise RunError(f"{where} cannot be used: it has no state of a worker, optimizer-000.safetensors")
    due = averager.own_state()
    for number, state in zip(checkpoint.numbers, checkpoint.optimizers, strict=True):
        # what encoding has lost is taken where it is there
        needed = {name: value for name, value in due.items() if name != "residual" or name in state}
        found = {name: value for name, value in state.items() if name != "residual" or name in due}
        check_tensors(found, needed, where=f"{where}/optimizer-{number:03d}.safetensors")
