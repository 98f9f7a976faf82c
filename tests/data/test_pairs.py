"""Pairs of a text and its answer: two columns, or the lines of two files."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from rayrnn.data.rows import Label, Needs
from rayrnn.data.sequences import gather
from rayrnn.data.sources import read
from rayrnn.errors import DataError, RayrnnError, UsageError
from rayrnn.recipe import validate_recipe
from rayrnn.recipe.text_sections import PairsData

NEEDS = Needs("transduction", Label.SEQUENCE)


def pairs(path: Path | str, **section: Any) -> list[tuple[str, str]]:
    rows = read(PairsData(path=str(path), **section), NEEDS).take_all()
    return [(row["text"], row["target"]) for row in rows]


def fault(path: Path | str, **section: Any) -> str:
    with pytest.raises(DataError) as refused:
        gather(read(PairsData(path=str(path), **section), NEEDS), NEEDS)
    return str(refused.value)


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "section"),
    [
        ("a.tsv", 'cat\t"chat"\nthe dog, too\tle chien\n', {}),
        ("a.csv", 'cat,"""chat"""\n"the dog, too",le chien\n', {}),
        (
            "a.csv",
            'n;en;fr\n1;cat;"""chat"""\n2;the dog, too;le chien\n',
            {"delimiter": ";", "input": "en", "target": "fr"},
        ),
        ("a.txt", '# comment\ncat\t"chat"\tCC-BY\r\nthe dog, too\tle chien\tCC-BY\r\n\r\n', {"skip_lines": 1}),
        ("a.tsv", "\ufeffchat\tx\tcat\n", {"input": {"place": -1}, "target": 0}),
    ],
)
def test_two_columns_are_pairs(ray_cluster: None, tmp_path: Path, name: str, content: str, section: Any) -> None:
    due = [("cat", "chat")] if "place" in str(section) else [("cat", '"chat"'), ("the dog, too", "le chien")]
    assert pairs(written(tmp_path / name, content), **section) == due


def test_lines_of_two_files_are_pairs(ray_cluster: None, tmp_path: Path) -> None:
    texts, answers = written(tmp_path / "en", "a cat\nb\n"), written(tmp_path / "fr", "un chat\nb")
    assert pairs(texts, targets=str(answers)) == [("a cat", "un chat"), ("b", "b")]


def test_lines_of_texts_whose_answers_are_in_another_file_are_whole_without_these_too(
    ray_cluster: None, tmp_path: Path
) -> None:
    texts = written(tmp_path / "new.en", 'Well, I never.\n"Yes", he said.\nx\ty\n')
    section = PairsData(path=str(tmp_path / "text.en"), targets=str(tmp_path / "text.fr"))
    rows = read(section, NEEDS, where=str(texts), labelled=False).take_all()
    assert [row["text"] for row in rows] == ["Well, I never.", '"Yes", he said.', "x\ty"]


@pytest.mark.parametrize("name", ["a.tsv.bz2", "a.TXT.zst"])
def test_packed_files_are_known_by_the_name_below(ray_cluster: None, tmp_path: Path, name: str) -> None:
    codec = {"bz2": "bz2", "zst": "zstd"}[name.rpartition(".")[2]]
    with pa.CompressedOutputStream(str(tmp_path / name), codec) as file:
        file.write(b"Hello, world\tBonjour, le monde\n")
    assert pairs(tmp_path / name) == [("Hello, world", "Bonjour, le monde")]


def test_two_files_of_unequal_length_are_told_with_both_counts(ray_cluster: None, tmp_path: Path) -> None:
    texts, answers = written(tmp_path / "en", "a\nb\nc\n"), written(tmp_path / "fr", "a\nb\n")
    said = fault(texts, targets=str(answers))
    assert f"{texts} has 3 lines and {answers} has 2 lines" in said


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a\tb\nc\t\n", "a.tsv:2: the target is empty: give one, or leave the line out"),
        ("a\tb\n\tc\n", "a.tsv:2: the text is empty"),
        ("a\tb\nc d\n", "a.tsv:2: it has 1 column and at least 2 are due, with a tabulator between them"),
        ("a\tb\nc\td\te\n", "a.tsv:2: it has 3 columns and the first line has 2, with a tabulator between them"),
        ("", "a.tsv has no pairs: it is empty"),
        (b"\xff\xfea\x00\t\x00b\x00\n\x00", "UTF-16"),
        (b"caf\xe9\tb\n", "not UTF-8"),
    ],
)
def test_what_is_no_pair_is_told_with_its_line(ray_cluster: None, tmp_path: Path, content: str, says: str) -> None:
    assert says in fault(written(tmp_path / "a.tsv", content))


def test_lines_that_are_no_pairs_are_left_out_where_the_recipe_says_so(ray_cluster: None, tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", "a\tb\nc\t\nd\te\n")
    found = gather(read(PairsData(path=str(path), on_error="skip"), NEEDS), NEEDS)
    assert len(found) == 2
    assert found.skipped == (f"{path}:2: the target is empty: give one, or leave the line out",)


def test_of_a_file_with_a_broken_quote_all_other_lines_are_read(ray_cluster: None, tmp_path: Path) -> None:
    content = 'a,b\n"He said "hi"",Il dit salut\n"c, and\nd",e\n"never closed,f\ng,h\n'
    path = written(tmp_path / "a.csv", content)
    found = gather(read(PairsData(path=str(path), on_error="skip"), NEEDS), NEEDS)
    keys = [key for block in found.blocks for key in ray.get(block)["key"].to_pylist()]
    assert [key.rsplit(":", 1)[1] for key in keys] == ["1", "3", "6"]
    assert [reason.split(":")[1:] for reason in found.skipped] == [
        ["2", " ',' expected after '\"'"],
        ["5", " a quote is opened and never closed"],
    ]
    assert "a.csv:2: ',' expected" in fault(path)


@pytest.mark.parametrize("keys", [{"input": "1"}, {"target": {"place": 2}}, {"delimiter": ";"}])
def test_columns_and_a_file_of_answers_do_not_go_together(keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"with data\.targets, whose lines are the answers, every line of data\.path"):
        PairsData(path="en", targets="fr", **keys)


def test_a_file_of_answers_to_a_run_of_two_columns_is_refused(tmp_path: Path) -> None:
    texts, answers = written(tmp_path / "a.tsv", "a\tb\n"), written(tmp_path / "fr", "b\n")
    with pytest.raises(UsageError, match=r"they come from data\.target, a column"):
        read(PairsData(path=str(texts)), NEEDS, where=str(texts), labels=str(answers))


@pytest.mark.parametrize(
    ("content", "keys", "says"),
    [
        (
            "word,sounds\ncat,K AE T\n",
            {},
            "the first line of .*a.csv, word, sounds, is read as a pair",
        ),
        (
            "1,cat,chat\n",
            {},
            "of the 3 columns of .*a.csv the first is read, '1', and the second, 'cat'",
        ),
        ("1,cat,chat\n", {"input": "1", "target": "2"}, None),
        ("word,sounds\ncat,K AE T\n", {"skip_lines": 1}, None),
        ("cat,chat\n", {}, None),
    ],
)
def test_which_columns_are_read_is_told_where_others_may_be_meant(
    ray_cluster: None, tmp_path: Path, content: str, keys: dict[str, Any], says: str | None
) -> None:
    told: list[str] = []
    data = PairsData(path=str(written(tmp_path / "a.csv", content)), **keys)
    assert read(data, NEEDS, say=told.append).count() > 0
    assert len(told) == (says is not None)
    assert says is None or re.search(says, told[0])


def test_a_column_that_is_not_there_is_told_with_those_that_are(ray_cluster: None, tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "en,fr\ncat,chat\n")
    assert "no column 'de' in" in (said := fault(path, input="en", target="de"))
    assert "en" in said
    assert "fr" in said


def test_answers_to_other_texts_are_never_taken(ray_cluster: None, tmp_path: Path) -> None:
    texts, answers = written(tmp_path / "en", "a\n"), written(tmp_path / "fr", "b\n")
    other = written(tmp_path / "other", "c\n")
    data = PairsData(path=str(texts), targets=str(answers))
    with pytest.raises(DataError, match=r"say where its own are.*--labels"):
        read(data, NEEDS, where=str(other))
    (row,) = read(data, NEEDS, where=str(other), labels=str(answers)).take_all()
    assert (row["text"], row["target"]) == ("c", "b")


def test_texts_alone_are_enough_where_no_answers_are_wanted(ray_cluster: None, tmp_path: Path) -> None:
    rows = read(PairsData(path=str(written(tmp_path / "a.tsv", "a b\nc\n"))), NEEDS, labelled=False).take_all()
    assert [row["text"] for row in rows] == ["a b", "c"]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"task": "classification"}, "data.source pairs is of texts and their answers"),
        ({"task": "transduction", "training": {"truncate": 5}}, "training.truncate must be 0"),
        ({"task": "transduction", "model": {"network": "x:Y"}}, "model.network is not for transduction"),
        ({"task": "ctc", "model": {"decoder": {"layers": 2}}}, "model.decoder is for transduction"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(RayrnnError) as refused:
        validate_recipe({"name": "x", "data": {"source": "pairs", "path": "a.tsv"}} | keys)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a,b\nHello, world,Bonjour\n", "a.csv:2: it has 3 columns and the first line has 2, .* stands in quotes"),
        ('a,b\nhello,"bonjour\nx,y\n', "a.csv:2: a quote is opened and never closed"),
        ("a\tb, c\nd\te\n", "a.csv:2: it has 1 column and .* there are tabulators in it: set data.delimiter"),
    ],
)
def test_columns_that_are_cut_at_the_wrong_place_are_told(
    ray_cluster: None, tmp_path: Path, content: str, says: str
) -> None:
    assert re.search(says, fault(written(tmp_path / "a.csv", content)))
