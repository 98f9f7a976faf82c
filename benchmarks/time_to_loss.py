"""Time to a held-out loss on two cores: one process of two threads, DistributedDataParallel, rayrnn's two workers.

    python benchmarks/time_to_loss.py run TEXT --out RESULTS.jsonl [--ways one ddp rayrnn] [--seconds 120]
        [--optimizer adam] [--batch 8 16] [--rate 0.004 0.006] [--seeds 1] [--precision fp32] [--set KEY=VALUE ...]
    python benchmarks/time_to_loss.py table RESULTS.jsonl

All learn the network and the text of the recipe `shakespeare`, and are measured on the same held-out sequences. The
first two are plain torch, as somebody writes it: nn.LSTM, an optimizer, clipping, segments of `training.truncate` steps
with the state carried on, a cosine over the time, and nothing else in the time that counts; DDP shares every gradient.
The third is `rayrnn train`, its evaluations counted; its rounds are as many as fit the time at the speed of a first
short run. A fourth way, `bare`, is two processes of one thread that share nothing, with minibatches of half the size,
as a worker of two has them: what a worker's steps a second are measured against. All have the same optimizers; with
muon that is rayrnn's, whose iterations go over all gates at once. Cases are learned one after the other, in turn; one
that is there already is not learned again. Run it on an otherwise idle machine.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from rayrnn.cluster.connection import connect
from rayrnn.data.prepare import prepare
from rayrnn.data.sequences import Part, take
from rayrnn.recipe import Recipe, load_recipe, task_of
from rayrnn.runs.directory import Run
from rayrnn.training.loop import make_optimizer

CLIP = 5.0
#: rounds of the run that finds the speed
FIRST_ROUNDS = 20
PORT = 29517


@dataclass(frozen=True)
class Case:
    """One way to learn for so many seconds."""

    way: str
    seconds: float
    batch: int
    rate: float
    seed: int
    precision: str
    optimizer: str
    settings: tuple[str, ...]

    @property
    def of_all_ways(self) -> list[str]:
        """Settings of the recipe that do not depend on the way."""
        chosen = [f"training.precision={self.precision}", f"training.optimizer={self.optimizer}", f"seed={self.seed}"]
        return [*chosen, *self.settings]


@dataclass(frozen=True)
class Text:
    """Sequences of one length, N x T each: what is read, what follows, and how many symbols there are."""

    inputs: torch.Tensor
    targets: torch.Tensor
    held_out_inputs: torch.Tensor
    held_out_targets: torch.Tensor
    num_symbols: int

    @classmethod
    def of(cls, recipe: Recipe) -> "Text":
        """What a run of the recipe learns from and is measured on; targets of padding are -100."""
        prepared = prepare(recipe)
        task = task_of(recipe)

        def tensors(part: Part) -> tuple[torch.Tensor, torch.Tensor]:
            rows = task.minibatch(take(part.sequences, np.sort(part.indices)), prepared.encoding)
            return rows.inputs, rows.targets.masked_fill(~rows.mask, -100)

        return cls(*tensors(prepared.training), *tensors(prepared.held_out), prepared.encoding.num_outputs)


class Plain(nn.Module):
    """The recipe's network as it is written in torch."""

    def __init__(self, recipe: Recipe, num_symbols: int) -> None:
        super().__init__()
        model = recipe.model
        self.embedding = nn.Embedding(num_symbols, model.embedding)
        size = model.sizes[0]
        self.lstm = nn.LSTM(model.embedding, size, model.layers, batch_first=True)
        self.projection = nn.Linear(size, num_symbols)

    def forward(self, inputs_BT: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        """Logits_BTV and the state."""
        hidden, state = self.lstm(self.embedding(inputs_BT), state)
        return self.projection(hidden), state


def learn_plainly(rank: int, world: int, threads: int, case: Case, recipe: Recipe, text: Text, out: Path) -> None:
    """One process of the first two ways."""
    torch.set_num_threads(threads)
    torch.manual_seed(case.seed)
    network = Plain(recipe, text.num_symbols)
    model: nn.Module = network
    shares = case.way == "ddp"
    if shares:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(PORT))
        dist.init_process_group("gloo", rank=rank, world_size=world)
        model = nn.parallel.DistributedDataParallel(network)
    optimizer = make_optimizer(network, recipe.training)
    random = torch.Generator().manual_seed(case.seed)
    truncate, steps = recipe.training.truncate, 0
    batch = case.batch // 2 if case.way == "bare" else case.batch
    started = time.perf_counter()
    over = False
    while not over:
        order = torch.randperm(len(text.inputs), generator=random)[rank::world]
        for rows in torch.split(order, batch):
            share = _agreed((time.perf_counter() - started) / case.seconds, shares=shares)
            over = share >= 1
            if over or len(rows) < batch:
                break
            for parameters in optimizer.param_groups:
                parameters["lr"] = case.rate * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)
            state = None
            pieces = zip(
                torch.split(text.inputs[rows], truncate, 1), torch.split(text.targets[rows], truncate, 1), strict=True
            )
            for inputs, targets in pieces:
                with torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "bf16"):
                    logits, state = model(inputs, state)
                loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                optimizer.step()
                state = tuple(part.detach() for part in state)
                steps += inputs.numel()
    seconds = time.perf_counter() - started
    if rank == 0:
        held_out = measure(network, text, truncate)
        line = {"held_out": held_out, "took": seconds, "steps_per_second": world * steps / seconds}
        out.write_text(json.dumps(line), encoding="utf-8")
    if shares:
        dist.destroy_process_group()


def _agreed(share: float, *, shares: bool) -> float:
    """The clock of the first process, or processes that share gradients would end at different updates."""
    if not shares:
        return share
    value = torch.tensor(share, dtype=torch.float64)
    dist.broadcast(value, 0)
    return float(value)


