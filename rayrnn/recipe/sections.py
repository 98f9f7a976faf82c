"""The recipe's sections on the network, on what a worker does alone, and on what the workers do together."""

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import pydantic
from pydantic import AfterValidator, BeforeValidator, Field

from rayrnn.averaging.outer import RULES
from rayrnn.models import CELLS
from rayrnn.recipe.data_sections import Fraction, spelled
from rayrnn.recipe.section import Section
from rayrnn.tasks import LOSSES
from rayrnn.wording import counted

if TYPE_CHECKING:
    CellName: TypeAlias = str
    OuterName: TypeAlias = str
    LossName: TypeAlias = str
else:
    CellName, OuterName, LossName = Literal[tuple(CELLS)], Literal[tuple(RULES)], Literal[LOSSES]


#: of rounds, steps and the like: sums of some stay whole numbers wherever they go
Many = Annotated[int, Field(gt=0, le=10**9)]
_NETWORK = "package.module:Name, or the name that a package gave its network"
#: seconds; no clock of the system takes many more
Seconds = Annotated[float, Field(gt=0, le=10**7)]
Minutes = Annotated[float, Field(gt=0, le=10**6)]


class Decoder(Section):
    """What writes an answer with a length of its own (transduction)."""

    #: layers of cells, one above the other; they are of the same kind and size as those that read
    layers: int = Field(1, gt=0, le=1000)
    #: size of the embedding of the symbols that are written
    embedding: int = Field(64, gt=0, le=100_000)
    #: how what was read is looked at: `dot` multiplies (Luong), `additive` adds (Bahdanau)
    attention: Literal["dot", "additive"] = "dot"
    #: whether a step is also fed what the step before was answered from; without it a target is learned at once, which
    #: is faster
    input_feeding: bool = True


class SearchSettings(Section):
    """How answers with a length of their own are looked for."""

    #: hypotheses that are followed at once; 1 takes the likeliest symbol each time
    beam: int = Field(5, gt=0, le=1000)
    #: the exponent of the length penalty (transduction); more prefers longer answers
    length_penalty: float = Field(0.0, ge=0, le=10)


def _in_a_list(value: object) -> object:
    """A single number is a list of one."""
    return value if value is None or isinstance(value, list | tuple) else (value,)


#: of layers of convolutions: channels of each; and widths or strides, of which a single one is that of every layer
_Layers = Annotated[tuple[Annotated[int, Field(gt=0, le=100_000)], ...], Field(min_length=1, max_length=100)]
_Widths = Annotated[tuple[Annotated[int, Field(gt=0, le=1000)], ...], Field(min_length=1), BeforeValidator(_in_a_list)]


#: of a state
_Size = Annotated[int, Field(gt=0, le=100_000)]


