"""Plain text becomes sequences: all of it, in order, wherever it lies; and every mistake is told."""

import itertools
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import ray.data
from hypothesis import given
from hypothesis import strategies as st

from rayrnn.data.sources import read
from rayrnn.data.sources.text import cut
from rayrnn.data.vocabulary import END
from rayrnn.errors import DataError
from rayrnn.recipe.text_sections import TextData
from tests.asked import needs
from tests.s3_store import ENVIRONMENT, Store


def rows(**section: Any) -> list[tuple[str, str]]:
    return [(row["key"], row["text"]) for row in read(TextData(**section), needs("language_model")).take_all()]


@given(text=st.text(min_size=2, max_size=200), length=st.integers(2, 50))
def test_cutting_keeps_every_step_of_a_text_once(text: str, length: int) -> None:
    pieces = [piece for _, piece in cut("text", text, length)]
    assert text[0] + "".join(piece[1:] for piece in pieces) == text
    assert all(len(piece) == length + 1 for piece in pieces[:-1])
    assert 2 <= len(pieces[-1]) <= length + 1
    assert all(one[-1] == other[0] for one, other in itertools.pairwise(pieces))


@pytest.mark.parametrize("text", ["\u5b57" * 1000, "word\n" * 200, "a b " * 250])
def test_a_text_of_pieces_is_cut_where_a_blank_is_or_at_twice_the_length(text: str) -> None:
    pieces = [piece for _, piece in cut("text", text, 30, "pieces")]
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 60
    assert len(pieces) >= len(text) // 60


def test_a_rest_of_one_symbol_is_no_sequence() -> None:
    assert list(cut("t", "abcd", 3)) == [("t:0", "abcd")]
    assert list(cut("t", "abcde", 3)) == [("t:0", "abcd"), ("t:1", "de")]
    assert list(cut("t", "a", 3)) == []


def test_length_zero_keeps_a_text_whole_and_marks_its_end() -> None:
    assert list(cut("t", "abc", 0)) == [("t:0", "abc" + END)]
    assert list(cut("t", "", 0)) == []


@pytest.mark.parametrize("text", ["a" * 100, "ä" * 25])
def test_a_sequence_that_is_too_long_for_arrow_is_refused_with_a_length_that_is_not(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr("rayrnn.data.sources.text.MOST_BYTES", 100)
    for length in (0, len(text)):
        with pytest.raises(DataError, match=rf"{len(text)} symbols in one.* set data\.length to less than {len(text)}"):
            list(cut("t", text, length))
    assert len(list(cut("t", text, len(text) - 2))) == 2


@pytest.mark.usefixtures("ray_cluster")
def test_a_text_in_the_recipe_is_cut_like_a_file() -> None:
    assert rows(text="abcdefgh", length=3) == [("text:0", "abcd"), ("text:1", "defg"), ("text:2", "gh")]


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("content", "keys", "due"),
    [
        ("a\nb\n", {}, "a\nb\n"),
        ("a\r\nb\r\n", {}, "a\nb\n"),
        ("a\rb\r", {}, "a\nb\n"),
        ("a\r\nb\rc\nd\r\r\n", {}, "a\nb\nc\nd\n\n"),
        ("a\r\nb\r", {"line_ends": "keep"}, "a\r\nb\r"),
        ("\N{BYTE ORDER MARK}a\r\nb\N{LINE SEPARATOR}", {}, "a\nb\N{LINE SEPARATOR}"),
    ],
)
def test_a_line_ends_with_one_line_feed_whatever_system_wrote_it(
    tmp_path: Path, content: str, keys: dict[str, Any], due: str
) -> None:
    (tmp_path / "a.txt").write_bytes(content.encode())
    assert rows(path=f"{tmp_path}/a.txt", length=0, **keys) == [(f"{tmp_path}/a.txt:0", due + END)]
    if not content.startswith("\N{BYTE ORDER MARK}"):
        assert rows(text=content, length=0, **keys) == [("text:0", due + END)]


@pytest.mark.usefixtures("ray_cluster")
def test_a_directory_gives_all_its_files_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "deep/er/c.md", "_part.py", ".hidden", ".git/config", "_SUCCESS"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}", encoding="utf-8")
    found = rows(path=str(tmp_path), length=0)
    names = ["_part.py", "a.txt", "b.txt", "deep/er/c.md"]
    assert found == [(f"{tmp_path}/{name}:0", f"text of {name}{END}") for name in names]


@pytest.mark.usefixtures("ray_cluster")
def test_hundreds_of_files_keep_their_order_whichever_task_reads_them(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number:03}.txt").write_text(f"{number:03}" * (1 + number % 7), encoding="utf-8")
    found = rows(path=str(tmp_path), length=4)
    assert [key for key, _ in found] == sorted((key for key, _ in found), key=lambda key: key.split(":")[0])
    texts: dict[str, str] = {}
    for key, text in found:
        name = Path(key).name.split(".")[0]
        texts[name] = texts.get(name, "") + text[len(texts.get(name, "")) > 0 :]
    assert texts == {f"{number:03}": f"{number:03}" * (1 + number % 7) for number in range(300)}


