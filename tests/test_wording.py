"""Numbers, sizes and words read as people write them."""

import subprocess
from pathlib import Path

import pytest

from rayrnn.wording import command_line, counted, did_you_mean, duration, gibibytes, line_of, parse_size, path_of, size


@pytest.mark.parametrize(
    "name",
    [
        "runs/plain",
        "my run",
        "proj [v2]/r",
        "it's",
        'a "b"',
        "$HOME",
        "`id`",
        "a;b&c|d",
        "é",
        "~",
        "",
        "two\nlines",
        "\\",
    ],
)
def test_a_command_that_is_shown_can_be_pasted_into_a_shell(name: str) -> None:
    shown = command_line("printf", "%s\\0", "--out", Path(name) if name else name, 3)
    said = subprocess.run(["sh", "-c", shown], capture_output=True, check=True, text=True).stdout
    assert said.split("\0") == ["--out", name, "3", ""]


@pytest.mark.parametrize(
    ("written", "there"), [("~/r", "/home/of/me/r"), ("~", "/home/of/me"), ("a/~", "a/~"), ("r", "r")]
)
def test_a_home_directory_is_understood_where_no_shell_has_seen_it(
    monkeypatch: pytest.MonkeyPatch, written: str, there: str
) -> None:
    monkeypatch.setenv("HOME", "/home/of/me")
    assert path_of(written) == Path(there)
    assert path_of("~nobody-of-this-name/r") == Path("~nobody-of-this-name/r")


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [
        (1, "minibatch", "1 minibatch"),
        (0, "minibatch", "0 minibatches"),
        (3, "class", "3 classes"),
        (2000, "local file", "2,000 local files"),
    ],
)
def test_a_noun_goes_with_its_number(number: int, noun: str, said: str) -> None:
    assert counted(number, noun) == said


@pytest.mark.parametrize(
    ("num_bytes", "said"),
    [(0, "0 bytes"), (999, "999 bytes"), (114_000, "114 kB"), (3.64e6, "3.64 MB"), (999_700, "1 MB"), (5e12, "5.0 TB")],
)
def test_a_size_has_three_digits(num_bytes: float, said: str) -> None:
    assert size(num_bytes) == said


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("1000", 1000), ("8GB", 8 * 2**30), ("512 MiB", 2**29), ("1.5k", 1536), ("GB", None), ("much", None)],
)
def test_a_size_is_read_with_its_unit(text: str, num_bytes: int | None) -> None:
    assert parse_size(text) == num_bytes


def test_memory_is_counted_in_powers_of_1024() -> None:
    assert (gibibytes(3 * 2**29), gibibytes(3 * 2**30, 0)) == ("1.5", "3")


@pytest.mark.parametrize(
    ("seconds", "said"), [(-1, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (200_000, "2 d")]
)
def test_of_a_duration_the_largest_unit_is_said(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_the_word_that_was_meant_is_named_and_no_other() -> None:
    assert did_you_mean("lenght", ["length", "batch"]) == '; did you mean "length"?'
    assert did_you_mean("something", ["length", "batch"]) == ""


YAML = """
one: 1
two:
  list:
    - first
    - second
"""


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (["one"], 2),
        (["two", "list", 1], 6),
        (["two", "list", "0"], 5),
        (["one", "below a value"], 2),
        (["three"], None),
    ],
)
def test_a_keys_line_is_that_of_its_name_and_an_items_its_own(keys: list[str | int], line: int | None) -> None:
    assert line_of(keys, YAML) == line


def test_an_empty_text_has_no_line_for_any_key() -> None:
    assert line_of(["one"], "") is None
