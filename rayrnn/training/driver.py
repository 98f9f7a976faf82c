"""From a recipe to a trained run: source -> sequences -> TorchTrainer -> run directory."""

import time
from pathlib import Path
from threading import Thread

import ray
import ray.data
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from rich.console import Console

from rayrnn.checkpoints import newest_checkpoint
from rayrnn.cluster import connect
from rayrnn.errors import ClusterError, Interrupted, RayrnnError, RunError, UsageError
from rayrnn.recipe import Recipe
from rayrnn.run import RECIPE, Run, build_network, create_run, open_run
from rayrnn.training.account import draw_up
from rayrnn.training.assignment import Assignment, Progress
from rayrnn.training.interrupt import stop_requests
from rayrnn.training.mailbox import Event, open_mailbox
from rayrnn.training.material import Material, prepare
from rayrnn.training.outcome import Outcome
from rayrnn.training.progress import Screen
from rayrnn.training.recorder import Recorder
from rayrnn.training.worker import train_worker

#: the sections of a recipe that a resumed run cannot change
FIXED = ("task", "data", "model", "seed")
POLL_SECONDS = 0.1


def train(
    recipe: Recipe,
    *,
    data: ray.data.Dataset | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    address: str | None = None,
    console: Console | None = None,
) -> Outcome:
    """Train `recipe` on a Ray cluster and leave everything in a run directory.

    Args:
        data: sequences in the row schema (see rayrnn/data/sequences.py) instead of the recipe's source.
        out: the run directory; without it runs/<name of the recipe>.
        resume: go on from the newest complete checkpoint in `out`.
        address: the Ray cluster; without it the one `rayrnn up` started, or a local one for this run.

    Raises:
        UsageError: `out` holds a run (without resume), or `resume` does not fit the stored recipe.
        DataError: the data cannot be read.
        ClusterError: no cluster, or one too small for the workers.
        RunError: a worker failed, or the loss stopped being finite.
        Interrupted: the user stopped the run; a checkpoint is written.
    """
    screen = Screen(console or Console(stderr=True), recipe)
    path = Path(out) if out is not None else Path("runs") / recipe.name
    run = _resumable(path, recipe) if resume and (path / RECIPE).exists() else create_run(path)
    with connect(address, log_file=run.log):
        check_cpus(recipe)
        screen.say("reading the data ...")
        outcome = Driver(run, recipe, prepare(recipe, data, run), screen).train()
    screen.finish(outcome, run.metrics())
    return outcome


def check_cpus(recipe: Recipe) -> None:
    """Refuse workers that can never start.

    Raises:
        ClusterError: the cluster has fewer CPUs than the workers ask for; says the sum.
    """
    averaging = recipe.averaging
    there = int(ray.cluster_resources().get("CPU", 0))
    needed = averaging.workers * averaging.cpus_per_worker
    if needed > there:
        raise ClusterError(
            f"{averaging.workers} workers with {averaging.cpus_per_worker} CPU each need {needed} CPUs, the cluster "
            f"has {there}: set averaging.workers to {there // averaging.cpus_per_worker} or fewer, or add nodes"
        )


