"""How soon a run learns, and what its helpers hold in memory: rayrnn beside a bare TorchTrainer.

    python benchmarks/startup.py [--pairs 5]

A Ray head of its own is started with `rayrnn up`. Then, in turns and as often as asked, `rayrnn train` with
two workers and a script that hands a function to Ray Train's TorchTrainer with two workers: seconds from the command to
the first round here, to the first line of a worker there. The script reads no data and learns nothing.

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
#: what ends with a run; what else it started stays with the head
OF_A_RUN = ("ray::RayTrainWorker", "ray::Coordinator", "ray::TrainController", "ray::SynchronizationActor")


@dataclass(frozen=True)
class Start:
    """One run's beginning."""

    seconds: float
    #: name -> bytes, resident
    helpers: dict[str, int]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory(prefix="startup-") as folder:
        home = Path(folder)
        (home / "recipe.yaml").write_text(RECIPE)
        (home / "bare.py").write_text(BARE)
        _rayrnn(home, "up")
        try:
            _measure(home, pairs)
        finally:
            _rayrnn(home, "down")


def _measure(home: Path, pairs: int) -> None:
    address = json.loads(next(home.rglob("head.json")).read_text())["address"]
    ours: list[Start] = []
    bare: list[Start] = []
    for number in range(pairs):
        out, said = home / f"run-{number}", home / f"bare-{number}"
        said.mkdir()
        train = [sys.executable, "-m", "rayrnn.cli", "train", "recipe.yaml", "--out", str(out)]
        both = [
            (ours, train, out / "metrics.jsonl"),
            (bare, [sys.executable, "bare.py", str(said), address], said),
        ]
        for starts, command, sign in both if number % 2 else reversed(both):
            starts.append(_start(home, command, sign))
        print(f"pair {number + 1}: rayrnn {ours[-1].seconds:.1f} s, TorchTrainer {bare[-1].seconds:.1f} s", flush=True)
    ratios = [one.seconds / other.seconds for one, other in zip(ours, bare, strict=True)]
    for name, starts in (("rayrnn", ours), ("TorchTrainer", bare)):
        held = {helper: size // 10**6 for helper, size in starts[-1].helpers.items()}
        seconds = statistics.median(start.seconds for start in starts)
        print(f"{name:14}{seconds:6.1f} s   helpers {sum(held.values())} MB: {held}")
    print(f"rayrnn takes {statistics.median(ratios):.2f} of the seconds, as the median of {pairs} pairs")


def _start(home: Path, command: list[str], sign: Path) -> Start:
    """Run a command until there is something in a file or folder; then look at its helpers, and end it."""
    before = {process.pid for process in _actors(home)}
    started = time.monotonic()
    with subprocess.Popen(
        command, cwd=home, env=_environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            while not _is_there(sign):
                assert process.poll() is None, f"{command} ended"
                assert time.monotonic() - started < PATIENCE, f"{command} does not begin"
                time.sleep(POLL_SECONDS)
            seconds = time.monotonic() - started
            time.sleep(1.0)
            helpers = _helpers(home, before)
        finally:
            process.kill()
    _wait_until_gone(home)
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


def _wait_until_gone(home: Path) -> None:
    """A run that was killed leaves its processes to Ray for a moment."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if not [name for name in map(_name_of, _actors(home)) if name.startswith(OF_A_RUN)]:
            return
        time.sleep(0.2)


def _environment(home: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "XDG_"))}
    return ours | {"HOME": str(home), "RAY_AUTH_MODE": "token"}


def _rayrnn(home: Path, command: str) -> None:
    subprocess.run([sys.executable, "-m", "rayrnn.cli", command], cwd=home, env=_environment(home), check=True)


if __name__ == "__main__":
    main()
