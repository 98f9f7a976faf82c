"""Every kind of network that both have: a zip becomes a run, and the run the same zip; and what a run of it can do."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rayrnn.averaging.optimizer_state import prepare_state
from rayrnn.data.encoding import Numbers, Scaling
from rayrnn.dl4j.description import Description, Updater
from rayrnn.dl4j.importing import import_dl4j
from rayrnn.dl4j.updates import Dl4jUpdates, share_of_rate
from rayrnn.dl4j.zip_file import read_zip, written_normalizer
from rayrnn.errors import RunError
from rayrnn.exports.export import export
from rayrnn.models.network import Network
from rayrnn.recipe import recipe_from, validate_recipe
from rayrnn.recipe.sections import Dl4jSchedule, Training
from rayrnn.runs.checkpoints import newest_checkpoint
from rayrnn.runs.directory import open_run
from rayrnn.runs.model import load_network
from rayrnn.training.driver import train
from tests.dl4j.zips import CHARACTERS, entries_of, write

SERIES = Description(
    version="1.0.0", cell="lstm", num_inputs=3, hidden=(5, 4), num_outputs=2, answers="identity",
    updater=Updater("Adam", 0.02, beta1=0.8, beta2=0.95, epsilon=1e-7), iteration=3,
)  # fmt: skip
KINDS = {
    "characters": CHARACTERS,
    "two sizes, Adam's settings": SERIES,
    "mean of both directions": replace(SERIES, bidirectional="concat", pooling="mean", answers="softmax"),
    "largest of one": replace(SERIES, pooling="max", answers="sigmoid"),
    "last step": replace(SERIES, cell="rnn", pooling="last", answers="softmax"),
    "added": replace(SERIES, bidirectional="sum", answers="sigmoid"),
    "added peepholes": replace(SERIES, cell="graves_lstm", bidirectional="sum", pooling="mean"),
    "peepholes side by side": replace(SERIES, cell="graves_lstm", bidirectional="concat"),
    "dropout of the layers": replace(SERIES, dropout=0.5, dropout_at=("first", "between")),
    "dropout of the answers": replace(SERIES, dropout=0.25, dropout_at=("last",)),
    "clipped by layer": replace(SERIES, clip=0.5, clip_by="layer_norm", l1=0.01, l2=0.02),
    "clipped by matrix": replace(SERIES, clip=0.5, clip_by="parameter_norm"),
    "momentum": replace(SERIES, updater=Updater("Nesterovs", 0.1, momentum=0.9)),
    "no state": replace(SERIES, updater=Updater("Sgd", 0.1)),
    "rate in steps": replace(
        SERIES, updater=Updater("Sgd", 0.1, schedule={"kind": "step", "decay": 0.5, "every": 10.0})
    ),
    "rate by a power": replace(
        SERIES, updater=Updater("Adam", 0.1, schedule={"kind": "poly", "every": 100.0, "power": 2.0})
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_zip_becomes_a_run_and_the_run_the_same_zip(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path / "model.zip", entries_of(KINDS[kind]))
    run = import_dl4j(path, out=tmp_path / "run").run
    assert recipe_from((run.path / "recipe.yaml").read_text(), "kept") == run.recipe
    told = export(run, str(tmp_path / "again.zip"), check=True)
    assert told.parity is not None
    assert told.parity.difference == 0
    before, after = read_zip(path), read_zip(tmp_path / "again.zip")
    assert _spelled(after.description) == _spelled(before.description) == _spelled(KINDS[kind])
    np.testing.assert_array_equal(after.parameters, before.parameters)
    assert (after.state is None) == (before.state is None)
    if before.state is not None:
        np.testing.assert_array_equal(after.state, before.state)


def _spelled(found: Description) -> Description:
    """A schedule that names no power has that of 1."""
    schedule = found.updater.schedule
    if schedule is None:
        return found
    whole = Dl4jSchedule.model_validate(schedule).model_dump()
    return replace(found, updater=replace(found.updater, schedule=whole))


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_a_range_of_values_is_the_run_s_scaling(low: float, tmp_path: Path) -> None:
    """NormalizerMinMaxScaler: of its own range, and of labels too."""
    entries = entries_of(SERIES)
    features = Scaling("min_max", (1.0, 2.0, -3.0), (4.0, 8.0, 16.0))
    labels = Scaling("min_max", (0.5, 0.25), (2.0, 1.0))
    content = written_normalizer(features, labels)
    assert content is not None
    range_of = np.array([0.0, 1.0], ">f8").tobytes()
    assert range_of in content
    content = content.replace(range_of, np.array([low, 1.0], ">f8").tobytes())
    path = write(tmp_path / "model.zip", {**entries, "normalizer.bin": content})
    run = import_dl4j(path, out=tmp_path / "run").run
    inputs, targets = run.encoding.inputs, run.encoding.targets
    assert isinstance(inputs, Numbers)
    assert isinstance(targets, Numbers)
    values = np.array([[1.0, 2.0, -3.0], [5.0, 10.0, 13.0]])
    np.testing.assert_allclose(inputs.scaling.apply(values), [[low] * 3, [1.0] * 3], atol=1e-6)
    np.testing.assert_allclose(targets.scaling.undo(np.array([[low] * 2, [1.0] * 2])), [[0.5, 0.25], [2.5, 1.25]])


def test_characters_are_written_learned_on_and_exported(tmp_path: Path) -> None:
    """The worked example in small: named symbols, two workers, a zip again."""
    path = write(tmp_path / "model.zip", entries_of(CHARACTERS))
    (tmp_path / "symbols.txt").write_text("a\nb\n \n\\n\n")
    imported = import_dl4j(path, out=tmp_path / "run", symbols=tmp_path / "symbols.txt")
    assert imported.told.startswith("language_model, 2 x 6 graves_lstm, 4 symbols; DL4J 1.0.0, after 7 updates")
    run = imported.run
    (text,) = run.generate("ab", length=20)
    assert set(text) <= set("ab \n")
    (tmp_path / "text.txt").write_text("ab ab\nba " * 200)
    values = run.recipe.model_dump(mode="json")
    values["data"] = {"source": "text", "path": str(tmp_path / "text.txt"), "length": 20}
    values["averaging"] |= {"workers": 2, "rounds": 4, "frequency": 2}
    values["training"] |= {"batch_size": 4, "evaluate_every": 2, "checkpoint_every": 2}
    train(validate_recipe(values), out=tmp_path / "run", resume=True)
    assert [line["round"] for line in run.metrics()] == [1, 2, 3, 4]
    checkpoint, _ = newest_checkpoint(run.checkpoints)
    assert checkpoint is not None
    steps = {float(value) for name, value in checkpoint.optimizers[0].items() if name.endswith(".step")}
    assert steps == {7 + 4 * 2 * 4}  # rounds, minibatches, segments of 5 steps
    told = export(run, str(tmp_path / "again.zip"), check=True)
    after = read_zip(tmp_path / "again.zip")
    assert after.description.iteration in (0, 39)
    assert (after.state is None) == ("without the updater's state" in told.told[0])


def test_other_data_is_named_once(tmp_path: Path) -> None:
    """An imported run has none; from the first round on it is the run's."""
    path = write(tmp_path / "model.zip", entries_of(CHARACTERS))
    run = import_dl4j(path, out=tmp_path / "run", symbols=list("ab \n")).run
    values = run.recipe.model_dump(mode="json")
    values["averaging"] |= {"rounds": 1, "frequency": 1}
    for name, told in (("first", None), ("second", "data differ")):
        (tmp_path / name).write_text("ab ab\nba " * 50)
        values["data"] = {"source": "text", "path": str(tmp_path / name), "length": 20}
        if told is None:
            train(validate_recipe(values), out=tmp_path / "run", resume=True)
            continue
        with pytest.raises(Exception, match=told):
            train(validate_recipe(values), out=tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"cell": "gru"}, "gru, and DL4J has no such layer"),
        ({"cell": "lstm", "embedding": 3}, "embedding"),
        ({"cell": "lstm", "bidirectional": "concat"}, "LastTimeStep takes both at the last step"),
        ({"cell": "lstm", "parallel": "conv", "embedding": 3}, "convolutions"),
    ],
)
def test_what_dl4j_has_not_is_refused(model: dict[str, object], told: str, tmp_path: Path) -> None:
    values = {
        "name": "refused",
        "task": "classification",
        "data": {"source": "given", "held_out": 0},
        "model": {"hidden": 4, "layers": 1, **model},
        "training": {"batch_size": 2},
        "averaging": {"workers": 1, "rounds": 1, "frequency": 1},
    }
    rows = [{"key": str(n), "symbols": ["a", "b", "a"], "label": "xy"[n % 2]} for n in range(4)]
    train(validate_recipe(values), data=rows, out=tmp_path / "run")
    with pytest.raises(RunError, match=told):
        export(open_run(tmp_path / "run"), str(tmp_path / "model.zip"))
    assert not (tmp_path / "model.zip").exists()


