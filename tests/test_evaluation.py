"""Evaluations: over what training held out, or given data; the same however many tasks share it; readable."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import rayrnn.prediction.evaluate
from rayrnn.data.encoding import Numbers
from rayrnn.data.sequences import gather, split, take
from rayrnn.data.sources import read
from rayrnn.errors import DataError, UsageError
from rayrnn.prediction.evaluate import Report, evaluate
from rayrnn.recipe import task_of
from rayrnn.runs.directory import Run
from rayrnn.runs.model import load_network
from rayrnn.tasks.metrics import Metrics
from tests.asked import needs
from tests.tasks.segments import segment
from tests.untrained import make_run, outputs_of, wave, write_files

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Run:
    """30 sequences of three classes, a third of them held out."""
    place = tmp_path_factory.mktemp("classified")
    files = write_files(place / "files", lambda n, t: [*wave(n, t), "abc"[n % 3]])
    data = {"source": "csv", "path": str(files), "label_column": 2, "normalize": "standardize", "held_out": 0.3}
    return make_run(place / "run", "classification", data)


def by_hand(run: Run, keys: set[str] | None = None) -> dict[str, Any]:
    """Accuracy and loss of a classification of "abc", from each sequence's own outputs."""
    outputs = {key: logits for key, logits in outputs_of(run).items() if keys is None or key in keys}
    truth = torch.tensor([int(key.removesuffix(".csv")) % 3 for key in outputs])
    logits = torch.stack(list(outputs.values()))
    accuracy = float((logits.argmax(-1) == truth).float().mean())
    return {"loss": float(torch.nn.functional.cross_entropy(logits, truth)), "accuracy": accuracy}


def path_of(run: Run) -> str:
    return str(run.recipe.data.path)  # type: ignore[attr-defined]


def test_what_training_held_out_is_measured(classified: Run) -> None:
    report = evaluate(classified)
    sequences = gather(read(classified.recipe.data, needs("classification")), needs("classification"))
    _, held_out = split(sequences, 0.3, seed=classified.recipe.seed, last=False)
    keys = set(take(sequences, held_out)["key"].to_pylist())
    assert report.num_sequences == len(keys) == 9
    for name, value in by_hand(classified, keys).items():
        assert report.metrics[name] == pytest.approx(value, rel=1e-4)


def test_data_of_its_own_is_measured_whole(classified: Run) -> None:
    report = evaluate(classified, path=path_of(classified))
    assert (report.num_sequences, report.data) == (30, path_of(classified))
    for name, value in by_hand(classified).items():
        assert report.metrics[name] == pytest.approx(value, rel=1e-4)
    assert [sum(row) for row in report.metrics["confusion_matrix"]] == [10, 10, 10]  # type: ignore[union-attr]


def test_a_dataset_is_measured_as_its_files_are(classified: Run) -> None:
    dataset = read(classified.recipe.data, needs("classification"))
    assert evaluate(classified, data=dataset).metrics == evaluate(classified, path=path_of(classified)).metrics


