"""What sending the parameters in two bytes or one a value does to the held-out loss.

    python benchmarks/wire_quality.py TEXT [--rounds 40] [--seeds 1 2 3] [--recipe charlm] [--set KEY=VALUE ...]

Every wire learns the same text from the same seeds, with `rayrnn train`, for the same number of rounds. Printed are the
held-out losses after the last round in nats a step, their mean, and how far it is from that of float32.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

WIRES = ("float32", "bfloat16", "int8")


def main() -> None:
    """The command line."""
    options = _options()
    losses: dict[str, list[float]] = {wire: [] for wire in WIRES}
    for seed in options.seeds:
        for wire in WIRES:
            losses[wire].append(held_out_loss(options, wire=wire, seed=seed))
    print(f"{options.recipe}, {options.rounds} rounds: held-out loss in nats a step")
    print(f"{'wire':10}" + "".join(f"{f'seed {seed}':>10}" for seed in options.seeds) + f"{'mean':>10}{'apart':>10}")
    exact = statistics.mean(losses["float32"])
    for wire, values in losses.items():
        mean = statistics.mean(values)
        print(f"{wire:10}" + "".join(f"{value:10.4f}" for value in values) + f"{mean:10.4f}{mean - exact:+10.4f}")


def held_out_loss(options: argparse.Namespace, *, wire: str, seed: int) -> float:
    """One run; the loss after its last round."""
    settings = [
        f"data.path={options.text}",
        f"seed={seed}",
        f"averaging.wire={wire}",
        f"averaging.rounds={options.rounds}",
        f"training.evaluate_every={options.rounds}",
        f"training.checkpoint_every={options.rounds}",
        "averaging.patience=600",
        *options.set,
    ]
    chosen = [word for setting in settings for word in ("--set", setting)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "rayrnn.cli", "train", options.recipe, "--out", str(out), "--json", *chosen]
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode != 0:
            sys.exit(ended.stderr)
        last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    return float(last["held_out_loss"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=lambda path: Path(path).resolve(), help="a file, or a directory of them")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--recipe", default="charlm")
    parser.add_argument("--set", action="append", default=[], help="further settings of the recipe")
    return parser.parse_args()


if __name__ == "__main__":
    main()
