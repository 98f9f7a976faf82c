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
from rayrnn.recipe import validate_recipe
from rayrnn.runs.directory import Run, open_run
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
    below = pd.concat({name: own.set_index("at") for name, own in mixed.groupby("machine")}, names=["machine"])
    assert sorted(run.predict(below)["key"]) == sorted(due)
    assert run.predict(mixed.set_index(["machine", "at"]))["label"].map(list).tolist() == [*map(list, found["label"])]
    with pytest.raises(DataError, match="m3"):
        run.predict(pd.concat([mixed, mixed[mixed.machine == "m3"]]))
    with pytest.raises(DataError, match="no column is left to learn from: the columns are machine, at"):
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


def test_a_run_of_what_a_program_handed_over_is_asked_in_the_row_schema(tmp_path: Path) -> None:
    rows = [{"key": f"s{n}", "values": [[float(n % 2)], [1.0]], "label": "ab"[n % 2]} for n in range(8)]
    values = {"name": "given", "task": "classification", "model": {"hidden": 8}}
    recipe = validate_recipe(values | {"averaging": {"rounds": 1, "workers": 1}})
    run = rayrnn.train(recipe, data=rows, out=tmp_path / "run").run
    asked = [{"key": row["key"], "values": row["values"]} for row in rows]
    answers = run.predict(asked)
    assert [answer["key"] for answer in answers] == [row["key"] for row in rows]
    assert run.predict(pd.DataFrame(asked))["label"].tolist() == [answer["label"] for answer in answers]
    assert run.predict(pa.Table.from_pylist(rows))["key"].to_pylist() == [row["key"] for row in rows]


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
        ([{"height": [1.0], "number": [1.0, 2.0]}], "height has 1 step, and number has 2"),
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


KINDS = [{"mode": "abc"[n % 3], "number": 1 + n % 2, "size": math.sin(n)} for n in range(40)]


