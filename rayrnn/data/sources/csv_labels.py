"""Labels that lie beside the sequences: a directory of label files, or one file of `file name,label` lines."""

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import nan
from typing import TypeVar

import numpy as np
import pyarrow as pa
from pyarrow import fs

from rayrnn.data.arrow_lists import ends, flat, unwrap, wrap
from rayrnn.data.files import Listing, list_files, open_file_system, read_bytes
from rayrnn.data.rows import Label
from rayrnn.data.sources.csv_dialect import number_of
from rayrnn.data.sources.csv_header import records, tabulated
from rayrnn.data.sources.index_columns import index_of_lines, say_no_label
from rayrnn.data.sources.labels import Target, sequence_labels
from rayrnn.data.sources.source import Wanted
from rayrnn.errors import DataError, RecipeError, UsageError
from rayrnn.recipe.data_sections import CsvData
from rayrnn.recipe.media_sections import MediaData
from rayrnn.wording import counted

Found = TypeVar("Found")
#: with which the name of a file in a store may begin
_ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]*://")
#: sections that name the place of labels beside the sequences
WithLabels = CsvData | MediaData
_KEYS = ("labels", "held_out_labels", "targets", "held_out_targets")
#: where else labels may come from
_OTHER_ORIGINS = ("label_column", "label_pattern")


@dataclass(frozen=True)
class Labels:
    """Where the labels of one data set are."""

    #: as the user wrote it
    where: str
    listing: Listing
    #: one file of lines, not a directory or pattern of label files
    in_one_file: bool


def find_labels(data: WithLabels, wanted: Wanted, sequences: Listing, key: str = "labels") -> Labels | None:
    """The labels that belong to these sequences; none where a column, or a file's name, has them.

    Args:
        sequences: all their files.
        key: what names them in the section; the one for the held-out part begins with `held_out_`.

    Raises:
        UsageError: labels are given for these sequences, and a column has those that were learned.
        DataError: they are not there; or only those of other sequences are known.
    """
    if wanted.labels is not None and getattr(data, key) is None:
        origin = next((f"data.{name}" for name in _OTHER_ORIGINS if getattr(data, name, None) is not None), None)
        said = "are not learned" if origin is None else f"come from {origin}"
        raise UsageError(f"labels are given, {wanted.labels}, but in this recipe they {said}: leave them out")
    where = _own_labels(data, wanted, sequences, key)
    if where is None:
        return None
    filesystem, path = open_file_system(where, endpoint=data.endpoint)
    in_one_file = filesystem.get_file_info(path).type == fs.FileType.File
    return Labels(where, list_files(where, endpoint=data.endpoint), in_one_file)


def _own_labels(data: WithLabels, wanted: Wanted, sequences: Listing, key: str) -> str | None:
    """
    Raises:
        DataError: these sequences have none of their own, and those of the recipe are of others.
    """
    learned: str | None = getattr(data, key)
    kept_out: str | None = getattr(data, f"held_out_{key}")
    if wanted.labels is not None or learned is None or wanted.where is None:
        return wanted.labels or learned
    if kept_out is not None and _are_among(sequences, str(data.held_out), data):
        return kept_out
    if _are_among(sequences, data.path, data):
        return learned
    raise DataError(
        f"{wanted.where} is not among the sequences of data.path, whose labels are {learned}, and labels of other "
        f"sequences are never used: say where its own are, with data.held_out_{key} in a recipe, with --labels for "
        "`rayrnn evaluate`"
    )


def _are_among(sequences: Listing, where: str | tuple[str, ...], data: WithLabels) -> bool:
    """Whether all these files are found at an address of the recipe too."""
    try:
        others = list_files(where, endpoint=data.endpoint)
    except DataError:  # the files that a run has learned may be gone
        return False
    return set(sequences.places) <= set(others.places)


