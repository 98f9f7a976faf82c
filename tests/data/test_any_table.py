"""Whatever a table looks like, it is read as it was meant: headers, labels, gaps, delimiters, quotes, blanks."""

import csv
import io
import math
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rayrnn.data.arrow_lists import flat
from rayrnn.data.rows import canonical
from rayrnn.data.sources.csv_columns import layout_of
from rayrnn.data.sources.csv_parsing import located, parse
from rayrnn.data.sources.grouping import group, grouping_of, into_buckets
from rayrnn.data.sources.labels import Target
from rayrnn.data.sources.source import Wanted
from rayrnn.data.sources.tables import keyed, rows_of_steps
from rayrnn.recipe.data_sections import CsvData, TableData
from tests.asked import needs

TASKS = ("classification", "tagging", "regression")
MISSING = ("NA", "n/a", "NULL", "-999")
#: names that might be taken for something else
NAMES = ("x", "y", "0", "1", "-1", "007", "2019", "on", "no", "null", "NaN", "a b", "{place: 1}", "Ümlaut", "1e3")
NAMES += ('quo"te', "com,ma", "semi;colon", "label", "t", "id", "values")
WORDS = ("red", "1", "01", "1.5", "no", "true", "a b", "ä", 'say "no"', "x,y", "u;v", "p|q", "tab\tbed", "inf")
CLASSES = ("up", "down", "no", "7", "x,y", 'a"b', "two words")
#: as one writes a number by hand
NUMBERS = st.one_of(
    st.integers(-(2**53), 2**53),
    st.floats(-1e300, 1e300, allow_subnormal=False),
    st.decimals(-1000, 1000, places=3).map(float),
).filter(lambda number: number != -999)


@dataclass(frozen=True)
class Meant:
    """What a table says: a row a step, and for each column what it is for."""

    task: str
    #: name -> numbers, or words with None where there is none
    numbers: dict[str, list[float]]
    words: dict[str, list[str | None]]
    label: str
    labels: list[Any]
    #: the columns in the order of the table, those that nobody asked for too
    names: list[str]
    lengths: list[int]

    @property
    def steps(self) -> int:
        return sum(self.lengths)

    def rows(self) -> list[dict[str, Any]]:
        """The rows that are due, a sequence each."""
        due, start = [], 0
        for length in self.lengths:
            own = slice(start, start + length)
            row: dict[str, Any] = {"label": self.labels[own]}
            if self.task == "classification":
                row["label"] = next(label for label in self.labels[own] if label is not None)
            if self.task == "regression":
                row["label"] = [[math.nan if label is None else float(label)] for label in self.labels[own]]
            features = [name for name in self.names if name in self.numbers]
            steps = range(start, start + length)
            row["values"] = [[float(self.numbers[name][step]) for name in features] for step in steps]
            if self.words:
                chosen = [name for name in self.names if name in self.words]
                row["categories"] = [[self.words[name][step] or "" for name in chosen] for step in steps]
            due.append(row)
            start += length
        return due


@st.composite
def meanings(draw: st.DrawFn) -> Meant:
    task = draw(st.sampled_from(TASKS))
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=6, unique=True))
    label, first, *others = names
    kinds = draw(st.lists(st.sampled_from(["number", "word", "ignored"]), min_size=len(others), max_size=len(others)))
    steps = sum(lengths)

    def column(cells: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(cells, min_size=steps, max_size=steps))

    numbers = {name: column(NUMBERS) for name, kind in zip(others, kinds, strict=True) if kind == "number"}
    words = st.none() | st.sampled_from(WORDS)
    return Meant(
        task,
        {first: column(NUMBERS)} | numbers,
        {name: column(words) for name, kind in zip(others, kinds, strict=True) if kind == "word"},
        label,
        draw(labels_of(task, lengths)),
        draw(st.permutations(names)),
        lengths,
    )


