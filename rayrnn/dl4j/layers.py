"""One layer of DL4J's configuration, in the form of either version: its cell, its answers, how it is trained."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rayrnn.dl4j.description import ANSWERS, CLIPS, LAYERS, MERGES, OPTIMIZERS, SCHEDULES, Updater
from rayrnn.wording import shortened

_CELLS = {name: cell for cell, name in LAYERS.items()}
_ANSWERS = {
    **{pair: answers for answers, pair in ANSWERS.items()},
    ("Softmax", "NegativeLogLikelihood"): "softmax",
    ("Sigmoid", "XENT"): "sigmoid",
}
_MERGES = {theirs: ours for ours, theirs in MERGES.items()}
_CLIPS = {theirs: ours for ours, theirs in CLIPS.items()}
_SCHEDULES = {theirs: (ours, keys) for ours, (theirs, keys) in SCHEDULES.items()}
#: numbers of a layer, as rayrnn.recipe has it
_WIDEST = 100_000


class Unreadable(ValueError):
    """What a layer has that has no counterpart, in words."""


@dataclass(frozen=True)
class Layer:
    """One of DL4J's layers, in either form."""

    number: int
    name: str
    values: Mapping[str, Any]
    conf: Mapping[str, Any]
    #: whether it is in the form of 0.9.1, which has rates and penalties in `conf`
    is_old: bool

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def inner(self, key: str) -> "Layer":
        """The layer that this one has inside."""
        values = mapping(self.values.get(key), key)
        return replace(self, name=simple(values.get("@class")), values=values)

    @property
    def trained(self) -> "Layer":
        """The one whose settings count: of a wrapper what it wraps, of two directions the first, which has the same."""
        wrapped = {"LastTimeStep": "underlying", "Bidirectional": "fwd"}.get(self.name)
        return self if wrapped is None else self.inner(wrapped).trained


def _check_age(layer: Layer) -> None:
    """
    Raises:
        Unreadable: a DL4J wrote it that had no updaters of their own yet.
    """
    if not isinstance(layer.get("iupdater"), dict):
        raise Unreadable("it has no updater (iupdater), as DL4J before 0.9 wrote it; read are 0.9.1 and 1.0.0")


def cell_of(layer: Layer) -> tuple[str, str, int, int]:
    """rayrnn's cell, its directions, and the sizes of what it reads and of its state."""
    if layer.name == "LastTimeStep":
        return cell_of(layer.inner("underlying"))
    if layer.name == "Bidirectional":
        return _both(layer)
    merge = "none"
    name = layer.name
    if name == "GravesBidirectionalLSTM":
        name, merge = "GravesLSTM", "sum"
    if name not in _CELLS:
        raise Unreadable(
            "no counterpart; read are LSTM, GravesLSTM, GravesBidirectionalLSTM, SimpleRnn, Bidirectional of these "
            "(CONCAT or ADD), LastTimeStep of these, GlobalPoolingLayer, RnnOutputLayer and OutputLayer"
        )
    _check_age(layer)
    _expect(layer, activation="TanH")
    if name != "SimpleRnn" and (gate := name_of(layer.get("gateActivationFn"))) != "Sigmoid":
        raise Unreadable(f"its gates have the activation {gate}; rayrnn's have Sigmoid")
    if layer.get("hasLayerNorm"):
        raise Unreadable("it normalizes its layer (hasLayerNorm), and rayrnn's cell does not")
    _check_plain(layer)
    return _CELLS[name], merge, size_of(layer, "nin"), size_of(layer, "nout")


def _both(layer: Layer) -> tuple[str, str, int, int]:
    mode = str(layer.get("mode"))
    if mode not in _MERGES:
        raise Unreadable(f"its mode is {mode}; rayrnn's two directions become one by {' or '.join(_MERGES)}")
    ahead, back = cell_of(layer.inner("fwd")), cell_of(layer.inner("bwd"))
    if ahead != back or ahead[1] != "none":
        raise Unreadable(f"its directions differ: {_told(layer.inner('fwd'))} and {_told(layer.inner('bwd'))}")
    if training_of(layer.inner("fwd")) != training_of(layer.inner("bwd")):
        raise Unreadable("its two directions are trained in different ways")
    if dropout_of(layer.inner("fwd")) != dropout_of(layer.inner("bwd")):
        raise Unreadable("its two directions drop different shares of what they read")
    return ahead[0], _MERGES[mode], ahead[2], ahead[3]


def _told(layer: Layer) -> str:
    return f"{layer.name} {layer.get('nin')}-{layer.get('nout')}"


