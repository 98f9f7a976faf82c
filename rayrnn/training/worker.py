"""What one Ray Train actor runs: learn alone, average, report, round after round."""

import functools
import time
import traceback
from dataclasses import astuple
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from rayrnn.averaging import Averager
from rayrnn.averaging.optimizer_state import reset_state
from rayrnn.data.order import Stream, make_plan, shared_out
from rayrnn.errors import RayrnnError
from rayrnn.recipe import task_of
from rayrnn.runs.checkpoints import Checkpoint, Tensors, digest
from rayrnn.runs.directory import build_network
from rayrnn.training.coordinator import Event
from rayrnn.training.group import Group, Leaving, LeftBehind
from rayrnn.training.loop import (
    Evaluation,
    LearningSettings,
    Work,
    evaluate,
    learn_alone,
    learning_rate,
    make_optimizer,
    task_to_learn,
)
from rayrnn.training.messages import Assignment, Progress
from rayrnn.training.notes import Notes, culprit, evaluation_event, round_event, write_notes
from rayrnn.training.placement import Notice

#: a model that is not finite in so many rounds in succession is not going to mend
BROKEN_ROUNDS = 2
#: so many members, from the first on, tell the driver of each round: one may die before its words arrive
SPOKESMEN = 2


def train_worker(config: dict[str, Any]) -> None:
    """Ray Train's entry: `config["assignment"]` says what to learn, `config["number"]` which worker this is.

    A user's mistake ends the run, by way of the driver; any other exception makes Ray Train replace this worker.
    """
    assignment: Assignment = config["assignment"]
    mailbox, number = assignment.mailbox, int(config["number"])
    if ray.get(mailbox.stop_requested.remote()):
        return
    torch.set_num_threads(assignment.recipe.averaging.cpus_per_worker)
    try:
        worker = Worker(assignment, number)
        worker.restore(ray.get(mailbox.checkpoint.remote()))
        worker.train()
    except RayrnnError as error:
        ray.get(mailbox.post.remote({"kind": "mistake", "worker": number, "error": error}))
    except Leaving:
        raise  # Ray Train starts another worker in its place, on another node
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        event = {"kind": "exception", "worker": number, "error": said, "traceback": traceback.format_exc()}
        ray.get(mailbox.post.remote(event))
        raise


