"""A file is whole at every moment, whatever happens while it is written."""

import os
import threading
from pathlib import Path

import pytest

from rayrnn.cluster.environment import ensure_token
from rayrnn.durable import replace_durably, write_durably


def test_a_file_is_replaced_with_new_content(tmp_path: Path) -> None:
    replace_durably(tmp_path / "file", b"one")
    replace_durably(tmp_path / "file", b"two")
    assert (tmp_path / "file").read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["file"]


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path, contents = tmp_path / "file", [bytes([number]) * 100_000 for number in (1, 2)]
    replace_durably(path, contents[0])
    writing = threading.Thread(target=lambda: [replace_durably(path, contents[number % 2]) for number in range(50)])
    writing.start()
    while writing.is_alive():
        assert path.read_bytes() in contents
    writing.join()


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "inside").touch()
    with pytest.raises(OSError, match="file"):
        replace_durably(tmp_path / "file", b"new")
    assert os.listdir(tmp_path) == ["file"]


def test_a_secret_is_never_readable_by_others(tmp_path: Path) -> None:
    write_durably(tmp_path / "secret", b"secret", mode=0o600)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_processes_that_all_lack_a_token_agree_on_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "folder" / "token"))
    tokens: list[str] = []

    def ask() -> None:
        path = ensure_token()
        assert path is not None
        tokens.append(path.read_text(encoding="utf-8"))

    asking = [threading.Thread(target=ask) for _ in range(8)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert len(tokens) == 8
    assert len(set(tokens)) == 1
