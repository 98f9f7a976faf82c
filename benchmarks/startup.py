"""How soon a run learns, and what its helpers hold in memory: rayrnn beside a bare TorchTrainer.

    python benchmarks/startup.py [--turns 5] [--recipe FILE] [--beside CHECKOUT]

A Ray head of its own is started with `rayrnn up`. Then, in turns and as often as asked, `rayrnn train` with
two workers and a script that hands a function to Ray Train's TorchTrainer with two workers: seconds from the command to
the first round here, to the first line of a worker there. The script reads no data and learns nothing. With --beside,
the rayrnn of another checkout of this project (another commit) takes its turn too.

Helpers are the actors of a run beside its driver and its workers; their resident memory is read when the run learns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

RECIPE = """
name: startup
data: {source: text, path: "sysconfig:stdlib/email/*.py", length: 100}
model: {cell: lstm, hidden: 32, layers: 1}
training: {batch_size: 4, truncate: 50, evaluate_every: 1000000, checkpoint_every: 1000000}
averaging: {workers: 2, frequency: 1, rounds: 1000000}
"""
BARE = """
import sys, time
from pathlib import Path
import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from rayrnn.cluster.ray_internals import loopback_kept

def work(config):
    Path(config["said"]).joinpath(str(time.time_ns())).touch()
    time.sleep(1000)

with loopback_kept():  # Ray would look for the head at another address of this host
    ray.init(address=sys.argv[2])
TorchTrainer(
    work,
    train_loop_config={"said": sys.argv[1]},
    scaling_config=ScalingConfig(num_workers=2),
    run_config=RunConfig(storage_path=sys.argv[1] + "-results"),
).fit()
"""
#: for a run to begin
PATIENCE = 300.0
POLL_SECONDS = 0.05
#: the names of Ray's processes that are no helper: ready for anything, or a worker that learns
OTHERS = ("ray::IDLE", "ray::RayTrainWorker", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
#: what a run starts that stays with the head for a while: Ray's own helpers, and processes ready for the next
STAYING = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::PlacementGroupCleaner", "ray::_")


@dataclass(frozen=True)
class Side:
    """A checkout of rayrnn with a head and a home of its own; None: the one that is installed."""

    name: str
    home: Path
    checkout: Path | None = None

    def environment(self) -> dict[str, str]:
        """This process' own, with this home and this checkout."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "XDG_"))}
        if self.checkout:
            ours["PYTHONPATH"] = f"{self.checkout}{os.pathsep}{self.checkout / 'plugins'}"
        return ours | {"HOME": str(self.home), "RAY_AUTH_MODE": "token"}

    def rayrnn(self, command: str) -> None:
        """A command of it that is to succeed."""
        subprocess.run([sys.executable, "-m", "rayrnn.cli", command], cwd=self.home, env=self.environment(), check=True)


@dataclass(frozen=True)
class Start:
    """One run's beginning."""

    seconds: float
    #: name -> bytes, resident
    helpers: dict[str, int]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--recipe", type=Path, help="another recipe than a small one that reads text")
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT", help="a checkout of another commit")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="startup-") as folder:
        sides = [Side("rayrnn", Path(folder) / "rayrnn")]
        if options.beside:
            sides.append(Side("beside", Path(folder) / "beside", options.beside.resolve()))
        for side in sides:
            side.home.mkdir()
            (side.home / "recipe.yaml").write_text(options.recipe.read_text() if options.recipe else RECIPE)
            (side.home / "bare.py").write_text(BARE)
            side.rayrnn("up")
        try:
            _measure(sides, options.turns)
        finally:
            for side in sides:
                side.rayrnn("down")


def _measure(sides: list[Side], turns: int) -> None:
    ours = sides[0]
    address = json.loads(next(ours.home.rglob("head.json")).read_text())["address"]
    starts: dict[str, list[Start]] = {name: [] for name in (*(side.name for side in sides), "TorchTrainer")}
    for turn in range(turns):
        runs = []
        for side in sides:
            out = side.home / f"run-{turn}"
            train = [sys.executable, "-m", "rayrnn.cli", "train", "recipe.yaml", "--out", str(out)]
            runs.append((side.name, side, train, out / "metrics.jsonl"))
        said = ours.home / f"bare-{turn}"
        said.mkdir()
        runs.append(("TorchTrainer", ours, [sys.executable, "bare.py", str(said), address], said))
        for name, side, command, sign in runs if turn % 2 else reversed(runs):
            starts[name].append(_start(side, command, sign))
        print(
            f"turn {turn + 1}: " + ", ".join(f"{name} {of[-1].seconds:.1f} s" for name, of in starts.items()),
            flush=True,
        )
    for name, of in starts.items():
        held = {helper: size // 10**6 for helper, size in of[-1].helpers.items()}
        memory = statistics.median(sum(start.helpers.values()) // 10**6 for start in of)
        print(
            f"{name:14}{statistics.median(start.seconds for start in of):6.1f} s   helpers {memory} MB; at last {held}"
        )
    for name, of in starts.items():
        if name != "rayrnn":
            ratios = [ours.seconds / theirs.seconds for ours, theirs in zip(starts["rayrnn"], of, strict=True)]
            print(
                f"rayrnn takes {statistics.median(ratios):.2f} of the seconds of {name}, as the median of {turns} turns"
            )


def _start(side: Side, command: list[str], sign: Path) -> Start:
    """Run a command until there is something in a file or folder; then look at its helpers, and end it."""
    before = {process.pid for process in _actors(side.home)}
    started = time.monotonic()
    said = side.home / "said.txt"
    with (
        said.open("w") as screen,
        subprocess.Popen(command, cwd=side.home, env=side.environment(), stdout=screen, stderr=screen) as process,
    ):
        try:
            while not _is_there(sign):
                assert process.poll() is None, f"{command} ended:\n{said.read_text()}"
                assert time.monotonic() - started < PATIENCE, f"{command} does not begin"
                time.sleep(POLL_SECONDS)
            seconds = time.monotonic() - started
            time.sleep(1.0)
            helpers = _helpers(side.home, before)
        finally:
            process.kill()
    _wait_until_gone(side.home, before)
    return Start(seconds, helpers)


def _is_there(sign: Path) -> bool:
    return any(sign.iterdir()) if sign.is_dir() else sign.exists() and sign.stat().st_size > 0


def _actors(home: Path) -> list[psutil.Process]:
    """The processes of this head that Ray has made something of, known by the folder in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if _name_of(process).startswith("ray::") and process.environ().get("HOME") == str(home):
                found.append(process)
    return found


def _name_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""


def _helpers(home: Path, before: set[int]) -> dict[str, int]:
    """Those that were not there before; what the runs of others left behind is not this one's."""
    held: dict[str, int] = {}
    for process in _actors(home):
        if process.pid in before:
            continue
        with suppress(psutil.Error):
            name = _name_of(process)
            if not name.startswith(OTHERS):
                held[f"{name.split('.')[0]} {process.pid}"] = process.memory_info().rss
    return held


def _wait_until_gone(home: Path, before: set[int]) -> None:
    """A run that was killed leaves its processes to Ray for a moment."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if not [one for one in _actors(home) if one.pid not in before and not _name_of(one).startswith(STAYING)]:
            return
        time.sleep(0.2)


if __name__ == "__main__":
    main()
