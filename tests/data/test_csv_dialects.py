"""CSV files as programs write them: what is read of each; and where one is refused, what the message advises works."""

from typing import Any

import pytest

from rayrnn.data.sources.csv_columns import layout_of
from rayrnn.data.sources.csv_parsing import parse
from rayrnn.data.sources.labels import Target
from rayrnn.data.sources.source import Wanted
from rayrnn.errors import RayrnnError
from rayrnn.recipe.data_sections import CsvData
from tests.asked import needs

LONG = "x" * 200_000


def learned(content: str, *, task: str = "classification", **keys: Any) -> tuple[list[list[object]], list[object]]:
    """The steps of one file as they are learned: their features, numbers first; the labels.

    Raises:
        RayrnnError: the file, or one of its steps, is refused.
    """
    data = CsvData.model_validate({"path": "files", "skip_lines": 1, "label_column": "kind"} | keys)
    target = Target(needs(task))
    layout = layout_of(content.encode(), "a.csv", data, target, Wanted(needs(task)))
    parsed = parse([content.encode()], ["a.csv"], layout)
    if parsed.reasons:
        raise RayrnnError(parsed.reasons[0])
    steps = parsed.steps.to_pylist()
    names = (*layout.roles.numbers, *layout.roles.words)
    return [[step[name] for name in names] for step in steps], [step[n] for step in steps for n in layout.roles.labels]


@pytest.mark.parametrize(
    ("content", "keys", "features"),
    [
        # a delimiter that ends each line of data, or each line
        ("x,y,kind\n1,2,up,\n3,4,up,\n", {}, [[1, 2], [3, 4]]),
        ("x,y,kind,\n1,2,up,\n3,4,up,\n", {}, [[1, 2], [3, 4]]),
        ("x,y,kind\n1,2,up, \n3,4,up,\n", {"ignore": [{"place": 3}]}, [[1, 2], [3, 4]]),
        ("x,y,kind,\n1,2,up,\n3,4,up,note\n", {"ignore": [3]}, [[1, 2], [3, 4]]),
        ("x,kind\n1,up,\n", {}, [[1]]),
        # and the index of a DataFrame before
        (",x,kind,\n0,1,up,\n1,2,up,\n", {}, [[1], [2]]),
        (",x,kind\n0,1,up,\n1,2,up,\n", {}, [[1], [2]]),
        ("kind\n1,2,up,\n", {"label_column": {"place": 2}, "features": [0, 1]}, [[1, 2]]),
        ("x;y;kind\r\n1;2;up;\r\n3;4;up;\r\n", {"delimiter": ";"}, [[1, 2], [3, 4]]),
        ("2019,2020,kind\n1,2,up,\n", {}, [[1, 2]]),
        # decimal commas
        ("x;y;kind\n1,5;-2,25;up\n", {"delimiter": ";", "decimal": ","}, [[1.5, -2.25]]),
        ("x;y;kind\n1;+,25e1;up\n", {"delimiter": ";", "decimal": ","}, [[1, 2.5]]),
        ('x,y,kind\n"1,5","2",up\n', {"decimal": ","}, [[1.5, 2]]),
        ("1,5;2,5\n3,5;4,5;up\n", {"delimiter": ";", "decimal": ",", "label_column": 2}, [[3.5, 4.5]]),
        # a cell of any length that nobody wants
        (f"x,y,kind\n1,{LONG},up\n", {"ignore": ["y"]}, [[1]]),
        (f"x,y,kind\n1,{LONG},up\n", {"features": ["x"]}, [[1]]),
        (f'x,y,kind\n1,"{LONG}\n",up\n2,b,up\n', {"features": ["x"]}, [[1], [2]]),
    ],
)
def test_a_file_is_read_as_its_program_meant_it(content: str, keys: dict[str, Any], features: list[object]) -> None:
    read, labels = learned(content, **keys)
    assert read == features
    assert set(labels) == {"up"}


