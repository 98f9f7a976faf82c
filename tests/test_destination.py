"""A written file is there whole, or not at all."""

from pathlib import Path

import pytest

from rayrnn.errors import DataError, UsageError
from rayrnn.prediction.destination import open_destination

SUFFIXES = (".csv", ".jsonl")


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    with open_destination(str(tmp_path / "a.csv"), suffixes=SUFFIXES).unfinished() as stream:
        stream.write(b"one\n")
        assert not (tmp_path / "a.csv").exists()
        stream.write(b"two\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert (tmp_path / "a.csv").read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize("ending", [DataError("the data is bad"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path: Path, ending: BaseException) -> None:
    destination = open_destination(str(tmp_path / "a.csv"), suffixes=SUFFIXES)

    def write_half() -> None:
        with destination.unfinished() as stream:
            stream.write(b"one\n")
            raise ending

    with pytest.raises(type(ending)):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_came_into_being_meanwhile_is_kept(tmp_path: Path) -> None:
    destination = open_destination(str(tmp_path / "a.csv"), suffixes=SUFFIXES)

    def write_too_late() -> None:
        with destination.unfinished() as stream:
            stream.write(b"ours")
            (tmp_path / "a.csv").write_text("theirs")

    with pytest.raises(UsageError, match="is there already"):
        write_too_late()
    assert (tmp_path / "a.csv").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_directory_of_that_name_is_not_overwritten_either(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(UsageError, match="is there already"):
        open_destination(str(tmp_path / "a.csv"), suffixes=SUFFIXES)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    destination = open_destination(str(tmp_path / "file" / "a.csv"), suffixes=SUFFIXES)
    with pytest.raises(DataError, match=r"a\.csv cannot be written"), destination.unfinished():
        pass


def test_an_unknown_file_system_is_told() -> None:
    with pytest.raises(DataError, match="ftp:// is no file system known here"):
        open_destination("ftp://host/a.csv", suffixes=SUFFIXES)
