"""The recipe's `data` section: what every source of sequences can be told."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias

import pydantic
from pydantic import BeforeValidator, Field

from rayrnn.data import UNITS
from rayrnn.recipe.row_conditions import Condition, Conditions
from rayrnn.recipe.section import Section

if TYPE_CHECKING:
    UnitsName: TypeAlias = str
else:
    UnitsName = Literal[tuple(UNITS)]

Fraction = Annotated[float, Field(ge=0, lt=1)]


def spelled(pattern: str, due: str) -> pydantic.AfterValidator:
    """For a text key: what matches the whole of `pattern`; anything else is told what is due, in words."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"due is {due}")
        return value

    return pydantic.AfterValidator(check)


def one_character(value: object) -> object:
    """`tab` for a tabulator."""
    return "\t" if value in ("\\t", "tab") else value


def _fraction_or_path(value: object) -> object:
    """A number is a fraction, whether YAML or the command line gave it; any other text is a path."""
    try:
        fraction = float(str(value))
    except ValueError:
        return value
    if not 0 <= fraction < 1:
        raise ValueError("a fraction must be at least 0 and less than 1")
    return fraction


#: horizons of one network
MOST_HORIZONS = 10_000


def _horizon(value: object) -> object:
    """A whole number; or several, as a list or as text such as 1..24."""
    text = str(value).strip()
    several = re.fullmatch(r"(\d{1,10})\.\.(\d{1,10})", text)
    try:
        if several is not None:
            first, last = int(several[1]), int(several[2])
            value = list(range(first, min(last, first + MOST_HORIZONS) + 1))
        if isinstance(value, list | tuple):
            steps = _whole(value)
            if not steps or steps[0] < 1 or list(steps) != sorted(set(steps)):
                raise ValueError("several horizons are at least 1, ascending, each once, such as [1, 6, 24] or 1..24")
            if len(steps) > MOST_HORIZONS or steps[-1] > 10**9:
                raise ValueError(f"there are at most {MOST_HORIZONS:,} horizons, of at most 1,000,000,000 steps")
            return steps[0] if len(steps) == 1 else text if several else steps
        (steps_ahead,) = _whole([value])
    except TypeError:
        raise ValueError("due is a whole number, several such as [1, 6, 24], or 1..24 for all up to 24") from None
    if not 0 <= steps_ahead <= 10**9:
        raise ValueError("a horizon is at least 0 and at most 1,000,000,000 steps")
    return steps_ahead


def _whole(values: Iterable[object]) -> tuple[int, ...]:
    """
    Raises:
        TypeError: one of them is no whole number.
    """
    texts = [str(value).strip() for value in values]
    if not all(re.fullmatch(r"-?\d{1,20}(\.0*)?", text) for text in texts):
        raise TypeError
    return tuple(int(text.partition(".")[0]) for text in texts)


#: how programs write that there is no number: C, for one, -nan
_NAN = tuple(sign + word for sign in ("", "-", "+") for word in ("NaN", "nan", "NAN"))


def _with_nulls(value: object) -> object:
    """In YAML the word null is no text: here it stands for itself."""
    if not isinstance(value, list | tuple):
        return value
    return [word for part in value for word in (("null", "Null", "NULL") if part is None else (part,))]


class Place(Section):
    """A column by its place, whatever the columns are called: `{place: 0}` is the first, `{place: -1}` the last."""

    #: counted from the first column (0) on, or from the last (-1) back
    place: int


#: a name; or a place, also by its mere number where no column is called by a number
Column = str | Place


class Data(Section):
    """What every source understands; each source adds its own keys below."""

    #: its keys that name files: local ones travel with a job to another cluster
    file_keys: ClassVar[tuple[str, ...]] = ("path", "held_out", "vectors")
    #: whether the files are read by every host for itself, which has them or not: none travels
    read_by_hosts: ClassVar[bool] = False
    #: whether a sequence follows on the one before it, as the parts of a text do; images in the order of names do not
    in_order: ClassVar[bool] = True

    #: what brings the sequences
    source: str
    #: the fraction kept out of training, or a path to sequences of its own
    held_out: Annotated[float | str, BeforeValidator(_fraction_or_path)] = 0.1
    #: an S3-compatible store's address, when `path` is s3:// and the store is not AWS
    endpoint: str | None = None

    @property
    def files(self) -> dict[str, str | tuple[str, ...]]:
        """What names files, by its key."""
        named = {key: getattr(self, key, None) for key in self.file_keys}
        return {key: address for key, address in named.items() if isinstance(address, str | tuple)}

    @property
    def begin_every(self) -> int:
        """Symbols after which what a drawn sequence begins with stands again: a row of pixels; 0: never again."""
        return 0

    @property
    def step_shape(self) -> tuple[int, int, int] | None:
        """Height, width and channels, where each step is an image; its numbers stand row by row, pixel by pixel."""
        return None

    @property
    def commands(self) -> tuple[str, ...]:
        """The keys that are set by which whoever wrote them has programs run; a stored run may be anybody's."""
        return ()

    def describe(self) -> str:
        """What the user calls this data, in a few words."""
        path = getattr(self, "path", None)
        return self.source if path is None else path if isinstance(path, str) else ", ".join(path)


