"""Files that are one sequence each, or one with their neighbours: found, labelled, and decoded by Ray tasks.

Ray Data's own readers are not used: they name no file in what they raise, and know neither the bounds on what a file
may become nor which files in a directory are nobody's data.
"""

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import ray.data
from pyarrow import fs

from rayrnn.data.arrow_lists import flat, side_by_side, wrap
from rayrnn.data.contents import read_whole, unpacked_name
from rayrnn.data.files import Listing, list_files
from rayrnn.data.rows import Label, with_feature_names
from rayrnn.data.sequences import beside
from rayrnn.data.sources.csv_labels import below_common, find_labels, label_lines, labels_of_lines, without_labels
from rayrnn.data.sources.labels import Target
from rayrnn.data.sources.source import Wanted
from rayrnn.data.sources.tables import keyed
from rayrnn.errors import DataError, RecipeError
from rayrnn.recipe.media_sections import MediaData
from rayrnn.wording import counted, listed

#: bytes of files that one task reads, about
TASK_BYTES = 4 * 2**20
#: tasks that share the decoding of small files
FEWEST_TASKS = 16
#: files that one task reads at the same time from a store, where most of the time is waiting
READERS = 16
#: numbers in one block, about: 128 MiB
BLOCK_NUMBERS = 16 * 2**20
#: what systems leave in directories that somebody looked into; hidden files are never listed
_OF_SYSTEMS = ("thumbs.db", "desktop.ini", "ehthumbs.db")


@dataclass(frozen=True)
class Decoder:
    """How the content of files becomes the steps of one sequence."""

    #: contents and names of the files -> numbers [T, F], or places in `symbols` [T]
    steps: Callable[[Sequence[bytes], Sequence[str]], np.ndarray]
    #: the features' names
    features: tuple[str, ...] = ()
    #: where a step is one symbol: all there are
    symbols: tuple[str, ...] = ()


@dataclass(frozen=True)
class MediaFiles:
    """The files of a section, each of its sequences one or several of them."""

    #: all files
    listing: Listing
    #: what names each sequence: its file, or the directory of its files
    sequences: Listing
    #: the numbers of each sequence's files, in their order
    members: tuple[tuple[int, ...], ...]

    def read(self, number: int) -> tuple[bytes, str]:
        """Content and name of one file.

        Raises:
            DataError: it cannot be read.
        """
        name = self.listing.names[number]
        return _content(self.listing.filesystem, self.listing.paths[number], name), name


def find_media(
    data: MediaData, wanted: Wanted, suffixes: Sequence[str], *, what: str, by_directory: bool = False
) -> MediaFiles:
    """Find the files of a section that are sounds, or images, by their names.

    Args:
        suffixes: how such names end; where no name does, all files are taken.
        what: they are, in messages.
        by_directory: all files of one directory are one sequence, in the natural order of their names.

    Raises:
        DataError: there are none.
    """
    listing = list_files(wanted.where or data.path, endpoint=data.endpoint, say=wanted.say)
    listing = _meant(without_labels(listing, data, wanted), suffixes, what, wanted.say)
    if not by_directory:
        return MediaFiles(listing, listing, tuple((number,) for number in range(len(listing))))
    members: dict[str, list[int]] = {}
    for number, path in enumerate(listing.paths):
        members.setdefault(str(PurePosixPath(path).parent), []).append(number)
    folders = sorted(members)
    ordered = [sorted(members[folder], key=lambda number: _natural(listing.paths[number])) for folder in folders]
    for folder, numbers in zip(folders, ordered, strict=True):
        if inner := next((other for other in folders if other.startswith(f"{folder}/")), None):
            wanted.say(
                f"{PurePosixPath(folder).name} is a sequence of its own, of {listing.names[numbers[0]]} and what else "
                f"lies beside the directory {PurePosixPath(inner).name}: keep elsewhere what is part of none"
            )
            break
    sizes = np.array([listing.sizes[numbers].sum() for numbers in ordered], np.int64)
    return MediaFiles(listing, replace(listing, paths=tuple(folders), sizes=sizes), tuple(map(tuple, ordered)))


