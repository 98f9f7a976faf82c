"""What a search varies: `--vary key=a..b` and `--vary key=x,y,z`, read and compared with the recipe."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rayrnn.errors import RecipeError, UsageError
from rayrnn.recipe import Recipe, recipe_from

#: a range whose ends are so far apart is searched by its logarithm
LOG_RATIO = 10
_RANGE = re.compile(r"(?P<low>[^.].*?|\..*?)\.\.(?P<high>[^:]+)(?::(?P<scale>\w+))?")
_FORMS = "a range such as 1e-4..1e-2 (:log or :linear behind it says how it is searched), or values such as 64,128"


@dataclass(frozen=True)
class Range:
    """Numbers between two."""

    key: str
    low: float
    high: float
    #: whether a factor counts, and not a difference
    by_log: bool
    whole: bool

    @property
    def ends(self) -> tuple[str, ...]:
        """What the recipe is to bear: if it takes the ends, it takes what lies between."""
        return said(self.low), said(self.high)


@dataclass(frozen=True)
class Choice:
    """One of some values, as they are written behind `--set`."""

    key: str
    values: tuple[str, ...]

    @property
    def ends(self) -> tuple[str, ...]:
        """What the recipe is to bear: all of them."""
        return self.values


Varied = Range | Choice
#: of one trial: a value for each key, as it is written behind `--set`
Values = Mapping[str, str]


def said(value: object) -> str:
    """A value as it is written behind `--set`: of what is drawn, more digits than these mean nothing."""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def read_varied(words: Sequence[str]) -> tuple[Varied, ...]:
    """What the options `--vary` say.

    Raises:
        UsageError: there is none, or one that is neither a range nor a list; or a key stands twice.
    """
    if not words:
        raise UsageError(f"there is nothing to search: give --vary KEY={_FORMS}")
    varied = tuple(_read(word) for word in words)
    keys = [one.key for one in varied]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise UsageError(f"--vary {twice} stands twice: give all of its values in one")
    return varied


def _read(word: str) -> Varied:
    key, equals, text = (part.strip() for part in word.partition("="))
    if not (key and equals and text):
        raise UsageError(f"--vary takes KEY=VALUES, with {_FORMS}; this was {word!r}")
    found = _RANGE.fullmatch(text)
    if found is not None and "," not in text:
        return _range(key, found["low"], found["high"], found["scale"], word)
    values = tuple(part.strip() for part in re.split(r",(?![^\[{]*[\]}])", text))
    if len(values) < 2 or not all(values):
        raise UsageError(f"--vary {word} names {'an empty value' if not all(values) else 'one value'}: give {_FORMS}")
    if len(set(values)) < len(values):
        raise UsageError(f"--vary {word} has a value twice")
    return Choice(key, values)


def _range(key: str, low: str, high: str, scale: str | None, word: str) -> Range:
    if scale not in (None, "log", "linear"):
        raise UsageError(f"--vary {word}: a range is searched by log or linear, not by {scale!r}")
    whole = all(re.fullmatch(r"[-+]?\d+", end) for end in (low, high))
    try:
        first, last = (int(low), int(high)) if whole else (float(low), float(high))
    except ValueError:
        raise UsageError(f"--vary {word}: the ends of a range are numbers; give {_FORMS}") from None
    if not abs(last - first) < float("inf"):
        raise UsageError(f"--vary {word}: the ends of a range are finite numbers")
    if first >= last:
        raise UsageError(f"--vary {word} is empty: the range ends at {high}, which is not above {low}")
    if scale == "log" and first <= 0:
        raise UsageError(f"--vary {word}: a range by log begins above 0; take :linear, or another begin")
    by_log = scale == "log" or (scale is None and first > 0 and last / first >= LOG_RATIO)
    return Range(key, first, last, by_log, whole)


def check_varied(varied: Sequence[Varied], text: str, origin: str, overrides: Sequence[str]) -> list[Recipe]:
    """The recipes with every end of every range and every value, each by itself.

    Raises:
        UsageError: the recipe has no such key, or does not bear such a value; says which.
    """
    recipes = []
    for one in varied:
        if one.key == "name" or one.key == "seed" or one.key.partition(".")[0] not in Recipe.model_fields:
            _refuse(one, text, origin, overrides)
        for value in one.ends:
            try:
                recipes.append(recipe_from(text, origin, [*overrides, f"{one.key}={value}"]))
            except RecipeError as error:
                raise UsageError(f"--vary {one.key}, {value}: {error}") from None
    return recipes


def _refuse(one: Varied, text: str, origin: str, overrides: Sequence[str]) -> None:
    if one.key in ("name", "seed"):
        raise UsageError(f"--vary {one.key}: a search does not vary the {one.key}, which makes no network better")
    try:
        recipe_from(text, origin, [*overrides, f"{one.key}={one.ends[0]}"])
    except RecipeError as error:
        raise UsageError(f"--vary {one.key}: {error}") from None
