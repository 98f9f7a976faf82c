"""The run directory: everything a run produced, and all that generate, evaluate, predict and resume need.

Its files are listed in rayrnn/runs/layout.py.
"""

import atexit
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from rayrnn.data.encoding import Encoding
from rayrnn.durable import make_folder, replace_durably
from rayrnn.errors import RayrnnError, RunError, UsageError
from rayrnn.foreign import open_inside
from rayrnn.recipe import Recipe, code_named_in, parse_recipe
from rayrnn.recipe.table_sections import GivenData
from rayrnn.reporting.markup import figure_alone, paragraph
from rayrnn.reporting.overview import overview, told_of
from rayrnn.runs.asked import Asked
from rayrnn.runs.checkpoints import Checkpoint, newest_name, write_checkpoint
from rayrnn.runs.kept_recipe import kept_recipe, stored_recipe
from rayrnn.runs.layout import (
    CHECKPOINTS,
    DATA,
    ENCODING,
    LOCK,
    LOG,
    MODEL,
    RECIPE,
    SHOWN,
    SKIPPED,
    refuse_links,
)
from rayrnn.runs.round_lines import append_line, read_lines, replace_lines
from rayrnn.runs.schema import StoredData, StoredEncoding, read_stored
from rayrnn.runs.signed_tensors import tensors_to_bytes
from rayrnn.runs.store import Store, is_address
from rayrnn.wording import closest, path_of, shortened

#: the sections of a recipe that a resumed run cannot change
FIXED = ("task", "data", "model", "seed")
#: what to do where a run is
ALREADY_THERE = "continue it with --resume, or choose another --out (in Python: resume=True, or another out=)"


