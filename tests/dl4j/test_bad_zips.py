"""What is no zip of a network that rayrnn has is refused, by name, and nothing is written."""

import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayrnn.dl4j.arrays import write_array
from rayrnn.dl4j.configuration import read_configuration
from rayrnn.dl4j.description import Updater
from rayrnn.dl4j.importing import import_dl4j, read_symbols
from rayrnn.dl4j.zip_file import count_parameters, read_zip
from rayrnn.errors import DataError, UsageError
from tests.dl4j.zips import CHARACTERS, changed, entries_of, write

COUNT = count_parameters(CHARACTERS)
ENTRIES = entries_of(CHARACTERS)


def refused(path: Path, *told: str, **options: Any) -> None:
    out = path.parent / "run"
    with pytest.raises(DataError) as error:
        import_dl4j(path, out=out, **options)
    for words in told:
        assert words in str(error.value)
    assert not out.exists()


def layer(number: int, **values: Any) -> Callable[[Any], None]:
    """Change a layer's settings."""

    def change(configuration: Any) -> None:
        configuration["confs"][number]["layer"] |= values

    return change


@pytest.mark.parametrize("missing", ["configuration.json", "coefficients.bin"])
def test_an_entry_that_is_not_there(missing: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", {name: value for name, value in ENTRIES.items() if name != missing})
    refused(path, f"has no {missing}", "ModelSerializer")


def test_what_is_no_zip(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 cut")
    refused(tmp_path / "a.zip", "is no zip")
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    refused(tmp_path / "model.h5", "Keras", "HDF5")
    (tmp_path / "model.keras.zip").write_bytes(write(tmp_path / "d.zip", {"model.weights.h5": b"x"}).read_bytes())
    refused(tmp_path / "model.keras.zip", "is a model of Keras", "ModelSerializer.writeModel")
    refused(tmp_path / "modle.h5", "there is no", "looked from the directory", 'did you mean "', "model.h5")
    refused(write(tmp_path / "e.zip", ENTRIES), "the symbols: there is no", symbols=tmp_path / "nothing.txt")
    write(tmp_path / "b.zip", ENTRIES)
    (tmp_path / "c.zip").write_bytes((tmp_path / "b.zip").read_bytes()[:-300])
    refused(tmp_path / "c.zip", "is no zip")


def test_other_kinds_of_models_are_named(tmp_path: Path) -> None:
    graph = {"networkInputs": ["in"], "networkOutputs": ["out"], "vertices": {}}
    refused(
        write(tmp_path / "a.zip", {**ENTRIES, "configuration.json": json.dumps(graph).encode()}), "ComputationGraph"
    )
    keras = {"class_name": "Sequential", "config": []}
    refused(write(tmp_path / "b.zip", {**ENTRIES, "configuration.json": json.dumps(keras).encode()}), "Keras")
    refused(write(tmp_path / "c.zip", {**ENTRIES, "configuration.json": b"{"}), "is no JSON")
    refused(write(tmp_path / "d.zip", {**ENTRIES, "configuration.json": b"[" * 100_000}), "is no JSON")
    refused(write(tmp_path / "e.zip", {**ENTRIES, "configuration.json": b"{}"}), "no list of layers")
    refused(write(tmp_path / "f.zip", {**ENTRIES, "noParams.marker": b""}), "without parameters")


@pytest.mark.parametrize("count", [COUNT - 1, COUNT + 1, 1])
@pytest.mark.parametrize("name", ["coefficients.bin", "updaterState.bin"])
def test_too_few_or_too_many_parameters(name: str, count: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", {**ENTRIES, name: write_array(np.zeros(count, np.float32))})
    refused(path, f"{name} has {count:,} number", f"{COUNT:,}")


def test_a_length_that_lies(tmp_path: Path) -> None:
    """Nothing is made of a size before it is compared with what is there."""
    right = ENTRIES["coefficients.bin"]
    lies = [2**62, 2**31, COUNT + 1, COUNT - 1, 0, -1]
    place = right.index(struct.pack(">q", COUNT) + b"\x00\x05FLOAT")
    for number, length in enumerate(lies):
        content = right[:place] + struct.pack(">q", length) + right[place + 8 :]
        refused(write(tmp_path / f"{number}.zip", {**ENTRIES, "coefficients.bin": content}), "coefficients.bin", "byte")
    for number, cut in enumerate((0, 1, 10, 60, len(right) - 1)):
        refused(write(tmp_path / f"cut{number}.zip", {**ENTRIES, "coefficients.bin": right[:cut]}), "coefficients.bin")
    refused(write(tmp_path / "more.zip", {**ENTRIES, "coefficients.bin": right + b"\0"}), "1 byte more")


def test_an_entry_that_expands_a_thousand_times(tmp_path: Path) -> None:
    """It is read to the most that it can have, and no further."""
    path = write(tmp_path / "a.zip", {**ENTRIES, "coefficients.bin": bytes(200 * 2**20)})
    assert path.stat().st_size < 2**20
    refused(path, "coefficients.bin has 210 MB", "the most that it can have")
    refused(
        write(tmp_path / "b.zip", {**ENTRIES, "configuration.json": b" " * (64 * 2**20)}), "configuration.json has 67"
    )


@pytest.mark.parametrize("name", ["../coefficients.bin", "/etc/passwd", "a/../../b", "..\\b"])
def test_an_entry_that_leads_out_of_the_zip(name: str, tmp_path: Path) -> None:
    refused(write(tmp_path / "a.zip", {**ENTRIES, name: b"x"}), "leads out of the zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_that_is_there_twice(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", ENTRIES)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("coefficients.bin", ENTRIES["coefficients.bin"])
    refused(path, "two entries coefficients.bin")


@pytest.mark.parametrize(("kind", "form"), [("DOUBLE", ">f8"), ("HALF", ">f2")])
def test_double_and_half_precision_become_single(kind: str, form: str, tmp_path: Path) -> None:
    numbers = read_zip(write(tmp_path / "a.zip", ENTRIES)).parameters
    right = ENTRIES["coefficients.bin"]
    head = right[: right.index(b"\x00\x05FLOAT")]
    content = head + struct.pack(">H", len(kind)) + kind.encode() + numbers.astype(form).tobytes()
    read = read_zip(write(tmp_path / "b.zip", {**ENTRIES, "coefficients.bin": content}))
    np.testing.assert_array_equal(read.parameters, numbers.astype(form).astype(np.float32))
    assert bool(read.notes) == (kind == "DOUBLE")


def test_an_array_of_0_9_1_and_one_with_two_axes(tmp_path: Path) -> None:
    """Lengths of 32 bits, shapes of ints, [1, n]: as DL4J 0.9.1 writes them, big-endian."""
    numbers = read_zip(write(tmp_path / "a.zip", ENTRIES)).parameters
    word = lambda text: struct.pack(">H", len(text)) + text.encode()  # noqa: E731
    told = struct.pack(">8i", 2, 1, COUNT, 1, 1, 0, 1, ord("c"))
    old = word("JAVACPP") + struct.pack(">i", 8) + word("INT") + told
    old += word("JAVACPP") + struct.pack(">i", COUNT) + word("FLOAT") + numbers.astype(">f4").tobytes()
    for number, content in enumerate((old, write_array(numbers, rank=2))):
        read = read_zip(write(tmp_path / f"{number}.zip", {**ENTRIES, "coefficients.bin": content}))
        np.testing.assert_array_equal(read.parameters, numbers)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(value: float, tmp_path: Path) -> None:
    numbers = np.zeros(COUNT, np.float32)
    numbers[3] = value
    path = write(tmp_path / "a.zip", {**ENTRIES, "coefficients.bin": write_array(numbers)})
    refused(path, "value 3 of", str(value))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (layer(0, **{"@class": "org.deeplearning4j.nn.conf.layers.ConvolutionLayer"}), "layer 0 (ConvolutionLayer)"),
        (layer(1, **{"@class": "org.deeplearning4j.nn.conf.layers.DenseLayer"}), "layer 1 (DenseLayer)"),
        (layer(1, **{"@class": "org.deeplearning4j.nn.conf.layers.LSTM"}), "of another kind"),
        (layer(0, activationFn={"@class": "org.nd4j.linalg.activations.impl.ActivationReLU"}), "activation is ReLU"),
        (layer(0, gateActivationFn={"@class": "a.ActivationHardSigmoid"}), "HardSigmoid"),
        (layer(2, lossFn={"@class": "org.nd4j.linalg.lossfunctions.impl.LossMAE"}), "loss MAE"),
        (layer(2, lossFn={"@class": "a.LossMCXENT", "weights": [1, 2, 3, 4]}), "weights of its own"),
        (layer(2, hasBias=False), "no bias"),
        (layer(2, **{"@class": "org.deeplearning4j.nn.conf.layers.RnnLossLayer"}), "layer 2 (RnnLossLayer)"),
        (layer(2, **{"@class": "org.deeplearning4j.nn.conf.layers.OutputLayer"}), "RnnOutputLayer is due"),
        (layer(0, iupdater={"@class": "a.AdaMax", "learningRate": 0.1}), "updater is AdaMax"),
        (layer(0, iupdater={"@class": "a.Sgd", "learningRate": 0.1}), "layer 0 (GravesLSTM) is trained by Sgd"),
        (layer(0, constraints=[{"@class": "a.MaxNormConstraint"}]), "constraints"),
        (layer(0, idropout={"@class": "a.GaussianDropout", "rate": 0.1}), "GaussianDropout"),
        (layer(0, regularization=[{"@class": "a.WeightDecay", "coeff": 0.1}]), "WeightDecay"),
        (layer(0, gradientNormalization="RenormalizeL2PerLayer"), "RenormalizeL2PerLayer"),
        (layer(0, nout=7), "layer 0 answers 7 numbers a step, and the layer behind it reads 6"),
        (layer(0, nin=-1), "nin is -1"),
        (layer(0, nout=10**9), "nout is 1000000000"),
        (layer(0, l2=0.001), "l2 is 0.001 in the form of 1.0.0-alpha to beta3"),
        (layer(0, regularization=5), "regularization is 5, where a list is due"),
        (layer(0, regularizationBias=[{"@class": "a.L2Regularization", "l2": 0.1}]), "a penalty on biases"),
        (layer(0, biasUpdater={"@class": "a.Sgd", "learningRate": 0.1}), "an updater of its own for biases"),
        (layer(0, iupdater={"@class": "a.Adam", "learningRate": 0.1, "epsilon": 0.0}), "epsilon is 0"),
        (layer(0, iupdater=None, activationFn=None, activationFunction="tanh"), "as DL4J before 0.9 wrote it"),
        (lambda values: values.update(inputPreProcessors="x"), "inputPreProcessors is 'x', where settings are due"),
        (lambda values: values.update(tbpttBackLength=3), "tbpttBackLength 3"),
        (lambda values: values["confs"].pop(), "is the last"),
        (lambda values: values["confs"][0].update(miniBatch=False), "miniBatch is False"),
        (lambda values: values["confs"].insert(0, values["confs"][2]), "recurrent layers behind it"),
    ],
)
def test_what_has_no_counterpart_is_named_layer_by_layer(
    change: Callable[[Any], None], told: str, tmp_path: Path
) -> None:
    refused(write(tmp_path / "a.zip", changed(ENTRIES, change)), told)


def pools(**values: Any) -> Callable[[Any], None]:
    """Give a pooling layer in the place of the second recurrent one."""

    def change(configuration: Any) -> None:
        pooled = {"@class": "org.deeplearning4j.nn.conf.layers.GlobalPoolingLayer", "poolingType": "AVG", **values}
        configuration["confs"][1]["layer"] = pooled

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (pools(poolingType=["AVG"]), "poolingType ['AVG']; rayrnn pools by"),
        (pools(collapseDimensions=False), "collapseDimensions is false"),
        (pools(poolingDimensions=[1]), "poolingDimensions is [1]"),
        (pools(idropout={"@class": "a.Dropout", "p": 0.5}), "drops some of what it pools"),
        (pools(poolingDimensions=[2], collapseDimensions=True), "an OutputLayer is due"),
    ],
)
def test_pooling_of_another_kind_is_named(change: Callable[[Any], None], told: str, tmp_path: Path) -> None:
    refused(write(tmp_path / "a.zip", changed(ENTRIES, change)), told)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["confs"][0].update(seed=-5),
        lambda values: values["confs"][0].update(seed=-(2**63)),
        lambda values: values.update(inputPreProcessors=[]),
        lambda values: [conf["layer"].update(biasUpdater=conf["layer"]["iupdater"]) for conf in values["confs"]],
        lambda values: [
            conf["layer"].update(regularizationBias=[{"@class": "a.L2Regularization", "l2": 0.0}])
            for conf in values["confs"]
        ],
    ],
)
def test_what_changes_nothing_is_read(change: Callable[[Any], None], tmp_path: Path) -> None:
    read = read_zip(write(tmp_path / "a.zip", changed(ENTRIES, change)))
    assert replace(read.description, seed=CHARACTERS.seed) == CHARACTERS
    import_dl4j(tmp_path / "a.zip", out=tmp_path / "run")


