"""A run's network in this process, without a cluster: answers to lists and data frames, whole or step by step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import torch

from rayrnn.data.arrow_lists import without_views
from rayrnn.data.prepare import needs_to_read
from rayrnn.data.rows import CONTENTS, REASONS, raise_faults
from rayrnn.data.sources.grouping import group, grouping_of
from rayrnn.data.sources.index_columns import index_columns
from rayrnn.data.sources.source import Wanted
from rayrnn.data.sources.tables import rows_of_sequences
from rayrnn.errors import DataError, UsageError
from rayrnn.prediction.given_rows import checked_rows, rows_of_given
from rayrnn.prediction.live_steps import LiveSteps, Session, Steps, detector_of, why_not
from rayrnn.prediction.output import plain_rows
from rayrnn.prediction.predict import answers_to, check_answers, search_for
from rayrnn.recipe.data_sections import TableData
from rayrnn.runs.directory import Run
from rayrnn.runs.layout import DETECT, MODEL
from rayrnn.runs.model import Trained, trained
from rayrnn.wording import listed


@dataclass
class _Loaded:
    """A run's network, and of which files it and what judges it are."""

    stamp: tuple[tuple[int, int], ...]
    model: Trained
    network: torch.nn.Module = field(init=False)
    live: LiveSteps | None = None

    def __post_init__(self) -> None:
        self.network = self.model.network()


#: a program asks one run again and again; a newer model of it is read anew
_LOADED: "WeakKeyDictionary[Run, _Loaded]" = WeakKeyDictionary()


def predict_given(run: Run, sequences: Any, *, beam: int | None = None) -> Any:
    """Answer sequences that a program holds; see `Run.predict`."""
    check_answers(run)
    loaded = _loaded(run)
    rows = _rows_of(sequences, loaded.model)
    search = search_for(loaded.model, beam)
    pieces = [answers_to(piece, loaded.model, loaded.network, search) for piece in loaded.model.slices(rows)]
    return _like(sequences, pa.concat_tables(pieces))


def step_given(run: Run, state: Session | None, step: Any) -> tuple[dict[str, Any], Session]:
    """Answer the next step of a sequence; see `Run.step`."""
    loaded = _loaded(run)
    if loaded.live is None:
        if reason := why_not(loaded.model, loaded.network):
            raise UsageError(f"{run.name} cannot be followed step by step: {reason}")
        loaded.live = LiveSteps(loaded.model, loaded.network, detector_of(run, loaded.model))
    if state is not None and not isinstance(state, Session):
        raise UsageError(f"state is {type(state).__name__}; it is None at first, and then what the last call gave")
    steps = Steps(state or Session(), rows_of_given(_of_step(step, loaded.model), loaded.model))
    loaded.live.add(steps)
    loaded.live.step()
    (answer,), after = steps.answers.result()
    return answer, after


def _loaded(run: Run) -> _Loaded:
    stamp = tuple(_stamp(run.path / name) for name in (MODEL, DETECT))
    kept = _LOADED.get(run)
    if kept is None or kept.stamp != stamp:
        kept = _LOADED[run] = _Loaded(stamp, trained(run))
    return kept


def _stamp(path: Path) -> tuple[int, int]:
    """Tells a file from what may stand in its place later; what is wrong with it is told where it is read."""
    try:
        about = path.stat()
    except OSError:
        return (0, 0)
    return about.st_mtime_ns, about.st_size


def _rows_of(sequences: Any, model: Trained) -> pa.Table:
    """Canonical rows."""
    if (table := _as_table(sequences)) is not None:
        return _rows_of_frame(table, model)
    if isinstance(sequences, str | Mapping) or not isinstance(sequences, Sequence | np.ndarray | torch.Tensor):
        raise UsageError(f"sequences is {type(sequences).__name__}; give a list of sequences, or a data frame")
    return rows_of_given([_as_row(one, model) for one in sequences], model)