def answers_of(layer: Layer) -> str:
    _check_age(layer)
    activation, loss = name_of(layer.get("activationFn")), name_of(layer.get("lossFn"))
    if (activation, loss) not in _ANSWERS:
        raise Unreadable(
            f"activation {activation} with loss {loss}; read are Softmax with MCXENT, Identity with MSE and Sigmoid "
            "with XENT"
        )
    weights = mapping(layer.get("lossFn"), "lossFn")
    inside = weights if "@class" in weights else next(iter(weights.values()))
    if isinstance(inside, dict) and inside.get("weights") is not None:
        raise Unreadable("its loss has weights of its own for the classes")
    if layer.get("hasBias") is False:
        raise Unreadable("it has no bias, and rayrnn's has one")
    _check_plain(layer)
    return _ANSWERS[activation, loss]


def _check_plain(layer: Layer) -> None:
    """What any layer may have, and rayrnn has not."""
    for key, words in (
        ("constraints", "constraints on its weights"),
        ("weightNoise", "noise on its weights (weightNoise)"),
        ("momentumSchedule", "a schedule of its momentum"),
        ("learningRateSchedule", "a schedule of its learning rate, in the form of 0.9.1"),
    ):
        if layer.get(key):
            raise Unreadable(f"it has {words}")
    if (of_biases := layer.get("biasUpdater")) and of_biases != layer.get("iupdater"):
        raise Unreadable("it has an updater of its own for biases")
    biases = _sum_of(layer, "regularizationBias").values()
    if any(biases) or _number(layer.get("l1Bias")) or _number(layer.get("l2Bias")):
        raise Unreadable("it has a penalty on biases")
    if _number(layer.get("dropOut")) and layer.conf.get("useDropConnect"):
        raise Unreadable("it drops weights (useDropConnect)")
    dropout_of(layer)
    training_of(layer)


def dropout_of(layer: Layer) -> float:
    """The share of a layer's inputs that is dropped; DL4J has the one that is kept."""
    layer = layer.trained
    if layer.is_old:
        share = _number(layer.get("dropOut"))
        return 0.0 if share in (0.0, 1.0) else _share(1 - share)
    found = layer.get("idropout")
    if found is None:
        return 0.0
    if (name := name_of(found)) != "Dropout" or found.get("pschedule") or found.get("pSchedule"):
        raise Unreadable(f"its dropout is {name}{'' if name != 'Dropout' else ' with a schedule'}; rayrnn has Dropout")
    return _share(1 - _number(found.get("p")))


def _share(dropped: float) -> float:
    if not 0 <= dropped < 1:
        raise Unreadable(f"its dropout keeps the share {1 - dropped:g}")
    return round(dropped, 12)


def training_of(layer: Layer) -> tuple[Updater, float, float, float, str]:
    """What a layer is trained with: updater, l1, l2, bound on the gradient and what is bounded."""
    layer = layer.trained
    by = str(layer.get("gradientNormalization", "None"))
    bound, kind = 0.0, "value"
    if by != "None":
        if by not in _CLIPS:
            raise Unreadable(f"gradientNormalization {by}; rayrnn has {', '.join(_CLIPS)}")
        bound, kind = _number(layer.get("gradientNormalizationThreshold")), _CLIPS[by]
        if bound <= 0:
            raise Unreadable(f"its gradientNormalizationThreshold is {bound:g}")
    l1, l2 = _penalties(layer)
    return _updater(layer), l1, l2, bound, kind


def _penalties(layer: Layer) -> tuple[float, float]:
    if layer.is_old:
        if not layer.conf.get("useRegularization"):
            return 0.0, 0.0
        return tuple(_one_value(layer, f"{kind}ByParam", biases=False) for kind in ("l1", "l2"))  # type: ignore[return-value]
    for kind in ("l1", "l2"):  # DL4J 1.0.0 makes a WeightDecay of them
        if value := _number(layer.get(kind)):
            raise Unreadable(
                f"its {kind} is {value:g} in the form of 1.0.0-alpha to beta3, whose penalty comes behind the updater; "
                "rayrnn's goes through it"
            )
    found = _sum_of(layer, "regularization")
    return found["l1"], found["l2"]


def _sum_of(layer: Layer, key: str) -> dict[str, float]:
    """Penalties of 1.0.0, of which each kind may be there more than once."""
    found, penalties = {"l1": 0.0, "l2": 0.0}, layer.get(key) or []
    if not isinstance(penalties, list):
        raise Unreadable(f"its {key} is {shortened(penalties)}, where a list is due")
    for one in penalties:
        name = name_of(one)
        kind = {"L1Regularization": "l1", "L2Regularization": "l2"}.get(name)
        if kind is None:
            raise Unreadable(f"its {key} is {name}; rayrnn has L1Regularization and L2Regularization")
        value = one.get(kind)
        if isinstance(value, dict) and name_of(value) != "FixedSchedule":
            raise Unreadable(f"its {kind} follows a {name_of(value)}, and rayrnn's stays")
        found[kind] += _number(value.get("value") if isinstance(value, dict) else value)
    return found