class Model(Section):
    """The network: embed -> convolutions -> layers of one cell -> project; or, with `network`, one of your own."""

    #: the recurrent cell; `graves_lstm` is DL4J's GravesLSTM, with peepholes
    cell: CellName = "lstm"
    #: size of each layer's state (of each direction's, with bidirectional); one number, or a list of one a layer
    hidden: _Size | tuple[_Size, ...] = 256
    #: layers of cells, one above the other
    layers: int = Field(2, gt=0, le=1000)
    #: size of the symbols' embedding; 0 feeds them one-hot
    embedding: int = Field(0, ge=0, le=100_000)
    #: the share of activations that is dropped between layers while training, and behind the last with `parallel`
    dropout: Fraction = 0.0
    #: where it is dropped: `between` layers, of what the `first` layer reads, of what is answered from (`last`); DL4J
    #: drops at all three
    dropout_at: tuple[Literal["first", "between", "last"], ...] = ("between",)
    #: whether a second direction reads from the end, and how the two become one; needs `truncate: 0`
    bidirectional: Literal["none", "sum", "concat"] = "none"
    #: how a sequence's steps become one answer (tasks with one label a sequence)
    pooling: Literal["last", "mean", "max"] = "last"
    #: whether a forecast is what a number is now and a change that is learned (`data.horizon`); for series that wander
    #: far from where they began
    residual: bool = False
    #: what writes the answer (transduction); without a word one with the defaults below
    decoder: Decoder | None = None
    #: what stands before the recurrent layers: `conv` are convolutions over steps (they need `truncate: 0`), or over
    #: images where each step of the data is one; with group normalization and ReLU
    front: Literal["none", "conv"] = "none"
    #: channels of each layer of the front
    front_channels: _Layers = (64, 64)
    #: steps (of an image: rows and columns) that one answer of a layer is computed from; one number, or one a layer
    front_width: _Widths = (5,)
    #: steps (of an image: rows and columns) from one answer of a layer to the next; one number, or one a layer; without
    #: a word 1 over steps and 2 over images. Above 1, the recurrent layers have fewer steps
    front_stride: _Widths | None = None
    #: what stands beside the recurrent layers, for one answer a sequence: `conv` are convolutions over the same steps,
    #: averaged over all of them, as in LSTM-FCN
    parallel: Literal["none", "conv"] = "none"
    #: channels of each layer of `parallel`
    parallel_channels: _Layers = (128, 256, 128)
    #: steps that one answer of a layer of `parallel` is computed from; one number, or one a layer
    parallel_widths: _Widths = (8, 5, 3)
    #: while training, a random run of at most so many steps of each sequence is set to 0 (SpecAugment); inputs that are
    #: numbers only, best with `normalize: standardize`
    mask_steps: int = Field(0, ge=0, le=10**9)
    #: the same with a run of neighbouring features, at all steps
    mask_features: int = Field(0, ge=0, le=10**9)
    #: a network of your own in the place of all of the above: `package.module:Name`, or the name that a package gave it
    #: (entry points of the group `rayrnn.networks`)
    network: Annotated[str, spelled(r"[A-Za-z_][\w.-]*(:[A-Za-z_][\w.]*)?", _NETWORK)] | None = None
    #: what `network` is called with, beside the sizes that the data gives
    options: dict[str, Any] = Field(default_factory=dict)

    def describe(self) -> str:
        """A few words for people: `2 x 256 lstm`, `conv 64-64, 2 x 256 lstm beside conv 128-256-128`."""
        if self.network:
            return self.network
        front = f"conv {'-'.join(map(str, self.front_channels))}, " if self.front == "conv" else ""
        beside = f" beside conv {'-'.join(map(str, self.parallel_channels))}" if self.parallel == "conv" else ""
        size = self.hidden if isinstance(self.hidden, int) else None
        layers = "-".join(map(str, self.sizes)) if size is None else f"{self.layers} x {size}"
        return f"{front}{layers} {self.cell}{beside}"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the state of each layer."""
        return (self.hidden,) * self.layers if isinstance(self.hidden, int) else self.hidden

    @pydantic.model_validator(mode="before")
    @classmethod
    def _as_many_layers(cls, values: Any) -> Any:
        """Sizes of layers say how many there are."""
        if isinstance(values, Mapping) and isinstance(sizes := values.get("hidden"), list | tuple):
            return {"layers": len(sizes), **values}
        return values

    @pydantic.model_validator(mode="after")
    def _one_for_each_layer(self) -> "Model":
        for layers, key in (("front", "front_width"), ("front", "front_stride"), ("parallel", "parallel_widths")):
            count, given = len(getattr(self, f"{layers}_channels")), getattr(self, key)
            if getattr(self, layers) == "conv" and given is not None and len(given) not in (1, count):
                raise ValueError(
                    f"model.{key} has {len(given)} numbers and model.{layers}_channels {count}: give one number, or "
                    "one for each layer"
                )
        return self

    @pydantic.model_validator(mode="after")
    def _one_size_for_each_layer(self) -> "Model":
        if len(self.sizes) != self.layers:
            raise ValueError(f"model.hidden has {counted(len(self.sizes), 'size')}, and model.layers is {self.layers}")
        if not isinstance(self.hidden, int) and self.decoder is not None:
            raise ValueError("model.hidden is one number where there is a model.decoder, whose layers are as large")
        if len(set(self.dropout_at)) < len(self.dropout_at):
            raise ValueError(f"model.dropout_at names a place twice: {', '.join(self.dropout_at)}")
        if self.dropout and not self.dropout_at:
            raise ValueError(f"model.dropout is {self.dropout:g}, and model.dropout_at names no place where it is")
        return self

    @pydantic.model_validator(mode="after")
    def _one_network(self) -> "Model":
        unused = [key for key in self._ours() if key in self.model_fields_set]
        if self.network and unused:
            raise ValueError(
                f"model.{', model.'.join(unused)} {'is' if len(unused) == 1 else 'are'} not used with model.network "
                f"{self.network}: leave {'it' if len(unused) == 1 else 'them'} out; what a network of your own takes "
                "stands in model.options"
            )
        if self.options and not self.network:
            raise ValueError("model.options are for a network of your own, and there is no model.network")
        return self

    @pydantic.model_serializer(mode="wrap")
    def _without_what_is_not_used(self, dump: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        ours = set(self._ours())
        unused = tuple(f"{key}_" for key in ("front", "parallel") if getattr(self, key) == "none")
        unused += ("dropout_at",) if self.dropout_at == ("between",) else ()
        unused += ("residual",) if not self.residual else ()
        written = {key: value for key, value in dump(self).items() if not (unused and key.startswith(unused))}
        return {key: value for key, value in written.items() if (key in ours) != bool(self.network)}

    @classmethod
    def _ours(cls) -> list[str]:
        """The keys that describe rayrnn's own network."""
        return [key for key in cls.model_fields if key not in ("network", "options")]


