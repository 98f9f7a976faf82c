"""A run of several horizons, of what is known ahead and of features of the sequence: all that uses a run knows them."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from rayrnn.errors import DataError, RayrnnError, UsageError
from rayrnn.exports.export import export
from rayrnn.exports.graph import graph_of
from rayrnn.exports.meaning import meaning_of_graph
from rayrnn.prediction.evaluate import evaluate
from rayrnn.prediction.predict import predict
from rayrnn.reporting.report import write_report
from rayrnn.runs.directory import Run
from rayrnn.runs.model import form_of, load_network, trained
from rayrnn.serving.request_rows import rows_of_csv_body
from tests.detection.series import found_by
from tests.reporting.pages import Page
from tests.untrained import make_run, outputs_of

pytestmark = pytest.mark.usefixtures("ray_cluster")
SHOPS, LENGTH, AHEAD = 4, 30, 3


def steps(shop: int, *, future: int = 0, spike: int = -1) -> Iterator[dict[str, Any]]:
    """Sales, whether a shop is open, its size and region; `future` days of which no sales are known."""
    for day in range(LENGTH + future):
        past = day < LENGTH
        sales = math.sin(shop + day / 3) + 50 * (day == spike)
        known = {"sales": sales if past else None, "open": float(day % 7 != 0)}
        yield {"shop": f"s{shop}", "day": day, **known, "size": shop + 1.0, "region": "ns"[shop % 2]}


def table(path: Path, **options: Any) -> Path:
    pq.write_table(pa.Table.from_pylist([row for shop in range(SHOPS) for row in steps(shop, **options)]), path)
    return path


@pytest.fixture(scope="module")
def run(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Untrained."""
    folder = tmp_path_factory.mktemp("forecast")
    data = {"source": "parquet", "path": str(table(folder / "past")), "key": "shop", "order_by": "day"}
    data |= {"categorical": ["region"], "forecast": ["sales"], "known_ahead": ["open"], "static": ["size", "region"]}
    data |= {"horizon": f"1..{AHEAD}", "normalize": "standardize", "held_out": 0.25}
    return make_run(folder / "run", "regression", data)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_answers_say_which_column_they_are_of_and_how_far_ahead(run: Run, suffix: str, tmp_path: Path) -> None:
    out = tmp_path / f"answers{suffix}"
    predict(run, table(tmp_path / "data", future=AHEAD), out, console=Console(quiet=True))
    names = [f"sales+{ahead}" for ahead in range(1, AHEAD + 1)]
    if suffix == ".csv":
        lines = out.read_text().splitlines()
        assert lines[0] == ",".join(["key", "step", *(f"prediction_{name}" for name in names)])
        assert len(lines) == 1 + SHOPS * LENGTH, "an answer at every step that is past, none at those to come"
        return
    rows = (
        pq.read_table(out).to_pylist() if suffix == ".parquet" else list(map(json.loads, out.read_text().splitlines()))
    )
    assert [len(row["prediction"]) for row in rows] == [LENGTH] * SHOPS
    assert list(rows[0]["prediction"][0]) == names


def test_what_is_known_of_the_future_changes_the_answers_at_the_end_alone(run: Run) -> None:
    own = [row | {"open": 0.0} if row["day"] >= LENGTH else row for row in steps(0, future=AHEAD)]
    one, other = (run.predict(pd.DataFrame(rows)) for rows in (list(steps(0, future=AHEAD)), own))
    differ = [a != b for a, b in zip(one["prediction"][0], other["prediction"][0], strict=True)]
    assert differ == [False] * (LENGTH - AHEAD) + [True] * AHEAD