class Driver:
    """One run's way from sequences in the object store to its end."""

    def __init__(self, run: Run, recipe: Recipe, material: Material, screen: Screen) -> None:
        self._run = run
        self._recipe = recipe
        self._material = material
        self._screen = screen
        self._recorder = Recorder(run)
        self._mailbox = open_mailbox()
        self._progress = Progress()
        self._end: Event = {}
        self._last: Event = {}
        self._steps = 0
        self._seconds = 0.0
        self._failure: BaseException = RunError("Ray Train ended without a word")

    def train(self) -> Outcome:
        """Start the workers, follow them to the end, and say how it went."""
        self._restore()
        self._run.write_recipe(self._recipe)
        self._run.write_encoding(self._material.encoding)
        self._say_header()
        try:
            with stop_requests(self._request_stop):
                self._follow(self._start())
        finally:
            self._screen.stop()
            self._recorder.close()
        return self._conclude()

    def _restore(self) -> None:
        checkpoint, damages = newest_checkpoint(self._run.checkpoints)
        for damage in damages:
            self._screen.warn(f"{damage}; going on from the one before")
        if checkpoint is None:
            self._run.cut_metrics(0)
            return
        self._progress = Progress.from_json(checkpoint.progress)
        self._run.cut_metrics(self._progress.round)
        ray.get(self._mailbox.keep_checkpoint.remote(checkpoint))
        self._screen.say(f"going on after round {self._progress.round:,}")

    def _say_header(self) -> None:
        torch.manual_seed(self._recipe.seed)
        network = build_network(self._recipe, self._material.encoding)
        account = draw_up(self._recipe, network, self._material)
        self._screen.header(
            account, data=self._material.name, encoding=self._material.encoding.describe(), run=str(self._run.path)
        )

    def _start(self) -> Thread:
        """Run Ray Train in a thread of its own: this one listens to the workers and to the user."""
        averaging = self._recipe.averaging
        use_gpu = ray.cluster_resources().get("GPU", 0) >= averaging.workers
        assignment = Assignment(
            recipe=self._recipe,
            encoding=self._material.encoding,
            training=self._material.training,
            held_out=self._material.held_out,
            mailbox=self._mailbox,
        )
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"assignment": assignment},
            torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=averaging.workers,
                use_gpu=use_gpu,
                resources_per_worker={"CPU": averaging.cpus_per_worker} | ({"GPU": 1} if use_gpu else {}),
            ),
            run_config=RunConfig(
                name="ray-train",
                storage_path=str(self._run.path.absolute()),
                failure_config=FailureConfig(max_failures=0),
            ),
        )
        thread = Thread(target=self._fit, args=(trainer,), name="ray-train", daemon=True)
        thread.start()
        return thread

    def _fit(self, trainer: TorchTrainer) -> None:
        try:
            trainer.fit()
        except Exception as error:  # whatever it was, the listening thread decides what to say of it
            self._failure = error

    def _follow(self, thread: Thread) -> None:
        """Handle the workers' events until Ray Train has ended."""
        self._screen.say("starting the workers ...")
        while True:
            alive = thread.is_alive()
            for event in ray.get(self._mailbox.collect.remote()):
                self._handle(event)
            if not alive:
                return
            time.sleep(POLL_SECONDS)

    def _handle(self, event: Event) -> None:
        kind = event["kind"]
        if kind == "start":
            self._screen.start(self._progress.round)
        elif kind == "round":
            self._last = event
            self._steps += event["steps"]
            self._seconds += event["seconds"]
            self._recorder.take_round(event)
            self._screen.round(event)
        elif kind == "evaluation":
            self._progress = self._progress.after_evaluation(event["round"], event["held_out_loss"])
            self._recorder.take_evaluation(event)
            self._screen.evaluation(event)
        elif kind == "checkpoint":
            self._write_checkpoint(event)
        else:
            self._end = event

    def _write_checkpoint(self, event: Event) -> None:
        try:
            checkpoint = self._recorder.take_checkpoint_part(event)
        except OSError as error:
            self._screen.warn(
                f"round {event['round']}: the checkpoint could not be written ({error}); training goes on"
            )
            return
        if checkpoint is not None:
            self._mailbox.keep_checkpoint.remote(checkpoint)

    def _request_stop(self) -> None:
        self._screen.warn("finishing the round, then a checkpoint; Ctrl-C again stops at once")
        self._mailbox.request_stop.remote()

    def _conclude(self) -> Outcome:
        if "model" in self._end:
            self._run.write_model(self._end["model"])
        reason = self._end.get("reason")
        if reason is None:
            raise self._explained_failure()
        if reason == "broken":
            raise self._broken()
        if reason == "interrupted":
            raise Interrupted(
                f"stopped after round {self._end['round']:,}; the checkpoint is in {self._run.checkpoints}\n"
                f"go on with: rayrnn train {self._run.path / RECIPE} --out {self._run.path} --resume"
            )
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

    def _broken(self) -> RunError:
        end = self._end
        return RunError(
            f"the loss of worker {end['worker']} is not finite: round {end['round']:,}, update {end['update']:,} of "
            f"the round; the run stopped. Lower training.learning_rate (now {self._recipe.training.learning_rate:g}) "
            f"or training.clip (now {self._recipe.training.clip:g}); the last good checkpoint is kept in "
            f"{self._run.checkpoints}"
        )

    def _explained_failure(self) -> RayrnnError:
        """The first error under whatever Ray Train wrapped it in."""
        failures = getattr(self._failure, "worker_failures", None) or {0: self._failure}
        rank, error = next(iter(failures.items()))
        while isinstance(cause := getattr(error, "cause", None) or error.__cause__, Exception):
            error = cause
        if isinstance(error, RayrnnError):
            return error
        return RunError(
            f"worker {rank} failed: {type(error).__name__}: {error}\nmore is in {self._run.log}; go on from the last "
            f"checkpoint with --resume"
        )


def _resumable(path: Path, recipe: Recipe) -> Run:
    """The run at `path`, if `recipe` may go on with it."""
    run = open_run(path)
    stored = run.recipe
    changed = [section for section in FIXED if getattr(stored, section) != getattr(recipe, section)]
    if changed:
        raise UsageError(
            f"{path} was trained with another recipe: {', '.join(changed)} differ; resume it with its own, "
            f"{path / RECIPE}, or choose another --out"
        )
    return run