def test_other_files_may_end_their_headers_or_their_steps_in_another_way() -> None:
    contents = ["x,y,kind\n1,2,up,\n", "kind,y,x\nup,4,3,\n", "x,y,kind,\n5,6,up,\n", "x,y,kind\n7,8,up\n"]
    data = CsvData(path="files", skip_lines=1, label_column="kind")
    target = Target(needs("classification"))
    layout = layout_of(contents[0].encode(), "0", data, target, Wanted(needs("classification")))
    parsed = parse([content.encode() for content in contents], list("0123"), layout)
    assert parsed.steps.select(["x", "y"]).to_pylist() == [{"x": 1, "y": 2}, {"x": 3, "y": 4}, {"x": 5, "y": 6}]
    assert parsed.reasons == {3: "3:2: 3 columns where 4 are due (as 0 has)"}


NUMBERS: dict[str, Any] = {"task": "regression", "label_column": "y"}
COMMAS: dict[str, Any] = {"delimiter": ";", "decimal": ","}


@pytest.mark.parametrize(
    ("content", "keys", "advice", "taken", "features"),
    [
        # what is refused; what the message advises; the keys when it is followed, or the file; what is learned then
        ("x;y;kind\n1,5;2,25;up\n", {}, 'data.delimiter: ";" and data.decimal: ","', COMMAS, [1.5, 2.25]),
        ("x;y;kind\n1;2;up\n", {}, 'begins x;y;kind: set data.delimiter: ";"', {"delimiter": ";"}, [1, 2]),
        ("x\ty\tkind\n1\t2\tup\n", {}, "data.delimiter: tab", {"delimiter": "tab"}, [1, 2]),
        ("x,y,kind\n1,2,up\n", {"delimiter": ";"}, 'set data.delimiter: ","', {"delimiter": ","}, [1, 2]),
        (
            "x|kind\n1|up\n",
            {"skip_lines": 0},
            'data.delimiter: "|", and data.skip_lines: 1',
            {"delimiter": "|", "skip_lines": 1},
            [1],
        ),
        (
            "x;y;kind\n1,5;2,25;up\n",
            {"delimiter": ";"},
            "column 'x' is '1,5', which is no number; set data.decimal: \",\"",
            COMMAS,
            [1.5, 2.25],
        ),
        ("x;y;kind\n1.5;2;up\n", COMMAS, 'set data.decimal: "."', {"decimal": "."}, [1.5, 2]),
        ("x,y,kind\n1;2,3;4,up\n", {}, 'set data.delimiter: ";" where', "x;y;kind\n1;2;up\n", None),
        # thousands
        (
            'x,kind\n"1,234.5",up\n',
            {},
            "write the files without ',' between thousands",
            "x,kind\n1234.5,up\n",
            [1234.5],
        ),
        (
            "x;kind\n1.234.567;up\n",
            {"delimiter": ";"},
            "without '.' between thousands",
            "x;kind\n1234567;up\n",
            [1234567],
        ),
        (
            "x;kind\n1.234,5;up\n",
            {"delimiter": ";"},
            "without '.' between thousands and set data.decimal: \",\"",
            COMMAS,
            None,
        ),
        ("x;kind\n1234,5;up\n", {"delimiter": ";"}, 'set data.decimal: ","', COMMAS, [1234.5]),
        ("x,kind\n1 234.5,up\n", {}, "without ' ' between thousands", "x,kind\n1234.5,up\n", [1234.5]),
        ("x;kind\n1\u202f234,5;up\n", COMMAS, "without '\\u202f' between thousands", "x;kind\n1234,5;up\n", [1234.5]),
        ("x,kind\n1'234.5,up\n", {}, 'without "\'" between thousands', "x,kind\n1234.5,up\n", [1234.5]),
        (
            'x,kind\n"1,234",up\n',
            {},
            'set data.decimal: "," where the comma parts the fraction or write',
            {"decimal": ","},
            [1.234],
        ),
        # names of rows, as R writes them
        (
            '"x","y","kind"\n"1",1.5,2.5,"up"\n',
            {},
            "3 names (x, y, kind), the first step has 4 cells; it seems that the first column has no name",
            {"label_column": {"place": 3}, "ignore": [{"place": 0}]},
            [1.5, 2.5],
        ),
        (
            '"x","y","kind"\n"1",1.5,2.5,"up"\n',
            {"label_column": -1},
            "and leave that one out with data.ignore: [{place: 0}]",
            {"ignore": [{"place": 0}]},
            [1.5, 2.5],
        ),
        (
            '"x","y","kind"\n"1",1.5,2.5,"up"\n',
            {"label_column": -1},
            "or name all that are learned in data.features",
            {"features": [1, 2]},
            [1.5, 2.5],
        ),
        (
            "x,y,kind\n1,2,3,4,up\n",
            {},
            "the first step has 5 cells: see whether data.delimiter is right, or give columns by place",
            {"label_column": {"place": 4}, "features": [0, 1]},
            [1, 2],
        ),
        # a last column without a name
        (
            "x,kind\n1,up,\n2,up,late\n",
            {},
            "column {place: 2} has no name, and holds 'late'",
            {"ignore": [{"place": 2}]},
            [1],
        ),
        (
            "x,kind\n1,up,\n2,up,3\n",
            {},
            "name it in the line that names the columns",
            "x,kind,note\n1,up,\n2,up,3\n",
            None,
        ),
        # words
        (
            "x,y,kind\n1,red,up\n",
            {},
            "column 'y' is 'red', which is no number; list it in data.categorical",
            {"categorical": ["y"]},
            [1, "red"],
        ),
        ("x,y,kind\n1,red,up\n", {}, "with data.ignore where there are none", {"ignore": ["y"]}, [1]),
        (
            "x,y,kind\n1,red,up\n",
            {"features": ["x", "y"]},
            "or leave it out (of data.features",
            {"features": ["x"]},
            [1],
        ),
        (
            "x,y,z\n1,red,2\n",
            NUMBERS,
            "see whether data.label_column names the right column",
            {"label_column": "z", "ignore": ["y"]},
            [1],
        ),
        # a header
        (
            "x,y,kind\n1,2,up\n",
            {"skip_lines": 0},
            "a.csv:1 holds the columns' names and is no step: set data.skip_lines: 1",
            {"skip_lines": 1},
            [1, 2],
        ),
        (
            "x,y,kind\n1,2,up\n",
            {"skip_lines": 0, "label_column": 2},
            "if this line names the columns, set data.skip_lines: 1",
            {"skip_lines": 1},
            [1, 2],
        ),
        ("1,2,up\n", {"skip_lines": 0}, "give the column's place, 0 .. 2", {"label_column": 2}, [1, 2]),
        (
            "one\ntwo\n1,2,up\n",
            {"skip_lines": 2},
            "give the column's place, 0 .. 2, or see whether",
            {"label_column": 2},
            [1, 2],
        ),
        (
            "hello\nx,y,kind\n1,2,up\n",
            {"skip_lines": 1, "label_column": 2},
            "a.csv:2: column '0' is 'x'",
            {"skip_lines": 2},
            [1, 2],
        ),
        # names and places
        (
            "x,x,kind\n1,2,up\n",
            {"features": ["x"]},
            "write {place: 0} and {place: 1} for it in the recipe",
            {"features": [{"place": 0}]},
            [1],
        ),
        ("2019,2020,kind\n1,2,up\n", {"features": [0]}, "write {place: 0}", {"features": [{"place": 0}]}, [1]),
        ("x,kind\n1,up\n", {"features": ["x", "kind"]}, "take it out of data.features", {"features": ["x"]}, [1]),
    ],
)
def test_what_a_message_advises_works(
    content: str, keys: dict[str, Any], advice: str, taken: dict[str, Any] | str, features: list[object] | None
) -> None:
    with pytest.raises(RayrnnError) as refused:
        learned(content, **keys)
    assert advice in str(refused.value)
    if isinstance(taken, str):
        content, taken = taken, {}
    if features is not None:
        read, _ = learned(content, **keys | taken)
        assert read[0] == pytest.approx(features)
