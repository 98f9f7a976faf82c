"""What the user sees of a search, on stderr: a table of its trials, drawn anew, or a line for whatever happens."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rayrnn.tuning.ranges import Values
from rayrnn.wording import duration

State = Literal["learns", "finished", "stopped early", "diverged", "failed", "to go on"]
STYLES: dict[State, str] = {
    **{"learns": "cyan", "finished": "green", "stopped early": "dim", "to go on": "yellow"},
    **{"diverged": "red", "failed": "red"},
}
#: a table that changes more often than this is only flicker
REFRESH_SECONDS = 0.5


@dataclass
class Row:
    """One trial as it is now."""

    folder: str
    values: Values
    state: State = "learns"
    rounds: int = 0
    best: float | None = None
    #: why it failed
    note: str = ""


class TrialTable:
    """Draws the trials; nothing of it needs a thread: whoever has news draws.

    Args:
        keys: what is varied.
        monitor: by what trials are compared.
    """

    def __init__(self, console: Console, keys: Sequence[str], monitor: str) -> None:
        self._console = console
        self._keys = keys
        self._monitor = monitor
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._drawn = -REFRESH_SECONDS
        self._began = time.monotonic()

    def __enter__(self) -> "TrialTable":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live.is_started:
            self._live.stop()

    def tell(self, row: Row) -> None:
        """A trial has begun or ended: a line, where there is no table to see it in."""
        if self._live.is_started:
            return
        values = " ".join(f"{key}={value}" for key, value in row.values.items())
        best = "" if row.best is None else f", {self._monitor} {row.best:.4f}"
        so_far = f" after {row.rounds:,} rounds{best}" if row.rounds else ""
        note = f": {row.note}" if row.note else ""
        self.say(f"{row.folder} {row.state}{so_far} ({values}){note}")

    def say(self, message: str) -> None:
        """A line about what happens."""
        self._console.print(Text(message), soft_wrap=not self._console.is_terminal, highlight=False)

    def draw(self, rows: Sequence[Row], *, of: int) -> None:
        """Show the trials as they are now, where there is a terminal."""
        if self._live.is_started and time.monotonic() - self._drawn >= REFRESH_SECONDS:
            self._live.update(self._table(rows[-self._console.height + 5 :], of=of, begun=len(rows)), refresh=True)
            self._drawn = time.monotonic()

    def finish(self, rows: Sequence[Row], *, of: int) -> None:
        """The trials as they ended, best first."""
        worst_last = sorted(rows, key=lambda row: row.best is None)
        if self._console.is_terminal:
            self._console.print(self._table(worst_last, of=of, begun=len(rows)))

    def _table(self, rows: Sequence[Row], *, of: int, begun: int) -> Table:
        passed = duration(time.monotonic() - self._began)
        table = Table(box=None, pad_edge=False, caption=f"{begun} of {of} trials, {passed}", caption_justify="left")
        for name in ("trial", "", *(key.rpartition(".")[2] for key in self._keys)):
            table.add_column(name, no_wrap=True)
        table.add_column("rounds", justify="right")
        table.add_column(self._monitor, justify="right")
        for row in rows:
            table.add_row(
                row.folder,
                Text(row.state, style=STYLES[row.state]),
                *(_short(row.values.get(key, "")) for key in self._keys),
                f"{row.rounds:,}",
                "-" if row.best is None else f"{row.best:.4f}",
            )
        return table


def _short(value: str) -> str:
    """Four digits of a number are enough to see which it is."""
    try:
        return value if value.lstrip("+-").isdigit() else f"{float(value):.4g}"
    except ValueError:
        return value
