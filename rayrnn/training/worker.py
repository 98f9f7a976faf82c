"""What one Ray Train actor runs: learn alone, average, report, round after round."""

import time
from dataclasses import astuple
from typing import Any

import ray
import ray.train.torch
import torch

from rayrnn.averaging import Average, Averager, FixedGroup, load_own_state, own_state, reset_state
from rayrnn.checkpoints import Checkpoint, Tensors
from rayrnn.run import build_network
from rayrnn.training.assignment import Assignment, Progress
from rayrnn.training.learning import (
    Evaluation,
    Work,
    evaluate,
    learn_alone,
    learning_rate,
    make_lesson,
    make_optimizer,
)
from rayrnn.training.mailbox import Event
from rayrnn.training.minibatches import Stream, make_plan, shared_out
from rayrnn.training.report import Notes, culprit, evaluation_event, round_event, write_notes

#: a model that is not finite in so many rounds in succession is not going to mend
BROKEN_ROUNDS = 2


def train_worker(config: dict[str, Any]) -> None:
    """Ray Train's entry: `config["assignment"]` says what to learn."""
    assignment: Assignment = config["assignment"]
    torch.set_num_threads(assignment.recipe.averaging.cpus_per_worker)
    worker = Worker(assignment)
    worker.restore(ray.get(assignment.mailbox.checkpoint.remote()))
    worker.train()