class Worker:
    """One model replica and its way through the rounds."""

    def __init__(self, assignment: Assignment, number: int) -> None:
        recipe = assignment.recipe
        self._assignment = assignment
        self._recipe = recipe
        self._device = ray.train.torch.get_device()
        #: of this worker; one that replaces it has the same
        self._number = number
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
            wire=recipe.averaging.wire,
        )
        self._task = task_of(recipe)
        self._learned_task = task_to_learn(recipe, assignment.encoding, self._device)
        self._settings = LearningSettings.of(recipe.training)
        self._collate = functools.partial(self._task.minibatch, encoding=assignment.encoding)
        self._stream = Stream(
            assignment.training,
            self._collate,
            make_plan(assignment.training, batch_size=recipe.training.batch_size, seed=recipe.seed),
            frequency=recipe.averaging.frequency,
            ahead=recipe.training.prefetch,
        )
        self._progress = Progress()
        self._notice = Notice()
        self._evaluated_model: Tensors = {}
        self._answer: ray.ObjectRef | None = None
        #: what this worker knows of the newest round and did not tell, as others did
        self._untold: list[Event] = []
        # dropout differs from worker to worker, the first values do not
        torch.manual_seed(recipe.seed + 1 + self._number)

    def restore(self, checkpoint: Checkpoint | None) -> None:
        """Go on from a checkpoint; at the same number of workers exactly as if it had never stopped."""
        if checkpoint is not None:
            self._load({"model": checkpoint.model, "outer": checkpoint.outer, "progress": checkpoint.progress})
            number, states = self._number, checkpoint.optimizers
            self._averager.load_own_state(states[number % len(states)], borrowed=number >= len(states))
        finished = self._progress.round >= self._recipe.averaging.rounds
        self._progress = self._progress.stopped_for("finished" if finished else "")

    def train(self) -> None:
        """Learn until the recipe's last round, the user's wish, or a reason to stop before."""
        roll, patience = self._assignment.roll, self._recipe.averaging.patience
        place = Group(
            roll,
            number=self._number,
            round_number=self._progress.round,
            patience=patience,
            state=self._state,
            load_state=self._load,
        )
        with self._notice, place as group:
            self._post({"kind": "start", "round": self._progress.round})
            while True:
                group.open_round()
                if group.finished or self._over():
                    break
                try:
                    self._round(group)
                except LeftBehind:
                    continue  # the next open_round brings this worker up to date
            if not group.finished:
                self._say_end(spokesman=group.rank < SPOKESMEN)
            self._finish_talking()
        self._stream.close()

    def _over(self) -> bool:
        """Nothing is left to learn, and nothing to evaluate."""
        unevaluated = len(self._assignment.held_out) > 0 and self._progress.evaluated < self._progress.round
        return bool(self._progress.reason) and not (self._progress.reason == "finished" and unevaluated)

    def _round(self, group: Group) -> None:
        started = time.perf_counter()
        rank, size = group.rank, group.size
        held_out = self._evaluate_if_due(rank, size)
        learned = not self._progress.reason
        work = self._learn(rank, size) if learned else Work()
        notes, num_bytes = self._average(group, work, held_out)
        before, self._untold = self._untold, []
        self._take_evaluation(group, notes)
        if learned:
            # those who were lost on the way took their minibatches with them
            self._take_round(notes, minibatches=self._recipe.averaging.frequency * size)
            self._report(group, notes, num_bytes, time.perf_counter() - started)
        if group.rank < SPOKESMEN:
            for event in [*before, *self._untold]:
                self._post(event)
            self._untold = []
        if learned and not self._progress.broken_rounds and self._checkpoint_due(notes):
            self._post_checkpoint(group)
        if notes[group.rank].leaving and not self._progress.reason:
            self._finish_talking()
            raise Leaving("its node leaves the cluster")

    def _take_round(self, notes: list[Notes], *, minibatches: int) -> None:
        broken = any(note.broken_at for note in notes)
        self._progress = self._progress.after_round(minibatches=minibatches, broken=broken)
        self._progress = self._progress.stopped_for(self._reason_to_stop(notes))

    def _learn(self, rank: int, size: int) -> Work:
        for parameters in self._optimizer.param_groups:
            parameters["lr"] = self._learning_rate()
        minibatches = self._stream.round(self._progress.cursor, rank, size)
        return learn_alone(
            self._model,
            self._optimizer,
            minibatches,
            task=self._learned_task,
            count=self._recipe.averaging.frequency,
            settings=self._settings,
        )

    def _evaluate_if_due(self, rank: int, size: int) -> Evaluation:
        """Evaluate the mean of the rounds so far; its sums travel with this round's average."""
        now, every = self._progress.round, self._recipe.training.evaluate_every
        due = now % every == 0 or now == self._recipe.averaging.rounds
        if not due or now == self._progress.evaluated or not len(self._assignment.held_out):
            return Evaluation()
        self._evaluated_model = self._weights()
        share = shared_out(
            self._assignment.held_out,
            self._collate,
            rank=rank,
            size=size,
            batch_size=self._recipe.training.batch_size,
            ahead=self._recipe.training.prefetch,
        )
        return evaluate(self._model, share, task=self._task, truncate=self._settings.truncate)

    def _learning_rate(self) -> float:
        return learning_rate(self._recipe.training, self._progress.round, self._recipe.averaging.rounds)

    def _average(self, group: Group, work: Work, held_out: Evaluation) -> tuple[list[Notes], int]:
        own = write_notes(work, held_out, stop=self._stop_requested(), leaving=self._notice.given)
        weight = 0.0 if work.broken_at else float(work.steps)
        average = self._averager.average(group, weight=weight, notes=astuple(own))
        if work.broken_at:
            reset_state(self._optimizer)
        return [Notes(*row) for row in average.notes.tolist()], average.num_bytes

    def _stop_requested(self) -> bool:
        """Whether the driver answered the last report with the wish to stop; never waits for the answer."""
        if self._answer is None or not ray.wait([self._answer], timeout=0)[0]:
            return False
        return bool(ray.get(self._answer))

    def _take_evaluation(self, group: Group, notes: list[Notes]) -> None:
        """All members' sums make the held-out loss; without a lost member's share they are not the whole."""
        if sum(note.held_out_sequences for note in notes) < max(1, len(self._assignment.held_out)):
            return
        now = self._progress.round
        event = evaluation_event(now, notes, classes=self._task.right_or_wrong)
        self._progress = self._progress.after_evaluation(now, event["held_out_loss"])
        if self._progress.best_round == now:
            event["model"] = self._evaluated_model
        self._untold.append(event | {"edition": group.edition})

    def _report(self, group: Group, notes: list[Notes], num_bytes: int, seconds: float) -> None:
        rate = self._optimizer.param_groups[0]["lr"]
        members = dict(zip(group.numbers, notes, strict=True))
        event = round_event(self._progress.round, members, learning_rate=rate, num_bytes=num_bytes, seconds=seconds)
        if self._progress.reason == "broken":
            event |= culprit(members)
        # a round that is made again has another edition; what two workers tell of one round has the same
        self._untold.append(event | {"edition": group.edition})

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

    def _checkpoint_due(self, notes: list[Notes]) -> bool:
        """Also at the end, and when nobody stays to hand the state to a newcomer."""
        every = self._recipe.training.checkpoint_every
        nobody_stays = all(note.leaving for note in notes)
        return bool(self._progress.reason) or nobody_stays or self._progress.round % every == 0

    def _post_checkpoint(self, group: Group) -> None:
        """Every member sends its part; the driver writes them when it has all."""
        common = self._state()
        part: Event = {
            "kind": "checkpoint",
            "round": self._progress.round,
            "edition": group.edition,
            "number": self._number,
            "numbers": group.numbers,
            "digest": digest(common["model"], common["outer"]),
            "optimizer": self._averager.own_state(),
        }
        self._post(part | common if group.rank < SPOKESMEN else part)

    def _say_end(self, *, spokesman: bool) -> None:
        """Every member says how the run ended."""
        end: Event = {"kind": "end", "reason": self._progress.reason, "round": self._progress.round}
        if spokesman and not len(self._assignment.held_out) and self._progress.reason != "broken":
            end["model"] = self._weights()
        self._post(end)

    def _finish_talking(self) -> None:
        """Wait until what this worker has said has arrived."""
        if self._answer is not None:
            ray.get(self._answer)

    def _state(self) -> dict[str, Any]:
        """What all members have in common."""
        outer = self._averager.outer.state()
        return {"model": self._weights(), "outer": outer, "progress": self._progress.to_json()}

    def _load(self, state: dict[str, Any]) -> None:
        self._model.load_state_dict(state["model"])
        self._averager.take_over(state["outer"])
        self._progress = Progress.from_json(state["progress"])

    def _weights(self) -> Tensors:
        return {name: value.detach().cpu().clone() for name, value in self._model.state_dict().items()}

    def _post(self, event: Event) -> None:
        self._answer = self._assignment.mailbox.post.remote(event)
