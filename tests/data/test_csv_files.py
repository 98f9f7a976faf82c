"""CSV files become sequences; what is wrong with them is said with file and line."""

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from rayrnn.data.sequences import gather
from rayrnn.data.sources import read
from rayrnn.data.sources.csv_columns import layout_of
from rayrnn.data.sources.csv_parsing import parse
from rayrnn.data.sources.labels import Target
from rayrnn.data.sources.source import Wanted
from rayrnn.errors import DataError, RayrnnError, RecipeError
from rayrnn.recipe.data_sections import CsvData
from tests.asked import needs
from tests.ts_files import find_ts, read_ts, write_csv

PLAIN = "1,2,0\n3,4,0\n"


def write(directory: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return directory


def rows(task: str, path: Path | str, **keys: Any) -> list[dict[str, Any]]:
    """The rows a recipe's `data` section reads, in order, without those that cannot be used."""
    dataset = read(CsvData(path=str(path), **keys), needs(task))
    return pa.concat_tables(ray.get(dataset.to_arrow_refs()), promote_options="default").to_pylist()


def fault(task: str, path: Path, **keys: Any) -> str:
    """What the user is told."""
    with pytest.raises(RayrnnError) as told:
        gather(read(CsvData(path=str(path), **keys), needs(task)), needs(task))
    return str(told.value).replace(f"{path}/", "")


def test_a_file_is_a_sequence_and_a_line_is_a_step(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"b.csv": "5,6,1\n", "a.csv": "1,2,0\n3,4.5,0\n"})
    first, second = rows("classification", tmp_path, label_column=-1, num_classes=2)
    assert first == {"key": "a.csv", "values": [[1, 2], [3, 4.5]], "label": "0", "fault": None}
    assert second == {"key": "b.csv", "values": [[5, 6]], "label": "1", "fault": None}


def test_values_are_lists_of_fixed_width_so_that_no_python_object_is_made_for_a_step(
    ray_cluster: None, tmp_path: Path
) -> None:
    write(tmp_path, {"a.csv": PLAIN})
    schema = read(CsvData(path=str(tmp_path)), needs("classification")).materialize().schema().base_schema
    assert schema.field("values").type == pa.list_(pa.list_(pa.float64(), 3))


def test_files_in_several_directories_keep_these_in_their_keys(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"one/a.csv": PLAIN, "two/a.csv": PLAIN})
    assert [row["key"] for row in rows("classification", tmp_path)] == ["one/a.csv", "two/a.csv"]
    assert [row["key"] for row in rows("classification", f"{tmp_path}/*/a.csv")] == ["one/a.csv", "two/a.csv"]


def test_columns_are_named_by_the_last_skipped_line_in_whatever_order_a_file_has_them(
    ray_cluster: None, tmp_path: Path
) -> None:
    header = {"a.csv": "made by hand\nx,y,kind\n1,2,up\n", "b.csv": "made by hand\nkind,y,x\ndown,4,3\n"}
    write(tmp_path, header)
    read = rows("classification", tmp_path, skip_lines=2, label_column="kind", features=("y", "x"))
    assert [(row["values"], row["label"]) for row in read] == [([[2, 1]], "up"), ([[4, 3]], "down")]
    assert [row["values"] for row in rows("classification", tmp_path, skip_lines=2, label_column="kind")] == [
        [[1, 2]],
        [[3, 4]],
    ]


def test_columns_are_named_by_place_where_there_is_no_header(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": "9,1,2,up\n9,3,4,up\n"})
    (row,) = rows("classification", tmp_path, label_column="-1", features=("2", "1"), classes=("up", "down"))
    assert (row["values"], row["label"]) == ([[2, 1], [4, 3]], "up")


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        ('"1","2"\n"3","4"\n', {}),
        ("1;2\n3;4\n", {"delimiter": ";"}),
        ("1\t2\n3\t4", {"delimiter": "\\t"}),
        ("1,2\r\n3,4\r\n\r\n", {}),
        (b"\xef\xbb\xbf1,2\n3,4", {}),
        (" 1, +2\n3.0,.4e1\n", {}),
        (b"\xef\xbb\xbfx,y\n1,2\n3,4\n", {"skip_lines": 1, "features": ("x", "y")}),
        ("1,2\r3,4\r", {}),
    ],
)
def test_files_of_all_kinds_of_programs_read_alike(
    ray_cluster: None, tmp_path: Path, content: str | bytes, keys: dict[str, Any]
) -> None:
    write(tmp_path, {"a.csv": content})
    (row,) = rows("classification", tmp_path, **keys)
    assert row["values"] == [[1, 2], [3, 4]]


