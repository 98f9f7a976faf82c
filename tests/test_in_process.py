"""A run answers in the program's own process: lists, data frames, and sequences that come step by step."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

import rayrnn
from rayrnn.errors import DataError, RunError, UsageError
from rayrnn.prediction.detect import detect
from rayrnn.prediction.predict import predict
from rayrnn.runs.directory import Run
from tests.detection.series import SPIKE, forecast, write_series
from tests.untrained import make_run, wave, write_files

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def waves(tmp_path: Path) -> Path:
    return write_files(tmp_path / "waves", lambda n, step: [*wave(n, step), n % 3], header="height,number,kind")


@pytest.fixture
def tagger(waves: Path, tmp_path: Path) -> Run:
    data = {"source": "csv", "path": str(waves), "label_column": "kind", "skip_lines": 1}
    return make_run(tmp_path / "run", "tagging", data)


@pytest.fixture
def writer(tmp_path: Path) -> Run:
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 20)
    data = {"source": "text", "path": str(tmp_path / "text.txt"), "length": 20}
    return make_run(tmp_path / "writer", "language_model", data)


def written(run: Run, data: Path, tmp_path: Path) -> list[dict[str, Any]]:
    """What `rayrnn predict` writes."""
    out = tmp_path / "answers.jsonl"
    predict(run, data, out, console=Console(quiet=True))
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_nothing_of_ray_is_started(tagger: Run) -> None:
    program = (
        "import ray, rayrnn\n"
        f"print(rayrnn.open_run({str(tagger.path)!r}).predict([[[0.5, 100.0]]])[0]['label'], ray.is_initialized())"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.split()[1] == "False"


def test_lists_and_frames_get_the_answers_of_the_command(tagger: Run, waves: Path, tmp_path: Path) -> None:
    due = {row["key"]: row for row in written(tagger, waves, tmp_path)}
    frames = {path.name: pd.read_csv(path) for path in sorted(waves.iterdir())}
    arrays = [frame[["height", "number"]].to_numpy() for frame in frames.values()]
    for name, answer in zip(frames, tagger.predict(arrays), strict=True):
        assert answer["label"] == due[name]["label"]
        for chances, expected in zip(answer["probabilities"], due[name]["probabilities"], strict=True):
            assert chances == pytest.approx(expected, abs=1e-5)
    assert tagger.predict([torch.tensor(array) for array in arrays]) == tagger.predict(arrays)
    rows = [{"key": "mine", "values": array.tolist()} for array in arrays]
    assert [answer["key"] for answer in tagger.predict(rows)] == ["mine"] * len(arrays)
    by_names = [{"height": array[:, 0], "number": array[:, 1]} for array in arrays]
    assert tagger.predict(by_names) == tagger.predict(arrays)

    # a row a step: the whole frame is one sequence
    found = tagger.predict(frames["11.csv"])
    assert isinstance(found, pd.DataFrame)
    assert list(found["label"][0]) == due["11.csv"]["label"]
    # a row a sequence
    together = pd.DataFrame({"key": list(frames), "values": [array.tolist() for array in arrays]})
    assert [list(label) for label in tagger.predict(together)["label"]] == [due[name]["label"] for name in frames]
    arrow = tagger.predict(pa.table({"values": [array.tolist() for array in arrays]}))
    assert isinstance(arrow, pa.Table)
    assert arrow["key"].to_pylist() == [str(number) for number in range(len(arrays))]
    assert arrow["label"].to_pylist() == [due[name]["label"] for name in frames]


def test_a_frame_with_the_columns_of_the_recipe_is_brought_together_by_its_keys(tmp_path: Path) -> None:
    count = 12
    steps = [
        {"machine": f"m{number}", "at": step, "heat": math.sin(number + step), "state": "on" if step % 3 else "off"}
        for number in range(count)
        for step in range(4 + number)
    ]
    frame = pd.DataFrame(steps)
    (tmp_path / "steps").mkdir()
    frame.to_parquet(tmp_path / "steps" / "all.parquet")
    data = {"source": "parquet", "path": str(tmp_path / "steps"), "key": "machine", "order_by": "at", "label": "state"}
    run = make_run(tmp_path / "run", "tagging", data)
    due = {row["key"]: row["label"] for row in written(run, tmp_path / "steps", tmp_path)}
    mixed = frame.sample(frac=1.0, random_state=1).drop(columns="state")
    found = run.predict(mixed)
    assert {key: list(label) for key, label in zip(found["key"], found["label"], strict=True)} == due
    with pytest.raises(DataError, match="m3"):
        run.predict(pd.concat([mixed, mixed[mixed.machine == "m3"]]))
    with pytest.raises(DataError, match=r"columns machine, at; due is a column for each of heat"):
        run.predict(mixed[["machine", "at"]])


def test_a_frame_with_a_row_a_sequence_may_call_its_columns_as_the_recipe_does(tmp_path: Path) -> None:
    rows = {"name": [f"s{n}" for n in range(12)], "readings": [[float(n % 5)] * (3 + n % 4) for n in range(12)]}
    table = pa.table(rows | {"kind": ["up" if n % 2 else "down" for n in range(12)]})
    pq.write_table(table, tmp_path / "all.parquet")
    data = {"source": "parquet", "path": str(tmp_path / "all.parquet"), "key": "name", "values": "readings"}
    run = make_run(tmp_path / "run", "classification", data | {"label": "kind"})
    due = [row["label"] for row in written(run, tmp_path / "all.parquet", tmp_path)]
    assert run.predict(table.to_pandas())["label"].tolist() == due
    assert [answer["label"] for answer in run.predict(rows["readings"])] == due


def test_a_step_gets_the_answer_of_the_whole_sequence(tagger: Run) -> None:
    values = [[math.sin(step), 100 + step] for step in range(9)]
    (whole,) = tagger.predict([values])
    state, told = None, []
    for number, step in enumerate(values):
        forms: list[Any] = [step, tuple(step), np.array(step), {"height": step[0], "number": step[1]}]
        answer, state = tagger.step(state, forms[number % len(forms)])
        told.append(answer)
    assert [answer["label"] for answer in told] == whole["label"]
    assert [answer["step"] for answer in told] == list(range(9))


def test_a_state_is_never_changed(tagger: Run) -> None:
    _, begun = tagger.step(None, [0.1, 100])
    first, _ = tagger.step(begun, [0.9, 130])
    other, _ = tagger.step(begun, [-0.9, 90])
    again, _ = tagger.step(begun, [0.9, 130])
    assert first == again
    assert first != other


def test_one_feature_is_a_number(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "one", lambda n, step: [math.sin(n + step)], header="height")
    run = make_run(
        tmp_path / "run", "regression", {"source": "csv", "path": str(folder), "horizon": 1, "skip_lines": 1}
    )
    values = [math.sin(step) for step in range(6)]
    (whole,) = run.predict([values])
    state, told = None, []
    for value in values:
        answer, state = run.step(state, value)
        told.append(answer["prediction"])
    np.testing.assert_allclose(np.ravel(told), np.ravel(whole["prediction"])[: len(told)], atol=1e-6)


def test_symbols_step_by_step(writer: Run) -> None:
    answer, state = writer.step(None, "t")
    assert sum(answer["next"].values()) <= 1
    answer, _ = writer.step(state, "h")
    assert {"step", "surprise", "next"} == set(answer)


def test_texts_are_written(writer: Run) -> None:
    texts = writer.generate("the ", length=30, samples=3, seed=1)
    assert [text[:4] for text in texts] == ["the "] * 3
    assert {len(text) for text in texts} == {34}
    assert (
        texts
        == writer.generate("the ", length=30, samples=3, seed=1)
        != writer.generate("the ", length=30, samples=3, seed=2)
    )
    drawing = rayrnn.Drawing(temperature=0)
    pieces = rayrnn.generate(writer, prime="the ", length=30, samples=1, drawing=drawing)
    assert writer.generate("the ", length=30, temperature=0) == ["".join(first for first, *_ in pieces)]


def test_steps_are_scored_once_detect_has_fitted(tmp_path: Path) -> None:
    write_series(tmp_path / "train")
    series = write_series(tmp_path / "series", spikes=[SPIKE])
    run = forecast(tmp_path, tmp_path / "run")
    answer, _ = run.step(None, [0.0, 1.0])
    assert "anomaly" not in answer
    detect(run, series, tmp_path / "found.csv", console=Console(quiet=True))
    state, flagged = None, []
    for number, line in enumerate((series / "0.csv").read_text().splitlines()[1:]):
        answer, state = run.step(state, [float(cell) for cell in line.split(",")])
        flagged += [number] if answer.get("anomaly") else []
    assert SPIKE in flagged


def test_a_newer_model_is_used(tagger: Run) -> None:
    sequence = [[[0.5, 100.0], [0.1, 120.0]]]
    before = tagger.predict(sequence)[0]["probabilities"]
    weights = {name: tensor * 2 for name, tensor in _weights(tagger).items()}
    tagger.write_model(weights)
    assert tagger.predict(sequence)[0]["probabilities"] != before


def _weights(run: Run) -> dict[str, torch.Tensor]:
    from rayrnn.runs.model import load_network

    return load_network(run).state_dict()


def test_a_run_says_what_it_is(tagger: Run, tmp_path: Path) -> None:
    assert repr(tagger) == f"<run {tagger.name}: tagging, 1 x 8 gru, 0 of {tagger.recipe.averaging.rounds} rounds>"
    (tagger.path / "recipe.yaml").write_text("task: [")
    assert repr(tagger) == f"<run {tagger.name}: cannot be read>"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("abc", "str; give a list of sequences"),
        ({"values": [[1.0, 2.0]]}, "dict; give a list of sequences"),
        ([], "there are no rows"),
        ([[]], "row 0 has no step"),
        ([[[1.0, 2.0, 3.0]]], "3"),
        ([[[1.0, 2.0]], [[1.0]]], "1"),
        ([[[1.0, float("nan")]]], "step 0"),
        ([[[1.0, None]]], "step 0"),
        ([["a", "b"]], "values"),
        ([5], "row 0 is 5"),
        ([{"height": [1.0], "number": [1.0, 2.0]}], r"height \(1\), number \(2\)"),
        (pd.DataFrame({"height": [1.0]}), "due is a column for each of height, number"),
        (pd.DataFrame({"height": [], "number": []}), "no rows"),
    ],
)
def test_what_cannot_be_read_is_told(tagger: Run, given: Any, told: str) -> None:
    with pytest.raises((DataError, UsageError), match=told):
        tagger.predict(given)


def test_what_a_run_cannot_do_is_told(tagger: Run, writer: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="language model"):
        writer.predict(["abc"])
    with pytest.raises(UsageError, match="tagging"):
        tagger.generate()
    with pytest.raises(UsageError, match="state is dict"):
        tagger.step({}, [0.1, 100])
    with pytest.raises((DataError, UsageError)):
        tagger.step(None, [0.1, 100, 3])
    (tagger.path / "model.safetensors").unlink()
    with pytest.raises(RunError, match="no model yet"):
        tagger.predict([[[0.1, 100.0]]])
