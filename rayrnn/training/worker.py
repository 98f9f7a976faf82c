"""What one Ray Train actor runs: learn alone, average, evaluate, report, round after round."""

import math
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import ray
import torch
from ray.actor import ActorHandle

from rayrnn.errors import RayrnnError
from rayrnn.runs.checkpoints import Checkpoint, digest, pack
from rayrnn.training.channel import Outbox
from rayrnn.training.group import Group, Leaving, LeftBehind, Replaced, lost_by
from rayrnn.training.layer_norms import LayerNorms
from rayrnn.training.learner import Learner, WorkerSpec
from rayrnn.training.loop import Evaluation
from rayrnn.training.messages import (
    CheckpointPart,
    Common,
    Evaluated,
    Event,
    Failed,
    Finished,
    LayerNorm,
    Orders,
    Started,
    Unmeasured,
)
from rayrnn.training.notes import Average, held_out_accuracy, held_out_loss, round_learned
from rayrnn.training.placement import DrainWatch
from rayrnn.training.progress import Progress

#: so many members, from the first on, tell the driver of each round: one may die before its words arrive
SPOKESMEN = 2


def train_worker(config: dict[str, Any]) -> None:
    """Ray Train's entry: `config["coordinator"]` knows what to learn, `config["number"]` says which worker this is.

    A user's mistake ends the run, by way of the driver; any other exception makes Ray Train replace this worker, unless
    it has done so already.
    """
    coordinator, number = config["coordinator"], int(config["number"])
    # this process may be here before the data is read
    orders: Orders = ray.get(coordinator.orders.remote())
    if orders.stop:
        return
    outbox = Outbox(coordinator, f"worker {number} {uuid.uuid4().hex}")
    try:
        worker = _make_worker(coordinator, number, orders, outbox)
    except Exception as error:
        outbox.put(Failed(number, error) if isinstance(error, RayrnnError) else lost_by(number, error))
        outbox.finish()
        if isinstance(error, RayrnnError):
            return
        raise
    try:
        worker.train()
    except Replaced:
        pass  # the run goes on without this process, as it has for a while
    except SystemExit as error:  # Ray would take it for the end of the work
        raise RuntimeError(f"the code that this run was given called sys.exit({error.code!r})") from error
    except RayrnnError as error:
        outbox.put(Failed(number, error))
    outbox.finish()


def _make_worker(coordinator: ActorHandle, number: int, orders: Orders, outbox: Outbox) -> "Worker":
    spec: WorkerSpec = ray.get(orders.spec[0])
    torch.set_num_threads(spec.recipe.averaging.cpus_per_worker)
    worker = Worker(spec, number, coordinator, outbox)
    worker.restore(ray.get(orders.checkpoint[0]) if orders.checkpoint else None)
    return worker


