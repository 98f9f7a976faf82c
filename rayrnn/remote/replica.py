"""Keeps the newest checkpoint of a run on a second host, so that it survives the host that wrote it.

A run's directory lies on the head's own disk. What `--resume` needs of it is copied to another host, below
~/.rayrnn/kept/<job>, and found there when the head has lost it.
"""

import shutil
import threading
from contextlib import suppress
from pathlib import Path

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayrnn.durable import write_durably
from rayrnn.remote.screen_log import Relay
from rayrnn.runs.checkpoints import (
    name_of,
    newest_name,
    newest_round,
    remove_old,
    round_of,
    unfinished_checkpoint,
)
from rayrnn.runs.directory import Run
from rayrnn.runs.layout import ENCODING, METRICS, MODEL

#: of a run, besides its checkpoint
NEEDED = (ENCODING, METRICS, MODEL)
#: between two looks for a new checkpoint
LOOK_SECONDS = 0.5
#: for another host to write one down, or to answer at all
ANSWER_SECONDS = 60.0

#: names below the run directory -> contents
Files = dict[str, bytes]


class Courier:
    """Watches a run's checkpoints from a thread: tells the user's side of each, and has it kept elsewhere."""

    def __init__(self, run: Run, job: str, relay: Relay) -> None:
        self._run = run
        self._job = job
        self._relay = relay
        self._told = newest_name(run.checkpoints)
        self._keeper: ActorHandle | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="courier", daemon=True)
        self._thread.start()

    def close(self, *, finished: bool) -> None:
        """Deliver the last checkpoint; what is kept of a run that has `finished` is of no use any more."""
        self._ending.set()
        self._thread.join(ANSWER_SECONDS)
        if finished and self._keeper is not None:
            with suppress(RayError):
                ray.get(self._keeper.forget.remote(), timeout=ANSWER_SECONDS)

    def _watch(self) -> None:
        while not self._ending.wait(LOOK_SECONDS):
            self._look()
        self._look()

    def _look(self) -> None:
        name = newest_name(self._run.checkpoints)
        if name == self._told:
            return
        self._told = name
        self._relay.checkpoint(name)
        with suppress(OSError):  # it was replaced by a newer one meanwhile
            self._have_kept(files_of(self._run.path, name))

    def _have_kept(self, files: Files) -> None:
        """Any other host will do; where there is none, nobody keeps it."""
        nodes = _other_nodes() if self._keeper is None else []
        while self._keeper is not None or nodes:
            keeper = self._keeper or _on(nodes.pop(), Keeper).remote(self._job)
            try:
                ray.get(keeper.keep.remote(files), timeout=ANSWER_SECONDS)
                self._keeper = keeper
                return
            except RayError:
                nodes = _other_nodes() if self._keeper is not None else nodes
                self._keeper = None


class Keeper:
    """One a run, on another host than the head."""

    def __init__(self, job: str) -> None:
        self._folder = kept_folder(job)

    def keep(self, files: Files) -> None:
        """Write a run's newest checkpoint and what belongs to it in the place of the one before."""
        write_files(self._folder, files)

    def forget(self) -> None:
        """Remove what was kept."""
        shutil.rmtree(self._folder, ignore_errors=True)


def recover(run: Run, job: str) -> str | None:
    """Take over what other hosts have kept, if it is newer than what is here; the address of the host that had it."""
    here = newest_name(run.checkpoints)
    nodes = _other_nodes()
    answers = [_on(node, _newest_kept).remote(job) for node in nodes]
    newest, node = max(zip(map(_answer, answers), nodes, strict=True), default=(-1, ""))
    if newest <= round_of(here):
        return None
    files, address = ray.get(_on(node, _kept).remote(job, name_of(newest)), timeout=ANSWER_SECONDS)
    write_files(run.path, files)
    return str(address)


def kept_folder(job: str) -> Path:
    """Where a host keeps a run of another."""
    return Path.home() / ".rayrnn" / "kept" / job


def files_of(folder: Path, checkpoint: str) -> Files:
    """One checkpoint of the run in `folder`, and what belongs to it.

    Raises:
        OSError: the checkpoint is not there (any more).
    """
    files = [folder / name for name in NEEDED if (folder / name).exists()]
    files += list((folder / "checkpoints" / checkpoint).iterdir())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def write_files(folder: Path, files: Files) -> None:
    """Write them durably; the checkpoint among them becomes visible when it is whole, and older ones go."""
    (name,) = {Path(path).parent.name for path in files if Path(path).parent.name}
    with unfinished_checkpoint(folder / "checkpoints", name) as unfinished:
        for path, content in files.items():
            write_durably(unfinished / Path(path).name if Path(path).parent.name else folder / path, content)
    remove_old(folder / "checkpoints", newest=round_of(name))


def _newest_kept(job: str) -> int:
    """The round of the newest checkpoint here that verifies; -1 where there is none."""
    return newest_round(kept_folder(job) / "checkpoints")


def _kept(job: str, name: str) -> tuple[Files, str]:
    return files_of(kept_folder(job), name), ray.util.get_node_ip_address()


def _answer(reference: ray.ObjectRef) -> int:
    """A host that does not answer keeps nothing for us."""
    with suppress(RayError):
        return int(ray.get(reference, timeout=ANSWER_SECONDS))
    return -1


def _other_nodes() -> list[str]:
    here = ray.get_runtime_context().get_node_id()
    return [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]


def _on(node: str, what: object) -> ray.remote_function.RemoteFunction:
    """A task or an actor of that node."""
    place = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=place)(what)