def test_penalties_of_one_kind_add_up(tmp_path: Path) -> None:
    def change(values: Any) -> None:
        for conf in values["confs"]:
            conf["layer"]["regularization"] = [{"@class": "a.L2Regularization", "l2": share} for share in (0.25, 0.5)]

    assert read_zip(write(tmp_path / "a.zip", changed(ENTRIES, change))).description.l2 == 0.75


def test_wrapped_layers_of_the_alpha_are_read_as_1_0_0(tmp_path: Path) -> None:
    """Its layers are named as 0.9.1's are, and have their dropout and their schedule where 1.0.0 has them."""
    schedule = {"@class": "a.StepSchedule", "initialValue": 0.5, "decayRate": 0.5, "step": 3.0}
    schedule["scheduleType"] = "ITERATION"

    def change(values: Any) -> None:
        for conf, name in zip(values["confs"], ("gravesLSTM", "gravesLSTM", "rnnoutput"), strict=True):
            inside = {key: value for key, value in conf["layer"].items() if key not in ("@class", "regularization")}
            inside |= {"l1": 0.0, "l2": 0.0, "idropout": {"@class": "a.Dropout", "p": 0.75}}
            inside["iupdater"] = inside["iupdater"] | {"learningRateSchedule": schedule}
            conf["layer"] = {name: inside}

    found = read_zip(write(tmp_path / "a.zip", changed(ENTRIES, change))).description
    assert (found.version, found.dropout, found.dropout_at) == ("1.0.0", 0.25, ("first", "between", "last"))
    assert found.updater.schedule == {"kind": "step", "decay": 0.5, "every": 3.0}


