"""How a cluster and the runs that lie on its head look on the screen."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rayrnn.cluster.screen import duration, show_status, table
from rayrnn.cluster.status import ClusterStatus

COLOURS = {"running": "green", "finished": "green", "interrupted": "yellow", "failed": "red", "lost": "red"}


def show_runs(console: Console, answer: dict[str, Any], file: Path) -> None:
    """Print the cluster, then every run: its state, how far it came, and how to get at it."""
    if "cluster" in answer:
        show_status(console, ClusterStatus.from_json(answer["cluster"]))
        console.print()
    if not answer["runs"]:
        console.print(Text("no run lies on the head", style="dim"))
        return
    console.print(_table(answer["runs"]), highlight=False)
    console.print(Text(f"rayrnn logs RUN --cluster {file} follows one and fetches it", style="dim"))


def _table(runs: list[dict[str, Any]]) -> Table:
    shown = table("run", "state", "round", "loss", "for")
    for run in runs:
        shown.add_row(
            run["out"],
            Text(run["state"], style=COLOURS[run["state"]]),
            f"{run['round']:,} of {run['rounds']:,}",
            "-" if run["loss"] is None else f"{run['loss']:.3f}",
            duration(time.time() - run["started"]),
        )
    return shown
