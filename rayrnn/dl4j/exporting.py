"""A run -> the zip of a network that DL4J 1.0.0 has; others are refused with what is missing."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from rayrnn.data.encoding import Classes, Encoding, Numbers, Scaling
from rayrnn.dl4j.description import Description, Updater
from rayrnn.dl4j.parameters import Parameter, parameters_of, to_vector
from rayrnn.dl4j.written_configuration import written_configuration
from rayrnn.dl4j.zip_file import write_zip, written_normalizer
from rayrnn.errors import RunError
from rayrnn.models.network import Network
from rayrnn.recipe import Recipe, task_of
from rayrnn.runs.checkpoints import Checkpoint, Tensors, newest_checkpoint
from rayrnn.runs.directory import Run
from rayrnn.tasks import Numeric, Searching
from rayrnn.wording import counted

_UPDATERS = {"sgd": "Sgd", "rmsprop": "RmsProp", "adam": "Adam", "adamw": "Adam", "muon": "Adam"}
#: torch's names of what an optimizer keeps -> ours of DL4J's
_STATES = {"exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq", "square_avg": "mean_square"}


def zip_of(run: Run, network: nn.Module, encoding: Encoding) -> tuple[bytes, list[str]]:
    """The bytes of a zip, and in words what of the run is not in it.

    Args:
        network: with the run's best model.

    Raises:
        RunError: DL4J has no network like this; says what of it.
    """
    recipe = run.recipe
    if reason := _foreign(recipe, encoding):
        raise RunError(f"{run.name} cannot be exported to DL4J: {reason}")
    try:
        parameters = parameters_of(network)
    except ValueError as error:
        raise RunError(f"{run.name} cannot be exported to DL4J: {error}") from None
    assert isinstance(network, Network)
    found, told = _described(recipe, encoding, network)
    state, iteration, more = _state(run, network, parameters, found)
    found = replace(found, iteration=iteration)
    vector = to_vector(network.state_dict(), parameters)
    return write_zip(written_configuration(found), vector, state, _normalizer(encoding)), [*told, *more]


def _foreign(recipe: Recipe, encoding: Encoding) -> str | None:
    """Why no zip says what this run answers, in words."""
    task = task_of(recipe)
    if isinstance(task, Searching):
        return f"{recipe.task} answers with a length of its own, and DL4J has no such layer"
    if isinstance(task, Numeric) and recipe.training.loss not in ("squared", "bernoulli"):
        return f"training.loss is {recipe.training.loss}, and written are squared (DL4J's MSE) and bernoulli (XENT)"
    if encoding.forecast is not None and encoding.forecast.known:
        return "it reads what is known ahead (data.known_ahead), which no zip can tell"
    return None


def _described(recipe: Recipe, encoding: Encoding, network: Network) -> tuple[Description, list[str]]:
    training, rules = recipe.training, recipe.training.dl4j
    targets, told = encoding.targets, list[str]()
    several = isinstance(targets, Classes) and targets.several
    judges = training.loss == "bernoulli"
    clip, l2 = training.clip, training.l2
    name = _UPDATERS[training.optimizer]
    updater = Updater(name, training.learning_rate, decay=training.decay)
    if rules is not None:
        schedule = None if rules.schedule is None else rules.schedule.model_dump()
        name = "Nesterovs" if rules.momentum else name
        updater = Updater(
            name,
            training.learning_rate,
            decay=training.decay,
            momentum=rules.momentum,
            beta1=rules.beta1,
            beta2=rules.beta2,
            epsilon=rules.epsilon,
            schedule=schedule,
        )
        if rules.version != "1.0.0":
            told.append(f"DL4J 1.0.0 trains it on by its own rules; the run's are those of {rules.version}")
    else:
        if training.optimizer in ("adamw", "muon"):
            told.append(f"the updater is Adam: DL4J has no {training.optimizer}")
        if clip and training.clip_by == "norm":
            clip = 0.0
            told.append("gradients are not clipped: DL4J has no bound on the norm of the whole gradient")
        if l2:
            told.append("l2 is for weights alone; the run's is for biases, too")
    if training.schedule != "constant":
        told.append(f"the learning rate stays: the run's schedule, {training.schedule}, goes by rounds")
    if encoding.foretold is not None:
        told.append(f"its answers are {encoding.foretold.describe()}, which no zip tells")
    found = Description(
        version="1.0.0",
        cell=recipe.model.cell,
        num_inputs=encoding.num_inputs,
        hidden=recipe.model.sizes,
        num_outputs=encoding.num_outputs,
        answers="sigmoid" if several or judges else "identity" if isinstance(targets, Numbers) else "softmax",
        bidirectional=recipe.model.bidirectional,
        pooling=network.pooling,
        updater=updater,
        l1=0.0 if rules is None else rules.l1,
        l2=l2,
        clip=clip,
        clip_by=training.clip_by if clip else "value",
        dropout=recipe.model.dropout,
        dropout_at=recipe.model.dropout_at if recipe.model.dropout else (),
        truncate=training.truncate,
        seed=recipe.seed % 2**63,
    )
    return found, told


def _state(
    run: Run, network: Network, parameters: list[Parameter], found: Description
) -> tuple[np.ndarray | None, int, list[str]]:
    """What the updater keeps, the updates so far, and what is to be said of both."""
    checkpoint, _ = newest_checkpoint(run.checkpoints)
    if checkpoint is None or not checkpoint.optimizers:
        return None, 0, ["there is no checkpoint, and so no state of the updater"]
    weights = network.state_dict()
    if any(not torch.equal(value, weights[name]) for name, value in checkpoint.model.items()):
        newest = checkpoint.progress["round"]
        return None, 0, [f"without the updater's state: that is of round {newest:,}, and the best model of another one"]
    named = _by_parameter(checkpoint, network, parameters, is_dl4j=run.recipe.training.dl4j is not None)
    steps = named.pop("step", {})
    iteration = max((int(value) for value in steps.values()), default=0)
    told = []
    apart = run.recipe.averaging.optimizer_state != "average"
    if len(checkpoint.optimizers) > 1 and found.updater.states and apart:
        told.append(f"the updater's state is that of one of {counted(len(checkpoint.optimizers), 'worker')}")
    missing = [name for name in found.updater.states if name not in named]
    if missing or run.recipe.training.optimizer == "muon":
        return None, iteration, ["without the updater's state, which DL4J's has not"]
    if not found.updater.states:
        return None, iteration, []
    return np.concatenate([to_vector(named[name], parameters) for name in found.updater.states]), iteration, told


def _by_parameter(
    checkpoint: Checkpoint, network: Network, parameters: list[Parameter], *, is_dl4j: bool
) -> dict[str, Tensors]:
    """The first worker's state: by what it is, then by the parameter's name."""
    own = [part.name for parameter in parameters for part in parameter.parts]
    order = own if is_dl4j else [name for name, _ in network.named_parameters()]
    found: dict[str, Tensors] = {}
    for key, value in checkpoint.optimizers[0].items():
        number, _, kind = key.partition(".")
        if number.isdecimal():
            found.setdefault(_STATES.get(kind, kind), {})[order[int(number)]] = value
    return found


def _normalizer(encoding: Encoding) -> bytes | None:
    if not isinstance(encoding.inputs, Numbers):
        return None
    features, targets = encoding.inputs.scaling, encoding.targets
    labels = targets.scaling if isinstance(targets, Numbers) and targets.scaling.kind != "none" else None
    kind = features.kind if features.kind != "none" else "none" if labels is None else labels.kind
    # words of categorical columns are 0 and 1, and stay so
    more = encoding.num_inputs - features.width
    whole = Scaling(kind, (*features.shift, *(0.0,) * more), (*features.scale, *(1.0,) * more))
    return written_normalizer(whole, labels)
