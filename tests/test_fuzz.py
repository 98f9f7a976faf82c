"""Whatever a file holds, it ends in a value or in an error of ours. `pytest tests/test_fuzz.py --fuzz-seconds 60`."""

import datetime
import decimal
import json
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rayrnn.cluster.cluster_file import read_cluster_file
from rayrnn.data.encoding import Encoding, Numbers
from rayrnn.data.fitting import fit_encoding, losses
from rayrnn.data.rows import canonical
from rayrnn.data.sequences import gather, take
from rayrnn.data.sources import read
from rayrnn.data.sources.csv_columns import layout_of
from rayrnn.data.sources.csv_parsing import located, parse
from rayrnn.data.sources.grouping import group, grouping_of
from rayrnn.data.sources.labels import Target
from rayrnn.data.sources.source import Wanted
from rayrnn.data.sources.tables import keyed, rows_of_sequences, rows_of_steps
from rayrnn.errors import RayrnnError
from rayrnn.recipe import recipe_from, shipped_recipes, task_named
from rayrnn.recipe.data_sections import CsvData, ParquetData, TableData
from rayrnn.recipe.text_sections import TextData
from rayrnn.runs.checkpoints import Checkpoint, newest_checkpoint, read_checkpoint, write_checkpoint
from rayrnn.runs.directory import Run, create_run
from rayrnn.tasks import Choices
from rayrnn.training.progress import Progress
from tests.asked import needs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]