class TextUnits(Section):
    """What a text that is read is cut into."""

    #: what a symbol of a text is: a character, a word (what stands between blanks; a line end is one too), or a piece
    #: of a word as sentencepiece finds them in the training part
    units: UnitsName = "characters"
    #: with units `pieces`: how many there are
    pieces: int = Field(4000, ge=8, le=10**6)
    #: a symbol that the training part has less often than this is the unknown one; without a word 2, and 1 for the
    #: characters of a language model, whose symbols are then all known
    rare: Annotated[int, Field(ge=1, le=10**9)] | None = None
    #: a text file of vectors, one word and its numbers a line (GloVe, word2vec): the embedding begins with them
    vectors: str | None = None


class TargetUnits(Section):
    """What a text is cut into that is a target with a length of its own."""

    #: as `units`
    target_units: UnitsName = "characters"
    #: as `pieces`
    target_pieces: int = Field(4000, ge=8, le=10**6)
    #: as `rare`
    target_rare: int = Field(1, ge=1, le=10**9)


class StepData(Data):
    """Sequences of steps that are rows of columns: what CSV files and tables have in common."""

    #: the labels are the whole numbers 0 .. num_classes - 1
    num_classes: Annotated[int, Field(gt=0, le=10**6)] | None = None
    #: the labels by name, in the order of the network's outputs; without either they are those of all sequences
    classes: tuple[str, ...] | None = None
    #: whether a sequence may have several classes, or none (classification): a list of them, or text such as a;b; a
    #: semicolon alone is none
    several: bool = False
    #: words that stand where there is no value, beside null, NaN and an empty cell, such as [NA, null, -999]
    missing: Annotated[tuple[str, ...], BeforeValidator(_with_nulls)] = ("NaN", "nan", "NaT")
    #: forecasting: the target is the sequence itself so many steps ahead; several at once are a list such as
    #: [1, 6, 24], or 1..24 for every step from 1 to 24; 0 = the labels are the target
    horizon: Annotated[int | tuple[int, ...] | str, BeforeValidator(_horizon)] = 0
    #: fitted once over the training part, kept with the run
    normalize: Literal["none", "standardize", "min_max"] = "none"

    @property
    def horizons(self) -> tuple[int, ...]:
        """The steps ahead that are forecast, ascending; none where nothing is."""
        if isinstance(self.horizon, str):
            first, last = map(int, self.horizon.split(".."))
            return tuple(range(first, last + 1))
        return self.horizon if isinstance(self.horizon, tuple) else (self.horizon,) if self.horizon else ()

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The classes by name, where they are given."""
        return self.classes if self.num_classes is None else tuple(map(str, range(self.num_classes)))

    @property
    def no_value(self) -> tuple[str, ...]:
        """The words that stand where there is no value; one that names a class is a label.

        Where NaN is one of them it is in every spelling that a column of numbers takes for it.
        """
        has_nan = not {*self.missing}.isdisjoint(_NAN)
        given = dict.fromkeys((*self.missing, *(_NAN if has_nan else ())))
        return tuple(word for word in given if word not in (self.classes or ()))

    @pydantic.model_validator(mode="after")
    def _one_kind_of_class(self) -> "StepData":
        if self.num_classes is not None and self.classes is not None:
            raise ValueError("give data.num_classes or data.classes, one of the two (classes by name need no number)")
        if self.classes is not None and len(set(self.classes)) < max(2, len(self.classes)):
            raise ValueError("data.classes needs at least two names, every one once")
        return self


def check_held_out_answers(data: Data) -> None:
    """
    Raises:
        ValueError: labels or targets are given for a held-out path, and there is no such path, or none for the others.
    """
    for key in ("labels", "targets"):
        if getattr(data, f"held_out_{key}") is None:
            continue
        if getattr(data, key) is None:
            raise ValueError(f"data.held_out_{key} goes with data.{key}: give both, or set it to null")
        if not isinstance(data.held_out, str):
            raise ValueError(f"data.held_out_{key} goes with a path in data.held_out: give one, or set it to null")


class CsvData(TargetUnits, StepData):
    """CSV files: one file is one sequence, one line is one step."""

    file_keys: ClassVar[tuple[str, ...]] = (
        *("path", "held_out", "labels", "held_out_labels", "targets", "held_out_targets"),
    )

    source: Literal["csv"] = "csv"
    #: files, directories or glob patterns: local, s3://, gs:// or hdfs://
    path: str | tuple[str, ...]
    #: lines before the first step in every file; the last of them may name the columns
    skip_lines: int = Field(0, ge=0, le=10**9)
    #: between two columns; `tab` is a tabulator
    delimiter: Annotated[str, BeforeValidator(one_character)] = Field(",", min_length=1, max_length=1)
    #: what parts the whole of a number from its fraction
    decimal: Literal[".", ","] = "."
    #: the label's column, by name or by place, `{place: -1}`; regression may name several
    label_column: Column | tuple[Column, ...] | None = None
    #: a directory or glob of label files with the sequences' names, or one CSV of `file name,label` lines
    labels: str | None = None
    #: the same for the sequences of `held_out`, where that is a path of its own: labels are never taken from other data
    held_out_labels: str | None = None
    #: one CSV of `file name,target` lines, where the target is a text with a length of its own (transduction, ctc)
    targets: str | None = None
    #: the same for the sequences of `held_out`, where that is a path of its own
    held_out_targets: str | None = None
    #: where a shorter label file lies along its sequence; the other steps have no label
    align: Literal["equal", "start", "end"] = "equal"
    #: the columns to learn from; without a word all but the label's
    features: tuple[Column, ...] | None = None
    #: those of the features that hold words, not numbers
    categorical: tuple[Column, ...] = ()
    #: columns that are no features even without a word on features; they need not be there
    ignore: tuple[Column, ...] = ()
    #: with `horizon`: those of the features that are forecast; without a word all but those known ahead and static
    forecast: tuple[Column, ...] | None = None
    #: with `horizon`: features that are known of later steps, too, such as holidays: they are read at the horizons
    known_ahead: tuple[Column, ...] = ()
    #: features that are the same at every step of a sequence
    static: tuple[Column, ...] = ()
    #: a column of numbers: how much the answer at each step counts in the loss
    weight: Column | None = None
    #: what a file that cannot be used does: end the run, or be left out and listed in the run directory
    on_error: Literal["stop", "skip"] = "stop"

    @pydantic.model_validator(mode="after")
    def _one_origin_of_labels(self) -> "CsvData":
        if self.label_column is not None and self.labels is not None:
            raise ValueError("give data.label_column or data.labels, one of the two")
        check_held_out_answers(self)
        if self.delimiter in '"\r\n\0' or not self.delimiter.isascii():
            raise ValueError("data.delimiter is one character of ASCII, and neither a quote nor a line end")
        return self


class TableData(TextUnits, TargetUnits, StepData):
    """Tables with one row a sequence, or (with `order_by`) one row a step, wherever they lie."""

    #: the column that names a sequence; without it the rows are numbered
    key: str | None = None
    #: the column that orders a sequence's steps; with it every row is one step
    order_by: str | None = None
    #: one row a sequence: the column of its steps, each a number or a list of numbers
    values: str | None = None
    #: one row a sequence: the column of its symbols, a list of words or whole numbers
    symbols: str | None = None
    #: one row a sequence: the column of its text
    text: str | None = None
    #: one row a step: the columns to learn from; without a word all but key, order_by and label
    features: tuple[str, ...] | None = None
    #: those of the features that hold words, not numbers (one row a sequence: the column of its lists of words)
    categorical: tuple[str, ...] = ()
    #: one row a step: columns that are no features even without a word on features; they need not be there
    ignore: tuple[str, ...] = ()
    #: with `horizon`: those of the features that are forecast (one row a sequence: their places in `values`, such as
    #: {place: 0}); without a word all but those known ahead and static
    forecast: tuple[Column, ...] | None = None
    #: with `horizon`: features that are known of later steps, too, such as holidays: they are read at the horizons (one
    #: row a sequence: columns of lists of numbers, which may be longer than `values`)
    known_ahead: tuple[str, ...] = ()
    #: features that are the same at every step of a sequence (one row a sequence: columns of a number or a word)
    static: tuple[str, ...] = ()
    #: a column of numbers, one row a sequence also of lists of them: how much each sequence or step counts in the loss
    weight: str | None = None
    #: the label's column
    label: str | None = None
    #: one row a sequence: the column of targets with a length of their own, text or lists of words
    target: str | None = None

    @pydantic.model_validator(mode="after")
    def _one_shape(self) -> "TableData":
        contents = [name for name in (self.values, self.symbols, self.text) if name is not None]
        if self.order_by is None and len(contents) != 1:
            raise ValueError("give data.values, data.symbols or data.text (one row a sequence), or data.order_by")
        if self.order_by is not None and (contents or self.key is None):
            raise ValueError("with data.order_by every row is one step: give data.key, and features instead of values")
        beside = [key for key in ("forecast", "known_ahead", "static") if getattr(self, key)]
        if self.order_by is None and self.values is None and beside:
            raise ValueError(f"data.{beside[0]} goes with numbers at steps: data.values, or data.order_by")
        if self.order_by is not None and any(isinstance(column, Place) for column in self.forecast or ()):
            raise ValueError("with data.order_by the columns of data.forecast are given by their names")
        if self.order_by is not None and self.target is not None:
            raise ValueError(
                "data.target is for tables of one row a sequence, and with data.order_by every row is one step"
            )
        return self

    @property
    def names_columns(self) -> bool:
        """Whether it says what the columns are for."""
        return True

    @property
    def categorical_lists(self) -> tuple[str, ...]:
        """One row a sequence: the columns of lists with a word for each step."""
        return tuple(name for name in self.categorical if name not in self.static)

    def names(self, *, labelled: bool, weighed: bool = False) -> dict[str, str]:
        """One row a sequence: the row schema's names -> the table's."""
        answers = (*(("label", "target") if labelled else ()), *(("weight",) if weighed else ()))
        names = {name: getattr(self, name) for name in ("key", "text", "symbols", "values", *answers)}
        return {name: column for name, column in names.items() if column is not None}

    def columns(self, *, labelled: bool, weighed: bool = False) -> list[str]:
        """One row a sequence: all columns that are used, each once."""
        names = self.names(labelled=labelled, weighed=weighed).values()
        return list(dict.fromkeys([*names, *self.categorical, *self.known_ahead, *self.static]))

    def named_columns(self, *, labelled: bool, weighed: bool = False) -> set[str]:
        """All columns that are used and that the recipe calls by their names."""
        order = [] if self.order_by is None else [self.order_by]
        forecast = [name for name in self.forecast or () if isinstance(name, str) and self.order_by is not None]
        return {*self.columns(labelled=labelled, weighed=weighed), *(self.features or ()), *order, *forecast}


class FilteredTable(TableData):
    """Tables of which only some rows may be read: all conditions hold for these."""

    #: conditions that all hold for the rows that are read: a list of [column, comparison, value], with the comparisons
    #: ==, !=, <, <=, >, >=, in and not in; null is no value. What is named by `--data` is read whole
    where: Conditions = ()
    #: the same for `held_out`, where that is a place of its own; without a word as `where`
    held_out_where: Conditions | None = None

    def conditions(self, where: str | None) -> tuple[Condition, ...]:
        """Those of the rows at `where`; None is the section's own place."""
        if where is None:
            return self.where
        if where != self.held_out:
            return ()
        return self.where if self.held_out_where is None else self.held_out_where

    @pydantic.model_validator(mode="after")
    def _held_out_is_a_place(self) -> "FilteredTable":
        check_has_place(self, "held_out_where")
        return self


def check_has_place(data: Data, key: str) -> None:
    """
    Raises:
        ValueError: a key of it speaks of a held-out part that is no place of its own.
    """
    if getattr(data, key) is not None and not isinstance(data.held_out, str):
        raise ValueError(f"data.{key} goes with a place of its own in data.held_out: give one, or leave it out")


class ParquetData(FilteredTable):
    """Parquet files."""

    source: Literal["parquet"] = "parquet"
    #: files, directories or glob patterns: local, s3://, gs:// or hdfs://
    path: str | tuple[str, ...]
