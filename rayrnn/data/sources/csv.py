"""CSV files, one a sequence and one line a step, -> rows of the row schema, by Ray tasks that read many files each."""

import functools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import ray.data
from pyarrow import fs

from rayrnn.data.arrow_lists import flat
from rayrnn.data.contents import no_text, read_whole
from rayrnn.data.files import Listing, list_files, read_bytes
from rayrnn.data.narrowing import with_lost
from rayrnn.data.rows import Label
from rayrnn.data.sequences import beside
from rayrnn.data.sources.csv_columns import Layout, label_layout_of, layout_of
from rayrnn.data.sources.csv_labels import (
    Labels,
    aligned,
    below_common,
    find_labels,
    label_files,
    label_lines,
    labels_of_lines,
    without_labels,
)
from rayrnn.data.sources.csv_parsing import located, parse
from rayrnn.data.sources.labels import Target
from rayrnn.data.sources.source import Wanted
from rayrnn.data.sources.tables import keyed, rows_of_steps
from rayrnn.errors import DataError
from rayrnn.recipe.data_sections import CsvData

#: bytes of files that one task reads, about
TASK_BYTES = 4 * 2**20
#: files that one task reads at the same time from a store, where most of the time is waiting
READERS = 16


@dataclass(frozen=True)
class _Reading:
    """What every task needs to know."""

    filesystem: fs.FileSystem
    layout: Layout
    #: of the files that hold nothing but labels, where there are any
    label_layout: Layout | None
    #: where the labels are that lie beside the sequences
    labels: str
    align: str
    on_error: str


class Csv:
    """CSV files, one a sequence."""

    section = CsvData

    def read(self, data: CsvData, wanted: Wanted) -> ray.data.Dataset:
        """Every file as one sequence, read when the dataset is consumed.

        Returns:
            rows of `key` (the file's name, with its directories where the files lie in several), `values` and
            `categories`, or `symbols` where one categorical column is all there is; `label` or `target`, if the recipe
            says where these are; and the reason why a file cannot be used, in `fault` (data.on_error: stop) or
            `skipped` (skip).

        Raises:
            DataError: there are no files, or the first of them does not fit the recipe.
            RecipeError: the recipe's columns contradict each other.
        """
        listing = list_files(wanted.where or data.path, endpoint=data.endpoint, say=wanted.say)
        key = "targets" if wanted.needs.takes_sequences else "labels"
        labels = find_labels(data, wanted, listing, key) if wanted.labelled and wanted.needs.is_labelled else None
        listing = without_labels(listing, data, wanted)
        target = Target(wanted.needs, data.classes, data.num_classes, data.no_value, data.decimal)

        def layout(content: bytes, origin: str) -> Layout:
            return layout_of(content, origin, data, target, wanted)

        files = pa.table({"key": below_common(listing.paths), "path": listing.paths, "origin": listing.names})
        first = _first_layout(listing, data, layout)
        files, label_layout = _with_places_of_labels(files, listing, labels, data, target, wanted.say)
        reading = _Reading(
            listing.filesystem, first, label_layout, labels.where if labels else "", data.align, data.on_error
        )
        groups = [files.take(pa.array(group)) for group in listing.groups(TASK_BYTES)]
        return ray.data.from_arrow(groups).map_batches(
            functools.partial(_read_group, reading=reading),
            batch_size=None,
            batch_format="pyarrow",
            **beside(listing.filesystem),
        )


def rows_of_csv(content: bytes, origin: str, data: CsvData, wanted: Wanted) -> pa.Table:
    """One file's content as the one row that `Csv.read` makes of it, without a label.

    Raises:
        DataError: it does not fit the recipe, or cannot be read; names the line.
    """
    if fault := no_text(content, origin):
        raise DataError(fault)
    target = Target(wanted.needs, data.classes, data.num_classes, data.no_value, data.decimal)
    layout = layout_of(content, origin, data, target, wanted)
    parsed = parse([content], [origin], layout)
    rows, faults = rows_of_steps(parsed.steps, parsed.offsets, layout.roles)
    reasons = parsed.reasons | located(faults, parsed, [content], [origin], layout)
    if reasons:
        raise DataError(reasons[0])
    return keyed(pa.array([origin]), rows, parsed.files, {}, on_error="stop")


def _with_places_of_labels(
    files: pa.Table,
    listing: Listing,
    labels: Labels | None,
    data: CsvData,
    target: Target,
    say: Callable[[str], None],
) -> tuple[pa.Table, Layout | None]:
    """Beside every file where its label is; and the layout of label files, where labels lie in such."""
    if labels is None:
        return files, None
    if labels.in_one_file:
        return _beside(files, label_lines(labels, listing, data.delimiter, target, say)), None
    if target.needs.takes_sequences:
        raise DataError(f"data.targets is {labels.where}, no file: due is one CSV of `file name,target` lines")
    files = _beside(files, label_files(labels, listing))
    return files, _first_layout(
        labels.listing, data, lambda content, origin: label_layout_of(content, origin, data, target, say)
    )


