"""Training on the cluster of a cluster file from this machine: send, submit, follow, and have the run come back."""

import shlex
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from rayrnn.cluster.cluster_file import read_cluster_file
from rayrnn.cluster.on_host.facts import RUNS
from rayrnn.cluster.ssh import Head, Unreachable, find_head
from rayrnn.errors import ClusterError, Interrupted, RayrnnError, RunError, UsageError
from rayrnn.recipe import Recipe, validate_recipe
from rayrnn.remote.fetch import Fetcher, Record, load_record, new_job_name, path_on_head
from rayrnn.remote.follow import ALIVE, Listener, ask, error_of, find_run, runs_of
from rayrnn.remote.job import PID, SPEC, WORK, JobSpec
from rayrnn.remote.screen_log import Word, show, summary_of
from rayrnn.remote.upload import OUTSIDE, Upload, gather
from rayrnn.runs.directory import Run, create_run, has_run, open_run, taken
from rayrnn.runs.layout import METRICS, RECIPE, SCREEN, refuse_links
from rayrnn.stop_signals import stop_requests
from rayrnn.terminal import Terminal
from rayrnn.training.screen import Screen
from rayrnn.training.summary import Summary
from rayrnn.wording import command_line, path_of, shortened

#: seconds without the head before this side gives up; the run goes on without it
PATIENCE = 600.0
#: what the head is asked before anything travels: whether the run is on, and which rayrnn is there
GREET = f"""mkdir -p {RUNS}/{{job}}/{WORK} && cd {RUNS}/{{job}} && if {ALIVE}; then echo running; else echo free; fi
python3 -c "from importlib.metadata import version as v; print(v('rayrnn'), v('ray'))" || echo none"""
#: a polite kill: the driver finishes its round; a second one stops at once
STOP = f"cd {RUNS}/{{job}} && if {ALIVE}; then kill -TERM $(cat {PID}); fi"


def train_on_cluster(
    recipe: Recipe,
    file: Path,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    detach: bool = False,
    console: Console | None = None,
    patience: float = PATIENCE,
) -> Summary | None:
    """Train `recipe` as a Ray job on the cluster of `file`, as `train` does here, and bring the run directory home.

    Args:
        detach: leave as soon as the workers learn; `follow_run` finds the run again.
        patience: seconds without the head before this side gives up.

    Returns:
        how it ended; None where it was left alone.

    Raises:
        UsageError: another process trains into `out`.
        RayrnnError: the one that the run ended with, or that kept it from starting.
    """
    head = find_head(read_cluster_file(file))
    path = path_of(out) if out is not None else Path("runs") / recipe.name
    upload = gather(recipe)
    with taken(path, recipe, resume=resume) as run:
        record = load_record(run) or Record(new_job_name(path.name), path_on_head(path))
        remote = RemoteRun(head, record, run, recipe, console or Terminal(stderr=True), patience)
        remote.dispatch(upload, resume=resume)
        return remote.follow(detach=detach)


def follow_run(run: str, file: Path | None, *, trust: bool = False, console: Console | None = None) -> Summary | None:
    """Say what a run on a cluster has said so far, follow it to its end, and bring its directory home.

    Args:
        run: the run directory, or (with `file`) the name of one that is only on the cluster yet.
        file: the cluster file; without it the one that the run was begun with from this machine.
        trust: the task or source of data that the run names may be imported, where it is not rayrnn's.

    Returns:
        how it ended; None where the user left it alone.

    Raises:
        UsageError: there is no such run, or it was begun elsewhere and no `file` is given.
        RayrnnError: the one that the run ended with.
    """
    console = console or Terminal(stderr=True)
    if has_run(path_of(run)):
        here = open_run(run, trust=trust)
        record = load_record(here)
        if record is None:
            raise UsageError(
                f"{run} was trained on this machine, not on a cluster: its rounds are in {here.path / METRICS}, "
                f"and what Ray said in {here.log}"
            )
        file = file or record.file()
        if file is None:
            raise UsageError(
                f"{run} was not begun from here: name the file of its cluster with --cluster (a run directory, which "
                "may be anybody's, is not asked for it)"
            )
        head = find_head(read_cluster_file(file))
        return RemoteRun(head, record, here, here.recipe, console, PATIENCE).follow(attached=True)
    if file is None:
        raise UsageError(f"{run} is no run here; name the cluster file of one that is elsewhere with --cluster")
    head = find_head(read_cluster_file(file))
    found = find_run(run, runs_of(head)["runs"], file)
    here = create_run(Path(found["out"]))
    recipe = validate_recipe(found["recipe"], trusted=trust)
    here.write_recipe(recipe)
    record = Record(found["job"], found["out"])
    record.save(here, file)
    return RemoteRun(head, record, here, recipe, console, PATIENCE).follow(attached=True)


