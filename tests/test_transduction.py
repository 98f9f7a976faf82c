"""From pairs of texts to answers: trained by two workers, measured, predicted, asked one by one."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rayrnn.data.prepare import prepare
from rayrnn.errors import DataError
from rayrnn.prediction.ask import unknown_in
from rayrnn.prediction.evaluate import minibatches_of
from rayrnn.recipe import Recipe, validate_recipe
from rayrnn.runs.checkpoints import Tensors, read_checkpoint
from rayrnn.runs.directory import open_run
from rayrnn.runs.model import load_network, trained
from rayrnn.training.driver import train
from tests.typed import said
from tests.untrained import make_run

SPELLED = {"a": "alpha", "b": "bravo", "c": "charlie"}


def spelled(word: str) -> str:
    return " ".join(SPELLED[letter] for letter in word)


def words() -> list[str]:
    letters = "abc"
    return [one + two + three for one in letters for two in letters for three in ["", *letters]]


def recipe(folder: Path, **keys: object) -> Recipe:
    data = {"source": "pairs", "path": str(folder / "pairs.tsv"), "target_units": "words", "held_out": 0.1}
    return validate_recipe(
        {
            "name": "spell",
            "task": "transduction",
            "data": data,
            "model": {"cell": "gru", "hidden": 32, "layers": 1, "embedding": 16, "bidirectional": "concat"},
            "training": {"learning_rate": 0.02, "batch_size": 8},
            "averaging": {"frequency": 2, "rounds": 60},
        }
        | keys
    )


@pytest.fixture(scope="module")
def run(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spelled")
    lines = [f"{word}\t{spelled(word)}\n" for word in words()]
    (folder / "pairs.tsv").write_text("".join(lines))
    train(recipe(folder), out=folder / "run")
    return folder / "run"


def test_a_text_is_answered(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "generate", run, "--prime", "cab") == f"{spelled('cab')}\n"


def test_several_answers_come_best_first(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = json.loads(said(capsys, "generate", run, "--prime", "ab", "--samples", 3, "--json"))["answers"]
    assert answers[0]["text"] == spelled("ab")
    assert len({one["text"] for one in answers}) == 3
    assert [one["score"] for one in answers] == sorted((one["score"] for one in answers), reverse=True)


def test_what_chance_would_draw_is_refused_where_nothing_is_drawn(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--temperature", "--seed"):
        assert "nothing is drawn" in said(capsys, "generate", run, "--prime", "cab", option, 2, exits=2)


def test_what_was_looked_at_is_written_and_drawn(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "generate", run, "--prime", "cab", "--attention", tmp_path / "looked.json")
    looked = json.loads((tmp_path / "looked.json").read_text())
    assert looked["read"] == ["c", "a", "b"]
    assert looked["written"] == ["charlie", "alpha", "bravo", "end"]
    assert [sum(row) for row in looked["weights"]] == pytest.approx([1.0] * 4, abs=1e-4)
    said(capsys, "generate", run, "--prime", "cab", "--attention", tmp_path / "looked.svg")
    assert (tmp_path / "looked.svg").read_text().lstrip().startswith("<?xml")
    again = said(capsys, "generate", run, "--prime", "cab", "--attention", tmp_path / "looked.svg", exits=2)
    assert "is there already" in again


def test_measures_and_answers_stand_side_by_side(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads(
        said(capsys, "evaluate", run, "--data", run.parent / "pairs.tsv", "--out", tmp_path / "all.parquet", "--json")
    )
    table = pq.read_table(tmp_path / "all.parquet")
    assert table["input"].to_pylist() == words()
    assert table["truth"].to_pylist() == [spelled(word) for word in words()]
    right = [one == other for one, other in zip(table["answer"].to_pylist(), table["truth"].to_pylist(), strict=True)]
    assert report["exact_match"] == pytest.approx(sum(right) / len(right))
    assert report["exact_match"] > 0.6
    assert report["word_error_rate"] < 0.3
    assert report["chrf"] > 50


def test_texts_without_answers_are_answered_in_their_order(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new.tsv").write_text("ba\ncc\n")
    said(capsys, "predict", run, "--data", tmp_path / "new.tsv", "--out", tmp_path / "new.jsonl")
    answers = [json.loads(line) for line in (tmp_path / "new.jsonl").read_text().splitlines()]
    assert [one["answer"] for one in answers] == [spelled("ba"), spelled("cc")]
    assert all(one["score"] <= 0 for one in answers)


def test_an_unknown_symbol_is_the_unknown_one_everywhere(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "generate", run, "--prime", "a?b?").startswith("alpha")
    run_ = open_run(run)
    assert (unknown_in(run_, "a?b!?"), unknown_in(run_, "abc")) == (["?", "!"], [])
    (tmp_path / "new.tsv").write_text("ab\talpha zulu\n?\tbravo\n")
    report = json.loads(said(capsys, "evaluate", run, "--data", tmp_path / "new.tsv", "--json"))
    assert report["sequences"] == 2
    assert report["exact_match"] < 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["generate", "RUN"], "answers a text: give it one, --prime TEXT"),
        (["generate", "RUN", "--prime", ""], "the prime holds nothing to answer"),
        (["generate", "RUN", "--prime", "a", "--beam", "50"], "beam is 50; it must be at least 1, and at most 5"),
        (["generate", "RUN", "--prime", "a", "--beam", "0"], "beam is 0; it must be at least 1"),
        (["generate", "RUN", "--prime", "a", "--samples", "8"], "samples is 8; it can be at most 5 here"),
        (
            ["generate", "RUN", "--prime", "a", "--samples", "3", "--beam", "2"],
            "samples is 3 and beam 2",
        ),
        (["generate", "RUN", "--prime", "a", "--attention", "x.gif"], "its name must end in .svg, .png or .json"),
        (["generate", "RUN", "--prime", "a", "--to", "x.png"], "--to, --keep and --length are for what is drawn"),
        (["evaluate", "RUN", "--beam", "50"], "beam is 50; it must be at least 1, and at most 5"),
        (["predict", "RUN", "--data", "x.tsv", "--out", "y.csv", "--beam", "50"], "at most 5: so many symbols"),
    ],
)
def test_what_cannot_be_asked_is_told(
    run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert says in said(capsys, *(str(run) if word == "RUN" else word for word in arguments), exits=2)


@pytest.mark.parametrize("task", ["transduction", "ctc"])
def test_a_network_that_has_diverged_answers_nothing_and_that_is_said(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    (tmp_path / "pairs.tsv").write_text("".join(f"{word * 2}\t{word}\n" for word in words()))
    data = {"source": "pairs", "path": str(tmp_path / "pairs.tsv"), "held_out": 0.2}
    run = make_run(tmp_path / "run", task, data)
    run.write_model({name: value * math.nan for name, value in load_network(run).state_dict().items()})
    report = json.loads(said(capsys, "evaluate", run.path, "--json"))
    assert (report["loss"], report["exact_match"]) == (None, 0.0)
    assert "it has diverged" in said(capsys, "generate", run.path, "--prime", "ab", exits=1)


def test_targets_longer_than_their_inputs_are_measured_a_few_at_a_time(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What fits into memory is reckoned with the longer of the two."""
    (tmp_path / "pairs.tsv").write_text("".join(f"a\t{'b' * 40}\n" for _ in range(200)))
    run = make_run(tmp_path / "run", "transduction", {"source": "pairs", "path": str(tmp_path / "pairs.tsv")})
    model, most = trained(run), 50
    monkeypatch.setattr("rayrnn.runs.model.NUMBERS_AT_ONCE", most * 41 * model.width)
    sequences = prepare(run.recipe, encoding=run.encoding).training.sequences
    pieces = list(minibatches_of(model, sequences, np.arange(len(sequences))))
    assert [len(rows) for _, rows in pieces] == [most] * 4
    assert sorted(number for numbers, _ in pieces for number in numbers) == list(range(200))


