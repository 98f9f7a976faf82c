"""What one Ray Train actor runs: learn alone, average, evaluate, report, round after round."""

import functools
import math
import time
import uuid
from contextlib import suppress
from dataclasses import astuple, dataclass
from typing import Any

import ray
import torch
from ray.actor import ActorHandle

from rayrnn.averaging.averager import Averager, order_of
from rayrnn.averaging.optimizer_state import reset_state
from rayrnn.data.encoding import Encoding
from rayrnn.data.order import Stream, make_plan, shared_out
from rayrnn.data.sequences import Part
from rayrnn.errors import RayrnnError, RunError
from rayrnn.models.own import OwnNetwork
from rayrnn.recipe import Recipe, task_of
from rayrnn.runs.checkpoints import Checkpoint, Tensors, digest, pack
from rayrnn.runs.model import build_network, check_tensors
from rayrnn.training.channel import Outbox
from rayrnn.training.group import Group, Leaving, LeftBehind, Replaced, lost_by
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
from rayrnn.training.messages import (
    CheckpointPart,
    Common,
    Evaluated,
    Event,
    Failed,
    Finished,
    Orders,
    Started,
    Unmeasured,
)
from rayrnn.training.notes import Average, Notes, held_out_accuracy, held_out_loss, round_learned, write_notes
from rayrnn.training.placement import DrainWatch
from rayrnn.training.progress import Progress

#: so many members, from the first on, tell the driver of each round: one may die before its words arrive
SPOKESMEN = 2


@dataclass(frozen=True)
class WorkerSpec:
    """What a run's workers learn, the same for each of them."""

    recipe: Recipe
    encoding: Encoding
    training: Part
    held_out: Part
    #: the network of the user's own, where the recipe names one
    own: OwnNetwork | None = None


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