@pytest.mark.usefixtures("ray_cluster")
def test_globs_and_several_paths_are_put_together_once(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.md", "below/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    keys = [key for key, _ in rows(path=(f"{tmp_path}/*.txt", f"{tmp_path}/a.txt", f"{tmp_path}/c.md"), length=0)]
    assert keys == [f"{tmp_path}/{name}:0" for name in ("a.txt", "b.txt", "c.md")]
    keys = [key for key, _ in rows(path=f"{tmp_path}/**/*.txt", length=0)]
    assert keys == [f"{tmp_path}/{name}:0" for name in ("a.txt", "b.txt", "below/d.txt")]


@pytest.mark.usefixtures("ray_cluster")
def test_the_standard_library_is_found_by_name() -> None:
    found = rows(path="sysconfig:stdlib/json/*.py", length=1000)
    decoder = Path(sysconfig.get_path("stdlib")) / "json" / "decoder.py"
    pieces = [text for key, text in found if key.startswith(str(decoder))]
    assert pieces[0] + "".join(piece[1:] for piece in pieces[1:]) == decoder.read_text(encoding="utf-8")


@pytest.mark.usefixtures("ray_cluster")
def test_a_path_below_the_current_directory_is_named_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("poem.txt").write_text("rose", encoding="utf-8")
    assert rows(path="poem.txt", length=3) == [("poem.txt:0", "rose")]


@pytest.mark.usefixtures("ray_cluster")
def test_characters_of_many_bytes_are_one_symbol_each_and_a_byte_order_mark_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffäß🌹€x".encode())
    assert [text for _, text in rows(path=str(tmp_path / "a.txt"), length=2)] == ["äß🌹", "🌹€x"]


@pytest.mark.usefixtures("ray_cluster")
def test_one_short_or_empty_file_among_others_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0123456789", encoding="utf-8")
    (tmp_path / "b.txt").write_text("ab", encoding="utf-8")
    (tmp_path / "c.txt").write_text("", encoding="utf-8")
    assert [text for _, text in rows(path=str(tmp_path), length=8)] == ["012345678", "89", "ab"]


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("content", "length", "message"),
    [
        (b"", 10, "is empty"),
        (b"abc", 10, "has 3 symbols; one sequence with data.length 10 needs 11"),
        (b"", 0, "is empty"),
        ("grün".encode() + b" und wei\xdf", 2, "is not UTF-8: byte 13 is 0xdf"),
        (b"a", 10, "has 1 symbol; one sequence with data.length 10 needs 11: give more text"),
        ("ab".encode("utf-16"), 2, "is not UTF-8: byte 0 is 0xff; convert it (iconv -f UTF-16 -t UTF-8)"),
    ],
)
def test_a_file_that_cannot_be_learned_is_named_with_the_reason(
    tmp_path: Path, content: bytes, length: int, message: str
) -> None:
    (tmp_path / "text.txt").write_bytes(content)
    with pytest.raises(DataError) as caught:
        rows(path=str(tmp_path / "text.txt"), length=length)
    assert message in str(caught.value)
    assert f"{tmp_path}/text.txt" in str(caught.value)


@pytest.mark.usefixtures("ray_cluster")
def test_the_one_file_of_many_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}.txt").write_text("all is well " * 10, encoding="utf-8")
    (tmp_path / "13.txt").write_bytes(b"12345\xff")
    with pytest.raises(DataError, match=r"13\.txt is not UTF-8: byte 5 is 0xff"):
        rows(path=str(tmp_path), length=10)


@pytest.mark.usefixtures("ray_cluster")
def test_a_missing_file_is_told_with_where_it_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "shakespeare.txt").write_text("to be", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        rows(path=f"{tmp_path}/shakespear.txt")
    assert f"there is no {tmp_path}/shakespear.txt" in str(caught.value)
    assert f"looked from the directory {Path.cwd()}" in str(caught.value)
    assert f'did you mean "{tmp_path}/shakespeare.txt"?' in str(caught.value)


@pytest.mark.usefixtures("ray_cluster")
def test_nothing_to_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"the directory {tmp_path} holds no files"):
        rows(path=str(tmp_path))
    with pytest.raises(DataError, match=r"no file matches .*\*\.txt"):
        rows(path=f"{tmp_path}/*.txt")
    with pytest.raises(DataError, match="has no 'nowhere'"):
        rows(path=f"{tmp_path}/nowhere/*.txt")


@pytest.mark.usefixtures("ray_cluster")
def test_reading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("abc" * 100, encoding="utf-8")
    dataset = read(TextData(path=str(tmp_path), length=10), needs("language_model"))
    assert isinstance(dataset, ray.data.Dataset)
    assert dataset.map_batches(lambda batch: batch).count() == 30
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("ray_cluster")
def test_text_in_a_bucket_is_found_and_read_as_local_text_is(
    s3_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for name in ("a.txt", "b.txt", "below/c.txt", "d.md", "_SUCCESS"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}", encoding="utf-8")
    s3_store.upload(tmp_path, "texts")
    place = f"s3://{s3_store.bucket}/texts"
    for pattern, names in {
        "": ["a.txt", "b.txt", "below/c.txt", "d.md"],
        "/": ["a.txt", "b.txt", "below/c.txt", "d.md"],
        "/*.txt": ["a.txt", "b.txt"],
        "/**/*.txt": ["a.txt", "b.txt", "below/c.txt"],
        "/*/c.txt": ["below/c.txt"],
    }.items():
        found = rows(path=place + pattern, length=0, endpoint=s3_store.endpoint)
        assert found == [(f"{place}/{name}:0", f"text of {name}{END}") for name in names]
    for address, message in {
        f"{place}/e.txt": "did you mean",
        f"{place}/*.csv": "no file matches",
        f"{place}s/*.txt": "there is no",
        "s3://nowhere/a.txt": "there is no s3://nowhere/a.txt",
    }.items():
        with pytest.raises(DataError, match=message):
            rows(path=address, endpoint=s3_store.endpoint)
