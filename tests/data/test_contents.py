"""What files of data are is told by how they begin, never guessed; packed ones are read within a bound, wherever."""

import bz2
import codecs
import gzip
import io
import lzma
import random
import sqlite3
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rayrnn
from rayrnn.data.contents import charset_of, no_text
from rayrnn.data.files import list_files, read_bytes
from rayrnn.data.sequences import gather
from rayrnn.data.sources import read
from rayrnn.data.sources.csv_header import records
from rayrnn.errors import DataError
from rayrnn.recipe.data_sections import CsvData
from rayrnn.recipe.text_sections import TextData
from tests.asked import needs

PLAIN = b"1,2,up\n3,4,up\n"


def zipped() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a.csv", PLAIN)
    return content.getvalue()


def tarred() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.csv"))
    return content.getvalue()


def as_parquet(table: pa.Table) -> bytes:
    content = io.BytesIO()
    pq.write_table(table, content)
    return content.getvalue()


def as_arrow() -> bytes:
    content = io.BytesIO()
    with pa.ipc.new_file(content, pa.schema({"x": pa.int64()})):
        pass
    return content.getvalue()


def as_sqlite() -> bytes:
    with sqlite3.connect(":memory:") as database:
        database.execute("create table t (x)")
        return database.serialize()


KINDS = {
    "gzip": (gzip.compress(PLAIN), "a.csv is a gzip file: name it a.csv.gz, or unpack it"),
    "bzip2": (bz2.compress(PLAIN), "a.csv is a bzip2 file: name it a.csv.bz2, or unpack it"),
    "zstd": (pa.compress(PLAIN, "zstd", asbytes=True), "a.csv is a zstd file: name it a.csv.zst, or unpack it"),
    "lz4": (pa.compress(PLAIN, "lz4", asbytes=True), "a.csv is an lz4 file: name it a.csv.lz4, or unpack it"),
    "zip": (zipped(), "a.csv is a zip file, as an Excel workbook is: unpack it, or save the workbook as CSV"),
    "xz": (lzma.compress(PLAIN), "a.csv is an xz file: unpack it"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4" + bytes(40), "a.csv is a 7z file: unpack it"),
    "rar": (b"Rar!\x1a\x07\1\0" + bytes(40), "a.csv is a RAR file: unpack it"),
    "tar": (tarred(), "a.csv is a tar file: unpack it"),
    "parquet": (as_parquet(pa.table({"x": [1]})), "a.csv is a Parquet file: set data.source: parquet"),
    "parquet of no row": (as_parquet(pa.table({"x": pa.array([], pa.int8())})), "a.csv is a Parquet file"),
    "arrow": (as_arrow(), "a.csv is an Arrow file: save it as Parquet or as text"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504), "a.csv is an Office file, as an old Excel workbook is"),
    "sqlite": (as_sqlite(), "a.csv is an SQLite database: save its table as CSV or Parquet"),
    "pdf": (b"%PDF-1.4\n%\xc3\xa4\n1 0 obj\n", "a.csv is a PDF file: save its text as UTF-8"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_told_by_how_it_begins_and_with_what_to_do(kind: str) -> None:
    content, says = KINDS[kind]
    assert str(no_text(content, "a.csv")).startswith(says)
    with pytest.raises(DataError) as told:
        list(records(content, "a.csv", ","))
    assert str(told.value).startswith(says)


@pytest.mark.parametrize(
    "text", ["BZhang,1\n", "PAR1S,1\n", "PK,1\n", "7z,1\n", "ARROW1,2\n", "ustar" * 99, "%,1\n", ""]
)
def test_a_text_is_taken_for_no_other_kind(text: str) -> None:
    assert no_text(text.encode(), "a.csv") is None


def test_a_packed_file_that_is_in_another_is_to_be_unpacked() -> None:
    assert no_text(gzip.compress(PLAIN), "a.csv.gz") == "a.csv.gz holds a gzip file: unpack it"
    assert no_text(tarred(), "a.csv.GZ") == "a.csv.GZ holds a tar file: unpack it"


@pytest.mark.parametrize("place", ["first", "second", "label file", "second label file", "lines", "text"])
def test_it_is_told_wherever_a_source_reads_it(ray_cluster: None, tmp_path: Path, place: str) -> None:
    packed = gzip.compress(PLAIN)
    plain = {"x/a.csv": b"1\n", "x/b.csv": b"2\n", "y/a.csv": b"up\n", "y/b.csv": b"up\n", "l.csv": b"a,up\nb,up\n"}
    others = {"first": "x/a.csv", "second": "x/b.csv", "label file": "y/a.csv", "second label file": "y/b.csv"}
    name = (others | {"lines": "l.csv", "text": "x/b.csv"})[place]
    for file, content in (plain | {name: packed}).items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(content)
    labels = f"{tmp_path}/{'l.csv' if place == 'lines' else 'y'}"
    asked = needs("language_model" if place == "text" else "classification")
    section = (
        TextData(path=f"{tmp_path}/x", length=2) if place == "text" else CsvData(path=f"{tmp_path}/x", labels=labels)
    )
    with pytest.raises(DataError, match=rf"{name} is a gzip file: name it .*{name}\.gz"):
        gather(read(section, asked), asked)


@pytest.mark.parametrize(
    ("ending", "pack"),
    [
        (".gz", gzip.compress),
        (".GZ", gzip.compress),
        (".Bz2", bz2.compress),
        (".ZST", lambda content: pa.compress(content, "zstd", asbytes=True)),
        (".LZ4", lambda content: pa.compress(content, "lz4", asbytes=True)),
        (".csv", bytes),
    ],
)  # fmt: skip
def test_an_ending_in_capitals_is_the_same(tmp_path: Path, ending: str, pack: object) -> None:
    (tmp_path / f"a{ending}").write_bytes(pack(PLAIN))  # type: ignore[operator]
    assert read_bytes(list_files(f"{tmp_path}/a{ending}"), 0) == PLAIN


def test_a_second_file_that_unpacks_without_end_is_refused(ray_cluster: None, tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"1,up\n"))
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"1,up\n" + b"\n" * 2**28, 1))
    asked = needs("classification")
    with pytest.raises(DataError, match=r"b\.csv\.gz has .* bytes and gives more than .*: it is too large"):
        gather(read(CsvData(path=str(tmp_path), label_column=1), asked), asked)


