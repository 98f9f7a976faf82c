"""A sequence that is read step by step gets the answers that it gets whole."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rayrnn.prediction.detect import detect
from rayrnn.prediction.given_rows import rows_of_given
from rayrnn.prediction.live_steps import LiveSteps, Session, Steps, first_state, why_not
from rayrnn.prediction.predict import predict
from rayrnn.runs.directory import Run
from rayrnn.runs.model import trained
from rayrnn.serving.serve import servable_of
from rayrnn.serving.session_state import restored, stored
from tests.detection.series import SPIKE, forecast, rows_of, sessions, write_series
from tests.untrained import make_run, wave, write_files

pytestmark = pytest.mark.usefixtures("ray_cluster")


class Followed:
    """A run whose sessions get steps."""

    def __init__(self, run: Run) -> None:
        self.servable = servable_of("run", run)
        self.network = self.servable.model.network()
        assert why_not(self.servable.model, self.network) is None
        self.live = LiveSteps(self.servable.model, self.network, self.servable.detector)

    def give(self, *steps: tuple[Session, dict[str, Any]]) -> list[tuple[list[dict[str, Any]], Session]]:
        """New steps of several sessions at once: their answers, and the sessions after them."""
        given = [Steps(session, rows_of_given(row, self.servable.model)) for session, row in steps]
        for one in given:
            self.live.add(one)
        while not self.live.is_idle:
            self.live.step()
        return [one.answers.result() for one in given]

    def read(self, values: list[Any], sizes: list[int], key: str = "session", name: str = "values") -> list[Any]:
        """The answers to a sequence that comes in pieces of these sizes."""
        session, told = Session(key=key), []
        start = 0
        for size in sizes:
            piece = values[start : start + size]
            ((answers, session),) = self.give((session, {name: "".join(piece) if name == "text" else piece}))
            told += answers
            start += size
        assert start == len(values)
        return told


@pytest.fixture
def waves(tmp_path: Path) -> Path:
    return write_files(tmp_path / "waves", lambda number, step: [*wave(number, step), number % 3])


def answers_of(run: Run, data: Path, tmp_path: Path) -> dict[str, dict[str, Any]]:
    out = tmp_path / "answers.jsonl"
    predict(run, data, out, console=Console(quiet=True))
    return {row["key"]: row for row in map(json.loads, out.read_text().splitlines())}


def values_of(path: Path) -> list[list[float]]:
    return [[float(cell) for cell in line.split(",")[:2]] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm", "graves_lstm"])
def test_answers_a_step_are_those_of_the_whole_sequence(waves: Path, tmp_path: Path, cell: str) -> None:
    data = {"source": "csv", "path": str(waves), "label_column": 2}
    run = make_run(tmp_path / "run", "tagging", data, {"cell": cell, "layers": 2})
    whole = answers_of(run, waves, tmp_path)["11.csv"]
    values = values_of(waves / "11.csv")
    told = Followed(run).read(values, [1, 3, len(values) - 4])
    assert [answer["label"] for answer in told] == whole["label"]
    assert [answer["step"] for answer in told] == list(range(len(values)))
    for answer, chances in zip(told, whole["probabilities"], strict=True):
        assert answer["probabilities"] == pytest.approx(chances, abs=1e-5)


@pytest.mark.parametrize("loss", ["quantile", "normal", "negative_binomial"])
def test_intervals_a_step_are_those_of_the_whole_sequence(loss: str, tmp_path: Path) -> None:
    series = write_files(tmp_path / "series", lambda number, step: [(number * step) % 6])
    section = {"source": "csv", "path": str(series), "horizon": 1, "normalize": "standardize"}
    run = make_run(tmp_path / "run", "regression", section, loss=loss)
    predict(run, series, tmp_path / "whole.jsonl", console=Console(quiet=True))
    whole = {row["key"]: row for row in map(json.loads, (tmp_path / "whole.jsonl").read_text().splitlines())}
    values = [[float(line)] for line in (series / "17.csv").read_text().split()]
    told = Followed(run).read(values, [1, len(values) - 2, 1])
    for name in ("prediction", "prediction_q0.1", "prediction_q0.5", "prediction_q0.9"):
        assert [answer[name] for answer in told] == pytest.approx(whole["17.csv"][name], rel=1e-4, abs=1e-5)


def test_a_class_of_the_whole_is_told_as_if_the_sequence_ended_here(waves: Path, tmp_path: Path) -> None:
    data = {"source": "csv", "path": str(waves), "label_column": 2}
    run = make_run(tmp_path / "run", "classification", data, {"pooling": "last"})
    values = values_of(waves / "11.csv")
    told = Followed(run).read(values, [4, len(values) - 4])
    for place in (0, 3, len(values) - 1):
        prefix = tmp_path / f"{place}.csv"
        prefix.write_text("".join(f"{a},{b},0\n" for a, b in values[: place + 1]))
        whole = answers_of(run, prefix, tmp_path / str(place))
        assert told[place]["probabilities"] == pytest.approx(whole[prefix.name]["probabilities"], abs=1e-5)


def test_many_sessions_are_answered_at_once_each_by_its_own_state(waves: Path, tmp_path: Path) -> None:
    data = {"source": "csv", "path": str(waves), "label_column": 2}
    followed = Followed(make_run(tmp_path / "run", "tagging", data))
    sequences = {name: values_of(waves / f"{name}.csv") for name in ("05", "11", "17", "23")}
    alone = {name: followed.read(values, [1] * len(values)) for name, values in sequences.items()}
    states, told = dict.fromkeys(sequences, Session()), {name: list[Any]() for name in sequences}
    for step in range(max(map(len, sequences.values()))):
        going = [name for name, values in sequences.items() if step < len(values)]
        results = followed.give(*((states[name], {"values": [sequences[name][step]]}) for name in going))
        for name, (answers, session) in zip(going, results, strict=True):
            states[name] = session
            told[name] += answers
    for name, answers in told.items():
        for one, other in zip(answers, alone[name], strict=True):
            assert one["label"] == other["label"]
            assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)


@pytest.mark.parametrize("smoothing", [0, 5])
@pytest.mark.parametrize("warmup", [0, 7])
def test_live_scores_are_those_of_detect(tmp_path: Path, smoothing: int, warmup: int) -> None:
    write_series(tmp_path / "train")
    write_series(tmp_path / "test", spikes=[SPIKE])
    settings = {"warmup": warmup, "smoothing": smoothing, "threshold": "quantile"}
    run = with_settings(forecast(tmp_path, tmp_path / "run"), settings)
    detect(run, tmp_path / "test", tmp_path / "scores.jsonl", console=Console(quiet=True))
    (row,) = (row for row in rows_of(tmp_path / "scores.jsonl") if row["key"] == "0.csv")
    lines = (tmp_path / "test" / "0.csv").read_text().splitlines()[1:]
    values = [[float(cell) for cell in line.split(",")] for line in lines]
    told = Followed(run).read(values, [1, 1, 2, 30, len(values) - 34])
    scored = [step for step, score in enumerate(row["score"]) if score is not None]
    assert [step for step, answer in enumerate(told) if "score" in answer] == scored
    live = [told[step]["score"] for step in scored]
    assert live == pytest.approx([row["score"][step] for step in scored], rel=1e-4)
    assert any(answer.get("anomaly") for answer in told[SPIKE : SPIKE + 3])


def with_settings(run: Run, settings: dict[str, Any]) -> Run:
    """The same run with a section `detect`."""
    from rayrnn.recipe import validate_recipe

    run.write_recipe(validate_recipe(run.recipe.model_dump(mode="json") | {"detect": settings}))
    return run


def test_a_language_model_tells_how_surprising_each_step_is_and_sums_it_up(tmp_path: Path) -> None:
    rows = [["open", *["read"] * (number % 3 + 1), "close"] for number in range(40)]
    path = sessions(tmp_path / "normal.parquet", rows)
    data = {"source": "parquet", "path": str(path), "key": "id", "symbols": "events", "held_out": 0.5}
    run = make_run(tmp_path / "logs", "language_model", data)
    detect(run, path, tmp_path / "scores.jsonl", console=Console(quiet=True))
    told = Followed(run).read(rows[2], [1, 2, 2], name="symbols")
    assert "surprise" not in told[0], "nothing has foretold the first"
    assert sum(told[0]["next"].values()) == pytest.approx(1, abs=1e-5)
    (whole,) = (row for row in rows_of(tmp_path / "scores.jsonl") if row["key"] == "s2")
    assert told[-1]["score"] == pytest.approx(whole["score"], rel=1e-4)
    assert told[-1]["anomaly"] == whole["anomaly"]


def test_a_session_goes_on_elsewhere_where_it_was(tmp_path: Path) -> None:
    write_series(tmp_path / "train")
    run = with_settings(forecast(tmp_path, tmp_path / "run"), {"warmup": 0})
    detect(run, tmp_path / "train", tmp_path / "scores.jsonl", console=Console(quiet=True))
    followed = Followed(run)
    first, second = [[0.1, 0.2], [0.3, 0.1], [0.2, 0.0]], [[0.5, 0.5], [0.4, 0.1]]
    ((_, session),) = followed.give((Session(key="0.csv"), {"values": first}))
    kept = json.loads(json.dumps(stored(session, "run")))
    elsewhere = Followed(run)
    state = first_state(elsewhere.servable.model, elsewhere.network)
    again = restored(kept, elsewhere.servable.model, state)
    ((here, _),), ((there, _),) = (
        followed.give((session, {"values": second})),
        elsewhere.give((again, {"values": second})),
    )
    assert here == there
    assert "score" in here[-1]


@pytest.mark.parametrize(
    ("task", "model", "reason"),
    [
        ("classification", {"pooling": "mean"}, "pooled"),
        ("tagging", {"bidirectional": "concat"}, "whole sequences"),
        ("classification", {"parallel": "conv"}, "whole sequences"),
    ],
)
def test_what_needs_the_whole_sequence_is_not_followed(
    waves: Path, tmp_path: Path, task: str, model: dict[str, Any], reason: str
) -> None:
    run = make_run(tmp_path / "run", task, {"source": "csv", "path": str(waves), "label_column": 2}, model)
    answering = trained(run)
    assert reason in str(why_not(answering, answering.network()))
