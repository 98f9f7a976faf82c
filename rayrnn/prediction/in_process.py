"""A run's network in this process, without a cluster: answers to lists and data frames, whole or step by step."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from rayrnn.data.arrow_lists import depth, ends, flat, numbers
from rayrnn.data.encoding import Numbers
from rayrnn.data.frames import is_frame, library_of, names_of_frame, plain, table_of_frame, with_keys
from rayrnn.data.rows import CONTENTS, REASONS, raise_faults
from rayrnn.data.sources.beside_values import with_features_beside
from rayrnn.data.sources.grouping import group, grouping_of
from rayrnn.data.sources.index_columns import index_columns
from rayrnn.data.sources.tables import rows_of_sequences
from rayrnn.data.symbols import Symbols
from rayrnn.data.words import words
from rayrnn.durable import stamp_of
from rayrnn.errors import DataError, UsageError
from rayrnn.prediction.given_rows import checked_rows, rows_of_given
from rayrnn.prediction.given_steps import rows_of_lists, rows_of_named_steps, step_names, wanted_of
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

    stamp: tuple[tuple[int, int, int], ...]
    model: Trained
    network: torch.nn.Module = field(init=False)
    #: tells its states from those of other runs
    origin: str = field(init=False)
    live: LiveSteps | None = None

    def __post_init__(self) -> None:
        self.network = self.model.network()
        learned = [self.model.recipe.model_dump(mode="json"), self.model.encoding.to_json()]
        self.origin = hashlib.sha256(json.dumps(learned, sort_keys=True).encode()).hexdigest()


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


@dataclass(frozen=True)
class State:
    """Where a sequence stands after some steps; of one run."""

    session: Session = field(repr=False)
    #: of what the run learned from
    origin: str = field(repr=False)

    @property
    def num_steps(self) -> int:
        """Steps that were read."""
        return self.session.num_steps


def step_given(run: Run, state: State | None, step: Any, *, key: str | None = None) -> tuple[dict[str, Any], State]:
    """Answer the next step of a sequence; see `Run.step`."""
    loaded = _loaded(run)
    if loaded.live is None:
        if reason := why_not(loaded.model, loaded.network):
            raise UsageError(f"{run.name} cannot be followed step by step: {reason}")
        loaded.live = LiveSteps(loaded.model, loaded.network, detector_of(run, loaded.model))
    if state is not None and not isinstance(state, State):
        raise UsageError(f"state is {type(state).__name__}; it is None at first, and then what the last call gave")
    if state is not None and state.origin != loaded.origin:
        raise UsageError("this state is of another run: begin with None, and go on with what this run gives")
    if state is not None and key is not None:
        raise UsageError("key names a sequence at its first step, where state is None")
    session = Session(key=key or "session") if state is None else state.session
    steps = Steps(session, rows_of_given(_of_step(step, loaded.model), loaded.model))
    loaded.live.add(steps)
    loaded.live.step()
    (answer,), after = steps.answers.result()
    return answer, State(after, loaded.origin)


def _loaded(run: Run) -> _Loaded:
    stamp = tuple(stamp_of(run.path / name) for name in (MODEL, DETECT))
    kept = _LOADED.get(run)
    if kept is None or kept.stamp != stamp:
        kept = _LOADED[run] = _Loaded(stamp, trained(run))
    return kept


def _rows_of(sequences: Any, model: Trained) -> pa.Table:
    """Canonical rows."""
    if library_of(sequences) == "pyspark":
        raise UsageError(
            "a Spark DataFrame is answered on the cluster: rayrnn.predictions(run, rayrnn_spark.sequences(...))"
        )
    if is_frame(sequences):
        return checked_rows(rows_of_frame(_as_table(sequences, model), model), model)
    if hasattr(sequences, "to_list"):  # a column of a frame
        sequences = sequences.to_list()
    if isinstance(sequences, pa.Array | pa.ChunkedArray):
        sequences = sequences.to_pylist()
    if isinstance(sequences, str | bytes | Mapping) or not isinstance(sequences, Sequence | np.ndarray | torch.Tensor):
        raise UsageError(f"sequences is {type(sequences).__name__}; give a list of sequences, or a data frame")
    if len(sequences) and all(map(is_frame, sequences)):
        parts = [_sequence_of_frame(_as_table(one, model), str(place), model) for place, one in enumerate(sequences)]
        return checked_rows(pa.concat_tables(parts), model)
    return rows_of_given([_as_row(one, model) for one in sequences], model)


def _as_table(frame: Any, model: Trained) -> pa.Table:
    """The columns of a data frame that may be read."""
    return table_of_frame(frame, _columns_read(model, names_of_frame(frame)))


def _columns_read(model: Trained, names: Sequence[str]) -> set[str]:
    """Of a frame's columns; all where one is missing, so that it can be told what there is."""
    data = model.recipe.data
    own = data.named_columns(labelled=False) if isinstance(data, TableData) else set()
    if isinstance(data, TableData) and not data.names_columns:
        return set(names)
    return {"key", *CONTENTS, "future", *step_names(model), *own} if own <= set(names) else set(names)


