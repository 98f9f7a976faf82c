"""What the user sees of a training run: a header, one live line, notices, and how it ended. All of it on stderr."""

import time
from collections.abc import Callable
from typing import Any, Protocol, assert_never

import plotext
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rayrnn.recipe import Recipe, task_of
from rayrnn.recipe.sections import Averaging
from rayrnn.reporting.charts import round_values
from rayrnn.training.messages import Evaluated, Joined, Lost, Membership, RoundLearned, WentOn
from rayrnn.training.progress import Length, Monitor
from rayrnn.training.summary import Outline, Summary
from rayrnn.wording import command_line, counted, harmless, size

#: without a terminal one plain line is printed for each of so many parts of the run
PLAIN_LINES = 50
#: after so many rounds without a worker that was lost, the others did not have to wait for it
QUIET_ROUNDS = 2
#: a live line that changes more often than this is only flicker
REFRESH_SECONDS = 0.2
#: losses beyond are left out of the curve
HIGHEST_SHOWN = 1e300


class Reporter(Protocol):
    """Tells the user of one run."""

    def say(self, message: str) -> None:
        """A line about what happens now."""

    def warn(self, message: str) -> None:
        """A line that must be seen."""

    def header(self, outline: Outline, *, data: str, encoding: str, run: str) -> None:
        """What is about to be learned."""

    def start(self, first_round: int, learned_seconds: float = 0.0) -> None:
        """Training begins now; of a run that goes by minutes, so many seconds were learned before."""

    def round(self, event: RoundLearned) -> None:
        """One round was learned."""

    def membership(self, event: Membership) -> None:
        """A worker was lost, the others went on, or one joined."""

    def evaluation(self, event: Evaluated) -> None:
        """The held-out loss after a round."""

    def stop(self) -> None:
        """Training is over."""

    def finish(self, summary: Summary, metrics: list[dict[str, Any]]) -> None:
        """How it ended."""