class Worker:
    """One model replica and its way through the rounds."""

    def __init__(self, spec: WorkerSpec, number: int, coordinator: ActorHandle, outbox: Outbox) -> None:
        recipe = spec.recipe
        self._spec = spec
        self._recipe = recipe
        self._coordinator = coordinator
        self._outbox = outbox
        #: of this worker; one that replaces it has the same
        self._number = number
        self._device = torch.device("cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu")
        torch.manual_seed(recipe.seed)
        self._model = build_network(recipe, spec.encoding, spec.own).to(self._device)
        self._optimizer = make_optimizer(self._model, recipe.training)
        self._averager = make_averager(self._model, self._optimizer, recipe)
        self._task = task_of(recipe)
        self._learned_task = task_to_learn(recipe, spec.encoding, self._device)
        self._settings = LearningSettings.of(recipe.training)
        self._collate = functools.partial(self._task.minibatch, encoding=spec.encoding)
        self._stream = Stream(
            spec.training,
            self._collate,
            make_plan(spec.training, batch_size=recipe.training.batch_size, seed=recipe.seed),
            frequency=recipe.averaging.frequency,
            ahead=recipe.training.prefetch,
        )
        self._progress = Progress()
        self._stop = coordinator.stop.remote()
        self._drain_watch = DrainWatch()
        # dropout differs from worker to worker, the first values do not
        torch.manual_seed(recipe.seed + 1 + number)

    def restore(self, checkpoint: Checkpoint | None) -> None:
        """Go on from a checkpoint; at the same number of workers exactly as if it had never stopped."""
        if checkpoint is not None:
            self._load({"model": checkpoint.model, "outer": checkpoint.outer, "progress": checkpoint.progress})
            state, borrowed = checkpoint.state_for(self._number)
            self._averager.load_own_state(state, borrowed=borrowed)
        self._progress = self._progress.resumed(rounds=self._recipe.averaging.rounds)

    def train(self) -> None:
        """Learn until the recipe's last round, the user's wish, or a reason to stop before."""
        place = Group(
            self._coordinator,
            number=self._number,
            sums=self._progress.sums,
            patience=self._recipe.averaging.patience,
            state=self._state,
            load_state=self._load,
        )
        with self._drain_watch, place as group:
            self._outbox.put(Started(self._number))
            group.open_round()
            while not group.finished and not self._progress.reason:
                with suppress(LeftBehind):  # this round's work is lost; `open_round` brings this worker up to date
                    self._round(group)
                group.open_round()
            if not group.finished:
                self._outbox.put(self._end(spokesman=group.rank < SPOKESMEN))
            # the driver has all that was said before it sees this worker leave
            self._outbox.finish()
        self._stream.close()

    def _round(self, group: Group) -> None:
        started = time.perf_counter()
        rate = self._set_learning_rate()
        share = self._stream.share(self._progress.cursor, group.rank, group.size)
        work = learn_alone(
            self._model, self._optimizer, share.minibatches, task=self._learned_task, settings=self._settings
        )
        average = self._average(group, work)
        self._progress = self._progress.after(
            cursor=share.next_cursor,
            broken=[note.broken_at > 0 for note in average.notes.values()],
            stop=average.stop,
            rounds=self._recipe.averaging.rounds,
        )
        evaluations = self._evaluate(group) if self._evaluation_due() else {}
        if evaluations:
            self._progress = self._progress.after_evaluation(
                held_out_loss(evaluations), early_stopping=self._recipe.training.early_stopping
            )
        self._report(group, average, evaluations, learning_rate=rate, seconds=time.perf_counter() - started)
        if average.notes[self._number].leaving and not self._progress.reason:
            self._outbox.finish()
            raise Leaving("its node leaves the cluster")

    def _set_learning_rate(self) -> float:
        rate = learning_rate(self._recipe.training, self._progress.round, self._recipe.averaging.rounds)
        for parameters in self._optimizer.param_groups:
            parameters["lr"] = rate
        return rate

    def _average(self, group: Group, work: Work) -> Average:
        own = write_notes(work, stop=self._stop_requested(), leaving=self._drain_watch.noticed)
        weight = 0.0 if work.broken_at else float(work.steps)
        average = self._averager.average(group, weight=weight, notes=astuple(own))
        if work.broken_at:
            reset_state(self._optimizer)
        notes = [Notes(*row) for row in average.notes.tolist()]
        return Average(dict(zip(group.numbers, notes, strict=True)), average.num_bytes)

    def _stop_requested(self) -> bool:
        return bool(ray.wait([self._stop], timeout=0)[0])

    def _evaluation_due(self) -> bool:
        return len(self._spec.held_out) > 0 and self._progress.evaluation_due(
            every=self._recipe.training.evaluate_every
        )

    def _evaluate(self, group: Group) -> dict[int, Evaluation]:
        """Every member's sums over its share of what is held out; with a member lost on the way, all share it anew."""
        gathered = None
        while gathered is None:
            group.open_round(admit=False)
            share = shared_out(
                self._spec.held_out,
                self._collate,
                rank=group.rank,
                size=group.size,
                batch_size=self._recipe.training.batch_size,
                ahead=self._recipe.training.prefetch,
            )
            own = evaluate(self._model, share, task=self._task, truncate=self._settings.truncate)
            gathered = group.gather(torch.tensor(astuple(own), dtype=torch.float64))
        return {number: Evaluation(*row.tolist()) for number, row in zip(group.numbers, gathered, strict=True)}

    def _report(
        self,
        group: Group,
        average: Average,
        evaluations: dict[int, Evaluation],
        *,
        learning_rate: float,
        seconds: float,
    ) -> None:
        """Tell the driver of a round; two of the members do."""
        told: list[Event] = []
        if group.rank < SPOKESMEN:
            told.append(
                round_learned(
                    self._progress.round,
                    average,
                    evaluations,
                    generation=group.generation,
                    learning_rate=learning_rate,
                    seconds=seconds,
                    stopped=self._progress.reason == "broken",
                )
            )
            if evaluations:
                told.append(self._evaluated(evaluations, group.generation))
        if self._checkpoint_due(average):
            told.append(self._checkpoint_part(group))
        self._outbox.put(*told)

    def _evaluated(self, evaluations: dict[int, Evaluation], generation: int) -> Evaluated | Unmeasured:
        best, loss = self._progress.best_round == self._progress.round, held_out_loss(evaluations)
        if not math.isfinite(loss):
            return Unmeasured(self._progress.round, generation)
        return Evaluated(
            round=self._progress.round,
            generation=generation,
            held_out_loss=loss,
            held_out_accuracy=held_out_accuracy(evaluations) if self._task.right_or_wrong else None,
            model=pack(self._weights()) if best else None,
        )

    def _checkpoint_due(self, average: Average) -> bool:
        """Also at the end, and when nobody stays to hand the state to a newcomer; never of what may be broken."""
        due = self._progress.round % self._recipe.training.checkpoint_every == 0
        ends = bool(self._progress.reason) or average.nobody_stays
        return (due or ends) and not self._progress.broken_rounds

    def _checkpoint_part(self, group: Group) -> CheckpointPart:
        """Every member sends its part; the driver writes them when it has all."""
        common = self._state()
        return CheckpointPart(
            round=self._progress.round,
            generation=group.generation,
            worker=self._number,
            members=tuple(group.numbers),
            digest=digest(common["model"], common["outer"]),
            optimizer=pack(self._averager.own_state()),
            common=Common(pack(common["model"]), pack(common["outer"]), common["progress"])
            if group.rank < SPOKESMEN
            else None,
        )

    def _end(self, *, spokesman: bool) -> Finished:
        chosen = self._progress.best_round or self._progress.reason == "broken"
        model = pack(self._weights()) if spokesman and not chosen else None
        return Finished(self._number, self._progress.reason, self._progress.round, model)

    def _state(self) -> dict[str, Any]:
        """What all members have in common."""
        outer = self._averager.outer.state()
        progress = self._progress.to_json() | {"parameters": order_of(self._model)}
        return {"model": self._weights(), "outer": outer, "progress": progress}

    def _load(self, state: dict[str, Any]) -> None:
        self._model.load_state_dict(state["model"])
        self._averager.take_over(state["outer"])
        self._progress = Progress.from_json(state["progress"])

    def _weights(self) -> Tensors:
        return {name: value.detach().cpu().clone() for name, value in self._model.state_dict().items()}
