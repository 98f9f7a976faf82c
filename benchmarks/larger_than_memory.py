"""Training on sequences of several times the object store, beside the same training with a store that holds them.

python benchmarks/larger_than_memory.py [--store 200] [--times 1 3 10] [--rounds 120] [--repeats 1] [--folder PATH]

Each line is two trainings in turn, each with a Ray of its own: one whose object store has `--store` megabytes, and one
whose store is three times the data. Both learn the same minibatches. Told are the seconds from the command to the first
round's end (the data is read, counted and scaled before), steps a second over all workers (the median over rounds), the
longest round, and the most resident memory of the driver and of a worker: anonymous, and mapped files (which the system
takes back where memory is short) beside it.
"""

import argparse
import json
import multiprocessing
import re
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet
import ray

import rayrnn
from rayrnn.recipe import validate_recipe

STEPS, FEATURES = 200, 32
MEGABYTE = 10**6


@dataclass(frozen=True)
class Measured:
    """One training."""

    first_round: float
    steps_per_second: float
    longest_round: float
    driver: tuple[int, int]
    worker: tuple[int, int]


def main() -> None:
    """The command line."""
    options = _options()
    head = f"{'data':>8} {'store':>8} {'first round':>12} {'steps/s':>9} {'of memory':>9} {'longest':>8}"
    print(f"{head}  driver, worker MB")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for times in options.times:
            size = times * options.store * MEGABYTE
            data = Path(folder) / f"{times}"
            write(data, size)
            ratios, shown = [], []
            for repeat in range(options.repeats):
                small = measured(data, options.store * MEGABYTE, options, f"{folder}/small-{times}-{repeat}")
                large = measured(data, 3 * size + 200 * MEGABYTE, options, f"{folder}/large-{times}-{repeat}")
                ratios.append(small.steps_per_second / large.steps_per_second)
                shown += [(small, options.store), (large, round(3 * size / MEGABYTE + 200))]
            for one, store in shown:
                share = f"{statistics.median(ratios):.1%}" if store == options.store else ""
                memory = ", ".join(f"{anonymous}+{mapped}" for anonymous, mapped in (one.driver, one.worker))
                print(
                    f"{size // MEGABYTE:>5} MB {store:>5} MB {one.first_round:>10.1f} s {one.steps_per_second:>9,.0f} "
                    f"{share:>9} {one.longest_round:>6.2f} s  {memory}",
                    flush=True,
                )


def write(folder: Path, size: int) -> None:
    """Parquet files with a row a sequence, of numbers that do not compress, and of two classes."""
    folder.mkdir()
    random = np.random.default_rng(1)
    count, a_file = size // (STEPS * FEATURES * 8), 500
    for start in range(0, count, a_file):
        rows = min(a_file, count - start)
        classes = random.integers(0, 2, rows)
        values = random.normal(size=(rows, STEPS, FEATURES)) + classes[:, None, None] * 0.1
        steps = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), FEATURES)
        cells = pa.ListArray.from_arrays(pa.array(np.arange(0, rows * STEPS + 1, STEPS), pa.int32()), steps)
        table = pa.table({"values": cells, "label": pa.array(classes)})
        pyarrow.parquet.write_table(table, folder / f"{start:08d}.parquet", row_group_size=100)


def measured(data: Path, store: int, options: argparse.Namespace, out: str) -> Measured:
    """In a process of its own, with a Ray of its own."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_train, args=(data, store, options, out, sender))
    process.start()
    found: Measured = receiver.recv()
    process.join()
    return found


def _train(data: Path, store: int, options: argparse.Namespace, out: str, sender: Connection) -> None:
    started = time.time()
    ray.init(num_cpus=3, object_store_memory=store, include_dashboard=False, log_to_driver=False)
    recipe = validate_recipe(
        {
            "name": "large",
            "task": "classification",
            "data": {
                "source": "parquet",
                "path": str(data),
                "values": "values",
                "label": "label",
                "held_out": 0.01,
                "normalize": "standardize",
            },
            "model": {"hidden": options.hidden, "layers": 1},
            "training": {"batch_size": 32, "evaluate_every": options.rounds, "checkpoint_every": options.rounds},
            "averaging": {"workers": 2, "rounds": options.rounds, "frequency": 10},
        }
    )
    memory = _Memory()
    with memory:
        rayrnn.train(recipe, out=out)
    lines = [json.loads(line) for line in Path(out, "metrics.jsonl").read_text().splitlines()]
    rounds = [line for line in lines if "steps" in line]
    rates = [line["steps"] / line["seconds"] for line in rounds]
    found = Measured(
        first_round=rounds[0]["time"] - started,
        steps_per_second=statistics.median(rates),
        longest_round=max(line["seconds"] for line in rounds[1:]),
        driver=memory.driver,
        worker=memory.worker,
    )
    sender.send(found)
    ray.shutdown()


class _Memory:
    """The most that the driver, and any worker, has held: megabytes, anonymous and of mapped files."""

    def __init__(self) -> None:
        self.driver, self.worker = (0, 0), (0, 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.5):
            self.driver = max(self.driver, resident(me.pid))
            for process in me.children(recursive=True):
                try:
                    if "RayTrainWorker" in " ".join(process.cmdline()):
                        self.worker = max(self.worker, resident(process.pid))
                except (psutil.Error, OSError):
                    continue


def resident(pid: int) -> tuple[int, int]:
    """Megabytes that a process holds of its own, and of mapped files."""
    status = Path(f"/proc/{pid}/status").read_text()
    anonymous, mapped = (int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) for name in ("RssAnon", "RssFile"))  # type: ignore[index]
    return anonymous * 1024 // MEGABYTE, mapped * 1024 // MEGABYTE


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=int, default=200, help="megabytes of the small object store")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 3, 10], help="the data, in stores")
    parser.add_argument("--rounds", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--folder", type=Path, help="where the data is written, and read from")
    return parser.parse_args()


if __name__ == "__main__":
    main()