#: of a quantile
Level = Annotated[float, Field(gt=0, lt=1)]


def _ascending(levels: tuple[float, ...]) -> tuple[float, ...]:
    if any(first >= second for first, second in pairwise(levels)):
        raise ValueError("quantiles ascend, each of them once, such as [0.1, 0.5, 0.9]")
    return levels


class Dl4jSchedule(Section):
    """How the learning rate falls from update to update (org.nd4j.linalg.schedule)."""

    #: `step`, `exponential`, `inverse`, `poly` or `sigmoid`
    kind: Literal["step", "exponential", "inverse", "poly", "sigmoid"]
    #: what the rate is multiplied by (step, exponential), or gamma (inverse, sigmoid)
    decay: float = Field(1.0, gt=0)
    #: updates of one step; in all (poly); or to the middle (sigmoid)
    every: float = Field(1.0, gt=0)
    #: the exponent (inverse, poly)
    power: float = Field(1.0, gt=0)


class Dl4jRules(Section):
    """Updates as DL4J makes them, to go on with what it began: docs/from-dl4j.md says how they differ."""

    #: whose rules: those of 1.0.0, or of 0.9.1
    version: Literal["1.0.0", "0.9.1"] = "1.0.0"
    #: the penalty on the sum of the weights' absolute values; `training.l2` is the other; neither is for biases
    l1: float = Field(0.0, ge=0)
    #: with optimizer `sgd`, Nesterov's momentum
    momentum: Fraction = 0.0
    #: with optimizer `adam`, the decay of the gradient's running mean
    beta1: Fraction = 0.9
    #: and of its square's
    beta2: Fraction = 0.999
    #: with `rmsprop` and `adam`
    epsilon: float = Field(1e-8, gt=0)
    #: of the learning rate; it begins with the updates that DL4J has made
    schedule: Dl4jSchedule | None = None