TASKS = ("classification", "tagging", "regression", "language_model")
#: what is put where something else stood
TOKENS = (
    *(
        b"",
        b" ",
        b"\t",
        b"\n",
        b"\r\n",
        b"\r",
        b",",
        b";",
        b'"',
        b'""',
        b"'",
        b":",
        b": ",
        b"- ",
        b"[",
        b"]",
        b"{",
        b"}",
    ),
    *(b"null", b"~", b"true", b"yes", b"NaN", b"nan", b".nan", b"-.inf", b"Infinity", b"NaT", b"0", b"-0", b"-1", b"1"),
    *(b"1.5", b"1e400", b"1e-400", b"9" * 19, b"9" * 400, b"9" * 5000, b"2024-01-31", b"12:30", b"0x1F", b"0777"),
    *(
        b"&a",
        b"*a",
        b"&a [*a]",
        b"<<",
        b"!!python/object:x",
        b"!!binary x",
        b"? ",
        b"| ",
        b"%TAG",
        b"---\n",
        b"[" * 200,
    ),
    *(b"\0", b"\x1b[2J", b"\x07", b"\x7f", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3", b"\xed\xa0\x80"),
    *(
        "\N{NO-BREAK SPACE}ä\N{RIGHT-TO-LEFT OVERRIDE}\N{PILE OF POO}".encode(),
        b"\\ud800",
        b"\\u0000",
        b"[red]",
        b"..",
        b"/",
    ),
    *(b"package.module:Name", b"{place: 0}", b"s3://nowhere/x", b"sysconfig:stdlib", b"*" * 9, b"a" * 3000),
)


@st.composite
def damaged(draw: st.DrawFn, whole: Sequence[bytes]) -> bytes:
    """One of the files, with some of its words replaced, left out, put in or repeated; or any bytes."""
    if draw(st.integers(0, 30)) == 0:
        return draw(st.binary(max_size=200))
    content = draw(st.sampled_from(whole))
    for _ in range(draw(st.integers(0, 4))):
        pieces = re.split(rb"([\w.+-]+)", content)
        place = draw(st.integers(0, len(pieces) - 1))
        how = draw(st.sampled_from(["replace", "insert", "leave out", "repeat", "cut", "swap", "byte"]))
        token = draw(st.sampled_from(TOKENS) | st.binary(max_size=6))
        if how == "replace":
            pieces[place] = token
        elif how == "insert":
            pieces.insert(place, token)
        elif how == "leave out":
            del pieces[place : place + draw(st.integers(1, 8))]
        elif how == "repeat":
            end = place + draw(st.integers(1, 8))
            pieces[place:place] = pieces[place:end] * draw(st.integers(1, 3))
        elif how == "cut":
            del pieces[place:]
        elif how == "swap":
            other = draw(st.integers(0, len(pieces) - 1))
            pieces[place], pieces[other] = pieces[other], pieces[place]
        content = b"".join(pieces)
        if how == "byte" and content:
            at = draw(st.integers(0, len(content) - 1))
            content = content[:at] + bytes([draw(st.integers(0, 255))]) + content[at + 1 :]
    return content


def fuzzed(
    pytestconfig: pytest.Config, share: int, inputs: st.SearchStrategy[Any], use: Callable[[Any], object]
) -> None:
    """Use as many inputs as there is time for; each ends in a value or a RayrnnError."""

    @settings(
        max_examples=100,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def ends_well(given_input: Any) -> None:
        with suppress(RayrnnError):
            use(given_input)

    deadline = time.monotonic() + pytestconfig.getoption("fuzz_seconds") * share / SHARES
    while time.monotonic() < deadline:
        ends_well()


#: of the time: all that are below together
SHARES = 20


# The files of a run, of a recipe, of a cluster

CSV_RECIPE = """
name: sensors
task: classification
data:
  source: csv
  path: [a/*.csv, b]
  skip_lines: 1
  delimiter: tab
  label_column: {place: -1}
  classes: [no, yes]
  features: [x, {place: 2}, "2019"]
  categorical: [x]
  missing: [NA, null, -999]
  normalize: standardize
  held_out: 0.2
model: {cell: gru, hidden: 8, layers: 2, dropout: 0.1, bidirectional: sum}
training: {batch_size: 4, truncate: 0, learning_rate: 1.0e-3, optimizer: adam}
averaging: {workers: 2, rounds: 3, frequency: 5, outer: nesterov, wire: int8}
seed: 7
"""
OVERRIDES = (
    "model.hidden=4",
    "data.path=x",
    "data.classes=[a, b]",
    "seed=1",
    "averaging={workers: 2}",
    "data.missing=[~]",
)


def test_a_recipe_is_read_or_refused(pytestconfig: pytest.Config) -> None:
    texts = [CSV_RECIPE.encode(), *(text.encode() for text in shipped_texts())]
    overrides = st.lists(damaged([setting.encode() for setting in OVERRIDES]), max_size=2)

    def use(drawn: tuple[bytes, list[bytes]]) -> None:
        text, settings_given = (
            drawn[0].decode("utf-8", "replace"),
            [one.decode("utf-8", "replace") for one in drawn[1]],
        )
        recipe = recipe_from(text, "fuzzed.yaml", settings_given, trusted=False)
        # what was taken is what is stored
        assert recipe_from(recipe.to_yaml(), "stored.yaml", trusted=False).to_yaml() == recipe.to_yaml()

    fuzzed(pytestconfig, 4, st.tuples(damaged(texts), overrides), use)


def shipped_texts() -> list[str]:
    folder = Path(__file__).parent.parent / "rayrnn" / "recipe" / "shipped"
    assert shipped_recipes()
    return [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.yaml"))]


def test_a_cluster_file_is_read_or_refused(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    whole = (Path(__file__).parent.parent / "cluster.yaml").read_bytes()
    path = tmp_path / "cluster.yaml"

    def use(content: bytes) -> None:
        path.write_bytes(content)
        read_cluster_file(path)

    fuzzed(pytestconfig, 2, damaged([whole, re.sub(rb"(?m)^\s*#.*\n", b"", whole)]), use)


VOCABULARIES = (
    {"kind": "symbols", "vocabulary": ["<unknown>", "a", "b"]},
    {
        "kind": "numbers",
        "scaling": {"kind": "standardize", "shift": [0.5, 1e12], "scale": [1.0, 2.0]},
        "categories": [["red", "blue"], ["no"]],
        "names": ["x", "y"],
        "category_names": ["colour", "size"],
    },
    {"kind": "classes", "names": ["no", "yes"], "counts": [3, 4]},
)


def encodings() -> list[bytes]:
    pairs = [(0, 0), (0, 2), (1, 2), (1, 1)]
    return [
        json.dumps(
            {
                "version": 1,
                "inputs": VOCABULARIES[one],
                "targets": VOCABULARIES[other],
                "per_step": one == 0,
                "ahead": int(one == other),
            }
        ).encode()
        for one, other in pairs
    ]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(tmp_path / "run")


def test_a_vocabulary_is_read_or_refused(pytestconfig: pytest.Config, run: Run) -> None:
    steps = pa.table({"key": ["a"], "text": ["ab\x03"]})

    def use(content: bytes) -> None:
        (run.path / "vocabulary.json").write_bytes(content)
        encoding = run.encoding
        assert Encoding.from_json(json.loads(json.dumps(encoding.to_json()))) == encoding
        encoding.describe()
        if not isinstance(encoding.inputs, Numbers):
            encoding.inputs.read(steps)

    fuzzed(pytestconfig, 2, damaged(encodings()), use)


def test_a_checkpoint_is_read_or_refused(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    tensors = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(2)}
    progress = asdict(Progress(round=2, best_loss=0.5, best_round=1))
    folder = write_checkpoint(tmp_path, 2, Checkpoint(tensors, tensors, (tensors,), progress))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}

    def use(drawn: tuple[str, bytes]) -> None:
        for name, content in (files | {drawn[0]: drawn[1]}).items():
            (folder / name).write_bytes(content)
        newest_checkpoint(tmp_path)
        read_checkpoint(folder)

    either = st.sampled_from(sorted(files)).flatmap(lambda name: st.tuples(st.just(name), damaged([files[name]])))
    fuzzed(pytestconfig, 2, either, use)


def test_metrics_are_read_or_refused(pytestconfig: pytest.Config, run: Run) -> None:
    line = b'{"round": 1, "loss": 2.5, "held_out_loss": null, "lost": [{"worker": 1, "reason": "killed"}]}\n'

    def use(content: bytes) -> None:
        (run.path / "metrics.jsonl").write_bytes(content)
        list(run.metrics())

    fuzzed(pytestconfig, 1, damaged([line * 3]), use)


# Data

CSV_FILES = (
    b'x,y,kind\n1,2.5,up\n-3e2,"4",down\n',
    b'\xef\xbb\xbf,0,1,kind\r\n0,1.5,"a, ""b""",up\r\n1,,x,up\r\n',
    b"1;2;3\n4;5;6\n",
    b"x\ty\n1\tNA\n 2 \t -999 \n",
    b"0,a\n1,b\n\n",
)


@st.composite
def csv_keys(draw: st.DrawFn) -> dict[str, Any]:
    column = st.sampled_from(["x", "y", "kind", "0", "1", "-1", "", {"place": 0}, {"place": -1}, {"place": 7}])
    columns = st.lists(column, max_size=3)
    return {
        "path": "x",
        "skip_lines": draw(st.integers(0, 2)),
        "delimiter": draw(st.sampled_from([",", ";", "\t", " ", "x", "ä"])),
        "decimal": draw(st.sampled_from([".", ","])),
        "label_column": draw(st.none() | column | columns),
        "features": draw(st.none() | columns),
        "categorical": draw(columns),
        "ignore": draw(columns),
        "missing": draw(st.lists(st.sampled_from(["NA", "", "-999", "nan", "x", "1"]), max_size=3)),
        "num_classes": draw(st.none() | st.integers(1, 3)),
    }


def test_csv_files_are_read_or_refused(pytestconfig: pytest.Config) -> None:
    def use(drawn: tuple[list[bytes], dict[str, Any], str, bool]) -> None:
        files, keys, task, labelled = drawn
        try:
            data = CsvData.model_validate(keys)
        except ValueError:
            return
        asked = needs(task)
        target = Target(asked, data.classes, data.num_classes, data.no_value)
        wanted = Wanted(asked, labelled=labelled, say=lambda note: None)
        layout = layout_of(files[0], "0", data, target, wanted)
        origins = [str(number) for number in range(len(files))]
        parsed = parse(files, origins, layout)
        rows, faults = rows_of_steps(parsed.steps, parsed.offsets, layout.roles)
        reasons = parsed.reasons | located(faults, parsed, files, origins, layout)
        table = keyed(pa.array(origins), rows, parsed.files, reasons, on_error="skip")
        usable = table.filter(table["skipped"].is_null())
        if len(usable):
            canonical(usable, asked, labelled=labelled and bool(layout.roles.labels))

    files = st.lists(damaged(CSV_FILES), min_size=1, max_size=3)
    fuzzed(pytestconfig, 3, st.tuples(files, csv_keys(), st.sampled_from(TASKS), st.booleans()), use)


INTEGERS = st.sampled_from([0, 1, 2, -1, 7, 127])
FLOATS = st.sampled_from([0.0, -0.0, 1.5, 1e39, -1e308, float("nan"), float("inf"), 5e-324, 2.0**53])
WORDS = st.sampled_from(
    ["", " ", "a", " a", "b", "1", "2", "10", "9:05", "1.2.2024", "NaN", "NA", "2024-01-31", "\0", "ä"]
)
MOMENT = datetime.datetime(2024, 1, 31, 9, 5)
#: Arrow's type -> its cells
KINDS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.int8(), INTEGERS),
    (pa.int64(), INTEGERS | st.sampled_from([2**53, 2**53 + 1, -(2**63), 2**63 - 1])),
    (pa.uint64(), st.sampled_from([0, 1, 2**64 - 1, 2**64 - 2])),
    (pa.float16(), st.sampled_from([np.float16(1), np.float16("nan")])),
    (pa.float32(), FLOATS.filter(lambda number: abs(number) < 1e38 or number != number)),
    (pa.float64(), FLOATS),
    (pa.bool_(), st.booleans()),
    (pa.string(), WORDS),
    (pa.large_string(), WORDS),
    (pa.dictionary(pa.int32(), pa.string()), WORDS),
    (pa.binary(), st.sampled_from([b"", b"a", b"\xff"])),
    (pa.decimal128(20, 2), st.sampled_from([decimal.Decimal("1.25"), decimal.Decimal("-12345678901234567.25")])),
    (pa.decimal256(60, 0), st.sampled_from([decimal.Decimal(10**50), decimal.Decimal(10**50 + 1)])),
    (pa.timestamp("ns"), st.sampled_from([MOMENT, MOMENT + datetime.timedelta(days=1)])),
    (pa.timestamp("us", "UTC"), st.sampled_from([MOMENT, MOMENT + datetime.timedelta(days=1)])),
    (pa.date32(), st.just(MOMENT.date())),
    (pa.time64("us"), st.just(MOMENT.time())),
    (pa.duration("s"), st.just(datetime.timedelta(seconds=5))),
    (pa.null(), st.none()),
    (pa.struct({"a": pa.int64()}), st.just({"a": 1})),
    (pa.map_(pa.string(), pa.int64()), st.just([("a", 1)])),
]


@st.composite
def columns(draw: st.DrawFn, count: int) -> pa.Array:
    """Cells of any type, or lists of them, some of them null."""
    kind, cells = draw(st.sampled_from(KINDS))
    cells = st.none() | cells if draw(st.booleans()) else cells
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        if draw(st.booleans()):
            kind, cells = pa.list_(kind, 2), st.lists(cells, min_size=2, max_size=2)
        else:
            kind, cells = draw(st.sampled_from([pa.list_, pa.large_list]))(kind), st.lists(cells, max_size=3)
        cells = st.none() | cells if draw(st.booleans()) else cells
    return pa.array(draw(st.lists(cells, min_size=count, max_size=count)), kind)


NAMES = ("id", "t", "x", "y", "kind", "__index_level_0__", "[red]")


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    count = draw(st.integers(0, 5))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5))
    names = names if draw(st.booleans()) else [*names, "id", "t"]
    arrays = [draw(columns(count)) for _ in names]
    for place, name in enumerate(names):
        if name == "id" and draw(st.booleans()):
            arrays[place] = pa.array([f"s{number // 2}" for number in range(count)])
        if name == "t" and draw(st.booleans()):
            arrays[place] = pa.array(range(count), pa.int64())
    return pa.Table.from_arrays(arrays, names=names)


