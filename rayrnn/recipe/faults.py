"""What of a recipe does not fit together, in words: task, data, network and what is done with the answers."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from rayrnn.recipe.data_sections import CsvData, Data, StepData, TableData, TextUnits
from rayrnn.recipe.detect_section import Detect, judges_sequences, score_kind
from rayrnn.recipe.media_sections import ImageData, MediaData
from rayrnn.recipe.sections import Model, SearchSettings, Training
from rayrnn.recipe.text_sections import PairsData, TextData
from rayrnn.tasks import (
    LOSSES,
    POINT_LOSSES,
    Choices,
    Detectable,
    Numeric,
    Searching,
    Task,
    Weighable,
    Weighing,
    monitors_of,
)
from rayrnn.wording import did_you_mean

if TYPE_CHECKING:
    from rayrnn.data.rows import Needs


class Sections(Protocol):
    """The parts of a recipe that are compared."""

    @property
    def task(self) -> str:
        """By its name."""

    @property
    def data(self) -> Data: ...

    @property
    def model(self) -> Model: ...

    @property
    def training(self) -> Training: ...

    @property
    def search(self) -> SearchSettings | None: ...

    @property
    def detect(self) -> Detect | None: ...


def faults_of(recipe: Sections, task: Task, choices: Choices) -> Iterator[str]:
    """Everything that does not fit.

    Args:
        task: that the recipe names.
        choices: what the task may have to know of the recipe.
    """
    needs = task.needs(choices)
    yield from task.faults(choices)
    if choices.truncate and choices.bidirectional:
        yield "training.truncate must be 0 with model.bidirectional: both directions need whole sequences"
    if recipe.training.class_weights != "none" and not isinstance(task, Weighable):
        yield f"training.class_weights is for classes; the task is {recipe.task}"
    if recipe.training.class_weights != "none" and choices.several:
        yield "training.class_weights is for one class a sequence; with data.several leave it out"
    yield from _faults_of_loss(recipe, task)
    yield from _faults_of_dl4j(recipe, task)
    yield from _faults_of_monitor(recipe, task)
    yield from _faults_of_convolutions(recipe, task, needs)
    yield from _faults_of_detection(recipe, task, choices)
    if choices.horizon and needs.ahead != choices.horizon:
        yield f"data.horizon is for forecasts of numbers; the task is {recipe.task}"
    yield from _faults_of_columns(recipe, task, choices)
    if isinstance(recipe.data, CsvData) and "values" not in needs.contents:
        yield "data.source csv has no text; its tasks are classification, tagging and regression"
    if isinstance(recipe.data, MediaData) and recipe.data.content not in needs.contents:
        levels = " without data.as: pixels and data.levels" if isinstance(recipe.data, ImageData) else ""
        brings = "numbers" if recipe.data.content == "values" else "symbols"
        yield f"data.source {recipe.data.source}{levels} brings {brings}, which {needs.task} does not learn"
    if isinstance(recipe.data, TextData) and needs.is_labelled:
        yield f"data.source text has no labels for {recipe.task}; its task is language_model"
    if isinstance(recipe.data, PairsData) and not needs.takes_sequences:
        yield f"data.source pairs is of texts and their answers, for transduction and ctc; the task is {recipe.task}"
    yield from _faults_of_answers(recipe, task, choices, needs)


def _faults_of_loss(recipe: Sections, task: Task) -> Iterator[str]:
    loss, levels = recipe.training.loss, recipe.training.quantiles
    if loss != LOSSES[0] and not isinstance(task, Numeric):
        yield f"training.loss {loss} is for numbers (regression); the task is {recipe.task}: leave it out"
    elif levels is not None and loss in POINT_LOSSES:
        with_spread = [name for name in LOSSES if name not in POINT_LOSSES]
        yield (
            f"training.quantiles are those of training.loss {', '.join(with_spread)}; it is {loss}, whose answers have "
            "no spread"
        )
    data = recipe.data
    if recipe.model.residual and not (isinstance(data, StepData) and data.horizons):
        yield "model.residual is for forecasts of numbers: set data.horizon, or leave it out"
    elif recipe.model.residual and loss in ("bernoulli", "negative_binomial"):
        yield f"model.residual adds to numbers in their own scale, and training.loss {loss} answers in another"
    if loss == "bernoulli" and isinstance(data, StepData) and data.horizons and data.normalize != "none":
        yield f"training.loss {loss} is for numbers from 0 to 1: with data.horizon leave data.normalize out"


def _faults_of_dl4j(recipe: Sections, task: Task) -> Iterator[str]:
    """What DL4J's rules are not for."""
    training = recipe.training
    if training.dl4j is None:
        return
    if training.optimizer not in ("sgd", "rmsprop", "adam"):
        yield f"training.dl4j is for sgd, rmsprop and adam; training.optimizer is {training.optimizer}"
    if training.dl4j.momentum and training.optimizer != "sgd":
        yield f"training.dl4j.momentum is for sgd; training.optimizer is {training.optimizer}"
    if training.clip and training.clip_by == "norm":
        yield (
            "training.clip_by is norm, and DL4J bounds each value, or the norm of each layer or parameter: set "
            "training.clip_by to value, layer_norm or parameter_norm, or training.clip to 0"
        )
    if training.loss not in ("squared", "bernoulli") or isinstance(task, Searching) or training.class_weights != "none":
        yield "training.dl4j is for cross-entropies and squared errors of one answer a step or a sequence"