class RemoteRun:
    """One run on the cluster, seen from here.

    Raises:
        UsageError: something in the run directory is a link.
    """

    def __init__(self, head: Head, record: Record, run: Run, recipe: Recipe, console: Console, patience: float) -> None:
        refuse_links(run.path)
        self._head = head
        self._record = record
        self._run = run
        self._recipe = recipe
        #: when the word that is shown was said
        self._now = 0.0
        self._screen = Screen(console, recipe, clock=lambda: self._now)
        self._listener = Listener(head, record.job, run.path / SCREEN, patience=patience)
        self._end: Word | None = None
        self._summary: Word | None = None
        self._leaving = False

    def dispatch(self, upload: Upload, *, resume: bool) -> None:
        """Send what the job needs, and hand it to Ray.

        Raises:
            ClusterError: the head cannot be reached, has another rayrnn, or Ray does not take the job.
        """
        job = shlex.quote(self._record.job)
        where = f"{RUNS}/{self._record.job}"
        self._greet(self._head.run(GREET.format(job=job)).split())
        spec = JobSpec(upload.recipe.model_dump(mode="json"), self._record.out, resume, version("rayrnn"))
        self._head.run(f"cat > {shlex.quote(where)}/{SPEC}", input=spec.to_json())
        if upload.num_bytes:
            self._screen.say(f"sending {upload} ...")
        if upload.inside:
            self._head.send(Path.cwd(), upload.inside, f"{where}/{WORK}")
        if upload.outside:
            self._head.send(Path("/"), upload.outside, f"{where}/{WORK}/{OUTSIDE}")
        for code in upload.code:
            self._head.send(Path(code.folder), tuple(code.content), f"{where}/{WORK}")
        if resume:
            fetcher = Fetcher(self._head, self._record, self._run, self._screen.warn)
            fetcher.send_back()
            fetcher.close()
        self._screen.say(f"starting the job on {self._head.target} ...")
        self._submit(resume=resume)
        (self._run.path / SCREEN).unlink(missing_ok=True)
        self._run.write_recipe(self._recipe)
        self._record.save(self._run, self._head.file.path)

    def follow(self, *, detach: bool = False, attached: bool = False) -> Summary | None:
        """Show what the run says, fetch its checkpoints, and see to its end.

        Args:
            detach: leave when the workers learn, or at Ctrl-C.
            attached: to a run that somebody else began: Ctrl-C leaves it alone.
        """
        fetcher = Fetcher(self._head, self._record, self._run, self._screen.warn)
        request = self._leave if detach or attached else self._request_stop
        try:
            with stop_requests(request):
                self._listen(fetcher, until_start=detach)
        except KeyboardInterrupt:
            self._ask_to_stop()
            raise Interrupted(f"left at once; the run may still be finishing: {self._how_to_find()}") from None
        except Unreachable as error:
            raise ClusterError(f"{error}\n  the run goes on without this machine: {self._how_to_find()}") from None
        finally:
            self._screen.stop()
            fetcher.close()
        if self._end is None and self._leaving:
            self._screen.say(f"the run goes on: {self._how_to_find()}")
            return None
        return self._conclude(fetcher)

    def _submit(self, *, resume: bool) -> None:
        try:
            ask(self._head, "submit", self._record.job)
        except RayrnnError:
            if not resume:
                self._head.run(self._remove())
            raise

    def _greet(self, answer: list[str]) -> None:
        if answer[0] == "running":
            raise ClusterError(f"this run is being trained already: {self._how_to_find()}")
        check_versions(self._head, answer)

    def _listen(self, fetcher: Fetcher, *, until_start: bool) -> None:
        for known in self._listener.known():
            self._take(known, fetcher)
        if self._end is not None:
            return
        for word in self._listener.words(cut=self._say_cut, mended=self._say_mended):
            if word is not None:
                self._take(word, fetcher)
            self._leaving = self._leaving or (until_start and word is not None and word["word"] == "start")
            if self._leaving:
                return

    def _take(self, word: Word, fetcher: Fetcher) -> None:
        kind, self._now = word["word"], word.get("time", self._now)
        if kind == "checkpoint":
            fetcher.want(word["name"])
        elif kind == "summary":
            self._summary = word
        elif kind == "end":
            self._end = word
        else:
            self._show(_as_here(word))

    def _show(self, word: Word) -> None:
        """
        Raises:
            RunError: it is no word; the transcript may be anybody's.
        """
        try:
            show(word, self._screen, self._run)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise RunError(
                f"{self._run.path / SCREEN} cannot be used: {shortened(word)} is no word of a run "
                f"({type(error).__name__}: {error})"
            ) from None

    def _conclude(self, fetcher: Fetcher) -> Summary:
        """Bring everything home; raise what the run ended with."""
        self._screen.say(f"fetching the run to {self._run.path} ...")
        self._fetch_all(fetcher)
        if self._end is None:
            raise RunError(
                "the run's driver on the head is gone without a last word: it was killed, or Ray or the host was "
                f"started again; more may be in {self._run.log}\ngo on with: {self._resume()}"
            )
        if self._end["exit_code"]:
            raise self._error(self._end)
        assert self._summary is not None
        self._head.run(self._remove())
        summary = summary_of(self._summary, self._run)
        self._screen.finish(summary, self._run.metrics())
        return summary

    def _fetch_all(self, fetcher: Fetcher) -> None:
        """What a run has failed of is told, even where it has left nothing that could be fetched."""
        try:
            fetcher.fetch_all()
        except ClusterError as error:
            if self._end is None or not self._end["exit_code"]:
                raise
            self._screen.warn(f"the run is not fetched: {error}")

    def _remove(self) -> str:
        return f"rm -rf {RUNS}/{shlex.quote(self._record.job)}"

    def _request_stop(self) -> None:
        """The driver there says what it does about it."""
        threading.Thread(target=self._ask_to_stop, name="stop", daemon=True).start()

    def _ask_to_stop(self) -> None:
        ask_to_stop(self._head, self._record.job, self._screen.warn)

    def _leave(self) -> None:
        self._leaving = True

    def _say_cut(self) -> None:
        self._screen.warn(f"the link to {self._head.target} is broken; the run goes on there, trying to reach it again")

    def _say_mended(self) -> None:
        self._screen.warn(f"the link to {self._head.target} is there again")

    def _how_to_find(self) -> str:
        return ", ".join(
            [command_line("rayrnn", "logs", self._run.path), command_line("rayrnn", "status", self._head.file.path)]
        )

    def _resume(self) -> str:
        path, cluster = self._run.path, command_line("--cluster", self._head.file.path)
        resume = command_line("rayrnn", "train", path / RECIPE, "--out", path, "--resume")
        return f"{resume}{self._recipe.asks_for_trust} {cluster}"

    def _error(self, end: Word) -> RayrnnError:
        """What the run ended with; the head knows neither the cluster file nor where things lie here."""
        message = _in_place(end["message"]).replace(self._record.out, str(self._run.path))
        if end["resumable"]:
            return Interrupted(message, resume=self._resume())
        return error_of(end["exit_code"])(message)


