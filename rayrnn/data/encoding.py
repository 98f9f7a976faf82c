"""How rows become numbers and numbers become answers: fitted once over the data, kept with the run.

S steps of all sequences together, N sequences, F numeric features, O numbers to predict.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayrnn.data.arrow_lists import flat, is_list, matrix, unwrap
from rayrnn.data.rows import feature_names, places_of, step_counts
from rayrnn.data.vocabulary import Vocabulary
from rayrnn.errors import DataError
from rayrnn.wording import counted


@dataclass(frozen=True)
class Scaling:
    """What is taken from every feature, and what it is then divided by."""

    #: none, standardize (mean 0, standard deviation 1) or min_max (0 .. 1)
    kind: str
    shift: tuple[float, ...]
    scale: tuple[float, ...]

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Scale values [..., F]; computed in float64, returned as float32."""
        if self.kind == "none":
            return values
        return np.asarray((values - np.array(self.shift)) / np.array(self.scale), np.float32)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"kind": self.kind, "shift": list(self.shift), "scale": list(self.scale)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Scaling":
        """The inverse of `to_json`."""
        return cls(values["kind"], tuple(values["shift"]), tuple(values["scale"]))


def check_labels(labels: Mapping[str, str], classes: Iterable[str]) -> None:
    """Raise a DataError for a label (mapped to a sequence that has it) that is not among the classes."""
    known = set(classes)
    for label, key in labels.items():
        if label not in known:
            shown = list(classes)
            more = f" and {len(shown) - 20} more" if len(shown) > 20 else ""
            raise DataError(
                f"sequence {key!r} has the label {label!r}, which is not among the {len(shown)} classes: "
                f"{', '.join(shown[:20])}{more}"
            )


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