def _updater(layer: Layer) -> Updater:
    found = mapping(layer.get("iupdater"), "iupdater")
    name = name_of(found)
    if name not in OPTIMIZERS:
        raise Unreadable(f"its updater is {name}; rayrnn has Sgd, Nesterovs, RmsProp and Adam")
    if found.get("momentumSchedule") or found.get("momentumISchedule"):
        raise Unreadable("its momentum follows a schedule, and rayrnn's stays")
    rate = _number(found.get("learningRate"))
    schedule, planned = found.get("learningRateSchedule"), None
    if layer.is_old:
        rate = _one_value(layer, "learningRateByParam", biases=True) if "learningRateByParam" in layer.conf else rate
    elif schedule is not None:
        rate, planned = _schedule(mapping(schedule, "learningRateSchedule"))
    if not rate > 0:
        raise Unreadable(f"its learning rate is {rate:g}")
    if name in ("Adam", "RmsProp") and "epsilon" in found and not _number(found["epsilon"]):
        raise Unreadable("its updater's epsilon is 0, and rayrnn's is above")
    keys = {"decay": "rmsDecay", "momentum": "momentum", "beta1": "beta1", "beta2": "beta2", "epsilon": "epsilon"}
    settings = {ours: _number(found[theirs]) for ours, theirs in keys.items() if theirs in found}
    return Updater(name, rate, schedule=planned, **settings)


def _schedule(found: Mapping[str, Any]) -> tuple[float, Mapping[str, Any] | None]:
    """The rate that a schedule begins with, and how it goes on."""
    name = name_of(found)
    if name == "FixedSchedule":
        return _number(found.get("value")), None
    if name not in _SCHEDULES or found.get("scheduleType", "ITERATION") != "ITERATION":
        raise Unreadable(
            f"its learning rate follows a {name} by {found.get('scheduleType')}; rayrnn has {', '.join(_SCHEDULES)} by "
            "ITERATION"
        )
    kind, keys = _SCHEDULES[name]
    return _number(found.get("initialValue")), {
        "kind": kind,
        **{ours: _number(found.get(theirs)) for ours, theirs in keys.items()},
    }


def _one_value(layer: Layer, key: str, *, biases: bool) -> float:
    """What 0.9.1 has for each parameter by its name: the one that all weights have, and biases where they count."""
    values = mapping(layer.conf.get(key), key)
    own = {name: _number(value) for name, value in values.items()}
    weights = {value for name, value in own.items() if not name.startswith("b")}
    if not biases and any(value for name, value in own.items() if name.startswith("b")):
        raise Unreadable(f"{key} has a penalty on biases")
    found = set(own.values()) if biases else weights
    if len(found) != 1:
        raise Unreadable(f"{key} differs: {', '.join(f'{name} {value:g}' for name, value in own.items())}")
    return found.pop()


def _expect(layer: Layer, *, activation: str) -> None:
    found = name_of(layer.get("activationFn"))
    if found != activation:
        raise Unreadable(f"its activation is {found}; rayrnn's has {activation}")


def name_of(found: object) -> str:
    """What a class is called, without package and kind: `{"@class": "...ActivationTanH"}` and `{"TanH": {}}`."""
    if not isinstance(found, dict) or not found:
        return str(found)
    name = simple(found["@class"]) if "@class" in found else str(next(iter(found)))
    for prefix in ("Activation", "Loss"):
        if name.startswith(prefix) and name != prefix:
            return name.removeprefix(prefix)
    return name


def simple(name: object) -> str:
    return str(name).rpartition(".")[2].rpartition("$")[2]


def shown(way: tuple[Updater, float, float, float, str]) -> str:
    updater, l1, l2, bound, by = way
    clipped = f", {by} at most {bound:g}" if bound else ""
    more = {
        "RmsProp": f", decay {updater.decay:g}, epsilon {updater.epsilon:g}",
        "Nesterovs": f", momentum {updater.momentum:g}",
        "Adam": f", betas {updater.beta1:g} and {updater.beta2:g}, epsilon {updater.epsilon:g}",
    }.get(updater.name, "")
    planned = f", schedule {dict(updater.schedule)}" if updater.schedule else ""
    return f"{updater.name} at {updater.learning_rate:g}{more}{planned} with l1 {l1:g} and l2 {l2:g}{clipped}"


def mapping(found: object, name: str) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        raise Unreadable(f"{name} is {shortened(found)}, where settings are due")
    return found


def _number(found: object) -> float:
    """0 where there is none: DL4J writes `NaN` for what an updater has not."""
    if found is None or found == "NaN":
        return 0.0
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise Unreadable(f"{shortened(found)} stands where a number is due")
    return float(found)


def size_of(layer: Layer, key: str) -> int:
    found = layer.get(key)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 < found <= _WIDEST:
        raise Unreadable(f"its {key} is {shortened(found)}; due is a whole number, at most {_WIDEST:,}")
    return found


def count_of(values: Mapping[str, Any], key: str, default: int) -> int:
    found = values.get(key, default)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < 2**53:
        raise Unreadable(f"{key} is {shortened(found)}; due is a whole number from 0 on")
    return found