def check_versions(head: Head, answer: Sequence[str]) -> None:
    """See what the head has, by the last words of an answer: the versions of its rayrnn and Ray, or `none`.

    Raises:
        ClusterError: there is no rayrnn, or another one than here.
    """
    ours, up = [version("rayrnn"), version("ray")], command_line("rayrnn", "up", head.file.path)
    if answer[-1] == "none":
        raise ClusterError(f"there is no rayrnn on the head {head.target}: `{up}` installs it")
    if list(answer[-2:]) != ours:
        raise ClusterError(
            f"the head {head.target} has rayrnn {answer[-2]} with Ray {answer[-1]}, here are {ours[0]} and {ours[1]}: "
            f"`{up}` installs this machine's"
        )


def ask_to_stop(head: Head, job: str, warn: Callable[[str], None]) -> None:
    """Have a job's driver finish its round; whatever keeps the head from hearing of it is told."""
    try:
        head.run(STOP.format(job=shlex.quote(job)))
    except ClusterError as error:
        warn(f"the run was not told to stop: {error}")
    except BaseException as error:  # of a thread, whose end nobody would see
        warn(f"the run was not told to stop: {type(error).__name__}: {error}")


def _as_here(word: Word) -> Word:
    """Paths from outside the current directory, as they are called here."""
    return {name: _in_place(value) if isinstance(value, str) else value for name, value in word.items()}


def _in_place(text: str) -> str:
    return text.replace(f"{OUTSIDE}/", "/")
