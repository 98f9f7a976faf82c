"""Steps that lie anywhere in a table -> rows of sequences: split by a hash of their key, grouped and sorted."""

import zlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from rayrnn.data.arrow_lists import depth, flat
from rayrnn.data.narrowing import lost_before, with_lost
from rayrnn.data.rows import Label, check_width
from rayrnn.data.sources.index_columns import index_columns, left_out, not_learned
from rayrnn.data.sources.labels import Fault, Faults, Target, first_faults
from rayrnn.data.sources.roles import Roles
from rayrnn.data.sources.source import Wanted
from rayrnn.data.sources.step_order import check_dictionaries, misleading, order_of
from rayrnn.data.sources.tables import check_columns, joined, keyed, rows_of_steps, with_words
from rayrnn.data.words import can_be_words, words
from rayrnn.errors import DataError
from rayrnn.recipe.data_sections import TableData
from rayrnn.wording import listed


@dataclass(frozen=True)
class Grouping:
    """The columns that say where a step belongs, and what the others are for."""

    key: str
    order_by: str
    roles: Roles

    @property
    def columns(self) -> list[str]:
        """All columns that are used, each once."""
        roles = self.roles
        return list(
            dict.fromkeys([self.key, self.order_by, *roles.numbers, *roles.words, *roles.labels, *roles.weights])
        )


def grouping_of(data: TableData, wanted: Wanted, schema: pa.Schema) -> Grouping:
    """What the columns of a table with one row a step are for.

    Where labels are not wanted their column is neither a label nor a feature, and need not be there.

    Raises:
        DataError: a column is missing, or is to hold numbers and holds something else.
    """
    assert data.key is not None
    assert data.order_by is not None
    check_width(len(schema.names), "the table")
    needs, label = wanted.needs, data.label if wanted.labelled else None
    check_columns(schema, [name for name in (data.key, data.order_by, label) if name is not None])
    others = {data.key, data.order_by, data.label, data.weight, *data.ignore}
    more = (*data.known_ahead, *data.static)
    weight = data.weight if wanted.weighed else None
    if data.features is None:
        asked = {name for name in others if name is not None} | {*data.categorical, *more}
        others |= left_out(index_columns(schema), asked, wanted.column_names, wanted.say)
        others |= not_learned(schema.names, wanted.column_names)
    features = data.features if data.features is not None else tuple(n for n in schema.names if n not in others)
    features = tuple(dict.fromkeys((*features, *more)))
    forecast = tuple(map(str, data.forecast or ()))
    check_columns(schema, [*features, *data.categorical, *forecast, *(() if weight is None else (weight,))])
    for name in features:
        kind = schema.field(name).type
        if name not in data.categorical and not holds_numbers(kind):
            words = "list it in data.categorical, or " if _holds_words(kind) else ""
            out = f"with data.ignore: [{name}]" if data.features is None else "of data.features"
            times = (
                f"; or steps are ordered by it (data.order_by is {data.order_by})" if kinds.is_temporal(kind) else ""
            )
            fields = ", or give its fields columns of their own" if kinds.is_struct(kind) else ""
            raise DataError(f"column {name!r} holds {kind}, no numbers: {words}leave it out {out}{fields}{times}")
    if label is not None and needs.label is Label.NUMBERS and not holds_numbers(schema.field(label).type):
        raise DataError(f"column {label!r} (data.label) holds {schema.field(label).type}; {needs.task} takes numbers")
    if weight is not None and not is_number(kind := schema.field(weight).type):
        raise DataError(f"column {weight!r} (data.weight) holds {kind}: a weight is a number")
    _check_words(data, schema, label if needs.of_classes else None)
    if not features:
        raise DataError(f"no column is left to learn from: the columns are {listed(schema.names)}")
    roles = Roles(
        numbers=tuple(name for name in features if name not in data.categorical),
        words=tuple(name for name in features if name in data.categorical),
        labels=() if label is None else (label,),
        target=Target(needs, data.classes, data.num_classes, data.no_value),
        forecast=forecast,
        known_ahead=data.known_ahead,
        static=data.static,
        weight=weight,
    )
    roles.check()
    return Grouping(data.key, data.order_by, roles)


def _check_words(data: TableData, schema: pa.Schema, label: str | None) -> None:
    """Raise a DataError where a column is to tell sequences, steps, classes or categories apart and cannot."""
    asked = [("key", data.key), ("order_by", data.order_by), ("label", label)]
    for key, name in [*asked, *(("categorical", name) for name in data.categorical)]:
        if name is not None and not _holds_words(kind := schema.field(name).type):
            raise DataError(f"column {name!r} (data.{key}) holds {kind}: it takes text, whole numbers or times")


