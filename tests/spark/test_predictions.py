"""A DataFrame's sequences are answered, and the answers are a DataFrame again, keyed like the input."""

from pathlib import Path
from typing import Any

from rayrnn_spark import sequences, to_spark

from rayrnn.data.sources import section_at, unlabelled
from rayrnn.prediction.predict import predictions
from rayrnn.recipe import validate_recipe
from tests.untrained import make_run, wave, write_files

STEPS = "select 's' || (id % 7) as series, id as moment, sin(id) as x, 1D as y from range(60)"


def test_answers_are_a_frame_keyed_like_the_input(spark: Any, tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", lambda n, t: [*wave(n, t), "ab"[n % 2]])
    run = make_run(tmp_path / "run", "classification", {"source": "csv", "path": str(files), "label_column": 2})
    steps = spark.sql(STEPS)
    answers = predictions(run, sequences(steps, key="series", order_by="moment"))
    frame = to_spark(answers, spark)
    joined = (
        steps.join(frame, steps.series == frame.key).selectExpr("series", "label", "probabilities.a as a").collect()
    )
    assert len(joined) == 60
    assert {row.series for row in joined} == {f"s{number}" for number in range(7)}
    for row in joined:
        assert row.label == ("a" if row.a > 0.5 else "b")


def test_a_label_that_is_missing_or_there_is_no_feature() -> None:
    values = {"source": "spark", "format": "parquet", "path": "a", "key": "k", "order_by": "t", "label": "kind"}
    data = validate_recipe({"name": "x", "task": "classification", "data": values}).data
    section: Any = unlabelled(section_at(data, "b"), 2)
    assert (section.path, section.label, section.ignore) == ("b", None, ("kind",))
