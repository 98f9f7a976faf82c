"""A DataFrame's sequences are answered, and the answers are a DataFrame again, keyed like the input."""

from pathlib import Path
from typing import Any

import pytest
from rayrnn_spark import sequences, to_spark
from rayrnn_spark.source import load, sequences_of

from rayrnn.data.sources.source import Wanted
from rayrnn.prediction.predict import predictions
from rayrnn.recipe import validate_recipe
from tests.asked import needs
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


@pytest.mark.parametrize("label", ["", ", id as kind"])
def test_a_label_that_is_missing_or_there_is_no_feature(spark: Any, label: str) -> None:
    spark.sql(f"{STEPS}".replace(" from", f"{label} from")).createOrReplaceTempView("unanswered")
    values = {
        "source": "spark",
        "format": "table",
        "table": "a",
        "key": "series",
        "order_by": "moment",
        "label": "kind",
    }
    data: Any = validate_recipe({"name": "x", "task": "classification", "data": values}).data
    wanted = Wanted(needs("classification"), labelled=False)
    rows = sequences_of(load(spark, data, "unanswered"), data, wanted).take_all()
    assert {row["key"] for row in rows} == {f"s{number}" for number in range(7)}
    assert all("label" not in row and len(row["values"][0]) == 2 for row in rows)