def test_one_place_alone_opens_what_is_to_be_unpacked() -> None:
    root = Path(rayrnn.__file__).parent
    opening = {
        file.relative_to(root).as_posix() for file in root.rglob("*.py") if "open_input_stream" in file.read_text()
    }
    assert opening == {"runs/store.py"}  # which reads its own files, and unpacks none
    unpacking = {file.name for file in root.rglob("*.py") if "CompressedInputStream" in file.read_text()}
    assert unpacking == {"contents.py"}


NOISE = random.Random(1).randbytes(5000)


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(PLAIN * 9),
        zipped(),
        NOISE,
        b"\xff\xfe" + NOISE,
        b"\xff\xfe\0\0" + NOISE,
        bytes(5000) + NOISE,
        ("中文字符测试\n" * 30).encode("gb18030"),
        b"ab\xed\xa0\x80cd",
        "grün".encode("latin1"),
    ],
)
def test_no_encoding_is_named_that_the_bytes_are_not_in(content: bytes) -> None:
    assert charset_of(content) is None


@pytest.mark.parametrize("content", ["grün".encode("latin1"), "测试".encode("gb18030"), b"ab\xed\xa0\x80cd"])
def test_where_the_encoding_is_not_known_none_is_named(ray_cluster: None, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(content * 9)
    says = r"save it as UTF-8 \(iconv -f ITS-ENCODING -t UTF-8\)"
    with pytest.raises(DataError, match=says):
        read(TextData(path=f"{tmp_path}/a.txt", length=2), needs("language_model"))
    with pytest.raises(DataError, match=says):
        list(records(content, "a.csv", ","))


@pytest.mark.parametrize("marks", [0, 1, 2, 3])
def test_marks_in_front_of_a_text_are_no_part_of_it(ray_cluster: None, tmp_path: Path, marks: int) -> None:
    content = codecs.BOM_UTF8 * marks + b"1,up\n"
    assert list(records(content, "a.csv", ",")) == [(1, ["1", "up"])]
    for name in ("a.csv", "b.csv", "a.txt"):
        (tmp_path / name).write_bytes(content)
    asked = needs("classification")
    table = gather(read(CsvData(path=f"{tmp_path}/*.csv", label_column=1), asked), asked)
    assert table.num_dropped == 0
    (row,) = read(TextData(path=f"{tmp_path}/a.txt", length=4), needs("language_model")).take_all()
    assert row["text"] == "1,up\n"