def _faults_of_columns(recipe: Sections, task: Task, choices: Choices) -> Iterator[str]:
    """What does not fit between the task and what columns are for."""
    data = recipe.data
    if not isinstance(data, CsvData | TableData):
        return
    for key in ("forecast", "known_ahead"):
        if getattr(data, key) and not choices.horizon:
            yield f"data.{key} is for forecasts: set data.horizon, or leave it out"
    if data.weight is not None and not (isinstance(task, Weighing) and task.weighs):
        yield f"data.weight is {data.weight!r}, and task {recipe.task} does not say that it weighs its losses"


def _faults_of_monitor(recipe: Sections, task: Task) -> Iterator[str]:
    monitor, known = recipe.training.monitor, monitors_of(task)
    if monitor not in known:
        yield (
            f"training.monitor is {monitor!r}, by which {recipe.task} is not measured{did_you_mean(monitor, known)}; "
            f"it may be {', '.join(known)}"
        )
    elif monitor != "loss" and not recipe.data.held_out:
        yield f"training.monitor is {monitor}, and nothing is held out to measure it on: set data.held_out"


def _faults_of_answers(recipe: Sections, task: Task, choices: Choices, needs: "Needs") -> Iterator[str]:
    """What of a recipe does not fit together where an answer is a set, or has a length of its own."""
    searches = isinstance(task, Searching)
    if choices.several and not needs.takes_sets:
        yield f"data.several is for classification; the task is {recipe.task}"
    if recipe.search is not None and not searches:
        yield f"search is for answers with a length of their own; the task is {recipe.task}"
    if isinstance(task, Searching) and task.decodes and not isinstance(recipe.model.hidden, int):
        yield f"model.hidden is one number for {recipe.task}, whose decoder's layers are as large"
    if recipe.model.decoder is not None and not (isinstance(task, Searching) and task.decodes):
        yield f"model.decoder is for transduction; the task is {recipe.task}"
    if recipe.model.network and getattr(recipe.data, "vectors", None):
        yield "data.vectors are for rayrnn's own network: one of your own may read the file by itself"
    if recipe.model.network and searches:
        yield f"model.network is not for {recipe.task}, whose network rayrnn makes"
    yield from _faults_of_targets(recipe, needs)


def _faults_of_targets(recipe: Sections, needs: "Needs") -> Iterator[str]:
    """What does not fit between the task and where its answers are."""
    data = recipe.data
    key = "target" if isinstance(data, TableData) else "targets"
    if not isinstance(data, TableData | CsvData | MediaData):
        return
    given = getattr(data, key) is not None
    if needs.takes_sequences and not given and not (isinstance(data, MediaData) and data.label_pattern):
        what = "the column of what is to be answered" if key == "target" else "a CSV of `file name,target` lines"
        yield f"{recipe.task} needs data.{key}: {what}"
    if not needs.takes_sequences and given:
        yield f"data.{key} is for transduction and ctc; the task is {recipe.task}"


def _faults_of_convolutions(recipe: Sections, task: Task, needs: "Needs") -> Iterator[str]:
    """What does not fit with convolutions before or beside the recurrent layers; images are each read by themselves."""
    model, data = recipe.model, recipe.data
    front, parallel = model.front == "conv" and data.step_shape is None, model.parallel == "conv"
    key = "model.front: conv" if front else "model.parallel: conv"
    if (front or parallel) and recipe.training.truncate:
        yield f"training.truncate must be 0 with {key}: a convolution needs the steps around each step"
    if front and task.generates:
        yield f"model.front must be none: {recipe.task} must not see the symbol it predicts, and a convolution does"
    if front and needs.ahead:
        yield "model.front must be none with data.horizon: a forecast must not see what it forecasts"
    if parallel and needs.answers_steps:
        yield f"model.parallel must be none: {recipe.task} has an answer at every step, not one for a sequence"
    if parallel and needs.takes_sequences:
        yield f"model.parallel must be none: {recipe.task} answers with a sequence, and it is for one class or number"
    if front and needs.answers_steps and max(model.front_stride or (1,)) > 1:
        yield f"model.front_stride must be 1: {recipe.task} has an answer at every step, and a stride leaves steps out"
    reads_symbols = isinstance(data, TextUnits) and (not isinstance(data, TableData) or bool(data.symbols or data.text))
    if (front or parallel) and reads_symbols and not model.embedding:
        yield f"{key} reads numbers, and these sequences are symbols: set model.embedding, to 64 for instance"
    if (model.mask_steps or model.mask_features) and reads_symbols:
        yield "model.mask_steps and model.mask_features are for inputs that are numbers, and these are symbols"


def _faults_of_detection(recipe: Sections, task: Task, choices: Choices) -> Iterator[str]:
    """Of a section that asks for something; the defaults stand in every recipe."""
    kinds = task.scores(choices) if isinstance(task, Detectable) else ()
    if recipe.detect is not None and not kinds:
        yield (
            f"detect is for forecasts (regression with data.horizon) and language models; the task is {recipe.task}"
            f"{'' if not isinstance(task, Detectable) else ' without data.horizon'}: leave the section out"
        )
    elif recipe.detect is not None and recipe.detect.score not in ("auto", *kinds):
        yield f"detect.score is {recipe.detect.score}; steps of this task are scored by {' or '.join(kinds)}"
    elif recipe.detect is not None and judges_sequences(recipe.detect, score_kind(recipe.detect, kinds)):
        steps = "set detect.decide: steps, or leave it out; by default sequences of symbols are judged as a whole"
        if recipe.detect.threshold == "dynamic":
            yield f"detect.threshold dynamic is for steps: {steps}"
        if recipe.detect.fit == "each":
            yield f"detect.fit each is for steps, and a sequence that is judged as a whole is one score: {steps}"
