"""What a network is asked: one file a task. It says where the answer of a row lies, and what an answer is worth.

A task of your own is a class with the members of `Task`, named in the recipe as `task: package.module:Name`; a plugin
names it in the entry point group `rayrnn.tasks`. Only the tasks themselves import torch, when a recipe asks for them.
"""

import functools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from rayrnn.errors import UsageError
from rayrnn.user_code import make
from rayrnn.wording import did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import torch

    from rayrnn.data.batches import Minibatch
    from rayrnn.data.encoding import Encoding, Numbers, Survey
    from rayrnn.data.rows import Needs
    from rayrnn.data.symbols import Symbols
    from rayrnn.tasks.metrics import Metrics, Results

#: what the answers of a task of numbers can cost (`training.loss`), the usual first; see rayrnn/tasks/number_losses.py
LOSSES = ("squared", "absolute", "bernoulli", "quantile", "normal", "student_t", "negative_binomial")
#: those of them whose answer is one number without a spread
POINT_LOSSES = LOSSES[:3]
#: that are answered where a recipe names no others
QUANTILES = (0.1, 0.5, 0.9)
#: the entry points of plugins: the name is that of the task, the object its class
GROUP = "rayrnn.tasks"


@dataclass(frozen=True)
class Choices:
    """What a recipe says that its task may have to know, or to refuse."""

    #: steps in one segment of truncated backpropagation; 0 = the whole sequence
    truncate: int = 0
    #: whether the network reads every sequence in both directions
    bidirectional: bool = False
    #: the steps ahead that are to be forecast, of several the fewest; 0 = none
    horizon: int = 0
    #: all of them, ascending
    horizons: tuple[int, ...] = ()
    #: the classes by name; None: those that are found
    classes: tuple[str, ...] | None = None
    #: whether a sequence may have several of them
    several: bool = False
    #: steps of a sequence for each that the network's recurrent layers see
    stride: int = 1
    #: what an answer that is numbers costs, and the quantiles that are answered; None: the usual ones
    loss: str = LOSSES[0]
    quantiles: tuple[float, ...] | None = None


class Task(Protocol):
    """What a network is asked. Made without arguments; it travels to the workers by its class's name.

    B batch, T time, S steps of all rows together, N rows, V numbers of the network at a step or for a row.
    """

    #: whether `rayrnn generate` draws symbols with what was learned, and `rayrnn predict` does not answer rows
    generates: bool
    #: whether the held-out sequences are the last ones, as with one long text; else they are drawn, and so they are
    #: where the source's sequences are in no order that matters (`in_order` of its section)
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


@dataclass(frozen=True)
class Search:
    """How answers are looked for that have a length of their own."""

    #: hypotheses that are followed at once
    beam: int = 5
    #: exponent of the length penalty; more prefers longer answers
    length_penalty: float = 0.0
    #: whether an answer comes with what the network looked at
    keep_weights: bool = False


@dataclass(frozen=True)
class Hypothesis:
    """An answer that was found, without its end."""

    symbols: tuple[int, ...]
    #: the logarithm of its probability, over the length penalty: by this hypotheses are compared
    score: float
    #: of every symbol and of the end: weights over the steps that were read, where these are kept
    weights: tuple[tuple[float, ...], ...] = ()


@runtime_checkable
class Searching(Protocol):
    """A task whose answer is a sequence of symbols that is searched for: `count_answers` counts what was found."""

    #: whether the network writes its answer symbol by symbol, with what it has read at hand; else it answers every step
    decodes: bool

    def search(
        self, network: "torch.nn.Module", minibatch: "Minibatch", encoding: "Encoding", search: Search
    ) -> list[list[Hypothesis]]:
        """At most `beam` answers to every row, best first."""

    def count_answers(self, metrics: "Metrics", answers: Sequence[str], truths: Sequence[str]) -> None:
        """Count texts that were found, and the targets' own, in the sums behind the metrics."""

    def faults_of(self, rows: "pa.Table", encoding: "Encoding") -> list[str]:
        """Why canonical rows cannot be learned; names the sequences."""


@runtime_checkable
class Several(Protocol):
    """A task that can also ask which of some classes apply, any number of them (`data.several`)."""

    def several(self) -> Task:
        """The task that asks this."""