@st.composite
def table_keys(draw: st.DrawFn) -> dict[str, Any]:
    name = st.sampled_from(NAMES)
    some = st.lists(name, max_size=2)
    keys: dict[str, Any] = {"key": draw(st.just("id") | st.none() | name), "label": draw(st.none() | name)}
    if draw(st.booleans()):
        keys |= {"order_by": draw(st.just("t") | name), "features": draw(st.none() | some), "ignore": draw(some)}
    else:
        keys[draw(st.sampled_from(["values", "symbols", "text"]))] = draw(name)
    return keys | {"categorical": draw(some), "missing": draw(st.just(["NaN"]) | st.just(["-1", "a", "1e308"]))}


def test_tables_are_read_or_refused(pytestconfig: pytest.Config) -> None:
    def use(drawn: tuple[pa.Table, dict[str, Any], str, bool]) -> None:
        table, keys, task, labelled = drawn
        try:
            data = TableData.model_validate({"source": "table"} | keys)
        except ValueError:
            return
        asked = needs(task)
        if data.order_by is not None:
            wanted = Wanted(asked, labelled=labelled, say=lambda note: None)
            grouping = grouping_of(data, wanted, table.schema)
            rows = group(table.select(grouping.columns), grouping=grouping)
            rows = rows.filter(rows["fault"].is_null())
        else:
            rows = rows_of_sequences(table, data.names(labelled=labelled), data.categorical, data.no_value)
        if len(rows):
            canonical(rows, asked, labelled=labelled)

    fuzzed(pytestconfig, 3, st.tuples(tables(), table_keys(), st.sampled_from(TASKS), st.booleans()), use)


