"""One run as its driver follows it: what workers tell is handled until they have ended."""

import time
from contextlib import suppress
from dataclasses import replace
from typing import assert_never

import ray
import ray.data
import torch
from ray.exceptions import ObjectStoreFullError, RayError

from rayrnn.cluster.status import Heartbeat
from rayrnn.data.prepare import Prepared
from rayrnn.errors import RayrnnError, RunError, UsageError
from rayrnn.models.own import OwnNetwork
from rayrnn.recipe import Recipe
from rayrnn.runs.beginning import Beginning
from rayrnn.runs.checkpoints import name_of, newest_checkpoint
from rayrnn.runs.directory import Run
from rayrnn.runs.model import build_network
from rayrnn.runs.same_data import data_of
from rayrnn.stop_signals import stop_requests
from rayrnn.training.channel import Inbox
from rayrnn.training.failures import (
    Strikes,
    broken,
    headless,
    interrupted,
    nodeless,
    unexpected,
    without_a_word,
)
from rayrnn.training.learner import WorkerSpec, check_checkpoint
from rayrnn.training.messages import (
    CheckpointPart,
    Evaluated,
    Event,
    Failed,
    Finished,
    Joined,
    Lost,
    NoRoom,
    Restarted,
    RoundLearned,
    Started,
    Stumbled,
    Unmeasured,
    WentOn,
)
from rayrnn.training.placement import HomeNode, find_need
from rayrnn.training.progress import Deadline, Progress
from rayrnn.training.recorder import Recorder
from rayrnn.training.screen import Reporter
from rayrnn.training.summary import Summary, outline_of
from rayrnn.training.tracking import Tracking
from rayrnn.training.worker_pool import WorkerPool

POLL_SECONDS = 0.1
#: for Ray's head to answer; Ray ends a process whose head has been silent for a minute
HEAD_SECONDS = 20.0
#: for the coordinator to answer, before it is asked whether this node's Ray is there
COORDINATOR_SECONDS = 2.0