@runtime_checkable
class Weighable(Protocol):
    """A task whose losses can be weighed by class (`training.class_weights`)."""

    def balanced(self, encoding: "Encoding", device: "torch.device") -> Task:
        """The same task, the losses of every class weighed by the inverse of its count."""


@runtime_checkable
class Numeric(Protocol):
    """A task that answers with O numbers, whose loss can be chosen (`training.loss`); some have a spread, too."""

    #: outputs for each number
    parameters: int
    #: the quantiles that it answers, and those by which its spread is measured; none without a spread
    levels: tuple[float, ...]
    grid: tuple[float, ...]
    #: whether its outputs are distributions, from which numbers can be drawn
    draws: bool
    #: of LOSSES
    loss_name: str

    def with_loss(self, name: str, quantiles: tuple[float, ...] | None) -> Task:
        """The task that minimizes this."""

    def meaning(self) -> dict[str, Any]:
        """What the outputs for a number are, where they are not the number; in words and plain values."""

    def numbers(
        self, outputs: "torch.Tensor", targets: "torch.Tensor", encoding: "Encoding"
    ) -> "tuple[np.ndarray, np.ndarray]":
        """The numbers that outputs [..., V] answer and the true ones [..., O], float64 in the data's own units."""

    def quantiles(self, outputs: "torch.Tensor", levels: Sequence[float], encoding: "Encoding") -> "np.ndarray":
        """The quantiles of outputs [..., V] at levels of `grid` or `levels`: float64 [levels, ..., O], own units."""

    def draw(self, outputs: "torch.Tensor", encoding: "Encoding") -> "np.ndarray":
        """Numbers drawn from outputs [..., V], by torch's own chance: float64 [..., O], own units."""

    def as_answers(self, numbers: "np.ndarray", encoding: "Encoding") -> "pa.Array":
        """Numbers [N, O] in own units as `rayrnn predict` writes them."""


@runtime_checkable
class Refusing(Protocol):
    """A task that cannot learn some targets, whatever the network."""

    def faults_of(self, rows: "pa.Table", encoding: "Encoding") -> list[str]:
        """Why canonical rows cannot be learned; names the sequences."""


@runtime_checkable
class Weighing(Protocol):
    """A task whose losses count `Minibatch.weights` (`data.weight`)."""

    #: whether they do
    weighs: bool


@runtime_checkable
class Detectable(Protocol):
    """A task whose sequences themselves show, step by step, how wrong the network's answers were (`rayrnn detect`)."""

    def scores(self, choices: Choices) -> tuple[str, ...]:
        """What a step can be scored by, the usual one first; none where other things than later steps are answered."""

    def score(self, kind: str, outputs: "torch.Tensor", segment: "Minibatch") -> "np.ndarray":
        """The scores of the steps that the outputs foretell, float64 [B, T, K], the larger the stranger.

        K is 1, or the numbers of a forecast, of several horizons the nearest first. A step lies `Needs.ahead` after the
        one whose output foretells it. What stands where nothing is foretold means nothing.
        """


@runtime_checkable
class Monitorable(Protocol):
    """A task by whose metrics, and not by the loss alone, the best model can be chosen (`training.monitor`)."""

    def higher_is_better(self) -> Mapping[str, bool]:
        """Numbers of `results` by name: whether more of one is better."""


def monitors_of(task: Task) -> dict[str, bool]:
    """What can say which model is the best: the name -> whether more of it is better."""
    return {"loss": False} | (dict(task.higher_is_better()) if isinstance(task, Monitorable) else {})


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
    if name in shipped:
        return _imported(name, shipped[name])
    known = _plugins(tuple(sys.path)) | dict(shipped)
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


@functools.lru_cache
def _plugins(places: tuple[str, ...]) -> dict[str, str]:
    """The tasks of plugins that are installed at places of `sys.path`: a look at all of them takes 0.1 s."""
    return {point.name: point.value for point in entry_points(group=GROUP)}


def _imported(name: str, where: str) -> Task:
    task = cast(Task, make(where, "task", name))
    if missing := sorted(member for member in _MEMBERS if not hasattr(task, member)):
        raise ValueError(f"task {name!r} is no task: it has no {', '.join(missing)} (see rayrnn.tasks.Task)")
    return task


_MEMBERS = {*Task.__annotations__, *(name for name in vars(Task) if not name.startswith("_"))}