class Training(Section):
    """What one worker does alone."""

    #: each worker's optimizer; `muon` makes the steps of recurrent matrices orthogonal, gate by gate, and is adamw for
    #: all else: it learns more in an update, and an update takes longer
    optimizer: Literal["sgd", "rmsprop", "adam", "adamw", "muon"] = "adam"
    #: the optimizer's, before the schedule
    learning_rate: float = Field(0.002, gt=0)
    #: how the learning rate goes on over the rounds: constant, a cosine down to a hundredth, or steps down
    schedule: Literal["constant", "cosine", "step"] = "constant"
    #: with schedule `step`: every so many rounds the rate is multiplied by `schedule_factor`
    schedule_every: Many = 100
    #: with schedule `step`: what the rate is multiplied by
    schedule_factor: float = Field(0.5, gt=0, le=1)
    #: RMSProp's decay of the squared gradient's average
    decay: Fraction = 0.95
    #: weight decay: added to the gradient, or (adamw, muon) apart from it
    l2: float = Field(0.0, ge=0)
    #: sequences in one minibatch on one worker
    batch_size: int = Field(32, gt=0, le=10**6)
    #: steps in one segment of truncated backpropagation; 0 = the whole sequence
    truncate: int = Field(0, ge=0, le=10**9)
    #: the bound on the gradient; 0 = no clipping
    clip: float = Field(5.0, ge=0)
    #: what is bounded: the norm of the whole gradient, each of its values, or the norm of each layer's or parameter's
    clip_by: Literal["norm", "value", "layer_norm", "parameter_norm"] = "norm"
    #: `balanced` gives rare classes more weight (classification, tagging)
    class_weights: Literal["none", "balanced"] = "none"
    #: what regression minimizes: the `squared` or `absolute` error of an answer; the pinball loss of its `quantiles`;
    #: or -ln of the probability of the truth, of a distribution whose parameters are answered: `bernoulli` (for 0 and
    #: 1; the answer is the probability of 1), `normal`, `student_t` (for outliers), or `negative_binomial` (for counts)
    loss: LossName = "squared"
    #: the quantiles that are answered with the loss `quantile`, or of a distribution; without a word .1, .5 and .9
    quantiles: Annotated[tuple[Level, ...], Field(min_length=1, max_length=100), AfterValidator(_ascending)] | None = (
        None
    )
    #: `bf16` computes in bfloat16 where that is safe, and the parameters stay in float32; `auto` does so where the
    #: processor or the GPU has instructions for it, and is `fp32` elsewhere
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    #: minibatches prepared ahead of the loop; 0 = off
    prefetch: int = Field(2, ge=0, le=1000)
    #: rounds between two evaluations of the held-out part
    evaluate_every: Many = 10
    #: rounds between two checkpoints
    checkpoint_every: Many = 20
    #: what says at an evaluation which model is the best, and so what `early_stopping` goes by: `loss`, or a metric of
    #: the task as `rayrnn evaluate --json` names it, such as accuracy, macro_f1, rmse, word_error_rate
    monitor: str = "loss"
    #: stop after so many evaluations without a better `monitor`; 0 = never
    early_stopping: int = Field(0, ge=0, le=10**9)
    #: a run directory, here or in a store, or a file weights.safetensors, whose values the network begins with
    start_from: str | None = None
    #: updates by the rules of DL4J; `rayrnn import` sets it
    dl4j: Dl4jRules | None = None
    #: minutes after which a command that learns ends, in order and with a checkpoint; `--resume` learns for as long
    #: again. It does not change the schedule; see `averaging.minutes`
    max_minutes: Minutes | None = None

    @pydantic.model_serializer(mode="wrap")
    def _without_rules_of_others(self, dump: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if key != "dl4j" or value is not None}


MOST_WORKERS = 100_000
#: rounds of a run that is so many minutes long: more than it will ever learn
ENDLESS = 10**9
WorkerCount = Annotated[int, Field(gt=0, le=MOST_WORKERS)]


class Bounds(Section):
    """Workers may come and go between these two."""

    #: that the run waits for before it begins
    min: WorkerCount = 1
    #: that it grows to while the cluster has room
    max: WorkerCount

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> "Bounds":
        if self.min > self.max:
            raise ValueError(f"min is {self.min} and max is {self.max}: min must not be above max")
        return self


def _form_of_workers(value: object) -> str | None:
    if isinstance(value, Mapping | Bounds):
        return "bounds"
    if isinstance(value, str) and not value.strip().lstrip("+-").isdigit():
        return "auto" if value == "auto" else None
    return "number"


#: a fixed number, bounds, or as many as find room
Workers = Annotated[
    Annotated[WorkerCount, pydantic.Tag("number")]
    | Annotated[Bounds, pydantic.Tag("bounds")]
    | Annotated[Literal["auto"], pydantic.Tag("auto")],
    pydantic.Discriminator(
        _form_of_workers,
        custom_error_type="workers",
        custom_error_message="give a number, bounds such as {min: 1, max: 4}, or auto",
    ),
]


