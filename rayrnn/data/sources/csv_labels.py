"""Labels that lie beside the sequences: a directory of label files, or one file of `file name,label` lines."""

import posixpath
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import pyarrow as pa
from pyarrow import fs

from rayrnn.data.arrow_lists import ends, flat, unwrap, wrap
from rayrnn.data.files import Listing, open_file_system, read_bytes
from rayrnn.data.rows import Label
from rayrnn.data.sources.csv_header import records
from rayrnn.data.sources.labels import Target, sequence_labels
from rayrnn.errors import DataError, RecipeError
from rayrnn.recipe.data_sections import CsvData

Found = TypeVar("Found")


def lies_in_one_file(where: str, *, endpoint: str | None) -> bool:
    """Whether `data.labels` is one file of lines, not a directory or pattern of label files."""
    filesystem, path = open_file_system(where, endpoint=endpoint)
    return bool(filesystem.get_file_info(path).type == fs.FileType.File)


def label_lines(data: CsvData, labels: Listing, paths: Sequence[str], target: Target) -> pa.Table:
    """The line of every sequence in a file of `file name,label` lines.

    A file name may be given with as many of its directories as it takes to tell it from others, and without its
    suffix. Names of files that are not among the sequences are passed over, and so is a line with the columns' names.

    Returns:
        `label` (the cells after the file name; null where no line names the file) and `label_origin` ("file:line").
    """
    if target.needs.label is Label.CLASSES:
        raise RecipeError(
            f"data.labels: {data.labels} gives one label a sequence; task {target.needs.task} takes one a step, from "
            "data.label_column or from a directory of label files"
        )
    lines: dict[str, tuple[int, list[str]]] = {}
    origin = labels.names[0]
    for line, record in records(read_bytes(labels, 0), origin, data.delimiter, strict=True):
        if len(record) == 1 or (len(record) > 2 and target.needs.of_classes):
            raise DataError(f"{origin}:{line}: {len(record)} columns; each line is a file name and its label")
        if record:
            lines[record[0].strip()] = line, [cell.strip() for cell in record[1:]]
    found = [_by_name(path, lines) for path in paths]
    if all(entry is None for entry in found):
        raise DataError(f"{labels.names[0]} names none of the {len(paths)} sequences, such as {paths[0]}")
    return pa.table(
        {
            "label": pa.array([entry and entry[1] for entry in found], pa.list_(pa.string())),
            "label_origin": [f"{labels.names[0]}:{entry[0]}" if entry else None for entry in found],
        }
    )


def label_files(data: CsvData, labels: Listing, paths: Sequence[str]) -> pa.Table:
    """The label file of every sequence: the one with its name, or with its name but for the suffix; where label files
    lie in directories, with these too.

    Returns:
        `label_path` and `label_origin`, null where there is none.
    """
    names = below_common(labels.paths)
    stems = {posixpath.splitext(name)[0]: number for number, name in enumerate(names)}
    places = (stems if len(stems) == len(names) else {}) | {name: number for number, name in enumerate(names)}
    found = [_by_name(path, places) for path in paths]
    if all(number is None for number in found):
        raise DataError(f"{data.labels} has no label file for any of the {len(paths)} sequences, such as {paths[0]}")
    return pa.table(
        {
            "label_path": [None if number is None else labels.paths[number] for number in found],
            "label_origin": [None if number is None else labels.names[number] for number in found],
        }
    )


def labels_of_lines(lines: pa.Table, target: Target) -> tuple[pa.Array, dict[int, str]]:
    """What `label_lines` found -> one label a sequence, and what is wrong by sequence."""
    origins = lines["label_origin"].to_pylist()
    cells = lines["label"].to_pylist()
    if not target.needs.of_classes:
        return _answers(cells, origins, target.needs.task)
    labels, faults = sequence_labels(pa.array([c[0] for c in cells], pa.string()), np.arange(len(cells) + 1), target)
    return labels, {row: f"{origins[row]}: {fault.reason}" for row, fault in faults.items()}


def below_common(paths: Sequence[str]) -> list[str]:
    """File names, with the directories in which they lie below the one that holds them all."""
    directory = posixpath.commonpath({posixpath.dirname(path) for path in paths})
    return [path[len(directory) :].lstrip("/") for path in paths]


def _by_name(path: str, known: Mapping[str, Found]) -> Found | None:
    """What is known by a file's name with the most of its directories, or else by that without the suffix."""
    parts = path.split("/")
    names = ["/".join(parts[start:]) for start in range(len(parts))]
    names += [posixpath.splitext(name)[0] for name in names]
    return next((known[name] for name in names if name in known), None)


def _answers(cells: Sequence[Sequence[str]], origins: Sequence[str], task: str) -> tuple[pa.Array, dict[int, str]]:
    answers, reasons = [], {}
    for row, texts in enumerate(cells):
        try:
            answers.append([float(text) for text in texts])
        except ValueError:
            answers.append([])
            reasons[row] = f"{origins[row]}: {', '.join(texts)!r} is no number; task {task} takes numbers"
        if len(texts) != len(cells[0]):
            reasons[row] = f"{origins[row]}: {len(texts)} numbers where {origins[0]} has {len(cells[0])}"
    return pa.array(answers, pa.list_(pa.float32())), reasons


def aligned(rows: pa.Table, labels: pa.ListArray, how: str) -> tuple[pa.Table, dict[int, str]]:
    """Add one label a step to rows of sequences.

    `equal` takes as many labels as steps. `start` and `end` make the shorter of the two as long as the other: steps
    without a label get null; labels without a step (one-to-many) get a step of zeros (of empty words).

    Returns:
        the rows with `label`, and why a row cannot be used.
    """
    names = [name for name in ("values", "symbols", "categories") if name in rows.column_names]
    (num_steps, _), (num_labels, _) = unwrap(flat(rows[names[0]])), unwrap(labels)
    if how == "equal":
        different = np.flatnonzero(num_steps != num_labels)
        reasons = {
            int(row): f"{num_labels[row]} labels for {num_steps[row]} steps; data.align: start or end allows that"
            for row in different
        }
        return rows.append_column("label", labels), reasons
    longest = np.maximum(num_steps, num_labels)
    for name in names:
        padded = _padded(flat(rows[name]), longest, at_end=how == "start")
        rows = rows.set_column(rows.column_names.index(name), name, padded)
    return rows.append_column("label", _padded(labels, longest, at_end=how == "start", filler=None)), {}


def _padded(lists: pa.ListArray, lengths: np.ndarray, *, at_end: bool, filler: object = "") -> pa.ListArray:
    """Lists of the given lengths, which are no shorter than they were."""
    own, items = unwrap(lists)
    if pa.types.is_fixed_size_list(items.type) and filler is not None:
        filler = [0.0 if pa.types.is_floating(items.type.value_type) else ""] * items.type.list_size
    place = np.arange(lengths.sum()) - np.repeat(ends(lengths)[:-1], lengths)
    if not at_end:
        place -= np.repeat(lengths - own, lengths)
    inside = (place >= 0) & (place < np.repeat(own, lengths))
    source = np.where(inside, np.repeat(ends(own)[:-1], lengths) + place, len(items))
    taken = pa.concat_arrays([items, pa.array([filler], items.type)]).take(pa.array(source))
    return wrap(taken, lengths)
