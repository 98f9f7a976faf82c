"""What rayrnn makes of DL4J's zips is what DL4J makes of them: answers, scores, updates, and the zips again."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.scaling import Simulation
from rayrnn.data.prepare import prepare
from rayrnn.dl4j.importing import import_dl4j
from rayrnn.dl4j.parameters import parameters_of, to_vector
from rayrnn.dl4j.zip_file import read_zip
from rayrnn.exports.export import export
from rayrnn.prediction.evaluate import evaluate
from rayrnn.recipe import Recipe, validate_recipe
from rayrnn.runs.checkpoints import newest_checkpoint
from rayrnn.runs.directory import Run
from rayrnn.runs.model import load_network
from rayrnn.training.learner import Learner, WorkerSpec
from tests.dl4j import by_formula
from tests.dl4j.golden import CASES, LEARNED, Golden, array, golden

pytestmark = [golden, pytest.mark.usefixtures("ray_cluster")]

#: where DL4J 1.0.0-M2.1 is wrong, and rayrnn is not: its way back over a mask, and segments after the first
WRONG_MASKED, WRONG_SEGMENTS = "bidirectional_concat", "graves_tbptt4"
#: fits of a network with dropout are drawn at random
RANDOM = "charlm_dropout"

pairs = [(case, way) for case in LEARNED for way in case.ways]
right = [(case, way) for case, way in pairs if not (case.path.name == WRONG_MASKED and way == "masked")]
learned = [
    (case, way)
    for case, way in right
    if case.path.name != RANDOM and not (case.path.name == WRONG_SEGMENTS and case.version != "0.9.1")
]
zips = [(case, name) for case in CASES for name in ("fresh", "fit1", "fit3_masked") if case.zip(name).exists()]


def name_of(value: object) -> str:
    return str(value).replace(" ", "-")


each = pytest.mark.parametrize(("case", "way"), right, ids=name_of)
each_learned = pytest.mark.parametrize(("case", "way"), learned, ids=name_of)


def imported(case: Golden, folder: Path, name: str = "fresh") -> Run:
    return import_dl4j(case.zip(name), out=folder / "run").run


def recipe_for(run: Run, **averaging: Any) -> Recipe:
    values = run.recipe.model_dump(mode="json")
    values["data"]["held_out"] = 0
    values["training"]["batch_size"] = averaging.pop("batch_size", 2)
    values["averaging"] |= {"rounds": 3, "frequency": 1} | averaging
    return validate_recipe(values)


def answers_of(run: Run, rows: list[dict[str, Any]]) -> list[np.ndarray]:
    found = run.predict(rows)
    if "prediction" in found[0]:
        return [np.array(one["prediction"]) for one in found]
    chances = [one["probabilities"] for one in found]
    return [
        np.array([list(step.values()) for step in one] if isinstance(one, list) else list(one.values()))
        for one in chances
    ]


@each
def test_answers_are_dl4j_s(case: Golden, way: str, tmp_path: Path) -> None:
    run = imported(case, tmp_path)
    rows = [{name: value for name, value in row.items() if name != "label"} for row in case.rows(way, run.encoding)]
    for found, due in zip(answers_of(run, rows), case.due(way, case.values[way]["output"]), strict=True):
        np.testing.assert_allclose(found, due, atol=1e-6)


@each
def test_the_score_is_dl4j_s(case: Golden, way: str, tmp_path: Path) -> None:
    run = imported(case, tmp_path)
    report = evaluate(run, data=case.rows(way, run.encoding))
    assert report.metrics["dl4j_score"] == pytest.approx(case.values[way]["score_of_dataset"], abs=1e-5, rel=1e-6)


def learner_of(run: Run, recipe: Recipe, rows: list[dict[str, Any]]) -> Learner:
    prepared = prepare(recipe, rows, encoding=run.encoding)
    learner = Learner(
        WorkerSpec(recipe, prepared.encoding, prepared.training, prepared.held_out), 0, torch.device("cpu")
    )
    checkpoint, _ = newest_checkpoint(run.checkpoints)
    learner.restore(checkpoint)
    return learner


def state_of(learner: Learner, names: tuple[str, ...]) -> np.ndarray:
    parameters = parameters_of(learner.model)
    own, order = learner.own_state(), [part.name for one in parameters for part in one.parts]
    return np.concatenate(
        [to_vector({name: own[f"{place}.{kept}"] for place, name in enumerate(order)}, parameters) for kept in names]
    )


@each_learned
def test_three_updates_are_dl4j_s(case: Golden, way: str, tmp_path: Path) -> None:
    """From the fresh zip; each of them with the updater's state."""
    run = imported(case, tmp_path)
    learner = learner_of(run, recipe_for(run), case.rows(way, run.encoding))
    states = read_zip(case.zip()).description.updater.states
    for fit in case.values[way]["fits"]:
        learned = learner.learn(0, 1)
        learner.progress = learner.progress.after(
            cursor=learned.next_cursor, broken=[], stop=False, length=learner._length
        )
        found = to_vector(learner.model.state_dict(), parameters_of(learner.model))
        np.testing.assert_allclose(found, array(fit["params"]).reshape(-1), atol=1e-5)
        if states:
            np.testing.assert_allclose(state_of(learner, states), array(fit["updater_state"]).reshape(-1), atol=1e-5)


