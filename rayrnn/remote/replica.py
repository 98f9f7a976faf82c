"""Keeps the newest checkpoint of a run on a second host, so that it survives the host that wrote it.

A run's directory lies on the head's own disk. What `--resume` needs of it is copied to another host, below
~/.rayrnn/kept/<job>, and found there when the head has lost it.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayrnn.background import NewestOnly
from rayrnn.cluster.on_host.facts import KEPT
from rayrnn.cluster.ray_internals import reason_of
from rayrnn.durable import replace_durably, write_durably
from rayrnn.runs.checkpoints import (
    name_of,
    newest_round,
    remove_old,
    round_of,
    unfinished_checkpoint,
)
from rayrnn.runs.directory import Run
from rayrnn.runs.layout import ENCODING, METRICS, MODEL

#: of a run, besides its checkpoint
NEEDED = (ENCODING, METRICS, MODEL)
#: for another host to write one down, or to answer at all
ANSWER_SECONDS = 60.0

#: names below the run directory -> contents
Files = dict[str, bytes]


class Replica:
    """One run's copy on another host than the head: its newest checkpoint, and what belongs to that.

    Any host that has room will do; where there is none, the user hears of it once, and the run goes on without.

    Args:
        warn: takes what the user must know.
    """

    def __init__(self, run: Run, job: str, warn: Callable[[str], None]) -> None:
        self._run = run
        self._job = job
        self._warn = warn
        self._host: ActorHandle | None = None
        self._has_warned = False
        # a host that fails is replaced by another; any other error ends the copying
        self._copier = NewestOnly(self._copy, name="replica", on_death=self._say_dead)

    def keep(self, checkpoint: str) -> None:
        """Have the checkpoint of this name copied soon; never waits."""
        self._copier.put(checkpoint)

    def close(self, *, finished: bool) -> None:
        """Copy the last checkpoint; the copy of a run that has `finished` is of no use any more."""
        self._copier.close(ANSWER_SECONDS)
        if finished and self._host is not None:
            with suppress(RayError):
                ray.get(self._host.forget.remote(), timeout=ANSWER_SECONDS)

    def _copy(self, checkpoint: str) -> None:
        try:
            files = files_of(self._run.path, checkpoint)
        except FileNotFoundError:
            return  # a newer one has taken its place
        if self._host is not None and _fault(self._host, files) is None:
            return
        self._host, fault = None, "there is no other"
        for node in other_nodes():
            host = _on(node, ReplicaHost).remote(self._job)
            fault = _fault(host, files) or ""
            if not fault:
                self._host = host
                return
        if not self._has_warned:
            self._has_warned = True
            self._warn(f"no other host keeps a copy of the run ({fault}): if the head's disk is lost, so is the run")

    def _say_dead(self, error: BaseException) -> None:
        self._warn(f"no other host gets copies of the run any more: {type(error).__name__}: {error}")


class ReplicaHost:
    """One a run, an actor on another host than the head."""

    def __init__(self, job: str) -> None:
        self._folder = kept_folder(job)

    def keep(self, files: Files) -> None:
        """Write a run's newest checkpoint and what belongs to it in the place of the one before."""
        write_files(self._folder, files)

    def forget(self) -> None:
        """Remove what was kept."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _fault(host: ActorHandle, files: Files) -> str | None:
    """Have a host keep them; why it does not."""
    try:
        ray.get(host.keep.remote(files), timeout=ANSWER_SECONDS)
    except RayError as error:
        return reason_of(error)
    return None


def recover(run: Run, job: str) -> str | None:
    """Take over what other hosts have kept, if it is newer than all that is whole here; the address of who had it."""
    nodes = other_nodes()
    answers = [_on(node, _newest_kept).remote(job) for node in nodes]
    newest, node = max(zip(map(_answer, answers), nodes, strict=True), default=(-1, ""))
    if newest <= newest_round(run.checkpoints):  # what is damaged here is none
        return None
    files, address = ray.get(_on(node, _kept).remote(job, name_of(newest)), timeout=ANSWER_SECONDS)
    write_files(run.path, files)
    return str(address)


def kept_folder(job: str) -> Path:
    """Where a host keeps a run of another."""
    return Path.home() / KEPT / job


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
            if Path(path).parent.name:
                write_durably(unfinished / Path(path).name, content)
            else:
                replace_durably(folder / path, content)
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


def other_nodes() -> list[str]:
    """The ids of the nodes that are alive, without this one."""
    here = ray.get_runtime_context().get_node_id()
    return [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]


def _on(node: str, what: object) -> ray.remote_function.RemoteFunction:
    """A task or an actor of that node."""
    place = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=place)(what)