def without_labels(sequences: Listing, data: WithLabels, wanted: Wanted) -> Listing:
    """The sequences' files alone, where label files lie in the same directory."""
    labels: set[str] = set()
    named = (getattr(data, key, None) for key in _KEYS)
    for where in filter(None, (*named, wanted.labels)):
        with suppress(DataError):  # those that these sequences need are there
            labels |= set(list_files(where, endpoint=data.endpoint).paths)
    kept = [number for number, path in enumerate(sequences.paths) if path not in labels]
    return replace(sequences, paths=tuple(sequences.paths[number] for number in kept), sizes=sequences.sizes[kept])


def label_lines(
    labels: Labels, sequences: Listing, delimiter: str, target: Target, say: Callable[[str], None]
) -> pa.Table:
    """The line of every sequence in a file of `file name,label` lines.

    A file name may be given with as many of its directories as it takes to tell it from others, and without its
    suffix. Names of files that are not among the sequences are passed over, and so is a line with the columns' names.

    Args:
        say: how the user is told of an index before the file names, which is passed over too.

    Returns:
        `label` (the cells after the file name; null where no line names the file) and `label_origin` ("file:line").
    """
    if target.needs.label is Label.CLASSES:
        raise RecipeError(
            f"{labels.where} gives one label a sequence; task {target.needs.task} takes one a step, from "
            "data.label_column or from a directory of label files"
        )
    lines: dict[str, tuple[int, list[str]]] = {}
    origin = labels.listing.names[0]
    called = {spelling for path in sequences.paths for spelling in _spelt(path)}
    content = read_bytes(labels.listing, 0)
    if delimiter == "\t" and target.needs.takes_sequences:  # texts, in which a quote is a quote
        lines_of_cells = ((line, [cell.strip() for cell in cells]) for line, cells in tabulated(content, origin))
        written = [(line, cells if any(cells) else []) for line, cells in lines_of_cells]
    else:
        written = list(records(content, origin, delimiter, strict=True))
    firsts, seconds = ({_named(record[place]) for _, record in written if len(record) == 2} for place in (0, 1))
    if called.isdisjoint(firsts) and not called.isdisjoint(seconds):
        raise DataError(f"{origin} has the file names in its second column: put that one first")
    for line, record in _without_index(written, called, target, lambda: say_no_label(origin, say)):
        if len(record) == 1 or (len(record) > 2 and target.needs.label is not Label.NUMBERS):
            what = target.needs.column + (", in quotes where it has commas" if target.needs.takes_sequences else "")
            semicolon = "; separate them with commas" if len(record) == 1 and ";" in record[0] else ""
            if len(record) > 2:
                several = target.needs.label is Label.SET
                semicolon = "; several classes have semicolons between them" if several else "; leave the others out"
            raise DataError(
                f"{origin}:{line}: {counted(len(record), 'column')}; each line is a file name and its {what}{semicolon}"
            )
        if record:
            name, *cells = record
            name = _named(name)
            before, known = lines.setdefault(name, (line, cells))
            if known != cells:
                way_out = "leave one of the two lines out, or tell two files of one name apart by their directories"
                if target.needs.label is Label.SET:
                    way_out = "give all of its classes in one line, with semicolons between them"
                raise DataError(f"{origin}:{line}: {name} has another label in line {before}: {way_out}")
    found = _one_each(sequences, lines, lambda entry: f"{origin}:{entry[0]}")
    if all(entry is None for entry in found):
        raise DataError(f"{origin} names none of the {counted(len(found), 'sequence')}, such as {sequences.names[0]}")
    return pa.table(
        {
            "label": pa.array([entry and entry[1] for entry in found], pa.list_(pa.string())),
            "label_origin": [f"{origin}:{entry[0]}" if entry else None for entry in found],
        }
    )


def _without_index(
    written: list[tuple[int, list[str]]], called: set[str], target: Target, said: Callable[[], None]
) -> list[tuple[int, list[str]]]:
    """The lines with the file name first. Behind an index it comes second; numbers there may be answers, too."""
    lines = [record for _, record in written if record]
    if min(map(len, lines), default=0) < 3 or not index_of_lines(lines):
        return written
    seconds = [record[1] for record in lines]
    if not target.needs.of_classes and (len(set(seconds)) < len(seconds) or called.isdisjoint(seconds)):
        return written
    said()
    return [(line, record[1:]) for line, record in written]