class Worker:
    """One model replica in a process of its own, and its way through the rounds."""

    def __init__(self, spec: WorkerSpec, number: int, coordinator: ActorHandle, outbox: Outbox) -> None:
        self._spec = spec
        self._recipe = spec.recipe
        self._coordinator = coordinator
        self._outbox = outbox
        #: of this worker; one that replaces it has the same
        self._number = number
        device = torch.device("cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu")
        self._learner = Learner(spec, number, device)
        self._layer_norms = LayerNorms(self._learner.model)
        self._stop = coordinator.stop.remote()
        #: when the round began that is told of next
        self._started = time.perf_counter()
        self._drain_watch = DrainWatch()

    def restore(self, checkpoint: Checkpoint | None) -> None:
        """Go on from a checkpoint; see `Learner.restore`."""
        self._learner.restore(checkpoint)

    @property
    def _progress(self) -> Progress:
        return self._learner.progress

    def train(self) -> None:
        """Learn until the recipe's last round, the user's wish, or a reason to stop before."""
        place = Group(
            self._coordinator,
            number=self._number,
            sums=self._progress.sums,
            patience=self._recipe.averaging.patience,
            state=self._learner.state,
            load_state=self._learner.load,
        )
        with self._drain_watch, place as group:
            self._outbox.put(Started(self._number))
            group.open_round()
            while not group.finished and not self._progress.reason:
                with suppress(LeftBehind):  # this round's work is lost; `open_round` brings this worker up to date
                    self._round(group)
                if not self._learner.sending:
                    group.open_round()
            if not group.finished:
                self._outbox.put(self._end(spokesman=group.rank < SPOKESMEN))
            # the driver has all that was said before it sees this worker leave
            self._outbox.finish()
        self._learner.close()

    def _round(self, group: Group) -> None:
        if not self._learner.sending:
            self._started = time.perf_counter()
        learned = self._learner.learn(group.rank, group.size)
        arrived = learned.arrived
        if arrived is not None:
            self._report(group, arrived)
            group.open_round(admit=False)
            if self._progress.reason:
                return
        asked = {"stop": self._stop_requested(), "leaving": self._drain_watch.noticed}
        if self._learner.may_send(group.size) and not self._noticed(group, arrived):
            self._learner.send(group, learned, **asked)
            return
        average = self._learner.average(group, learned, **asked)
        evaluations = self._evaluate(group) if self._evaluation_due() else {}
        if evaluations:
            self._learner.note_evaluation(held_out_loss(evaluations), self._learner.monitored(evaluations))
        checkpoint = [self._checkpoint_part(group)] if self._checkpoint_due(average) else []
        self._report(group, average, evaluations, checkpoint, layers=self._looked_at(group))
        if average.notes[self._number].leaving and not self._progress.reason:
            self._outbox.finish()
            raise Leaving("its node leaves the cluster")

    @staticmethod
    def _noticed(group: Group, arrived: Average | None) -> bool:
        """Whether the members are to wait for this round's average, so that somebody may come, go or stop after it."""
        if group.change_ahead:
            return True
        return arrived is not None and any(
            note.stop or note.leaving or note.broken_at for note in arrived.notes.values()
        )

    def _stop_requested(self) -> bool:
        return bool(ray.wait([self._stop], timeout=0)[0])

    def _evaluation_due(self) -> bool:
        return len(self._spec.held_out) > 0 and self._look_due()

    def _look_due(self) -> bool:
        return self._progress.evaluation_due(every=self._recipe.training.evaluate_every)

    def _looked_at(self, group: Group) -> tuple[LayerNorm, ...]:
        """All members have the same layers: those look who tell of the round."""
        return self._layer_norms.look() if group.rank < SPOKESMEN and self._look_due() else ()

    def _evaluate(self, group: Group) -> dict[int, Evaluation]:
        """Every member's sums over its share of what is held out; with a member lost on the way, all share it anew."""
        gathered = None
        while gathered is None:
            group.open_round(admit=False)
            own = self._learner.evaluate(group.rank, group.size)
            gathered = group.gather(own.to_vector())
        return {number: Evaluation.from_vector(row) for number, row in zip(group.numbers, gathered, strict=True)}

    def _report(
        self,
        group: Group,
        average: Average,
        evaluations: Mapping[int, Evaluation] = MappingProxyType({}),
        further: Sequence[Event] = (),
        layers: tuple[LayerNorm, ...] = (),
    ) -> None:
        """Tell the driver of a round, which began when the one before was told of; two of the members do."""
        now = time.perf_counter()
        seconds, self._started = now - self._started, now
        told: list[Event] = []
        if group.rank < SPOKESMEN:
            told.append(
                round_learned(
                    self._progress.round,
                    average,
                    evaluations,
                    generation=group.generation,
                    seconds=seconds,
                    stopped=self._progress.reason == "broken",
                    layers=layers,
                )
            )
            if evaluations:
                told.append(self._evaluated(evaluations, group.generation))
        self._outbox.put(*told, *further)

    def _evaluated(self, evaluations: Mapping[int, Evaluation], generation: int) -> Evaluated | Unmeasured:
        best, loss = self._progress.best_round == self._progress.round, held_out_loss(evaluations)
        monitor = self._recipe.training.monitor
        if not math.isfinite(loss):
            return Unmeasured(self._progress.round, generation)
        return Evaluated(
            round=self._progress.round,
            generation=generation,
            held_out_loss=loss,
            held_out_accuracy=held_out_accuracy(evaluations) if self._learner.task.right_or_wrong else None,
            model=pack(self._learner.weights()) if best else None,
            monitor="" if monitor == "loss" else monitor,
            monitored=self._learner.monitored(evaluations),
        )

    def _checkpoint_due(self, average: Average) -> bool:
        """Also at the end, and when nobody stays to hand the state to a newcomer; never of what may be broken."""
        due = self._progress.round % self._recipe.training.checkpoint_every == 0
        ends = bool(self._progress.reason) or average.nobody_stays
        return (due or ends) and not self._progress.broken_rounds

    def _checkpoint_part(self, group: Group) -> CheckpointPart:
        """Every member sends its part; the driver writes them when it has all."""
        common = self._learner.state()
        return CheckpointPart(
            round=self._progress.round,
            generation=group.generation,
            worker=self._number,
            members=tuple(group.numbers),
            digest=digest(common["model"], common["outer"]),
            optimizer=pack(self._learner.own_state()),
            common=Common(pack(common["model"]), pack(common["outer"]), common["progress"])
            if group.rank < SPOKESMEN
            else None,
        )

    def _end(self, *, spokesman: bool) -> Finished:
        chosen = self._progress.best_round or self._progress.reason == "broken"
        model = pack(self._learner.weights()) if spokesman and not chosen else None
        return Finished(self._number, self._progress.reason, self._progress.round, model)