def labels_of(task: str, lengths: list[int]) -> st.SearchStrategy[list[Any]]:
    """A label a step, or None; one a sequence at some of its steps."""
    steps = sum(lengths)
    if task == "regression":
        return st.lists(st.none() | NUMBERS, min_size=steps, max_size=steps)
    if task == "tagging":
        return st.lists(st.none() | st.sampled_from(CLASSES), min_size=steps, max_size=steps)

    def at_some(drawn: tuple[list[str], list[bool]]) -> list[Any]:
        owners = [number for number, length in enumerate(lengths) for _ in range(length)]
        first = [not place or owners[place - 1] != owners[place] for place in range(steps)]
        there = [one or other for one, other in zip(first, drawn[1], strict=True)]
        return [drawn[0][owner] if is_there else None for owner, is_there in zip(owners, there, strict=True)]

    classes = st.lists(st.sampled_from(CLASSES), min_size=len(lengths), max_size=len(lengths))
    return st.tuples(classes, st.lists(st.booleans(), min_size=steps, max_size=steps)).map(at_some)


def same(read: list[dict[str, Any]], due: list[dict[str, Any]]) -> bool:
    return str(read) == str(due)  # NaN is itself then


def chosen(row: dict[str, Any], due: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in due}


@st.composite
def csv_files(draw: st.DrawFn, meant: Meant) -> tuple[list[bytes], dict[str, Any]]:
    """The meaning as CSV files, one a sequence, in any way that people write them; and the recipe's keys for it."""
    delimiter = draw(st.sampled_from([",", ";", "\t", "|"]))
    line_end = draw(st.sampled_from(["\n", "\r\n"]))
    header = draw(st.booleans())
    blank = st.sampled_from(["", "", "", " ", "  ", " \N{NO-BREAK SPACE}"] + ([] if delimiter == "\t" else ["\t"]))
    nothing = ["", "NaN", "nan", "NaT", *(f" {word}" for word in MISSING), " ", '""']

    def cell(value: Any) -> str:
        if value is None:
            return draw(st.sampled_from(nothing))
        text = repr(value) if isinstance(value, float) else str(value)
        must = any(mark in text for mark in (delimiter, '"', "\n", "\r", "\t"))
        quoted = must or (isinstance(value, str) and draw(st.booleans()))
        text = '"' + text.replace('"', '""') + '"' if quoted else text
        return draw(blank) + text + draw(blank)

    columns = {**meant.numbers, **meant.words, meant.label: meant.labels}
    ignored = [name for name in meant.names if name not in columns]
    lines = [[cell(columns[n][step]) if n in columns else cell(draw(st.sampled_from(WORDS))) for n in meant.names]
             for step in range(meant.steps)]  # fmt: skip
    files, start = [], 0
    for length in meant.lengths:
        names = [cell(name) for name in meant.names]
        own = [*([names] if header else []), *lines[start : start + length]]
        end = draw(st.sampled_from(["", line_end]))
        files.append((line_end.join(delimiter.join(line) for line in own) + end).encode())
        start += length
    by_name = header and draw(st.booleans())

    def column(name: str) -> Any:
        return name if by_name else {"place": meant.names.index(name)}

    keys: dict[str, Any] = {
        "path": "x",
        "skip_lines": int(header),
        "delimiter": delimiter,
        "label_column": column(meant.label),
    }
    keys |= {"missing": ["NaN", "nan", "NaT", *MISSING]}
    keys |= {"categorical": [column(name) for name in meant.words], "ignore": [column(name) for name in ignored]}
    if draw(st.booleans()):
        keys["features"] = [column(name) for name in meant.names if name in {**meant.numbers, **meant.words}]
        del keys["ignore"]
    return files, keys


@settings(max_examples=100)
@given(st.data())
def test_csv_files_are_read_as_they_were_meant(data: st.DataObject) -> None:
    meant = data.draw(meanings())
    # what the last header line is taken for would be a guess: all of its names are numbers
    assume(not all(name.replace("-", "").replace("e", "").isdigit() for name in meant.names))
    files, keys = data.draw(csv_files(meant))
    section = CsvData.model_validate(keys)
    asked = needs(meant.task)
    target = Target(asked, section.classes, section.num_classes, section.no_value)
    layout = layout_of(files[0], "0", section, target, Wanted(asked))
    origins = [str(number) for number in range(len(files))]
    parsed = parse(files, origins, layout)
    rows, faults = rows_of_steps(parsed.steps, parsed.offsets, layout.roles)
    reasons = parsed.reasons | located(faults, parsed, files, origins, layout)
    assert not reasons
    table = keyed(pa.array(origins), rows, parsed.files, reasons, on_error="stop").drop_columns("fault")
    due = meant.rows()
    read = [chosen(row, one) for row, one in zip(canonical(table, asked, labelled=True).to_pylist(), due, strict=True)]
    assert same(read, due), f"{files}\n{keys}"


