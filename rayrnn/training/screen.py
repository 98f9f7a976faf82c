"""What the user sees of a training run: a header, one live line, notices, and how it ended. All of it on stderr."""

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

import plotext
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rayrnn.recipe import Recipe, task_of
from rayrnn.recipe.sections import Averaging
from rayrnn.training.summary import Account, Outcome
from rayrnn.wording import counted, size

#: without a terminal one plain line is printed for each of so many parts of the run
PLAIN_LINES = 50
#: after so many rounds without a worker that was lost, the others did not have to wait for it
QUIET_ROUNDS = 2
#: why a worker is not there
ABSENT = {"died": "died", "left": "left", "late": "did not come to the average"}
#: a live line that changes more often than this is only flicker
REFRESHES_PER_SECOND = 5


class Talk(Protocol):
    """One run's talk with the user."""

    def say(self, message: str) -> None:
        """A line about what happens now."""

    def warn(self, message: str) -> None:
        """A line that must be seen."""

    def header(self, account: Account, *, data: str, encoding: str, run: str) -> None:
        """What is about to be learned."""

    def start(self, first_round: int) -> None:
        """Training begins now."""

    def round(self, event: dict[str, Any]) -> None:
        """One round was learned."""

    def attendance(self, event: dict[str, Any]) -> None:
        """Somebody died, left, was late, went on or joined."""

    def evaluation(self, event: dict[str, Any]) -> None:
        """The held-out loss after a round."""

    def stop(self) -> None:
        """Training is over."""

    def finish(self, outcome: Outcome, metrics: list[dict[str, Any]]) -> None:
        """How it ended."""


