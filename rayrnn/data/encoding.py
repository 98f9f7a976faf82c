"""How rows become numbers and numbers become answers: what the inputs mean, and what the targets mean.

Fitted once over the data, kept with the run. S steps of all sequences together, N sequences, F numeric features,
O numbers to predict, V classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayrnn.data.arrow_lists import by_name, depth, flat, is_list, matrix, side_by_side, unwrap, wrap
from rayrnn.data.forecast import Forecast
from rayrnn.data.rows import feature_names, places_of
from rayrnn.data.symbols import Symbols, column_of
from rayrnn.data.vocabulary import Vocabulary
from rayrnn.errors import DataError
from rayrnn.wording import counted, listed

#: of the stored form; another one is another program's
VERSION = 1


@dataclass(frozen=True)
class Scaling:
    """What is taken from every feature, and what it is then divided by."""

    #: none, standardize (mean 0, standard deviation 1) or min_max (0 .. 1)
    kind: str
    shift: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def none(cls, width: int) -> "Scaling":
        """Of so many features, each left as it is."""
        return cls("none", (0.0,) * width, (1.0,) * width)

    @property
    def width(self) -> int:
        """F."""
        return len(self.shift)

    def of(self, places: Sequence[int]) -> "Scaling":
        """Of these features alone, in this order."""
        return Scaling(self.kind, *(tuple(own[place] for place in places) for own in (self.shift, self.scale)))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Scale values [..., F]; computed in float64, returned as float32."""
        with np.errstate(over="ignore"):  # who calls finds what float32 does not hold
            if self.kind == "none":
                return np.asarray(values, np.float32)
            return np.asarray((values - np.array(self.shift)) / np.array(self.scale), np.float32)

    def undo(self, scaled: np.ndarray) -> np.ndarray:
        """The inverse of `apply`, in float64."""
        return scaled if self.kind == "none" else scaled * np.array(self.scale) + np.array(self.shift)


