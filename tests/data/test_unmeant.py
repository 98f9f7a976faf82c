"""What lies beside the data and nobody meant: an index, links that lead nowhere, another encoding, text as order."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import LocalFileSystem

from rayrnn.data.contents import charset_of
from rayrnn.data.files import Listing, list_files
from rayrnn.data.prepare import prepare
from rayrnn.data.rows import MOST_COLUMNS
from rayrnn.data.sequences import gather
from rayrnn.data.sources import read
from rayrnn.data.sources.csv_columns import label_layout_of, layout_of
from rayrnn.data.sources.csv_labels import Labels, label_lines
from rayrnn.data.sources.grouping import group, grouping_of
from rayrnn.data.sources.labels import Target
from rayrnn.data.sources.source import Wanted
from rayrnn.data.sources.tables import rows_of_sequences
from rayrnn.errors import DataError
from rayrnn.recipe import validate_recipe
from rayrnn.recipe.data_sections import CsvData, ParquetData, TableData
from rayrnn.recipe.text_sections import TextData
from tests.asked import needs

PANDAS = {b"pandas": b'{"index_columns": ["__index_level_0__"], "columns": []}'}


def table_features(names: list[str], metadata: Any = None, **keys: Any) -> tuple[tuple[str, ...], list[str]]:
    """What is learned of a table with these columns, all of numbers; and what is said."""
    said: list[str] = []
    learned = keys.pop("learned", ())
    schema = pa.schema(dict.fromkeys(["id", "t", *names, "y"], pa.int64()), metadata=metadata)
    data = TableData.model_validate({"source": "table", "key": "id", "order_by": "t", "label": "y"} | keys)
    wanted = Wanted(needs("classification"), column_names=learned, say=said.append)
    return grouping_of(data, wanted, schema).roles.numbers, said


@pytest.mark.parametrize(
    ("names", "metadata", "keys", "learned", "said"),
    [
        (["x", "__index_level_0__"], PANDAS, {}, ("x",), ["'__index_level_0__'"]),
        (["__index_level_12__", "x"], None, {}, ("x",), ["'__index_level_12__'"]),
        (["x", "when"], {b"pandas": b'{"index_columns": ["when"]}'}, {}, ("x",), ["'when'"]),
        (["x", "i"], {b"pandas": b'{"index_columns": [{"kind": "range", "name": null}]}'}, {}, ("x", "i"), []),
        (["x", "i"], {b"pandas": b"[[["}, {}, ("x", "i"), []),
        (["Unnamed: 0", "x"], None, {}, ("x",), ["'Unnamed: 0'"]),
        (["_c0", "x"], None, {}, ("_c0", "x"), []),
        (["x", "__index_level_0__"], PANDAS, {"ignore": ["__index_level_0__"]}, ("x",), []),
        (["x", "__index_level_0__"], PANDAS, {"features": ["__index_level_0__"]}, ("__index_level_0__",), []),
        (["x", "__index_level_0__"], PANDAS, {"order_by": "__index_level_0__", "ignore": ["t"]}, ("x",), []),
        (["x", "__index_level_0__"], PANDAS, {"learned": ("x", "__index_level_0__")}, ("x", "__index_level_0__"), []),
    ],
)  # fmt: skip
def test_the_index_of_a_frame_is_left_out_and_said(
    names: list[str], metadata: Any, keys: dict[str, Any], learned: tuple[str, ...], said: list[str]
) -> None:
    features, notes = table_features(names, metadata, **keys)
    assert features == learned
    assert notes == [
        f"column {n} is the index of a DataFrame and is not learned; data.features may name it" for n in said
    ]


@pytest.mark.parametrize(
    ("header", "keys", "learned", "said"),
    [
        (",x,y,kind", {}, ("x", "y"), 1),
        ('"","x","y","kind"', {}, ("x", "y"), 1),
        ("Unnamed: 0,x,y,kind", {}, ("x", "y"), 1),
        (",0,1,kind", {}, ("0", "1"), 1),
        (",0,1,2", {"label_column": -1}, ("1", "2"), 1),
        (",,,kind", {}, ("{place: 0}", "{place: 1}", "{place: 2}"), 0),
        ("made by hand", {"label_column": 3}, ("0", "1", "2"), 0),
        (",x,y,kind", {"ignore": [{"place": 0}]}, ("x", "y"), 0),
        (",x,y,kind", {"features": [{"place": 0}, "x"]}, ("{place: 0}", "x"), 0),
        ("x,,y,kind", {}, ("x", "{place: 1}", "y"), 0),
        (",x,y,kind", {"before": ("{place: 0}", "x", "y")}, ("{place: 0}", "x", "y"), 0),
    ],
)
def test_the_index_of_a_csv_file_is_left_out_and_said(
    header: str, keys: dict[str, Any], learned: tuple[str, ...], said: int
) -> None:
    notes: list[str] = []
    before = keys.pop("before", ())
    data = CsvData.model_validate({"path": "x", "skip_lines": 1, "label_column": "kind"} | keys)
    wanted = Wanted(needs("classification"), column_names=before, say=notes.append)
    layout = layout_of(f"{header}\n0,1,2,up\n".encode(), "a.csv", data, Target(needs("classification")), wanted)
    assert layout.roles.numbers == learned
    assert len(notes) == said


#: the files that labels are for: stems as an index has them, and others
NUMBERED = ("num/0.csv", "num/1.csv", "num/2.csv")
NAMED = ("x/a.csv", "x/b.csv", "x/c.csv")


@pytest.mark.parametrize(
    ("task", "files", "lines", "due", "said"),
    [
        ("regression", NUMBERED, ",file,y\n0,2,0\n1,1,10\n2,0,20\n", [["20"], ["10"], ["0"]], 1),
        ("regression", NUMBERED, "Unnamed: 0,file,y\n0,2,0\n1,1,10\n2,0,20\n", [["20"], ["10"], ["0"]], 1),
        # rows of a frame that were shuffled, and of which a part was taken
        ("regression", NUMBERED, ",file,y\n7,2,0\n0,1,10\n2,0,20\n", [["20"], ["10"], ["0"]], 1),
        ("regression", NAMED, ",file,y,z\n0,c,0,5\n1,b,10,6\n2,a,20,7\n", [["20", "7"], ["10", "6"], ["0", "5"]], 1),
        ("classification", NAMED, ",file,kind\n0,b.csv,up\n1,a.csv,down\n2,c.csv,up\n", [["down"], ["up"], ["up"]], 1),
        ("classification", NUMBERED, ",file,kind\n0,2,up\n1,1,down\n2,0,up\n", [["up"], ["down"], ["up"]], 1),
        # the index is the files' names
        ("regression", NUMBERED, ",y\n0,2\n1,1\n2,0\n", [["2"], ["1"], ["0"]], 0),
        ("regression", NUMBERED, ",y,z\n0,2.5,0\n1,1.5,3\n2,0.5,9\n", [["2.5", "0"], ["1.5", "3"], ["0.5", "9"]], 0),
        ("regression", NUMBERED, ",y,z\n0,1,0\n1,1,10\n2,0,20\n", [["1", "0"], ["1", "10"], ["0", "20"]], 0),
        ("regression", NUMBERED, "file,y,z\n0,2,0\n1,1,10\n2,0,20\n", [["2", "0"], ["1", "10"], ["0", "20"]], 0),
        ("regression", NUMBERED, "0,2,0\n1,1,10\n2,0,20\n", [["2", "0"], ["1", "10"], ["0", "20"]], 0),
    ],
)  # fmt: skip
def test_an_index_before_the_names_of_files_is_no_name_and_their_names_are_no_answer(
    tmp_path: Path, task: str, files: tuple[str, ...], lines: str, due: list[list[str]], said: int
) -> None:
    (tmp_path / "labels.csv").write_text(lines)
    notes: list[str] = []
    labels = Labels("labels.csv", list_files(f"{tmp_path}/labels.csv"), in_one_file=True)
    sequences = Listing(LocalFileSystem(), files, np.ones(len(files), np.int64))
    target = Target(needs(task))
    assert label_lines(labels, sequences, ",", target, notes.append)["label"].to_pylist() == due
    assert [f"the first column of {tmp_path}/labels.csv is the index of a DataFrame" in note for note in notes] == (
        [True] * said
    )


@pytest.mark.parametrize(
    ("task", "content", "labels", "said"),
    [
        ("tagging", ",label\n0,up\n1,down\n", ("label",), 1),
        ("tagging", ",0\n0,up\n1,down\n", ("1",), 1),
        ("classification", "Unnamed: 0,label\n0,up\n", ("label",), 1),
        ("regression", ",y\n0,1.5\n1,2.5\n", ("y",), 1),
        ("regression", ",y,z\n0,1.5,2\n1,2.5,3\n", ("y", "z"), 1),
        ("regression", "y,z\n1.5,2\n2.5,3\n", ("y", "z"), 0),
        ("tagging", "label\nup\ndown\n", ("label",), 0),
    ],
)
def test_an_index_in_a_label_file_is_no_label(task: str, content: str, labels: tuple[str, ...], said: int) -> None:
    notes: list[str] = []
    data = CsvData(path="x", skip_lines=1)
    layout = label_layout_of(content.encode(), "a.csv", data, Target(needs(task)), notes.append)
    assert layout.roles.labels == labels
    assert len(notes) == said


def ordered(order: Any, per_sequence: int = 100) -> list[Any]:
    """The steps of sequences, numbered as they stand in the table, in the order that is learned; or the faults."""
    count = len(order)
    ids = [f"s{number // per_sequence}" for number in range(count)]
    steps = pa.table({"id": ids, "t": order, "x": [float(number) for number in range(count)]})
    data = TableData.model_validate({"source": "table", "key": "id", "order_by": "t", "horizon": 1})
    rows = group(steps, grouping=grouping_of(data, Wanted(needs("regression", 1)), steps.schema))
    if rows["fault"].null_count < len(rows):
        return list(rows["fault"].drop_null().to_pylist())
    return [int(step[0]) for row in rows["values"].to_pylist() for step in row]


def ordered_dictionary(words: list[str], cells: list[str]) -> pa.DictionaryArray:
    places = pa.array([words.index(cell) for cell in cells], pa.int8())
    return pa.DictionaryArray.from_arrays(places, pa.array(words), ordered=True)


@pytest.mark.parametrize(
    "order",
    [
        [str(number) for number in range(1, 13)],
        [f" {number}" for number in range(1, 13)],
        ["-2", "-1.5", "0", "1e1", "+11", "1e3"],
        ["00:05", "09:05", "10:00"],
        ["09:05:01", "09:05:01.25", "09:05:01.5", "23:00:00"],
        ["step09", "step10", "step11"],
        ["t01", "t02", "t10"],
        ["Day 01", "Day 02", "Day 10"],
        ["run2_t01", "run2_t02", "run2_t10"],
        ["frame_001.png", "frame_002.png", "frame_010.png"],
        ["2024-01-02", "2024-01-10", "2024-02-01"],
        ["2024-01-02", "2024-01-02 12:00", "2024-01-02T12:00:01"],
        ["2024-01-02T03:04:05.25", "2024-01-02T03:04:05.5", "2024-01-02T03:04:06"],
        ["1600-01-02T03:04:05", "2024-01-02T03:04:05.123456788", "2024-01-02T03:04:05.123456789"],
        ["2024-01-02 03:04:05+02:00", "2024-01-02 02:04:05+00:00"],
        ["2024-10-27T02:30:00+02:00", "2024-10-27T02:10:00+01:00", "2024-10-27T01:20:00Z", "2024-10-27 01:30:00 UTC"],
        ["2023-12", "2024-01", "2024-02"],
        ["2023/12/31", "2024/01/01", "2024/02/01"],
        ["2023.12.31 10:00", "2024.01.01 09:00"],
        ["2023-W52", "2024-W01"],
        ["2023-Q4", "2024-Q1"],
        ["2023-364", "2024-001"],
        ["20231231T235959Z", "20240101T000000Z"],
        [str(2**60 + number) for number in range(3)],
        pa.array(["1", "2", "10"]).dictionary_encode(),
        pa.array(["1", "2", "10"], pa.large_string()),
        ordered_dictionary(["low", "mid", "top", "a last"], ["low", "mid", "top", "a last"]),
        ordered_dictionary(["10", "9", "1"], ["10", "9", "1"]),
    ],
    ids=str,
)
def test_steps_that_text_orders_come_in_the_order_that_is_meant(order: Any) -> None:
    count = len(order)
    shuffled = np.random.default_rng(0).permutation(count)
    cells = (order if isinstance(order, pa.Array) else pa.array(order)).take(pa.array(shuffled))
    assert [int(shuffled[step]) for step in ordered(cells)] == list(range(count))


@pytest.mark.parametrize(
    "order",
    [
        ["9:05", "10:00"],
        ["31.12.2023", "01.01.2024"],
        ["1/2/2024", "12/1/2023"],
        ["05JAN2024", "01FEB2024"],
        ["05-Jan-2024", "06-Jan-2024"],
        ["09:00 AM", "01:00 PM"],
        ["2024-01-01 09:00 AM", "2024-01-01 01:00 PM"],
        ["Q4 2023", "Q1 2024"],
        ["Jan", "Feb"],
        ["Mon", "Tue"],
        ["I", "II", "V", "IX"],
        ["A", "B", "Z", "AA"],
        ["a", "b", "c"],
        ["0x9", "0xA", "0x10"],
        ["45292,5", "45293,25"],
        ["t-02", "t-01"],
        ["0 days 00:00:09", "1 days 00:00:00"],
        ["2024-02-30", "2024-02-31"],
        ["2024-1-1", "2024-1-2"],
        ["Mon, 01 Jan 2024 00:00:00 GMT", "Tue, 02 Jan 2024 00:00:00 GMT"],
        pa.array(["low", "mid"]).dictionary_encode(),
    ],
    ids=str,
)
def test_text_whose_order_may_not_be_meant_is_refused_however_its_rows_lie(order: Any) -> None:
    cells = order if isinstance(order, pa.Array) else pa.array(order)
    for lying in (cells, cells[::-1]):
        (fault,) = ordered(lying)
        assert "whose order as text may not be the one that is meant: make it a number, a date or a time" in fault
        assert fault.count("'") >= 8  # the sequence, the column and two of the values


@pytest.mark.parametrize(
    ("order", "says"),
    [
        (["step9", "step10"], "is text, 'step10' and 'step9', which are of two forms: make it a number"),
        (["1", "2", "end"], "'1' and 'end', whose order as text"),
        (["Jan 01", "Feb 01"], "'Feb 01' and 'Jan 01', which are of two forms"),
        (["09:05", "09:05:30"], "'09:05' and '09:05:30', which are of two forms"),
        (["1", "t01"], "which are of two forms"),
        (["2024-10-27T02:30:00", "2024-10-27T02:10:00Z"], "which are of two forms"),
        (["2024-10-27T02:30:00", "2024-10-27T02:50:00+02:00"], "which are of two forms"),
        (["1", "2", ""], "column 't' (data.order_by) is null"),
        (["1", "2", "NaN"], "column 't' (data.order_by) is null"),
        (["1", "1.0"], "two steps have this place"),
        (["2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00"], "two steps have this place"),
        ([1.0, float("nan")], "column 't' (data.order_by) is null"),
        (ordered_dictionary(["low", "", "top"], ["top", "", "low"]), "column 't' (data.order_by) is null"),
    ],
    ids=str,
)
def test_text_of_two_forms_and_places_that_are_missing_or_taken_are_refused(order: Any, says: str) -> None:
    (fault,) = ordered(order)
    assert says in fault


def test_each_sequence_is_looked_at_by_itself() -> None:
    assert ordered(["1", "10", "2", "t1", "t2", "t3"], per_sequence=3) == [0, 2, 1, 3, 4, 5]
    zoned = ["2024-10-27T02:30:00+02:00", "2024-10-27T02:10:00+01:00"]
    assert ordered(["t2", "t1", *zoned], per_sequence=2) == [1, 0, 2, 3]
    assert ordered(["Mon", "Feb", "1"], per_sequence=1) == [0, 1, 2]
    (fault,) = ordered(["1", "10", "2", "t1", "7", "t2"], per_sequence=3)
    assert fault.startswith("sequence 's1'")


def test_an_ordered_dictionary_counts_where_every_file_has_the_same(ray_cluster: None, tmp_path: Path) -> None:
    def steps_of(*dictionaries: list[str]) -> list[Any]:
        for number, words in enumerate(dictionaries):
            steps = pa.table({"id": ["a"], "t": ordered_dictionary(words, [words[-number]]), "x": [float(number)]})
            pq.write_table(steps, tmp_path / f"{number}.parquet")
        data = ParquetData(path=str(tmp_path), key="id", order_by="t", horizon=1)
        rows = read(data, needs("regression", 1)).take_all()
        return [step[0] for row in rows for step in row["values"]]

    assert steps_of(["low", "top", "mid"], ["low", "top", "mid"]) == [0, 1]
    with pytest.raises(DataError, match="ordered by the words low, top, mid and elsewhere by low, mid, top"):
        steps_of(["low", "top", "mid"], ["low", "mid", "top"])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    place = tmp_path / "data"
    (place / "more").mkdir(parents=True)
    for name in ("a.csv", "more/b.csv"):
        (place / name).write_text("1,up\n")
    return place


def test_links_that_lead_nowhere_and_pipes_are_left_out_and_said(directory: Path) -> None:
    for number in range(3):
        (directory / f"gone{number}.csv").symlink_to("nowhere")
    (directory / ".#a.csv").symlink_to("nobody@nowhere")
    os.mkfifo(directory / "pipe.csv")
    said: list[str] = []
    listing = list_files(str(directory), say=said.append)
    assert listing.paths == (f"{directory}/a.csv", f"{directory}/more/b.csv")
    assert said == [
        f"a link that leads nowhere, {directory}/gone0.csv and 2 more; a pipe, socket or device, {directory}/pipe.csv: "
        "left out"
    ]
    said.clear()
    assert len(list_files(f"{directory}/a*.csv", say=said.append)) == 1
    assert not said


@pytest.mark.parametrize("name", ["a.csv~", "a.csv.bak", "a.csv.swp", "more/a.csv.orig"])
def test_backups_in_a_directory_are_left_out_and_said_and_read_where_they_are_named(directory: Path, name: str) -> None:
    (directory / name).write_text("1,down\n")
    said: list[str] = []
    assert list_files(str(directory), say=said.append).paths == (f"{directory}/a.csv", f"{directory}/more/b.csv")
    assert said == [f"a backup, {directory}/{name}: left out"]
    assert list_files(f"{directory}/{name}").paths == list_files(f"{directory}/{name[:-1]}?").paths
    for file in ("a.csv", "more/b.csv"):
        (directory / file).unlink()
    with pytest.raises(DataError, match="holds no files, but a backup"):
        list_files(str(directory))


def test_links_that_lead_somewhere_are_followed_and_those_to_a_directory_above_are_not(
    directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "c.csv").write_text("1,up\n")
    (directory / "others").symlink_to(tmp_path / "others")
    (directory / "more" / "again").symlink_to(directory)
    said: list[str] = []
    listing = list_files(str(directory), say=said.append)
    assert listing.paths == (f"{directory}/a.csv", f"{directory}/more/b.csv", f"{directory}/others/c.csv")
    assert f"{directory}/more/again" in said[0]


def test_a_link_that_is_named_and_leads_nowhere_is_told(directory: Path) -> None:
    (directory / "gone.csv").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"gone\.csv is a link to nowhere, which is not there"):
        list_files(str(directory / "gone.csv"))
    for name in ("a.csv", "more/b.csv"):
        (directory / name).unlink()
    with pytest.raises(DataError, match="holds no files, but a link that leads nowhere"):
        list_files(str(directory))


TEXT = "Once, 1 time;\nupon a line, x\n"


@pytest.mark.parametrize("charset", ["UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE", "UTF-16", "UTF-32"])
@pytest.mark.parametrize("text", [TEXT, "Жил-был 1 царь, и 2\n" * 3, "從前有 1 個, 王\n" * 9], ids=["en", "ru", "zh"])
def test_another_unicode_than_utf_8_is_told_by_its_name(text: str, charset: str) -> None:
    assert charset_of(text.encode(charset)) == charset
    assert charset_of(text.encode(charset)[:-1]) == charset
    assert charset_of(text.encode("utf-8")) is None
    assert charset_of(text.encode("utf-8-sig")) is None


@pytest.mark.parametrize("content", [b"", b"\0", b"a\0b\0\0c", b"find\0print\0zero\0" * 9, bytes(range(256))])
def test_a_nul_alone_makes_no_encoding(content: bytes) -> None:
    assert charset_of(content) is None


@pytest.mark.parametrize("charset", ["UTF-16LE", "UTF-16BE"])
def test_text_and_csv_in_it_are_refused_with_the_way_out(ray_cluster: None, tmp_path: Path, charset: str) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT.encode(charset))
    (tmp_path / "a.csv").write_bytes("x,kind\n1,up\n2,up\n".encode(charset))
    way_out = rf"iconv -f {charset} -t UTF-8"
    with pytest.raises(DataError, match=way_out):
        read(TextData(path=str(tmp_path / "a.txt"), length=4), needs("language_model"))
    with pytest.raises(DataError, match=way_out):
        read(CsvData(path=str(tmp_path / "a.csv"), skip_lines=1, label_column="kind"), needs("classification"))
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a.csv").write_text("1,up\n")
    (tmp_path / "files/b.csv").write_bytes("1,up\n".encode(charset))
    with pytest.raises(DataError, match=way_out):
        gather(
            read(CsvData(path=str(tmp_path / "files"), label_column=1), needs("classification")),
            needs("classification"),
        )


def test_a_frame_that_pandas_wrote_is_learned_without_its_index(ray_cluster: None, tmp_path: Path) -> None:
    steps = pa.table(
        {"id": ["a", "a"], "t": ["2", "10"], "x": [1.0, 2.0], "y": ["u", "u"], "__index_level_0__": [7, 8]}
    )
    pq.write_table(steps.replace_schema_metadata(PANDAS), tmp_path / "a.parquet")
    said: list[str] = []
    data = ParquetData(path=str(tmp_path), key="id", order_by="t", label="y")
    rows = read(data, needs("classification"), say=said.append).take_all()
    assert [[float(step[0]) for step in row["values"]] for row in rows] == [[1.0, 2.0]]
    assert len(said) == 1


@pytest.mark.parametrize(
    ("held_out", "said"),
    [
        ("new.txt", None),
        ("learned", "2 of 2 files of data.held_out are in data.path too, such as "),
        ("./learned/../learned/b.txt", "1 of 1 file of data.held_out are in data.path too"),
        ("*/b.txt", "1 of 1 file"),
    ],
)
def test_what_is_held_out_and_learned_too_is_told_of(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_out: str, said: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "learned").mkdir()
    for name in ("learned/a.txt", "learned/b.txt", "new.txt"):
        (tmp_path / name).write_text("abcdefgh" * 20)
    data = {"path": "learned", "held_out": held_out, "length": 20}
    notes = prepare(validate_recipe({"name": "small", "data": data}, "recipe")).notes
    assert [said is not None and said in note for note in notes] == ([] if said is None else [True])


def test_a_table_that_lies_on_its_side_is_told_of_at_once() -> None:
    names = [f"c{place}" for place in range(MOST_COLUMNS + 1)]
    header, line = ",".join(names), ",".join("1" for _ in names)
    data = CsvData(path="x", skip_lines=1, label_column="c0")
    target = Target(needs("regression"))
    with pytest.raises(DataError, match=r"a\.csv has 100,001 columns, and at most 100,000 are read"):
        layout_of(f"{header}\n{line}\n".encode(), "a.csv", data, target, Wanted(target.needs))
    with pytest.raises(DataError, match="the table has 100,004 columns"):
        table_features(names)
    with pytest.raises(DataError, match=r"the columns are c0, .*c19 and 99,980 more"):
        layout_of(
            f"{header.rpartition(',')[0]}\n{line.rpartition(',')[0]}\n".encode(),
            "a.csv",
            data.model_copy(update={"label_column": "kind"}),
            target,
            Wanted(target.needs),
        )


@pytest.mark.parametrize("kind", [pa.struct([("a", pa.int64())]), pa.map_(pa.string(), pa.int8()), pa.list_(pa.int8())])
def test_lists_of_what_cannot_be_words_are_no_categories(kind: pa.DataType) -> None:
    table = pa.table({"word": pa.nulls(2, pa.list_(kind))})
    with pytest.raises(DataError, match=r"column 'word' \(data\.categorical\) holds list<.*a word for each step"):
        rows_of_sequences(table, {}, ["word"])


def test_bytes_that_are_no_text_are_no_categories() -> None:
    table = pa.table({"word": pa.array([[b"\xff", b"a"]], pa.list_(pa.binary()))})
    with pytest.raises(DataError, match=r"column 'word' \(data\.categorical\) cannot be words: Invalid UTF8"):
        rows_of_sequences(table, {}, ["word"])
