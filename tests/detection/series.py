"""Series and sessions to look for anomalies in, and what is found in them."""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from rayrnn.errors import RayrnnError
from rayrnn.prediction.detect import detect
from rayrnn.prediction.detection import Detection
from rayrnn.recipe import scores_of
from rayrnn.runs.directory import Run
from rayrnn.runs.model import load_network
from tests.untrained import make_run

SERIES, STEPS = 6, 60
SPIKE = 40


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    return load_network(run).state_dict()


def write_series(folder: Path, *, spikes: Sequence[int] = (), steps: int = STEPS) -> Path:
    """One CSV a series, columns `a` and `b`; series 0 has spikes at these steps."""
    folder.mkdir(parents=True)
    for number in range(SERIES):
        rows = [[math.sin(number + step / 3), math.cos(step / 5)] for step in range(steps)]
        for step in spikes if number == 0 else ():
            rows[step][0] += 50
        lines = ["a,b", *(f"{a:.4f},{b:.4f}" for a, b in rows)]
        (folder / f"{number}.csv").write_text("\n".join(lines) + "\n")
    return folder


def found_by(
    run: Run, data: Path, out: Path | None = None, *, overrides: Sequence[str] = (), **options: Any
) -> Detection:
    """What is found where every step is judged, the first ones too; `detect.` keys replace what stands here."""
    judged = ["detect.warmup=0"] if scores_of(run.recipe) else []
    return detect(run, data, out, console=Console(quiet=True), overrides=[*judged, *overrides], **options)


def rows_of(out: Path) -> list[dict[str, Any]]:
    if out.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(out).to_pylist()
        return rows
    if out.suffix == ".jsonl":
        return [json.loads(line) for line in out.read_text().splitlines()]
    return list(csv.DictReader(io.StringIO(out.read_text())))


def forecast(files: Path, path: Path, **data: Any) -> Run:
    section = {"source": "csv", "path": str(files / "train"), "skip_lines": 1, "horizon": 2, "held_out": 0.5}
    return make_run(path, "regression", section | {"normalize": "standardize"} | data)


def sessions(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    pq.write_table(pa.table({"id": [f"s{number}" for number in range(len(rows))], "events": list(rows)}), path)
    return path


def write_events(path: Path, *lines: str, header: str = "series,start,end") -> Path:
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def refused(expected: type[RayrnnError], match: str, run: Run, data: Path, tmp_path: Path, **options: Any) -> None:
    """One error of the right kind; and no file is left, but where all was judged before."""
    out = tmp_path / "refused.jsonl"
    with pytest.raises(expected, match=match):
        found_by(run, data, out, **options)
    assert not out.exists() or len(rows_of(out)) > 1