class Screen:
    """One run's talk with the user; a line a round from one place.

    Args:
        clock: seconds now; another where it is told later what has happened.
    """

    def __init__(self, console: Console, recipe: Recipe, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._recipe = recipe
        self._clock = clock
        self._rounds = recipe.averaging.rounds
        self._started = self._clock()
        self._first_round = 0
        self._last: dict[str, Any] = {}
        self._held_out: float | None = None
        self._best: float | None = None
        self._averaging = self._seconds = 0.0
        #: the losses of workers that are not told of yet
        self._absent: list[dict[str, Any]] = []
        self._live = Live(console=console, refresh_per_second=REFRESHES_PER_SECOND, transient=True)

    def say(self, message: str) -> None:
        """A line about what happens now."""
        self._console.print(Text(message), highlight=False)

    def warn(self, message: str) -> None:
        """A line that must be seen."""
        self._console.print(Text(message, style="bold yellow"), highlight=False)

    def header(self, account: Account, *, data: str, encoding: str, run: str) -> None:
        """What is about to be learned, where it goes, and how to stop and go on."""
        recipe, averaging = self._recipe, self._recipe.averaging
        model = recipe.model
        lengths = f"{account.shortest:,}" + (f"-{account.longest:,}" if account.longest > account.shortest else "")
        outer = "plain mean" if averaging.outer == "none" else f"{averaging.outer} on the mean"
        sequences = counted(account.num_training, "sequence")
        minibatches, updates = counted(averaging.frequency, "minibatch"), counted(account.updates_a_round, "update")
        rows = {
            "data": f"{data}: {sequences} of {lengths} steps, {account.num_held_out:,} held out"
            + (f"; {account.padding_share:.1%} padding" if account.padding_share else ""),
            "encoding": encoding,
            "network": f"{model.layers} x {model.hidden} {model.cell}, {account.num_parameters:,} parameters",
            "workers": _workers(averaging, account),
            "a round": f"{minibatches} of {recipe.training.batch_size} = {updates} a worker, "
            f"then the {outer}: {size(account.bytes_a_round)} each",
            "rounds": f"{averaging.rounds:,} = {averaging.rounds / account.rounds_an_epoch:,.1f} epochs",
            "run": run,
            "stop": "Ctrl-C finishes the round and writes a checkpoint; the same command with --resume goes on",
        }
        table = Table.grid(padding=(0, 2))
        for name, value in rows.items():
            table.add_row(Text(name, style="bold cyan"), Text(value))
        self._console.print(table)

    def start(self, first_round: int) -> None:
        """Training begins now."""
        self._first_round = first_round
        self._started = self._clock()
        if self._console.is_terminal:
            self._live.start()

    def round(self, event: dict[str, Any]) -> None:
        """One round was learned."""
        self._last = event
        present = {worker["worker"] for worker in event["workers"]}
        quiet_since = event["round"] - QUIET_ROUNDS
        if any(loss["worker"] not in present and loss["round"] < quiet_since for loss in self._absent):
            self._say_absent()  # nobody had to wait for them: there is no going on to tell of
        for number in event["broken"]:
            self.warn(
                f"worker {number} was not finite in round {event['round']:,}: kept out of the mean, it takes the mean"
            )
        self._seconds += event["seconds"] * len(event["workers"])
        self._averaging += sum(worker["averaging_seconds"] for worker in event["workers"])
        if self._live.is_started:
            self._live.update(self._line())
        elif event["round"] % max(1, self._rounds // PLAIN_LINES) == 0 or event["round"] == self._rounds:
            self._console.print(self._text(), soft_wrap=True, highlight=False)

    def attendance(self, event: dict[str, Any]) -> None:
        """Somebody died, left, was late, went on or joined: one line for what belongs together."""
        if event["kind"] in ABSENT:
            self._absent.append(event)
        elif event["kind"] == "went_on":
            self._say_absent(f" in round {event['round'] + 1:,}; {went_on_words(event)}")
        elif event["round"] > 0:
            after = f" after {event['seconds']:.1f} s" if event["seconds"] else ""
            self.warn(f"worker {event['worker']} takes part from round {event['round'] + 1:,} on{after}")

    def _say_absent(self, more: str = "") -> None:
        if self._absent:
            self.warn(", ".join(map(_absence_words, self._absent)) + more)
            self._absent = []

    def evaluation(self, event: dict[str, Any]) -> None:
        """The held-out loss after a round."""
        self._held_out = event["held_out_loss"]
        self._best = min(self._held_out, math.inf if self._best is None else self._best)

    def stop(self) -> None:
        """Training is over; the live line goes."""
        self._say_absent()
        self._live.stop()

    def finish(self, outcome: Outcome, metrics: list[dict[str, Any]]) -> None:
        """The curve of the loss, a small table, and what to type next."""
        if len(metrics) > 2:
            self._console.print(Text.from_ansi(curve(metrics, width=min(self._console.width, 100))))
        table = Table.grid(padding=(0, 2))
        rows = summary_rows(self._recipe, outcome) | {"next": next_command(self._recipe, outcome)}
        for name, value in rows.items():
            table.add_row(Text(name, style="bold cyan"), Text(value))
        self._console.print(table)

    def _line(self) -> Table:
        """The bar takes what the words leave."""
        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(ratio=1)
        line.add_column(no_wrap=True)
        line.add_row(ProgressBar(total=self._rounds, completed=self._last["round"]), self._text())
        return line

    def _text(self) -> Text:
        event = self._last
        loss = "-" if event["loss"] is None else f"{event['loss']:.3f}"
        held_out = "" if self._held_out is None else f" held-out {self._held_out:.3f} (best {self._best:.3f})"
        speed = event["steps"] / event["seconds"] / len(event["workers"])
        share = self._averaging / self._seconds
        return Text(
            f"{event['round']:>{len(str(self._rounds))}}/{self._rounds} loss {loss}{held_out}"
            f" {speed:,.0f} steps/s each, {share:.0%} averaging, {_clock(self._seconds_left())} left"
        )

    def _seconds_left(self) -> float:
        now = int(self._last["round"])
        return (self._clock() - self._started) / max(1, now - self._first_round) * (self._rounds - now)


def _workers(averaging: Averaging, account: Account) -> str:
    now = account.num_workers
    bounds = "" if averaging.fewest == averaging.most else f" (of {averaging.fewest} to {averaging.most})"
    return f"{now}{bounds}, {counted(account.num_training // now, 'sequence')} each an epoch"


def summary_rows(recipe: Recipe, outcome: Outcome) -> dict[str, str]:
    """The end of a run in words."""
    early = " (stopped early: no better held-out loss)" if outcome.reason == "no better" else ""
    rows = {"rounds": f"{outcome.rounds:,} in {_duration(outcome.seconds)}{early}"}
    if outcome.loss is not None:
        rows["loss"] = f"{task_of(recipe).describe_loss(outcome.loss)}, in training"
    if outcome.best_loss is not None:
        rows["held-out"] = (
            f"{task_of(recipe).describe_loss(outcome.best_loss)}, at its best after round {outcome.best_round:,}"
        )
    rows["speed"] = f"{outcome.steps_per_second:,.0f} steps/s over all workers"
    return rows


def _absence_words(event: dict[str, Any]) -> str:
    why = f" ({event['detail']})" if event.get("detail") else ""
    return f"worker {event['worker']} {ABSENT[event['kind']]}{why}"


def went_on_words(event: dict[str, Any]) -> str:
    """Who is left, and how long they were held up."""
    workers = ", ".join(map(str, event["workers"]))
    return f"worker{'s' if len(event['workers']) > 1 else ''} {workers} went on after {event['seconds']:.1f} s"


def next_command(recipe: Recipe, outcome: Outcome) -> str:
    """What the user will want to type now."""
    if task_of(recipe).generates:
        return f"rayrnn generate {outcome.run.name}"
    return f"rayrnn evaluate {outcome.run.name}" + ("" if recipe.data.held_out else " --data PATH")


def curve(metrics: list[dict[str, Any]], *, width: int) -> str:
    """The loss by round as text, with the held-out loss where there is one."""
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(width, 14)
    learned = [line for line in metrics if line.get("loss") is not None]
    plotext.plot(
        [line["round"] for line in learned], [line["loss"] for line in learned], label="loss", marker="braille"
    )
    held_out = [line for line in metrics if line.get("held_out_loss") is not None]
    if held_out:
        rounds, losses = [line["round"] for line in held_out], [line["held_out_loss"] for line in held_out]
        plotext.scatter(rounds, losses, label="held-out", marker="o")
    plotext.xlabel("round")
    return str(plotext.build())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