@settings(max_examples=100)
@given(st.data())
def test_a_table_of_steps_is_read_as_it_was_meant(data: st.DataObject) -> None:
    meant = data.draw(meanings())
    assume(not {"id", "t"} & set(meant.names))
    draw, steps = data.draw, meant.steps
    owners = [f"s{number}" for number, length in enumerate(meant.lengths) for _ in range(length)]
    blank = st.sampled_from(["", " ", "\t", "\N{NO-BREAK SPACE}"])
    places = [place for length in meant.lengths for place in range(length)]
    as_text = draw(st.booleans())
    columns: dict[str, Any] = {"id": [draw(blank) + owner + draw(blank) for owner in owners]}
    columns["t"] = [draw(blank) + str(place * 7) for place in places] if as_text else places
    nothing = st.sampled_from([None, "", " ", "NaN", *MISSING])
    for name in meant.names:
        if name in meant.numbers:
            columns[name] = pa.array(meant.numbers[name], pa.float64())
        elif name in meant.words or (name == meant.label and meant.task != "regression"):
            cells = meant.words.get(name, meant.labels)
            columns[name] = pa.array(
                [draw(nothing) if cell is None else draw(blank) + cell for cell in cells], pa.string()
            )
        elif name == meant.label:
            gap = st.sampled_from([None, math.nan, -999.0])
            columns[name] = pa.array(
                [draw(gap) if cell is None else float(cell) for cell in meant.labels], pa.float64()
            )
        else:
            columns[name] = draw(st.lists(st.sampled_from(WORDS), min_size=steps, max_size=steps))
    table = pa.table(columns).take(pa.array(draw(st.permutations(range(steps)))))
    section = TableData.model_validate(
        {
            "source": "table",
            "key": "id",
            "order_by": "t",
            "label": meant.label,
            "categorical": list(meant.words),
            "ignore": [name for name in meant.names if name not in {**meant.numbers, **meant.words}],
            "missing": (*MISSING, "NaN"),
        }
    )
    asked = needs(meant.task)
    grouping = grouping_of(section, Wanted(asked), table.schema)
    blocks = [group(bucket, grouping=grouping) for bucket in into_buckets(table, grouping, 3) if len(bucket)]
    rows = [row for block in blocks for row in rows_without_fault(block, asked)]
    due = {f"s{number}": row for number, row in enumerate(meant.rows())}
    read = sorted(rows, key=lambda row: int(row["key"][1:]))
    assert [row["key"] for row in read] == list(due)
    assert same([chosen(row, due[row["key"]]) for row in read], list(due.values())), f"{columns}"


def rows_without_fault(block: pa.Table, asked: Any) -> list[dict[str, Any]]:
    assert flat(block["fault"]).null_count == len(block), block["fault"].to_pylist()
    rows: list[dict[str, Any]] = canonical(block.drop_columns("fault"), asked, labelled=True).to_pylist()
    return rows


ANY_CELL = st.text(alphabet='ab ,;"\t\n\r\N{NO-BREAK SPACE}', max_size=6)


@given(st.lists(st.lists(ANY_CELL, min_size=2, max_size=3), min_size=1, max_size=5))
def test_whatever_a_cell_holds_inside_quotes_it_is_read_so(cells: list[list[str]]) -> None:
    width = len(cells[0])
    lines = [(line + line)[:width] for line in cells]
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([*(["1", *line] for line in lines)])
    section = CsvData.model_validate(
        {"path": "x", "categorical": [{"place": n + 1} for n in range(width)], "missing": []}
    )
    layout = layout_of(text.getvalue().encode(), "a", section, Target(needs("tagging")), Wanted(needs("tagging")))
    steps = parse([text.getvalue().encode()], ["a"], layout).steps
    read = [[cell or "" for cell in steps[name].to_pylist()] for name in layout.roles.words]
    assert read == [[line[place] for line in lines] for place in range(width)]