def _like(sequences: Any, answers: pa.Table) -> Any:
    """Answers in the kind of what was asked."""
    if not is_frame(sequences):
        return plain_rows(answers)
    return answers.to_pandas() if library_of(sequences) == "pandas" else answers


def rows_of_frame(table: pa.Table, model: Trained) -> pa.Table:
    """Rows of the row schema, of a frame that lies as the run's own data did; or in the row schema itself; or with a
    column for each feature, a row a step or a list a sequence."""
    data, columns, names = model.recipe.data, set(table.column_names), step_names(model)
    if isinstance(data, TableData) and data.order_by is not None:
        if data.order_by in columns or data.key in columns:
            return _grouped(table, data, model)
    elif isinstance(data, TableData) and data.names_columns and set(data.columns(labelled=False)) <= columns:
        rows = rows_of_sequences(table, data.names(labelled=False), data.categorical_lists, data.no_value)
        return with_keys(with_features_beside(rows, table, data))
    if names and set(names) <= columns and _are_by_names(table, names):
        return _rows_by_names(table, names, model)
    own = [name for name in ("key", *CONTENTS, "future") if name in columns]
    if set(own) - {"key", "future"}:
        return with_keys(table.select(own))
    width = model.encoding.inputs.num_columns if isinstance(model.encoding.inputs, Numbers) else 0
    if width and not names and len(table.column_names) == width:
        return _without_names(table)
    raise _not_there(table, names, width)


def _grouped(table: pa.Table, data: TableData, model: Trained) -> pa.Table:
    """A key's rows in their order, the keys as they come first."""
    rows = group(table, grouping=grouping_of(data, wanted_of(model), table.schema))
    raise_faults(rows["fault"].drop_null().to_pylist() if "fault" in rows.column_names else [])
    first = pc.unique(words(flat(table[data.key]), data.no_value)).drop_null()
    order = pc.index_in(first, value_set=flat(rows["key"]))
    return rows.drop_columns([name for name in REASONS if name in rows.column_names]).take(order)


def _are_by_names(table: pa.Table, names: Sequence[str]) -> bool:
    """Whether the columns are features; one that is called as a column of the row schema may be that."""
    return not any(name in CONTENTS and depth(table.schema.field(name).type) == 2 for name in names)


def _rows_by_names(table: pa.Table, names: Sequence[str], model: Trained) -> pa.Table:
    """A row a sequence where cells are lists; else a row a step, of one sequence or of one for each `key`."""
    has_keys = "key" in table.column_names and "key" not in names
    if all(depth(table.schema.field(name).type) == 1 for name in names):
        keys = words(flat(table["key"])).to_pylist() if has_keys else [str(row) for row in range(len(table))]
        return rows_of_lists({name: table[name] for name in names}, keys, model)
    if not has_keys:
        return _sequence_of_frame(table, "0", model)
    keys = words(flat(table["key"]))
    if keys.null_count:
        raise DataError("a row of the data frame has no key")
    codes = keys.dictionary_encode()
    order = np.argsort(np.asarray(codes.indices), kind="stable")
    offsets = ends(np.bincount(np.asarray(codes.indices)))
    return rows_of_named_steps(table.take(pa.array(order)), offsets, codes.dictionary.to_pylist(), model)


def _sequence_of_frame(table: pa.Table, key: str, model: Trained) -> pa.Table:
    """A row a step, all of one sequence."""
    names = step_names(model)
    if not names or not set(names) <= set(table.column_names):
        raise _not_there(table, names, 0)
    return rows_of_named_steps(table, np.array([0, len(table)]), [key], model)