class Worker:
    """One model replica and its way through the rounds."""

    def __init__(self, assignment: Assignment) -> None:
        recipe = assignment.recipe
        self._assignment = assignment
        self._recipe = recipe
        self._device = ray.train.torch.get_device()
        self._group = FixedGroup()
        # the members that this round's minibatches are shared out to
        self._rank, self._size = self._group.rank, self._group.size
        torch.manual_seed(recipe.seed)
        self._model = build_network(recipe, assignment.encoding).to(self._device)
        self._optimizer = make_optimizer(self._model, recipe.training)
        self._averager = Averager(
            self._model,
            self._optimizer,
            outer=recipe.averaging.outer,
            outer_learning_rate=recipe.averaging.outer_learning_rate,
            outer_momentum=recipe.averaging.outer_momentum,
            optimizer_state=recipe.averaging.optimizer_state,
        )
        self._lesson = make_lesson(recipe, assignment.encoding, self._device)
        self._stream = Stream(
            assignment.training,
            assignment.encoding,
            make_plan(assignment.training, batch_size=recipe.training.batch_size, seed=recipe.seed),
            frequency=recipe.averaging.frequency,
            ahead=recipe.training.prefetch,
        )
        self._progress = Progress()
        self._evaluated_model: Tensors = {}
        self._answer: ray.ObjectRef | None = None
        # dropout differs from worker to worker, the first values do not
        torch.manual_seed(recipe.seed + 1 + self._rank)

    def restore(self, checkpoint: Checkpoint | None) -> None:
        """Go on from a checkpoint; at the same number of workers exactly as if it had never stopped."""
        if checkpoint is None:
            return
        self._progress = Progress.from_json(checkpoint.progress)
        self._model.load_state_dict(checkpoint.model)
        self._averager.outer.load(checkpoint.outer)
        own = checkpoint.optimizers[self._rank % len(checkpoint.optimizers)]
        load_own_state(self._optimizer, own)

    def train(self) -> None:
        """Learn until the recipe's last round, the user's wish, or a reason to stop before."""
        frequency = self._recipe.averaging.frequency
        if self._rank == 0:
            self._post({"kind": "start", "round": self._progress.round})
        notes: list[Notes] = []
        stopped = self._reason_to_stop(notes)
        while not stopped:
            started = time.perf_counter()
            held_out = self._evaluate_if_due()
            self._set_learning_rate()
            minibatches = self._stream.round(self._progress.cursor, self._rank, self._size)
            work = learn_alone(self._model, self._optimizer, minibatches, count=frequency, lesson=self._lesson)
            notes, average = self._average(work, held_out)
            self._take_evaluation(notes)
            broken = any(note.broken_at for note in notes)
            self._progress = self._progress.after_round(minibatches=frequency * self._size, broken=broken)
            self._report(notes, average, time.perf_counter() - started)
            stopped = self._reason_to_stop(notes)
            if stopped in ("finished", "interrupted", "no better") or (not broken and self._checkpoint_due()):
                self._post_checkpoint()
        self._finish(stopped, notes)

    def _evaluate_if_due(self) -> Evaluation:
        """Evaluate the mean of the rounds so far; its sums travel with this round's average."""
        now, every = self._progress.round, self._recipe.training.evaluate_every
        due = now % every == 0 or now == self._recipe.averaging.rounds
        if not due or now == self._progress.evaluated or not len(self._assignment.held_out):
            return Evaluation()
        if self._rank == 0:
            self._evaluated_model = self._weights()
        share = shared_out(
            self._assignment.held_out,
            self._assignment.encoding,
            rank=self._rank,
            size=self._size,
            batch_size=self._recipe.training.batch_size,
            ahead=self._recipe.training.prefetch,
        )
        return evaluate(self._model, share, lesson=self._lesson)

    def _set_learning_rate(self) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate()

    def _learning_rate(self) -> float:
        return learning_rate(self._recipe.training, self._progress.round, self._recipe.averaging.rounds)

    def _average(self, work: Work, held_out: Evaluation) -> tuple[list[Notes], Average]:
        own = write_notes(work, held_out, stop=self._stop_requested())
        weight = 0.0 if work.broken_at else float(work.steps)
        average = self._averager.average(self._group, weight=weight, notes=astuple(own))
        if work.broken_at:
            reset_state(self._optimizer)
        return [Notes(*row) for row in average.notes.tolist()], average

    def _stop_requested(self) -> bool:
        """Whether the driver answered the last report with the wish to stop; never waits for the answer."""
        if self._answer is None or not ray.wait([self._answer], timeout=0)[0]:
            return False
        return bool(ray.get(self._answer))

    def _take_evaluation(self, notes: list[Notes]) -> None:
        if not sum(note.held_out_targets for note in notes):
            return
        now = self._progress.round
        event = evaluation_event(now, notes, classes=self._recipe.task != "regression")
        self._progress = self._progress.after_evaluation(now, event["held_out_loss"])
        if self._progress.best_round == now:
            event["model"] = self._evaluated_model
        if self._rank == 0:
            self._post(event)

    def _report(self, notes: list[Notes], average: Average, seconds: float) -> None:
        if self._rank == 0:
            rate = self._optimizer.param_groups[0]["lr"]
            self._post(
                round_event(
                    self._progress.round, notes, learning_rate=rate, num_bytes=average.num_bytes, seconds=seconds
                )
            )

    def _reason_to_stop(self, notes: list[Notes]) -> str:
        broken = [note.broken_at > 0 for note in notes]
        patience = self._recipe.training.early_stopping
        if broken and (all(broken) or self._progress.broken_rounds >= BROKEN_ROUNDS):
            return "broken"
        if self._progress.round >= self._recipe.averaging.rounds:
            return "finished"
        if patience and self._progress.evaluations_without_better >= patience:
            return "no better"
        return "interrupted" if any(note.stop for note in notes) else ""

    def _checkpoint_due(self) -> bool:
        return self._progress.round % self._recipe.training.checkpoint_every == 0

    def _post_checkpoint(self) -> None:
        """Every member sends its part; the driver writes them when it has all."""
        part: dict[str, Any] = {
            "kind": "checkpoint",
            "round": self._progress.round,
            "rank": self._rank,
            "size": self._size,
            "optimizer": own_state(self._optimizer),
        }
        if self._rank == 0:
            part |= {"model": self._weights(), "outer": self._averager.outer.state()}
            part |= {"progress": self._progress.to_json()}
        self._post(part)

    def _finish(self, reason: str, notes: list[Notes]) -> None:
        """Evaluate what the last round left to evaluate, and say how it ended."""
        if reason == "finished":
            notes, _ = self._average(Work(), self._evaluate_if_due())
            self._take_evaluation(notes)
        self._stream.close()
        if self._rank == 0:
            end = {"kind": "end", "reason": reason, "round": self._progress.round}
            if reason == "broken":
                end |= culprit(notes)
            if not len(self._assignment.held_out) and reason != "broken":
                end["model"] = self._weights()
            self._post(end)
        if self._answer is not None:
            # the last words must have arrived before this process ends
            ray.get(self._answer)

    def _weights(self) -> Tensors:
        return {name: value.detach().cpu().clone() for name, value in self._model.state_dict().items()}

    def _post(self, event: Event) -> None:
        self._answer = self._assignment.mailbox.post.remote(event)