def label_files(labels: Labels, sequences: Listing) -> pa.Table:
    """The label file of every sequence: the one with its name, or with its name but for the suffix; where label files
    lie in directories, with these too.

    Returns:
        `label_path` and `label_origin`, null where there is none.
    """
    listing = labels.listing
    names = below_common(listing.paths)
    stems = {posixpath.splitext(name)[0]: number for number, name in enumerate(names)}
    places = (stems if len(stems) == len(names) else {}) | {name: number for number, name in enumerate(names)}
    found = _one_each(sequences, places, lambda number: listing.names[number])
    if all(number is None for number in found):
        raise DataError(
            f"{labels.where} has no label file for any of the {counted(len(found), 'sequence')}, such as "
            f"{sequences.names[0]}"
        )
    return pa.table(
        {
            "label_path": [None if number is None else listing.paths[number] for number in found],
            "label_origin": [None if number is None else listing.names[number] for number in found],
        }
    )


def labels_of_lines(lines: pa.Table, target: Target, decimal: str) -> tuple[pa.Array, dict[int, str]]:
    """What `label_lines` found -> one label a sequence, and what is wrong by sequence."""
    origins = lines["label_origin"].to_pylist()
    cells = lines["label"].to_pylist()
    if target.needs.takes_sequences:
        texts = [one[0].strip() for one in cells]
        empty = {row: f"{origins[row]}: the target is empty" for row, text in enumerate(texts) if not text}
        return pa.array(texts, pa.string()), empty
    if not target.needs.of_classes:
        return _answers(cells, origins, target, decimal)
    labels, faults = sequence_labels(pa.array([c[0] for c in cells], pa.string()), np.arange(len(cells) + 1), target)
    return labels, {row: f"{origins[row]}: {fault.reason}" for row, fault in faults.items()}


def below_common(paths: Sequence[str]) -> list[str]:
    """File names, with the directories in which they lie below the one that holds them all."""
    directory = posixpath.commonpath({posixpath.dirname(path) for path in paths})
    return [path[len(directory) :].lstrip("/") for path in paths]


def _one_each(sequences: Listing, known: Mapping[str, Found], origin: Callable[[Found], str]) -> list[Found | None]:
    """What is known by each file's name.

    Raises:
        DataError: two files would have the same.
    """
    found = [_by_name(path, known) for path in sequences.paths]
    takers: dict[str, str] = {}
    for name, entry in zip(sequences.names, found, strict=True):
        if entry is not None and (other := takers.setdefault(origin(entry), name)) != name:
            raise DataError(
                f"{origin(entry)} would be the label of two sequences, {other} and {name}: name labels with as many of "
                "the directories as it takes to tell the sequences apart"
            )
    return found


def _named(cell: str) -> str:
    """A file's name as a cell has it, without what stands around it in an address."""
    return _ADDRESS.sub("", cell).removeprefix("./").removesuffix("/")


def _by_name(path: str, known: Mapping[str, Found]) -> Found | None:
    """What is known by a file's name with the most of its directories, with its suffix or else without."""
    return next((known[name] for name in _spelt(path) if name in known), None)


def _spelt(path: str) -> Iterator[str]:
    """How a file's name may be written."""
    parts = path.split("/")
    names = ("/".join(parts[start:]) for start in range(len(parts)))
    return (spelling for name in names for spelling in (name, posixpath.splitext(name)[0]))


def _answers(
    cells: Sequence[Sequence[str]], origins: Sequence[str], target: Target, decimal: str
) -> tuple[pa.Array, dict[int, str]]:
    answers, reasons = [], {}
    for row, texts in enumerate(cells):
        try:
            answers.append([nan if text in ("", *target.missing) else number_of(text, decimal) for text in texts])
        except ValueError:
            answers.append([])
            reasons[row] = f"{origins[row]}: {', '.join(texts)!r} is no number; task {target.needs.task} takes numbers"
        if len(texts) != len(cells[0]):
            reasons[row] = f"{origins[row]}: {len(texts)} numbers where {origins[0]} has {len(cells[0])}"
    return pa.array(answers, pa.list_(pa.float64())), reasons


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
