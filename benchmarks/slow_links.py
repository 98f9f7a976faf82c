"""Throughput of two workers on two hosts, on a fast link and on a slow one, by what travels between them and when.

    python -m benchmarks.slow_links [--cell graves_lstm] [--steps 1000] [--repeats 3] [--updates 400]

From the checkout's folder, as root on Linux: the hosts are network namespaces of this machine, their cables are shaped
with tc (tests/cluster/bed.py; `make check-cluster` installs the programs for it). The configuration is the book's: 2
layers of 200, minibatches of 8 sequences of 1,000 steps in segments of 50, so that 5 minibatches are 100 updates. An
average every 1, 5 or 20 minibatches, whose parameters travel in float32, bfloat16 or int8, waited for or while the next
minibatch is learned, stands beside shared gradients and no communication at all. `--steps 50` averages every 1, 5 or 20
updates.

On each link a repeat measures each way once, in turn (some minutes on the slow one); the medians are printed, and the
medians of the ratios to no communication in the same repeat. Where the link has a delay, a program that delays the
packets shares the machine's cores with the workers.
"""

import argparse
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist

from benchmarks.averaging import ALONE, GRADIENTS, NUM_WORKERS, Way, measure_in_turn, print_table
from tests.cluster.bed import FAST, SLOW, Bed

ROOT = Path(__file__).resolve().parent.parent
LINKS = {"1 Gbit/s": FAST, "100 Mbit/s, 20 ms there and back": SLOW}
PORT = 29512
#: for all that is measured on one link
LIMIT_SECONDS = 4 * 3600


def main() -> None:
    """The command line; with --rank it is one of the workers, on its host."""
    options = _options()
    if options.rank is not None:
        work(options)
        return
    print(f"{options.cell}, {NUM_WORKERS} workers of one thread on hosts of their own, medians of {options.repeats}")
    with Bed(with_rayrnn=True) as bed:
        for name, link in LINKS.items():
            bed.shape(link)
            print(f"\n{name}")
            print_table(measure_on(bed, options))


def measure_on(bed: Bed, options: argparse.Namespace) -> dict[str, list[float]]:
    """Start a worker on each of the first hosts; what the first one found out."""
    hosts = bed.hosts[:NUM_WORKERS]
    settings = [f"--{name}={getattr(options, name)}" for name in ("cell", "steps", "repeats", "updates")]
    # by the interface: the host's name may lead to the loopback
    variables = {"GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1"}
    workers = [
        host.popen(
            *("python3", "-m", "benchmarks.slow_links", f"--rank={rank}", f"--first={hosts[0].address}", *settings),
            folder=str(ROOT),
            environment=variables,
            stdout=subprocess.PIPE,
        )
        for rank, host in enumerate(hosts)
    ]
    said = [worker.communicate(timeout=LIMIT_SECONDS)[0] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers), "a worker failed; its words are above"
    speeds: dict[str, list[float]] = json.loads(said[0])
    return speeds


def ways(steps: int) -> list[Way]:
    """What is measured, with so many steps in a minibatch."""
    return [
        replace(ALONE, steps=steps),
        replace(GRADIENTS, steps=steps),
        Way("average every 5, float32", steps=steps),
        Way("average every 5, bfloat16", steps=steps, wire="bfloat16"),
        Way("average every 5, int8", steps=steps, wire="int8"),
        Way("average every 5, float32, overlap 1", steps=steps, overlap=1),
        Way("average every 1, float32", steps=steps, frequency=1),
        Way("average every 1, float32, overlap 1", steps=steps, frequency=1, overlap=1),
        Way("average every 1, int8, overlap 1", steps=steps, frequency=1, wire="int8", overlap=1),
        Way("average every 20, float32", steps=steps, frequency=20),
    ]


def work(options: argparse.Namespace) -> None:
    """One worker; the first says what all of them measured."""
    rendezvous = f"tcp://{options.first}:{PORT}"
    dist.init_process_group("gloo", init_method=rendezvous, rank=options.rank, world_size=NUM_WORKERS)
    chosen = ways(options.steps)
    speeds = measure_in_turn(chosen, cell=options.cell, repeats=options.repeats, updates=options.updates)
    if options.rank == 0:
        print(json.dumps(speeds))
    dist.destroy_process_group()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", default="graves_lstm", choices=["rnn", "lstm", "gru", "graves_lstm"])
    parser.add_argument("--steps", type=int, default=1000, help="of a minibatch; a multiple of 50")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--updates", type=int, default=400, help="in each measurement, but a round at least")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--first", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