def _as_table(sequences: Any) -> pa.Table | None:
    """A data frame as Arrow has it; None where it is none."""
    if _library(sequences) == "pyspark":
        raise UsageError(
            "a Spark DataFrame is answered on the cluster: rayrnn.predictions(run, rayrnn_spark.sequences(...))"
        )
    if not hasattr(sequences, "__arrow_c_stream__"):
        return None
    table = pa.table(sequences)
    return table.cast(pa.schema([column.with_type(without_views(column.type)) for column in table.schema]))


def _library(sequences: Any) -> str:
    """Of frames that rayrnn does not import: whoever hands one over has it."""
    return type(sequences).__module__.partition(".")[0]


def _like(sequences: Any, answers: pa.Table) -> Any:
    """Answers in the kind of what was asked."""
    if _library(sequences) == "pandas":
        return answers.to_pandas()
    return answers if hasattr(sequences, "__arrow_c_stream__") else plain_rows(answers)


def _rows_of_frame(table: pa.Table, model: Trained) -> pa.Table:
    """Rows that lie as the run's own did; or in the row schema; or a step a row, by the features' names."""
    data, columns = model.recipe.data, set(table.column_names)
    names = model.encoding.column_names
    if isinstance(data, TableData) and set(data.columns(labelled=False)) <= columns:
        if data.order_by is None:
            rows = rows_of_sequences(table, data.names(labelled=False), data.categorical, data.no_value)
            return checked_rows(_with_keys(rows), model)
        if set(names) <= columns:
            rows = group(table, grouping=grouping_of(data, _wanted(model), table.schema))
            raise_faults(rows["fault"].drop_null().to_pylist() if "fault" in rows.column_names else [])
            return checked_rows(rows.drop_columns([n for n in REASONS if n in rows.column_names]), model)
    own = [name for name in ("key", *CONTENTS) if name in columns]
    if set(own) - {"key"}:
        return checked_rows(_with_keys(table.select(own)), model)
    if names and set(names) <= columns:
        return _rows_by_names(table, names, model)
    due = f"a column for each of {listed(names)}" if names else f"one of {listed(CONTENTS)}"
    index = index_columns(table.schema)
    shown = [name for name in table.column_names if name not in index]
    raise DataError(f"the data frame has the columns {listed(shown)}; due is {due}")


def _rows_by_names(table: pa.Table, names: Sequence[str], model: Trained) -> pa.Table:
    """A row a sequence where cells are lists, else one sequence whose steps are the rows."""
    if not len(table):
        raise DataError("the data frame has no rows")
    if pa.types.is_list(table.schema.field(names[0]).type) or pa.types.is_large_list(table.schema.field(names[0]).type):
        return rows_of_given(table.select([n for n in ("key", *names) if n in table.column_names]).to_pylist(), model)
    return rows_of_given({name: table[name].to_pylist() for name in names}, model)


def _with_keys(rows: pa.Table) -> pa.Table:
    if "key" in rows.column_names:
        return rows
    return rows.add_column(0, "key", pa.array([str(number) for number in range(len(rows))], pa.string()))


def _wanted(model: Trained) -> Wanted:
    return Wanted(
        needs_to_read(model.recipe, model.encoding),
        labelled=False,
        num_columns=model.encoding.inputs.num_columns,
        column_names=model.encoding.column_names,
        say=lambda _: None,
    )


def _as_row(one: Any, model: Trained) -> Any:
    """A sequence by itself -> the row that holds it."""
    if isinstance(one, Mapping):
        return {name: _plain(cell) for name, cell in one.items()}
    if isinstance(one, str):
        return {"text": one}
    one = _plain(one)
    if not isinstance(one, list):
        return one
    if model.encoding.symbols:
        return {"symbols": [str(symbol) for symbol in one]}
    return {"values": [_plain(step) if isinstance(_plain(step), list) else [step] for step in one]}


def _of_step(step: Any, model: Trained) -> dict[str, Any]:
    if isinstance(step, Mapping):
        return {name: [_plain(cell)] for name, cell in step.items()}
    step = _plain(step)
    if model.encoding.symbols:
        return {"symbols": [str(step)]}
    return {"values": [step if isinstance(step, list) else [step]]}


def _plain(value: Any) -> Any:
    """Arrays, tensors and columns as lists."""
    if isinstance(value, tuple):
        return list(value)
    return value.tolist() if hasattr(value, "tolist") else value
