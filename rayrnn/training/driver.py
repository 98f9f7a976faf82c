"""From a recipe to a trained run: source -> sequences -> workers -> run directory."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import ray
import ray.data
import torch
from ray.actor import ActorHandle
from ray.exceptions import RayError
from rich.console import Console

from rayrnn.cluster import connect
from rayrnn.cluster.status import Heartbeat
from rayrnn.data.prepare import Prepared, prepare
from rayrnn.errors import RayrnnError, RunError
from rayrnn.recipe import Recipe
from rayrnn.runs.checkpoints import newest_checkpoint
from rayrnn.runs.copies import landed
from rayrnn.runs.directory import Run, build_network
from rayrnn.training.coordinator import Event, open_mailbox, start_roll
from rayrnn.training.failures import Strikes, broken, headless, interrupted, unexpected, without_a_word
from rayrnn.training.messages import Assignment, Progress
from rayrnn.training.placement import check_room, count_workers, find_need
from rayrnn.training.recorder import Recorder
from rayrnn.training.screen import Screen, Talk
from rayrnn.training.summary import Outcome, draw_up
from rayrnn.training.worker_pool import start_crew

#: for an answer. A roll that is starting again answers later; one whose node is gone never does, and Ray ends a driver
#: that has lost its node about ten seconds later
WAIT_SECONDS = 2.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)
POLL_SECONDS = 0.1
#: for Ray's head to answer; Ray ends a process whose head has been silent for a minute
HEAD_SECONDS = 20.0
#: for Ray Train to let go of the workers, before they are ended with it
CLOSING_SECONDS = 10.0


class Attendance:
    """The driver's view of the roll."""

    def __init__(self, roll: ActorHandle) -> None:
        self._roll = roll
        self._asked: dict[str, ray.ObjectRef] = {}

    def events(self) -> list[Event]:
        """What has happened since the last call, oldest first."""
        return self._answer("collect") or []

    def members(self) -> list[int] | None:
        """The numbers of the workers that take part; None when the roll does not answer now."""
        answer: list[int] | None = self._answer("members")
        return answer

    def _answer(self, question: str) -> Any:
        """None while there is none; it is waited for again the next time, and not lost."""
        if question not in self._asked:
            self._asked[question] = getattr(self._roll, question).remote()
        if not ray.wait([self._asked[question]], timeout=WAIT_SECONDS)[0]:
            return None
        return ray.get(self._asked.pop(question))


