"""What a killed and a hung worker cost: rayrnn, Ray Train with DDP, torchrun with DDP.

    python benchmarks/recovery.py [--systems rayrnn ray-train torchrun] [--repeats 3] [--limit 60]

Two workers learn characters with 2 layers of 200, 8 sequences in segments of 50 steps; after a while one of them gets
SIGKILL, or SIGSTOP. Each system runs as its users run it, restarts allowed: rayrnn averages every minibatch of 1,000
steps; the other two share every gradient and write a checkpoint every 100 updates. rayrnn's patience is 10 seconds here
(30 without a word); the others have gloo's time limit of 30 minutes, and Ray Train looks whether its workers live.

Measured from the signal, as medians: the seconds until anybody learns again, and until two learn again; the updates
that were thrown away, over both workers; whether the worker that nothing happened to was started anew. A system that
does not go on within --limit seconds is said to stand still, and ended; the medians are those of the other repeats.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ME = Path(__file__).resolve()
SIGNALS = {
    "one of two workers is killed (SIGKILL)": signal.SIGKILL,
    "one of two workers hangs (SIGSTOP)": signal.SIGSTOP,
}
#: both workers learn for so long before the signal
WARM_SECONDS = 8.0
START_SECONDS = 180.0
PATIENCE = 10
BATCH_SIZE, SEGMENT, STEPS, NUM_SYMBOLS = 8, 50, 1000, 80
UPDATES_A_CHECKPOINT = 100
JOURNAL, CHECKPOINT = "journal.jsonl", "checkpoint.pt"


@dataclass(frozen=True)
class Entry:
    """Somebody learned: when (seconds since 1970), how many together, how far, and the process that says so."""

    time: float
    size: int
    updates: int
    process: int


@dataclass(frozen=True)
class Cost:
    """What one signal cost; None: it did not end within the limit."""

    one_learns: float | None
    two_learn: float | None
    updates_lost: int | None
    other_restarted: bool | None


@dataclass(frozen=True)
class System:
    """How one of them is started in a folder, and how its progress and its workers' processes are seen."""

    command: Callable[[Path], list[str]]
    journal: Callable[[Path], list[Entry]]
    workers: Callable[[Path, psutil.Process], list[int]]


def main() -> None:
    """The command line."""
    options = _options()
    for what, number in SIGNALS.items():
        print(what)
        print(f"  {'':10}{'one learns again':>18}{'two learn again':>20}{'updates lost':>14}  the other restarted")
        for name in options.systems:
            costs = [measure(SYSTEMS[name], number, options.limit) for _ in range(options.repeats)]
            print(f"  {name:10}{_row(costs)}", flush=True)


def measure(system: System, number: int, limit: float) -> Cost:
    """Start it, send the signal to one of its workers, and watch what follows."""
    with tempfile.TemporaryDirectory() as place, _started(system.command(Path(place)), Path(place)) as process:
        folder = Path(place)
        _wait(lambda: any(entry.size == 2 for entry in system.journal(folder)), process, START_SECONDS)
        time.sleep(WARM_SECONDS)
        other, victim = sorted(system.workers(folder, process))[-2:]
        before = system.journal(folder)[-1]
        sent = time.time()
        os.kill(victim, number)
        after = _follow(system, folder, sent, before, limit)
        if not after:
            return Cost(None, None, None, None)
        reached = max(entry.updates for entry in system.journal(folder) if entry.process == before.process)
        again = after[0].process != before.process
        return Cost(
            one_learns=after[0].time - sent,
            two_learn=next((entry.time - sent for entry in after if entry.size == 2), None),
            # both go back to the checkpoint, or one loses the round that it was in
            updates_lost=2 * (reached - after[0].updates + 1) if again else STEPS // SEGMENT,
            other_restarted=not psutil.pid_exists(other),
        )


def _follow(system: System, folder: Path, sent: float, before: Entry, limit: float) -> list[Entry]:
    """Who learned after the signal, until two do again: fewer than before, or other processes."""
    while time.time() < sent + limit:
        later = [entry for entry in system.journal(folder) if entry.time > sent]
        first = next((n for n, e in enumerate(later) if e.size < 2 or e.process != before.process), len(later))
        after = later[first:]
        if any(entry.size == 2 for entry in after):
            return after
        time.sleep(0.05)
    return after


@contextmanager
def _started(command: list[str], folder: Path) -> Iterator[psutil.Process]:
    """A program, and an end for all that it started."""
    with (folder / "said.log").open("w") as said:
        environment = os.environ | {"HOME": str(folder), "OMP_NUM_THREADS": "1"}
        program = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
    process = psutil.Process(program.pid)
    try:
        yield process
    finally:
        family = [*process.children(recursive=True), process] if process.is_running() else []
        for member in family:
            if member.is_running():
                member.kill()
        program.wait()
        psutil.wait_procs(family, timeout=10)


def _wait(condition: Callable[[], bool], process: psutil.Process, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE or time.monotonic() > deadline:
            sys.exit(f"it did not start:\n{(Path(process.cwd()) / 'said.log').read_text()[-2000:]}")
        time.sleep(0.1)


def _rayrnn(folder: Path) -> list[str]:
    text = folder / "text.txt"
    text.write_text("".join(path.read_text() for path in sorted(Path(os.__file__).parent.glob("[a-e]*.py"))))
    settings = {
        "data.path": text,
        "model.cell": "lstm",
        "training.evaluate_every": 1_000_000,
        "training.checkpoint_every": UPDATES_A_CHECKPOINT // (STEPS // SEGMENT),
        "averaging.frequency": 1,
        "averaging.rounds": 1_000_000,
        "averaging.patience": PATIENCE,
    }
    chosen = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "rayrnn.cli", "train", "charlm", "--out", str(folder / "run"), *chosen]