def _first_layout(listing: Listing, data: CsvData, read: Callable[[bytes, str], Layout]) -> Layout:
    """The layout of the first file that has one."""
    for number, origin in enumerate(listing.names):
        try:
            return read(read_bytes(listing, number), origin)
        except DataError:
            if data.on_error == "stop":
                raise
    raise DataError(f"none of the {len(listing)} files, such as {listing.names[0]}, can be used (data.on_error: skip)")


def _beside(files: pa.Table, more: pa.Table) -> pa.Table:
    for name in more.column_names:
        files = files.append_column(name, more[name])
    return files


@dataclass(frozen=True)
class _Part:
    """What was read of some files: row i is file numbers[i]; files with a reason cannot be used."""

    rows: pa.Table
    numbers: np.ndarray
    reasons: dict[int, str]
    #: column -> two whole numbers that are not told apart any more
    lost: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def usable(self) -> "_Part":
        good = ~np.isin(self.numbers, list(self.reasons))
        return replace(self, rows=self.rows.filter(pa.array(good)), numbers=self.numbers[good])


def _read_group(files: pa.Table, reading: _Reading) -> pa.Table:
    """Read some files (columns key, path, origin, and where their labels are) within one task."""
    part = _read_files(files["path"].to_pylist(), files["origin"].to_pylist(), reading.layout, reading)
    if "label_origin" in files.column_names:
        part = _with_labels(
            replace(part, reasons=_unlabelled(files, reading.labels) | part.reasons).usable(), files, reading
        )
    rows = keyed(flat(files["key"]), part.rows, part.numbers, part.reasons, on_error=reading.on_error)
    return with_lost(rows, part.lost)


def _read_files(paths: list[str], origins: list[str], layout: Layout, reading: _Reading) -> _Part:
    contents, unreadable = _read_contents(paths, origins, reading.filesystem)
    parsed = parse(contents, origins, layout)
    rows, faults = rows_of_steps(parsed.steps, parsed.offsets, layout.roles)
    reasons = parsed.reasons | located(faults, parsed, contents, origins, layout)
    return _Part(rows, parsed.files, reasons | unreadable, parsed.lost)


def _read_contents(
    paths: list[str], origins: list[str], filesystem: fs.FileSystem
) -> tuple[list[bytes], dict[int, str]]:
    """Every file, empty where it cannot be read, and why it cannot."""

    def read(number: int) -> bytes | str:
        try:
            content = read_whole(filesystem, paths[number], origins[number])
        except DataError as error:
            return str(error)
        return no_text(content, origins[number]) or content

    if filesystem.type_name == "local":
        results = [read(number) for number in range(len(paths))]
    else:
        with ThreadPoolExecutor(READERS) as pool:
            results = list(pool.map(read, range(len(paths))))
    contents = [result if isinstance(result, bytes) else b"" for result in results]
    return contents, {number: result for number, result in enumerate(results) if isinstance(result, str)}


def _unlabelled(files: pa.Table, labels: str) -> dict[int, str]:
    missing = np.flatnonzero(files["label_origin"].is_null())
    return {int(n): f"{files['origin'][int(n)]} has no label: there is none for it in {labels}" for n in missing}


def _with_labels(part: _Part, files: pa.Table, reading: _Reading) -> _Part:
    """Add the labels that lie beside the sequences; every file of the part has one."""
    files = files.take(pa.array(part.numbers))
    target = reading.layout.roles.target
    if reading.label_layout is None:
        labels, reasons = labels_of_lines(files, target, reading.layout.decimal)
        rows = part.rows.append_column(target.needs.column, labels)
        return replace(part, rows=rows, reasons=part.reasons | _of(part, reasons))
    origins = files["label_origin"].to_pylist()
    read = _read_files(files["label_path"].to_pylist(), origins, reading.label_layout, reading).usable()
    rows, labels = part.rows.take(pa.array(read.numbers)), flat(read.rows["label"])
    numbers, reasons = part.numbers[read.numbers], part.reasons | _of(part, read.reasons)
    both = _Part(rows, numbers, reasons, {**read.lost, **part.lost})
    if target.needs.label is Label.CLASS:
        return replace(both, rows=rows.append_column("label", labels))
    rows, mismatched = aligned(rows, labels, reading.align)
    reasons = {row: f"{origins[read.numbers[row]]}: {reason}" for row, reason in mismatched.items()}
    return replace(both, rows=rows, reasons=both.reasons | _of(both, reasons))


def _of(part: _Part, reasons: dict[int, str]) -> dict[int, str]:
    """Reasons by row of a part -> reasons by file."""
    return {int(part.numbers[row]): reason for row, reason in reasons.items()}