def test_parquet_files_are_read_or_refused(pytestconfig: pytest.Config, ray_cluster: None, tmp_path: Path) -> None:
    """The whole way, from any table in Parquet, some of them damaged, to what a network reads."""
    path = tmp_path / "fuzzed.parquet"

    def use(drawn: tuple[pa.Table, dict[str, Any], str, st.DataObject]) -> None:
        table, keys, task, data = drawn
        try:
            pq.write_table(table, path)
            section = ParquetData.model_validate({"path": str(path)} | keys)
        except (ValueError, pa.ArrowNotImplementedError):
            return
        if data.draw(st.booleans()):
            path.write_bytes(data.draw(damaged([path.read_bytes()])))
        asked = needs(task)
        sequences = gather(read(section, asked, say=lambda note: None), asked)
        everything = np.arange(len(sequences))
        encoding = fit_encoding(sequences, everything, task_named(task), Choices(), normalize="standardize")
        losses(sequences, encoding)
        task_named(task).minibatch(take(sequences, everything), encoding)

    fuzzed(pytestconfig, 2, st.tuples(tables(), table_keys(), st.sampled_from(TASKS), st.data()), use)


def test_texts_are_read_or_refused(pytestconfig: pytest.Config, ray_cluster: None, tmp_path: Path) -> None:
    path = tmp_path / "fuzzed.txt"

    def use(drawn: tuple[bytes, int]) -> None:
        path.write_bytes(drawn[0])
        asked = needs("language_model")
        sequences = gather(read(TextData(path=str(path), length=drawn[1]), asked), asked)
        encoding = fit_encoding(sequences, np.arange(len(sequences)), task_named("language_model"), Choices())
        encoding.inputs.read(take(sequences, np.arange(len(sequences))))

    texts = [
        "all is well,\r\nup and down\n" * 3,
        "從前有 1 個王\n",
        "\x03\x00\N{PILE OF POO}e\N{COMBINING ACUTE ACCENT}",
    ]
    whole = [text.encode(charset) for text in texts for charset in ("utf-8", "utf-16", "utf-16-le", "utf-32-be")]
    fuzzed(pytestconfig, 1, st.tuples(damaged(whole), st.sampled_from([0, 2, 3, 1000])), use)
