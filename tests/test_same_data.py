"""A run goes on with the data that it began with, and is measured on what it held out, or says why not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray.data

from rayrnn.data.checksum import checksum_of
from rayrnn.errors import UsageError
from rayrnn.prediction.evaluate import evaluate
from rayrnn.recipe import Recipe, validate_recipe
from rayrnn.runs.directory import open_run
from rayrnn.runs.layout import DATA
from rayrnn.training.driver import train

ROWS: dict[str, Any] = {
    "key": pa.array(["a", "b", "c"]),
    "values": pa.array([[[1.0, 2.0]], [[3.0, 4.0], [0.0, -1.0]], [[5.0, None]]]),
    "label": pa.array(["up", None, "down"]),
    "symbols": pa.array([[1, 2], [], [3]], pa.list_(pa.int32())),
    "text": pa.array(["one", "two", "one"]),
}


def rows(**changed: pa.Array) -> pa.Table:
    return pa.table(ROWS | changed)


def test_what_rows_hold_is_the_same_in_any_order_and_however_they_are_cut() -> None:
    whole = checksum_of(rows())
    assert checksum_of(rows().take([2, 0, 1])) == whole
    assert (checksum_of(rows().slice(0, 1)) + checksum_of(rows().slice(1))) % 2**64 == whole
    chunked = pa.concat_tables([rows().slice(0, 2), rows().slice(2)])
    assert checksum_of(chunked) == whole


@pytest.mark.parametrize(
    "other",
    [
        rows(key=pa.array(["a", "b", "d"])),
        rows(values=pa.array([[[1.0, 2.0]], [[3.0, 4.0], [0.0, -1.0]], [[5.0, 0.0]]])),
        rows(values=pa.array([[[1.0, 2.0]], [[3.0, 4.0], [0.0, 1.0]], [[5.0, None]]])),
        rows(label=pa.array(["up", "up", "down"])),
        rows(label=pa.array(["up", None, "dawn"])),
        rows(symbols=pa.array([[1, 2], [3], []], pa.list_(pa.int32())).slice(0, 3).take(pa.array([0, 1, 1]))),
        rows(text=pa.array(["one", "two", "two"])),
        rows(key=ROWS["text"], text=ROWS["key"]),
        rows(values=ROWS["values"].take(pa.array([1, 0, 2]))),
        rows(values=pa.array([[[2.0, 1.0]], [[3.0, 4.0], [0.0, -1.0]], [[5.0, None]]])),
        rows(values=pa.array([[[1.0], [2.0]], [[3.0, 4.0], [0.0, -1.0]], [[5.0, None]]])),
        rows().slice(0, 2),
        rows().drop_columns(["text"]),
    ],
)
def test_other_rows_hold_something_else(other: pa.Table) -> None:
    assert checksum_of(other) != checksum_of(rows())


def series(folder: Path, count: int, scale: float = 1.0) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        lines = "".join(f"{scale * number + step},k{number % 2}\n" for step in range(3 + number % 2))
        (folder / f"s{number:02d}.csv").write_text(f"x,kind\n{lines}")


def recipe_of(folder: Path, rounds: int = 2) -> Recipe:
    return validate_recipe(
        {
            "name": "same",
            "task": "classification",
            "data": {"source": "csv", "path": str(folder), "skip_lines": 1, "label_column": "kind", "held_out": 0.25},
            "model": {"hidden": 4, "layers": 1},
            "averaging": {"workers": 1, "frequency": 1, "rounds": rounds},
        }
    )


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """A folder with the data, `files`, and the run that has learned from it, `run`."""
    folder = tmp_path_factory.mktemp("same")
    series(folder / "files", 8)
    train(recipe_of(folder / "files"), out=folder / "run")
    return folder


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a file more": (lambda files: series(files, 9), r"6 sequences and 2 held out then, 7 sequences and 2 held out now"),
    "another number": (lambda files: series(files, 8, 1.5), r"6 sequences and 2 held out, with other content"),
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(*CHANGES["a file more"], id="a file more", marks=pytest.mark.slow),
        pytest.param(*CHANGES["another number"], id="another number"),
    ],
)
def test_data_that_has_changed_is_neither_learned_on_nor_measured_as_held_out(
    learned: Path, change: Callable[[Path], None], said: str
) -> None:
    files, run = learned / "files", learned / "run"
    before = evaluate(open_run(run)).to_json()
    change(files)
    try:
        with pytest.raises(UsageError, match=rf"is not what {run} began with: {said}; go on with the data as it was"):
            train(recipe_of(files, rounds=3), out=run, resume=True)
        with pytest.raises(UsageError, match=rf"is not what {run} began with: {said}; .*--data PATH"):
            evaluate(open_run(run))
        assert evaluate(open_run(run), path=files).num_sequences >= 8
    finally:
        for file in files.iterdir():
            file.unlink()
        series(files, 8)
    assert evaluate(open_run(run)).to_json() == before
    train(recipe_of(files, rounds=2), out=run, resume=True)


def test_a_run_that_does_not_tell_its_data_goes_on(learned: Path) -> None:
    """rayrnn 0.1 did not write it down."""
    told = (learned / "run" / DATA).read_bytes()
    (learned / "run" / DATA).unlink()
    evaluate(open_run(learned / "run"))
    (learned / "run" / DATA).write_bytes(told)


def test_what_a_program_handed_over_is_not_looked_for_at_the_recipes_path(learned: Path, tmp_path: Path) -> None:
    values = [[[float(number + step)] for step in range(3)] for number in range(8)]
    table = pa.table({"key": [f"k{n}" for n in range(8)], "values": values, "label": [f"k{n % 2}" for n in range(8)]})
    run, recipe = tmp_path / "run", recipe_of(learned / "files")
    dataset = ray.data.from_arrow(table)
    summary = train(recipe, data=dataset, out=run)
    assert summary.run.stored_data is not None
    with pytest.raises(UsageError, match=r"what a program handed over, which nobody else has; .*--data PATH"):
        evaluate(open_run(run))
    with pytest.raises(UsageError, match=r"what a program handed over, .*resume=True"):
        train(recipe_of(learned / "files", rounds=3), out=run, resume=True)
    assert evaluate(open_run(run), data=dataset).num_sequences == 2, "those that were held out of it"
    longer = recipe_of(learned / "files", rounds=3)
    assert train(longer, data=ray.data.from_arrow(table), out=run, resume=True).rounds == 3
    other = table.set_column(1, "values", pa.array(np.array(values)[::-1].tolist()))
    with pytest.raises(UsageError, match=r"the dataset is not what .* began with: 6 sequences .* with other content"):
        train(longer, data=ray.data.from_arrow(other), out=run, resume=True)
