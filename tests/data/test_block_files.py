"""Blocks on disk: for data that is larger than the object store; gone with the last process that uses them."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rayrnn.data.block_files import BlockFiles, take_away
from rayrnn.errors import DataError


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def home(folder: Path) -> list[Path]:
    return [place for place in folder.glob("rayrnn-blocks-*/*") if place.is_dir()]


TABLE = pa.table({"key": ["a", "b"], "values": [[1.0, 2.0], [3.0]]})


def test_a_block_is_fetched_once_and_read_by_all(tmp_path: Path) -> None:
    asked: list[int] = []

    def fetch() -> pa.Table:
        asked.append(1)
        return TABLE

    one, other = BlockFiles("data"), BlockFiles("data")
    assert one.table("0", fetch) == TABLE
    assert other.table("0", fetch) == TABLE
    assert len(asked) == 1
    one.close()
    assert len(home(tmp_path)) == 1
    other.close()
    assert home(tmp_path) == []


def test_a_table_that_is_mapped_outlives_the_files(tmp_path: Path) -> None:
    files = BlockFiles("data")
    table = files.table("0", lambda: pa.table({"x": np.arange(100_000)}))
    files.close()
    assert table["x"][-1].as_py() == 99_999


def test_what_a_killed_process_left_is_taken_away_by_the_next(tmp_path: Path) -> None:
    program = f"""
        import tempfile; tempfile.tempdir = {str(tmp_path)!r}
        import pyarrow as pa
        from rayrnn.data.block_files import BlockFiles
        files = BlockFiles("left")
        files.table("0", lambda: pa.table({{"x": [1]}}))
        print("ready", flush=True)
        import time; time.sleep(600)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    held = BlockFiles("mine")
    assert {place.name for place in home(tmp_path)} == {"left", "mine"}, "who lives keeps what it has"
    process.send_signal(signal.SIGKILL)
    process.wait()
    BlockFiles("next").close()
    assert {place.name for place in home(tmp_path)} == {"mine"}
    held.close()


def test_a_write_that_fails_leaves_no_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = BlockFiles("data")
    with monkeypatch.context() as broken:
        broken.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(DataError, match=r"No space left on device; make room there .*, or set TMPDIR"):
            files.table("0", lambda: TABLE)
    assert [path.name for path in home(tmp_path)[0].iterdir() if path.suffix in (".arrow", ".unfinished")] == []
    assert files.table("0", lambda: TABLE) == TABLE
    files.close()


@pytest.mark.skipif(os.getuid() == 0, reason="the superuser may write anywhere")
def test_a_directory_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="set TMPDIR"):
        BlockFiles("data")
    tmp_path.chmod(0o700)


def as_nobody(folder: Path, rights: int) -> str:
    """What becomes of a block where the user has a number and no name, and a home of these rights."""
    program = f"""
        import os, pathlib, tempfile; tempfile.tempdir = {str(folder)!r}
        import pyarrow as pa
        from rayrnn.data.block_files import BlockFiles
        from rayrnn.errors import DataError
        os.chmod({str(folder)!r}, 0o777)
        home = pathlib.Path({str(folder)!r}) / "rayrnn-blocks-54321"
        home.mkdir()
        os.chown(home, 54321, -1)
        home.chmod({rights})
        os.setuid(54321)
        try:
            print(BlockFiles("data").table("0", lambda: pa.table({{"x": [1, 2]}})).num_rows)
        except DataError as error:
            print(error)
    """
    names = {name: value for name, value in os.environ.items() if name not in ("LOGNAME", "USER", "LNAME", "USERNAME")}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=names).stdout.strip()


@pytest.mark.skipif(os.getuid() != 0, reason="only the superuser can become a user without a name")
def test_a_user_without_a_name_has_blocks_and_is_told_where_nothing_can_be_written() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own is closed to other users
        assert as_nobody(Path(folder), 0o700) == "2"
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        said = as_nobody(Path(folder), 0o500)
        assert said.endswith(
            "rayrnn-blocks-54321 either: Permission denied; set TMPDIR to a directory that can be written"
        )


def test_a_disk_without_room_for_a_lock_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "open", full)
        with pytest.raises(DataError, match=r"No space left on device; make room there \(or inodes\), or set TMPDIR"):
            BlockFiles("data")
    files = BlockFiles("data")
    with monkeypatch.context() as broken:
        broken.setattr(os, "open", full)
        with pytest.raises(DataError, match=r"rayrnn-blocks-\d+ either: No space left on device; make room there"):
            files.table("0", lambda: TABLE)
    files.close()


def test_a_directory_of_another_kind_is_refused(tmp_path: Path) -> None:
    files = BlockFiles("data")
    (own,) = tmp_path.glob("rayrnn-blocks-*")
    files.close()
    own.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    own.symlink_to(elsewhere)
    with pytest.raises(DataError, match="is another user's"):
        BlockFiles("data")


def test_what_is_used_stays_and_what_is_left_is_taken_away(tmp_path: Path) -> None:
    files = BlockFiles("data")
    take_away("data", patience=0.2)
    assert len(home(tmp_path)) == 1
    files.close()
    assert home(tmp_path) == []
    take_away("data", patience=0.2)
