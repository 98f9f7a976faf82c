"""DL4J's configuration.json -> what rayrnn understands of it, or every layer that it has no counterpart for, by name.

Forms: 1.0.0 names a layer's class, `{"@class": "org.deeplearning4j.nn.conf.layers.LSTM", ...}`; 0.9.1 wraps it,
`{"gravesLSTM": {...}}`, and has rates and penalties in `confs[i]`, too.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rayrnn.dl4j.description import POOLINGS, Description
from rayrnn.dl4j.layers import (
    Layer,
    Unreadable,
    answers_of,
    cell_of,
    count_of,
    dropout_of,
    mapping,
    name_of,
    shown,
    simple,
    size_of,
    training_of,
)
from rayrnn.errors import DataError
from rayrnn.wording import shortened

#: 0.9.1's names of layers, where they are not the class's
_OLD_NAMES = {
    "gravesLSTM": "GravesLSTM",
    "gravesBidirectionalLSTM": "GravesBidirectionalLSTM",
    "rnnoutput": "RnnOutputLayer",
    "output": "OutputLayer",
    "GlobalPooling": "GlobalPoolingLayer",
    "convolution": "ConvolutionLayer",
    "dense": "DenseLayer",
    "embedding": "EmbeddingLayer",
    "loss": "LossLayer",
    "RnnLossLayer": "RnnLossLayer",
    "dropout": "DropoutLayer",
    "activation": "ActivationLayer",
    "batchNormalization": "BatchNormalization",
    "subsampling": "SubsamplingLayer",
    "autoEncoder": "AutoEncoder",
}
_POOLINGS = {theirs: ours for ours, theirs in POOLINGS.items()}
#: layers, of a network that anybody trained
_MOST_LAYERS = 1000


def read_configuration(content: bytes, what: str) -> Description:
    """
    Args:
        what: the file as messages call it.

    Raises:
        DataError: it is no configuration of a MultiLayerNetwork of recurrent layers; names each layer that rayrnn has
            no counterpart for.
    """
    values = _parsed(content, what)
    if "vertices" in values or "networkInputs" in values:
        raise DataError(
            f"{what} is the configuration of a ComputationGraph, and MultiLayerNetworks are read; give the zip of one"
        )
    if "class_name" in values or "keras_version" in values:
        raise DataError(
            f"{what} is a Keras configuration, and zips of DL4J's ModelSerializer are read: in DL4J, import the Keras "
            "model and write it with ModelSerializer.writeModel"
        )
    confs = values.get("confs")
    if not isinstance(confs, list) or not confs or not all(isinstance(conf, dict) for conf in confs):
        raise DataError(f"{what} is no configuration of a MultiLayerNetwork: it has no list of layers, `confs`")
    if len(confs) > _MOST_LAYERS:
        raise DataError(f"{what} has {len(confs):,} layers; at most {_MOST_LAYERS:,} are read")
    faults: list[str] = []
    try:
        layers = [_layer(number, conf) for number, conf in enumerate(confs)]
    except Unreadable as error:
        raise DataError(f"{what} cannot be read: {error}") from None
    for layer in layers:
        faults += _unknown(layer)
    if not faults:
        try:
            faults += _faults(values, layers)
            if not faults:
                return _described(values, layers)
        except Unreadable as error:
            faults.append(str(error))
    raise DataError(
        f"{what} has what rayrnn has no counterpart for, and nothing was written:\n"
        + "\n".join(f"  {fault}" for fault in dict.fromkeys(faults))
    )


def _parsed(content: bytes, what: str) -> Mapping[str, Any]:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what} is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise DataError(f"{what} is no configuration: it holds {shortened(values)}")
    return values


def _layer(number: int, conf: Mapping[str, Any]) -> Layer:
    values = mapping(conf.get("layer"), f"the layer of confs[{number}]")
    if "@class" in values:
        return Layer(number, simple(values["@class"]), values, conf, is_old=False)
    if len(values) != 1:
        raise Unreadable(f"layer {number} names no class: it has the keys {', '.join(list(values)[:5])}")
    ((name, inside),) = values.items()
    # 1.0.0-alpha to beta wrapped layers, too, and had their settings where 1.0.0 has them
    is_old = bool({"useRegularization", "learningRateByParam"} & set(conf)) or "idropout" not in mapping(inside, name)
    return Layer(number, _OLD_NAMES.get(name, name), mapping(inside, name), conf, is_old=is_old)


def _unknown(layer: Layer) -> Iterator[str]:
    """The classes of layers that there is nothing for, and the settings that nothing is for."""
    try:
        _settings(layer)
    except Unreadable as error:
        yield f"layer {layer.number} ({layer.name}): {error}"


def _settings(layer: Layer) -> None:
    if layer.name == "GlobalPoolingLayer":
        if (kind := str(layer.get("poolingType"))) not in _POOLINGS:
            raise Unreadable(f"poolingType {kind}; rayrnn pools by {', '.join(_POOLINGS)}")
        if layer.get("collapseDimensions") is False:
            raise Unreadable("collapseDimensions is false, and rayrnn's answer has no axis of one step")
        if (axes := layer.get("poolingDimensions")) not in (None, [2]):
            raise Unreadable(f"poolingDimensions is {shortened(axes)}; rayrnn pools over steps, which are 2")
        if dropout_of(layer):
            raise Unreadable("it drops some of what it pools")
        return
    if layer.name in ("RnnOutputLayer", "OutputLayer"):
        answers_of(layer)
    else:
        cell_of(layer)


def _faults(values: Mapping[str, Any], layers: list[Layer]) -> Iterator[str]:
    """What of the layers does not go together in one of rayrnn's networks."""
    last = layers[-1]
    if last.name not in ("RnnOutputLayer", "OutputLayer"):
        yield f"layer {last.number} ({last.name}) is the last, where an RnnOutputLayer or OutputLayer is due"
        return
    inner = [layer for layer in layers[:-1] if layer.name != "GlobalPoolingLayer"]
    misplaced = [layer for layer in layers[:-1] if layer.name in ("RnnOutputLayer", "OutputLayer")]
    misplaced += [layer for layer in layers[:-2] if layer.name in ("GlobalPoolingLayer", "LastTimeStep")]
    for layer in misplaced:
        yield f"layer {layer.number} ({layer.name}) has recurrent layers behind it"
    if not inner:
        yield "there is no recurrent layer"
    if misplaced or not inner:
        return
    pools = layers[-2].name in ("GlobalPoolingLayer", "LastTimeStep")
    if pools != (last.name == "OutputLayer"):
        due = "OutputLayer" if pools else "RnnOutputLayer"
        yield f"layer {last.number} ({last.name}) stands behind {layers[-2].name}, where an {due} is due"
        return
    first = cell_of(inner[0])
    for layer in inner[1:]:
        if cell_of(layer)[:2] != first[:2]:
            yield (
                f"layer {layer.number} ({layer.name}) is of another kind than layer {inner[0].number} "
                f"({inner[0].name}), and rayrnn's recurrent layers are all of one kind"
            )
    if first[1] != "none" and layers[-2].name == "LastTimeStep":
        yield (
            f"layer {layers[-2].number} (LastTimeStep) takes the last step of a bidirectional layer, where the way "
            "back has seen one step only; rayrnn takes each direction where it has read the whole sequence"
        )
    if first[1] == "sum" and layers[-2].name == "GlobalPoolingLayer" and layers[-2].get("poolingType") == "MAX":
        yield (
            f"layer {layers[-2].number} (GlobalPoolingLayer) takes the largest of added directions; rayrnn adds the "
            "largest of each"
        )
    trained = [*inner, last]
    ways = {shown(training_of(layer)): layer for layer in reversed(trained)}
    for way, layer in list(ways.items())[1:]:
        yield f"layer {layer.number} ({layer.name}) is trained by {way}, and others by {next(iter(ways))}"
    yield from _faults_of_whole(values, layers)


