"""Files that come are answered one after another, each once, and every sequence goes on from file to file."""

import shutil
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from rayrnn.errors import DataError, RunError, UsageError
from rayrnn.prediction.predict import predict
from rayrnn.runs.directory import Run
from rayrnn.runs.layout import MODEL
from rayrnn.streaming.arrivals import Arrivals
from rayrnn.streaming.following import follow
from tests.s3_store import ENVIRONMENT, Store
from tests.streaming.streams import (
    POLL,
    SENSORS,
    answers_by_key,
    contents,
    followed,
    of,
    rows_in,
    sensor_run,
    steps_of,
    write,
    write_minutes,
)
from tests.untrained import make_run, wave, write_files

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def sensors(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Run:
    return sensor_run(tmp_path_factory.mktemp("sensors"))


def whole(run: Run, sensor: str, minutes: int, tmp_path: Path) -> list[float]:
    """What `rayrnn predict` says of all steps of a sensor together."""
    write(tmp_path / f"whole-{sensor}.parquet", of(steps_of(range(minutes)), sensor))
    out = tmp_path / f"whole-{sensor}-answers.parquet"
    predict(run, tmp_path / f"whole-{sensor}.parquet", out, console=Console(quiet=True))
    (answers,) = pq.read_table(out)["prediction"].to_pylist()
    return list(answers)


@pytest.mark.parametrize("cell", ["gru", "lstm", "graves_lstm"])
def test_answers_to_pieces_are_those_to_the_whole(tmp_path: Path, cell: str) -> None:
    run = sensor_run(tmp_path, cell=cell)
    told = followed(run, write_minutes(tmp_path / "in", 4), tmp_path / "out")
    assert [(file.name, file.num_sequences, file.num_steps) for file in told] == [
        (f"0{minute}.parquet", 3, 12) for minute in range(4)
    ]
    found, steps = answers_by_key(tmp_path / "out"), answers_by_key(tmp_path / "out", "step")
    for sensor in SENSORS:
        assert found[sensor] == pytest.approx(whole(run, sensor, 4, tmp_path), abs=1e-5)
        assert steps[sensor] == list(range(16))


def test_a_following_that_begins_again_after_each_file_answers_as_one_that_never_ends(
    sensors: Run, tmp_path: Path
) -> None:
    followed(sensors, write_minutes(tmp_path / "all", 3), tmp_path / "one")
    for minute in range(3):
        write(tmp_path / "in" / f"0{minute}.parquet", steps_of([minute]))
        (told,) = followed(sensors, tmp_path / "in", tmp_path / "many")
        assert told.name == f"0{minute}.parquet"
    assert followed(sensors, tmp_path / "in", tmp_path / "many") == []
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert len(contents(tmp_path / "one")) == 3


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_files_of_every_format_are_answered_alike_in_their_own(sensors: Run, tmp_path: Path, suffix: str) -> None:
    followed(sensors, write_minutes(tmp_path / "parquet", 2), tmp_path / "one")
    followed(sensors, write_minutes(tmp_path / "in", 2, suffix), tmp_path / "other")
    assert list(contents(tmp_path / "other")) == [f"00{suffix}", f"01{suffix}"]
    one, other = answers_by_key(tmp_path / "one"), answers_by_key(tmp_path / "other")
    assert set(other) == set(SENSORS)
    for sensor in SENSORS:
        assert other[sensor] == pytest.approx(one[sensor], abs=1e-6)
    assert answers_by_key(tmp_path / "other", "step") == answers_by_key(tmp_path / "one", "step")


def test_the_format_of_answers_can_be_chosen(sensors: Run, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.csv", steps_of([0]))
    write(tmp_path / "in" / "b.jsonl", steps_of([1]))
    followed(sensors, tmp_path / "in", tmp_path / "out", format="jsonl")
    assert sorted(contents(tmp_path / "out")) == ["a.csv.jsonl", "b.jsonl"]
    assert {key: len(steps) for key, steps in answers_by_key(tmp_path / "out").items()} == dict.fromkeys(SENSORS, 8)


def test_sequences_of_other_lengths_and_new_ones_go_on_by_themselves(sensors: Run, tmp_path: Path) -> None:
    table = steps_of(range(3))
    north, south = of(table, "north"), of(table, "south")
    write(tmp_path / "in" / "1.parquet", north.slice(0, 5))
    write(tmp_path / "in" / "2.parquet", pa.concat_tables([south.slice(0, 7), north.slice(5, 1)]))
    write(tmp_path / "in" / "3.parquet", pa.concat_tables([north.slice(6), of(table, "007"), south.slice(7)]))
    followed(sensors, tmp_path / "in", tmp_path / "out")
    found = answers_by_key(tmp_path / "out")
    for sensor in SENSORS:
        assert found[sensor] == pytest.approx(whole(sensors, sensor, 3, tmp_path), abs=1e-5)


def test_columns_of_lists_go_on_too(tmp_path: Path) -> None:
    def listed(minutes: range, sensors: list[str]) -> pa.Table:
        table = steps_of(minutes, sensors=sensors)
        pairs = [[heat, -heat] for heat in table["heat"].to_pylist()]
        return table.drop_columns(["mode"]).set_column(2, "heat", pa.array(pairs))

    write(tmp_path / "learned" / "all.parquet", listed(range(3), [f"s{number}" for number in range(12)]))
    run = sensor_run(tmp_path, categorical=[])
    for minute in range(2):
        write(tmp_path / "in" / f"{minute}.parquet", listed(range(minute, minute + 1), ["north"]))
    assert [file.notes for file in followed(run, tmp_path / "in", tmp_path / "out")] == [(), ()]
    assert answers_by_key(tmp_path / "out", "step") == {"north": list(range(8))}


def test_a_csv_goes_on_where_the_file_of_its_name_ended(tmp_path: Path) -> None:
    waves = write_files(tmp_path / "waves", lambda number, step: [*wave(number, step), number % 3])
    run = make_run(tmp_path / "run", "tagging", {"source": "csv", "path": str(waves), "label_column": 2})
    lines = (waves / "11.csv").read_text().splitlines(keepends=True)
    for number, part in enumerate((lines[:2], lines[2:3], lines[3:])):
        folder = tmp_path / "in" / f"2030-01-0{number + 1}"
        folder.mkdir(parents=True)
        (folder / "11.csv").write_text("".join(part))
        (folder / "12.csv").write_text("".join(lines[:1]))
    followed(run, tmp_path / "in", tmp_path / "out", format="jsonl")
    predict(run, waves / "11.csv", tmp_path / "whole.jsonl", console=Console(quiet=True))
    (answer,) = rows_in_file(tmp_path / "whole.jsonl")
    assert answers_by_key(tmp_path / "out", "label")["11.csv"] == answer["label"]
    found = answers_by_key(tmp_path / "out", "probabilities")["11.csv"]
    for one, other in zip(found, answer["probabilities"], strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert (tmp_path / "out" / "2030-01-02" / "11.csv.jsonl").exists()


def rows_in_file(path: Path) -> list[dict[str, Any]]:
    (path.parent / "only").mkdir()
    path.rename(path.parent / "only" / path.name)
    return rows_in(path.parent / "only")


def test_a_class_of_a_sequence_is_told_as_if_it_ended_with_the_file(tmp_path: Path) -> None:
    waves = write_files(tmp_path / "waves", lambda number, step: [*wave(number, step), number % 3])
    data = {"source": "csv", "path": str(waves), "label_column": 2}
    run = make_run(tmp_path / "run", "classification", data, {"pooling": "last"})
    lines = (waves / "11.csv").read_text().splitlines(keepends=True)
    for number, end in enumerate((4, len(lines))):
        (tmp_path / "in" / str(number)).mkdir(parents=True)
        (tmp_path / "in" / str(number) / "11.csv").write_text("".join(lines[4 * number : end]))
    followed(run, tmp_path / "in", tmp_path / "out", format="jsonl")
    first, last = rows_in(tmp_path / "out")
    predict(run, waves / "11.csv", tmp_path / "whole.jsonl", console=Console(quiet=True))
    (answer,) = rows_in_file(tmp_path / "whole.jsonl")
    assert (first["step"], last["step"]) == (3, len(lines) - 1)
    assert last["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-5)
    assert first["probabilities"] != pytest.approx(answer["probabilities"], abs=1e-5)


def test_a_network_that_reads_whole_sequences_answers_each_file_by_itself(tmp_path: Path) -> None:
    waves = write_files(tmp_path / "waves", lambda number, step: [*wave(number, step), number % 3])
    data = {"source": "csv", "path": str(waves), "label_column": 2}
    run = make_run(tmp_path / "run", "classification", data, {"bidirectional": "concat", "pooling": "mean"})
    for number in range(2):
        (tmp_path / "in" / str(number)).mkdir(parents=True)
        (tmp_path / "in" / str(number) / "11.csv").write_bytes((waves / "11.csv").read_bytes())
    said: list[str] = []
    followed(run, tmp_path / "in", tmp_path / "out", format="jsonl", say=said.append)
    assert said == [
        "each file is answered by itself: there is one answer a sequence, pooled from all of its steps "
        "(model.pooling: mean)"
    ]
    one, other = rows_in(tmp_path / "out")
    predict(run, waves / "11.csv", tmp_path / "whole.jsonl", console=Console(quiet=True))
    assert one == other == rows_in_file(tmp_path / "whole.jsonl")[0]


def test_files_of_a_store_are_answered_as_local_ones_are(
    sensors: Run, s3_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (ENVIRONMENT | {"AWS_ENDPOINT_URL": s3_store.endpoint}).items():
        monkeypatch.setenv(name, value)
    place = f"s3://{s3_store.bucket}/minutes"
    assert followed(sensors, place, tmp_path / "out") == []
    s3_store.upload(write_minutes(tmp_path / "in", 2), "minutes")
    assert [file.name for file in followed(sensors, place, tmp_path / "out")] == ["00.parquet", "01.parquet"]
    assert followed(sensors, place, tmp_path / "out") == []
    followed(sensors, tmp_path / "in", tmp_path / "local")
    assert contents(tmp_path / "out") == contents(tmp_path / "local")


def test_files_that_come_while_it_waits_are_answered_until_it_is_stopped(sensors: Run, tmp_path: Path) -> None:
    stop = threading.Event()
    write(tmp_path / "in" / "00.parquet", steps_of([0]))
    files = follow(sensors, tmp_path / "in", tmp_path / "out", poll=POLL, stop=stop)
    assert next(files).name == "00.parquet"
    write(tmp_path / "in" / "01.parquet", steps_of([1]))
    write(tmp_path / "in" / "02.parquet", steps_of([2]))
    assert next(files).name == "01.parquet"
    stop.set()
    assert list(files) == []
    assert list(contents(tmp_path / "out")) == ["00.parquet", "01.parquet"]
    assert [file.name for file in followed(sensors, tmp_path / "in", tmp_path / "out")] == ["02.parquet"]


def test_only_a_file_that_has_not_changed_between_two_looks_is_taken(tmp_path: Path) -> None:
    for name in (".hidden.csv", "_SUCCESS", "a.csv.tmp", "b.parquet.part", "c.csv~", "whole.csv", "growing.csv"):
        (tmp_path / name).write_text("1\n")
    (tmp_path / "_temporary").mkdir()
    (tmp_path / "_temporary" / "d.csv").write_text("1\n")
    arrivals = Arrivals(str(tmp_path))
    assert arrivals.look() == []
    with (tmp_path / "growing.csv").open("a") as file:
        file.write("2\n")
    assert [arrival.name for arrival in arrivals.look()] == ["whole.csv"]
    assert [arrival.name for arrival in arrivals.look()] == ["growing.csv", "whole.csv"]


def test_links_are_followed_but_not_without_end_and_names_are_text(tmp_path: Path) -> None:
    (tmp_path / "in" / "below").mkdir(parents=True)
    (tmp_path / "in" / "below" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone.csv").symlink_to("nowhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    for place in ("in/below/a.csv", "elsewhere/b.csv", "in/\udcff.csv"):
        (tmp_path / place).write_text("1\n")
    said: list[str] = []
    arrivals = Arrivals(str(tmp_path / "in"), say=said.append)
    arrivals.look()
    assert [arrival.name for arrival in arrivals.look()] == ["below/a.csv", "link/b.csv"]
    assert said == [f"'{tmp_path}/in/\\udcff.csv' is left out: its name is no text: rename it"]


def test_a_file_that_is_still_written_is_left_for_the_next_time(
    sensors: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_minutes(tmp_path / "in", 2)
    look, said = Arrivals.look, list[str]()

    def look_and_write(self: Arrivals) -> Any:
        found = look(self)
        with (tmp_path / "in" / "01.parquet").open("ab") as file:
            file.write(b"more")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Arrivals, "look", look_and_write)
        told = followed(sensors, tmp_path / "in", tmp_path / "out", say=said.append)
    assert [file.name for file in told] == ["00.parquet"]
    assert said == [f"{tmp_path}/in/01.parquet is still being written: it is left for the next time"]
    (told_next,) = followed(sensors, tmp_path / "in", tmp_path / "out")
    assert (told_next.path, told_next.name) == (None, "01.parquet")


def test_a_late_file_is_answered_when_it_comes_and_told(sensors: Run, tmp_path: Path) -> None:
    write(tmp_path / "in" / "05.parquet", steps_of([5]))
    (first,) = followed(sensors, tmp_path / "in", tmp_path / "out")
    write(tmp_path / "in" / "04.parquet", steps_of([4]))
    (late,) = followed(sensors, tmp_path / "in", tmp_path / "out")
    assert first.notes == ()
    assert late.path is not None
    assert late.notes == (
        "it comes late: 05.parquet was answered before",
        "steps of '007' and of 2 more sequences do not come after those answered before: 16 after 23; they were read "
        "as they came",
    )
    write(tmp_path / "in" / "06.parquet", steps_of([6]))
    (after,) = followed(sensors, tmp_path / "in", tmp_path / "out")
    assert after.notes == ()


@pytest.mark.parametrize("kind", [pa.string(), pa.float64(), pa.timestamp("s"), pa.timestamp("ms", "UTC"), pa.date32()])
def test_places_in_the_order_of_every_type_are_compared_over_files(tmp_path: Path, kind: pa.DataType) -> None:
    def typed(minutes: list[int]) -> pa.Table:
        table = steps_of(minutes, each=2)
        times = table["time"].combine_chunks()
        if pa.types.is_string(kind):
            cells = pa.array([f"2030-01-01T00:{time:02d}:00" for time in times.to_pylist()])
        elif pa.types.is_date(kind):
            cells = times.cast(pa.int32()).cast(kind)
        else:
            cells = times.cast(kind)
        return table.set_column(1, "time", cells)

    write(tmp_path / "learned" / "all.parquet", typed([0, 1, 2, 3]))
    run = sensor_run(tmp_path, held_out=0.4)
    for name, minute in (("1", 4), ("2", 5), ("3", 5)):
        write(tmp_path / "in" / f"{name}.parquet", typed([minute]))
    one, other, again = followed(run, tmp_path / "in", tmp_path / "out")
    assert (one.notes, other.notes) == ((), ())
    (note,) = again.notes
    assert " and of 2 more sequences do not come after those answered before: " in note


def test_a_file_that_changed_after_it_was_answered_is_told_and_not_answered_again(sensors: Run, tmp_path: Path) -> None:
    write_minutes(tmp_path / "in", 1)
    followed(sensors, tmp_path / "in", tmp_path / "out")
    before = contents(tmp_path / "out")
    write(tmp_path / "in" / "00.parquet", steps_of([7], each=9))
    said: list[str] = []
    assert followed(sensors, tmp_path / "in", tmp_path / "out", say=said.append) == []
    assert said == [f"{tmp_path}/in/00.parquet has changed since it was answered: it is not answered again"]
    assert contents(tmp_path / "out") == before


def test_a_file_that_cannot_be_read_is_told_once_the_others_go_on_and_its_repair_is_answered(
    sensors: Run, tmp_path: Path
) -> None:
    write_minutes(tmp_path / "in", 3)
    (tmp_path / "in" / "01.parquet").write_bytes(b"no table")
    told = followed(sensors, tmp_path / "in", tmp_path / "out")
    assert [file.path is None for file in told] == [False, True, False]
    assert told[1].notes[0].startswith("it cannot be read as Parquet: ")
    assert followed(sensors, tmp_path / "in", tmp_path / "out") == []
    write(tmp_path / "in" / "01.parquet", steps_of([1]))
    (repaired,) = followed(sensors, tmp_path / "in", tmp_path / "out")
    assert repaired.path == tmp_path / "out" / "01.parquet"


def test_with_on_error_stop_a_file_that_cannot_be_read_ends_it_each_time(sensors: Run, tmp_path: Path) -> None:
    write_minutes(tmp_path / "in", 3)
    (tmp_path / "in" / "01.parquet").write_bytes(b"no table")
    for _ in range(2):
        with pytest.raises(DataError, match=r"in/01\.parquet: it cannot be read as Parquet"):
            followed(sensors, tmp_path / "in", tmp_path / "out", on_error="stop")
    assert list(contents(tmp_path / "out")) == ["00.parquet"]


def test_states_of_another_model_are_never_gone_on_from_unless_they_are_forgotten(tmp_path: Path) -> None:
    run = sensor_run(tmp_path)
    write(tmp_path / "in" / "00.parquet", steps_of([0]))
    followed(run, tmp_path / "in", tmp_path / "out")
    torch.manual_seed(5)
    run.write_model({name: torch.randn_like(tensor) for name, tensor in weights_of(run).items()})
    write(tmp_path / "in" / "01.parquet", steps_of([1]))
    with pytest.raises(UsageError, match=r"followed with another model.*--forget every sequence begins anew"):
        followed(run, tmp_path / "in", tmp_path / "out")
    before = contents(tmp_path / "out")
    (told,) = followed(run, tmp_path / "in", tmp_path / "out", forget=True)
    assert told.name == "01.parquet"
    assert contents(tmp_path / "out").items() > before.items()
    assert pq.read_table(tmp_path / "out" / "01.parquet")["step"].to_pylist() == [[0, 1, 2, 3]] * 3
    said: list[str] = []
    assert followed(run, tmp_path / "in", tmp_path / "out", forget=True, say=said.append) == []
    assert said == [f"nothing is forgotten: what is carried on in {tmp_path}/out is of the model that the run has"]


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.path / MODEL)


def test_a_newer_model_is_told_and_the_one_before_answers_to_the_end(tmp_path: Path) -> None:
    run, said = sensor_run(tmp_path), list[str]()
    write_minutes(tmp_path / "all", 2)
    followed(run, tmp_path / "all", tmp_path / "due")
    write(tmp_path / "in" / "00.parquet", steps_of([0]))
    files = follow(run, tmp_path / "in", tmp_path / "out", poll=POLL, say=said.append)
    next(files)
    run.write_model({name: tensor + 1 for name, tensor in weights_of(run).items()})
    write(tmp_path / "in" / "01.parquet", steps_of([1]))
    next(files)
    files.close()  # type: ignore[attr-defined]
    assert contents(tmp_path / "out") == contents(tmp_path / "due")
    assert said == [f"{run.name} has a newer model: files are answered by the one before until this is begun again"]


def test_a_second_process_is_kept_out_of_the_same_answers(sensors: Run, tmp_path: Path) -> None:
    write_minutes(tmp_path / "in", 2)
    files = follow(sensors, tmp_path / "in", tmp_path / "out", poll=POLL)
    next(files)
    with pytest.raises(UsageError, match=r"another process \(number \d+\) follows into .*/out"):
        followed(sensors, tmp_path / "in", tmp_path / "out")
    files.close()  # type: ignore[attr-defined]
    assert [file.name for file in followed(sensors, tmp_path / "in", tmp_path / "out")] == ["01.parquet"]


def test_another_directory_into_the_same_answers_is_told(sensors: Run, tmp_path: Path) -> None:
    write(tmp_path / "one" / "a.parquet", steps_of([0]))
    write(tmp_path / "two" / "b.parquet", steps_of([1]))
    said: list[str] = []
    followed(sensors, tmp_path / "one", tmp_path / "out", say=said.append)
    followed(sensors, tmp_path / "two", tmp_path / "out", say=said.append)
    assert said == [f"{tmp_path}/out has answers to files of {tmp_path}/one: their sequences go on in {tmp_path}/two"]
    assert answers_by_key(tmp_path / "out", "step")["north"] == list(range(8))


@pytest.mark.parametrize("made_again", [False, True])
def test_answers_that_are_taken_away_meanwhile_are_told(sensors: Run, tmp_path: Path, made_again: bool) -> None:
    write_minutes(tmp_path / "in", 3)
    files = follow(sensors, tmp_path / "in", tmp_path / "out", poll=POLL)
    assert next(files).name == "00.parquet"
    (tmp_path / "out").rename(tmp_path / "away")
    if made_again:
        (tmp_path / "out" / ".rayrnn-follow").mkdir(parents=True)
    with pytest.raises(RunError, match=r"/out was removed or moved away .*: put it back, or begin again"):
        next(files)
    assert list(contents(tmp_path / "away")) == ["00.parquet"]
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    (tmp_path / "away").rename(tmp_path / "out")
    assert [file.name for file in followed(sensors, tmp_path / "in", tmp_path / "out")] == ["01.parquet", "02.parquet"]


def test_a_damaged_journal_is_told(sensors: Run, tmp_path: Path) -> None:
    write_minutes(tmp_path / "in", 1)
    followed(sensors, tmp_path / "in", tmp_path / "out")
    (tmp_path / "out" / ".rayrnn-follow" / "journal.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(RunError, match=r"the journal in .*\.rayrnn-follow cannot be used: file is not a database"):
        followed(sensors, tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("kind", [pa.float64(), pa.decimal128(22, 2)])
def test_a_sequence_goes_on_whatever_type_its_key_has_in_a_file(tmp_path: Path, kind: pa.DataType) -> None:
    run = sensor_run(tmp_path)
    for minute in range(2):
        table = steps_of([minute])
        keys = pa.array([10**12 + SENSORS.index(name) for name in table["sensor"].to_pylist()])
        write(tmp_path / "in" / f"{minute}.parquet", table.set_column(0, "sensor", keys.cast(kind) if minute else keys))
    assert [file.notes for file in followed(run, tmp_path / "in", tmp_path / "out")] == [(), ()]
    steps = answers_by_key(tmp_path / "out", "step")
    assert {key: len(own) for key, own in steps.items()} == {str(10**12 + number): 8 for number in range(3)}
    assert all(own == sorted(own) for own in steps.values())
