"""What a network is asked: one file a task. It says where the answer of a row lies, and what an answer is worth.

A task of your own is a class with the members of `Task`, named in the recipe as `task: package.module:Name`; a plugin
names it in the entry point group `rayrnn.tasks`. Only the tasks themselves import torch, when a recipe asks for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from rayrnn.errors import UsageError
from rayrnn.user_code import make
from rayrnn.wording import did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import torch

    from rayrnn.data.batches import Minibatch
    from rayrnn.data.encoding import Encoding, Numbers, Survey, Symbols
    from rayrnn.data.rows import Needs
    from rayrnn.tasks.metrics import Metrics, Results

#: the entry points of plugins: the name is that of the task, the object its class
GROUP = "rayrnn.tasks"


@dataclass(frozen=True)
class Choices:
    """What a recipe says that its task may have to know, or to refuse."""

    #: steps in one segment of truncated backpropagation; 0 = the whole sequence
    truncate: int = 0
    #: whether the network reads every sequence in both directions
    bidirectional: bool = False
    #: the steps ahead that are to be forecast; 0 = none
    horizon: int = 0
    #: the classes by name; None: those that are found
    classes: tuple[str, ...] | None = None


class Task(Protocol):
    """What a network is asked. Made without arguments; it travels to the workers by its class's name.

    B batch, T time, S steps of all rows together, N rows, V numbers of the network at a step or for a row.
    """

    #: whether `rayrnn generate` draws symbols with what was learned, and `rayrnn predict` does not answer rows
    generates: bool
    #: whether the held-out sequences are the last ones, as with one long text; else they are drawn
    holds_out_last: bool
    #: whether the largest output is an answer that is right or wrong, so that there is an accuracy
    right_or_wrong: bool
    #: of the loss, in a report
    unit: str

    def faults(self, choices: Choices) -> list[str]:
        """What of a recipe does not fit, in words."""

    def needs(self, choices: Choices) -> "Needs":
        """What a row must hold."""

    def encoding(self, inputs: "Symbols | Numbers", found: "Survey", choices: Choices) -> "Encoding":
        """What the targets mean and where they lie, beside the inputs that were fitted already.

        Raises:
            DataError: there is nothing to learn in what was found.
        """

    def minibatch(self, rows: "pa.Table", encoding: "Encoding") -> "Minibatch":
        """The inputs and the targets of canonical rows (see rayrnn/data/rows.py), which may lack labels.

        Raises:
            DataError: a row holds what the encoding does not know; names the sequence.
        """

    def call(self, network: "torch.nn.Module", segment: "Minibatch", state: object) -> tuple["torch.Tensor", object]:
        """The network's outputs for a segment, and the state to go on from; None is that of a sequence's begin.

        What stands here is the contract of the task's networks.
        """

    def loss(self, outputs: "torch.Tensor", segment: "Minibatch") -> tuple["torch.Tensor", "torch.Tensor"]:
        """The losses of all targets that count, added up, and their number; what is masked counts for nothing."""

    def describe_loss(self, loss: float) -> str:
        """The mean loss a target, as people read it."""

    def metrics(self, encoding: "Encoding") -> "Metrics":
        """Fresh sums behind the metrics."""

    def measure(self, metrics: "Metrics", outputs: "torch.Tensor", segment: "Minibatch", encoding: "Encoding") -> None:
        """Count the outputs for a segment in these sums."""

    def results(self, metrics: "Metrics") -> "Results":
        """The metrics of everything counted, in the order in which people read them; `loss` is the first.

        Raises:
            DataError: nothing was counted.
        """

    def answers(self, outputs: "np.ndarray", encoding: "Encoding") -> dict[str, "pa.Array"]:
        """What outputs [S or N, V] say: the columns that `rayrnn predict` writes, an item an output."""


@runtime_checkable
class Weighable(Protocol):
    """A task whose losses can be weighed by class (`training.class_weights`)."""

    def balanced(self, encoding: "Encoding", device: "torch.device") -> Task:
        """The same task, the losses of every class weighed by the inverse of its count."""


def load_task(name: str, shipped: Mapping[str, str], *, trusted: bool) -> Task:
    """The task that a recipe names, imported now.

    Args:
        name: a task of rayrnn's or of a plugin's, or any class as `package.module:Name`.
        shipped: rayrnn's own tasks: the name -> `package.module:Name`.
        trusted: whether whoever chose the name may have a module of their own imported.

    Raises:
        ValueError: there is no such task.
        UsageError: it is code that is not installed as a plugin, and is not trusted.
    """
    plugins = {point.name: point.value for point in entry_points(group=GROUP)}
    known = plugins | dict(shipped)
    if name in known:
        return _imported(name, known[name])
    if ":" not in name:
        raise ValueError(f"task {name!r} is unknown{did_you_mean(name, known)}; the tasks here are {', '.join(known)}")
    if not trusted:
        raise UsageError(
            f"task is {name!r}: code of this recipe's author, neither rayrnn's nor of an installed plugin; it runs "
            "here only if you trust the author (--trust)"
        )
    return _imported(name, name)


def _imported(name: str, where: str) -> Task:
    task = cast(Task, make(where, "task", name))
    if missing := sorted(member for member in _MEMBERS if not hasattr(task, member)):
        raise ValueError(f"task {name!r} is no task: it has no {', '.join(missing)} (see rayrnn.tasks.Task)")
    return task


_MEMBERS = {*Task.__annotations__, *(name for name in vars(Task) if not name.startswith("_"))}
