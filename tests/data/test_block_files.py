"""Blocks on disk: for data that is larger than the object store; gone with the last process that uses them."""

import os
import signal
import subprocess
import sys
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
        with pytest.raises(DataError, match="No space left on device; make room there, or set TMPDIR"):
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