@pytest.fixture
def mixed(tmp_path: Path) -> tuple[Run, Path]:
    """Numbers and words, some of them whole numbers; -999 stands where there is no number."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number in range(12):
        rows = pd.DataFrame(KINDS[number : number + 6])
        rows.assign(kind="ab"[number % 2]).to_csv(folder / f"{number}.csv", index=False)
    section = {"source": "csv", "path": str(folder), "skip_lines": 1, "label_column": "kind"}
    section |= {"categorical": ["mode", "number"], "missing": ["NA", "-999"]}
    return make_run(tmp_path / "run", "classification", section, {"embedding": 0}), folder


def as_file(run: Run, frame: pd.DataFrame, tmp_path: Path) -> Any:
    """What the command answers to the frame as a file."""
    (tmp_path / "asked").mkdir(exist_ok=True)
    frame.to_csv(tmp_path / "asked" / "one.csv", index=False)
    (tmp_path / "answers.jsonl").unlink(missing_ok=True)
    return written(run, tmp_path / "asked", tmp_path)[0]["probabilities"]


def test_words_in_a_frame_are_those_in_a_file(mixed: tuple[Run, Path], tmp_path: Path) -> None:
    run, folder = mixed
    frame = pd.read_csv(folder / "3.csv")
    frames = [
        frame,
        frame.assign(number=frame.number.astype(float)),  # as pandas reads them beside an empty cell
        frame.assign(mode=" " + frame["mode"] + " "),
        frame.assign(mode=frame["mode"].astype("category")),
        frame.assign(number=frame.number.astype(str)),
        frame[["size", "number", "mode"]].assign(text="beside", note=[1.0, "x", None, 2, 3, 4]),
    ]
    expected = as_file(run, frame, tmp_path)
    for one in frames:
        found = run.predict(one)["probabilities"][0]
        assert dict(found) == pytest.approx(expected, abs=1e-6)
        by_names = {name: one[name].tolist() for name in ("size", "number", "mode")}
        assert run.predict([by_names])[0]["probabilities"] == pytest.approx(expected, abs=1e-6)
        state = None
        for _, row in one.iterrows():
            answer, state = run.step(state, row)
        assert answer["probabilities"] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(DataError, match="column 'size' is empty"):
        run.predict(frame.assign(size=-999.0))
    with pytest.raises(DataError, match="column 'size' is empty"):
        run.step(None, {"size": -999, "mode": "a", "number": 1})
    with pytest.raises(DataError, match=r"column 'size' holds .*learned numbers there"):
        run.predict(frame.assign(size="1.5"))
    with pytest.raises(DataError, match="column 'mode' is there 2 times"):
        run.predict(pd.concat([frame, frame[["mode"]]], axis=1))


def test_keys_part_the_rows_of_a_frame(tagger: Run) -> None:
    one = pd.DataFrame({"height": [0.1, 0.2, 0.3], "number": [100, 110, 120]})
    two = pd.DataFrame({"height": [0.5, 0.6], "number": [90, 95]})
    apart = [dict(answer) for answer in tagger.predict([one, two])]
    both = pd.concat([two.assign(key="z"), one.assign(key="a")]).sample(frac=1, random_state=3).sort_index()
    together = tagger.predict(both)
    assert set(together["key"]) == {"z", "a"}
    of_key = dict(zip(together["key"], together["label"], strict=True))
    assert (list(of_key["a"]), list(of_key["z"])) == (apart[0]["label"], apart[1]["label"])


def test_a_column_may_be_called_as_one_of_the_row_schema(tmp_path: Path) -> None:
    for name in ("values", "text", "target", "key"):
        folder = write_files(tmp_path / name, lambda n, step: [math.sin(n + step)], header=name)
        data = {"source": "csv", "path": str(folder), "horizon": 1, "skip_lines": 1}
        run = make_run(tmp_path / f"run {name}", "regression", data)
        values = [math.sin(step) for step in range(5)]
        frame = pd.DataFrame({name: values})
        expected = run.predict([values])[0]["prediction"]
        assert run.predict(frame)["prediction"][0].tolist() == pytest.approx(expected, abs=1e-6)
        assert run.predict([{name: values}])[0]["prediction"] == expected
        assert run.step(None, values[0])[0]["prediction"] == pytest.approx(expected[0], abs=1e-6)
        assert run.step(None, {name: values[0]})[0] == run.step(None, [values[0]])[0]


def test_a_file_without_names_and_a_file_of_words(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "waves", wave)
    run = make_run(tmp_path / "run", "regression", {"source": "csv", "path": str(folder), "horizon": 1})
    frame = pd.read_csv(folder / "11.csv", header=None)
    expected = run.predict([frame.to_numpy()])[0]["prediction"]
    assert [list(one) for one in run.predict(frame)["prediction"][0]] == expected
    with pytest.raises(DataError, match="or as many as were learned, 2"):
        run.predict(frame[[0]])

    said = ["the", "quick", "fox"]
    folder = write_files(tmp_path / "words", lambda n, step: [said[(n + step) % 3], "xy"[n % 2]], header="word,kind")
    data = {"source": "csv", "path": str(folder), "skip_lines": 1, "categorical": ["word"], "label_column": "kind"}
    run = make_run(tmp_path / "of words", "tagging", data)
    answer, state = run.step(None, {"word": "the"})
    assert answer == run.step(None, "the")[0] == run.step(None, {"word": " the "})[0]
    assert run.step(state, "fox")[0]["step"] == 1
    frame = pd.read_csv(folder / "11.csv")
    assert run.predict(frame)["label"][0].tolist() == run.predict([frame["word"].tolist()])[0]["label"]
    for wrong in (None, b"the", 3.5, ["the"], "", "the quick"):
        with pytest.raises((UsageError, DataError)):
            run.step(None, wrong)


def test_rows_as_the_table_has_them_and_columns_of_frames(tmp_path: Path) -> None:
    rows = [{"id": f"s{n}", "readings": [float(n % 5)] * (3 + n % 4), "kind": "ab"[n % 2]} for n in range(12)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "all.parquet")
    data = {"source": "parquet", "path": str(tmp_path / "all.parquet"), "key": "id", "values": "readings"}
    run = make_run(tmp_path / "run", "classification", data | {"label": "kind"})
    frame = pd.DataFrame(rows)
    due = run.predict(frame)
    assert [(one["key"], one["label"]) for one in run.predict(rows)] == list(zip(due["key"], due["label"], strict=True))
    assert [one["label"] for one in run.predict(frame["readings"])] == due["label"].tolist()
    assert [one["label"] for one in run.predict(pa.array(frame["readings"].tolist()))] == due["label"].tolist()
    arrays = frame.assign(readings=[np.array(cell)[:, None] for cell in frame["readings"]])
    assert run.predict(arrays)["label"].tolist() == due["label"].tolist()
    fixed = pa.table({"id": ["a"], "readings": pa.array([[1.0, 2.0]], pa.list_(pa.float64(), 2))})
    assert len(run.predict(fixed)) == 1


def test_a_misspelt_key_is_told(tmp_path: Path) -> None:
    steps = pd.DataFrame([{"machine": n, "at": step, "heat": 0.1 * step} for n in range(12) for step in range(4)])
    steps.to_parquet(tmp_path / "steps.parquet")
    data = {"source": "parquet", "path": str(tmp_path / "steps.parquet"), "key": "machine", "order_by": "at"}
    run = make_run(tmp_path / "run", "regression", data | {"horizon": 1})
    with pytest.raises(DataError, match=r"no column 'machine'.*did you mean 'Machine'"):
        run.predict(steps.rename(columns={"machine": "Machine"}))
    mixed = steps.sort_values("machine", ascending=False)
    assert run.predict(mixed)["key"].tolist() == [str(n) for n in range(11, -1, -1)], "as they come"
    with pytest.raises(DataError, match="no rows"):
        run.predict(steps[:0])


@pytest.mark.usefixtures("ray_cluster")
def test_a_threshold_of_its_own_goes_by_the_sequences_name(tmp_path: Path) -> None:
    write_series(tmp_path / "train")
    run = forecast(tmp_path, tmp_path / "run")
    run.write_recipe(validate_recipe(run.recipe.model_dump(mode="json") | {"detect": {"fit": "each"}}))
    found = detect(run, tmp_path / "train", console=Console(quiet=True))
    assert found.num_by_own > 0
    thresholds = set()
    for key in [None, *(f"{number}.csv" for number in range(6))]:
        state = None
        for step in range(15):
            answer, state = run.step(state, [math.sin(step), 0.5], key=key if state is None else None)
        thresholds.add(answer["threshold"])
    assert len(thresholds) > 1
    with pytest.raises(UsageError, match="key names a sequence at its first step"):
        run.step(state, [0.1, 0.2], key="later")


def test_a_state_is_of_its_run_and_numbers_may_be_numpys(tagger: Run, writer: Run, tmp_path: Path) -> None:
    _, state = tagger.step(None, [0.1, 100])
    assert state.num_steps == 1
    with pytest.raises(UsageError, match="of another run"):
        writer.step(state, "t")
    assert writer.generate("the ", length=np.int64(3), seed=np.int64(4)) == writer.generate("the ", length=3, seed=4)
    with pytest.raises(UsageError, match=r"length is 2\.5"):
        writer.generate("the ", length=2.5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="prime is b'the'"):
        writer.generate(b"the")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="holds times"):
        tagger.predict([np.array([["2024-01-01", "2024-01-02"]], dtype="M8[ns]")])


def test_a_run_whose_name_is_misspelt_is_told_of(tagger: Run) -> None:
    with pytest.raises(UsageError, match=rf"is no run: it has no recipe\.yaml; did you mean {tagger.path}\?"):
        open_run(tagger.path.with_name("rum"))
    with pytest.raises(UsageError, match="`rayrnn train` writes one"):
        open_run(tagger.path / "nowhere" / "at all")
