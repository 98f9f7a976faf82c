"""What rayrnn understands of a network -> the configuration.json that DL4J 1.0.0 restores it from."""

import json
from collections.abc import Mapping
from typing import Any

from rayrnn.dl4j.description import ANSWERS, CLIPS, LAYERS, MERGES, POOLINGS, SCHEDULES, Description

_LAYERS = "org.deeplearning4j.nn.conf.layers."
_LEARNING = "org.nd4j.linalg.learning."
_LOSS_SETTINGS = {"MCXENT": {"softmaxClipEps": 1e-10}, "BinaryXENT": {"clipEps": 1e-5}, "MSE": {}}
#: what DL4J has for a network without truncated backpropagation
_TBPTT_UNUSED = 20
#: the names of a layer's parameters
_WEIGHTS = ("W", "RW", "b")


def written_configuration(found: Description) -> str:
    """The JSON text.

    Args:
        found: of the rules of 1.0.0, whatever its version says.
    """
    confs = [_conf(layer, variables, found) for layer, variables in _layers(found)]
    tbptt = found.truncate or _TBPTT_UNUSED
    behind_pooling = {}
    if found.pooling in POOLINGS:
        preprocessor = "org.deeplearning4j.nn.conf.preprocessor.RnnToFeedForwardPreProcessor"
        behind_pooling = {str(len(confs) - 1): {"@class": preprocessor, "rnnDataFormat": "NCW"}}
    values = {
        "backpropType": "TruncatedBPTT" if found.truncate else "Standard",
        "cacheMode": "NONE",
        "confs": confs,
        "dataType": "FLOAT",
        "epochCount": 0,
        "inferenceWorkspaceMode": "ENABLED",
        "inputPreProcessors": behind_pooling,
        "iterationCount": found.iteration,
        "tbpttBackLength": tbptt,
        "tbpttFwdLength": tbptt,
        "trainingWorkspaceMode": "ENABLED",
        "validateOutputLayerConfig": True,
    }
    return json.dumps(values, indent=2)


def _conf(layer: Mapping[str, Any], variables: tuple[str, ...], found: Description) -> dict[str, Any]:
    return {
        "cacheMode": "NONE",
        "dataType": "FLOAT",
        "epochCount": 0,
        "iterationCount": 0,
        "layer": layer,
        "maxNumLineSearchIterations": 5,
        "miniBatch": True,
        "minimize": True,
        "optimizationAlgo": "STOCHASTIC_GRADIENT_DESCENT",
        "seed": found.seed,
        "stepFunction": None,
        "variables": list(variables),
    }


def _layers(found: Description) -> list[tuple[dict[str, Any], tuple[str, ...]]]:
    """Each layer, and the names of its parameters."""
    reads = (found.num_inputs, *found.widths[:-1])
    layers = [_recurrent(found, place, reads[place]) for place in range(len(found.hidden))]
    if found.pooling == "last":
        inside, _ = layers.pop()
        place = len(found.hidden) - 1
        last = {"@class": f"{_LAYERS}recurrent.LastTimeStep", **_wrapper(found, place), "underlying": inside}
        layers.append((last, ()))
    elif found.pooling is not None:
        layers.append((_pooling(found, len(layers)), ()))
    return [*layers, (_output(found, len(layers)), ("W", "b"))]


def _recurrent(found: Description, place: int, reads: int) -> tuple[dict[str, Any], tuple[str, ...]]:
    if found.is_graves_pair:
        both = tuple(f"{name}{direction}" for direction in "FB" for name in _WEIGHTS)
        return _cell(found, place, reads, "GravesBidirectionalLSTM"), both
    cell = _cell(found, place, reads, LAYERS[found.cell])
    if found.bidirectional == "none":
        return cell, _WEIGHTS
    layer = {
        "@class": f"{_LAYERS}recurrent.Bidirectional",
        "bwd": cell,
        "fwd": cell,
        "mode": MERGES[found.bidirectional],
        "nin": reads,
        "nout": found.widths[place],
        "rnndataFormat": "NCW",
        **_wrapper(found, place),
    }
    return layer, tuple(f"{direction}{name}" for direction in "fb" for name in _WEIGHTS)


def _wrapper(found: Description, place: int) -> dict[str, Any]:
    return {"constraints": None, **_clipped(found), "idropout": None, "layerName": f"layer{place}"}