def test_a_run_that_was_never_dl4j_s_becomes_a_zip(tmp_path: Path) -> None:
    """Torch's Adam: its state is what DL4J's keeps; what differs is told."""
    values = {
        "name": "ours",
        "task": "tagging",
        "data": {"source": "given", "held_out": 0, "normalize": "standardize"},
        "model": {"hidden": 4, "layers": 2, "cell": "lstm", "dropout": 0.1},
        "training": {"batch_size": 2, "l2": 0.01},
        "averaging": {"workers": 1, "rounds": 2, "frequency": 1},
    }
    chance = np.random.default_rng(1)
    rows = [{"key": str(n), "values": chance.normal(size=(6, 3)).tolist(), "label": list("xyxyxy")} for n in range(4)]
    train(validate_recipe(values), data=rows, out=tmp_path / "run")
    run = open_run(tmp_path / "run")
    written = export(run, str(tmp_path / "model.zip"), check=True)
    for words in ("no bound on the norm of the whole gradient", "l2 is for weights alone"):
        assert words in written.told[0]
    found = read_zip(tmp_path / "model.zip")
    assert (found.description.updater.name, found.description.iteration) == ("Adam", 2)
    assert found.state is not None
    assert found.normalizer is not None
    again = import_dl4j(tmp_path / "model.zip", out=tmp_path / "second", classes=["x", "y"]).run
    first, second = (load_network(one) for one in (run, again))
    inputs = torch.randn(2, 5, 3)
    with torch.no_grad():
        torch.testing.assert_close(first(inputs)[0], second(inputs)[0], atol=1e-6, rtol=1e-6)


