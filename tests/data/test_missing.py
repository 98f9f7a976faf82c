"""What is no value is none in every role and from every source; blanks around a cell never count."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rayrnn.data.arrow_lists import flat
from rayrnn.data.rows import canonical
from rayrnn.data.sources.csv_columns import layout_of
from rayrnn.data.sources.csv_parsing import parse
from rayrnn.data.sources.grouping import group, grouping_of
from rayrnn.data.sources.labels import Target
from rayrnn.data.sources.source import Wanted
from rayrnn.data.sources.tables import rows_of_sequences, rows_of_steps
from rayrnn.data.words import present, words
from rayrnn.errors import DataError
from rayrnn.recipe.data_sections import CsvData, TableData
from tests.asked import needs

NAN = float("nan")
#: as it stands in a CSV file; what a table has in its place
NOTHING: list[tuple[str, Any]] = [("", None), ("", ""), ("   ", "  "), ("\t", "\t"), ("NaN", NAN), ("nan", "nan")]
NOTHING += [
    ("-nan", "-nan"),
    ("+NaN", "-NaN"),
    ("-NAN", "NAN"),
    ("NaT", "NaT"),
    ("\N{NO-BREAK SPACE}", "\N{NO-BREAK SPACE}"),
    (" NaN ", " NaN "),
]


def by_csv(lines: list[str], task: str, **keys: Any) -> dict[str, Any]:
    """The canonical row of one CSV file with the columns x, word and label; or its faults."""
    content = "\n".join(["x,word,label", *lines, ""]).encode()
    data = CsvData.model_validate({"path": "files", "skip_lines": 1, "label_column": "label"} | keys)
    target = Target(needs(task), data.classes, data.num_classes, data.no_value)
    layout = layout_of(content, "a.csv", data, target, Wanted(needs(task)))
    parsed = parse([content], ["a.csv"], layout)
    assert not parsed.reasons, parsed.reasons
    rows, faults = rows_of_steps(parsed.steps, parsed.offsets, layout.roles)
    if faults:
        return {"fault": faults[0].reason}
    row: dict[str, Any] = canonical(rows.add_column(0, "key", pa.array(["a"])), needs(task), labelled=True).to_pylist()
    return row[0]


def by_table(columns: dict[str, Any], task: str, **keys: Any) -> dict[str, Any]:
    """The canonical row of a table with one row a step; or its fault."""
    steps = pa.table(columns)
    steps = steps.append_column("t", pa.array(range(len(steps)))).append_column("id", pa.array(["a"] * len(steps)))
    data = TableData.model_validate({"source": "table", "key": "id", "order_by": "t", "label": "label"} | keys)
    rows = group(steps, grouping=grouping_of(data, Wanted(needs(task)), steps.schema))
    if rows["fault"][0].is_valid:
        return {"fault": rows["fault"][0].as_py()}
    return canonical(rows.drop_columns("fault"), needs(task), labelled=True).to_pylist()[0]


@pytest.mark.parametrize(("cell", "value"), NOTHING)
def test_no_value_is_no_label(cell: str, value: Any) -> None:
    features: Any = {"features": ["x"]}
    there = {"NaN": 1.0, "nan": "1"}.get(cell, "1") if isinstance(value, float) else "1"
    assert by_csv([f"1,a,{cell}", "2,a,1"], "tagging", **features)["label"] == [None, "1"]
    assert by_table({"x": [1.0, 2.0], "label": [value, there]}, "tagging", **features)["label"] == [None, "1"]
    assert by_csv([f"1,a,{cell}", "2,a,1"], "classification", **features)["label"] == "1"
    assert by_table({"x": [1.0, 2.0], "label": [value, there]}, "classification", **features)["label"] == "1"


@pytest.mark.parametrize(("cell", "value"), NOTHING)
def test_no_value_is_none_of_a_categorys_words(cell: str, value: Any) -> None:
    keys: Any = {"features": ["x", "word"], "categorical": ["word"]}
    there = 7.0 if isinstance(value, float) else "7"
    assert by_csv([f"1,{cell},u", "2,7,u"], "classification", **keys)["categories"] == [[""], ["7"]]
    table = {"x": [1.0, 2.0], "word": [value, there], "label": ["u", "u"]}
    assert by_table(table, "classification", **keys)["categories"] == [[""], ["7"]]


@pytest.mark.parametrize(("cell", "value"), NOTHING)
def test_no_value_is_no_symbol(cell: str, value: Any) -> None:
    keys: Any = {"features": ["word"], "categorical": ["word"]}
    there = 7.0 if isinstance(value, float) else "7"
    said = "column 'word' is empty; every step needs a symbol"
    assert said in by_csv([f"1,{cell},u", "2,7,u"], "classification", **keys)["fault"]
    assert said in by_table({"word": [there, value], "label": ["u", "u"]}, "classification", **keys)["fault"]


@pytest.mark.parametrize("cell", ["", " ", "NaN", " nan\t", "-nan", "NaT"])
def test_no_value_is_no_number(cell: str) -> None:
    assert "column 'x' is empty" in by_csv([f"{cell},a,u"], "classification", features=["x"])["fault"]
    row = by_csv([f"1,a,{cell}", "2,a,5"], "regression", features=["x"])
    np.testing.assert_array_equal(row["label"], [[np.nan], [5]])


@pytest.mark.parametrize("value", [None, NAN])
def test_no_value_is_no_number_of_a_table(value: Any) -> None:
    assert (
        "column 'x' is empty"
        in by_table({"x": [1.0, value], "label": ["u", "u"]}, "classification", features=["x"])["fault"]
    )
    row = by_table({"x": [1.0, 2.0], "label": [value, 5.0]}, "regression", features=["x"])
    np.testing.assert_array_equal(row["label"], [[np.nan], [5]])


@pytest.mark.parametrize(("cell", "value"), NOTHING)
def test_a_step_without_a_key_is_told_of(cell: str, value: Any) -> None:
    steps = pa.table({"id": [value, 1.0 if isinstance(value, float) else "a"], "t": [0, 1], "x": [1.0, 2.0]})
    data = TableData.model_validate({"source": "table", "key": "id", "order_by": "t", "horizon": 1})
    rows = group(steps, grouping=grouping_of(data, Wanted(needs("regression", 1)), steps.schema)).to_pylist()
    assert rows[-1]["fault"] == "column 'id' (data.key) is empty in 1 rows"


@pytest.mark.parametrize("word", ["NA", "N/A", "null", "NULL", "-999"])
def test_words_for_missing_are_given_in_the_recipe(word: str) -> None:
    missing = {"features": ["x"], "missing": ["NA", "N/A", None, -999]}
    assert by_csv([f"1,a,{word}", "2,a,u"], "tagging", **missing)["label"] == [None, "u"]
    assert by_table({"x": [1.0, 2.0], "label": [word, "u"]}, "tagging", **missing)["label"] == [None, "u"]
    assert "column 'x' is empty" in by_csv([f"{word},a,u"], "classification", **missing)["fault"]
    assert by_csv([f"1,a,{word}", "2,a,u"], "tagging", features=["x"])["label"] == [word, "u"]


@pytest.mark.parametrize("cells", [[-999, 5], [-999.0, 5.0], [-999.0, None]])
def test_a_number_for_missing_is_one_however_it_is_kept(cells: list[Any]) -> None:
    said = by_table({"x": cells, "label": ["u", "u"]}, "classification", features=["x"], missing=["-999"])["fault"]
    assert "t 0: column 'x' is empty" in said
    other = by_table({"x": [10.0, None], "label": ["u", "u"]}, "tagging", features=["x"], missing=["1_0"])
    assert "t 1: column 'x' is empty" in other["fault"]
    assert by_csv(["-999.0,a,u"], "classification", features=["x"], missing=["-999"])["fault"] in said


def test_a_class_that_is_called_nan_is_one_where_the_recipe_names_it() -> None:
    classes: Any = {"features": ["x"], "classes": ["nan", "roti"]}
    assert by_csv(["1,a,nan", "2,a,roti"], "tagging", **classes)["label"] == ["nan", "roti"]
    assert by_csv(["1,a,nan", "2,a,u"], "tagging", features=["x"], missing=[])["label"] == ["nan", "u"]
    assert by_csv(["1,a,-nan", "2,a,u"], "tagging", features=["x"], missing=["NA"])["label"] == ["-nan", "u"]


@pytest.mark.parametrize(
    ("cell", "due"),
    [
        ("10", "10"),
        ("10.0", "10"),
        ("1e1", "10"),
        ("+1", "1"),
        ("-0", "0"),
        ("1_0", None),
        ("\N{FULLWIDTH DIGIT ONE}", None),
    ],
)
def test_a_class_by_number_is_what_a_column_of_numbers_takes_for_one(cell: str, due: str | None) -> None:
    row = by_csv([f"1,a,{cell}"], "classification", features=["x"], num_classes=11)
    assert row.get("label") == due
    assert due or "which is no whole number in 0 .. 10" in row["fault"]


@pytest.mark.parametrize("cell", [" red", "red ", "\tred", "  red\t ", "\N{NO-BREAK SPACE}red", ' "red" '])
def test_blanks_around_a_cell_never_count(cell: str) -> None:
    keys: Any = {"features": ["x", "word"], "categorical": ["word"]}
    row = by_csv([f" 1 ,{cell}, {cell} "], "classification", **keys)
    assert (row["values"], row["categories"], row["label"]) == ([[1.0]], [["red"]], "red")
    word = cell.replace('"', "")
    row = by_table({"x": [1.0], "word": [word], "label": [f" {word} "]}, "classification", **keys)
    assert (row["values"], row["categories"], row["label"]) == ([[1.0]], [["red"]], "red")


def test_blanks_inside_quotes_are_part_of_a_csv_cell() -> None:
    keys: Any = {"features": ["x", "word"], "categorical": ["word"]}
    row = by_csv(['1,"  a, ""b"" ", " u" '], "classification", **keys)
    assert (row["categories"], row["label"]) == ([['  a, "b" ']], " u")


def test_a_delimiter_that_is_a_blank_is_none() -> None:
    content = b"x\tword\tlabel\n1 \t red\tu\n2\t\tu\n"
    data = CsvData.model_validate(
        {"path": "files", "skip_lines": 1, "delimiter": "tab", "label_column": "label", "categorical": ["word"]}
    )
    target = Target(needs("classification"), missing=data.no_value)
    parsed = parse([content], ["a.csv"], layout_of(content, "a.csv", data, target, Wanted(needs("classification"))))
    assert parsed.steps["word"].to_pylist() == ["red", None]


def test_padded_keys_name_one_sequence() -> None:
    steps = pa.table({"id": ["a ", " a", "b", "a"], "t": [1, 0, 0, 2], "x": [1.0, 2.0, 3.0, 4.0]})
    data = TableData.model_validate({"source": "table", "key": "id", "order_by": "t", "horizon": 1})
    rows = group(steps, grouping=grouping_of(data, Wanted(needs("regression", 1)), steps.schema))
    assert rows["key"].to_pylist() == ["a", "b"]
    assert rows["values"].to_pylist()[0] == [[2.0], [1.0], [4.0]]


def test_rows_that_are_sequences_have_the_same_rules() -> None:
    table = pa.table(
        {
            "id": [" a", "b", "c"],
            "x": [[1.0], [2.0], [3.0]],
            "word": [[" red "], ["NA"], [None]],
            "label": pa.array([1.0, NAN, None]),
        }
    )
    names = {"key": "id", "values": "x", "label": "label"}
    rows = canonical(rows_of_sequences(table, names, ["word"], ["NA"]), needs("classification"), labelled=True)
    assert rows["key"].to_pylist() == ["a", "b", "c"]
    assert rows["categories"].to_pylist() == [[["red"]], [[""]], [[""]]]
    assert rows["label"].to_pylist() == ["1", None, None]
    table = rows_of_sequences(pa.table({"id": ["a"], "s": [["x", " NA"]]}), {"key": "id", "symbols": "s"}, [], ["NA"])
    with pytest.raises(DataError, match=r"sequence 'a', step 1: `symbols` is empty"):
        canonical(table, needs("language_model"), labelled=False)


def test_whole_numbers_are_the_same_words_where_gaps_made_them_floats() -> None:
    with_gap = words(pa.array([1.0, None, 12.0]), ())
    assert with_gap.to_pylist() == ["1", None, "12"]
    assert flat(words(pa.array([1, 2])))[0].as_py() == "1"


def test_a_list_that_is_not_there_is_no_empty_list() -> None:
    cells = pa.array([["a", " b "], None, [], ["NA"]])
    assert present(cells, ["NA"]).to_pylist() == [["a", "b"], None, [], [None]]
