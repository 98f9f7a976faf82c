"""docs/pictures/serving.png: the page of `rayrnn serve`, on which a sensor's CSV was dropped.

python -m docs.make.serving_picture    (a minute or more on two cores; from the checkout's folder)
"""

import json
import math
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from docs.make.browser import opened

PICTURES = Path(__file__).parent.parent / "pictures"
WIDTH, HEIGHT = 1000, 700
#: steps at which the sensor fails
FAULT = range(150, 161)
RECIPE = """
name: sensor
task: regression
data: {source: csv, path: train, skip_lines: 1, horizon: 1, held_out: 0.25}
model: {hidden: 16, layers: 1}
training: {learning_rate: 0.01, batch_size: 3, truncate: 30}
averaging: {workers: 1, frequency: 1, rounds: 60}
detect: {smoothing: 3, quantile: 1, margin: 2, warmup: 20}
"""


def main() -> None:
    """Train, serve, drop a file on the page, and take the picture."""
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder))
        _type("train", "sensor.yaml", folder=folder)
        _type("detect", "runs/sensor", "--data", "train", folder=folder)
        command = [sys.executable, "-m", "rayrnn.cli", "serve", "runs/sensor", "--port", "0", "--json"]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            told = json.loads(server.stdout.readline())
            with opened(f"{told['url']}/#token={told['token']}", WIDTH, HEIGHT) as page:
                page.wait_for_selector("#rows:not([hidden])")
                page.set_input_files("#file", Path(folder, "pump.csv"))
                page.wait_for_selector("#result .score-line")
                page.screenshot(path=PICTURES / "serving.png")
            server.send_signal(signal.SIGINT)


def _write(folder: Path) -> None:
    """Four series to learn from, and one with a fault."""
    chance = random.Random(1)
    (folder / "sensor.yaml").write_text(RECIPE)
    (folder / "train").mkdir()
    for number in range(4):
        _series(folder / "train" / f"{number}.csv", [_value(step, number, chance) for step in range(300)])
    faulty = [0.0 if step in FAULT else _value(step, 5, chance) for step in range(300)]
    _series(folder / "pump.csv", faulty)


def _value(step: int, number: int, chance: random.Random) -> float:
    return math.sin(step / 5 + number) + chance.gauss(0, 0.04)


def _series(path: Path, values: list[float]) -> None:
    path.write_text("pressure\n" + "".join(f"{value:.4f}\n" for value in values))


def _type(*arguments: str, folder: str) -> None:
    subprocess.run([sys.executable, "-m", "rayrnn.cli", *arguments], cwd=folder, check=True)


if __name__ == "__main__":
    main()