class Screen:
    """Draws one run on a console; a line a round from one place.

    The live line is drawn by whoever calls, so that there is no thread that could die and leave it standing.

    Args:
        clock: seconds now; another where it is told later what has happened.
        says_rounds: rounds are told of, on a line each, where there is no terminal.
    """

    def __init__(
        self,
        console: Console,
        recipe: Recipe,
        *,
        clock: Callable[[], float] = time.monotonic,
        says_rounds: bool = True,
    ) -> None:
        self._console = console
        self._recipe = recipe
        self._clock = clock
        self._says_rounds = says_rounds
        self._rounds = recipe.averaging.rounds
        self._length = Length.of(recipe)
        #: seconds of the run that were learned before it was resumed, and the part of it that was told of last
        self._learned_before = 0.0
        self._part = 0
        self._started = self._clock()
        self._first_round = 0
        self._last: RoundLearned | None = None
        self._held_out: float | None = None
        #: whether it was measured since the last line
        self._is_news = False
        self._best: float | None = None
        self._monitor = Monitor.of(recipe)
        self._monitored: float | None = None
        self._averaging = self._seconds = 0.0
        #: the workers that were lost and are not told of yet, and the round they were lost in
        self._lost: list[tuple[Lost, int]] = []
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._drawn = -REFRESH_SECONDS
        self._ended = False

    def say(self, message: str) -> None:
        """A line about what happens now."""
        self._print(Text(harmless(message)))

    def warn(self, message: str) -> None:
        """A line that must be seen."""
        self._print(Text(harmless(message), style="bold yellow"))

    def header(self, outline: Outline, *, data: str, encoding: str, run: str) -> None:
        """What is about to be learned, where it goes, and how to stop and go on."""
        recipe, averaging = self._recipe, self._recipe.averaging
        lengths = f"{outline.shortest:,}" + (f"-{outline.longest:,}" if outline.longest > outline.shortest else "")
        outer = "plain mean" if averaging.outer == "none" else f"{averaging.outer} on the mean"
        sequences = counted(outline.num_training, "sequence")
        minibatches, updates = counted(averaging.frequency, "minibatch"), counted(outline.updates_a_round, "update")
        rows = {
            "data": f"{data}: {sequences} of {lengths} steps, {outline.num_held_out:,} held out"
            + (f"; {outline.padding_share:.1%} padding" if outline.padding_share else ""),
            "encoding": encoding,
            "network": f"{recipe.model.describe()}, {outline.num_parameters:,} parameters{_precision(recipe)}",
            "workers": _workers(averaging, outline),
            "a round": f"each worker: {minibatches} of {_minibatch(recipe, outline)}, {updates}; then the {outer}"
            + (f", sending {size(outline.bytes_a_round)}{_overlap(averaging)}" if outline.num_workers > 1 else ""),
            "rounds": f"{averaging.rounds:,} = {averaging.rounds / outline.rounds_an_epoch:,.1f} epochs"
            if averaging.minutes is None
            else f"as many as {averaging.minutes:g} minutes allow; an epoch has {outline.rounds_an_epoch:,.1f}",
            "run": run,
            "stop": "Ctrl-C finishes the round and writes a checkpoint; the same command with --resume goes on",
        }
        self._facts(rows)

    def start(self, first_round: int, learned_seconds: float = 0.0) -> None:
        """Training begins now; of a run that goes by minutes, so many seconds were learned before."""
        self._learned_before = learned_seconds
        self._first_round = first_round
        self._started = self._clock()
        if self._console.is_terminal:
            self._live.start()

    def round(self, event: RoundLearned) -> None:
        """One round was learned."""
        self._last = event
        present = {worker.worker for worker in event.workers}
        quiet_since = event.round - QUIET_ROUNDS
        if any(lost.worker not in present and number <= quiet_since for lost, number in self._lost):
            self._say_lost()  # nobody had to wait for them: there is no going on to tell of
        for number in event.broken:
            self.warn(
                f"worker {number} was not finite in round {event.round:,}: kept out of the mean, it takes the mean"
            )
        self._seconds += event.seconds * len(event.workers)
        self._averaging += sum(worker.averaging_seconds for worker in event.workers)
        if self._live.is_started:
            self._draw(event)
        elif self._says_rounds and self._is_due(event):
            self._print_round(event)

    def _print_round(self, event: RoundLearned) -> None:
        self._print(self._text(event))
        self._is_news = False

    def _is_due(self, event: RoundLearned) -> bool:
        """Whether a plain line is to tell of this round."""
        if self._length.seconds is None:
            return event.round % max(1, self._rounds // PLAIN_LINES) == 0 and event.round < self._rounds
        part = int(self._share(event.round) * PLAIN_LINES)
        due, self._part = self._part < part < PLAIN_LINES, max(part, self._part)
        return due

    def membership(self, event: Membership) -> None:
        """A worker was lost, the others went on, or one joined: one line for what belongs together."""
        match event:
            case Lost():
                self._lost.append((event, self._next_round))
            case WentOn():
                self._say_lost(f" in round {self._next_round:,}; {went_on_words(event)}")
            case Joined() if self._last is not None:
                after = f" after {event.seconds:.1f} s" if event.seconds else ""
                self.warn(f"worker {event.worker} takes part from round {self._next_round:,} on{after}")
            case Joined():
                pass  # it is there from the beginning
            case _:
                assert_never(event)

    def _say_lost(self, more: str = "") -> None:
        if self._lost:
            self.warn(", ".join(lost_words(event) for event, _ in self._lost) + more)
            self._lost = []

    def evaluation(self, event: Evaluated) -> None:
        """The held-out loss after a round."""
        self._held_out, self._is_news = event.held_out_loss, True
        self._monitored = event.monitored if event.monitor else event.held_out_loss
        if self._monitored is not None and self._monitor.prefers(self._monitored, self._best):
            self._best = self._monitored

    def stop(self) -> None:
        """Training is over; the live line goes, or the last plain one comes. More than once is as once."""
        self._say_lost()
        if self._live.is_started:
            self._live.stop()
        elif self._says_rounds and self._last is not None and self._share(self._last.round) >= 1 and not self._ended:
            # what it came to is known only now
            self._print_round(self._last)
        self._ended = True

    def finish(self, summary: Summary, metrics: list[dict[str, Any]]) -> None:
        """The curve of the loss, a small table, and what to type next."""
        if len(metrics) > 2:
            self._console.print(Text.from_ansi(curve(metrics, width=min(self._console.width, 100))))
        rows = summary_rows(self._recipe, summary)
        self._facts(rows)
        self._fact("next", next_command(self._recipe, summary), width=max(map(len, rows)))

    def _print(self, text: Text) -> None:
        """A terminal breaks it between words; in a file it is one line."""
        self._console.print(text, soft_wrap=not self._console.is_terminal, highlight=False)

    def _facts(self, rows: dict[str, str]) -> None:
        """Names and values; in a file every one is a line, however long."""
        if not self._console.is_terminal:
            for name, value in rows.items():
                self._fact(name, value, width=max(map(len, rows)))
            return
        table = Table.grid(padding=(0, 2))
        for name, value in rows.items():
            table.add_row(Text(name, style="bold cyan"), Text(harmless(value)))
        self._console.print(table)

    def _fact(self, name: str, value: str, *, width: int) -> None:
        """One name and its value, which the terminal may break but not we: a command is there to be copied."""
        style = "bold cyan" if self._console.is_terminal else ""
        text = Text.assemble((f"{name:<{width}}", style), "  ", harmless(value))
        self._console.print(text, soft_wrap=True, highlight=False)

    @property
    def _next_round(self) -> int:
        """The one that is being learned, as far as is known here."""
        return (self._first_round if self._last is None else self._last.round) + 1

    def _draw(self, event: RoundLearned) -> None:
        if self._clock() - self._drawn >= REFRESH_SECONDS:
            self._live.update(self._line(event), refresh=True)
            self._drawn = self._clock()

    def _line(self, event: RoundLearned) -> Table:
        """The bar takes what the words leave."""
        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(ratio=1)
        line.add_column(no_wrap=True)
        line.add_row(ProgressBar(total=1.0, completed=min(1.0, self._share(event.round))), self._text(event))
        return line

    def _text(self, event: RoundLearned) -> Text:
        loss = "-" if event.loss is None else f"{event.loss:.3f}"
        rounds = f"{event.round:>{len(str(self._rounds))}}/{self._rounds}"
        if self._length.seconds is not None:
            rounds = f"round {event.round:,}"
        learned = sum(event.seconds - worker.evaluating_seconds for worker in event.workers)
        speed = event.steps / learned if learned > 0 else 0.0
        share = self._averaging / self._seconds
        return Text(
            f"{rounds} loss {loss}{self._held_out_words()}"
            f" {speed:,.0f} steps/s each, {share:.0%} averaging, {_clock(self._seconds_left(event.round))} left"
        )

    def _held_out_words(self) -> str:
        """Of the last measure; a plain line has it once, lest a reader takes it for a new one."""
        if self._held_out is None or not (self._is_news or self._live.is_started):
            return ""
        best = "" if self._best is None else f" (best {self._best:.3f})"
        if self._monitor.name == "loss":
            return f" held-out {self._held_out:.3f}{best}"
        value = "-" if self._monitored is None else f"{self._monitored:.3f}"
        return f" held-out {self._held_out:.3f}, {self._monitor.name} {value}{best}"

    def _share(self, now: int) -> float:
        """Of the whole run, that is learned after so many rounds."""
        if self._length.seconds is None:
            return now / self._rounds
        return (self._learned_before + self._clock() - self._started) / self._length.seconds

    def _seconds_left(self, now: int) -> float:
        if self._length.seconds is not None:
            return max(0.0, (1 - self._share(now)) * self._length.seconds)
        return (self._clock() - self._started) / max(1, now - self._first_round) * (self._rounds - now)


def _precision(recipe: Recipe) -> str:
    words = {"fp32": "", "bf16": ", in bf16", "auto": ", in bf16 where the hardware has it"}
    return words[recipe.training.precision]


def _overlap(averaging: Averaging) -> str:
    """What is learned while the average travels."""
    next_ones = "next one is" if averaging.overlap == 1 else f"next {averaging.overlap:,} are"
    return f" while the {next_ones} learned" if averaging.overlap else ""


def _minibatch(recipe: Recipe, outline: Outline) -> str:
    parts = f" in {outline.parts} parts (scaling: auto)" if outline.parts > 1 else ""
    return f"{recipe.training.batch_size}{parts}"


def _workers(averaging: Averaging, outline: Outline) -> str:
    now = outline.num_workers
    if averaging.workers == "auto":
        bounds = " (auto)"
    else:
        bounds = "" if averaging.fewest == averaging.most else f" (of {averaging.fewest} to {averaging.most})"
    each = outline.num_training // now
    share = f"{counted(each, 'sequence')} each" if each else counted(outline.num_training, "sequence")
    return f"{now}{bounds}, {share} an epoch"


def summary_rows(recipe: Recipe, summary: Summary) -> dict[str, str]:
    """The end of a run in words."""
    what = "held-out loss" if summary.monitor == "loss" else f"{summary.monitor} of what is held out"
    early = {
        "no better": f" (stopped early: no better {what})",
        "out of time": " (training.max_minutes are over; with --resume it goes on for as long again)",
    }.get(summary.reason, "")
    rows = {"rounds": f"{summary.rounds:,} in {_duration(summary.seconds)}{early}"}
    if summary.loss is not None:
        rows["loss"] = f"{task_of(recipe).describe_loss(summary.loss)}, in training"
    if summary.best_loss is not None:
        rows["held-out"] = (
            f"{task_of(recipe).describe_loss(summary.best_loss)}, at its best after round {summary.best_round:,}"
        )
    if summary.monitor != "loss" and summary.best_value is not None:
        rows["held-out"] = (
            f"{summary.monitor} {summary.best_value:.4f}, at its best after round {summary.best_round:,}; "
            f"{task_of(recipe).describe_loss(summary.best_loss or 0.0)}"
        )
    if not summary.seconds:
        return rows | {"rounds": f"{summary.rounds:,} as before{early}: it was finished, and learned nothing more"}
    rows["speed"] = f"{summary.steps_per_second:,.0f} steps/s over all workers"
    return rows


def lost_words(event: Lost) -> str:
    """Who is gone, and why."""
    why = {"killed": "killed", "raised": "failed", "late": "did not come to the sum", "drained": "drained"}[
        event.reason
    ]
    return f"worker {event.worker} was lost ({why}{': ' if event.detail else ''}{event.detail})"


def went_on_words(event: WentOn) -> str:
    """Who is left, and how long they were held up."""
    workers = ", ".join(map(str, event.workers))
    return f"worker{'s' if len(event.workers) > 1 else ''} {workers} went on after {event.seconds:.1f} s"


def next_command(recipe: Recipe, summary: Summary) -> str:
    """What the user will want to type now."""
    trust = recipe.asks_for_trust
    if recipe.detect is not None:
        return command_line("rayrnn", "detect", summary.run.name) + " --data PATH" + trust
    if task_of(recipe).generates:
        images = " --to images.png" if recipe.data.begin_every else ""
        return command_line("rayrnn", "generate", summary.run.name) + images + trust
    data = summary.run.stored_data
    if data and data.handed_over:
        return f'rayrnn.evaluate(rayrnn.open_run("{summary.run.name}"), data=...)'
    again = recipe.data.held_out
    command = command_line("rayrnn", "evaluate", summary.run.name)
    return command + ("" if again else " --data PATH") + trust


def curve(metrics: list[dict[str, Any]], *, width: int) -> str:
    """The loss by round as text, with the held-out loss where there is one."""
    learned, held_out = (
        [
            (line["round"], loss)
            for line in metrics
            if (loss := line.get(name)) is not None and abs(loss) < HIGHEST_SHOWN
        ]
        for name in ("loss", "held_out_loss")
    )
    if not learned:
        return ""
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(width, 14)
    plotext.plot(*zip(*learned, strict=True), marker="braille")
    if held_out:
        plotext.scatter(*zip(*held_out, strict=True), marker="o")
    rounds, losses = zip(*learned, *held_out, strict=True)
    at = [value for value in round_values(min(rounds), max(rounds), most=8) if value == int(value)]
    plotext.xticks(at, [f"{value:,.0f}" for value in at])
    plotext.yticks(at := round_values(min(losses), max(losses), most=6), [f"{value:g}" for value in at])
    plotext.xlabel("loss in training (line) and held out (o), by round" if held_out else "loss in training, by round")
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