def test_settings_that_no_recipe_takes_name_the_zip(tmp_path: Path) -> None:
    def change(values: Any) -> None:
        for conf in values["confs"]:
            conf["layer"]["iupdater"] = {"@class": "a.Adam", "learningRate": 0.1, "beta1": 1.0, "epsilon": 1e-8}

    entries = {name: value for name, value in changed(ENTRIES, change).items() if name != "updaterState.bin"}
    refused(write(tmp_path / "a.zip", entries), "a.zip has settings that no recipe takes", "beta1")


def test_any_damage_is_told(tmp_path: Path) -> None:
    """Bytes changed at random, those of the zip's own tables most: read, or refused."""
    chance = np.random.default_rng(1)
    whole = write(tmp_path / "whole.zip", ENTRIES).read_bytes()
    path, ends = tmp_path / "a.zip", []
    for number in range(600):
        content = bytearray(whole)
        first = 0 if number % 2 else len(whole) - 300
        for place in chance.integers(first, len(whole), chance.integers(1, 6)):
            content[place] = chance.integers(256)
        path.write_bytes(content)
        try:
            read_zip(path)
            ends.append("read")
        except DataError:
            ends.append("refused")
    assert ends.count("refused") > 300


@pytest.mark.parametrize("wrong", [None, [], {}, "x", 5, True, [1], {"@class": "a.b"}, {"a": None}])
def test_any_value_of_another_type_is_told(wrong: Any, tmp_path: Path) -> None:
    """Every setting of the configuration in turn: read, where it does not matter, or refused."""
    path, values, refusals = tmp_path / "a.zip", json.loads(ENTRIES["configuration.json"]), 0
    for way in list(ways_of(values)):
        changed_values = json.loads(ENTRIES["configuration.json"])
        place: Any = changed_values
        for step in way[:-1]:
            place = place[step]
        place[way[-1]] = wrong
        try:
            read_configuration(json.dumps(changed_values).encode(), str(path))
        except DataError:
            refusals += 1
    assert refusals > 10


