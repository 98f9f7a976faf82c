"""Random tables, written as programs write CSV: what is learned is what was meant, whatever the header, delimiter and
line ends are, and however the recipe names its columns."""

import csv
import io
from dataclasses import dataclass
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from tests.data.test_csv_dialects import learned

#: names of columns, also ones that look like numbers, places, words of YAML or quoted cells
NAMES = ("x", "y", "2019", "0", "1", "-1", "007", "1,5", "{place: 0}", "on", "a b", 'say "x"', "a;b", "ü", "nan", "")
DELIMITERS = (",", ";", "\t", "|")
LINE_ENDS = ("\n", "\r\n", "\r")


@dataclass(frozen=True)
class Table:
    """What is meant, and how it is written."""

    names: tuple[str, ...]
    #: a step a row; a feature is a number or missing, the label a word or missing
    rows: tuple[tuple[float | str | None, ...], ...]
    label: int
    delimiter: str
    decimal: str
    line_end: str
    quoting: Any
    padding: str
    preamble: int
    #: a delimiter at the end of each line of data, and of the header
    trailing: tuple[bool, bool]

    def written(self) -> str:
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=self.delimiter, lineterminator=self.line_end, quoting=self.quoting)
        for _ in range(self.preamble):
            writer.writerow(["made by hand"])
        writer.writerow([*self.names, *([""] if self.trailing[1] else [])])
        for row in self.rows:
            writer.writerow([*map(self.cell, row), *([""] if self.trailing[0] else [])])
        return text.getvalue()

    def cell(self, value: float | str | None) -> str:
        if isinstance(value, float):
            return self.padding + str(value).replace(".", self.decimal)
        return value or ""


@st.composite
def tables(draw: st.DrawFn) -> Table:
    count = draw(st.integers(1, 5))
    features = draw(st.lists(st.sampled_from(NAMES), min_size=count, max_size=count))
    label = draw(st.integers(0, count))
    names = [*features[:label], "kind", *features[label:]]
    trailing = draw(st.sampled_from([(False, False), (True, True), (True, False)]))
    if not names[-1]:
        names[-1] = "last"  # without a name and a first cell it would be no column
    numbers = st.none() | st.integers(-4000, 4000).map(lambda number: number / 8)
    row = st.tuples(
        *[st.sampled_from([None, "up", "down"]) if place == label else numbers for place in range(count + 1)]
    )
    return Table(
        names=tuple(names),
        rows=tuple(draw(st.lists(row, min_size=1, max_size=4).filter(lambda rows: rows[0][label] is not None))),
        label=label,
        delimiter=draw(st.sampled_from(DELIMITERS)),
        decimal=draw(st.sampled_from(".,")),
        line_end=draw(st.sampled_from(LINE_ENDS)),
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        padding=draw(st.sampled_from(["", " "])),
        preamble=draw(st.integers(0, 2)),
        trailing=trailing,
    )


def chosen(table: Table, draw: st.DataObject) -> tuple[dict[str, Any], list[int]]:
    """Keys that name some features, each by its name or its place, or none; and the places that are meant."""
    places = [place for place in range(len(table.names)) if place != table.label]
    keys: dict[str, Any] = {"delimiter": table.delimiter, "decimal": table.decimal, "skip_lines": 1 + table.preamble}

    def named(place: int) -> object:
        by_name = table.names[place] and table.names.count(table.names[place]) == 1 and draw.draw(st.booleans())
        return table.names[place] if by_name else {"place": place}

    keys["label_column"] = named(table.label)
    how = draw.draw(st.sampled_from(["all", "features", "ignore"]))
    # a first column without a name is the index of a DataFrame, where it is the only one
    meant = [place for place in places if place or table.names[0] or table.names.count("") > 1]
    some = draw.draw(st.lists(st.sampled_from(places), min_size=1, max_size=len(places), unique=True))
    if how == "features":
        return keys | {"features": list(map(named, some))}, some
    if how == "ignore" and set(meant) > set(some):
        return keys | {"ignore": list(map(named, some))}, [place for place in meant if place not in some]
    assume(meant)
    return keys, meant


@given(tables(), st.data())
def test_what_is_learned_is_what_was_meant(table: Table, draw: st.DataObject) -> None:
    keys, places = chosen(table, draw)
    if table.trailing[0]:
        keys["label_column"] = "kind"  # the header is known for one by it, whatever else it names
    for mark in ("", "\N{BYTE ORDER MARK}"):
        features, labels = learned(mark + table.written(), task="tagging", **keys)
        assert features == [[row[place] for place in places] for row in table.rows]
        assert labels == [row[table.label] for row in table.rows]
