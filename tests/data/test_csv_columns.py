"""Which column of a CSV file is which: names and places never stand for each other, and no column is read twice."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayrnn.data.sources.csv_columns import Layout, layout_of
from rayrnn.data.sources.csv_parsing import parse
from rayrnn.data.sources.labels import Target
from rayrnn.data.sources.source import Wanted
from rayrnn.errors import RayrnnError
from rayrnn.recipe.data_sections import CsvData
from tests.asked import needs

PANDAS = ",0,1,2,kind\n0,-10.0,0.5,-0.5,up\n"
YEARS = "2019,2020,2021,kind\n1,2,3,up\n"


def layout(
    content: str, *, task: str = "classification", without: tuple[str, ...] | None = None, **keys: Any
) -> Layout:
    """
    Args:
        without: labels are not wanted; the names that a model has learned.
    """
    data = CsvData.model_validate({"path": "files", "skip_lines": 1} | keys)
    wanted = Wanted(needs(task), labelled=without is None, column_names=without or ())
    return layout_of(content.encode(), "a.csv", data, Target(needs(task)), wanted)


def learned(content: str, *more: str, **keys: Any) -> tuple[list[object], list[object]]:
    """The first step of the last file as it is learned: its features, numbers first; its labels."""
    read = layout(content, **keys)
    contents = [content, *more]
    parsed = parse([one.encode() for one in contents], [f"{number}.csv" for number in range(len(contents))], read)
    assert parsed.reasons == {}
    step = parsed.steps.slice(parsed.offsets[-2], 1)

    def cells(names: tuple[str, ...]) -> list[object]:
        return [step[name][0].as_py() for name in names]

    return cells((*read.roles.numbers, *read.roles.words)), cells(read.roles.labels)


@pytest.mark.parametrize(
    ("content", "keys", "features", "labels"),
    [
        # pandas' to_csv: an index without a name, columns called by numbers
        (PANDAS, {"label_column": "kind"}, [-10, 0.5, -0.5], ["up"]),
        (PANDAS, {"label_column": -1}, [-10, 0.5, -0.5], ["up"]),
        (PANDAS, {"label_column": "kind", "features": [0, 1]}, [-10, 0.5], ["up"]),
        (PANDAS, {"label_column": "kind", "features": ["2", "0"]}, [-0.5, -10], ["up"]),
        (PANDAS, {"label_column": "kind", "features": [{"place": 0}, 2]}, [0, -0.5], ["up"]),
        (PANDAS, {"label_column": "kind", "ignore": [0]}, [0.5, -0.5], ["up"]),
        (PANDAS, {"label_column": "kind", "ignore": [{"place": 0}]}, [-10, 0.5, -0.5], ["up"]),
        (PANDAS, {"label_column": "kind", "ignore": [7, {"place": 9}]}, [-10, 0.5, -0.5], ["up"]),
        # columns that are called by years
        (YEARS, {"label_column": "kind", "features": [2021]}, [3], ["up"]),
        (YEARS, {"label_column": 2021, "features": [2019], "task": "regression"}, [1], [3]),
        (YEARS, {"label_column": {"place": -1}, "features": [{"place": 1}]}, [2], ["up"]),
        ("2019,2020\n1,2\n", {"features": [2020]}, [2], []),
        ("1,0,k\n5,6,up\n", {"label_column": "k", "features": [0, 1]}, [6, 5], ["up"]),
        ("007,7,k\n5,6,up\n", {"label_column": "k", "features": ["007"]}, [5], ["up"]),
        ("-1,1,k\n5,6,up\n", {"label_column": "k", "features": [-1]}, [5], ["up"]),
        # names that look like what stands for a missing one
        ("{place: 1},,k\n5,6,up\n", {"label_column": "k"}, [5, 6], ["up"]),
        ("{place: 1},,k\n5,6,up\n", {"label_column": "k", "features": ["{place: 1}"]}, [5], ["up"]),
        ("{place: 1},,k\n5,6,up\n", {"label_column": "k", "features": [{"place": 1}]}, [6], ["up"]),
        ('"({place: 1})",,"{place: 1}"\n5,6,7\n', {}, [5, 6, 7], []),
        # no names at all, and names that are there twice
        (",,k\n5,6,up\n", {"label_column": "k"}, [5, 6], ["up"]),
        ("x,x,k\n5,6,up\n", {"label_column": "k", "features": [{"place": 1}]}, [6], ["up"]),
        ("x,x,k\n5,6,up\n", {"label_column": "k", "features": [1]}, [6], ["up"]),
        ("x,y,k\n5,6,up\n", {"label_column": 2, "features": [1, 0]}, [6, 5], ["up"]),
        # words of YAML
        ("x,y,on,k\n1,20,300,up\n", {"label_column": "k", "features": ["x", "on"]}, [1, 300], ["up"]),
        ("no,yes,k\n1,20,up\n", {"label_column": "k", "features": ["yes"]}, [20], ["up"]),
        ("true,x,k\n1,20,up\n", {"label_column": "k", "features": [True]}, [1], ["up"]),
        # a first line that is no header
        ("1,2,3\n5,6,up\n", {"label_column": {"place": 2}, "features": [{"place": 0}]}, [5], ["up"]),
        ("7,8,9\n5,6,up\n", {"label_column": 2, "features": [0]}, [5], ["up"]),
        ("made by hand\n5,6,up\n", {"label_column": 2}, [5, 6], ["up"]),
    ],
)  # fmt: skip
def test_a_name_in_the_header_wins_over_a_place_and_every_column_is_learned_once(
    content: str, keys: dict[str, Any], features: list[object], labels: list[object]
) -> None:
    assert learned(content, **keys) == (features, labels)


@pytest.mark.parametrize(
    ("content", "keys", "told"),
    [
        (PANDAS, {"features": [1, 2, 3]}, "no column called 3 in a.csv:1; the columns are {place: 0}, 0, 1, 2, kind"),
        (PANDAS, {"label_column": "kind", "ignore": [3]}, "if the column at this place is meant, write {place: 3}"),
        (YEARS, {"label_column": 3, "features": [2019]}, "if the column at this place is meant, write {place: 3}"),
        (YEARS, {"label_column": 2018, "features": [2019]}, "there is no column '2018' in a.csv:1"),
        (YEARS, {"label_column": {"place": 4}}, "there is no column 4 in a.csv: it has 4, 0 .. 3"),
        ("1,2,3\n5,6,up\n", {"label_column": 2, "features": [0]}, "no column called 0 in a.csv:1"),
        ("x,x,k\n5,6,up\n", {"features": ["x"]}, "'x' is there 2 times in a.csv:1: write {place: 0} and {place: 1}"),
        ("x,x,k\n5,6,up\n", {"ignore": ["x"]}, "'x' is there 2 times in a.csv:1: write {place: 0} and {place: 1}"),
        ("x,y,k\n5,6,up\n", {"features": ["x", 0]}, "data.features names column 'x' of a.csv twice"),
        ("x,y,k\n5,6,up\n", {"categorical": ["x", "x"]}, "data.categorical names column 'x' of a.csv twice"),
    ],
)  # fmt: skip
def test_what_may_be_a_name_as_well_as_a_place_is_refused_with_what_to_write(
    content: str, keys: dict[str, Any], told: str
) -> None:
    with pytest.raises(RayrnnError) as refused:
        layout(content, **keys)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        (PANDAS, {"label_column": "kind"}),
        (YEARS, {"label_column": "kind"}),
        (YEARS, {"label_column": "kind", "features": [2020, 2019]}),
        ("t,2019,2020\n1,2,3\n", {"label_column": "t"}),
    ],
)
def test_names_that_are_numbers_say_which_column_is_which_in_other_files_and_are_kept(
    content: str, keys: dict[str, Any]
) -> None:
    header, first = (line.split(",") for line in content.split("\n")[:2])
    # what has no name stays at its place
    named = [place for place, name in enumerate(header) if name]
    places = [*range(len(header) - len(named)), *reversed(named)]
    other = f"{','.join(header[p] for p in places)}\n{','.join(first[p] for p in places)}\n"
    assert learned(content, **keys) == learned(content, other, **keys)
    assert layout(content, **keys).roles.are_named


def test_a_missing_label_and_a_missing_ignored_column_are_passed_over_without_labels() -> None:
    keys: dict[str, Any] = {"label_column": "kind", "ignore": [2018, "note"]}
    assert layout("2020,2019\n1,2\n", without=("2019", "2020"), **keys).roles.numbers == ("2020", "2019")
    assert layout(YEARS, without=("2019", "2020", "2021"), **keys).roles.numbers == ("2019", "2020", "2021")


def test_a_column_that_was_not_learned_is_left_alone_where_all_others_are_there() -> None:
    keys: dict[str, Any] = {"label_column": "kind"}
    assert layout(YEARS, without=("2019", "2021"), **keys).roles.numbers == ("2019", "2021")
    assert layout(YEARS, without=("2018", "2021"), **keys).roles.numbers == ("2019", "2020", "2021")


NAMES = st.sampled_from(
    ["", "x", "y", "0", "1", "2", "-1", "007", "{place: 0}", "({place: 1})", "on", "no", "1.0", "a b"]
)


@given(st.lists(NAMES, min_size=1, max_size=6), st.booleans())
def test_whatever_the_header_every_column_is_learned_once_and_in_order(header: list[str], has_label: bool) -> None:
    values = [10.0 * (place + 1) for place in range(len(header))]
    lines = [",".join([*header, "kind"]), ",".join([*map(str, values), "up"])]
    content = "".join(f"{line}\n" for line in lines)
    has_index = header[0] == "" and header.count("") == 1 < len(header)
    assert learned(content, label_column="kind") == (values[has_index:], ["up"])
    for place in range(len(header)):
        assert learned(content, label_column={"place": -1}, features=[{"place": place}]) == ([values[place]], ["up"])


@given(st.lists(NAMES, min_size=1, max_size=6), st.integers(-7, 7))
def test_whatever_a_recipe_calls_a_column_it_gets_the_one_of_this_name_or_place_or_an_error(
    header: list[str], number: int
) -> None:
    values = [10.0 * (place + 1) for place in range(len(header))]
    content = f"{','.join([*header, 'kind'])}\n{','.join([*map(str, values), 'up'])}\n"
    by_name = [value for name, value in zip(header, values, strict=True) if name == str(number)]
    if len(by_name) == 1:
        assert learned(content, label_column="kind", features=[number]) == (by_name, ["up"])
    elif by_name or any(name.lstrip("-").isdecimal() and (name[0] == "-") == (number < 0) for name in header):
        with pytest.raises(RayrnnError, match=r"there is no column|times in a\.csv:1"):
            layout(content, label_column="kind", features=[number])
    elif -len(header) - 1 < number < len(header) and number != -1:
        place = values[number + 1 if number < 0 else number]
        assert learned(content, label_column="kind", features=[number]) == ([place], ["up"])


@pytest.mark.parametrize(
    ("first", "second"), [(",0,k\n5,6,up\n", "0,,k\n5,6,up\n"), ("0,x,k\n5,6,up\n", ",x,k\n5,6,up\n")]
)
def test_a_column_without_a_name_is_never_taken_for_another_files(first: str, second: str) -> None:
    read = layout(first, label_column="k")
    parsed = parse([first.encode(), second.encode()], ["a.csv", "b.csv"], read)
    assert parsed.reasons[1].startswith("b.csv:1: the columns are")


TURNED = "2020,2019,2021\n20,10,30\n"


@pytest.mark.parametrize(
    ("first", "other", "keys", "refused"),
    [
        ("2019,2020,2021\n10,20,30\n", TURNED, {}, True),
        (" 2019,2020,2021\n10,20,30\n", '"2020", 2019,2021 \r\n20,10,30\r\n', {}, True),
        ("2019,2020,kind\n1,2,up\n", "2020,2019,kind\n2,1,up\n", {"label_column": 2}, True),
        ("made\n2019,2020\n1,2\n", "later\n2020,2019\n2,1\n", {"skip_lines": 2}, True),
        ("2019,2020,2021\n10,20,30\n", "2019,2020,2021\n1,2,3\n", {}, False),
        # a name that the recipe knows makes it a header, and a place makes it none that counts
        ("2019,2020,2021\n10,20,30\n", TURNED, {"features": [2019, 2020]}, False),
        ("2019,2020,2021\n10,20,30\n", TURNED, {"features": [{"place": 0}, {"place": 1}]}, False),
        # lines that are no header
        ("made on 2024-01-01\n10,20,30\n", "made on 2024-01-02\n1,2,3\n", {}, False),
        ("7,8,9\n10,20,30\n", "7,8,10\n1,2,3\n", {}, False),
        ("7,7,9\n10,20,30\n", "7,9,7\n1,2,3\n", {}, False),
        ("1\n10,20\n", "2\n1,2\n", {}, False),
    ],
)
def test_numbers_that_may_be_names_and_stand_in_another_order_are_refused(
    first: str, other: str, keys: dict[str, Any], refused: bool
) -> None:
    read = layout(first, task="classification" if "label_column" in keys else "regression", **keys)
    parsed = parse([first.encode(), other.encode(), first.encode()], ["a.csv", "b.csv", "c.csv"], read)
    assert list(parsed.reasons) == ([1] if refused else [])
    assert list(parsed.files) == ([0, 2] if refused else [0, 1, 2])
    for reason in parsed.reasons.values():
        assert f"b.csv:{keys.get('skip_lines', 1)}: the skipped line is 2020, 2019" in reason
        assert "in a.csv it is 2019, 2020" in reason
        assert "Name them in data.features" in reason


def test_what_is_advised_for_numbers_in_another_order_is_learned() -> None:
    assert learned("2019,2020,2021\n10,20,30\n", TURNED, features=[2019, 2020, 2021]) == ([10, 20, 30], [])
    assert learned("2019,2020,2021\n10,20,30\n", TURNED, features=[{"place": 0}, {"place": 1}]) == ([20, 10], [])