class Run(Asked):
    """One run directory.

    Args:
        address: the place in a store that the directory stands for.
        trusted: whether code that its recipe names, and that is not rayrnn's, may be imported.
    """

    def __init__(self, path: Path, *, address: str | None = None, trusted: bool = False) -> None:
        self.path = path
        self.address = address
        self.trusted = trusted
        #: why nobody may go on with it: its address is another's now
        self.failure: RunError | None = None
        self._listeners: list[Callable[[], None]] = []

    def tell(self, listener: Callable[[], None]) -> None:
        """Have `listener` called whenever a file of the run is there anew; logs and metrics grow without a word."""
        self._listeners.append(listener)

    def fail(self, failure: RunError) -> None:
        """Have whoever trains the run end with this; from any thread."""
        self.failure = failure

    @property
    def name(self) -> str:
        """Where the run is, as the user writes it."""
        return self.address or str(self.path)

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    @property
    def log(self) -> Path:
        return self.path / LOG

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe that the run was started with.

        Raises:
            RunError: the file cannot be read, or something of it is lost.
        """
        return kept_recipe(self.path, trusted=self.trusted)

    @property
    def encoding(self) -> Encoding:
        """How the run's data became numbers.

        Raises:
            RunError: the file is not there, or is none; names it and the key.
        """
        encoding = self.stored_encoding
        if encoding is None:
            raise RunError(
                f"{self.path / ENCODING} is not there: the run has not begun to learn; train it with --resume"
            )
        return encoding

    @property
    def stored_encoding(self) -> Encoding | None:
        """The same; None in a run that has none yet."""
        try:
            return Encoding.from_json(read_stored(self.path, ENCODING, StoredEncoding).model_dump())
        except FileNotFoundError:
            return None

    @property
    def stored_data(self) -> StoredData | None:
        """What the run has learned from; None where it has not begun, or rayrnn 0.1 did."""
        try:
            return read_stored(self.path, DATA, StoredData)
        except FileNotFoundError:
            return None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other process from training here; the system lets go when this one dies, however it dies.

        Raises:
            UsageError: another process trains in this directory, or something in it is a link.
            RunError: the directory cannot be written.
        """
        refuse_links(self.path)
        try:
            descriptor = open_inside(self.path, LOCK, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        except OSError as error:
            raise self._unwritable(error) from None
        with open(descriptor, "r+", encoding="utf-8", errors="replace") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = lock.read(20).strip() or "unknown"
                raise UsageError(
                    f"{self.path} is being trained by another process (number {holder}): wait for its end, or stop it"
                ) from None
            except OSError:
                pass  # a file system without locks: nobody can be kept out
            try:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, str(os.getpid()).encode())  # not through a buffer, which a full disk leaves full
            except OSError as error:
                raise self._unwritable(error) from None
            yield

    def _unwritable(self, error: OSError) -> RunError:
        where = f"the run cannot be written to {self.path}: {error.strerror}"
        return RunError(f"{where}; make room there, or choose another place")

    def write_recipe(self, recipe: Recipe) -> None:
        self._replace(RECIPE, recipe.to_yaml().encode())

    def write_encoding(self, encoding: Encoding) -> None:
        self._replace(ENCODING, json.dumps(encoding.to_json(), ensure_ascii=False).encode())

    def write_data(self, data: StoredData) -> None:
        self._replace(DATA, data.model_dump_json(indent=1).encode())

    def write_skipped(self, reasons: Sequence[str]) -> Path:
        """List what the data's source could not read, a line each."""
        self._replace(SKIPPED, "".join(f"{reason}\n" for reason in reasons).encode())
        return self.path / SKIPPED

    def write_model(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Put these weights in the place of the run's best."""
        self._replace(MODEL, tensors_to_bytes(weights))

    def write_checkpoint(self, round_number: int, checkpoint: Checkpoint) -> None:
        """Store what training goes on from after so many rounds; see rayrnn/runs/checkpoints.py.

        Raises:
            OSError: it cannot be written; the checkpoints before it are untouched.
        """
        write_checkpoint(self.checkpoints, round_number, checkpoint)
        self._say_written()

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Add a line, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        append_line(self.path, line)

    def amend_metrics(self, round_number: int, values: Mapping[str, Any]) -> None:
        """Add values to a round's line; nothing where there is no such line."""
        lines = self.metrics()
        replace_lines(self.path, [line | dict(values) if line["round"] == round_number else line for line in lines])

    def cut_metrics(self, rounds: int) -> None:
        """Forget the rounds after the first `rounds`: a resumed run learns them anew."""
        replace_lines(self.path, [line for line in self.metrics() if line["round"] <= rounds])

    def append_log(self, text: str) -> None:
        """Add to what Ray and the workers said.

        Raises:
            OSError: it cannot be written.
        """
        descriptor = open_inside(self.path, LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        with open(descriptor, "a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(text)

    def _replace(self, name: str, content: bytes) -> None:
        replace_durably(self.path / name, content)
        self._say_written()

    def _say_written(self) -> None:
        for listener in self._listeners:
            listener()

    def metrics(self) -> list[dict[str, Any]]:
        """One mapping a round; what a kill or a full disk left of a line is passed over.

        Raises:
            RunError: the file cannot be read, or a line is of no round; names it and the key.
        """
        return read_lines(self.path)

    def __repr__(self) -> str:
        """Where it is, what it learns and how far it has come; it never raises."""
        try:
            recipe, rounds = self.recipe, self.metrics()
            done = rounds[-1]["round"] if rounds else 0
            learned = f"{recipe.task}, {recipe.model.describe()}, {done} of {recipe.averaging.rounds} rounds"
        except RayrnnError:
            learned = "cannot be read"
        return f"<run {self.name}: {learned}>"

    def _repr_html_(self) -> str:
        """As a notebook shows it; what cannot be read says why."""
        try:
            return figure_alone(overview(told_of(self.path, self.name, self.recipe)))
        except RayrnnError as error:
            return figure_alone(paragraph(str(error)))


def create_run(path: Path) -> Run:
    """Make a new run directory.

    Raises:
        UsageError: there is a run already, the place cannot be written, or something in it is a link.
    """
    if ":/" in str(path):
        raise UsageError(
            f"{path} is no directory of this machine; a run can be written to a directory, or without --cluster to an "
            "address that begins with s3://, gs:// or hdfs://"
        )
    _refuse_run(path)
    try:
        refuse_links(path)
        check_new(path)
        make_folder(path / CHECKPOINTS)
    except (OSError, ValueError) as error:  # a name may have a NUL
        raise UsageError(f"the run cannot be written to {path}: {error}") from None
    return Run(path)


def _refuse_run(path: Path) -> None:
    if has_run(path):
        raise UsageError(f"{path} holds a run already: {ALREADY_THERE}")


@contextmanager
def taken(path: Path, recipe: Recipe, *, resume: bool) -> Iterator[Run]:
    """The run at `path`, a new one or (with `resume`) the one that is there, while no other process can train it.

    Raises:
        UsageError: there is a run (without `resume`) or one of another recipe, the place cannot be written, something
            in it is a link, or another process trains it.
    """
    goes_on = has_run(path) and resume  # it says, too, where no directory can be called so
    is_new = not path.exists()
    run = resumable(path, recipe) if goes_on else create_run(path)
    with run.held():
        if not resume:
            _refuse_run(path)  # another process may have trained there between the two looks
        try:
            yield run
        except BaseException:
            if not has_run(path):
                _clear(run, is_new=is_new)
            raise


def _clear(run: Run, *, is_new: bool) -> None:
    """Take back what was made for a run that has not begun; a log with words in it stays, and all that is not ours."""
    with suppress(OSError):
        if run.log.exists() and run.log.stat().st_size:
            return
        run.log.unlink(missing_ok=True)
        run.checkpoints.rmdir()
        (run.path / LOCK).unlink()
        if is_new:
            run.path.rmdir()


def check_new(path: Path) -> None:
    """
    Raises:
        UsageError: the directory has checkpoints, and nothing says what they have learned.
    """
    if newest := newest_name(path / CHECKPOINTS):
        raise UsageError(
            f"{path} has checkpoints ({newest}) and no {RECIPE}, so nothing says what they have learned: put its "
            f"{RECIPE} back there, or choose another --out"
        )


def has_run(path: Path) -> bool:
    """Whether a run lies in this directory.

    Raises:
        UsageError: no directory can have this name, or nobody may look.
    """
    try:
        return (path / RECIPE).exists()
    except (OSError, ValueError) as error:
        raise UsageError(f"{shortened(str(path))} cannot be a run directory: {error.args[-1]}") from None


def open_run(path: str | Path, *, trust: bool = False) -> Run:
    """Open an existing run.

    Args:
        path: its directory; or its address in a store, of which a copy without the checkpoints is made that lasts as
            long as this process.
        trust: code that the run names and that is not rayrnn's (a network, a task, a source) may be imported and run.

    Raises:
        UsageError: there is no run at `path`, or the store cannot be reached.
    """
    if is_address(path):
        return _copied(Store(str(path)), trust)
    folder = path_of(path)
    if not has_run(folder):
        close = None
        with suppress(OSError, UsageError):  # others may not be looked at
            close = closest(folder.name, [other.name for other in folder.parent.iterdir() if has_run(other)])
        advice = f"did you mean {folder.parent / close}?" if close else "`rayrnn train` writes one, usually under runs/"
        raise UsageError(f"{path} is no run: it has no {RECIPE}; {advice}")
    return Run(folder, trusted=trust)


def resumable(path: Path, recipe: Recipe, *, address: str | None = None) -> Run:
    """The run at `path` (which stands for `address`), if `recipe` may go on with it.

    Raises:
        UsageError: `recipe` differs in what a run cannot change, or something in the run is a link.
    """
    refuse_links(path)
    # a stranger's run may name other code than the recipe, which is the user's own
    run = open_run(path, trust=code_named_in(parse_recipe(*stored_recipe(path))) == recipe.named_code)
    stored = run.recipe
    changed = [section for section in FIXED if getattr(stored, section) != getattr(recipe, section)]
    if changed == ["data"] and isinstance(stored.data, GivenData) and run.stored_data is None:
        changed = []  # it was imported, and has no data yet: the recipe says where that is
    if changed:
        raise UsageError(
            f"{address or path} was trained with another recipe: {', '.join(changed)} differ; resume it with its own, "
            f"{path / RECIPE}, or choose another --out"
        )
    return run


def _copied(store: Store, trust: bool) -> Run:
    folder = tempfile.TemporaryDirectory(prefix="rayrnn-run-")
    atexit.register(folder.cleanup)
    there = store.sizes()
    if RECIPE not in there:
        raise UsageError(f"{store.address} is no run: it has no {RECIPE}; `rayrnn train --out` writes one there")
    for name in SHOWN:
        if name in there:
            (Path(folder.name) / name).write_bytes(store.read(name))
    return Run(Path(folder.name), address=store.address, trusted=trust)