def into_buckets(steps: pa.Table, grouping: Grouping, num_buckets: int) -> list[pa.Table]:
    """Split steps so that all of one sequence are in the same bucket, whichever table they come from."""
    check_dictionaries(steps[grouping.order_by], grouping.order_by)
    encoded = words(flat(steps[grouping.key])).fill_null("").dictionary_encode()
    # not Python's own hash of a string, which differs from process to process
    buckets = np.array([zlib.crc32(key.encode()) % num_buckets for key in encoded.dictionary.to_pylist()], np.int64)
    bucket_of_step = buckets[np.asarray(encoded.indices)]
    return [steps.take(pa.array(np.flatnonzero(bucket_of_step == bucket))) for bucket in range(num_buckets)]


def group(*pieces: pa.Table, grouping: Grouping) -> pa.Table:
    """Bring the steps of every sequence together and in order.

    Args:
        pieces: together all steps of these sequences.

    Returns:
        rows of sequences in the order of their keys; `fault` says why one cannot be used: a step without a key, without
        a place in the order or with the same as another, or a cell that does not fit.
    """
    steps = joined(pieces, grouping.roles)
    check_dictionaries(steps[grouping.order_by], grouping.order_by)
    return with_lost(_grouped(with_words(steps, grouping.roles), grouping), lost_before(steps))


def _grouped(steps: pa.Table, grouping: Grouping) -> pa.Table:
    names = words(flat(steps[grouping.key]), grouping.roles.target.missing)
    given = steps.filter(names.is_valid())
    codes, keys = _ranked(names.drop_null())
    no_value = grouping.roles.target.missing
    places = pa.table({"key": codes, "order": order_of(flat(given[grouping.order_by]), no_value)})
    order = pc.sort_indices(places, sort_keys=[("key", "ascending"), ("order", "ascending")])
    ordered, places = given.take(order), places.take(order)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(keys)))])
    rows, faults = rows_of_steps(ordered, offsets, grouping.roles)
    faults = faults | _out_of_order(flat(places["order"]), offsets, grouping.order_by)
    faults = faults | misleading(flat(ordered[grouping.order_by]), offsets, grouping.order_by, no_value)
    rows = keyed(keys, rows, np.arange(len(keys)), _reasons(faults, ordered, offsets, keys, grouping), on_error="stop")
    return _with_keyless(rows, len(steps) - len(given), grouping.key)


def _with_keyless(rows: pa.Table, num_keyless: int, name: str) -> pa.Table:
    if not num_keyless:
        return rows
    fault = pa.table({"key": [""], "fault": [f"column {name!r} (data.key) is empty in {num_keyless} rows"]})
    return pa.concat_tables([rows, fault], promote_options="default").combine_chunks()


def _ranked(keys: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Every key's place among the different keys in order, and these."""
    encoded = keys.dictionary_encode()
    order = np.asarray(pc.sort_indices(encoded.dictionary))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks[np.asarray(encoded.indices)], encoded.dictionary.take(pa.array(order))


def _out_of_order(order: pa.Array, offsets: np.ndarray, name: str) -> Faults:
    missing = np.flatnonzero(order.is_null(nan_is_null=True))
    same = np.flatnonzero(pc.equal(order[1:], order[:-1]).fill_null(False)) + 1
    same = np.setdiff1d(same, offsets)
    twice = "two steps have this place: make data.order_by tell them apart, or leave one out"
    return first_faults(same, offsets, [twice] * len(same)) | first_faults(
        missing, offsets, [f"column {name!r} (data.order_by) is null"] * len(missing)
    )


def _reasons(
    faults: Faults, steps: pa.Table, offsets: np.ndarray, keys: pa.Array, grouping: Grouping
) -> dict[int, str]:
    def place(sequence: int, fault: Fault) -> str:
        return f"{grouping.order_by} {steps[grouping.order_by][int(offsets[sequence]) + fault.step]}"

    return {
        sequence: f"sequence {keys[sequence].as_py()!r}, {place(sequence, fault)}: {fault.reason}"
        for sequence, fault in faults.items()
    }


def holds_numbers(kind: pa.DataType) -> bool:
    """Whether a step's cells of this type are numbers, one or several."""
    return is_number(kind.value_type if depth(kind) == 1 else kind)


def _holds_words(kind: pa.DataType) -> bool:
    plain = kind.value_type if kinds.is_dictionary(kind) else kind
    return can_be_words(kind) and not (
        kinds.is_binary(plain) or kinds.is_large_binary(plain) or kinds.is_fixed_size_binary(plain)
    )


def is_number(kind: pa.DataType) -> bool:
    """Whether cells of this type are read as numbers."""
    return bool(kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind) or kinds.is_boolean(kind))