class Driver:
    """One run's way from sequences in the object store to its end."""

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        prepared: Prepared,
        screen: Reporter,
        *,
        inbox: Inbox,
        pool: WorkerPool,
        own: OwnNetwork | None,
        beginning: Beginning | None,
        tracking: Tracking | None = None,
    ) -> None:
        self._run = run
        self._own = own
        self._beginning = beginning
        self._recipe = recipe
        self._prepared = prepared
        self._screen = screen
        self._inbox = inbox
        self._pool = pool
        self._recorder = Recorder(run, screen.warn, tracking)
        self._home = HomeNode()
        self._heartbeat = Heartbeat(
            run.name, rounds=recipe.averaging.planned_rounds, workers=pool.most, warn=screen.warn
        )
        minutes = recipe.training.max_minutes
        self._time = Deadline(None if minutes is None else 60 * minutes)
        self._strikes = Strikes(pool.most)
        #: of the checkpoint that the run goes on from, and the best evaluation since
        self._progress = Progress()
        #: the generation of the newest round, and of the newest evaluation, that was told of
        self._generations: dict[type, int] = {}
        self._has_said_unmeasured = False
        self._has_said_stop = False
        self._has_said_unmonitored = False
        self._started = False
        self._stopping = False
        self._last: RoundLearned | None = None
        self._finished: Finished | None = None
        self._failure: RayrnnError | None = None
        self._steps = 0
        self._seconds = 0.0

    def train(self, num_workers: int, *, resume: bool) -> Summary:
        """Tell the workers what to learn, follow them to the end, and say how it went."""
        self._restore(resume=resume)
        self._run.write_recipe(self._recipe)
        self._run.write_encoding(self._prepared.encoding)
        self._run.write_data(data_of(self._prepared))
        self._give_spec()
        self._screen_header(num_workers)
        try:
            self._learn(num_workers)
            return self._conclude()
        finally:
            self._heartbeat.end()  # who has asked the run to stop waits for this

    def _learn(self, num_workers: int) -> None:
        try:
            with stop_requests(self._request_stop):
                self._screen.say("starting the workers ...")
                self._pool.start(num_workers)
                self._follow()
        finally:
            self._screen.stop()
            self._recorder.close()

    def _restore(self, *, resume: bool) -> None:
        checkpoint, damages = newest_checkpoint(self._run.checkpoints)
        for damage in damages:
            self._screen.warn(f"{damage}; going on from the one before")
        if checkpoint is None:
            if resume:
                self._screen.say("there is no checkpoint to go on from: beginning with round 1")
            self._run.cut_metrics(0)
            return
        network = build_network(self._recipe, self._prepared.encoding, self._own)
        name = name_of(checkpoint.progress["round"])
        check_checkpoint(checkpoint, network, self._recipe, where=str(self._run.checkpoints / name))
        progress = Progress.from_json(checkpoint.progress)
        if progress.round > self._recipe.averaging.rounds:
            raise UsageError(
                f"averaging.rounds is {self._recipe.averaging.rounds:,}, and {self._run.name} has learned "
                f"{progress.round:,} rounds, none of which can be taken back: give it {progress.round:,} or more, or "
                "choose another --out (in Python: out=)"
            )
        self._progress = progress
        self._run.cut_metrics(self._progress.round)
        self._inbox.give(checkpoint=(ray.put(checkpoint),))
        self._screen.say(f"going on after round {self._progress.round:,}")

    def _give_spec(self) -> None:
        prepared = self._prepared
        parts = (prepared.training, prepared.held_out)
        begin = None if self._beginning is None else self._beginning.weights
        spec = WorkerSpec(self._recipe, prepared.encoding, *parts, self._own, prepared.vectors, begin)
        self._inbox.give(spec=(ray.put(spec),))

    def _screen_header(self, num_workers: int) -> None:
        torch.manual_seed(self._recipe.seed)
        network = build_network(self._recipe, self._prepared.encoding, self._own)
        device = find_need(self._recipe.averaging).device
        outline = outline_of(self._recipe, network, self._prepared, num_workers=num_workers, device=device)
        self._recorder.begin(outline.num_parameters)
        self._screen.header(
            outline, data=self._prepared.name, encoding=self._prepared.encoding.describe(), run=self._run.name
        )
        if self._beginning is not None:
            self._screen.say(self._beginning.told)
        for note in self._prepared.notes:
            self._screen.warn(note)
        if skipped := self._prepared.skipped:
            listed = self._run.write_skipped(skipped)
            self._screen.warn(f"{len(skipped):,} sequences could not be read and are left out; {listed} says why")

    def _follow(self) -> None:
        """Handle what happens until the workers have ended."""
        try:
            while self._running():
                self._listen()
                time.sleep(POLL_SECONDS)
            self._listen()
        except RayError as error:
            self._recorder.log(f"{type(error).__name__}: {error}\n")
            self._pool.abandon()
            self._failure = self._failure or nodeless(self._run)

    def _running(self) -> bool:
        """Whether a worker has something left to do; Ray Train itself may take seconds to notice that none has."""
        if (self._finished or self._failure) and not self._inbox.members:
            return False
        if self._stopping and not self._started:  # none has begun: there is nothing to finish
            return False
        return self._pool.running()

    def _listen(self) -> None:
        for event in self._inbox.events():
            if self._is_news(event):
                self._handle(event)
        self._write_checkpoints()
        if self._run.failure is not None:
            self._give_up(self._run.failure)
        if self._heartbeat.is_due():
            self._heartbeat.beat(self._last.round if self._last else self._progress.round, self._inbox.members)
        if self._heartbeat.stop_asked and not self._has_said_stop:
            self._has_said_stop = True
            self._screen.warn("the cluster is being taken down: finishing the round, then a checkpoint")
            self._inbox.give(stop=True)
        if self._time.is_over():
            self._screen.warn("training.max_minutes are over: finishing the round, then a checkpoint")
            self._inbox.give(stop=True)
        if self._heartbeat.unanswered_seconds > HEAD_SECONDS:
            self._give_up(headless(HEAD_SECONDS))
        if self._inbox.silent_seconds > COORDINATOR_SECONDS and not self._home.answers():
            self._pool.abandon()
            raise self._failure or nodeless(self._run)

    def _is_news(self, event: Event) -> bool:
        """Two workers tell of every round, in case one of them dies."""
        if not isinstance(event, RoundLearned | Evaluated | Unmeasured):
            return True
        kind, before = type(event), self._generations.get(type(event), 0)
        self._generations[kind] = max(before, event.generation)
        return event.generation > before

    def _handle(self, event: Event) -> None:
        match event:
            case Started():
                self._start()
            case RoundLearned():
                self._take_round(event)
            case Evaluated():
                self._take_evaluation(event)
            case Unmeasured():
                self._say_unmeasured(event.round)
            case CheckpointPart():
                self._recorder.take_checkpoint_part(event)
            case Finished():
                self._finished = event if self._finished is None or event.model is not None else self._finished
            case Failed():
                self._give_up(event.error)
            case Lost():
                self._take_loss(event)
            case WentOn() | Joined():
                self._recorder.take_membership(event)
                self._screen.membership(event)
            case Restarted():
                self._recorder.log(f"worker {event.worker} starts again: {event.detail}\n")
                self._count(event)
            case NoRoom():
                self._screen.warn(f"worker {event.worker} waits for room on a host; `rayrnn status` says what is free")
            case Stumbled():
                self._recorder.log(f"the thread {event.thread!r} begins again: {event.detail}\n")
            case _:
                assert_never(event)

    def _start(self) -> None:
        if not self._started:
            self._time.begin()
            self._screen.start(self._progress.round, self._progress.seconds)
        self._started = True

    def _take_round(self, event: RoundLearned) -> None:
        self._last = event
        self._strikes.forget(event.round)
        self._steps += event.steps
        self._seconds += event.seconds
        self._recorder.take_round(event)
        self._screen.round(event)

    def _take_evaluation(self, event: Evaluated) -> None:
        if event.model is not None:
            self._progress = replace(
                self._progress,
                best_loss=event.held_out_loss,
                best_round=event.round,
                monitor=event.monitor or "loss",
                best_value=event.monitored,
            )
        elif event.monitor and event.monitored is None and not self._has_said_unmonitored:
            self._has_said_unmonitored = True
            self._screen.warn(
                f"what is held out has no {event.monitor} after round {event.round:,}: nothing is compared"
            )
        self._recorder.take_evaluation(event)
        self._screen.evaluation(event)

    def _say_unmeasured(self, round_number: int) -> None:
        if not self._has_said_unmeasured:
            self._screen.warn(
                f"what is held out has no loss after round {round_number:,}: no sequence there has a target, or the "
                "network's answers are not finite; the last model is kept as long as no round has a held-out loss"
            )
        self._has_said_unmeasured = True

    def _take_loss(self, event: Lost) -> None:
        """One line, on the screen and in metrics.jsonl; what fails every time is no accident."""
        self._recorder.take_membership(event)
        self._screen.membership(event)
        if event.reason == "raised":
            self._recorder.log(event.traceback)
            self._count(event)

    def _write_checkpoints(self) -> None:
        try:
            while checkpoint := self._recorder.write_checkpoint():
                with suppress(ObjectStoreFullError):  # who starts anew goes on from the one before
                    self._inbox.give(checkpoint=(ray.put(checkpoint),))
        except RunError as error:
            self._give_up(error)

    def _count(self, event: Lost | Restarted) -> None:
        if times := self._strikes.too_many(event):
            last = self._last.round if self._last else self._progress.round
            self._give_up(unexpected(event, times, last, self._run))

    def _give_up(self, failure: RayrnnError) -> None:
        if self._failure is None:
            self._failure = failure
            self._inbox.give(stop=True)

    def _request_stop(self) -> None:
        self._screen.warn("finishing the round, then a checkpoint; Ctrl-C again stops at once")
        self._stopping = True
        self._inbox.give(stop=True)

    def _conclude(self) -> Summary:
        if self._failure is not None:
            raise self._failure
        finished = self._finished
        self._recorder.write_model(finished.model if finished else None)
        if finished is None:
            raise interrupted(self._progress.round, self._run) if self._stopping else without_a_word(self._run)
        if finished.reason == "broken" and self._last is not None:
            raise broken(self._last, self._recipe, self._run)
        timely = self._time.has_ended and not self._stopping
        if finished.reason == "interrupted" and not timely:
            raise interrupted(finished.round, self._run)
        evaluated = self._progress.best_round > 0
        return Summary(
            run=self._run,
            reason="out of time" if finished.reason == "interrupted" else finished.reason,
            rounds=finished.round,
            loss=self._last.loss if self._last else None,
            best_loss=self._progress.best_loss if evaluated else None,
            best_round=self._progress.best_round,
            monitor=self._progress.monitor,
            best_value=self._progress.best,
            steps_per_second=self._steps / self._seconds if self._seconds else 0.0,
            seconds=self._seconds,
        )
