"""From a recipe to a trained run: source -> sequences -> workers -> run directory."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from rich.console import Console

from rayrnn.cluster import connect
from rayrnn.data.prepare import prepare
from rayrnn.recipe import Recipe
from rayrnn.recipe.sources import OWN
from rayrnn.runs.beginning import begin_from
from rayrnn.runs.checkpoints import newest_round
from rayrnn.runs.copies import landed
from rayrnn.runs.kept_recipe import check_trust
from rayrnn.runs.model import check_encoding, check_network, find_network, with_network
from rayrnn.runs.same_data import RESUME_ADVICE, check_data, check_origin, versions_of
from rayrnn.training.channel import Inbox
from rayrnn.training.coordinator import start_coordinator
from rayrnn.training.driver_loop import Driver
from rayrnn.training.failures import (
    accidents_told,
)
from rayrnn.training.live_page import LivePage
from rayrnn.training.notebook import screen_of
from rayrnn.training.placement import check_room, count_workers, find_need, most_workers
from rayrnn.training.screen import Reporter
from rayrnn.training.summary import Summary
from rayrnn.training.tracking import tracked
from rayrnn.training.worker_pool import WorkerPool


def train(
    recipe: Recipe,
    *,
    data: Any = None,
    out: str | Path | None = None,
    resume: bool = False,
    address: str | None = None,
    console: Console | None = None,
    screen: Reporter | None = None,
    on_written: Callable[[], None] | None = None,
    network: Callable[..., object] | None = None,
    trust: bool = False,
    take_over: bool = False,
    report: bool = False,
) -> Summary:
    """Train `recipe` on a Ray cluster and leave everything in a run directory.

    Args:
        data: what is learned instead of the recipe's source: a dataset in the row schema (`rayrnn.sequences`), or a
            data frame, an Arrow table or a list (see rayrnn/data/sources/given.py).
        out: the run directory, here or in a store (s3://, gs://, hdfs://); without it runs/<name of the recipe>.
        resume: go on from the newest complete checkpoint in `out`.
        address: the Ray cluster; without it the one `rayrnn up` started, or a local one for this run.
        screen: takes what the run says, instead of a screen on `console`.
        on_written: called whenever a file of the run is there anew.
        network: a network of your own (see rayrnn/models/contract.py) in the place of the recipe's: a class of
            torch.nn.Module, or a function that makes one, defined at the top of a module. `model.options` are for it.
        trust: with `resume`: the code that the run names and that is not rayrnn's may be imported and run.
        take_over: with `resume`, in a store: go on also where another machine trains the run; that one stops.
        report: keep a page fresh, report.html in the run directory.

    Raises:
        UsageError: `out` holds a run (without resume), another process or machine trains it, or `resume` does not fit
            the stored recipe.
        RecipeError: the network is not there, does not keep the contract, or is other than `start_from`'s.
        DataError: the data cannot be read.
        ClusterError: no cluster, or one too small for the workers.
        RunError: a worker failed, or the loss stopped being finite.
        Interrupted: the user stopped the run; a checkpoint is written.
    """
    recipe = recipe if network is None else with_network(recipe, network)
    screen = screen or screen_of(recipe, console)
    out = out if out is not None else Path("runs") / recipe.name
    check_trust(recipe, trusted=trust or network is not None or not resume, where=str(out))
    with (
        landed(out, recipe, resume=resume, warn=screen.warn, take_over=take_over) as run,
        accidents_told(run, screen.warn),
    ):
        run.trusted = True  # its code is the one that this recipe names
        screen = LivePage(run, recipe, screen) if report else screen
        if on_written is not None:
            run.tell(on_written)
        own = find_network(recipe)
        with (
            tracked(recipe, run, screen.warn) as tracking,
            connect(address, log_file=run.log, say=screen.say, code=recipe.named_code),
            ExitStack() as afterwards,  # when the workers are gone
            _staff(recipe) as (num_workers, inbox, pool),
        ):
            if data is None and recipe.data.source in OWN:  # others may start processes of their own on the cluster
                pool.start_early(num_workers)
            if resume:
                check_origin(run, handed_over=data is not None, advice=RESUME_ADVICE)
            screen.say("reading the data ...")
            if (encoding := run.stored_encoding) is not None:
                check_encoding(recipe, encoding, where=run.path)
            begins = not resume or newest_round(run.checkpoints) < 0
            prepared = prepare(recipe, data, encoding=encoding, begins=begins, versions=versions_of(run))
            for part in (prepared.training, prepared.held_out):
                afterwards.callback(part.sequences.fetched.close)
            if resume:
                for note in check_data(run, prepared, advice=RESUME_ADVICE):
                    screen.warn(note)
            check_network(recipe, prepared.encoding, own)
            beginning = None
            if begins and recipe.training.start_from is not None:
                beginning = begin_from(recipe, prepared.encoding, own, prepared.vectors)
            driver = Driver(
                run,
                recipe,
                prepared,
                screen,
                inbox=inbox,
                pool=pool,
                own=own,
                beginning=beginning,
                tracking=tracking,
            )
            summary = driver.train(num_workers, resume=resume)
    screen.finish(summary, run.metrics())
    return summary


@contextmanager
def _staff(recipe: Recipe) -> Iterator[tuple[int, Inbox, WorkerPool]]:
    """How many workers a run begins with, its coordinator and the workers; they end with it.

    Raises:
        ClusterError: the cluster has no room for them.
    """
    averaging = recipe.averaging
    check_room(averaging)
    num_workers = count_workers(averaging)
    coordinator = start_coordinator(expected=num_workers, patience=averaging.patience)
    inbox = Inbox(coordinator)
    try:
        with WorkerPool(
            coordinator, find_need(averaging), most=most_workers(averaging, num_workers), tell=inbox.put
        ) as pool:
            yield num_workers, inbox, pool
    finally:
        with suppress(RayError):
            ray.kill(coordinator)
