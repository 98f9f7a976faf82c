"""What averaging costs a whole run: two workers that average, against the same two that never communicate.

    python benchmarks/overhead.py [--data FILE] [--minibatches 100] [--repeats 3]

Both are `rayrnn train charlm`, the book's configuration (2 x 200 graves_lstm, 8 sequences of 1,000 steps a minibatch,
an average every 5 minibatches), all of it: Ray, the roll, the metrics, a checkpoint every 10 rounds. The ones that
never communicate learn the same number of minibatches in a single round, and nobody waits at its end: their speeds are
each one's steps over its own seconds, added up. Those that average are counted from the first minibatch to the last
average, waiting for the slower one included. The runs take turns; the medians, all runs and the median ratio of the
pairs are printed.
"""

import argparse
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from rayrnn.runs.directory import Run

AVERAGING, ALONE = "an average every 5 minibatches", "no communication"
FREQUENCY = 5


def main() -> None:
    """The command line."""
    options = _options()
    speeds: dict[str, list[float]] = {ALONE: [], AVERAGING: []}
    for _ in range(options.repeats):
        speeds[ALONE].append(train(options.data, frequency=options.minibatches, rounds=1))
        speeds[AVERAGING].append(train(options.data, frequency=FREQUENCY, rounds=options.minibatches // FREQUENCY))
    print(f"two workers, {options.minibatches} minibatches each, medians of {options.repeats}")
    for way, values in speeds.items():
        ratio = statistics.median(value / alone for value, alone in zip(values, speeds[ALONE], strict=True))
        single = ", ".join(f"{value:,.0f}" for value in values)
        print(f"{way:34}{statistics.median(values):>9,.0f} steps/s  {ratio:6.1%}  ({single})")


def train(data: str, *, frequency: int, rounds: int) -> float:
    """One run; steps a second over both workers, who never meet in a single round."""
    settings = {
        "data.path": data,
        "training.evaluate_every": 1_000_000,
        "averaging.frequency": frequency,
        "averaging.rounds": rounds,
        "averaging.patience": 600,
    }
    chosen = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "rayrnn.cli", "train", "charlm", "--out", f"{folder}/run", *chosen]
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode != 0:
            sys.exit(ended.stderr)
        lines = Run(Path(folder) / "run").metrics()
    if rounds == 1:
        return float(sum(worker["steps"] / worker["learning_seconds"] for worker in lines[0]["workers"]))
    return float(sum(line["steps"] for line in lines) / sum(line["seconds"] for line in lines))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    library = Path(sysconfig.get_path("stdlib"))
    parser.add_argument("--data", default=f"{library}/[a-h]*.py", help="a text; without it Python's own library")
    parser.add_argument("--minibatches", type=int, default=100, help="of each worker; a multiple of 5")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