def test_clips_that_are_too_short_for_what_is_said_are_left_out_where_the_recipe_says_so(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [(word * 2, word) for word in words()] + [("ab", "abcabc"), ("c", "cab")]
    (tmp_path / "pairs.tsv").write_text("".join(f"{text}\t{target}\n" for text, target in pairs))
    spoken = recipe(tmp_path, task="ctc", averaging={"frequency": 1, "rounds": 1})
    data = spoken.data.model_copy(update={"target_units": "characters"})
    with pytest.raises(DataError, match=r"'.*:37' has 2 steps to answer in and a target of 6 symbols"):
        train(spoken.model_copy(update={"data": data}), out=tmp_path / "refused")
    data = data.model_copy(update={"on_error": "skip"})
    run = train(spoken.model_copy(update={"data": data}), out=tmp_path / "run").run
    left_out = (run.path / "skipped.txt").read_text()
    assert left_out.count("steps to answer in") == 2
    report = json.loads(said(capsys, "evaluate", run.path, "--data", tmp_path / "pairs.tsv", "--json"))
    assert report["sequences"] == len(pairs)
    assert report["loss"] < 100


@pytest.mark.slow
def test_a_run_goes_on_to_the_same_bits(run: Path, tmp_path: Path) -> None:
    training = {"checkpoint_every": 2, "batch_size": 8}

    def after(rounds: int, name: str, *, resume: bool = False) -> Tensors:
        short = recipe(run.parent, training=training, averaging={"frequency": 2, "rounds": rounds})
        train(short, out=tmp_path / name, resume=resume)
        return read_checkpoint(tmp_path / name / "checkpoints" / f"round-{rounds:06d}").model

    whole = after(4, "whole")
    after(2, "parts")
    parts = after(4, "parts", resume=True)
    assert all(tensor.equal(parts[name]) for name, tensor in whole.items())