def _rounds(folder: Path) -> list[Entry]:
    """The rounds in metrics.jsonl; the file's own time is the newest one's."""
    seen: dict[int, Entry] = _SEEN.setdefault(folder, {})
    metrics = folder / "run" / "metrics.jsonl"
    lines = metrics.read_text().split("\n")[:-1] if metrics.exists() else []
    for values in map(json.loads, lines[len(seen) :]):
        updates = values["round"] * STEPS // SEGMENT
        seen[values["round"]] = Entry(time.time(), len(values["workers"]), updates, process=0)
    return list(seen.values())


_SEEN: dict[Path, dict[int, Entry]] = {}


def _ray_workers(folder: Path, process: psutil.Process) -> list[int]:
    family = process.children(recursive=True)
    return [member.pid for member in family if "RayTrainWorker" in " ".join(member.cmdline())]


def _updates(folder: Path) -> list[Entry]:
    journal = folder / JOURNAL
    lines = journal.read_text().split("\n")[:-1] if journal.exists() else []
    return [Entry(**json.loads(line)) for line in lines]


def _torchrun(folder: Path) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=3"]
    return [*launcher, str(ME), "--learn", str(folder)]


def _torchrun_workers(folder: Path, process: psutil.Process) -> list[int]:
    return [member.pid for member in process.children(recursive=True) if "--learn" in member.cmdline()]


def _ray_train(folder: Path) -> list[str]:
    return [sys.executable, str(ME), "--with-ray-train", str(folder)]


SYSTEMS = {
    "rayrnn": System(_rayrnn, _rounds, _ray_workers),
    "ray-train": System(_ray_train, _updates, _ray_workers),
    "torchrun": System(_torchrun, _updates, _torchrun_workers),
}


def train_with_ray(folder: str) -> None:
    """The same DDP loop under Ray Train, as its guide for torch writes it."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from rayrnn.cluster.environment import prepare_environment
    from rayrnn.cluster.ray_internals import loopback_kept

    prepare_environment()
    with loopback_kept():
        ray.init(address="local", num_cpus=3, include_dashboard=False)
    TorchTrainer(
        lambda config: learn_with_ddp(config["folder"]),
        train_loop_config={"folder": folder},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(storage_path=folder, failure_config=FailureConfig(max_failures=3)),
    ).fit()


def learn_with_ddp(place: str) -> None:
    """Share every gradient, update after update, from the newest checkpoint on; the first worker keeps the journal."""
    import torch
    import torch.distributed as dist

    from rayrnn.models.network import Network

    if not dist.is_initialized():
        dist.init_process_group("gloo")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder, rank, size = Path(place), dist.get_rank(), dist.get_world_size()
    sizes: dict[str, Any] = {"num_inputs": NUM_SYMBOLS, "num_outputs": NUM_SYMBOLS, "hidden_size": 200, "num_layers": 2}
    network = Network(symbols=True, cell="lstm", **sizes)
    optimizer = torch.optim.RMSprop(network.parameters(), lr=1e-3, alpha=0.95)
    updates = 0
    if (folder / CHECKPOINT).exists():
        stored = torch.load(folder / CHECKPOINT, weights_only=True)
        network.load_state_dict(stored["model"])
        optimizer.load_state_dict(stored["optimizer"])
        updates = stored["updates"]
    model = torch.nn.parallel.DistributedDataParallel(network)
    symbols = torch.randint(NUM_SYMBOLS, (BATCH_SIZE, SEGMENT + 1))
    with (folder / JOURNAL).open("a") as journal:
        while True:
            outputs, _ = model(symbols[:, :-1])
            loss = torch.nn.functional.cross_entropy(outputs.flatten(0, 1), symbols[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            updates += 1
            if rank == 0:
                entry = {"time": time.time(), "size": size, "updates": updates, "process": os.getpid()}
                journal.write(json.dumps(entry) + "\n")
                journal.flush()
                if updates % UPDATES_A_CHECKPOINT == 0:
                    state = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "updates": updates}
                    torch.save(state, folder / f"{CHECKPOINT}.new")
                    (folder / f"{CHECKPOINT}.new").replace(folder / CHECKPOINT)


def _row(costs: list[Cost]) -> str:
    """The medians of the repeats in which it went on, and how many others there were."""
    went_on = [cost for cost in costs if cost.one_learns is not None]
    if not went_on:
        return f"{'stands still':>18}"
    one = statistics.median(cost.one_learns or 0.0 for cost in went_on)
    lost = statistics.median(cost.updates_lost or 0 for cost in went_on)
    two = [cost.two_learn for cost in went_on if cost.two_learn is not None]
    again = f"{statistics.median(two):.1f} s" if len(two) == len(went_on) else "not while it hangs"
    restarted = "yes" if any(cost.other_restarted for cost in went_on) else "no"
    still = len(costs) - len(went_on)
    told = f" ({still} of {len(costs)} times it stood still)" if still else ""
    return f"{one:>16.1f} s{again:>20}{lost:>14,.0f}  {restarted}{told}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds that a system has for going on")
    parser.add_argument("--learn", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--with-ray-train", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.learn or options.with_ray_train:
        learn_with_ddp(options.learn) if options.learn else train_with_ray(options.with_ray_train)
        sys.exit()
    return options


if __name__ == "__main__":
    main()