def ways_of(values: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inside = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in inside:
        yield (*way, key)
        yield from ways_of(value, (*way, key))


def test_all_of_it_is_named_at_once(tmp_path: Path) -> None:
    def change(values: Any) -> None:
        for number, name in enumerate(("SelfAttentionLayer", "BatchNormalization")):
            values["confs"][number]["layer"]["@class"] = f"org.deeplearning4j.nn.conf.layers.{name}"

    refused(
        write(tmp_path / "a.zip", changed(ENTRIES, change)), "layer 0 (SelfAttention", "layer 1 (BatchNormalization"
    )


def test_names_of_another_number(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", ENTRIES)
    (tmp_path / "symbols.txt").write_text("a\nb\nc\n")
    refused(
        path,
        "reads 4 one-hot numbers a step: a symbol for each",
        "and there are 3 symbols",
        symbols=tmp_path / "symbols.txt",
    )
    refused(path, "answers with 4 numbers, and there is 1 class", classes=["a"])
    refused(path, "the class 'a' is there twice, as number 1 and 3", classes=["a", "b", "a", "c"])
    (tmp_path / "symbols.txt").write_text("a\n\nc\nd\n")
    refused(path, "symbols.txt:2 is empty", symbols=tmp_path / "symbols.txt")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("abcd", "'abcd': give a list"),
        (set("abcd"), "give a list, in the order"),
        (5, "is 5: give a list"),
        (["a", "", "c", "d"], "[1] is '': each is a text"),
        (["a", "b", None, "d"], "[2] is None"),
        (["a", "b", "c", "\ud800"], "[3] is '\\ud800'"),
    ],
)
def test_names_that_are_none(names: Any, told: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", ENTRIES)
    refused(path, told, "classes", classes=names)
    if not isinstance(names, str):
        refused(path, told, "symbols", symbols=names)
    if isinstance(names, list):
        (tmp_path / "a.json").write_text(json.dumps(names))
        refused(path, told, "a.json", symbols=tmp_path / "a.json")


def test_names_of_any_iterable(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", ENTRIES)
    run = import_dl4j(path, out=tmp_path / "run", classes=(f" {name} " for name in "abcd")).run
    assert run.encoding.targets.names == ("a", "b", "c", "d")  # type: ignore[union-attr]
    run = import_dl4j(path, out=tmp_path / "symbols", symbols=np.array(list("ab \n"))).run
    assert run.encoding.inputs.vocabulary.symbols == ("a", "b", " ", "\n")  # type: ignore[union-attr]


def test_symbols_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "symbols.txt"
    path.write_text(' \n\\n\n"\n\\\\\n\\u00e9\nü\r\n', encoding="utf-8")
    assert read_symbols(path) == (" ", "\n", '"', "\\", "é", "ü")
    (tmp_path / "a.json").write_text('{"b": 1, "a": 0}')
    assert read_symbols(tmp_path / "a.json") == ("a", "b")
    (tmp_path / "a.json").write_text('["\\n", "x"]')
    assert read_symbols(tmp_path / "a.json") == ("\n", "x")
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    assert read_symbols(path) == ("a", "b")
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf["a"]')
    assert read_symbols(tmp_path / "a.json") == ("a",)


@pytest.mark.parametrize(("out", "told"), [("", "--out is empty"), ("a" * 300, "File name too long")])
def test_a_place_that_cannot_be_is_told(out: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.zip", ENTRIES)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=told):
        import_dl4j(path, out=out)
    assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]


def test_a_directory_with_a_run_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", ENTRIES)
    import_dl4j(path, out=tmp_path / "run")
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    with pytest.raises(UsageError, match=r"holds a run already: import into another directory"):
        import_dl4j(path, out=tmp_path / "run")
    assert all(file.read_bytes() == content for file, content in before.items())


@pytest.mark.parametrize(
    "updater", [Updater("Sgd", 0.1), Updater("Nesterovs", 0.1, momentum=0.9), Updater("Adam", 0.1)]
)
def test_a_zip_without_its_updaters_state_begins_anew(updater: Updater, tmp_path: Path) -> None:
    entries = entries_of(replace(CHARACTERS, updater=updater))
    entries.pop("updaterState.bin", None)
    imported = import_dl4j(write(tmp_path / "a.zip", entries), out=tmp_path / "run")
    assert any("no state of its" in note for note in imported.notes) == (updater.name != "Sgd")


def test_a_momentum_of_nothing_keeps_no_state(tmp_path: Path) -> None:
    """A zip has one of it all the same, which says nothing."""
    entries = entries_of(replace(CHARACTERS, updater=Updater("Nesterovs", 0.1)))
    state = write_array(np.zeros(COUNT, np.float32))
    imported = import_dl4j(write(tmp_path / "a.zip", {**entries, "updaterState.bin": state}), out=tmp_path / "run")
    assert imported.run.recipe.training.optimizer == "sgd"
    assert not any("state" in note and "begins anew" in note for note in imported.notes)