@each_learned
def test_a_training_goes_on_from_the_updater_s_state(case: Golden, way: str, tmp_path: Path) -> None:
    """From the zip after one update to what DL4J has after three."""
    name = "fit1" if way == "plain" else "fit1_masked"
    run = imported(case, tmp_path, name)
    learner = learner_of(run, recipe_for(run), case.rows(way, run.encoding))
    for fit in case.values[way]["fits"][1:]:
        learned = learner.learn(0, 1)
        learner.progress = learner.progress.after(
            cursor=learned.next_cursor, broken=[], stop=False, length=learner._length
        )
        found = to_vector(learner.model.state_dict(), parameters_of(learner.model))
        np.testing.assert_allclose(found, array(fit["params"]).reshape(-1), atol=1e-5)


def test_the_faults_of_dl4j_are_not_repeated(tmp_path: Path) -> None:
    """Its Bidirectional answers a masked sequence as if the padding were steps; rayrnn as if they were not there."""
    (case,) = (one for one in LEARNED if one.path.name == WRONG_MASKED)
    run = imported(case, tmp_path)
    whole, masked = (array(case.values[way]["output"])[1].T[:8] for way in case.ways)
    np.testing.assert_array_equal(whole, masked)
    _, found = answers_of(run, case.rows("masked", run.encoding))
    assert np.abs(found - masked).max() > 1e-3
    alone = {"key": "1", "values": case.rows("masked", run.encoding)[1]["values"]}
    np.testing.assert_allclose(found, answers_of(run, [alone])[0], atol=1e-6)


@pytest.mark.parametrize("case", [case for case in CASES if case.path.name == "lstm_normalized"], ids=str)
def test_the_normalizer_is_the_run_s_scaling(case: Golden, tmp_path: Path) -> None:
    run, values = imported(case, tmp_path), case.values
    rows = [{"key": str(n), "values": own.T.tolist()} for n, own in enumerate(array(values["features_raw"]))]
    for found, due in zip(answers_of(run, rows), array(values["output"]), strict=True):
        np.testing.assert_allclose(found, due.T, atol=1e-5)
    scaling = run.encoding.inputs.scaling
    assert scaling.kind == "standardize"
    np.testing.assert_allclose(scaling.shift, array(values["mean"])[0], rtol=1e-6)
    np.testing.assert_allclose(scaling.scale, array(values["std"])[0], rtol=1e-6)