def _faults_of_whole(values: Mapping[str, Any], layers: list[Layer]) -> Iterator[str]:
    for layer in layers:
        conf = layer.conf
        expected = {
            "miniBatch": True,
            "minimize": True,
            "optimizationAlgo": "STOCHASTIC_GRADIENT_DESCENT",
            "numIterations": 1,
            "learningRatePolicy": "None",
        }
        for key, due in expected.items():
            if key in conf and conf[key] != due:
                yield f"layer {layer.number} ({layer.name}): {key} is {conf[key]}, and {due} is due"
    if values.get("backpropType", "Standard") not in ("Standard", "TruncatedBPTT"):
        yield f"backpropType is {values['backpropType']}"
    forward, back = values.get("tbpttFwdLength"), values.get("tbpttBackLength")
    if values.get("backpropType") == "TruncatedBPTT" and forward != back:
        yield f"tbpttFwdLength is {forward} and tbpttBackLength {back}; rayrnn goes back over the whole segment"
    for place, one in _preprocessors(values).items():
        name = name_of(one)
        behind_pooling = str(place) == str(len(layers) - 1) and layers[-1].name == "OutputLayer"
        if not (name in ("RnnToFeedForwardPreProcessor", "rnnToFeedForward") and behind_pooling):
            yield f"layer {place} has the preprocessor {name}"


