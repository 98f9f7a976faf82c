"""Learning against the number of workers, without a cluster.

    python benchmarks/scaling.py run GRID.yaml --out RESULTS.jsonl [--jobs 2] [--set KEY=VALUE ...]
    python benchmarks/scaling.py table RESULTS.jsonl [--reach LOSS]
    python benchmarks/scaling.py figure RESULTS.jsonl --reach LOSS --out FILE.svg [--rules RULE ...]

N workers are simulated in one process, one after the other: each is the Learner of rayrnn's own workers, learns the
minibatches that it would learn in a run, and averages with rayrnn's own Averager. A round takes the time of one worker
where each has a machine, so rounds stand for time. tests/training/test_simulation.py compares two simulated workers
with two real ones, bit for bit.

A grid names a recipe, settings of all its cases, seeds, the rounds to try with each number of workers, and rules: a
name and settings each, for all numbers of workers or (`only`) some. A result is one JSON line a case; a case that is
there already is not learned again.

The rounds to a loss are found between two cases of one rule that have other rounds: a schedule's last rounds do most
of the work, and where a longer run passes a loss says little of how short a run could have been.
"""

import argparse
import hashlib
import itertools
import json
import math
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib
import ray
import torch
import yaml
from matplotlib import pyplot, ticker

from rayrnn.cluster.connection import connect
from rayrnn.data.prepare import prepare
from rayrnn.recipe import Recipe, load_recipe
from rayrnn.runs.model import find_network
from rayrnn.training.learner import Learned, Learner, WorkerSpec
from rayrnn.training.notes import Average, held_out_loss

#: what does not change what is learned
ASIDE = {"name", "checkpoint_every"}
#: in one case
EVALUATIONS = 10


class SimulatedGroup:
    """One member of a group whose other members are threads of this process."""

    def __init__(self, rank: int, slots: list[torch.Tensor | None], barrier: threading.Barrier) -> None:
        self.rank = rank
        self.size = len(slots)
        self.numbers = list(range(len(slots)))
        self._slots = slots
        self._barrier = barrier

    def open_round(self) -> None:
        """Nobody is ever lost here."""

    def sum(self, flat: torch.Tensor) -> bool:
        """Add up over the members in the order of their ranks, in place."""
        parts = self.gather(flat)
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        flat.copy_(total)
        return True

    def gather(self, own: torch.Tensor) -> list[torch.Tensor]:
        """What each member passes, in rank order."""
        self._slots[self.rank] = own.clone()
        self._barrier.wait()
        parts = [part for part in self._slots if part is not None]
        self._barrier.wait()
        return parts


@dataclass
class Simulation:
    """N replicas that learn one after the other and average together."""

    spec: WorkerSpec
    num_workers: int
    #: round, held-out loss
    curve: list[tuple[int, float]] = field(default_factory=list)
    #: over all workers
    steps: int = 0
    updates: int = 0
    #: what each worker hands in a round
    num_bytes: int = 0

    def __post_init__(self) -> None:
        self.learners: list[Learner] = []
        #: torch's global random state, as each replica's own process would have it
        self._chance: list[torch.Tensor] = []
        for number in range(self.num_workers):
            self.learners.append(Learner(self.spec, number, torch.device("cpu")))
            self._chance.append(torch.get_rng_state())
        slots: list[torch.Tensor | None] = [None] * self.num_workers
        barrier = threading.Barrier(self.num_workers)
        self._groups = [SimulatedGroup(rank, slots, barrier) for rank in range(self.num_workers)]

    def learn(self) -> None:
        """Learn all rounds of the recipe, or until the loss is no number any more."""
        first = self.learners[0]
        every = self.spec.recipe.training.evaluate_every
        with ThreadPoolExecutor(self.num_workers) as threads:
            while not first.progress.reason:
                learned = [self._learn_alone(rank) for rank in range(self.num_workers)]
                arrived = learned[0].arrived
                if arrived is not None:
                    self._count(arrived)
                if not first.progress.reason and first.may_send(self.num_workers):
                    for learner, group, own in zip(self.learners, self._groups, learned, strict=True):
                        learner.send(group, own)
                    continue
                averages = list(threads.map(Learner.average, self.learners, self._groups, learned))
                self._count(averages[0])
                if len(self.spec.held_out) and first.progress.evaluation_due(every=every):
                    loss = held_out_loss({0: first.evaluate(0, 1)})
                    for learner in self.learners:
                        learner.note_evaluation(loss)
                    self.curve.append((first.progress.round, loss))
        for learner in self.learners:
            learner.close()

    def _learn_alone(self, rank: int) -> Learned:
        torch.set_rng_state(self._chance[rank])
        learned = self.learners[rank].learn(rank, self.num_workers)
        self._chance[rank] = torch.get_rng_state()
        return learned

    def _count(self, average: Average) -> None:
        notes = average.notes.values()
        self.steps += int(sum(note.steps for note in notes))
        self.updates += int(max(note.updates for note in notes))
        self.num_bytes = average.num_bytes


