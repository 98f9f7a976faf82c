"""Predictions: the network's own answers for every sequence, keyed, in order, in every format; or no file at all."""

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rayrnn.data.encoding import Encoding, Numbers, Scaling
from rayrnn.data.sources import read
from rayrnn.errors import DataError, UsageError
from rayrnn.prediction.predict import Written, predict, predictions
from rayrnn.recipe import validate_recipe
from rayrnn.recipe.data_sections import ParquetData
from rayrnn.runs.directory import Run
from rayrnn.runs.model import Trained
from tests.asked import needs
from tests.s3_store import ENVIRONMENT, Store
from tests.untrained import COUNT, lengths, make_run, outputs_of, wave, write_files

pytestmark = pytest.mark.usefixtures("ray_cluster")


def said(run: Run, path: Path, out: Path) -> Written:
    return predict(run, path, out, console=Console(quiet=True))


def answers(run: Run, path: Path, out: Path) -> list[dict[str, Any]]:
    said(run, path, out)
    return rows_of(out)


def rows_of(out: Path) -> list[dict[str, Any]]:
    if out.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(out).to_pylist()
        return rows
    text = out.read_text(encoding="utf-8")
    if out.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> tuple[Run, Path]:
    """A run that tells three classes, named by the column `kind`, and the sequences it knows."""
    place = tmp_path_factory.mktemp("classified")
    files = write_files(place / "files", lambda n, t: [*wave(n, t), "abc"[n % 3]], header="x,y,kind")
    data = {"source": "csv", "path": str(files), "skip_lines": 1, "label_column": "kind", "normalize": "standardize"}
    return make_run(place / "run", "classification", data, {"bidirectional": "concat", "pooling": "max"}), files


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_class_a_sequence_is_the_likeliest_of_the_networks_own(
    classified: tuple[Run, Path], tmp_path: Path, suffix: str
) -> None:
    run, files = classified
    rows = answers(run, files, tmp_path / f"out{suffix}")
    assert [row["key"] for row in rows] == [f"{number:02d}.csv" for number in range(COUNT)]
    expected = outputs_of(run)
    for row in rows:
        chances = expected[row["key"]].softmax(-1)
        found = [row[f"probability_{c}"] for c in "abc"] if suffix == ".csv" else row["probabilities"].values()
        torch.testing.assert_close(torch.tensor([float(chance) for chance in found]), chances, rtol=1e-4, atol=1e-5)
        assert row["label"] == "abc"[int(chances.argmax())]


def test_the_three_formats_say_the_same(classified: tuple[Run, Path], tmp_path: Path) -> None:
    run, files = classified
    objects, lines, table = (
        answers(run, files, tmp_path / f"out{suffix}") for suffix in (".jsonl", ".csv", ".parquet")
    )
    for row, line, whole in zip(objects, lines, table, strict=True):
        assert (row["key"], row["label"]) == (line["key"], line["label"]) == (whole["key"], whole["label"])
        for name, chance in row["probabilities"].items():
            assert np.float32(chance) == np.float32(line[f"probability_{name}"]) == whole["probabilities"][name]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_tagging_answers_every_step(tmp_path: Path, suffix: str) -> None:
    files = write_files(tmp_path / "files", lambda n, t: [*wave(n, t), "ab"[(n + t) % 2]])
    data = {"source": "csv", "path": str(files), "label_column": -1}
    run = make_run(tmp_path / "run", "tagging", data, truncate=5)
    rows = answers(run, files, tmp_path / f"out{suffix}")
    expected = outputs_of(run)
    if suffix == ".csv":
        steps = [(row["key"], int(row["step"]), row["label"]) for row in rows]
        assert steps == [(k, t, "ab"[int(best)]) for k, o in expected.items() for t, best in enumerate(o.argmax(-1))]
        return
    for row in rows:
        assert row["label"] == ["ab"[int(best)] for best in expected[row["key"]].argmax(-1)]
        found = torch.tensor([list(chances.values()) for chances in row["probabilities"]])
        torch.testing.assert_close(found, expected[row["key"]].softmax(-1), rtol=1e-4, atol=1e-5)


