"""Throughput of two workers that average, against two that never communicate and two that share every gradient.

    python benchmarks/averaging.py [--cell lstm] [--repeats 7]

All three ways learn the same minibatches with rayrnn's own loop, two processes of one thread each, in one run: a
repeat measures each way once, in turn, and the medians and the ratios of the pairs are printed. The network is the
book's: 2 layers of 200, 80 symbols, 8 sequences a minibatch, segments of 50 steps.
"""

import argparse
import functools
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from rayrnn.averaging.averager import Averager
from rayrnn.averaging.compression import Wire
from rayrnn.data.batches import Minibatch
from rayrnn.models.network import Network
from rayrnn.tasks.language_model import LanguageModel
from rayrnn.training.loop import LearningSettings, learn_alone

NUM_SYMBOLS, HIDDEN_SIZE, NUM_LAYERS, BATCH_SIZE, SEGMENT = 80, 200, 2, 8, 50
NUM_WORKERS = 2


@dataclass(frozen=True)
class Way:
    """How the workers learn together."""

    name: str
    #: steps of a minibatch
    steps: int = SEGMENT
    #: minibatches a round
    frequency: int = 5
    averages: bool = True
    wire: Wire = "float32"
    shares_gradients: bool = False
    #: minibatches of the next round that are learned while the average travels
    overlap: int = 0


ALONE = Way("no communication", averages=False)
GRADIENTS = Way("gradients every update", averages=False, shares_gradients=True)
WAYS = [ALONE, Way("average every 5 updates"), Way("average every 5 minibatches of 1000", steps=1000), GRADIENTS]


class FixedGroup:
    """The members of torch.distributed's process group; like rayrnn's own they vote after each exchange."""

    rank = property(lambda self: dist.get_rank())
    size = property(lambda self: dist.get_world_size())

    def open_round(self) -> None:
        """The members never change."""

    def sum(self, flat: torch.Tensor) -> bool:
        dist.all_reduce(flat)
        self._vote()
        return True

    def gather(self, own: torch.Tensor) -> list[torch.Tensor]:
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own)
        self._vote()
        return parts

    def _vote(self) -> None:
        dist.all_reduce(torch.zeros(1))


class SharedGradients(torch.nn.Module):
    """The network under DistributedDataParallel, called the way `learn_alone` calls a network."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.parallel = torch.nn.parallel.DistributedDataParallel(network)

    def forward(self, inputs, state=None, mask=None):  # type: ignore[no-untyped-def]
        return self.parallel(inputs, state, mask)


def minibatches(steps: int, seed: int) -> Iterator[Minibatch]:
    """An endless stream of random symbols, prepared before the clock runs."""
    random = torch.Generator().manual_seed(seed)
    text = torch.randint(NUM_SYMBOLS, (4, BATCH_SIZE, steps + 1), generator=random)
    mask = torch.ones(BATCH_SIZE, steps, dtype=torch.bool)
    keys = ("",) * BATCH_SIZE
    return cycle([Minibatch(rows[:, :-1], rows[:, 1:], mask, mask, keys) for rows in text])


def measure_in_turn(ways: Sequence[Way], *, cell: str, repeats: int, updates: int) -> dict[str, list[float]]:
    """Steps a second over all workers: way -> one number a repeat. Every worker calls this at the same time."""
    torch.set_num_threads(1)
    speeds: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(repeats):
        for way in ways:
            speed = torch.tensor(measure(way, cell, updates))
            dist.all_reduce(speed)
            speeds[way.name].append(speed.item())
    return speeds


def measure(way: Way, cell: str, updates: int) -> float:
    """Steps a second of this worker, over about so many updates."""
    torch.manual_seed(0)
    network = Network(
        num_inputs=NUM_SYMBOLS,
        num_outputs=NUM_SYMBOLS,
        symbols=True,
        cell=cell,
        hidden_size=HIDDEN_SIZE,
        num_layers=NUM_LAYERS,
    )
    model = SharedGradients(network) if way.shares_gradients else network
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, alpha=0.95)
    averager = Averager(model, optimizer, wire=way.wire)
    settings = LearningSettings(SEGMENT, 5.0, "norm")
    learn = functools.partial(learn_alone, model, optimizer, task=LanguageModel(), settings=settings)
    stream, group = minibatches(way.steps, dist.get_rank()), FixedGroup()
    rounds = max(1, updates // (way.frequency * way.steps // SEGMENT))
    learned = 0
    for number in range(rounds + 1):
        if number == 1:  # the first round warms up
            dist.barrier()
            started, learned = time.perf_counter(), 0
        share = islice(stream, way.frequency)
        if way.overlap and number > 1:
            ahead = learn(islice(share, way.overlap))
            averager.receive()
            work = ahead.and_then(learn(share))
        else:
            work = learn(share)
        learned += work.steps
        if way.overlap and 0 < number < rounds:
            averager.send(group, weight=work.steps, notes=[1.0] * 13)
        elif way.averages:
            averager.average(group, weight=work.steps, notes=[1.0] * 13)
    averager.close()
    return learned / (time.perf_counter() - started)


def print_table(speeds: Mapping[str, Sequence[float]]) -> None:
    """Medians, and the medians of each repeat's ratio to no communication."""
    for name, values in speeds.items():
        ratios = [value / alone for value, alone in zip(values, speeds[ALONE.name], strict=True)]
        print(f"{name:<38} {statistics.median(values):>9,.0f} steps/s  {statistics.median(ratios):6.1%}")


def work(rank: int, arguments: argparse.Namespace) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(arguments.port))
    dist.init_process_group("gloo", rank=rank, world_size=NUM_WORKERS)
    speeds = measure_in_turn(WAYS, cell=arguments.cell, repeats=arguments.repeats, updates=arguments.updates)
    if rank == 0:
        print(f"{arguments.cell}, {NUM_WORKERS} workers of one thread, medians of {arguments.repeats}")
        print_table(speeds)
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", default="lstm", choices=["rnn", "lstm", "gru", "graves_lstm"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--port", type=int, default=29511)
    mp.spawn(work, args=(parser.parse_args(),), nprocs=NUM_WORKERS)  # type: ignore[attr-defined, no-untyped-call]


if __name__ == "__main__":
    main()