@dataclass(frozen=True)
class Case:
    """One of a grid's."""

    rule: str
    recipe: Recipe

    @property
    def workers(self) -> int:
        return self.recipe.averaging.most

    @property
    def key(self) -> str:
        """The same for all that learn the same."""
        values = _without(self.recipe.model_dump(mode="json"), ASIDE)
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _without(values: Any, names: set[str]) -> Any:
    if isinstance(values, dict):
        return {name: _without(value, names) for name, value in values.items() if name not in names}
    return values


def cases_of(grid: dict[str, Any], settings: list[str]) -> Iterator[Case]:
    """Every rule with every number of workers, of rounds, and every seed."""
    common = [*map(str, grid.get("settings", [])), *settings]
    for seed, workers, (rule, own) in itertools.product(
        grid.get("seeds", [12345]), grid["rounds"], grid["rules"].items()
    ):
        if workers in grid.get("only", {}).get(rule, grid["rounds"]):
            for rounds in grid["rounds"][workers]:
                asked = [f"averaging.rounds={rounds}", f"training.evaluate_every={max(1, rounds // EVALUATIONS)}"]
                asked += [f"averaging.workers={workers}", f"seed={seed}"]
                yield Case(rule, load_recipe(grid["recipe"], [*common, *(own or []), *asked]))


def learn(case: Case, spec: WorkerSpec) -> dict[str, Any]:
    """One case, in a process of its own with one thread."""
    torch.set_num_threads(case.recipe.averaging.cpus_per_worker)
    started = time.monotonic()
    simulation = Simulation(spec, case.workers)
    simulation.learn()
    return {
        "key": case.key,
        "rule": case.rule,
        "workers": case.workers,
        "seed": case.recipe.seed,
        "recipe": case.recipe.name,
        "rounds": case.recipe.averaging.rounds,
        "batch_size": case.recipe.training.batch_size,
        "frequency": case.recipe.averaging.frequency,
        "learning_rate": case.recipe.training.learning_rate,
        "optimizer": case.recipe.training.optimizer,
        "outer": case.recipe.averaging.outer,
        "outer_learning_rate": case.recipe.averaging.outer_learning_rate,
        "outer_momentum": case.recipe.averaging.outer_momentum,
        "optimizer_state": case.recipe.averaging.optimizer_state,
        "bytes_a_round": simulation.num_bytes,
        "steps": simulation.steps,
        "updates_a_worker": simulation.updates,
        "seconds": round(time.monotonic() - started, 1),
        "curve": simulation.curve,
    }


def run(options: argparse.Namespace) -> None:
    """Learn what is not there yet."""
    grid = yaml.safe_load(options.grid.read_text(encoding="utf-8"))
    there = {line["key"] for line in results(options.out)}
    due = {case.key: case for case in cases_of(grid, options.set) if case.key not in there}
    print(f"{len(due)} cases to learn, {len(there)} in {options.out}", flush=True)
    if not due:
        return
    remotely = ray.remote(num_cpus=1)(learn)
    with connect("local", num_cpus=options.jobs):
        waiting = list(due.values())
        specs: dict[str, WorkerSpec] = {}
        running: list[ray.ObjectRef] = []
        while waiting or running:
            while waiting and len(running) < options.jobs:
                case = waiting.pop(0)
                running.append(remotely.remote(case, _spec(case, specs)))
            (done,), running = ray.wait(running)
            result = ray.get(done)
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            print(_told(result), flush=True)


def _spec(case: Case, specs: dict[str, WorkerSpec]) -> WorkerSpec:
    """What a case learns; the data is read once for all that read it alike."""
    recipe = case.recipe
    key = recipe.data.model_dump_json() + str(recipe.seed)
    if key not in specs:
        prepared = prepare(recipe)
        specs[key] = WorkerSpec(recipe, prepared.encoding, prepared.training, prepared.held_out, find_network(recipe))
    return replace(specs[key], recipe=recipe)