@torch.no_grad()
def measure(network: nn.Module, text: Text, truncate: int) -> float:
    """The held-out loss in float32, nats a step."""
    total = 0.0
    for inputs, targets in zip(
        torch.split(text.held_out_inputs, 64), torch.split(text.held_out_targets, 64), strict=True
    ):
        state = None
        for piece, answers in zip(torch.split(inputs, truncate, 1), torch.split(targets, truncate, 1), strict=True):
            logits, state = network(piece, state)
            total += float(nn.functional.cross_entropy(logits.flatten(0, 1), answers.flatten(), reduction="sum"))
    return total / float((text.held_out_targets >= 0).sum())


def plainly(case: Case, recipe: Recipe, text: Text) -> dict[str, Any]:
    """One process of two threads, or two of one thread."""
    world, threads = (1, 2) if case.way == "one" else (2, 1)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        mp.spawn(  # type: ignore[attr-defined, no-untyped-call]
            learn_plainly, args=(world, threads, case, recipe, text, out), nprocs=world
        )
        return dict(json.loads(out.read_text(encoding="utf-8")))


def with_rayrnn(case: Case, path: Path) -> dict[str, Any]:
    """`rayrnn train`, for as many rounds as take the time."""
    with tempfile.TemporaryDirectory() as folder:
        first = _trained(case, path, Path(folder) / "first", FIRST_ROUNDS)
        a_round = statistics.median(line["seconds"] for line in first[1:])
        lines = _trained(case, path, Path(folder) / "run", round(case.seconds / a_round))
    seconds = np.cumsum([line["seconds"] for line in lines])
    curve = [
        (float(at), line["held_out_loss"]) for at, line in zip(seconds, lines, strict=True) if "held_out_loss" in line
    ]
    steps = sum(line["steps"] for line in lines)
    workers = [worker for line in lines for worker in line["workers"]]
    busy = {name: sum(worker[f"{name}_seconds"] for worker in workers) for name in ("learning", "evaluating")}
    return {
        "held_out": min(loss for _, loss in curve),
        "took": float(seconds[-1]),
        "steps_per_second": steps / float(seconds[-1]),
        "shares": {name: value / (2 * float(seconds[-1])) for name, value in busy.items()},
        "rounds": len(lines),
        "curve": curve,
    }


def _trained(case: Case, path: Path, out: Path, rounds: int) -> list[dict[str, Any]]:
    settings = [
        *(f"data.path={path}", f"training.batch_size={case.batch}", f"training.learning_rate={case.rate}"),
        *(f"averaging.rounds={rounds}", *case.of_all_ways),
    ]
    chosen = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "rayrnn.cli", "train", "shakespeare", "--out", str(out), *chosen]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode != 0:
        sys.exit(ended.stderr)
    return list(Run(out).metrics())


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Way after way for each setting, so that what changes on the machine hits all."""
    for seed in options.seeds:
        for batch in options.batch:
            for rate in options.rate:
                for seconds in options.seconds:
                    for way in options.ways:
                        yield Case(
                            *(way, seconds, batch, rate, seed, options.precision, options.optimizer),
                            tuple(options.set),
                        )


def run(options: argparse.Namespace) -> None:
    """Learn what is not there yet."""
    there = {json.dumps(line["case"]) for line in results(options.out)}
    texts: dict[int, Text] = {}
    for case in cases(options):
        if json.dumps(asdict(case)) in there:
            continue
        recipe = load_recipe("shakespeare", [f"data.path={options.text}", *case.of_all_ways])
        if case.way != "rayrnn" and case.seed not in texts:
            with connect("local", num_cpus=1):
                texts[case.seed] = Text.of(recipe)
        found = with_rayrnn(case, options.text) if case.way == "rayrnn" else plainly(case, recipe, texts[case.seed])
        line = {"case": asdict(case), **found}
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(_told(line), flush=True)


def results(path: Path) -> list[dict[str, Any]]:
    """What has been learned so far."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def table(options: argparse.Namespace) -> None:
    """Print all cases, the best first."""
    for line in sorted(results(options.results), key=lambda line: float(line["held_out"])):
        print(_told(line))


def _told(line: dict[str, Any]) -> str:
    case = line["case"]
    return (
        f"{case['way']:8} batch {case['batch']:<3} rate {case['rate']:<7g} {case['precision']} {case['optimizer']} "
        f"seed {case['seed']:<6} "
        f"held-out {line['held_out']:.4f} after {line['took']:5.1f} s, {line['steps_per_second']:,.0f} steps/s"
        + "".join(f", {share:.1%} {name}" for name, share in line.get("shares", {}).items())
        + (f"  {' '.join(case['settings'])}" if case["settings"] else "")
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    learned = commands.add_parser("run", help="learn the cases that are not there yet")
    learned.add_argument("text", type=Path)
    learned.add_argument("--out", type=Path, required=True)
    learned.add_argument(
        "--ways", nargs="+", default=["one", "ddp", "rayrnn"], choices=["one", "ddp", "bare", "rayrnn"]
    )
    learned.add_argument("--seconds", type=float, nargs="+", default=[120.0])
    learned.add_argument("--batch", type=int, nargs="+", default=[8, 16])
    learned.add_argument("--rate", type=float, nargs="+", default=[0.004, 0.006])
    learned.add_argument("--seeds", type=int, nargs="+", default=[1])
    learned.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    learned.add_argument("--optimizer", default="adam", choices=["adam", "muon"])
    learned.add_argument("--set", action="append", default=[], help="further settings of the recipe")
    learned.set_defaults(run=run)
    shown = commands.add_parser("table", help="what has been learned")
    shown.add_argument("results", type=Path)
    shown.set_defaults(run=table)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