def test_a_rate_falls_as_dl4j_s_schedules_do() -> None:
    """Values of org.nd4j.linalg.schedule's own formulas."""
    kinds = {
        "step": 0.5 ** math.floor(25 / 10),
        "exponential": 0.5**25,
        "inverse": 1 / (1 + 0.5 * 25) ** 2,
        "sigmoid": 1 / (1 + math.exp(-0.5 * (25 - 10))),
        "poly": 0.0,
    }
    for kind, due in kinds.items():
        schedule = Dl4jSchedule.model_validate({"kind": kind, "decay": 0.5, "every": 10, "power": 2})
        assert share_of_rate(schedule, 25) == pytest.approx(due)
    assert share_of_rate(Dl4jSchedule(kind="poly", every=10, power=2), 5) == pytest.approx(0.25)


@pytest.mark.parametrize("version", ["1.0.0", "0.9.1"])
@pytest.mark.parametrize("clip_by", ["value", "layer_norm", "parameter_norm"])
@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam"])
def test_one_update_is_that_of_the_formulas(optimizer: str, clip_by: str, version: str) -> None:
    """Of one dense matrix and its bias behind a layer, computed by hand; l1, l2 and clipping in their places."""
    torch.manual_seed(1)
    network = Network(num_inputs=2, num_outputs=2, symbols=False, cell="rnn", hidden_size=2, num_layers=1)
    rules = {"version": version, "l1": 0.01, "momentum": 0.9 if optimizer == "sgd" else 0.0}
    training = Training.model_validate(
        {"optimizer": optimizer, "learning_rate": 0.1, "l2": 0.1, "clip": 0.3, "clip_by": clip_by, "dl4j": rules}
    )
    updates = Dl4jUpdates(network, training)
    prepare_state(updates)
    weight, bias = network.projection.weight, network.projection.bias
    before, B = weight.detach().clone(), 4
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    gradient = torch.tensor([[0.5, -0.1], [0.2, 0.9]])
    weight.grad, bias.grad = gradient.clone(), torch.tensor([0.4, 0.0])
    updates.sequences = B
    updates.step()
    whole = torch.cat([gradient.flatten(), torch.tensor([0.4, 0.0])]).norm()
    norm = {"layer_norm": whole, "parameter_norm": gradient.norm()}
    g = gradient.clamp(-0.3, 0.3) if clip_by == "value" else gradient * 0.3 / norm[clip_by]
    penalty = 0.1 * before + 0.01 * before.sign()
    g = g + penalty if version == "1.0.0" else g
    if optimizer == "sgd":
        v = -0.1 * g
        step = -(1.9 * v)
    elif optimizer == "rmsprop":
        step = 0.1 * g / ((0.95 * 1e-8 + 0.05 * g**2).sqrt() + 1e-8)
    else:
        step = 0.1 * math.sqrt(1 - 0.999) / (1 - 0.9) * 0.1 * g / ((0.001 * g**2).sqrt() + 1e-8)
    step = step if version == "1.0.0" else (step + penalty) / B
    torch.testing.assert_close(weight.detach(), before - step, atol=1e-6, rtol=1e-5)
    second = dict(network.named_parameters())["layers.0.recurrence.bias_hh_l0"]
    assert all(second is not value for group in updates.param_groups for value in group["params"])