@dataclass(frozen=True)
class Numbers:
    """Some numbers: features, scaled; and words of categorical columns, each a feature that is 1 where it stands."""

    kind: ClassVar[str] = "numbers"
    scaling: Scaling
    #: the words of every categorical column
    categories: tuple[tuple[str, ...], ...] = ()
    #: of the numeric features, and of the categorical ones; none where the sequences that were learned have no names
    names: tuple[str, ...] = ()
    category_names: tuple[str, ...] = ()
    #: whether an answer's numbers are told apart by their names, as those of several horizons are
    apart: bool = False

    @property
    def size(self) -> int:
        """Numbers at a step, or in an answer."""
        return self.scaling.width + sum(len(words) for words in self.categories)

    @property
    def num_columns(self) -> int:
        """Columns of a table with one row a step that these are made of."""
        return self.scaling.width + len(self.categories)

    def describe(self) -> str:
        return counted(self.size, "feature")

    def read(self, rows: pa.Table) -> np.ndarray:
        """The numbers of every step of canonical rows: float32 [S, F + one a known word].

        Features that have names may stand in another order than the ones that were learned, among others.

        Raises:
            DataError: the rows hold something else than the ones that were learned, or what float32 does not hold.
        """
        parts = [self._scaled(rows)] if self.scaling.width else []
        if self.categories:
            parts += self._one_hots(rows)
        return np.concatenate(parts, axis=1)

    def of_labels(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """What rows are labelled with (each, or each of their steps), and where: float32 [N or S, O], bool."""
        values = self.labels(rows)
        there = np.isfinite(values).all(axis=1)
        narrowed = self.scaling.apply(np.where(there[:, None], values, 0.0))
        _check_held(values, narrowed, ["the label"] * self.size)
        return narrowed, there

    def labels(self, rows: pa.Table) -> np.ndarray:
        """The same in the data's own units, NaN where there is none: float64 [N or S, O]."""
        labels = flat(rows["label"])
        return matrix(unwrap(labels)[1] if depth(labels.type) == 2 else labels)

    def unknown(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """So many answers that nobody knows, as `of_labels` would give them."""
        return np.zeros((count, self.size), np.float32), np.zeros(count, bool)

    def forecast(self, forecast: Forecast) -> "Numbers":
        """What a forecast of these numbers answers."""
        times = len(forecast.horizons)
        scaling = self.scaling.of(forecast.columns * times)
        return Numbers(scaling, names=forecast.names(self.names), apart=times > 1)

    def in_own_units(self, outputs: np.ndarray) -> np.ndarray:
        """A network's outputs [..., O] in the data's units."""
        return self.scaling.undo(outputs)

    def answers(self, outputs: np.ndarray) -> dict[str, pa.Array]:
        """What the outputs [N, O] say, in the data's units."""
        values = self.in_own_units(outputs)
        if self.apart:
            return {"prediction": by_name(values, self.names)}
        if self.size == 1:
            return {"prediction": pa.array(values[:, 0])}
        return {"prediction": side_by_side(values.reshape(-1), self.size)}

    def _scaled(self, rows: pa.Table) -> np.ndarray:
        values = matrix(unwrap(column_of(rows, "values"))[1])
        places = places_of(self.names, feature_names(rows.schema, "values"))
        values = values if places is None else values[:, places]
        if values.shape[1] != self.scaling.width:
            raise DataError(f"the sequences have {values.shape[1]} features, the model learned {self.scaling.width}")
        narrowed = self.scaling.apply(values)
        _check_held(values, narrowed, self.names or [f"feature {place}" for place in range(self.scaling.width)])
        return narrowed

    def _one_hots(self, rows: pa.Table) -> list[np.ndarray]:
        items = unwrap(column_of(rows, "categories"))[1]
        places = places_of(self.category_names, feature_names(rows.schema, "categories"))
        places = np.arange(len(self.categories)) if places is None else places
        words, width = items.flatten(), items.type.list_size
        if width <= places.max():
            raise DataError(f"a step has {width} words, the model learned {len(self.categories)}")
        columns = (words.take(pa.array(np.arange(place, len(words), width))) for place in places)
        return [_one_hot(own, known) for own, known in zip(columns, self.categories, strict=True)]

    def to_json(self) -> dict[str, Any]:
        values = {"kind": self.kind, **asdict(self)}
        return values if self.apart else {name: value for name, value in values.items() if name != "apart"}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Numbers":
        scaling = values["scaling"]
        return cls(
            Scaling(scaling["kind"], tuple(scaling["shift"]), tuple(scaling["scale"])),
            tuple(map(tuple, values["categories"])),
            tuple(values["names"]),
            tuple(values["category_names"]),
            bool(values.get("apart")),
        )


#: what people put between the classes of one label
_SEPARATORS = ";,|/ "


@dataclass(frozen=True)
class Classes:
    """One of V classes; as an output: a number for each, the largest of which is the answer."""

    kind: ClassVar[str] = "classes"
    names: tuple[str, ...]
    #: how often every class is the answer in the training part
    counts: tuple[int, ...] = ()
    #: whether several of them may be the answer, or none
    several: bool = False

    @property
    def size(self) -> int:
        """V."""
        return len(self.names)

    @classmethod
    def fit(cls, found: "Survey", names: tuple[str, ...] | None, *, several: bool = False) -> "Classes":
        """The classes with the given names; without these the ones that were found, in the order of people.

        Raises:
            DataError: a label is not among the classes (names it and its sequence), or there is one class only.
        """
        classes = cls(names or tuple(naturally(found.labels)))
        classes.check(found.labels)
        if not classes.names:
            raise DataError("no step of any sequence has a label: there is nothing to learn")
        classes._check_separators(found.labels, several=several)
        if classes.size == 1 and not several:
            raise DataError(
                f"every label is {classes.names[0]!r}: there is nothing to tell apart; give sequences of other classes "
                "too, or see whether this is the right column"
            )
        return cls(classes.names, tuple(found.label_counts.get(name, 0) for name in classes.names), several)

    def _check_separators(self, labels: Mapping[str, str], *, several: bool) -> None:
        """Raise a DataError for a class that is called by the names of several others."""
        known = set(self.names)
        way_out = "put semicolons between them" if several else "set data.several: true, with semicolons between them"
        # where several are due a comma parts them, if only one of them is a class by itself
        meant = ",|" if several else ";"
        for name, separator in product(self.names, _SEPARATORS if several else _SEPARATORS[:3]):
            if separator not in name:
                continue
            parts = {part.strip("[](){}'\" ") for part in name.split(separator)} - {""}
            if len(parts) > 1 and (parts <= known or (separator in meant and parts & known)):
                raise DataError(
                    f"the label {name!r} of sequence {labels.get(name)!r} is several classes at once, which other "
                    f"sequences have alone: {way_out}"
                )

    def check(self, labels: Mapping[str, str]) -> None:
        """Raise a DataError for a label (mapped to a sequence that has it) that is not among the classes."""
        known = set(self.names)
        for label, key in labels.items():
            if label not in known:
                raise DataError(
                    f"sequence {key!r} has the label {label!r}, which is not among the {self.size} classes: "
                    f"{listed(self.names)}"
                )

    def of_labels(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """The classes that rows are labelled with (each, or each of their steps), and where: int64 [N or S], bool.

        Raises:
            DataError: a label is not among the classes.
        """
        if self.several:
            return self._sets(rows)
        labels = flat(rows["label"])
        items = unwrap(labels)[1] if is_list(labels.type) else labels
        numbers = pc.index_in(items, value_set=pa.array(self.names, pa.string()))
        if numbers.null_count > items.null_count:
            self.check(labels_of(rows))
        return np.asarray(numbers.fill_null(0), np.int64), np.asarray(items.is_valid())

    def _sets(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """The same of several classes a row: float32 [N, V], 1 where a class is one of the row's."""
        sizes, items = unwrap(flat(rows["label"]))
        numbers = pc.index_in(items, value_set=pa.array(self.names, pa.string()))
        if numbers.null_count:
            self.check(labels_of(rows))
        sets = np.zeros((len(rows), self.size), np.float32)
        sets[np.repeat(np.arange(len(rows)), sizes), np.asarray(numbers, np.int64)] = 1
        return sets, np.asarray(flat(rows["label"]).is_valid())

    def unknown(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """So many answers that nobody knows, as `of_labels` would give them."""
        if self.several:
            return np.zeros((count, self.size), np.float32), np.zeros(count, bool)
        return np.zeros(count, np.int64), np.zeros(count, bool)

    def answers(self, outputs: np.ndarray) -> dict[str, pa.Array]:
        """What the outputs [N, V] say: the likeliest class, and every one's probability.

        Of several classes those that are likelier than not, and each one's own probability.
        """
        if self.several:
            return self._several(outputs)
        chances = np.exp(outputs - outputs.max(axis=1, keepdims=True, initial=-np.inf))
        chances /= chances.sum(axis=1, keepdims=True)
        labels = pa.array(self.names, pa.string()).take(pa.array(chances.argmax(axis=1)))
        return {"label": labels, "probabilities": by_name(chances, self.names)}

    def _several(self, outputs: np.ndarray) -> dict[str, pa.Array]:
        chances = 1 / (1 + np.exp(-outputs))
        rows, numbers = np.nonzero(chances > 0.5)
        sizes = np.bincount(rows, minlength=len(outputs))
        labels = wrap(pa.array(self.names, pa.string()).take(pa.array(numbers)), sizes)
        return {"labels": labels, "probabilities": by_name(chances, self.names)}

    def to_json(self) -> dict[str, Any]:
        values = {"kind": self.kind, "names": list(self.names), "counts": list(self.counts)}
        return values | ({"several": True} if self.several else {})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Classes":
        return cls(tuple(values["names"]), tuple(values["counts"]), bool(values.get("several")))


@dataclass(frozen=True)
class Encoding:
    """What a network's inputs and targets mean, and where the targets of a row lie."""

    inputs: Symbols | Numbers
    targets: Symbols | Numbers | Classes
    #: whether every step has an answer of its own; else a sequence has one
    per_step: bool
    #: a forecast's steps ahead, of several the fewest: the target is the input itself so many steps later
    ahead: int = 0
    #: steps of the inputs for each that the recurrent layers see
    stride: int = 1
    #: outputs of the network for each number to predict: quantiles, or parameters of a distribution
    parameters: int = 1
    #: of a forecast that is more than all numbers of a step, one horizon later
    forecast: Forecast | None = None

    @property
    def symbols(self) -> bool:
        """Whether a step is one symbol (else numbers)."""
        return isinstance(self.inputs, Symbols)

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of a model that reads symbols.

        Raises:
            DataError: it reads numbers.
        """
        if not isinstance(self.inputs, Symbols):
            raise DataError(f"this model reads {self.num_inputs} numbers a step, no symbols")
        return self.inputs.vocabulary

    @property
    def foretold(self) -> Forecast | None:
        """What is forecast; None where nothing is."""
        if self.forecast is not None or not self.ahead:
            return self.forecast
        return Forecast((self.ahead,), tuple(range(self.targets.size)))

    @property
    def num_inputs(self) -> int:
        """Symbols, or numbers that the network reads at a step."""
        return self.inputs.size + (0 if self.forecast is None else self.forecast.num_told)

    @property
    def column_names(self) -> tuple[str, ...]:
        """What the columns were called that were learned; none where they had no names."""
        return (*self.inputs.names, *self.inputs.category_names) if isinstance(self.inputs, Numbers) else ()

    @property
    def num_outputs(self) -> int:
        """Symbols, classes, or numbers to predict, each with its parameters."""
        return self.targets.size * self.parameters

    def describe(self) -> str:
        """One phrase for people: `65 symbols`, `12 features, 9 classes`."""
        said = self.inputs.describe()
        if isinstance(self.targets, Classes):
            return f"{said}, {counted(self.targets.size, 'class')}"
        if isinstance(self.targets, Symbols):
            return said if self.targets == self.inputs else f"{said}, {self.targets.describe()} to answer with"
        ahead = "" if self.foretold is None else f", {self.foretold.describe()}"
        return f"{said}, {counted(self.targets.size, 'number')} to predict{ahead}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        halves = {"inputs": self.inputs.to_json(), "targets": self.targets.to_json()}
        values = {"version": VERSION, **halves, "per_step": self.per_step, "ahead": self.ahead}
        values |= {name: getattr(self, name) for name in ("stride", "parameters") if getattr(self, name) > 1}
        return values | ({} if self.forecast is None else {"forecast": self.forecast.to_json()})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Encoding":
        """The inverse of `to_json`; values from a file are checked before (rayrnn/runs/schema.py)."""
        inputs = Symbols if values["inputs"]["kind"] == Symbols.kind else Numbers
        targets = {kind.kind: kind for kind in (Symbols, Numbers, Classes)}[values["targets"]["kind"]]
        return cls(
            inputs.from_json(values["inputs"]),
            targets.from_json(values["targets"]),
            **{name: values[name] for name in ("stride", "parameters") if values.get(name)},
            **{name: values[name] for name in ("per_step", "ahead")},
            forecast=None if values.get("forecast") is None else Forecast.from_json(values["forecast"]),
        )


@dataclass(frozen=True)
class Survey:
    """What one look through all sequences found, for an encoding to be fitted to."""

    #: of the rows
    schema: pa.Schema = None
    #: symbol -> how often; in the training part, or where all must be known, in all sequences
    symbols: dict[str, int] = field(default_factory=dict)
    #: of every categorical column, word -> how often in the training part
    categories: tuple[dict[str, int], ...] = ()
    #: class -> the first sequence that has it, of all sequences
    labels: dict[str, str] = field(default_factory=dict)
    #: class -> how often in the training part
    label_counts: dict[str, int] = field(default_factory=dict)
    #: of the training part, added up
    weight: float = 0.0
    #: symbol -> how often, in the targets of the training part; and the most that one target has
    target_symbols: dict[str, int] = field(default_factory=dict)
    longest_target: int = 0
    #: what targets are made of, fitted to these
    targets: Symbols | None = None


def labels_of(table: pa.Table) -> dict[str, str]:
    """Every class in a table's labels -> the key of the first row that has it."""
    labels, keys = flat(table["label"]), flat(table["key"])
    owners, items = np.arange(len(labels)), labels
    if is_list(labels.type):
        sizes, items = unwrap(labels)
        owners = np.repeat(owners, sizes)
    there = np.asarray(items.is_valid())
    encoded = items.drop_null().dictionary_encode()
    first = np.unique(np.asarray(encoded.indices), return_index=True)[1]
    rows = keys.take(pa.array(owners[there][first]))
    return dict(zip(encoded.dictionary.to_pylist(), rows.to_pylist(), strict=True))


def naturally(symbols: Iterable[str]) -> list[str]:
    """Sorted as people sort: whole numbers by their value before all else, the rest by their characters."""
    return sorted(symbols, key=lambda symbol: (0, int(symbol), symbol) if _is_integer(symbol) else (1, 0, symbol))


def _is_integer(symbol: str) -> bool:
    digits = symbol.removeprefix("-")
    return digits.isascii() and digits.isdigit()


def _check_held(values: np.ndarray, narrowed: np.ndarray, names: Sequence[str]) -> None:
    """
    Raises:
        DataError: a number is beyond what float32 holds, in which networks compute.
    """
    if np.isfinite(narrowed).all():
        return
    step, place = np.argwhere(~np.isfinite(narrowed))[0]
    raise DataError(
        f"{names[place]} is {values[step, place]:g}, which is more than float32 holds, in which networks compute: "
        "make it smaller before (by another unit, or its logarithm), or leave it out"
    )


def _one_hot(words: pa.Array, known: tuple[str, ...]) -> np.ndarray:
    """float32 [S, known words]; a word that was not learned is none of them."""
    numbers = pc.index_in(words, value_set=pa.array(known, pa.string())).fill_null(-1)
    one_hot: np.ndarray = np.equal.outer(np.asarray(numbers), np.arange(len(known))).astype(np.float32)
    return one_hot
