"""Streams that nobody reads, and streams that are closed."""

import errno
import io
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

from rayrnn.streams import lasting
from rayrnn.training.screen import Screen
from tests.training.recipes import small


class Broken(io.StringIO):
    """Takes so many writes, and then fails."""

    def __init__(self, error: Exception, writes: int = 1) -> None:
        super().__init__()
        self.error = error
        self.writes = writes

    def write(self, text: str) -> int:
        if self.writes == 0:
            raise self.error
        self.writes -= 1
        return super().write(text)


@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(errno.EPIPE, "no reader"),
        OSError(errno.EIO, "the terminal is gone"),
        OSError(errno.ENOSPC, "no room"),
        ValueError("I/O operation on closed file"),
    ],
)
def test_a_screen_that_nobody_reads_any_more_ends_nothing(error: Exception) -> None:
    stream = Broken(error)
    screen = Screen(Console(file=lasting(stream), width=80), small())
    for number in range(3):
        screen.say(f"line {number}")
    screen.warn("more")
    screen.stop()
    assert stream.getvalue() == "line 0\n"


def test_a_pipe_without_a_reader_takes_what_is_said_to_it() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    taken = 0
    with suppress(BrokenPipeError), open(writer, "w") as stream:  # it has kept back what it could not write
        for line in ("nobody hears this", "nor this"):
            print(line, file=lasting(stream), flush=True)
            taken += 1
    assert taken == 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_sign_that_the_encoding_lacks_is_written_as_an_escape(encoding: str) -> None:
    content = io.BytesIO()
    said = lasting(io.TextIOWrapper(content, encoding=encoding))
    print("ok \N{SNOWMAN}", file=said, flush=True)
    assert content.getvalue() == b"ok \\u2603\n"


@pytest.mark.parametrize(
    ("encoding", "text", "as_json"),
    [
        ("latin-1", b"s\xfc\xdf \\u2603", b'"s\\u00fc\\u00df \\u2603"'),
        ("cp1252", b"s\xfc\xdf \\u2603", b'"s\\u00fc\\u00df \\u2603"'),
        ("utf-8", "s\u00fc\u00df \u2603".encode(), '"s\u00fc\u00df \u2603"'.encode()),
    ],
)
def test_what_stdout_cannot_encode_is_escaped_and_json_stays_json(encoding: str, text: bytes, as_json: bytes) -> None:
    program = (
        "from rayrnn.streams import secure_streams; secure_streams()\n"
        "from rayrnn.cli.talk import give, give_json; said = 's\\u00fc\\u00df \\u2603'; give(said); give_json(said)"
    )
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    assert ended.stdout.splitlines() == [text, as_json]


@pytest.mark.parametrize("command", ["train", "generate", "status --address"])
def test_an_argument_that_the_locale_cannot_read_is_told_with_advice(command: str) -> None:
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    arguments = [sys.executable, "-m", "rayrnn.cli", *command.split(), "gr\u00f6\u00dfe"]
    ended = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "is not in the encoding of this locale, ascii: set one that is, such as LC_ALL=C.UTF-8" in ended.stderr


#: of the commands that load torch and Ray, each with its streams closed in one way; the others with every one
CLOSED = [
    pytest.param(
        *(arguments, closed),
        marks=pytest.mark.slow if "nowhere" in arguments and closed not in arguments_closed else (),
    )
    for arguments, arguments_closed in (
        ("--version", ()),
        ("recipes", ()),
        ("generate nowhere", (">&-", "2>&-")),
        ("train nowhere.yaml", ("<&-", "<&- >&- 2>&-")),
    )
    for closed in (">&-", "2>&-", "<&-", "<&- >&- 2>&-")
]


@pytest.mark.parametrize(("arguments", "closed"), CLOSED)
def test_a_command_whose_streams_are_closed_ends_as_it_should(tmp_path: Path, arguments: str, closed: str) -> None:
    command = f"{sys.executable} -m rayrnn.cli {arguments} {closed}"
    ended = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Traceback" not in ended.stderr
    assert ended.returncode == (2 if "nowhere" in arguments else 1 if ">&-" in closed.split() else 0)
    if closed == ">&-" and "nowhere" not in arguments:
        assert "stdout is closed" in ended.stderr


@pytest.mark.parametrize("arguments", ["recipes", "train nowhere.yaml", "--help"])
def test_a_command_whose_reader_is_gone_has_nothing_to_say_about_it(tmp_path: Path, arguments: str) -> None:
    command = f"{{ sleep 0.2; {sys.executable} -m rayrnn.cli {arguments} 2>&1; echo $? >&3; }} 3>code | true"
    ended = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.stderr == ""
    assert (tmp_path / "code").read_text().strip() in ("0", "1", "2")
