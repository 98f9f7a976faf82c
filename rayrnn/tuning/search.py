"""A recipe and what to vary -> the best of many runs, which share the cluster."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from rich.console import Console

from rayrnn.cluster import connect
from rayrnn.durable import make_folder, replace_durably
from rayrnn.errors import DataError, Interrupted, RecipeError, RunError, UsageError
from rayrnn.recipe import Recipe, read_recipe, recipe_from
from rayrnn.runs.directory import Run, open_run
from rayrnn.runs.kept_recipe import check_trust
from rayrnn.runs.layout import is_stored
from rayrnn.stop_signals import stop_requests
from rayrnn.training.placement import check_room
from rayrnn.training.progress import Monitor
from rayrnn.tuning.ranges import Varied, check_varied, read_varied
from rayrnn.tuning.study import Asked, Settled, Study, combinations
from rayrnn.tuning.table import Row, State, TrialTable
from rayrnn.tuning.trial import Trial
from rayrnn.wording import command_line

#: in the directory of a search: what it is of, its recipe, what Optuna knows, and the best recipe
SETTINGS, BASE, STUDY, BEST = "tune.json", "base.yaml", "study.jsonl", "best.yaml"
POLL_SECONDS = 0.3
#: a trial that dies is tried so often
ATTEMPTS = 3
#: so many that fail before any has a result end the search
HOPELESS = 3
#: seconds for trials to end in order when the search cannot go on
END_SECONDS = 60.0


@dataclass(frozen=True)
class Wanted:
    """What a search is asked for."""

    recipe: str
    vary: Sequence[str]
    overrides: Sequence[str] = ()
    out: str | Path | None = None
    trials: int = 20
    minutes: float | None = None
    at_once: int | None = None
    resume: bool = False
    address: str | None = None

    def check(self) -> None:
        """
        Raises:
            UsageError: a number is none that a search could have.
        """
        for name, value in (("--trials", self.trials), ("--minutes", self.minutes), ("--at-once", self.at_once)):
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"{name} is {value}: give a number above 0")

    def command(self, out: Path) -> str:
        """The command that goes on with it."""
        varied = [word for one in self.vary for word in ("--vary", one)]
        given = [word for one in self.overrides for word in ("--set", one)]
        rest = ["--trials", self.trials, "--out", out, "--resume"]
        return command_line("rayrnn", "tune", self.recipe, *varied, *given, *rest)


@dataclass(frozen=True)
class Found:
    """How a search ended."""

    out: Path
    monitor: str
    rows: tuple[Row, ...]
    best: Row | None

    def to_json(self) -> dict[str, Any]:
        """What `rayrnn tune --json` prints."""
        trials = [
            {
                "run": str(self.out / row.folder),
                "state": row.state,
                "rounds": row.rounds,
                "best": row.best,
                "values": dict(row.values),
            }
            for row in self.rows
        ]
        best = None if self.best is None else trials[self.rows.index(self.best)]
        recipe = None if best is None else str(self.out / BEST)
        return {"out": str(self.out), "monitor": self.monitor, "best": best, "recipe": recipe, "trials": trials}


def tune(wanted: Wanted, console: Console) -> Found:
    """Search a recipe's settings, and write the best recipe.

    Raises:
        UsageError: there is nothing to vary, the recipe does not bear it, or the directory holds another search.
        DataError: the data cannot be read.
        ClusterError: there is no cluster, or it has no room for a trial.
        RunError: no trial comes to a result.
        Interrupted: the user stopped the search; `--resume` goes on with it.
    """
    wanted.check()
    varied = read_varied(wanted.vary)
    origin, text = read_recipe(wanted.recipe)
    base = recipe_from(text, origin, wanted.overrides)
    check_trust(base, trusted=not is_stored(wanted.recipe), where=wanted.recipe)
    recipes = [base, *check_varied(varied, text, origin, wanted.overrides)]
    if not base.data.held_out:
        raise UsageError(f"{origin} holds nothing out (data.held_out: 0), by which trials could be compared")
    out = Path(wanted.out) if wanted.out is not None else Path("runs") / f"{base.name}-tune"
    with _taken(out, wanted, text), connect(wanted.address, say=console.print) as connection:
        for recipe in recipes:
            check_room(recipe.averaging)
        trials = int(min(wanted.trials, combinations(varied)))
        at_once = wanted.at_once or _fitting(recipes)
        study = Study(
            out / STUDY,
            varied,
            Monitor.of(base),
            trials=trials,
            evaluations=base.averaging.rounds // base.training.evaluate_every if base.averaging.minutes is None else 1,
            seed=base.seed,
        )
        plan = _Plan(wanted, out, text, origin, base, connection.address, trials, min(at_once, trials))
        return _Search(plan, varied, study, console).run()


@contextmanager
def _taken(out: Path, wanted: Wanted, text: str) -> Iterator[None]:
    """The directory of the search, a new one or the one to go on with, while no other search has it.

    Raises:
        UsageError: it holds something (without `--resume`), nothing to go on with, or another search.
    """
    settings = {"vary": list(wanted.vary), "set": list(wanted.overrides)}
    there = out / SETTINGS
    if wanted.resume and there.exists():
        _check_same(out, settings, text)
    elif wanted.resume:
        raise UsageError(f"{out} holds no search to go on with: it has no {SETTINGS}; leave --resume out")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "a search" if there.exists() else "something"
        raise UsageError(f"{out} holds {what} already: go on with it by --resume, or choose another --out")
    try:
        make_folder(out)
    except OSError as error:
        raise UsageError(f"the search cannot be written to {out}: {error.strerror}") from None
    with Run(out).held():
        if not there.exists():
            replace_durably(out / BASE, text.encode())
            replace_durably(there, json.dumps(settings, indent=1).encode())
        yield


def _check_same(out: Path, settings: dict[str, list[str]], text: str) -> None:
    try:
        before = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
        same_text = (out / BASE).read_text(encoding="utf-8") == text
    except (OSError, ValueError) as error:
        raise RunError(f"{out / SETTINGS} cannot be used: {error}") from None
    for name, option in (("vary", "--vary"), ("set", "--set")):
        if before.get(name) != settings[name]:
            was = " ".join(f"{option} {one}" for one in before.get(name, [])) or f"no {option}"
            raise UsageError(f"{out} is a search with {was}: go on with it by the same, or choose another --out")
    if not same_text:
        raise UsageError(
            f"{out} is a search of another recipe, which it keeps as {out / BASE}: go on with that one, or choose "
            "another --out"
        )


def _fitting(recipes: Sequence[Recipe]) -> int:
    """How many trials have room beside one another, whatever they take."""
    cpus = int(ray.cluster_resources().get("CPU", 1))
    most = max(min(one.averaging.most * one.averaging.cpus_per_worker, cpus) for one in recipes)
    return max(1, cpus // most)


@dataclass(frozen=True)
class _Plan:
    """A search, settled."""

    wanted: Wanted
    out: Path
    text: str
    origin: str
    base: Recipe
    address: str
    trials: int
    at_once: int


@dataclass
class _UnderWay:
    """A trial that learns."""

    asked: Asked
    row: Row
    process: Trial
    attempts: int = 1
    #: it was told to end because others are better
    stopped: bool = False
    diverged: bool = False


def _row_of(settled: Settled, out: Path) -> Row:
    """A trial of before, as it stands in its folder."""
    rounds: list[dict[str, Any]] = []
    with suppress(RunError):
        rounds = Run(out / settled.folder).metrics()
    failed: State = "diverged" if rounds and "culprit" in rounds[-1] else "failed"
    state: State = failed if settled.failed else "stopped early" if settled.pruned else "finished"
    return Row(settled.folder, settled.values, state, len(rounds), settled.best)


class _Search:
    """Trials, from the first to the last."""

    def __init__(self, plan: _Plan, varied: Sequence[Varied], study: Study, console: Console) -> None:
        self._plan = plan
        self._study = study
        self._monitor = Monitor.of(plan.base)
        self._console = console
        self._table = TrialTable(console, [one.key for one in varied], self._monitor.name)
        self._rows = [_row_of(one, plan.out) for one in study.settled]
        self._active: list[_UnderWay] = []
        self._failure: DataError | RunError | None = None
        #: why no further trial begins
        self._ending = ""
        minutes = plan.wanted.minutes
        self._deadline = None if minutes is None else time.monotonic() + 60 * minutes

    def run(self) -> Found:
        plan = self._plan
        self._table.say(f"{plan.trials} trials, {plan.at_once} at once, by the held-out {self._monitor.name}")
        try:
            with stop_requests(lambda: self._end("stopped")), self._table:
                while self._step():
                    time.sleep(POLL_SECONDS)
        finally:
            for one in self._active:
                one.process.kill()
        best = self._best()
        if best is not None:
            self._write_best(best)
        if self._failure is not None:
            raise self._failure
        self._table.finish(self._rows, of=plan.trials)
        found = Found(plan.out, self._monitor.name, tuple(self._rows), best)
        if self._ending == "stopped":
            words = "the search was stopped" + (f"; the best so far is {plan.out / best.folder}" if best else "")
            raise Interrupted(words, resume=plan.wanted.command(plan.out))
        self._say_end(best)
        return found

    def _step(self) -> bool:
        """Begin and follow trials; whether there is more to do."""
        if self._deadline is not None and time.monotonic() > self._deadline and not self._ending:
            self._end("out of time")
        while not self._ending and len(self._active) < self._plan.at_once and self._study.has_next(self._plan.trials):
            self._begin(self._study.ask())
        for one in list(self._active):
            self._follow(one)
        self._table.draw(self._rows, of=self._plan.trials)
        return bool(self._active) or (not self._ending and self._study.has_next(self._plan.trials))

    def _begin(self, asked: Asked) -> None:
        row = Row(asked.folder, asked.values)
        self._rows.append(row)
        try:
            recipe_from(self._plan.text, self._plan.origin, self._overrides(asked))
        except RecipeError as error:  # each value is borne by itself, and these are not together
            self._fail(asked, row, "failed", str(error))
            return
        self._active.append(_UnderWay(asked, row, self._start(asked)))
        self._table.tell(row)

    def _overrides(self, asked: Asked) -> list[str]:
        return [*self._plan.wanted.overrides, *(f"{key}={value}" for key, value in asked.values.items())]

    def _start(self, asked: Asked) -> Trial:
        plan = self._plan
        given = [word for one in self._overrides(asked) for word in ("--set", one)]
        trust = ["--trust"] if plan.base.asks_for_trust else []
        arguments = [str(plan.out / BASE), *given, "--address", plan.address, *trust]
        return Trial(plan.out / asked.folder, arguments, plan.out / f"{asked.folder}.log")

    def _follow(self, one: _UnderWay) -> None:
        code = one.process.exit_code  # asked first: what it wrote before its end is seen below
        self._take_news(one)
        if code is None:
            return
        self._active.remove(one)
        if code == 0:
            self._study.finish(one.asked)
            self._settle(one.row, "finished")
        elif one.stopped:
            self._study.stop(one.asked)
            self._settle(one.row, "stopped early")
        elif self._ending:
            self._settle(one.row, "to go on")  # in the study it stays under way
        elif one.diverged:
            self._fail(one.asked, one.row, "diverged", "its loss is not finite")
        elif code == DataError.exit_code:
            self._give_up(DataError(f"{one.row.folder} cannot read the data, and no other will: {self._words(one)}"))
            self._fail(one.asked, one.row, "failed", "")
        elif code != UsageError.exit_code and one.attempts < ATTEMPTS:
            self._table.say(f"{one.row.folder} has died, and is tried again: {self._words(one)}")
            self._active.append(replace(one, process=self._start(one.asked), attempts=one.attempts + 1))
        else:
            self._fail(one.asked, one.row, "failed", self._words(one))

    def _take_news(self, one: _UnderWay) -> None:
        """Hand in every evaluation that is new, and stop the trial where it is among the worse ones."""
        rounds = one.process.news()
        if not rounds:
            return
        one.row.rounds, one.diverged = len(rounds), "culprit" in rounds[-1]
        values = [line.get(f"held_out_{self._monitor.name}") for line in rounds if "held_out_loss" in line]
        for value in values[one.asked.evaluations :]:
            number = float(value) if isinstance(value, int | float) else float("nan")
            worse = self._study.report(one.asked, number)
            if worse and not one.stopped:
                one.stopped = True
                one.process.stop()
        one.row.best = one.asked.best

    @staticmethod
    def _words(one: _UnderWay) -> str:
        return one.process.last_words() or f"it ended with {one.process.exit_code}"

    def _fail(self, asked: Asked, row: Row, state: State, note: str) -> None:
        self._study.fail(asked)
        row.note = note
        self._settle(row, state)
        bad = [one for one in self._rows if one.state in ("failed", "diverged")]
        if len(bad) >= HOPELESS and not any(one.best is not None for one in self._rows):
            self._give_up(RunError(f"{len(bad)} trials have failed, and none has a result; the last one: {note}"))

    def _settle(self, row: Row, state: State) -> None:
        row.state = state
        self._table.tell(row)

    def _give_up(self, failure: DataError | RunError) -> None:
        self._failure = self._failure or failure
        self._end("failed")

    def _end(self, why: str) -> None:
        """Begin nothing more, and let those that learn finish their round."""
        if not self._ending:
            self._ending = why
            if self._active:
                self._table.say("ending the trials that learn; --resume goes on with them")
            for one in self._active:
                one.process.stop()

    def _best(self) -> Row | None:
        best: Row | None = None
        for row in self._rows:
            if row.best is not None and self._monitor.prefers(row.best, None if best is None else best.best):
                best = row
        return best

    def _write_best(self, best: Row) -> None:
        recipe = open_run(self._plan.out / best.folder, trust=True).recipe
        varied = "".join(f"#   {key}: {value}\n" for key, value in best.values.items())
        words = (
            f"# The best of {len(self._rows)} trials of {self._plan.origin}, by rayrnn tune: the held-out "
            f"{self._monitor.name} of {best.folder} was {best.best:.6g}.\n# Varied were:\n{varied}"
        )
        replace_durably(self._plan.out / BEST, (words + recipe.to_yaml()).encode())

    def _say_end(self, best: Row | None) -> None:
        out = self._plan.out
        if best is None:
            self._table.say(f"no trial has come to an evaluation; {self._plan.wanted.command(out)} goes on")
            return
        self._table.say(f"best      {best.folder}: {self._monitor.name} {best.best:.4f}; its recipe is {out / BEST}")
        if self._ending == "out of time":
            self._table.say(f"go on     {self._plan.wanted.command(out)}")
        trust = self._plan.base.asks_for_trust
        self._table.say(f"next      {command_line('rayrnn', 'evaluate', out / best.folder)}{trust}")