def read_media(found: MediaFiles, data: MediaData, wanted: Wanted, decoder: Decoder) -> ray.data.Dataset:
    """Every sequence, decoded when the dataset is consumed.

    Returns:
        rows of `key` (the file's or directory's name, with its directories where they lie in several), `values` or
        `symbols`, `label` or `target` where they are wanted, and why a file cannot be used, in `fault` (data.on_error:
        stop) or `skipped` (skip).

    Raises:
        DataError: there are no labels for these sequences.
        RecipeError: the recipe does not say where labels are, or the task needs others.
    """
    sequences = found.sequences
    columns = {
        "key": below_common(sequences.paths),
        "origin": list(sequences.names),
        "paths": [[found.listing.paths[number] for number in numbers] for numbers in found.members],
        "names": [[found.listing.names[number] for number in numbers] for numbers in found.members],
    }
    files = pa.table(columns)
    target = Target(wanted.needs, data.classes, data.num_classes, data.no_value)
    labels = _labels(found, data, wanted, target)
    if labels is not None:
        for name in labels.table.column_names:
            files = files.append_column(name, labels.table[name])
    reading = _Reading(sequences.filesystem, decoder, target, labels.where if labels else "", data.on_error)
    groups = [files.take(pa.array(group)) for group in sequences.groups(TASK_BYTES, fewest=FEWEST_TASKS)]
    return ray.data.from_arrow(groups).map_batches(
        functools.partial(_read_group, reading=reading),
        batch_size=None,
        batch_format="pyarrow",
        **beside(sequences.filesystem),
    )


@dataclass(frozen=True)
class _Reading:
    """What every task needs to know."""

    filesystem: fs.FileSystem
    decoder: Decoder
    target: Target
    #: what has the labels, in messages
    labels: str
    on_error: str


@dataclass(frozen=True)
class _Labels:
    """What is to be learned of each sequence."""

    where: str
    #: `label` (the cells that say it, or null) and `label_origin`
    table: pa.Table


def _meant(listing: Listing, suffixes: Sequence[str], what: str, say: Callable[[str], None]) -> Listing:
    """The files that are what is wanted by their names; the user is told of the others."""
    is_meant = [path.lower().endswith(tuple(suffixes)) for path in listing.paths]
    is_system = [PurePosixPath(path).name.lower() in _OF_SYSTEMS for path in listing.paths]
    if not any(is_meant):  # names that say nothing
        is_meant = [not of_system for of_system in is_system]
    others = [n for n, meant in enumerate(is_meant) if not meant and not is_system[n]]
    if others:
        names = listed([listing.names[number] for number in others], most=1)
        say(f"{names}: left out, for the names of {what} end in {listed(suffixes, most=3)}")
    kept = np.flatnonzero(is_meant)
    if not len(kept):
        raise DataError(f"{listing.base} holds no {what}")
    return replace(listing, paths=tuple(listing.paths[number] for number in kept), sizes=listing.sizes[kept])