def test_quoted_cells_may_hold_delimiters_quotes_and_line_ends(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": '1,"a,b"\n2,"say ""hi"""\n', "b.csv": '3,"two\nlines"\n4,"\n\n"\n', "c.csv": "5,plain\n"})
    read = rows("classification", tmp_path, categorical=(1,))
    assert [row["values"] for row in read] == [[[1], [2]], [[3], [4]], [[5]]]
    assert [row["categories"] for row in read] == [[["a,b"], ['say "hi"']], [["two\nlines"], ["\n\n"]], [["plain"]]]


def test_an_open_quote_does_not_swallow_the_file_behind_it(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": '1,"up\n2,up\n', "b.csv": "3,down\n"})
    assert fault("classification", tmp_path, label_column=1) == "a.csv:1: a quote is opened and never closed"
    (row,) = [r for r in rows("classification", tmp_path, label_column=1, on_error="skip") if r["skipped"] is None]
    assert (row["key"], row["values"], row["label"]) == ("b.csv", [[3]], "down")


def test_a_quote_within_a_cell_is_a_character(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": '1,5" disk\n', "b.csv": '2,3" disk\n'})
    assert [row["label"] for row in rows("classification", tmp_path, label_column=1)] == ['5" disk', '3" disk']


def test_packed_files_are_unpacked(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.csv.gz": gzip.compress(PLAIN.encode()), "b.csv": PLAIN})
    packed, plain = rows("classification", tmp_path, label_column=2)
    assert packed["values"] == plain["values"] == [[1, 2], [3, 4]]


def test_a_header_says_which_column_is_which_also_where_the_recipe_names_none(
    ray_cluster: None, tmp_path: Path
) -> None:
    write(tmp_path, {"a.csv": "x,y,kind\n1,2,up\n", "b.csv": "kind,y,x\ndown,4,3\n"})
    read = rows("classification", tmp_path, skip_lines=1, label_column=-1)
    assert [(row["values"], row["label"]) for row in read] == [([[1, 2]], "up"), ([[3, 4]], "down")]


def test_columns_with_the_same_name_are_told_apart_by_their_places(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": "x,x,kind\n1,2,up\n", "b.csv": "x,x,kind\n3,4,up\n"})
    read = rows("classification", tmp_path, skip_lines=1, label_column="kind")
    assert [row["values"] for row in read] == [[[1, 2]], [[3, 4]]]


def test_a_label_may_have_spaces_around_it_and_be_a_whole_number_written_as_a_fraction(
    ray_cluster: None, tmp_path: Path
) -> None:
    write(tmp_path, {"a.csv": "1, up side\n", "b.csv": "2,up side \n", "c.csv": "3,7\n", "d.csv": "4,7.0\n"})
    read = rows("classification", tmp_path, label_column=1)
    assert [row["label"] for row in read] == ["up side", "up side", "7", "7"]
    read = rows("classification", tmp_path, label_column=1, classes=("up side", "7.0", "7"))
    assert [row["label"] for row in read] == ["up side", "up side", "7", "7.0"]
    write(
        tmp_path,
        {f"{name}.csv": f"1;{label}\n" for name, label in zip("abcd", ("7", "7,0", "7.0", "7,5"), strict=True)},
    )
    read = rows("classification", tmp_path, label_column=1, delimiter=";", decimal=",")
    assert [row["label"] for row in read] == ["7", "7", "7.0", "7,5"]
    read = rows("classification", tmp_path / "[ab].csv", label_column=1, delimiter=";", decimal=",", num_classes=8)
    assert [row["label"] for row in read] == ["7", "7"]


def test_one_categorical_column_alone_is_a_sequence_of_symbols(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": "the,DT\ndog,NN\n"})
    (row,) = rows("tagging", tmp_path, label_column=1, categorical=(0,))
    assert (row["symbols"], row["label"]) == (["the", "dog"], ["DT", "NN"])
    (row,) = rows("language_model", tmp_path, features=(0,), categorical=(0,))
    assert row["symbols"] == ["the", "dog"]


def test_tagging_takes_a_label_at_every_step_that_has_one(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": "1,up\n2,\n3,down\n", "b.csv": "4,up\n"})
    read = rows("tagging", tmp_path, label_column=1)
    assert [row["label"] for row in read] == [["up", None, "down"], ["up"]]


def test_classification_takes_the_one_label_of_a_file(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": "1,\n2,\n3,up\n", "b.csv": "4,down\n5,down\n"})
    assert [row["label"] for row in rows("classification", tmp_path, label_column=1)] == ["up", "down"]


def test_regression_takes_numbers_at_every_step(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": "1,10,100\n2,,200\n"})
    (row,) = rows("regression", tmp_path, label_column=(1, 2))
    assert row["values"] == [[1], [2]]
    np.testing.assert_array_equal(row["label"], [[10, 100], [np.nan, 200]])


def test_without_a_label_column_there_is_no_label(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": PLAIN})
    (row,) = rows("regression", tmp_path, horizon=1)
    assert row["values"] == [[1, 2, 0], [3, 4, 0]]
    assert "label" not in row


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("1,2,0\n3,x,0\n", "bad.csv:2: column '1' is 'x', which is no number"),
        ("1,2,0\n3,1_0,0\n", "bad.csv:2: column '1' is '1_0', which is no number"),
        ("1,2,0\n3,,0\n", "bad.csv:2: column '1' is empty"),
        ("1,2,0\n3,nan,0\n", "bad.csv:2: column '1' is empty or not a number"),
        ("1,inf,0\n", "bad.csv:1: column '1' is inf"),
        ("1,2,0\n3,4\n", "bad.csv:2: 2 columns where 3 are due (as a.csv has)"),
        ("1,2,0\n3,4,5,0\n", "bad.csv:2: 4 columns where 3 are due (as a.csv has)"),
        ("1,2\n3,4\n", "bad.csv:1: 2 columns where 3 are due (as a.csv has)"),
        ("1,2,0\n\n3,4,0\n", "bad.csv:2: the line is blank"),
        ('1,"2,0\n3,4,0\n', "bad.csv:1: a quote is opened and never closed"),
        (b"\0\x01\x02", "bad.csv:1: 1 column where 3 are due"),
        ("", "bad.csv is empty; a sequence needs at least one line"),
        (" \n", "bad.csv is empty; a sequence needs at least one line"),
        (b"1,2,0\n\xff,2,0\n", "bad.csv: byte 6 is not UTF-8 text"),
        ("1,2,0\n3,4,7\n", "bad.csv:2: the label is '7', which is no whole number in 0 .. 1 (data.num_classes: 2)"),
        ("1,2,0\n3,4,1\n", "bad.csv:2: the label changes from '0' to '1': classification takes one label a sequence"),
        ("1,2,\n", "bad.csv:1: the sequence has no label"),
    ],
)
def test_a_fault_is_told_with_file_and_line(ray_cluster: None, tmp_path: Path, bad: str | bytes, says: str) -> None:
    write(tmp_path, {f"{name}.csv": PLAIN for name in "abcdefg"} | {"bad.csv": bad})
    assert says in fault("classification", tmp_path, label_column=2, num_classes=2)


def test_the_line_of_a_fault_counts_the_skipped_ones_and_those_within_quotes(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": 'x,y\n1,"two\nlines"\n2,b\nzwei,c\n'})
    assert "a.csv:5: column 'x' is 'zwei'" in fault("tagging", tmp_path, skip_lines=1, label_column="y")
    write(tmp_path, {"a.csv": 'x,y\n1,"two\nlines"\n2,b\n,c\n'})
    assert "a.csv:5: column 'x' is empty" in fault("tagging", tmp_path, skip_lines=1, label_column="y")


def test_a_class_that_the_recipe_does_not_name_is_told_with_those_it_does(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": "1,up\n2,sideways\n"})
    told = fault("tagging", tmp_path, label_column=1, classes=("up", "down"))
    assert "a.csv:2: the label is 'sideways', which is not among data.classes: up, down" in told


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"label_column": 7}, "there is no column 7 in a.csv: it has 3, 0 .. 2"),
        ({"label_column": "kind"}, "a.csv:1 holds the columns' names and is no step: set data.skip_lines: 1"),
        (
            {"label_column": "knd"},
            "the recipe names column 'knd', but with data.skip_lines: 0 no line names the columns",
        ),
        ({"label_column": "knd", "skip_lines": 1}, "there is no column 'knd' in a.csv:1; the columns are x, y, kind"),
        ({"label_column": 2}, "a.csv:1: column '0' is 'x', which is no number"),
        ({"label_column": 2}, "if this line names the columns, set data.skip_lines: 1"),
        ({"skip_lines": 9}, "a.csv is empty after data.skip_lines: 9"),
        (
            {"skip_lines": 1, "features": ("x",), "categorical": ("y",)},
            "data.categorical names column 'y', which is not",
        ),
    ],
)
def test_a_recipe_that_does_not_fit_the_header_is_told_what_there_is(
    ray_cluster: None, tmp_path: Path, keys: dict[str, Any], says: str
) -> None:
    write(tmp_path, {"a.csv": "x,y,kind\n1,2,up\n"})
    assert says in fault("classification", tmp_path, **keys)


def test_a_file_with_other_columns_than_the_first_is_told_with_both(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": "x,kind\n1,up\n", "b.csv": "y,kind\n1,up\n"})
    told = fault("classification", tmp_path, skip_lines=1, label_column="kind")
    assert "b.csv:1: the columns are y, kind; those of a.csv are x, kind" in told
    write(tmp_path, {"b.csv": ""})
    assert fault("classification", tmp_path, skip_lines=1, label_column="kind").startswith("b.csv is empty")
    write(tmp_path, {"b.csv": b"\x89PNG\r\n\x1a\n\0"})
    told = fault("classification", tmp_path, skip_lines=1, label_column="kind")
    assert told.startswith("b.csv:1: the line that names the columns is not UTF-8 text")


def test_skipped_files_are_left_out_and_listed_with_their_reasons(ray_cluster: None, tmp_path: Path) -> None:
    good = {f"{number:02d}.csv": PLAIN for number in range(20)}
    write(tmp_path, good | {"07.csv": "1,2,0\n3,x,0\n", "11.csv": "", "13.csv": "1,2,9\n"})
    data = CsvData(path=str(tmp_path), label_column=2, num_classes=2, on_error="skip")
    sequences = gather(read(data, needs("classification")), needs("classification"))
    assert len(sequences) == 17
    assert [reason.partition(str(tmp_path))[2][:8] for reason in sequences.skipped] == [
        "/07.csv:",
        "/11.csv ",
        "/13.csv:",
    ]


def test_it_is_an_error_when_every_file_is_skipped(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": "", "b.csv": "x\n"})
    assert "none of the 2 files" in fault("classification", write(tmp_path, {"b.csv": ""}), on_error="skip")
    write(tmp_path, {"a.csv": "", "b.csv": "x\n"})
    assert "no sequence is left: 2 were skipped" in fault("classification", tmp_path, on_error="skip")


def test_labels_come_from_files_of_the_same_name(ray_cluster: None, tmp_path: Path) -> None:
    write(
        tmp_path, {"x/a.csv": "1\n2\n3\n", "x/b.csv": "4\n", "y/b.csv": "up\n", "y/a.csv": "down\n", "y/c.csv": "up\n"}
    )
    read = rows("classification", tmp_path / "x", labels=str(tmp_path / "y"))
    assert [(row["key"], row["label"]) for row in read] == [("a.csv", "down"), ("b.csv", "up")]


@pytest.mark.parametrize(
    ("align", "labels", "values"),
    [
        ("start", ["u", "v", None], [[1], [2], [3]]),
        ("end", [None, "u", "v"], [[1], [2], [3]]),
    ],
)
def test_shorter_labels_lie_at_the_start_or_at_the_end(
    ray_cluster: None, tmp_path: Path, align: str, labels: list[Any], values: list[Any]
) -> None:
    write(tmp_path, {"x/a.csv": "1\n2\n3\n", "x/b.csv": "4\n", "y/a.csv": "u\nv\n", "y/b.csv": "w\n"})
    first, second = rows("tagging", tmp_path / "x", labels=str(tmp_path / "y"), align=align)
    assert (first["label"], first["values"]) == (labels, values)
    assert (second["label"], second["values"]) == (["w"], [[4]])


@pytest.mark.parametrize(("align", "values"), [("start", [[5, 6], [0, 0]]), ("end", [[0, 0], [5, 6]])])
def test_longer_labels_lengthen_the_sequence_with_steps_of_zeros(
    ray_cluster: None, tmp_path: Path, align: str, values: list[Any]
) -> None:
    write(tmp_path, {"x/a.csv": "5,6\n", "y/a.csv": "1,10\n2,20\n"})
    (row,) = rows("regression", tmp_path / "x", labels=str(tmp_path / "y"), align=align)
    assert (row["values"], row["label"]) == (values, [[1, 10], [2, 20]])


def test_labels_of_another_length_need_an_alignment(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"x/a.csv": "1\n2\n3\n", "y/a.csv": "u\nv\n"})
    told = fault("tagging", tmp_path / "x", labels=str(tmp_path / "y"))
    assert "y/a.csv: 2 labels for 3 steps; data.align: start or end allows that" in told


def test_names_are_matched_without_their_suffixes_too(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"x/a.csv": "1\n", "x/b 2.csv": "2\n", "y/a.txt": "up\n", "y/b 2.txt": "down\n"})
    read = rows("classification", tmp_path / "x", labels=str(tmp_path / "y"))
    assert [row["label"] for row in read] == ["up", "down"]
    write(tmp_path, {"labels.csv": "a,up\nb 2, down\n"})
    read = rows("classification", tmp_path / "x", labels=str(tmp_path / "labels.csv"))
    assert [row["label"] for row in read] == ["up", "down"]


def test_a_missing_pair_is_told(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"x/a.csv": "1\n", "x/b.csv": "1\n", "y/a.csv": "u\n"})
    assert "b.csv has no label" in fault("tagging", tmp_path / "x", labels=str(tmp_path / "y"))
    write(tmp_path, {"z/other.csv": "u\n"})
    assert "no label file for any of the 2 sequences" in fault("tagging", tmp_path / "x", labels=str(tmp_path / "z"))


def test_a_fault_in_a_label_file_is_told_with_its_line(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"x/a.csv": "1\n2\n", "y/a.csv": "0\n3\n"})
    told = fault("tagging", tmp_path / "x", labels=str(tmp_path / "y"), num_classes=3)
    assert "y/a.csv:2: the label is '3'" in told
    write(tmp_path, {"y/a.csv": "0,0\n3,0\n"})
    assert "y/a.csv has 2 columns; a label file has one" in fault(
        "tagging", tmp_path / "x", labels=str(tmp_path / "y"), num_classes=3
    )


def test_labels_come_from_lines_of_one_file_that_may_lie_among_the_sequences(ray_cluster: None, tmp_path: Path) -> None:
    write(
        tmp_path, {"one/a.csv": "1\n", "two/a.csv": "2\n", "labels.csv": "file,label\none/a.csv,up\ntwo/a.csv,down\n"}
    )
    read = rows("classification", tmp_path, labels=str(tmp_path / "labels.csv"))
    assert [(row["key"], row["label"]) for row in read] == [("one/a.csv", "up"), ("two/a.csv", "down")]


def test_lines_of_labels_may_be_numbers_to_predict(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"x/a.csv": "1\n", "x/b.csv": "2\n", "labels.csv": "a.csv,1.5,10\nb.csv,2.5,20\n"})
    read = rows("regression", tmp_path / "x", labels=str(tmp_path / "labels.csv"))
    assert [row["label"] for row in read] == [[1.5, 10], [2.5, 20]]


@pytest.mark.parametrize(
    ("task", "lines", "says"),
    [
        ("classification", "a.csv,up\n", "b.csv has no label"),
        ("classification", "c.csv,up\n", "labels.csv names none of the 2 sequences"),
        ("classification", "a.csv,up\nb.csv,sideways\n", "labels.csv:2: the label is 'sideways'"),
        ("classification", "a.csv,up\nb.csv\n", "labels.csv:2: 1 column; each line is a file name and its label"),
        ("regression", "a.csv,1\nb.csv,two\n", "labels.csv:2: 'two' is no number"),
        ("regression", "a.csv,1\nb.csv,2,3\n", "labels.csv:2: 2 numbers where"),
        ("tagging", "a.csv,up\nb.csv,up\n", "task tagging takes one a step"),
    ],
)
def test_a_fault_in_lines_of_labels_is_told(
    ray_cluster: None, tmp_path: Path, task: str, lines: str, says: str
) -> None:
    write(tmp_path, {"x/a.csv": "1\n", "x/b.csv": "2\n", "labels.csv": lines})
    classes = None if task == "regression" else ("up", "down")
    assert says in fault(task, tmp_path / "x", labels=str(tmp_path / "labels.csv"), classes=classes)


def test_a_file_that_cannot_be_read_is_told(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": PLAIN, "b.csv": PLAIN})
    dataset = read(CsvData(path=str(tmp_path)), needs("classification"))
    (tmp_path / "b.csv").unlink()
    with pytest.raises(DataError, match=r"b\.csv cannot be read"):
        gather(dataset, needs("classification"))


def test_several_label_columns_are_for_regression_only(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": PLAIN})
    with pytest.raises(RecipeError, match="names 2 columns; task tagging takes one"):
        read(CsvData(path=str(tmp_path), label_column=(1, 2)), needs("tagging"))


CELLS = st.text(alphabet=st.sampled_from('ab",\n\r;é '), max_size=4)
FILES = st.lists(st.lists(st.tuples(st.integers(-99, 99), CELLS), min_size=1, max_size=5), min_size=1, max_size=6)


@given(FILES)
def test_files_parsed_together_are_what_python_reads_from_each(files: list[list[tuple[int, str]]]) -> None:
    contents = []
    for lines in files:
        text = io.StringIO(newline="")
        # unquoted, the blanks around a cell would not count
        csv.writer(text, quoting=csv.QUOTE_NONNUMERIC).writerows(lines)
        contents.append(text.getvalue().encode())
    data = CsvData(path="unused", categorical=(1,))
    layout = layout_of(contents[0], "first", data, Target(needs("tagging")), Wanted(needs("tagging")))
    parsed = parse(contents, [str(number) for number in range(len(files))], layout)
    assert parsed.reasons == {}
    assert parsed.lengths.tolist() == [len(lines) for lines in files]
    assert parsed.steps["0"].to_pylist() == [number for lines in files for number, _ in lines]
    assert [word or "" for word in parsed.steps["1"].to_pylist()] == [word for lines in files for _, word in lines]


@pytest.mark.parametrize("name", ["JapaneseVowels", "BasicMotions"])
def test_real_sequences_come_out_as_they_went_in(ray_cluster: None, tmp_path: Path, name: str) -> None:
    try:
        sequences = read_ts(find_ts(name)["train"])
    except FileNotFoundError as error:
        pytest.skip(str(error))
    write_csv(sequences, tmp_path)
    read = rows("classification", tmp_path, skip_lines=1, label_column="label")
    assert [row["label"] for row in read] == [label for _, label in sequences]
    for row, (steps, _) in zip(read, sequences, strict=True):
        np.testing.assert_array_equal(np.array(row["values"], np.float32), np.array(steps, np.float32))
