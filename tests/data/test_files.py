"""Files are found as a shell finds them, and shared out to tasks by their bytes."""

import glob
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import fs

from rayrnn.data.files import Listing, list_files, open_file_system, read_bytes
from rayrnn.data.sources.csv_labels import find_labels
from rayrnn.data.sources.source import Wanted
from rayrnn.errors import DataError
from rayrnn.recipe.data_sections import CsvData
from tests.asked import needs

NAMES = ("a.csv", "b.csv", "ab.csv", "b.txt", "x/a.csv", "x/y/a.csv", "x[1].csv", "1/part-0.csv", "2/part-0.csv")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "pattern",
    ["*.csv", "?.csv", "[ab].csv", "[!a].csv", "*", "**/*.csv", "x/**", "*/a.csv", "*/*/a.csv", "[12]/*", "x[[]1].csv"],
)
def test_a_pattern_finds_what_python_finds(directory: Path, pattern: str) -> None:
    expected = sorted(path for path in glob.glob(f"{directory}/{pattern}", recursive=True) if Path(path).is_file())
    assert list(list_files(f"{directory}/{pattern}").paths) == expected


#: what directories are called that a pattern would read otherwise
AWKWARD = ("proj [v2]", "[ab]", "a[", "]b[", "[!a]", "a*b", "what?", "**", "~x", "tab\there", "'quoted\" $HOME")


@pytest.mark.parametrize("name", AWKWARD)
def test_a_directory_may_be_called_anything_where_it_lies_above_or_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    files = tmp_path / name / name
    files.mkdir(parents=True)
    # what the names would match as patterns
    for other in ("proj v/a.csv", "a/a.csv", "ab/a.csv", "acb/a.csv", "whats/a.csv", "b/b/a.csv"):
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / other).write_text("wrong")
    for file in ("a.csv", "b.csv", "c.txt"):
        (files / file).write_text(file)
    both = (f"{files}/a.csv", f"{files}/b.csv")
    monkeypatch.chdir(files)
    assert list_files("*.csv").paths == list_files("[ab].csv").paths == list_files("./?.csv").paths == both
    assert list_files("a.csv").paths == both[:1]
    assert list_files(".").paths == (*both, f"{files}/c.txt")
    (tmp_path / "work").mkdir()
    for here, where in ((files, str(files)), (tmp_path, f"./{name}/{name}"), (tmp_path / "work", f"../{name}/{name}")):
        monkeypatch.chdir(here)
        for found in (list_files(f"{where}/*.csv"), list_files((f"{where}/a.csv", f"{where}/b.csv"))):
            assert [Path(path).resolve() for path in found.paths] == [Path(path) for path in both]
        assert len(list_files(where)) == 3
    assert list_files(f"file://{files}/*.csv").paths == both


@pytest.mark.parametrize("name", AWKWARD)
def test_one_file_of_labels_is_found_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "labels.csv").write_text("a.csv,up\n")
    monkeypatch.chdir(folder)
    for labels, in_one_file in (("labels.csv", True), (f"{folder}/labels.csv", True), ("label*.csv", False)):
        data = CsvData(path=str(folder), labels=labels)
        found = find_labels(data, Wanted(needs("classification")), list_files(data.path))
        assert found is not None
        assert found.in_one_file == in_one_file


def test_what_is_there_as_it_is_written_is_no_pattern(directory: Path) -> None:
    (directory / "x1.csv").write_text("another")
    assert list_files(f"{directory}/x[1].csv").paths == (f"{directory}/x[1].csv",)
    assert list_files(f"{directory}/x[0-9].csv").paths == (f"{directory}/x1.csv",)


def test_a_pattern_that_matches_nothing_is_told_with_the_directory_it_was_looked_for_in(directory: Path) -> None:
    with pytest.raises(DataError, match=r"no file matches .*\*\.pdf; 9 files lie in"):
        list_files(f"{directory}/**/*.pdf")
    with pytest.raises(DataError, match=r"there is no .*nowhere"):
        list_files(f"{directory}/nowhere/*.csv")


def test_a_home_of_nobody_is_a_name_like_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"there is no ~nobody-of-this-name/a\.csv"):
        list_files("~nobody-of-this-name/a.csv")
    (tmp_path / "~nobody-of-this-name").mkdir()
    (tmp_path / "~nobody-of-this-name" / "a.csv").write_text("1")
    assert len(list_files("~nobody-of-this-name/*.csv")) == 1


