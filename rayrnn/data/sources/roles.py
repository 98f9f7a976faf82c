"""What the columns of a table with one row a step are for: features, which of them are forecast or known ahead, labels.

Shapes: S steps of all sequences together, N sequences, F numbers at a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa

from rayrnn.data.arrow_lists import ends, flat, side_by_side, wrap
from rayrnn.data.beside_steps import ColumnRoles
from rayrnn.data.rows import Label
from rayrnn.data.sources.labels import Fault, Faults, Target, first_faults
from rayrnn.data.words import texts_of
from rayrnn.errors import RecipeError
from rayrnn.wording import listed


@dataclass(frozen=True)
class Roles:
    """What the columns of a table with one row a step are for."""

    numbers: tuple[str, ...]
    words: tuple[str, ...]
    #: none, one, or (numbers) several
    labels: tuple[str, ...]
    target: Target
    #: whether the columns have names, not only places
    are_named: bool = True
    #: those of the numbers that are forecast; none are all that are neither known ahead nor static
    forecast: tuple[str, ...] = ()
    #: those of the numbers that are known of later steps
    known_ahead: tuple[str, ...] = ()
    #: those of the numbers and words that are the same at every step of a sequence
    static: tuple[str, ...] = ()
    #: how much a step counts
    weight: str | None = None

    @property
    def weights(self) -> tuple[str, ...]:
        """The column of weights, if there is one."""
        return () if self.weight is None else (self.weight,)

    @property
    def all_numbers(self) -> tuple[str, ...]:
        """The columns that hold numbers, labels and weights too."""
        of_numbers = self.target.needs.label is Label.NUMBERS
        return tuple(dict.fromkeys([*self.numbers, *(self.labels if of_numbers else ()), *self.weights]))

    def check(self) -> None:
        """
        Raises:
            RecipeError: a column is for two things that exclude each other, or for one that it cannot be.
        """
        keys = {"forecast": self.forecast, "known_ahead": self.known_ahead, "static": self.static}
        for one, other in combinations(keys, 2):
            if both := [name for name in keys[one] if name in keys[other]]:
                raise RecipeError(f"column {both[0]!r} is in data.{one} and in data.{other}: leave it in one of them")
        for key in ("forecast", "known_ahead"):
            if others := [name for name in keys[key] if name in self.words]:
                raise RecipeError(
                    f"data.{key} names column {others[0]!r}, which holds words (data.categorical): it takes numbers; "
                    "write what the words say as numbers, such as a column for each that is 0 or 1"
                )
        features = (*self.numbers, *self.words)
        if others := [name for name in self.forecast if name not in features]:
            raise RecipeError(f"data.forecast names column {others[0]!r}, which is not among the features")
        if (self.known_ahead or self.static) and not self.past and self.target.needs.forecasts:
            raise RecipeError("every feature is known ahead or static: nothing is left that could be forecast")

    @property
    def past(self) -> list[str]:
        """The columns whose numbers only steps have that are past."""
        return [name for name in self.numbers if name not in (*self.known_ahead, *self.static)]


def places_of_roles(roles: Roles, names: Sequence[str]) -> ColumnRoles:
    """What each of the numbers is for, by its place."""
    if not (roles.forecast or roles.known_ahead or roles.static):
        return ColumnRoles()
    owners = _owners(names, roles.numbers)
    forecast = roles.forecast or tuple(roles.past)
    places = (tuple(n for n, owner in enumerate(owners) if owner in own) for own in (forecast, roles.known_ahead))
    return ColumnRoles(*places)


def _owners(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The column that each number is of: several are of a column of lists."""
    return [name if name in columns else name[: name.rindex("[")] for name in names]


def without_future(
    steps: pa.Table, offsets: np.ndarray, values: np.ndarray, roles: Roles, names: Sequence[str]
) -> tuple[pa.Table, np.ndarray, np.ndarray, pa.ListArray, Faults]:
    """The steps that are past, their offsets and numbers; what is known of those after them, and what is wrong there.

    Steps at the end of a sequence are to come where they have nothing but what is known ahead and what is static.
    """
    places, owners = places_of_roles(roles, names), np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    past = [n for n, owner in enumerate(_owners(names, roles.numbers)) if owner in roles.past]
    empty = np.isnan(values[:, past]).all(axis=1)
    for name in roles.words:
        if name not in roles.static:
            empty &= np.asarray(steps[name].is_null())
    numbered = np.arange(len(steps))
    last = np.maximum.reduceat(np.where(empty, -1, numbered), offsets[:-1]) if len(steps) else np.zeros(0, np.int64)
    later = numbered > last[owners]
    known = np.where(later[:, None], values[:, list(places.known)], 0)
    faults = not_finite(known, offsets, [names[n] for n in places.known])
    known = known[later]
    for sequence in np.flatnonzero(last < 0):
        faults[int(sequence)] = Fault(0, f"no step has a value of {listed(roles.past)}: there is nothing to go on from")
    sizes = np.bincount(owners[later], minlength=len(offsets) - 1)
    future = wrap(side_by_side(known.reshape(-1), known.shape[1]), sizes)
    return steps.filter(pa.array(~later)), offsets - ends(sizes), values[~later], future, faults


def changing(steps: pa.Table, offsets: np.ndarray, values: np.ndarray, roles: Roles, names: Sequence[str]) -> Faults:
    """Where a column changes within a sequence that is to be the same at all of its steps."""
    faults: Faults = {}
    firsts = np.repeat(offsets[:-1], np.diff(offsets))
    for name in roles.static:
        if name in roles.words:
            cells = texts_of(flat(steps[name])).fill_null("")
            codes = np.asarray(cells.dictionary_encode().indices)[:, None]
        else:
            own = [n for n, owner in enumerate(_owners(names, roles.numbers)) if owner == name]
            cells, codes = None, values[:, own]
        bad = np.flatnonzero(((codes != codes[firsts]) & ~np.isnan(codes)).any(axis=1))
        shown = codes[:, 0] if cells is None else cells.to_pylist()
        reasons = (
            f"column {name!r} (data.static) changes from {shown[firsts[step]]!s} to {shown[step]!s}: what is static is "
            "the same at every step of a sequence; leave it out of data.static if it may change"
            for step in bad
        )
        faults = first_faults(bad, offsets, reasons) | faults
    return faults


def not_finite(values: np.ndarray, offsets: np.ndarray, names: Sequence[str]) -> Faults:
    """Where a step holds NaN or infinity; `names` are the columns'."""
    finite = np.isfinite(values)
    if finite.all():
        return {}
    bad_steps = np.flatnonzero(~finite.all(axis=1))
    columns = np.argmin(finite[bad_steps], axis=1)
    reasons = (
        f"column {names[column]!r} is {_seen(values[step, column])}"
        for step, column in zip(bad_steps, columns, strict=True)
    )
    return first_faults(bad_steps, offsets, reasons)


def _seen(value: np.float64) -> str:
    if np.isnan(value):
        return (
            "empty or not a number; every feature needs one at every step: fill it in, or leave the sequence out, or "
            "the column (of data.features, or with data.ignore where there are none)"
        )
    return f"{value}, which no network can learn from"