@pytest.mark.parametrize(("case", "name"), zips, ids=name_of)
def test_a_zip_comes_back_as_it_was(case: Golden, name: str, tmp_path: Path) -> None:
    run = imported(case, tmp_path, name)
    written = export(run, str(tmp_path / "again.zip"), check=True)
    assert written.parity is not None
    assert written.parity.difference == 0
    first, second = (_entries(path) for path in (case.zip(name), tmp_path / "again.zip"))
    assert first.keys() == second.keys()
    if case.version != "0.9.1":
        assert all(first[entry] == second[entry] for entry in first if entry.endswith(".bin"))
        assert json.loads(first["configuration.json"]) == json.loads(second["configuration.json"])
    before, after = read_zip(case.zip(name)), read_zip(tmp_path / "again.zip")
    np.testing.assert_array_equal(before.parameters, after.parameters)
    np.testing.assert_array_equal(before.state, after.state)
    assert before.normalizer == after.normalizer
    again = import_dl4j(tmp_path / "again.zip", out=tmp_path / "second").run
    weights = load_network(run).state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in load_network(again).state_dict().items())
    states = [newest_checkpoint(one.checkpoints)[0].optimizers[0] for one in (run, again)]  # type: ignore[union-attr]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def _entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


@pytest.mark.parametrize("frequency", [1, 5])
def test_two_workers_average_as_dl4j_s_training_master_does(frequency: int, tmp_path: Path) -> None:
    """Each worker's own updates by DL4J's formulas, from the same zip; then the plain mean, of the state too."""
    (case,) = (one for one in LEARNED if one.path.name == "graves_lstm" and one.version != "0.9.1")
    run = imported(case, tmp_path)
    recipe = recipe_for(run, workers=2, frequency=frequency, rounds=1, batch_size=1)
    two = case.rows("plain", run.encoding)
    rows = [row | {"key": f"{row['key']} {copy}"} for copy in range(frequency) for row in two]
    prepared = prepare(recipe, rows, encoding=run.encoding)
    simulation = Simulation(WorkerSpec(recipe, prepared.encoding, prepared.training, prepared.held_out), 2)
    checkpoint, _ = newest_checkpoint(run.checkpoints)
    taken = []
    for number, learner in enumerate(simulation.learners):
        learner.restore(checkpoint)
        taken.append([one.keys[0] for one in learner._stream.share(0, number, 2).minibatches])
        learner._stream.close()
    assert [len(keys) for keys in taken] == [frequency, frequency]
    by_key = {row["key"]: row for row in rows}
    found = read_zip(case.zip())
    alone = [by_formula.learned(found, [by_key[key] for key in keys]) for keys in taken]
    simulation.learn()
    parameters = parameters_of(simulation.learners[0].model)
    for learner in simulation.learners:
        mean = to_vector(learner.model.state_dict(), parameters)
        np.testing.assert_allclose(mean, (alone[0].parameters + alone[1].parameters) / 2, atol=1e-5)
        np.testing.assert_allclose(
            state_of(learner, ("mean_square",)), (alone[0].state + alone[1].state) / 2, atol=1e-6
        )
    assert np.abs(alone[0].parameters - alone[1].parameters).max() > 1e-3


def test_the_formulas_are_those_of_dl4j(tmp_path: Path) -> None:
    """What the mean above is computed from gives what DL4J itself has learned."""
    (case,) = (one for one in LEARNED if one.path.name == "graves_lstm" and one.version != "0.9.1")
    encoding = imported(case, tmp_path).encoding
    found = read_zip(case.zip())
    for fit in case.values["plain"]["fits"]:
        learned = by_formula.learned(found, case.rows("plain", encoding), together=2, times=fit["fit"])
        np.testing.assert_allclose(learned.parameters, array(fit["params"]).reshape(-1), atol=1e-5)
        np.testing.assert_allclose(learned.state, array(fit["updater_state"]).reshape(-1), atol=1e-6)
