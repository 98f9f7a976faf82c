"""A network of DL4J's as rayrnn understands it: what a configuration says, and what one is written from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: rayrnn's cell -> the class of DL4J's layer
LAYERS = {"lstm": "LSTM", "graves_lstm": "GravesLSTM", "rnn": "SimpleRnn"}
#: how the network answers -> DL4J's activation and loss
ANSWERS = {"softmax": ("Softmax", "MCXENT"), "identity": ("Identity", "MSE"), "sigmoid": ("Sigmoid", "BinaryXENT")}
#: how directions become one, how steps do, and what of a gradient is bounded: rayrnn's word -> DL4J's
MERGES = {"concat": "CONCAT", "sum": "ADD"}
POOLINGS = {"mean": "AVG", "max": "MAX"}
CLIPS = {
    "value": "ClipElementWiseAbsoluteValue",
    "layer_norm": "ClipL2PerLayer",
    "parameter_norm": "ClipL2PerParamType",
}
#: rayrnn's word -> DL4J's class, and its settings by rayrnn's words
SCHEDULES = {
    "step": ("StepSchedule", {"decay": "decayRate", "every": "step"}),
    "exponential": ("ExponentialSchedule", {"decay": "gamma"}),
    "inverse": ("InverseSchedule", {"decay": "gamma", "power": "power"}),
    "poly": ("PolySchedule", {"power": "power", "every": "maxIter"}),
    "sigmoid": ("SigmoidSchedule", {"decay": "gamma", "every": "stepSize"}),
}
#: DL4J's updater -> `training.optimizer`
OPTIMIZERS = {"Sgd": "sgd", "Nesterovs": "sgd", "RmsProp": "rmsprop", "Adam": "adam"}


def states_of(optimizer: str, momentum: float) -> tuple[str, ...]:
    """What is kept for every parameter, beside the number of updates, in DL4J's order."""
    kept = {"rmsprop": ("mean_square",), "adam": ("exp_avg", "exp_avg_sq")}
    return kept.get(optimizer, ("velocity",) if momentum else ())


@dataclass(frozen=True)
class Updater:
    """What turns gradients into steps."""

    #: a key of OPTIMIZERS
    name: str
    learning_rate: float
    #: RmsProp's
    decay: float = 0.95
    #: Nesterovs'
    momentum: float = 0.0
    #: Adam's
    beta1: float = 0.9
    beta2: float = 0.999
    #: RmsProp's and Adam's
    epsilon: float = 1e-8
    #: of the rate, by updates: see `rayrnn.recipe.sections.Dl4jSchedule`
    schedule: Mapping[str, Any] | None = None

    @property
    def states(self) -> tuple[str, ...]:
        """What is kept for each parameter; see `states_of`."""
        return states_of(OPTIMIZERS[self.name], self.momentum)


@dataclass(frozen=True)
class Description:
    """A network, and how it is trained."""

    #: whose rules updates follow: `1.0.0`, or `0.9.1`
    version: str
    #: a key of LAYERS
    cell: str
    num_inputs: int
    #: of each layer (of each direction)
    hidden: tuple[int, ...]
    num_outputs: int
    #: a key of ANSWERS
    answers: str
    #: none, sum or concat
    bidirectional: str = "none"
    #: last, mean or max; None with an answer a step
    pooling: str | None = None
    updater: Updater = field(default_factory=lambda: Updater("Sgd", 0.1))
    l1: float = 0.0
    l2: float = 0.0
    #: 0 without
    clip: float = 0.0
    #: value, layer_norm or parameter_norm
    clip_by: str = "value"
    #: the share of a layer's inputs that is dropped, and of which layers: first, between, last
    dropout: float = 0.0
    dropout_at: tuple[str, ...] = ()
    #: steps in a segment; 0 = the whole sequence
    truncate: int = 0
    #: updates so far
    iteration: int = 0
    seed: int = 12345

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers that each layer answers a step with."""
        return tuple(2 * size if self.bidirectional == "concat" else size for size in self.hidden)

    @property
    def is_graves_pair(self) -> bool:
        """Whether its layers are GravesBidirectionalLSTMs, which add their directions."""
        return self.cell == "graves_lstm" and self.bidirectional == "sum"