def _natural(path: str) -> list[tuple[int, int, str]]:
    """2.png before 10.png: runs of digits by their value."""
    parts = re.split(r"([0-9]+)", PurePosixPath(path).name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


def _labels(found: MediaFiles, data: MediaData, wanted: Wanted, target: Target) -> _Labels | None:
    if not (wanted.labelled and wanted.needs.is_labelled):
        return None
    needs = wanted.needs
    key = "targets" if needs.takes_sequences else "labels"
    if needs.label is Label.CLASSES:
        raise RecipeError(f"task {needs.task} takes one label a step, and data.source {data.source} has one a sequence")
    beside_them = find_labels(data, wanted, found.listing, key)
    if beside_them is not None:
        if not beside_them.in_one_file:
            raise DataError(
                f"data.{key} is {beside_them.where}, no file: due is one CSV of `file name,{needs.column}` lines"
            )
        delimiter = "\t" if unpacked_name(beside_them.listing.paths[0]).lower().endswith(".tsv") else ","
        lines = label_lines(beside_them, found.sequences, delimiter, target, wanted.say)
        return _Labels(beside_them.where, lines)
    if data.label_pattern is None:
        raise RecipeError(
            f"task {needs.task} needs {key}, and nothing says where they are: give data.{key}, a CSV of `file "
            f"name,{needs.column}` lines, or data.label_pattern, such as ^([^/]+)/ for what a directory is called"
        )
    return _Labels(f"data.label_pattern {data.label_pattern}", _labels_in_names(found.sequences, data.label_pattern))


def _labels_in_names(sequences: Listing, pattern: str) -> pa.Table:
    """The label is searched below the directory that was named, of several below each; where no name there has one,
    below the directory that all of them lie in.

    Raises:
        DataError: no name has a label.
    """
    below = [_below(path, sequences.bases) for path in sequences.paths]
    matches = [re.search(pattern, path) for path in below]
    if not any(matches):
        below = [_below(path, (sequences.base,)) for path in sequences.paths]
        matches = [re.search(pattern, path) for path in below]
    labels = [None if match is None or match[1] is None else [match[1]] for match in matches]
    if not any(labels):
        raise DataError(
            f"data.label_pattern {pattern} is found in none of the {counted(len(below), 'name')} below "
            f"{sequences.base}, such as {below[0]}"
        )
    return pa.table({"label": pa.array(labels, pa.list_(pa.string())), "label_origin": list(sequences.names)})


def _below(path: str, bases: Sequence[str]) -> str:
    """A path below the last of the directories that it lies in; a directory that was itself named is its own name."""
    around = [f"{base.rstrip('/')}/" for base in bases if base]
    start = max((len(base) for base in around if path.startswith(base)), default=0)
    return path[start:] or PurePosixPath(path).name


def _read_group(files: pa.Table, reading: _Reading) -> Iterator[pa.Table]:
    """Decode some sequences within one task, a block after the other."""
    pending: list[np.ndarray] = []
    reasons: dict[int, str] = {}
    first = 0
    for number, steps in enumerate(_decoded(files, reading)):
        if isinstance(steps, str):
            reasons[number - first] = steps
            steps = np.zeros(0)
        pending.append(steps)
        if sum(steps.size for steps in pending) >= BLOCK_NUMBERS:
            yield _block(files.slice(first, len(pending)), pending, reasons, reading)
            pending, reasons, first = [], {}, number + 1
    if pending:
        yield _block(files.slice(first, len(pending)), pending, reasons, reading)


def _decoded(files: pa.Table, reading: _Reading) -> Iterator[np.ndarray | str]:
    """The steps of each sequence, or why it has none."""
    all_paths, all_names = files["paths"].to_pylist(), files["names"].to_pylist()

    def read(number: int) -> list[bytes] | str:
        pairs = zip(all_paths[number], all_names[number], strict=True)
        try:
            return [_content(reading.filesystem, path, name) for path, name in pairs]
        except DataError as error:
            return str(error)

    for start in range(0, len(files), READERS):
        numbers = range(start, min(start + READERS, len(files)))
        if reading.filesystem.type_name == "local":
            contents: Iterator[list[bytes] | str] = map(read, numbers)
        else:
            with ThreadPoolExecutor(READERS) as pool:
                contents = iter(list(pool.map(read, numbers)))
        for number, content in zip(numbers, contents, strict=True):
            yield content if isinstance(content, str) else _steps_of(content, all_names[number], reading.decoder)


def _content(filesystem: fs.FileSystem, path: str, name: str) -> bytes:
    """
    Raises:
        DataError: it cannot be read, or there is nothing.
    """
    content = read_whole(filesystem, path, name)
    if not content:
        raise DataError(f"{name} is empty: it has 0 bytes")
    return content


def _steps_of(contents: list[bytes], names: list[str], decoder: Decoder) -> np.ndarray | str:
    try:
        return decoder.steps(contents, names)
    except DataError as error:
        return str(error)


def _block(files: pa.Table, steps: list[np.ndarray], reasons: dict[int, str], reading: _Reading) -> pa.Table:
    reasons = _unlabelled(files, reading) | reasons
    good = [number for number in range(len(steps)) if number not in reasons]
    columns: dict[str, pa.Array] = {}
    if good:
        columns = _contents([steps[number] for number in good], reading.decoder)
        if "label" in files.column_names:
            lines = files.take(pa.array(good))
            columns[reading.target.needs.column], wrong = labels_of_lines(lines, reading.target, reading.target.decimal)
            reasons |= {good[row]: reason for row, reason in wrong.items()}
    rows = with_feature_names(pa.table(columns), {"values": reading.decoder.features})
    return keyed(flat(files["key"]), rows, np.array(good, np.int64), reasons, on_error=reading.on_error)


def _unlabelled(files: pa.Table, reading: _Reading) -> dict[int, str]:
    if "label" not in files.column_names:
        return {}
    missing, column = np.flatnonzero(files["label"].is_null()), reading.target.needs.column
    return {
        int(row): f"{files['origin'][int(row)]} has no {column}: there is none for it in {reading.labels}"
        for row in missing
    }


def _contents(steps: list[np.ndarray], decoder: Decoder) -> dict[str, pa.Array]:
    sizes = np.array([len(each) for each in steps], np.int64)
    every = np.concatenate(steps)
    if decoder.symbols:
        return {"symbols": wrap(pa.array(decoder.symbols, pa.string()).take(pa.array(every)), sizes)}
    values = side_by_side(every.astype(np.float64).reshape(-1), every.shape[1])
    return {"values": wrap(values, sizes)}