def test_many_tasks_count_what_one_does(classified: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = evaluate(classified, path=path_of(classified))
    monkeypatch.setattr(rayrnn.prediction.evaluate, "STEPS_A_TASK", 20)
    shared = evaluate(classified, path=path_of(classified))
    assert shared.metrics["confusion_matrix"] == alone.metrics["confusion_matrix"]
    assert shared.metrics["loss"] == pytest.approx(alone.metrics["loss"])
    assert (shared.steps, shared.num_sequences) == (alone.steps, alone.num_sequences)


def test_sequences_without_a_label_are_left_out_and_counted(classified: Run, tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", lambda n, t: [*wave(n, t), "abc"[n % 3]])
    data = {"source": "parquet", "key": "id", "values": "series", "label": "kind", "held_out": 0}
    series = [[wave(n, t) for t in range(3)] for n in range(6)]
    table = pa.table({"id": list("klmnop"), "series": series, "kind": ["a", "b", None, "a", None, "b"]})
    pq.write_table(table, files / "table.parquet")
    run = make_run(tmp_path / "run", "classification", data | {"path": str(files / "table.parquet")})
    report = evaluate(run, path=files / "table.parquet")
    assert (report.num_sequences, report.num_left_out, report.steps) == (4, 2, 12)
    assert "4 sequences (2 left out), 12 steps; 0.0% padding" in report.to_text()


def test_a_run_that_held_nothing_out_asks_for_data(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", lambda n, t: [*wave(n, t), "ab"[n % 2]])
    data = {"source": "csv", "path": str(files), "label_column": 2, "held_out": 0}
    run = make_run(tmp_path / "run", "classification", data)
    with pytest.raises(UsageError, match=r"held nothing out.*--data PATH"):
        evaluate(run)


def test_held_out_sequences_of_their_own_are_the_ones_that_are_measured(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", lambda n, t: [*wave(n, t), "ab"[n % 2]])
    others = write_files(tmp_path / "others", lambda n, t: [*wave(n + 1, t), "b"])
    data = {"source": "csv", "path": str(files), "label_column": 2, "held_out": str(others)}
    run = make_run(tmp_path / "run", "classification", data)
    assert evaluate(run).metrics == evaluate(run, path=others).metrics


def test_labels_beside_the_sequences_are_given_with_them(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", wave)
    others = write_files(tmp_path / "others", wave)
    for place, kinds in (("kinds", "ab"), ("other_kinds", "ba")):
        lines = [f"{number:02d}.csv,{kinds[number % 2]}\n" for number in range(30)]
        (tmp_path / f"{place}.csv").write_text("".join(lines))
    beside = {"labels": f"{tmp_path}/kinds.csv", "held_out_labels": f"{tmp_path}/other_kinds.csv"}
    data = {"source": "csv", "path": str(files), "held_out": str(others)} | beside
    run = make_run(tmp_path / "run", "classification", data)
    right = evaluate(run, path=files).metrics["accuracy"]
    for report in (evaluate(run), evaluate(run, path=files, labels=tmp_path / "other_kinds.csv")):
        assert report.metrics["accuracy"] == pytest.approx(1 - right)  # type: ignore[operator]
    with pytest.raises(UsageError, match=r"and no sequences that they belong to: give these too, --data PATH"):
        evaluate(run, labels=tmp_path / "kinds.csv")


def test_a_label_that_was_not_learned_is_named(classified: Run, tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", lambda n, t: [*wave(n, t), "abx"[n % 3]])
    with pytest.raises(DataError, match=r"sequence '\d\d\.csv' has the label 'x'.*the 3 classes: a, b, c"):
        evaluate(classified, path=files)


def test_data_without_labels_is_refused(classified: Run, tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", wave)
    with pytest.raises(DataError, match="no column 2"):
        evaluate(classified, path=files)


def test_a_language_models_report_is_in_nats_bits_and_perplexity(tmp_path: Path) -> None:
    text = "abracadabra " * 40
    run = make_run(tmp_path / "run", "language_model", {"text": text, "length": 20, "held_out": 0.2}, truncate=7)
    (tmp_path / "other.txt").write_text(text)
    report = evaluate(run, path=tmp_path / "other.txt")
    network = load_network(run)
    symbols = torch.from_numpy(run.encoding.vocabulary.encode_characters(text)).long()
    task = task_of(run.recipe)
    metrics = task.metrics(run.encoding)
    starts = [*range(0, len(symbols) - 1, 20), len(symbols) - 1]
    with torch.no_grad():
        for start, end in pairwise(starts):
            outputs, _ = network(symbols[None, start:end])
            targets = segment(symbols[None, start + 1 : end + 1], torch.ones(1, end - start, dtype=torch.bool))
            task.measure(metrics, outputs, targets, run.encoding)
    assert report.steps == len(symbols) - 1
    for name, value in task.results(metrics).items():
        assert report.metrics[name] == pytest.approx(value, rel=1e-4)
    assert report.metrics["bits_per_symbol"] == pytest.approx(report.metrics["loss"] / math.log(2))  # type: ignore[operator]
    assert "perplexity" in report.to_text()


def test_a_forecasts_errors_are_in_the_datas_own_units(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", lambda n, t: [1000 + 50 * math.sin(n + t)])
    data = {"source": "csv", "path": str(files), "horizon": 1, "normalize": "standardize", "held_out": 0}
    run = make_run(tmp_path / "run", "regression", data)
    assert isinstance(run.encoding.inputs, Numbers)
    scaling = run.encoding.inputs.scaling
    errors = []
    for key, scaled in outputs_of(run).items():
        number = int(key.removesuffix(".csv"))
        said = scaled[:-1, 0].numpy() * scaling.scale[0] + scaling.shift[0]
        errors += list(said - [1000 + 50 * math.sin(number + step) for step in range(1, len(scaled))])
    report = evaluate(run, path=files)
    assert report.metrics["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-4)
    assert report.metrics["rmse"] == pytest.approx(np.sqrt(np.square(errors).mean()), rel=1e-4)
    assert "RMSE" in report.to_text()


def report_of(names: list[str], matrix: list[list[int]], **metrics: float) -> Report:
    found: dict[str, Any] = {"loss": 0.5, "accuracy": 0.9, "macro_f1": 0.8, "confusion_matrix": matrix} | metrics
    return Report("some data", "classification", 20, 200, 0.05, found, "nats", tuple(names))


def test_the_confusion_matrix_is_aligned_under_the_classes_names() -> None:
    report = report_of(["no", "yes", "a class with a long name"], [[1000, 2, 0], [0, 30, 4], [5, 0, 60]])
    lines = report.to_text().splitlines()
    assert lines[-4:] == [
        "true \\ answer     no  yes  a class wit…",
        "no             1,000    2             .",
        "yes                .   30             4",
        "a class wit…       5    .            60",
    ]


def test_the_largest_errors_are_told_where_a_matrix_would_be_too_large() -> None:
    matrix = np.diag([9] * 30)
    matrix[3, 4], matrix[7, 1] = 2, 1200
    lines = report_of([f"tag{number}" for number in range(30)], matrix.tolist()).to_text().splitlines()
    assert [line.split() for line in lines[-2:]] == [
        ["1,200", "tag7", "taken", "for", "tag1"],
        ["2", "tag3", "taken", "for", "tag4"],
    ]


def test_the_report_is_json_that_any_reader_takes() -> None:
    report = report_of(["a", "b"], [[1, 0], [0, 1]], r2=math.nan)
    values = json.loads(json.dumps(report.to_json()), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert (values["sequences"], values["classes"], values["r2"]) == (20, ["a", "b"], None)
    assert values["confusion_matrix"] == [[1, 0], [0, 1]]


def test_answers_that_are_not_finite_leave_no_loss_behind_and_are_said(classified: Run, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "classification", classified.recipe.data.model_dump(mode="json"))
    parameters = load_network(run).state_dict()
    run.write_model({name: torch.full_like(tensor, math.nan) for name, tensor in parameters.items()})
    report = evaluate(run)
    assert "loss           none: some of the network's answers are not finite" in report.to_text()
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["loss"] is None


def test_one_minibatch_without_a_loss_is_not_left_out_of_the_mean() -> None:
    parts = [Metrics({}) for _ in range(3)]
    for part, loss in zip(parts, (2.0, math.nan, 4.0), strict=True):
        part.add_loss(torch.tensor(loss), torch.tensor(2))
    assert parts[0].loss == 1
    parts[0].merge([parts[2]])
    assert (parts[0].loss, parts[0].num_targets) == (1.5, 4)
    parts[0].merge([parts[1]])
    assert math.isnan(parts[0].loss)
    assert parts[0].num_targets == 6
    empty = Metrics({})
    empty.merge([parts[1]])
    assert (math.isnan(empty.loss), empty.num_targets) == (True, 2)