def test_rows_lists_and_a_csv_say_the_same_as_the_runs_own_table(run: Run) -> None:
    frame = pd.DataFrame(list(steps(1, future=AHEAD)))
    expected = [dict(answer) for answer in run.predict(frame)["prediction"][0]]
    row = {name: frame[name][:LENGTH].tolist() for name in ("sales",)} | {"open": frame["open"].tolist()}
    (by_lists,) = run.predict([row | {"size": [2.0] * LENGTH, "region": ["s"] * LENGTH}])
    (once,) = run.predict([row | {"size": 2.0, "region": "s"}])
    assert by_lists == once
    assert once["prediction"] == [pytest.approx(answer, rel=1e-4, abs=1e-5) for answer in expected]
    (schema,) = run.predict(
        [
            {
                "values": [[a, b, 2.0] for a, b in zip(row["sales"], row["open"], strict=False)],
                "categories": [["s"]] * LENGTH,
                "future": [[b] for b in row["open"][LENGTH:]],
            }
        ]
    )
    assert schema["prediction"] == once["prediction"]
    lines = [
        ",".join("" if pd.isna(cell) else str(cell) for cell in line)
        for line in frame.drop(columns=["shop", "day"]).to_numpy()
    ]
    body = "\n".join(["sales,open,size,region", *lines]).encode()
    found = rows_of_csv_body(body, trained(run))
    assert found["future"].to_pylist() == [[[b] for b in row["open"][LENGTH:]]]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"open": [1.0] * LENGTH},
            DataError,
            r"ends at step 29, .* open \(data.known_ahead\) .* for 3 more steps; there are 0",
        ),
        ({"open": [1.0] * (LENGTH + 2)}, DataError, "there are 2: add rows to its end"),
        ({"open": [1.0] * 5}, UsageError, "open is known ahead, and has 5 steps where sales has 30"),
        ({"size": [1.0] * (LENGTH - 1) + [2.0]}, DataError, r"step 29: column 'size' \(data.static\) changes"),
        (
            {"size": [1.0]},
            UsageError,
            "every feature has a list, all of one length; sales has 30 steps, and size has 1",
        ),
        ({"open": [1.0] * (LENGTH + 2) + [None]}, DataError, "step 32: column 'open' is empty"),
    ],
)
def test_rows_that_do_not_fit_are_told_of(
    run: Run, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    row = {"sales": [1.0] * LENGTH, "open": [1.0] * (LENGTH + AHEAD), "size": 1.0, "region": "n"}
    run.predict([row])
    with pytest.raises(error, match=message):
        run.predict([row | changes])


def test_a_file_without_the_future_is_refused_to_predict_and_fine_to_measure(run: Run, tmp_path: Path) -> None:
    past = table(tmp_path / "past")
    with pytest.raises(
        DataError, match=r"sequence 's.' ends at step 29, .* \(data.known_ahead\) must be known for 3 more"
    ):
        predict(run, past, tmp_path / "out.csv", console=Console(quiet=True))
    assert not (tmp_path / "out.csv").exists()
    report = evaluate(run, path=past)
    assert (report.num_sequences, report.steps) == (SHOPS, SHOPS * LENGTH)


def test_measures_are_over_all_horizons(run: Run, tmp_path: Path) -> None:
    found = evaluate(run, path=table(tmp_path / "past")).metrics["rmse"]
    scaling, outputs = run.encoding.targets.scaling, outputs_of(run)  # type: ignore[union-attr]
    errors = []
    for shop in range(SHOPS):
        answers = outputs[f"s{shop}"].double().numpy() * np.array(scaling.scale) + np.array(scaling.shift)
        sales = [row["sales"] for row in steps(shop)]
        errors += [
            answers[day, ahead - 1] - sales[day + ahead]
            for ahead in range(1, AHEAD + 1)
            for day in range(LENGTH - ahead)
        ]
    assert found == pytest.approx(float(np.sqrt(np.square(errors).mean())), rel=1e-4)


def test_anomalies_are_judged_by_the_nearest_horizon(run: Run, tmp_path: Path) -> None:
    found = found_by(run, table(tmp_path / "data", spike=20))
    assert found.num_scored == SHOPS * (LENGTH - 1)
    assert {event.start for event in found.events} >= {20}


def test_such_a_run_cannot_be_followed_step_by_step(run: Run) -> None:
    with pytest.raises(UsageError, match=r"reads what is known of the steps to come \(data.known_ahead\)"):
        run.step(None, {"sales": 1.0, "open": 1.0, "size": 1.0, "region": "n"})


def test_several_horizons_can_be_followed_step_by_step(tmp_path: Path) -> None:
    data = {"source": "parquet", "path": str(table(tmp_path / "past")), "key": "shop", "order_by": "day"}
    run = make_run(tmp_path / "run", "regression", data | {"features": ["sales"], "horizon": [1, 5]})
    state, answers = None, []
    for row in steps(0):
        answer, state = run.step(state, {"sales": row["sales"]})
        answers.append(answer["prediction"])
    (whole,) = run.predict([{"sales": [row["sales"] for row in steps(0)]}])
    assert answers == [pytest.approx(step, rel=1e-4, abs=1e-5) for step in whole["prediction"]]


def test_a_report_shows_the_answers_of_each_horizon(run: Run, tmp_path: Path) -> None:
    write_report([run], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text())
    assert "Answer against truth: sales+1" in page.text
    assert "Answer against truth: sales+3" in page.text


def test_an_exported_file_says_what_is_read_of_the_steps_to_come(run: Run) -> None:
    network = load_network(run)
    meaning = meaning_of_graph(run.recipe, run.encoding, graph_of(network, form_of(run.encoding)))
    later = [column for column in meaning["inputs"][0]["columns"] if "steps_ahead" in column]
    assert [(column["feature"], column["steps_ahead"]) for column in later] == [("open", 1), ("open", 2), ("open", 3)]
    assert meaning["outputs"][0]["steps_ahead"] == [1, 2, 3]


@pytest.mark.parametrize("loss", ["squared", "quantile", "student_t"])
def test_a_residual_forecast_is_what_is_now_and_a_change(loss: str, tmp_path: Path) -> None:
    """The same weights answer by so much more as the number is now; of a distribution its mean moves alone."""
    data = {"source": "parquet", "path": str(table(tmp_path / "past")), "key": "shop", "order_by": "day"}
    data |= {"categorical": ["region"], "forecast": ["sales"], "known_ahead": ["open"], "static": ["size", "region"]}
    data |= {"horizon": [1, 3], "normalize": "standardize"}
    plain, moved = (
        make_run(tmp_path / f"run-{residual}", "regression", data, {"residual": residual}, loss=loss)
        for residual in (False, True)
    )
    assert "residual:" not in (plain.path / "recipe.yaml").read_text()
    now = (np.array([row["sales"] for row in steps(2)]) - np.array(plain.encoding.inputs.scaling.shift[0])) / np.array(  # type: ignore[union-attr]
        plain.encoding.inputs.scaling.scale[0]  # type: ignore[union-attr]
    )
    change = (outputs_of(moved)["s2"] - outputs_of(plain)["s2"]).reshape(LENGTH, 2, -1).numpy()
    moves = {"squared": 1, "quantile": 3, "student_t": 1}[loss]
    np.testing.assert_allclose(change[..., :moves], np.broadcast_to(now[:, None, None], (LENGTH, 2, moves)), atol=1e-5)
    assert not change[..., moves:].any()
    for file in ("model.onnx", "model.pt2"):
        assert export(moved, str(tmp_path / file), check=True).parity is not None
    with pytest.raises(RayrnnError, match=r"model\.residual"):
        export(moved, str(tmp_path / "weights.safetensors"))


def test_a_residual_forecast_is_followed_step_by_step(tmp_path: Path) -> None:
    data = {"source": "parquet", "path": str(table(tmp_path / "past")), "key": "shop", "order_by": "day"}
    run = make_run(
        tmp_path / "run", "regression", data | {"features": ["sales"], "horizon": [1, 5]}, {"residual": True}
    )
    predict(run, str(tmp_path / "past"), tmp_path / "answers.jsonl", console=Console(quiet=True))
    whole = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    state, own = None, next(row for row in whole if row["key"] == "s1")["prediction"]
    for day, row in enumerate(steps(1)):
        answer, state = run.step(state, {"sales": row["sales"]})
        found = answer["prediction"]
        assert list(found.values()) == pytest.approx(list(own[day].values()), abs=1e-5)
    with pytest.raises(RayrnnError, match=r"model\.residual"):
        export(run, str(tmp_path / "model.zip"))