@dataclass(frozen=True)
class Encoding:
    """What a network's inputs and outputs mean."""

    task: str
    #: of symbols or characters; None where the steps are numbers
    vocabulary: Vocabulary | None = None
    #: of the numeric features; None where the steps are symbols
    scaling: Scaling | None = None
    #: the words of every categorical column: each becomes a feature that is 1 where it stands
    categories: tuple[tuple[str, ...], ...] = ()
    classes: tuple[str, ...] | None = None
    #: how often every class is the answer in the training part
    class_counts: tuple[int, ...] = ()
    #: whether every step has an answer of its own
    per_step: bool = True
    horizon: int = 0
    num_features: int = 0
    #: of the numeric features, and of the categorical ones; none where the sequences that were learned have no names
    feature_names: tuple[str, ...] = ()
    category_names: tuple[str, ...] = ()
    #: numbers in one answer (regression)
    num_answers: int = 0

    @property
    def symbols(self) -> bool:
        """Whether a step is one symbol (else numbers)."""
        return self.vocabulary is not None

    @property
    def text_vocabulary(self) -> Vocabulary:
        """The vocabulary of a model that reads symbols.

        Raises:
            DataError: it reads numbers.
        """
        if self.vocabulary is None:
            raise DataError(f"this model reads {self.num_inputs} numbers a step, no symbols")
        return self.vocabulary

    @property
    def num_inputs(self) -> int:
        """Symbols, or numbers that the network reads at a step."""
        if self.vocabulary is not None:
            return len(self.vocabulary)
        return self.num_features + sum(len(words) for words in self.categories)

    @property
    def num_outputs(self) -> int:
        """Symbols, classes, or numbers to predict."""
        if self.task == "language_model":
            return self.num_inputs
        if self.classes is not None:
            return len(self.classes)
        return self.num_features if self.horizon else self.num_answers

    def describe(self) -> str:
        """One phrase for people: `65 symbols`, `12 features, 9 classes`."""
        inputs = counted(self.num_inputs, "symbol" if self.symbols else "feature")
        if self.task == "language_model":
            return inputs
        if self.classes is not None:
            return f"{inputs}, {counted(len(self.classes), 'class')}"
        ahead = f", {counted(self.horizon, 'step')} ahead" if self.horizon else ""
        return f"{inputs}, {counted(self.num_outputs, 'number')} to predict{ahead}"

    def inputs(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """What the network reads: int64 [S] or float32 [S, F], and the steps of every row, int64 [N].

        Raises:
            DataError: the rows hold something else than the ones that were learned, or an unknown symbol.

        Features that have names may stand in another order than the ones that were learned, among others.
        """
        sizes = step_counts(table)
        if self.vocabulary is not None:
            return self._symbols(table), sizes
        parts = []
        if self.scaling is not None:
            values = matrix(unwrap(self._column(table, "values"))[1])
            places = places_of(self.feature_names, feature_names(table.schema, "values"))
            values = values if places is None else values[:, places]
            if values.shape[1] != self.num_features:
                raise DataError(f"the sequences have {values.shape[1]} features, the model learned {self.num_features}")
            parts.append(self.scaling.apply(values))
        if self.categories:
            parts += self._one_hots(table)
        return np.concatenate(parts, axis=1), sizes

    def targets(self, table: pa.Table, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
        """The answers to learn and where there are any (bool), one a row, or with `per_step` one a step.

        Classes are int64 [N or S], numbers float32 [N or S, O].

        Raises:
            DataError: a label is not among the classes.
        """
        count = num_steps if self.per_step else len(table)
        if "label" not in table.column_names:
            empty = np.zeros(count, np.int64) if self.classes else np.zeros((count, self.num_answers), np.float32)
            return empty, np.zeros(count, bool)
        labels = flat(table["label"])
        items = unwrap(labels)[1] if self.per_step else labels
        if self.classes is None:
            answers = matrix(items)
            there = np.isfinite(answers).all(axis=1)
            return np.where(there[:, None], answers, np.float32(0)), there
        numbers = pc.index_in(items, value_set=pa.array(self.classes, pa.string()))
        if numbers.null_count > items.null_count:
            check_labels(labels_of(table), self.classes)
        return np.asarray(numbers.fill_null(0), np.int64), np.asarray(items.is_valid())

    def in_own_units(self, outputs: np.ndarray) -> np.ndarray:
        """A regression's outputs [..., O] in the data's units: forecasts are learned scaled as their inputs are."""
        if not self.horizon or self.scaling is None:
            return outputs
        return np.asarray(outputs * np.array(self.scaling.scale) + np.array(self.scaling.shift))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        values = asdict(self)
        values["vocabulary"] = None if self.vocabulary is None else self.vocabulary.to_json()
        values["scaling"] = None if self.scaling is None else self.scaling.to_json()
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Encoding":
        """The inverse of `to_json`."""
        vocabulary, scaling, classes = values["vocabulary"], values["scaling"], values["classes"]
        return cls(
            **dict(values)
            | {
                "vocabulary": None if vocabulary is None else Vocabulary.from_json(vocabulary),
                "scaling": None if scaling is None else Scaling.from_json(scaling),
                "categories": tuple(tuple(words) for words in values["categories"]),
                "classes": None if classes is None else tuple(classes),
                "class_counts": tuple(values["class_counts"]),
                "feature_names": tuple(values.get("feature_names", ())),
                "category_names": tuple(values.get("category_names", ())),
            }
        )

    def _symbols(self, table: pa.Table) -> np.ndarray:
        try:
            if "text" in table.column_names:
                return self.text_vocabulary.encode_characters("".join(table["text"].to_pylist()))
            return self.text_vocabulary.encode_words(unwrap(self._column(table, "symbols"))[1])
        except DataError as error:
            if len(table) == 1:
                raise DataError(f"sequence {table['key'][0].as_py()!r}: {error}") from None
        # which sequence it is matters only now
        return np.concatenate([self._symbols(table.slice(row, 1)) for row in range(len(table))])

    def _column(self, table: pa.Table, name: str) -> pa.Array:
        if name not in table.column_names:
            have = ", ".join(table.column_names)
            raise DataError(f"the model learned sequences of {name}; these have no such column, only {have}")
        return flat(table[name])

    def _one_hots(self, table: pa.Table) -> list[np.ndarray]:
        items = unwrap(self._column(table, "categories"))[1]
        places = places_of(self.category_names, feature_names(table.schema, "categories"))
        places = np.arange(len(self.categories)) if places is None else places
        words, width = items.flatten(), items.type.list_size
        if width <= places.max():
            raise DataError(f"a step has {width} words, the model learned {len(self.categories)}")
        columns = (words.take(pa.array(np.arange(place, len(words), width))) for place in places)
        return [_one_hot(own, known) for own, known in zip(columns, self.categories, strict=True)]


def _one_hot(words: pa.Array, known: tuple[str, ...]) -> np.ndarray:
    """float32 [S, known words]; a word that was not learned is none of them."""
    numbers = pc.index_in(words, value_set=pa.array(known, pa.string())).fill_null(-1)
    one_hot: np.ndarray = np.equal.outer(np.asarray(numbers), np.arange(len(known))).astype(np.float32)
    return one_hot