def _cell(found: Description, place: int, reads: int, name: str) -> dict[str, Any]:
    room = "recurrent." if name == "SimpleRnn" else ""
    is_dropped = ("first" if place == 0 else "between") in found.dropout_at
    values = {
        "@class": f"{_LAYERS}{room}{name}",
        **_trained(found, place, "TanH", reads, found.hidden[place], dropped=is_dropped),
        "rnnDataFormat": "NCW",
        "weightInitFnRecurrent": None,
    }
    if name == "SimpleRnn":
        return values | {"hasLayerNorm": False}
    gates = {"@class": "org.nd4j.linalg.activations.impl.ActivationSigmoid"}
    return values | {"forgetGateBiasInit": 1.0, "gateActivationFn": gates, "helperAllowFallback": True}


def _output(found: Description, place: int) -> dict[str, Any]:
    activation, loss = ANSWERS[found.answers]
    per_step = found.pooling is None
    values = {
        "@class": f"{_LAYERS}{'RnnOutputLayer' if per_step else 'OutputLayer'}",
        **_trained(found, place, activation, found.widths[-1], found.num_outputs, dropped="last" in found.dropout_at),
        "hasBias": True,
        "lossFn": {"@class": f"org.nd4j.linalg.lossfunctions.impl.Loss{loss}", **_LOSS_SETTINGS[loss]},
    }
    if found.pooling in POOLINGS:
        values["timeDistributedFormat"] = "NCW"
    return values | ({"rnnDataFormat": "NCW"} if per_step else {})


def _pooling(found: Description, place: int) -> dict[str, Any]:
    return {
        "@class": f"{_LAYERS}GlobalPoolingLayer",
        "collapseDimensions": True,
        "constraints": None,
        "gradientNormalization": "None",
        "gradientNormalizationThreshold": 0.0,
        "idropout": None,
        "layerName": f"layer{place}",
        "pnorm": 2,
        "poolingDimensions": None,
        "poolingType": POOLINGS[str(found.pooling)],
    }


def _trained(
    found: Description, place: int, activation: str, reads: int, size: int, *, dropped: bool
) -> dict[str, Any]:
    """What every layer with parameters has."""
    dropout = {
        "@class": "org.deeplearning4j.nn.conf.dropout.Dropout",
        "helperAllowFallback": True,
        "p": round(1 - found.dropout, 12),
        "pschedule": None,
    }
    return {
        "activationFn": {"@class": f"org.nd4j.linalg.activations.impl.Activation{activation}"},
        "biasInit": 0.0,
        "biasUpdater": None,
        "constraints": None,
        "gainInit": 1.0,
        **_clipped(found),
        "idropout": dropout if dropped and found.dropout else None,
        "iupdater": _updater(found),
        "layerName": f"layer{place}",
        "nin": reads,
        "nout": size,
        "regularization": [_penalty(kind, value) for kind, value in (("l2", found.l2), ("l1", found.l1)) if value],
        "regularizationBias": [],
        "timeDistributedFormat": None,
        "weightInitFn": {"@class": "org.deeplearning4j.nn.weights.WeightInitXavier"},
        "weightNoise": None,
    }


def _clipped(found: Description) -> dict[str, Any]:
    if not found.clip:
        return {"gradientNormalization": "None", "gradientNormalizationThreshold": 1.0}
    return {"gradientNormalization": CLIPS[found.clip_by], "gradientNormalizationThreshold": found.clip}


def _penalty(kind: str, value: float) -> dict[str, Any]:
    fixed = {"@class": "org.nd4j.linalg.schedule.FixedSchedule", "value": value}
    return {"@class": f"{_LEARNING}regularization.{kind.upper()}Regularization", kind: fixed}


def _updater(found: Description) -> dict[str, Any]:
    updater = found.updater
    own = {
        "Nesterovs": {"momentum": updater.momentum},
        "RmsProp": {"epsilon": updater.epsilon, "rmsDecay": updater.decay},
        "Adam": {"beta1": updater.beta1, "beta2": updater.beta2, "epsilon": updater.epsilon},
    }.get(updater.name, {})
    values = {"@class": f"{_LEARNING}config.{updater.name}", "learningRate": updater.learning_rate, **own}
    if updater.schedule is None:
        return values
    name, keys = SCHEDULES[updater.schedule["kind"]]
    settings = {theirs: updater.schedule[ours] for ours, theirs in keys.items()}
    if name == "PolySchedule":
        settings["maxIter"] = int(settings["maxIter"])
    if name == "SigmoidSchedule":
        settings["stepSize"] = int(settings["stepSize"])
    schedule = {"@class": f"org.nd4j.linalg.schedule.{name}", "initialValue": updater.learning_rate, **settings}
    return values | {"learningRateSchedule": schedule | {"scheduleType": "ITERATION"}}