def results(path: Path) -> list[dict[str, Any]]:
    """What has been learned so far."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def best(line: dict[str, Any]) -> float:
    """The lowest held-out loss of a case."""
    return min((loss for _, loss in line["curve"]), default=math.nan)


def rounds_to(cases: list[dict[str, Any]], loss: float) -> float | None:
    """How many rounds a run needs to have a held-out loss at its end; None where no two of the cases lie around it.

    The rounds' logarithm goes with the loss in a straight line from one case to the next.
    """
    points = sorted((line["rounds"], best(line)) for line in cases)
    for (fewer, worse), (more, better) in itertools.pairwise(points):
        if better <= loss <= worse:
            share = (worse - loss) / (worse - better) if worse > better else 1.0
            return float(fewer * (more / fewer) ** share)
    return None


def by_rule(lines: list[dict[str, Any]]) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """Rule -> workers -> its cases."""
    found: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for line in sorted(lines, key=lambda line: int(line["workers"])):
        found.setdefault(line["rule"], {}).setdefault(line["workers"], []).append(line)
    return found


def table(options: argparse.Namespace) -> None:
    """Print each case's best loss; and, by rule and workers, the rounds to a loss in the mean of the seeds."""
    lines = results(options.results)
    for line in sorted(lines, key=lambda line: (line["workers"], line["rule"], line["rounds"])):
        print(_told(line))
    if options.reach:
        alone = min(filter(None, (_mean_rounds(cases.get(1, []), options.reach) for cases in by_rule(lines).values())))
        print(f"rounds to {options.reach:g}, and one worker's fewest ({alone:.0f}) divided by them:")
        for rule, cases in by_rule(lines).items():
            found = {workers: _mean_rounds(of, options.reach) for workers, of in cases.items()}
            told = (f"{workers}: {n:.0f} ({alone / n:.2f})" if n else f"{workers}: -" for workers, n in found.items())
            print(f"  {rule:28} {'  '.join(told)}")


def _mean_rounds(cases: list[dict[str, Any]], loss: float) -> float | None:
    seeds = {line["seed"] for line in cases}
    found = [rounds_to([line for line in cases if line["seed"] == seed], loss) for seed in seeds]
    return statistics.fmean(filter(None, found)) if found and all(found) else None


def figure(options: argparse.Namespace) -> None:
    """Draw the rounds to a loss against the number of workers, a curve a rule; and beside it what a round sends."""
    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "rayrnn", "font.size": 11, "axes.spines.top": False}
    lines = results(options.results)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.6, 4.2), width_ratios=(3, 2), layout="constrained")
    for rule, cases in by_rule(lines).items():
        found = {workers: _mean_rounds(of, options.reach) for workers, of in cases.items()}
        points = [(workers, rounds) for workers, rounds in found.items() if rounds]
        if points and (not options.rules or rule in options.rules):
            left.plot(*zip(*points, strict=True), marker="o", label=rule)
            together = [workers for workers, _ in points if workers > 1]
            sent = [(workers, workers * cases[workers][0]["bytes_a_round"] / 1e6) for workers in together]
            right.plot(*zip(*sent, strict=True), marker="o")
    alone = min(filter(None, (_mean_rounds(cases.get(1, []), options.reach) for cases in by_rule(lines).values())))
    counts = sorted({line["workers"] for line in lines})
    left.plot(counts, [alone / count for count in counts], color="grey", linestyle=":", label="one worker's, divided")
    for axes, title in (
        (left, f"rounds to a held-out loss of {options.reach:g}"),
        (right, "megabytes that all workers send a round"),
    ):
        axes.set_title(title, fontsize=11, loc="left")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xlabel("workers")
        for side in (axes.xaxis, axes.yaxis):
            side.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
        axes.set_xticks(counts)
        axes.grid(alpha=0.3)
    left.legend(frameon=False)
    figure.savefig(options.out, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))


def _told(line: dict[str, Any]) -> str:
    return (
        f"{line['workers']:3} workers  {line['rule']:28} rate {line['learning_rate']:<8g} "
        f"batch {line['batch_size']:<3} x {line['frequency']:<3} "
        f"rounds {line['rounds']:<5} seed {line['seed']:<6} held-out {best(line):.4f} "
        f"({line['seconds']:.0f} s)"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    learned = commands.add_parser("run", help="learn the cases of a grid")
    learned.add_argument("grid", type=Path)
    learned.add_argument("--out", type=Path, required=True)
    learned.add_argument("--jobs", type=int, default=2, help="cases at once, a CPU each")
    learned.add_argument("--set", action="append", default=[], help="further settings of all recipes")
    learned.set_defaults(run=run)
    shown = commands.add_parser("table", help="what has been learned")
    shown.add_argument("results", type=Path)
    shown.add_argument("--reach", type=float)
    shown.set_defaults(run=table)
    drawn = commands.add_parser("figure", help="rounds to a loss against the number of workers, as SVG")
    drawn.add_argument("results", type=Path)
    drawn.add_argument("--reach", type=float, required=True)
    drawn.add_argument("--out", type=Path, required=True)
    drawn.add_argument("--rules", nargs="+", default=[])
    drawn.set_defaults(run=figure)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