def _without_names(table: pa.Table) -> pa.Table:
    """One sequence, of columns that the run knows by their places."""
    try:
        steps = np.stack([numbers(flat(column)) for column in table.columns], axis=1)
    except pa.ArrowException as error:
        raise DataError(f"the data frame cannot be read: {error}") from None
    return pa.table({"key": ["0"], "values": [steps.tolist()]})


def _not_there(table: pa.Table, names: Sequence[str], width: int) -> DataError:
    due = f"a column for each of {listed(names)}" if names else f"one of {listed(CONTENTS)}"
    due += f", or as many as were learned, {width}" if width else ""
    index = index_columns(table.schema)
    shown = [name for name in table.column_names if name not in index]
    return DataError(
        f"the data frame has the columns {listed(shown)}; due is {due}; or say what the columns are for, with "
        "rayrnn.predictions(run, rayrnn.sequences(frame, key=..., order_by=...))"
    )


def _as_row(one: Any, model: Trained) -> Any:
    """A sequence by itself -> the row that holds it."""
    if isinstance(one, Mapping):
        return _renamed({str(name): plain(cell) for name, cell in one.items()}, model)
    if isinstance(one, str):
        return {"text": one}
    if (fields := _named_fields(one)) is not None:
        return fields
    one = plain(one)
    if not isinstance(one, list):
        return one
    if model.encoding.symbols:
        return {"symbols": [_symbol(symbol) for symbol in one]}
    steps = [step if isinstance(step, list) else [step] for step in map(plain, one)]
    names = step_names(model)
    inputs = model.encoding.inputs
    has_words = isinstance(inputs, Numbers) and bool(inputs.category_names)
    if steps and names and not has_words and {len(step) for step in steps} == {len(names)}:
        return dict(zip(names, map(list, zip(*steps, strict=True)), strict=True))
    return {"values": steps}


def _renamed(row: dict[str, Any], model: Trained) -> dict[str, Any]:
    """A row as the run's own table has it, by the names of the row schema."""
    data = model.recipe.data
    beside = isinstance(data, TableData) and (data.categorical or data.known_ahead or data.static)
    if not isinstance(data, TableData) or not data.names_columns or data.order_by is not None or beside:
        return row
    names = data.names(labelled=False)
    if not set(names.values()) - {data.key} <= set(row):
        return row
    return {name: row[column] for name, column in names.items() if column in row}


def _of_step(step: Any, model: Trained) -> dict[str, Any]:
    if not isinstance(step, Mapping):
        named = step._asdict() if hasattr(step, "_asdict") else step.to_dict() if hasattr(step, "to_dict") else None
        step = named if named is not None and set(step_names(model)) <= set(map(str, named)) else step
    if (fields := _named_fields(step)) is not None:
        step = fields
    if isinstance(step, Mapping):
        own = {str(name): plain(cell) for name, cell in step.items()}
        names = step_names(model)
        return {name: [cell] for name, cell in own.items() if not names or name in names}
    if model.encoding.symbols:
        return {"symbols": [_one_symbol(_symbol(step), model)]}
    step = plain(step)
    step = step if isinstance(step, list) else [step]
    names = step_names(model)
    return dict(zip(names, ([cell] for cell in step), strict=True)) if len(names) == len(step) else {"values": [step]}


def _symbol(symbol: Any) -> Any:
    """A symbol, or what the row schema refuses."""
    symbol = plain(symbol)
    return str(symbol) if isinstance(symbol, int) and not isinstance(symbol, bool) else symbol


def _one_symbol(symbol: Any, model: Trained) -> str:
    """
    Raises:
        UsageError: it is none, or several.
    """
    inputs = model.encoding.inputs
    assert isinstance(inputs, Symbols)
    if not isinstance(symbol, str) or not symbol:
        raise UsageError(f"a step is {symbol!r}; due is one symbol, a text")
    if symbol in inputs.vocabulary.symbols:
        return symbol
    cut = inputs.units.cut(symbol)
    if len(cut) != 1:
        raise UsageError(f"a step is one symbol, and {symbol!r} are {listed(cut)}: give them one after another")
    return str(cut[0])


def _named_fields(value: Any) -> dict[str, Any] | None:
    """Of a structured array."""
    fields = getattr(getattr(value, "dtype", None), "names", None)
    return {name: value[name].tolist() for name in fields} if isinstance(fields, tuple) else None