@contextmanager
def stop_requests(request: Callable[[], None]) -> Iterator[None]:
    """Call `request` at the first SIGINT or SIGTERM; the second raises KeyboardInterrupt.

    Only the main thread gets signals: elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        request()

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train(
    recipe: Recipe,
    *,
    data: ray.data.Dataset | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    address: str | None = None,
    console: Console | None = None,
    screen: Talk | None = None,
    on_written: Callable[[], None] | None = None,
) -> Outcome:
    """Train `recipe` on a Ray cluster and leave everything in a run directory.

    Args:
        data: sequences in the row schema (see rayrnn/data/sequences.py) instead of the recipe's source.
        out: the run directory, here or in a store (s3://, gs://, hdfs://); without it runs/<name of the recipe>.
        resume: go on from the newest complete checkpoint in `out`.
        address: the Ray cluster; without it the one `rayrnn up` started, or a local one for this run.
        screen: takes what the run says, instead of a screen on `console`.
        on_written: called whenever a file of the run is there anew.

    Raises:
        UsageError: `out` holds a run (without resume), another process trains it, or `resume` does not fit the
            stored recipe.
        DataError: the data cannot be read.
        ClusterError: no cluster, or one too small for the workers.
        RunError: a worker failed, or the loss stopped being finite.
        Interrupted: the user stopped the run; a checkpoint is written.
    """
    screen = screen or Screen(console or Console(stderr=True), recipe)
    out = out if out is not None else Path("runs") / recipe.name
    with landed(out, recipe, resume=resume, warn=screen.warn) as run, connect(address, log_file=run.log):
        if on_written is not None:
            run.tell(on_written)
        check_room(recipe.averaging)
        screen.say("reading the data ...")
        outcome = Driver(run, recipe, prepare(recipe, data, encoding=run.stored_encoding), screen).train(resume=resume)
    screen.finish(outcome, run.metrics())
    return outcome


class Driver:
    """One run's way from sequences in the object store to its end."""

    def __init__(self, run: Run, recipe: Recipe, material: Prepared, screen: Talk) -> None:
        self._run = run
        self._recipe = recipe
        self._material = material
        self._screen = screen
        self._recorder = Recorder(run, screen.warn)
        self._mailbox = open_mailbox()
        self._num_workers = count_workers(recipe.averaging)
        self._roll = start_roll(expected=self._num_workers, patience=recipe.averaging.patience)
        self._attendance = Attendance(self._roll)
        self._heartbeat = Heartbeat(
            run.name, rounds=recipe.averaging.rounds, workers=recipe.averaging.most, warn=screen.warn
        )
        self._progress = Progress()
        self._end: Event = {}
        #: kind of event -> the newest edition of a round that was told of
        self._editions: dict[str, int] = {}
        self._last: Event = {}
        self._failure: RayrnnError | None = None
        #: Ray itself failed under the run
        self._lost: RayError | None = None
        self._strikes = Strikes(self._num_workers)
        self._steps = 0
        self._seconds = 0.0

    def train(self, *, resume: bool) -> Outcome:
        """Start the workers, follow them to the end, and say how it went."""
        self._restore(resume=resume)
        self._run.write_recipe(self._recipe)
        self._run.write_encoding(self._material.encoding)
        self._say_header()
        try:
            with stop_requests(self._request_stop):
                self._follow(self._start_crew())
        finally:
            self._screen.stop()
            self._recorder.close()
            self._heartbeat.end()
        return self._conclude()

    def _restore(self, *, resume: bool) -> None:
        checkpoint, damages = newest_checkpoint(self._run.checkpoints)
        for damage in damages:
            self._screen.warn(f"{damage}; going on from the one before")
        if checkpoint is None:
            if resume:
                self._screen.say("there is no checkpoint to go on from: beginning with round 1")
            self._run.cut_metrics(0)
            return
        self._progress = Progress.from_json(checkpoint.progress)
        self._run.cut_metrics(self._progress.round)
        ray.get(self._mailbox.keep_checkpoint.remote(checkpoint))
        self._screen.say(f"going on after round {self._progress.round:,}")

    def _say_header(self) -> None:
        torch.manual_seed(self._recipe.seed)
        network = build_network(self._recipe, self._material.encoding)
        account = draw_up(self._recipe, network, self._material, num_workers=self._num_workers)
        self._screen.header(
            account, data=self._material.name, encoding=self._material.encoding.describe(), run=self._run.name
        )
        if skipped := self._material.skipped:
            listed = self._run.write_skipped(skipped)
            self._screen.warn(f"{len(skipped):,} sequences could not be read and are left out; {listed} says why")

    def _start_crew(self) -> ActorHandle:
        self._screen.say("starting the workers ...")
        assignment = Assignment(
            recipe=self._recipe,
            encoding=self._material.encoding,
            training=self._material.training,
            held_out=self._material.held_out,
            mailbox=self._mailbox,
            roll=self._roll,
        )
        settings = {name: value for name, value in os.environ.items() if name.startswith("RAY_TRAIN_")}
        need = find_need(self._recipe.averaging)
        return start_crew(assignment, need=need, begin_with=self._num_workers, settings=settings)

    def _follow(self, crew: ActorHandle) -> None:
        """Handle what the workers say until they have ended."""
        try:
            while self._running(crew):
                self._listen()
                time.sleep(POLL_SECONDS)
            self._listen()
            ray.get(crew.close.remote(), timeout=CLOSING_SECONDS)
        except RayError as error:
            self._lost = error
            self._recorder.log(f"{type(error).__name__}: {error}\n")
        finally:
            ray.kill(crew)

    def _running(self, crew: ActorHandle) -> bool:
        """Whether a worker has something left to do; Ray Train itself may take seconds to notice that none has."""
        if (self._end or self._failure) and self._attendance.members() == []:
            return False
        return bool(ray.get(crew.running.remote()))

    def _listen(self) -> None:
        self._take_attendance()
        for event in ray.get(self._mailbox.collect.remote()):
            if self._is_news(event):
                self._handle(event)
        self._write_checkpoints()
        if self._heartbeat.is_due():
            learned = self._last.get("round", self._progress.round)
            self._heartbeat.beat(learned, self._attendance.members() or [])
        if self._heartbeat.unanswered_seconds > HEAD_SECONDS:
            self._give_up(headless(HEAD_SECONDS))

    def _is_news(self, event: Event) -> bool:
        """Two workers tell of every round, in case one of them dies."""
        kind, edition = event["kind"], event.get("edition")
        if edition is None or kind == "checkpoint":
            return True
        before, self._editions[kind] = self._editions.get(kind, 0), max(edition, self._editions.get(kind, 0))
        return bool(edition > before)

    def _take_attendance(self) -> None:
        """Deaths, absences and returns: one line each, on the screen and in metrics.jsonl."""
        for event in self._attendance.events():
            self._recorder.take_attendance(event)
            self._screen.attendance(event)

    def _handle(self, event: Event) -> None:
        kind = event["kind"]
        if kind == "start":
            self._screen.start(self._progress.round)
        elif kind == "round":
            self._take_round(event)
        elif kind == "evaluation":
            self._progress = self._progress.after_evaluation(event["round"], event["held_out_loss"])
            self._recorder.take_evaluation(event)
            self._screen.evaluation(event)
        elif kind == "checkpoint":
            self._recorder.take_checkpoint_part(event)
        elif kind == "mistake":
            self._give_up(event["error"])
        elif kind == "exception":
            self._take_exception(event)
        elif kind == "restart":
            self._take_restart(event)
        elif kind == "no room":
            self._screen.warn(f"worker {event['worker']} waits: no host has room for it; `rayrnn status` says why")
        else:
            self._end |= event

    def _take_round(self, event: Event) -> None:
        self._last = event
        self._strikes.forget()
        self._steps += event["steps"]
        self._seconds += event["seconds"]
        self._recorder.take_round(event)
        self._screen.round(event)

    def _write_checkpoints(self) -> None:
        try:
            while checkpoint := self._recorder.write_checkpoint():
                self._mailbox.keep_checkpoint.remote(checkpoint)
        except RunError as error:
            self._give_up(error)

    def _take_exception(self, event: Event) -> None:
        """Ray Train replaces the worker; what fails every time is no accident."""
        self._recorder.log(event["traceback"])
        self._screen.warn(f"worker {event['worker']} failed: {event['error']}")
        self._count(event)

    def _take_restart(self, event: Event) -> None:
        """A worker's process ended, or did not start; the roll tells of deaths, this counts those in vain."""
        self._recorder.log(f"worker {event['worker']} starts again: {event['error']}\n")
        self._count(event)

    def _count(self, event: Event) -> None:
        if times := self._strikes.too_many(event["kind"]):
            self._give_up(unexpected(event | {"times": times}, self._run))

    def _give_up(self, failure: RayrnnError) -> None:
        if self._failure is None:
            self._failure = failure
            self._mailbox.request_stop.remote()

    def _request_stop(self) -> None:
        self._screen.warn("finishing the round, then a checkpoint; Ctrl-C again stops at once")
        self._mailbox.request_stop.remote()

    def _conclude(self) -> Outcome:
        if self._failure is not None:
            raise self._failure
        self._recorder.write_model(self._end.get("model", {}))
        reason = self._end.get("reason")
        if reason is None:
            raise without_a_word(self._lost, self._run)
        if reason == "broken":
            raise broken(self._last, self._recipe, self._run)
        if reason == "interrupted":
            raise interrupted(self._end["round"], self._run)
        best = self._progress.best_loss
        return Outcome(
            run=self._run,
            reason=reason,
            rounds=self._end["round"],
            loss=self._last.get("loss"),
            best_loss=None if best == float("inf") else best,
            best_round=self._progress.best_round,
            steps_per_second=self._steps / self._seconds if self._seconds else 0.0,
            seconds=self._seconds,
        )