def write_table(path: Path, **columns: Any) -> Path:
    series = [[wave(number, step) for step in range(length)] for number, length in enumerate(lengths())]
    pq.write_table(
        pa.table({"id": [f"k{n}" for n in range(COUNT)], "series": series, **columns}), path, row_group_size=7
    )
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("width", [1, 2])
def test_regression_answers_a_sequence_with_its_numbers(tmp_path: Path, suffix: str, width: int) -> None:
    goals = [float(n) for n in range(COUNT)] if width == 1 else [[float(n), -float(n)] for n in range(COUNT)]
    path = write_table(tmp_path / "table.parquet", goal=goals)
    data = {"source": "parquet", "path": str(path), "key": "id", "values": "series", "label": "goal"}
    run = make_run(tmp_path / "run", "regression", data)
    rows = answers(run, path, tmp_path / f"out{suffix}")
    expected = outputs_of(run)
    assert [row["key"] for row in rows] == [f"k{number}" for number in range(COUNT)]
    for row in rows:
        numbers = row["prediction"] if "prediction" in row else [row["prediction_0"], row["prediction_1"]]
        found = torch.tensor([float(n) for n in (numbers if width == 2 else [numbers])])
        torch.testing.assert_close(found, expected[row["key"]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_forecast_is_in_the_datas_own_units_and_goes_beyond_the_end(tmp_path: Path, suffix: str) -> None:
    files = write_files(tmp_path / "files", wave)
    data = {"source": "csv", "path": str(files), "horizon": 2, "normalize": "standardize"}
    run = make_run(tmp_path / "run", "regression", data)
    assert isinstance(run.encoding.inputs, Numbers)
    scaling = run.encoding.inputs.scaling
    rows = answers(run, files, tmp_path / f"out{suffix}")
    found: dict[str, list[list[float]]] = {f"{number:02d}.csv": [] for number in range(COUNT)}
    for row in rows:
        if suffix == ".csv":
            assert int(row["step"]) == len(found[row["key"]])
            found[row["key"]].append([float(row["prediction_0"]), float(row["prediction_1"])])
        else:
            found[row["key"]] = row["prediction"]
    assert [len(steps) for steps in found.values()] == lengths()
    for key, scaled in outputs_of(run).items():
        expected = scaled.double() * torch.tensor(scaling.scale) + torch.tensor(scaling.shift)
        torch.testing.assert_close(torch.tensor(found[key]), expected.float(), rtol=1e-4, atol=1e-3)


def test_symbols_and_categories_are_answered(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", lambda n, t: [n * t, "uvw"[t % 3], "yz"[n % 2], "ab"[n % 2]])
    mixed = {"source": "csv", "path": str(files), "label_column": 3, "categorical": [1, 2]}
    words = {"source": "csv", "path": str(files), "label_column": 3, "categorical": [1], "features": [1]}
    for name, data in {"mixed": mixed, "words": words}.items():
        run = make_run(tmp_path / name, "classification", data)
        rows = answers(run, files, tmp_path / f"{name}.jsonl")
        best = {key: "ab"[int(outputs.argmax())] for key, outputs in outputs_of(run).items()}
        assert {row["key"]: row["label"] for row in rows} == best


@pytest.mark.parametrize(("place", "header"), [(0, ""), (-1, ""), (2, ""), ("kind", "x,y,kind"), (2, "x,y,kind")])
def test_labels_may_be_missing_or_meaningless(tmp_path: Path, place: object, header: str) -> None:
    def columns(*label: object) -> Callable[[int, int], list[object]]:
        return lambda n, t: [*label, *wave(n, t)] if place == 0 else [*wave(n, t), *label]

    files = write_files(tmp_path / "files", lambda n, t: columns("ab"[n % 2])(n, t), header)
    strange = write_files(tmp_path / "strange", lambda n, t: columns(f"?{t}")(n, t), header)
    bare = write_files(tmp_path / "bare", columns(), header.removesuffix(",kind"))
    data = {"source": "csv", "path": str(files), "label_column": place, "skip_lines": int(bool(header))}
    run = make_run(tmp_path / "run", "classification", data)
    first = answers(run, files, tmp_path / "files.jsonl")
    assert answers(run, strange, tmp_path / "strange.jsonl") == first
    assert answers(run, bare, tmp_path / "bare.jsonl") == first


@pytest.mark.parametrize("kept", [True, False])
def test_labels_that_lie_beside_the_sequences_are_left_alone(tmp_path: Path, kept: bool) -> None:
    files = write_files(tmp_path / "files", wave)
    labels = files / "labels.csv"
    labels.write_text("".join(f"{number:02d}.csv,{'ab'[number % 2]}\n" for number in range(COUNT)))
    run = make_run(tmp_path / "run", "classification", {"source": "csv", "path": str(files), "labels": str(labels)})
    expected = {key: "ab"[int(outputs.argmax())] for key, outputs in outputs_of(run).items()}
    if not kept:
        labels.unlink()
    rows = answers(run, files, tmp_path / "out.jsonl")
    assert {row["key"]: row["label"] for row in rows} == expected


def test_tables_with_a_row_a_step_may_lack_the_label(tmp_path: Path) -> None:
    steps = [
        {"id": f"k{n:02d}", "at": t, "x": float(n), "y": float(t), "kind": "ab"[n % 2]}
        for n, length in enumerate(lengths())
        for t in range(length)
    ]
    table = pa.Table.from_pylist(steps)
    pq.write_table(table, tmp_path / "steps.parquet")
    pq.write_table(table.drop_columns(["kind"]), tmp_path / "bare.parquet")
    data = {
        "source": "parquet",
        "path": str(tmp_path / "steps.parquet"),
        "key": "id",
        "order_by": "at",
        "label": "kind",
    }
    run = make_run(tmp_path / "run", "classification", data)
    with_labels = answers(run, tmp_path / "steps.parquet", tmp_path / "out.jsonl")
    assert sorted(row["key"] for row in with_labels) == [f"k{number:02d}" for number in range(COUNT)]
    assert answers(run, tmp_path / "bare.parquet", tmp_path / "bare.jsonl") == with_labels


def test_a_sequence_without_steps_has_no_answer(tmp_path: Path) -> None:
    path = write_table(tmp_path / "table.parquet", goal=["ab"[n % 2] for n in range(COUNT)])
    data = {"source": "parquet", "path": str(path), "key": "id", "values": "series", "label": "goal"}
    run = make_run(tmp_path / "run", "classification", data)
    empty = pa.table({"id": ["a", "b", "c"], "series": [[], [[1.0, 2.0]], []]})
    pq.write_table(empty, tmp_path / "empty.parquet")
    for suffix in (".jsonl", ".parquet"):
        a, b, c = answers(run, tmp_path / "empty.parquet", tmp_path / f"out{suffix}")
        assert a == {"key": "a", "label": None, "probabilities": None}
        assert (b["label"] in "ab", c["key"], c["label"]) == (True, "c", None)
    lines = answers(run, tmp_path / "empty.parquet", tmp_path / "out.csv")
    assert [line["label"] for line in lines][::2] == ["", ""]


def left_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_an_existing_file_is_never_overwritten(classified: tuple[Run, Path], tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("precious")
    with pytest.raises(UsageError, match=r"out\.csv is there already"):
        said(*classified, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "precious"


def test_an_unknown_suffix_is_refused_with_the_known_ones(classified: tuple[Run, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.jsonl, \.csv or \.parquet"):
        said(*classified, tmp_path / "out.txt")


def test_directories_above_the_file_are_made(classified: tuple[Run, Path], tmp_path: Path) -> None:
    assert len(answers(*classified, tmp_path / "a" / "b" / "out.csv")) == COUNT
    assert left_in(tmp_path / "a" / "b") == ["out.csv"]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_malformed_data_is_named_and_leaves_no_file(classified: tuple[Run, Path], tmp_path: Path, suffix: str) -> None:
    files = write_files(tmp_path / "files", lambda n, t: [*wave(n, t), "a"], header="x,y,kind")
    (files / "17.csv").write_text("x,y,kind\n1,2,a\n1,zwei,a\n")
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"17\.csv:3: column 'y' is 'zwei'"):
        said(classified[0], files, tmp_path / "out" / f"x{suffix}")
    assert left_in(tmp_path / "out") == []


def test_files_that_cannot_be_used_are_skipped_where_the_recipe_says_so(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", lambda n, t: [*wave(n, t), "ab"[n % 2]])
    data = {"source": "csv", "path": str(files), "label_column": 2, "on_error": "skip"}
    run = make_run(tmp_path / "run", "classification", data)
    for number in (3, 5):
        (files / f"{number:02d}.csv").write_text("1,zwei,a\n")
    for suffix in (".jsonl", ".parquet"):
        written = said(run, files, tmp_path / f"out{suffix}")
        assert (written.num_sequences, len(written.skipped)) == (COUNT - 2, 2)
        assert "03.csv:1" in written.skipped[0]
        keys = [row["key"] for row in rows_of(tmp_path / f"out{suffix}")]
        assert keys == [f"{n:02d}.csv" for n in range(COUNT) if n not in (3, 5)]


def test_where_nothing_can_be_used_nothing_is_written(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", lambda n, t: [*wave(n, t), "ab"[n % 2]])
    data = {"source": "csv", "path": str(files), "label_column": 2, "on_error": "skip"}
    run = make_run(tmp_path / "run", "classification", data)
    for file in list(files.iterdir())[1:]:
        file.unlink()
    (kept,) = files.iterdir()
    kept.write_text("1,2,a\n3,vier,a\n")
    with pytest.raises(DataError, match=r"no sequence is left: 1 were skipped.*:2: column"):
        said(run, files, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_a_damaged_table_is_named_and_leaves_no_file(tmp_path: Path) -> None:
    path = write_table(tmp_path / "table.parquet", goal=["ab"[n % 2] for n in range(COUNT)])
    data = {"source": "parquet", "path": str(path), "key": "id", "values": "series", "label": "goal"}
    run = make_run(tmp_path / "run", "classification", data)
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"table\.parquet cannot be read as Parquet") as caught:
        said(run, path, tmp_path / "out.csv")
    assert "Failed to apply" not in str(caught.value)
    assert not (tmp_path / "out.csv").exists()


def test_other_sequences_than_those_learned_are_refused(classified: tuple[Run, Path], tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", lambda n, t: [1, 2, 3, 4], header="a,b,c,d")
    with pytest.raises(
        DataError, match=r"the model learned the features x, y; these sequences have a, b, c, d, and no x, y"
    ):
        said(classified[0], files, tmp_path / "out.csv")


def test_features_are_found_by_their_names_in_whatever_order_and_company(
    classified: tuple[Run, Path], tmp_path: Path
) -> None:
    run, files = classified
    expected = answers(run, files, tmp_path / "expected.jsonl")
    swapped = write_files(tmp_path / "swapped", lambda n, t: [7, *reversed(wave(n, t))], header="more,y,x")
    assert answers(run, swapped, tmp_path / "swapped.jsonl") == expected
    told = write_files(tmp_path / "told", lambda n, t: ["on" if t else "", *wave(n, t)], header="state,x,y")
    assert answers(run, told, tmp_path / "told.jsonl") == expected


def test_features_are_found_by_their_names_in_a_dataset(classified: tuple[Run, Path], tmp_path: Path) -> None:
    run, files = classified
    expected = answers(run, files, tmp_path / "expected.jsonl")
    names = [f"{number:02d}.csv" for number in range(COUNT) for _ in range(lengths()[number])]
    steps = [(step, *wave(number, step)) for number in range(COUNT) for step in range(lengths()[number])]
    order, x, y = zip(*steps, strict=True)
    pq.write_table(pa.table({"file": names, "y": y, "t": order, "x": x}), tmp_path / "steps.parquet")
    section = ParquetData(path=str(tmp_path / "steps.parquet"), key="file", order_by="t")
    due = {row["key"]: row["label"] for row in expected}
    found = {row["key"]: row["label"] for row in predictions(run, read(section, needs("classification"))).take_all()}
    assert found == due
    pq.write_table(pa.table({"file": names, "y": y, "t": order, "x": x, "why": ["on"] * len(x)}), section.path)
    more = read(section, needs("classification"), column_names=("x", "y"))
    assert {row["key"]: row["label"] for row in predictions(run, more).take_all()} == due


def test_missing_data_is_named(classified: tuple[Run, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*nowhere"):
        said(classified[0], tmp_path / "nowhere", tmp_path / "out.csv")


def test_a_language_model_has_no_labels_to_predict(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "language_model", {"text": "abcabcabcabc", "length": 4})
    with pytest.raises(UsageError, match="rayrnn generate"):
        said(run, tmp_path / "x.txt", tmp_path / "out.csv")


def test_a_dataset_is_answered_in_its_order_and_its_labels_are_left_alone(classified: tuple[Run, Path]) -> None:
    run, _ = classified
    dataset = read(run.recipe.data, needs("classification"))
    found = predictions(run, dataset).take_all()
    assert [row["key"] for row in found] == [f"{number:02d}.csv" for number in range(COUNT)]
    assert list(found[0]) == ["key", "label", "probabilities"]
    best = {key: "abc"[int(outputs.argmax())] for key, outputs in outputs_of(run).items()}
    assert {row["key"]: row["label"] for row in found} == best


def test_a_fault_in_a_dataset_ends_its_consumption(classified: tuple[Run, Path]) -> None:
    dataset = ray.data.from_arrow(pa.table({"key": ["a"], "values": [[[1.0, math.nan]]]}))
    with pytest.raises(ray.exceptions.RayTaskError, match="sequence 'a', step 0"):
        predictions(classified[0], dataset).take_all()


def test_predictions_go_to_an_object_store_whole_or_not_at_all(
    classified: tuple[Run, Path], s3_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    files = write_files(tmp_path / "files", lambda n, t: [*wave(n, t), "ab"[n % 2]])
    s3_store.upload(files, "predict")
    there = f"s3://{s3_store.bucket}/predict"
    data = {"source": "csv", "path": there, "label_column": 2, "endpoint": s3_store.endpoint}
    run = make_run(tmp_path / "run", "classification", data)
    store = s3_store.filesystem()
    for suffix in (".jsonl", ".csv", ".parquet"):
        out = f"s3://{s3_store.bucket}/answers/out{suffix}"
        predict(run, there, out, console=Console(quiet=True))
        (tmp_path / f"copy{suffix}").write_bytes(store.open_input_file(out.removeprefix("s3://")).read())
        assert [row["key"] for row in rows_of(tmp_path / f"copy{suffix}")] == [f"{n:02d}.csv" for n in range(COUNT)]
        with pytest.raises(UsageError, match="is there already"):
            predict(run, there, out, console=Console(quiet=True))
    (files / "00.csv").write_text("1,zwei,a\n")
    s3_store.upload(files, "broken")
    with pytest.raises(DataError, match=r"00\.csv:1"):
        predict(run, f"s3://{s3_store.bucket}/broken", f"s3://{s3_store.bucket}/answers/no.csv")
    left = store.get_file_info(pa.fs.FileSelector(f"{s3_store.bucket}/answers"))
    assert sorted(info.base_name for info in left) == ["out.csv", "out.jsonl", "out.parquet"]


def model_of(hidden: int) -> Trained:
    recipe = validate_recipe({"name": "x", "data": {"text": "ab"}, "model": {"hidden": hidden}})
    return Trained(recipe, Encoding(Numbers(Scaling.none(3)), Numbers(Scaling.none(2)), per_step=True), {}, 4 * hidden)


@given(st.lists(st.integers(0, 3000), max_size=300), st.sampled_from([8, 2000]))
def test_minibatches_take_every_row_once_and_fit_into_memory(steps: list[int], hidden: int) -> None:
    model = model_of(hidden)
    minibatches = list(model.minibatches(np.array(steps, np.int64)))
    taken = [int(row) for minibatch in minibatches for row in minibatch]
    assert sorted(taken) == [row for row, length in enumerate(steps) if length]
    for minibatch in minibatches:
        longest = max(steps[row] for row in minibatch)
        assert len(minibatch) == 1 or len(minibatch) * longest * model.width <= 2**24


def test_minibatches_of_many_sequences_are_mostly_no_padding() -> None:
    steps = np.random.default_rng(0).integers(7, 30, 2000)
    computed = sum(len(rows) * int(steps[rows].max()) for rows in model_of(64).minibatches(steps))
    assert computed < 1.1 * steps.sum()
