"""Sensors whose steps come file by file, and runs that have learned such."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from rayrnn.runs.directory import Run
from rayrnn.streaming.following import Followed, follow
from tests.untrained import make_run

#: between two looks
POLL = 0.01
SENSORS = ("north", "south", "007")


def steps_of(minutes: Sequence[int], sensors: Sequence[str] = SENSORS, each: int = 4) -> pa.Table:
    """The steps of these minutes, in no order: a row a step."""
    rows = [
        {"sensor": sensor, "time": place, "heat": float(np.sin(place + number)), "mode": "on" if place % 3 else "off"}
        for minute in minutes
        for number, sensor in enumerate(sensors)
        for place in range(minute * each, (minute + 1) * each)
    ]
    return pa.Table.from_pylist([rows[place] for place in np.random.default_rng(0).permutation(len(rows))])


def write(path: Path, table: pa.Table) -> Path:
    """A file of the format that its name ends in, whole at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    if path.suffix == ".parquet":
        pq.write_table(table, draft)
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(table, draft)
    else:
        draft.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    draft.rename(path)
    return path


def write_minutes(folder: Path, count: int, suffix: str = ".parquet") -> Path:
    """A file a minute."""
    for minute in range(count):
        write(folder / f"{minute:02d}{suffix}", steps_of([minute]))
    return folder


def sensor_run(place: Path, *, path: str = "run", cell: str = "gru", **data: Any) -> Run:
    """A forecast that learned a table with a row a step."""
    if not (place / "learned").exists():
        write(place / "learned" / "all.parquet", steps_of(range(3), sensors=[f"s{n}" for n in range(12)]))
    own = {"source": "parquet", "path": str(place / "learned"), "key": "sensor", "order_by": "time"}
    own |= {"categorical": ["mode"], "horizon": 1}
    return make_run(place / path, "regression", own | data, {"cell": cell})


def followed(run: Run, directory: Path | str, out: Path, **options: Any) -> list[Followed]:
    """What is there, answered, and what was said of it."""
    return list(follow(run, directory, out, once=True, **{"say": lambda _: None, "poll": POLL} | options))


def rows_in(out: Path) -> list[dict[str, Any]]:
    """All answers, file by file."""
    found: list[dict[str, Any]] = []
    for path in sorted(path for path in out.rglob("*") if path.is_file() and ".rayrnn-follow" not in path.parts):
        if path.suffix == ".parquet":
            found += pq.read_table(path).to_pylist()
        elif path.suffix == ".csv":
            found += pyarrow.csv.read_csv(path, convert_options=_TEXT_KEYS).to_pylist()
        else:
            found += map(json.loads, path.read_text().splitlines())
    return found


_TEXT_KEYS = pyarrow.csv.ConvertOptions(column_types={"key": pa.string()})


def answers_by_key(out: Path, column: str = "prediction") -> dict[str, list[Any]]:
    """The answers of every sequence, one after another."""
    found: dict[str, list[Any]] = {}
    for row in rows_in(out):
        cells = row[column]
        found.setdefault(row["key"], []).extend(cells if isinstance(cells, list) else [cells])
    return found


def contents(out: Path) -> dict[str, bytes]:
    """Every file of answers, byte by byte."""
    files = (path for path in sorted(out.rglob("*")) if path.is_file() and ".rayrnn-follow" not in path.parts)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def of(table: pa.Table, sensor: str) -> pa.Table:
    """The steps of one sensor, in order."""
    return table.filter(pc.equal(table["sensor"], sensor)).sort_by("time")
