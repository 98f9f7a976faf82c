"""What a report says of a run's answers: computed by the real networks on the real data that was held out."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rayrnn.prediction.evaluate import evaluate
from rayrnn.recipe.detect_section import Detect
from rayrnn.reporting.answer_figures import confusions
from rayrnn.reporting.report import write_report
from rayrnn.runs.directory import Run, open_run
from rayrnn.runs.store import Store
from tests.detection.series import forecast, found_by, write_series
from tests.reporting.pages import Page
from tests.s3_store import Store as Server
from tests.untrained import make_run, wave, write_files

pytestmark = pytest.mark.usefixtures("ray_cluster")


def page_of(*runs: Run, out: Path, **how: Any) -> Page:
    write_report(runs, out, **how)
    return Page(out.read_text(encoding="utf-8"))


@pytest.fixture
def classified(tmp_path: Path) -> Run:
    files = write_files(tmp_path / "files", lambda n, t: [*wave(n, t), "abc"[n % 3]])
    data = {"source": "csv", "path": str(files), "label_column": 2, "held_out": 0.3}
    return make_run(tmp_path / "run", "classification", data)


def test_a_classification_has_its_confusions_and_what_they_mean_by_class(classified: Run, tmp_path: Path) -> None:
    page = page_of(classified, out=tmp_path / "report.html")
    report = evaluate(classified)
    matrix = report.metrics["confusion_matrix"]
    assert isinstance(matrix, list)
    shown = re.search(r"true \\ answer a b c a (\S+) (\S+) (\S+) b (\S+) (\S+) (\S+) c (\S+) (\S+) (\S+) ", page.text)
    assert shown is not None
    assert [int(cell.replace("·", "0")) for cell in shown.groups()] == [count for row in matrix for count in row]
    assert f"accuracy {report.metrics['accuracy']:.4f}" in page.text
    assert "class precision recall F1 there are a " in page.text


def test_an_evaluation_shows_itself_in_a_notebook(classified: Run) -> None:
    shown = Page(evaluate(classified)._repr_html_())
    assert "true \\ answer a b c" in shown.text
    assert "9 sequences" in shown.text


def test_every_steps_class_has_its_confusions(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", lambda n, t: [*wave(n, t), "ab"[(n + t) % 2]])
    data = {"source": "csv", "path": str(files), "label_column": 2, "held_out": 0.3}
    page = page_of(make_run(tmp_path / "run", "tagging", data), out=tmp_path / "report.html")
    assert "Confusions true \\ answer a b" in page.text


def test_a_regression_has_its_answers_against_the_truth_in_the_datas_own_units(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", lambda n, t: [5000 + 10 * n + t, n])
    data = {"source": "csv", "path": str(files), "horizon": 1, "normalize": "standardize", "held_out": 0.3}
    page = page_of(make_run(tmp_path / "run", "regression", data), out=tmp_path / "report.html")
    assert "Answer against truth: number 0" in page.text
    assert "Answer less truth: number 1" in page.text
    assert re.search(r"5,[012]00", page.text), "the axes are in the data's units"
    assert "standard deviation" in page.text
    assert re.search(r"All \d+ answers\.", page.text)


def test_classes_of_which_several_apply_have_an_f1_each(tmp_path: Path) -> None:
    kinds = ["x;y", "y", "x;z"] * 10
    table = pa.table(
        {"id": [f"{n:02d}" for n in range(30)], "series": [[[float(n), 1.0]] * 3 for n in range(30)], "kind": kinds}
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    data = {
        **{"source": "parquet", "path": str(tmp_path / "rows.parquet"), "key": "id", "values": "series"},
        **{"label": "kind", "several": True, "held_out": 0.3},
    }
    page = page_of(make_run(tmp_path / "run", "classification", data), out=tmp_path / "report.html")
    assert "class precision recall F1 there are" in page.text
    assert "micro F1" in page.text
    assert "true \\ answer" not in page.text


def test_answers_of_their_own_length_stand_beside_their_truths(tmp_path: Path) -> None:
    lines = [f"{'ab' * (1 + number % 4)}\t{'ba' * (1 + number % 4)}\n" for number in range(60)]
    (tmp_path / "pairs.tsv").write_text("".join(lines))
    data = {"source": "pairs", "path": str(tmp_path / "pairs.tsv"), "held_out": 0.5}
    page = page_of(make_run(tmp_path / "run", "transduction", data), out=tmp_path / "report.html")
    assert "sequence read answer truth" in page.text
    assert len(re.findall(r"ba(?:ba)*", page.text)) >= 10
    assert "exact match" in page.text


def test_a_language_model_has_three_texts_and_needs_no_data_for_them(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("abracadabra " * 60)
    run = make_run(tmp_path / "run", "language_model", {"path": str(tmp_path / "text.txt"), "length": 20})
    (tmp_path / "text.txt").unlink()
    page = page_of(run, out=tmp_path / "report.html")
    samples = re.findall(r"<pre>(.*?)</pre>", page.content, re.DOTALL)[:3]
    assert all(len(text) >= 300 for text in samples)
    assert re.search(r"Not here: .*text.txt", page.text), "and it says why the rest is missing"


def test_a_language_model_over_pixels_has_images_that_the_page_holds(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(12):
        pixels = np.full((6, 6), 255 * (number % 2), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    data = {
        **{"source": "images", "path": str(tmp_path / "images"), "as": "pixels", "levels": 2, "size": [6, 6]},
        "held_out": 0.3,
    }
    page = page_of(make_run(tmp_path / "run", "language_model", data), out=tmp_path / "report.html")
    (image,) = page.named("img")
    assert image["src"].startswith("data:image/png;base64,")
    assert image["alt"] == "16 images that the network has drawn"


def test_a_threshold_that_the_run_keeps_is_shown(tmp_path: Path, s3_environment: Server) -> None:
    write_series(tmp_path / "files" / "train")
    run = forecast(tmp_path / "files", tmp_path / "run")
    assert "Anomalies" not in page_of(run, out=tmp_path / "report.html").text
    threshold = found_by(run, tmp_path / "files" / "train").normal.threshold
    page = page_of(run, out=tmp_path / "report.html")
    shown = re.search(r"score decides about threshold .* steps error auto (\S+) [\d,]+ 3 [\d,]+ ", page.text)
    assert shown is not None
    assert float(shown[1]) == pytest.approx(threshold, rel=1e-3)
    store = Store(f"s3://{s3_environment.bucket}/{tmp_path.name}")
    for file in Path(run.path).glob("*.*"):
        store.write(file.name, file.read_bytes())
    assert shown[0] in page_of(open_run(store.address), out=tmp_path / "report.html").text


def test_a_recipe_that_detects_says_where_its_threshold_would_come_from(tmp_path: Path) -> None:
    write_series(tmp_path / "files" / "train")
    run = forecast(tmp_path / "files", tmp_path / "run")
    run.write_recipe(run.recipe.model_copy(update={"detect": Detect()}))
    page = page_of(open_run(run.path), out=tmp_path / "report.html")
    assert "Anomalies Not here: no threshold is kept with the run; rayrnn detect fits one" in page.text


def test_data_that_is_gone_is_a_sentence_in_the_page(classified: Run, tmp_path: Path) -> None:
    for file in (tmp_path / "files").iterdir():
        file.unlink()
    page = page_of(classified, out=tmp_path / "report.html")
    assert "On what is held out Not here:" in page.text
    assert "Recipe" in page.text


def test_a_run_that_held_nothing_out_and_one_without_a_model_say_so(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", lambda n, t: [*wave(n, t), "ab"[n % 2]])
    data = {"source": "csv", "path": str(files), "label_column": 2, "held_out": 0}
    run = make_run(tmp_path / "run", "classification", data)
    assert "Not here: nothing was held out (data.held_out: 0)" in page_of(run, out=tmp_path / "report.html").text
    (run.path / "model.safetensors").unlink()
    assert "Not here:" in page_of(run, out=tmp_path / "report.html").text
    assert "the run has no model yet" in page_of(run, out=tmp_path / "report.html").text


def test_metrics_of_several_runs_stand_side_by_side(classified: Run, tmp_path: Path) -> None:
    data = classified.recipe.data.model_dump(mode="json")
    other = make_run(tmp_path / "other", "classification", data, {"hidden": 4})
    page = page_of(classified, other, out=tmp_path / "report.html")
    losses = [evaluate(run).metrics["loss"] for run in (classified, other)]
    assert "on what is held out" in page.text
    for loss in losses:
        assert isinstance(loss, float)
        assert f"{loss:.3f}" in page.text
    assert "true \\ answer" not in page.text, "the figures of one task are not repeated"


def test_of_very_many_classes_the_largest_errors_and_the_hardest_classes_are_told() -> None:
    classes = [f"class{number}" for number in range(100)]
    matrix = np.diag(np.full(100, 9))
    matrix[3, 4], matrix[7, 1] = 2, 1200
    shown = Page(f"<div>{confusions(classes, matrix.tolist())}</div>")
    assert "The most frequent errors true class taken for times class7 class1 1,200 class3 class4 2" in shown.text
    assert "The 60 hardest of 100 classes" in shown.text
    assert "class precision recall F1 there are class1 0.7 % 100.0 % 1.5 % 9 class7" in shown.text