class Averaging(Section):
    """What the workers do together."""

    #: a number; or {min: 1, max: 4}: then workers are taken on whenever the cluster has room for them; or `auto`: as
    #: many as the cluster has room for when the run begins
    workers: Workers = 2
    #: CPUs of each worker, and so many threads
    cpus_per_worker: int = Field(1, gt=0, le=1024)
    #: minibatches every worker learns alone before the workers average
    frequency: int = Field(5, gt=0, le=10**6)
    #: rounds of the whole run
    rounds: Many = 200
    #: minutes that the whole run learns, in the place of `rounds`, which then count for nothing: the schedule goes by
    #: them, and a resumed run goes on with what is left of them
    minutes: Minutes | None = None
    #: `auto`: the recipe's values are those of one worker, and each of N workers learns a minibatch in N parts (of 4
    #: sequences or more, on a GPU of 64 or more), an update a part. `none`: the same whatever the number of workers
    scaling: Literal["auto", "none"] = "auto"
    #: what is done with the mean: nothing, DiLoCo's outer optimizer, or block momentum
    outer: OuterName = "none"
    #: the outer optimizer's; unless said otherwise nesterov takes DiLoCo's 0.7, bmuf its paper's 1
    outer_learning_rate: float = Field(1.0, gt=0)
    #: nesterov takes DiLoCo's 0.9, bmuf its paper's 1 - 1 / workers
    outer_momentum: Fraction = 0.0
    #: what becomes of each worker's optimizer state at an average
    optimizer_state: Literal["keep", "average", "reset"] = "keep"
    #: minibatches of the next round that are learned while the average travels; what they have learned is then added to
    #: it. 0 waits. It pays on slow links, and needs `optimizer_state: keep`
    overlap: int = Field(0, ge=0, le=10**6)
    #: how the parameters travel; bfloat16 and int8 pay between a few workers on slow links
    wire: Literal["float32", "bfloat16", "int8"] = "float32"
    #: seconds the others wait at the average for a worker that hangs or lags; then they go on without it
    patience: Seconds = 30.0

    @property
    def planned_rounds(self) -> int:
        """Rounds of the run; 0 where it goes by minutes."""
        return 0 if self.minutes is not None else self.rounds

    @property
    def fewest(self) -> int:
        """Workers that the run needs to begin."""
        if self.workers == "auto":
            return 1
        return self.workers.min if isinstance(self.workers, Bounds) else self.workers

    @property
    def most(self) -> int:
        """Workers that the run takes where there is room."""
        if self.workers == "auto":
            return MOST_WORKERS
        return self.workers.max if isinstance(self.workers, Bounds) else self.workers

    @pydantic.model_validator(mode="after")
    def _overlaps_the_next_round_only(self) -> "Averaging":
        if self.overlap > self.frequency:
            raise ValueError(
                f"overlap is {self.overlap} and frequency is {self.frequency}: an average arrives before the next one "
                "begins, so overlap must not be above frequency"
            )
        if self.overlap and self.optimizer_state != "keep":
            raise ValueError(
                f"overlap needs optimizer_state: keep, and it is {self.optimizer_state}: what a worker learns while an "
                "average travels can be added to the mean of the parameters, not to that of the optimizer's state"
            )
        return self

    @pydantic.model_validator(mode="before")
    @classmethod
    def _minutes_before_rounds(cls, values: Any) -> Any:
        is_timed = isinstance(values, Mapping) and values.get("minutes") is not None
        return dict(values) | {"rounds": ENDLESS} if is_timed else values

    @pydantic.model_serializer(mode="wrap")
    def _rounds_of_minutes_are_not_written(self, dump: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = dump(self)
        return {key: value for key, value in written.items() if key != "rounds" or self.minutes is None}

    @pydantic.model_validator(mode="before")
    @classmethod
    def _published_defaults(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        workers = values.get("workers", 2)
        bounds = workers.model_dump() if isinstance(workers, Bounds) else workers
        most = str(bounds.get("max") if isinstance(bounds, Mapping) else bounds)
        rule = values.get("outer")
        if rule == "bmuf" and most == "auto" and "outer_momentum" not in values:
            raise ValueError(
                "with averaging.workers: auto, bmuf needs an averaging.outer_momentum: its paper's goes by the number "
                "of workers (1 - 1 / workers)"
            )
        if rule not in RULES or not (most.isdigit() or most == "auto"):
            return values
        rate, momentum = RULES[rule].published(max(1, int(most)) if most.isdigit() else 1)
        return {"outer_learning_rate": rate, "outer_momentum": momentum} | dict(values)