def _preprocessors(values: Mapping[str, Any]) -> Mapping[str, Any]:
    found = values.get("inputPreProcessors")
    return {} if found is None or found == [] else mapping(found, "inputPreProcessors")


def _described(values: Mapping[str, Any], layers: list[Layer]) -> Description:
    *inner, last = (layer for layer in layers if layer.name != "GlobalPoolingLayer")
    cells = [cell_of(layer) for layer in inner]
    cell, merge, num_inputs, _ = cells[0]
    hidden = tuple(one[3] for one in cells)
    pooling = None
    if layers[-2].name == "LastTimeStep":
        pooling = "last"
    elif layers[-2].name == "GlobalPoolingLayer":
        pooling = _POOLINGS[layers[-2].get("poolingType")]
    updater, l1, l2, bound, by = training_of(inner[0])
    kept = [dropout_of(layer) for layer in (*inner, last)]
    dropout, places = _dropped(kept, inner)
    found = Description(
        version="0.9.1" if last.is_old else "1.0.0",
        cell=cell,
        num_inputs=num_inputs,
        hidden=hidden,
        num_outputs=size_of(last, "nout"),
        answers=answers_of(last),
        bidirectional=merge,
        pooling=pooling,
        updater=updater,
        l1=l1,
        l2=l2,
        clip=bound,
        clip_by=by,
        dropout=dropout,
        dropout_at=places,
        truncate=count_of(values, "tbpttFwdLength", 0) if values.get("backpropType") == "TruncatedBPTT" else 0,
        iteration=count_of(values, "iterationCount", 0),
        seed=_seed_of(layers[0].conf),
    )
    _check_chain(found, cells, last)
    return found


def _seed_of(conf: Mapping[str, Any]) -> int:
    """Any of Java's, as a recipe takes it; nothing that DL4J drew by it is drawn again."""
    found = conf.get("seed", 12345)
    return found % 2**63 if isinstance(found, int) and not isinstance(found, bool) else 12345


def _check_chain(found: Description, cells: list[tuple[str, str, int, int]], last: Layer) -> None:
    reads = [*(one[2] for one in cells[1:]), size_of(last, "nin")]
    for number, (width, read) in enumerate(zip(found.widths, reads, strict=True)):
        if width != read:
            raise Unreadable(f"layer {number} answers {width} numbers a step, and the layer behind it reads {read}")
    if found.pooling is not None and found.truncate:
        raise Unreadable("it answers once a sequence and is trained with truncated backpropagation")
    if found.bidirectional != "none" and found.truncate:
        raise Unreadable("it is bidirectional and is trained with truncated backpropagation")


def _dropped(kept: list[float], inner: list[Layer]) -> tuple[float, tuple[str, ...]]:
    """The share that is dropped, and of which layers' inputs."""
    if not any(kept):
        return 0.0, ()
    shares = {share for share in kept if share}
    between = kept[1:-1]
    if len(shares) > 1 or len(set(between)) > 1:
        shown = ", ".join(f"{1 - share:g}" for share in kept)
        raise Unreadable(f"its layers keep different shares of their inputs (dropOut {shown}), and rayrnn's have one")
    places = {"first": bool(kept[0]), "between": any(between), "last": bool(kept[-1])}
    return shares.pop(), tuple(place for place, there in places.items() if there)