def test_a_listing_knows_sizes_and_reads(directory: Path) -> None:
    listing = list_files(str(directory))
    assert listing.sizes.tolist() == [len(Path(path).relative_to(directory).as_posix()) for path in listing.paths]
    assert [read_bytes(listing, number).decode() for number in range(len(listing))] == [
        Path(path).relative_to(directory).as_posix() for path in listing.paths
    ]


def test_a_home_directory_is_understood(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(directory))
    assert list_files("~/a.csv").paths == (f"{directory}/a.csv",)


@given(
    sizes=st.lists(st.integers(0, 100), min_size=1, max_size=60), at_least=st.integers(1, 200), fewest=st.integers(1, 8)
)
def test_groups_share_out_every_file_once_in_order(sizes: list[int], at_least: int, fewest: int) -> None:
    paths = tuple(f"/{number}" for number in range(len(sizes)))
    groups = Listing(fs.LocalFileSystem(), paths, np.array(sizes)).groups(at_least, fewest=fewest)
    assert np.concatenate(groups).tolist() == list(range(len(sizes)))
    assert all(len(group) for group in groups)


def test_small_files_share_a_task_and_large_ones_have_their_own() -> None:
    sizes = np.array([1] * 100 + [1000, 1000])
    listing = Listing(fs.LocalFileSystem(), tuple(f"/{number}" for number in range(102)), sizes)
    assert [len(group) for group in listing.groups(1000)] == [100, 1, 1]
    assert len(listing.groups(10_000)) == 1
    assert len(listing.groups(10_000, fewest=2)) == 2


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://host/file", "ftp:// is no file system known here; known are s3, gs, hdfs, file"),
        ("sysconfig:nonsense/*.py", "Python has no directory 'nonsense'"),
    ],
)
def test_an_address_that_means_nothing_is_told(address: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list_files(address)


def test_a_file_url_is_a_local_path(directory: Path) -> None:
    assert list_files(f"file://{directory}/a.csv").paths == (f"{directory}/a.csv",)


def test_a_store_with_an_address_of_its_own_needs_no_network_to_be_named() -> None:
    filesystem, path = open_file_system("s3://bucket/some/data/", endpoint="http://127.0.0.1:9000")
    assert (filesystem.type_name, path) == ("s3", "bucket/some/data")


def test_a_store_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    with pytest.raises(DataError, match="s3://bucket/data cannot be listed"):
        list_files("s3://bucket/data", endpoint="http://127.0.0.1:9")


def test_a_file_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayrnn.data.contents.SMALL_BYTES", 2**20)
    monkeypatch.setattr("rayrnn.data.contents.PIECE_BYTES", 2**16)
    for name, zeros in (("small.gz", 2**19), ("bomb.gz", 2**24)):
        (tmp_path / name).write_bytes(gzip.compress(bytes(zeros)))
    bomb, small = list_files(str(tmp_path / "bomb.gz")), list_files(str(tmp_path / "small.gz"))
    assert read_bytes(small, 0) == bytes(2**19)
    with pytest.raises(DataError, match=r"bomb\.gz has .* bytes and gives more than .*: it is too large"):
        read_bytes(bomb, 0)


@pytest.mark.parametrize("pattern", ["*a" * 30 + "*b", "*" + "[a-z]*" * 30 + "b", "*?a" * 20 + "/*" + "a*" * 20 + "b"])
def test_a_pattern_with_many_wildcards_comes_to_an_end(tmp_path: Path, pattern: str) -> None:
    for name in ("a" * 200, "ab" * 60, "a" * 100 + "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ("a" * 200)).touch()
        (tmp_path / f"{name}.txt").touch()
    with pytest.raises(DataError, match="no file matches"):
        list_files(str(tmp_path / pattern))
    with pytest.raises(DataError, match=r"more than 3 of \*\*"):
        list_files(str(tmp_path / ("**/a" * 4)))
    found = list_files(str(tmp_path / "*a*a*a*c.*t*t"))
    assert [Path(name).name for name in found.names] == ["a" * 100 + "c.txt"]
