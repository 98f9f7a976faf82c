"""What is learned: one YAML file, validated, frozen, and stored with the run."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import pydantic
from pydantic import Field

from rayrnn.errors import RecipeError, UsageError
from rayrnn.foreign import check_yaml, read_plain
from rayrnn.recipe.data_sections import Data, StepData, spelled
from rayrnn.recipe.detect_section import Detect
from rayrnn.recipe.faults import faults_of
from rayrnn.recipe.section import Section
from rayrnn.recipe.sections import Averaging, Model, SearchSettings, Training
from rayrnn.recipe.sources import OWN, section_named
from rayrnn.recipe.table_sections import GivenData
from rayrnn.recipe.written import parse_typed, parse_yaml, write_yaml
from rayrnn.tasks import LOSSES, Choices, Detectable, Numeric, Search, Several, Task, load_task
from rayrnn.user_code import PythonFiles, files_of
from rayrnn.wording import did_you_mean, line_of, listed, path_of, shortened

if TYPE_CHECKING:
    from rayrnn.data.rows import Label, Needs

#: bytes of a recipe; a text may stand in it
MOST_RECIPE = 64 * 2**20
#: the tasks that come with rayrnn
TASKS: Mapping[str, str] = {
    "language_model": "rayrnn.tasks.language_model:LanguageModel",
    "classification": "rayrnn.tasks.classification:Classification",
    "tagging": "rayrnn.tasks.tagging:Tagging",
    "regression": "rayrnn.tasks.regression:Regression",
    "transduction": "rayrnn.tasks.transduction:Transduction",
    "ctc": "rayrnn.tasks.ctc:Ctc",
}
#: the task of sequences with labels, where nobody says which
LABELLED = "classification"


def _source_of(section: Mapping[str, Any]) -> str:
    """Without a word a text; but what says how data is used, and not where it is, a program hands over."""
    is_given = bool(section) and set(section) <= set(GivenData.model_fields) - {"source", "text"}
    return GivenData().source if is_given else str(section.get("source", "text"))


def _parse_data(value: object, asked: pydantic.ValidationInfo) -> object:
    """Choose the section's class by `data.source`."""
    if not isinstance(value, Mapping):
        return value
    trusted = asked.context is None or bool(asked.context["trusted"])
    return section_named(_source_of(value), trusted=trusted).model_validate(dict(value))


def _check_task(name: str, asked: pydantic.ValidationInfo) -> str:
    """Import the task, if that is allowed: whatever holds a recipe may use it."""
    task_named(name, trusted=asked.context is None or bool(asked.context["trusted"]))
    return name


class Recipe(Section):
    """The whole of what is learned. Where it runs is not its business (that is the cluster file)."""

    #: the run's name: its directory is runs/NAME unless `--out` says another
    name: Annotated[str, spelled(r"[A-Za-z0-9][A-Za-z0-9._-]*", "a letter or digit, then letters, digits, . _ and -")]
    #: what the network is asked: language_model, classification, tagging, regression, transduction, ctc, or a task of a
    #: plugin's or your own, `package.module:Name`
    task: Annotated[str, pydantic.AfterValidator(_check_task)] = "language_model"
    data: Annotated[pydantic.SerializeAsAny[Data], pydantic.BeforeValidator(_parse_data)] = GivenData()
    model: Model = Model()
    training: Training = Training()
    averaging: Averaging = Averaging()
    #: how answers are looked for (transduction, ctc); without a word with the defaults below
    search: SearchSettings | None = None
    #: what `rayrnn detect` takes for an anomaly; without a word with the defaults below
    detect: Detect | None = None
    #: who is told of the run: `auto` tells MLflow where MLFLOW_TRACKING_URI is set, and nobody elsewhere
    track: Literal["auto", "mlflow", "wandb", "none"] = "auto"
    #: the seed of everything drawn at random: the same seed, data and number of workers give the same run
    seed: int = Field(12345, ge=0, lt=2**63)

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        if faults := list(faults_of(self, task_of(self), choices_of(self))):
            raise ValueError("; ".join(faults))
        return self

    @property
    def detection(self) -> Detect:
        """The section `detect`, whether it is written or not."""
        return self.detect or Detect()

    @property
    def named_code(self) -> tuple[str, ...]:
        """What it names of modules that are neither rayrnn's nor a plugin's, each as `package.module:Name`."""
        return code_named_in(self.model_dump(mode="json"))

    @property
    def asks_for_trust(self) -> str:
        """What the commands that use a run of this recipe need, with a blank before it."""
        return " --trust" if self.named_code or self.data.commands else ""

    def to_yaml(self) -> str:
        """The resolved recipe: every default written out."""
        return write_yaml(self.model_dump(mode="json"))

    def __reduce__(self) -> tuple[object, ...]:
        """With the modules that it names: they arrive first, for the state may hold a section of one of them."""
        return _arrived, (files_of(self.named_code), self.__getstate__())


def _arrived(code: tuple[PythonFiles, ...], state: dict[Any, Any]) -> Recipe:
    recipe = Recipe.__new__(Recipe)
    recipe.__setstate__(state)
    return recipe


def task_named(name: str, *, trusted: bool = True) -> Task:
    """A task by its name.

    Raises:
        ValueError: there is none of this name.
        UsageError: it is code that is not installed as a plugin, and is not trusted.
    """
    return load_task(name, TASKS, trusted=trusted)


def task_that_learns(label: "Label", *, several: bool = False) -> str:
    """The name of rayrnn's own task whose rows have such a label."""
    choices = Choices(several=several)
    return next(name for name in TASKS if task_named(name).needs(choices).label is label)


def task_of(recipe: Recipe) -> Task:
    """What a recipe's network is asked; that its code may be imported was settled when the recipe was read.

    Raises:
        RecipeError: another process has read the recipe, and this one cannot import the task.
    """
    try:
        task = task_named(recipe.task)
    except ValueError as error:
        raise RecipeError(str(error)) from None
    choices = choices_of(recipe)
    if isinstance(task, Numeric) and choices.loss != LOSSES[0]:
        return task.with_loss(choices.loss, choices.quantiles)
    return task.several() if choices.several and isinstance(task, Several) else task


def remarks_on_answers(recipe: Recipe) -> list[str]:
    """What to know of the numbers that a recipe's network answers, and of what is measured on them."""
    task = task_of(recipe)
    levels = task.levels if isinstance(task, Numeric) and not task.draws else ()
    if not levels or levels[0] <= 0.5 <= levels[-1]:
        return []
    nearest = levels[0] if levels[0] > 0.5 else levels[-1]
    return [
        f"training.quantiles has no level at or around 0.5: `prediction` is the quantile {nearest:g}, and RMSE, MAE, "
        "R2 and MASE measure that as if it were the middle; add 0.5 if they are to mean something"
    ]


def choices_of(recipe: Recipe) -> Choices:
    """What a recipe's task may have to know of it."""
    steps = recipe.data if isinstance(recipe.data, StepData) else None
    return Choices(
        truncate=recipe.training.truncate,
        bidirectional=recipe.model.bidirectional != "none",
        horizon=steps.horizons[0] if steps and steps.horizons else 0,
        horizons=steps.horizons if steps else (),
        classes=steps.class_names if steps else None,
        several=steps.several if steps else False,
        stride=_stride(recipe),
        loss=recipe.training.loss,
        quantiles=recipe.training.quantiles,
    )


def _stride(recipe: Recipe) -> int:
    """Steps for each that the recurrent layers see."""
    strides = recipe.model.front_stride or (1,)
    if recipe.model.front == "none" or recipe.data.step_shape is not None:
        return 1
    return int(strides[0] ** len(recipe.model.front_channels) if len(strides) == 1 else math.prod(strides))


def search_of(recipe: Recipe, num_symbols: int, *, beam: int | None = None, keep_weights: bool = False) -> Search:
    """How answers are looked for that have a length of their own.

    Args:
        num_symbols: that there are to answer with; the recipe's beam is no larger (`prepare` says so).
        beam: in the place of the recipe's.

    Raises:
        UsageError: there are not as many symbols as hypotheses are to be followed; or none is.
    """
    settings = recipe.search or SearchSettings()
    wanted = min(settings.beam, num_symbols) if beam is None else beam
    if not 1 <= wanted <= num_symbols:
        raise UsageError(
            f"beam is {wanted}; it must be at least 1, and at most {num_symbols}: so many symbols there are to "
            "answer with"
        )
    return Search(wanted, settings.length_penalty, keep_weights)


def needs_of(recipe: Recipe) -> "Needs":
    """What a recipe's task needs of a row."""
    return task_of(recipe).needs(choices_of(recipe))


def scores_of(recipe: Recipe) -> tuple[str, ...]:
    """What the steps of a recipe's sequences can be scored by, the usual one first; none where nothing is foretold."""
    task = task_of(recipe)
    return task.scores(choices_of(recipe)) if isinstance(task, Detectable) else ()


def with_detection(recipe: Recipe, overrides: Iterable[str]) -> Recipe:
    """The same recipe with `detect.key=value` overrides.

    Raises:
        RecipeError: a key is none of the section's, or does not fit.
    """
    values = recipe.model_dump(mode="json")
    for override in overrides:
        if not override.startswith("detect."):
            raise RecipeError(
                f"--set takes keys of the recipe's detect section here, such as detect.quantile=0.99; this was "
                f"{override!r}: what the run learned is settled"
            )
        _apply(values, override)
    return validate_recipe(values, "--set")


def load_recipe(where: str | Path, overrides: Iterable[str] = (), *, trusted: bool = True) -> Recipe:
    """Read a recipe and apply `key=value` overrides such as `training.learning_rate=1e-3`.

    Args:
        where: a YAML file, or the name of a shipped recipe (see `shipped_recipes`).
        overrides: each `section.key=value`; the value is text, a number, or YAML in [ ] or { }.
        trusted: whether modules that the recipe names may be imported; a stored run may be a stranger's.

    Raises:
        RecipeError: the recipe is missing, is not YAML, or does not fit; names file, line and key.
        UsageError: it names a module, and is not trusted.
    """
    origin, text = read_recipe(where)
    return recipe_from(text, origin, overrides, trusted=trusted)


def recipe_from(text: str, origin: str, overrides: Iterable[str] = (), *, trusted: bool = True) -> Recipe:
    """The recipe that a YAML text of this origin holds; the rest as `load_recipe` has it."""
    values = parse_recipe(text, origin)
    for override in overrides:
        _apply(values, override)
    return validate_recipe(values, origin, text, trusted=trusted)


def parse_recipe(text: str, origin: str) -> dict[str, Any]:
    """A recipe's plain values as they are written, not validated.

    Raises:
        RecipeError: the text is not YAML, or too large when it is built up.
    """
    try:
        values = _built_up(text)
    except Exception as error:  # not every fault in a value, such as a date of 99 months, is a YAMLError
        raise RecipeError(f"{origin} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{origin} must be a mapping of keys such as `name:` and `data:`, not {shortened(values)}")
    return values


def _built_up(text: str, read: Callable[[str], Any] = parse_yaml) -> Any:
    check_yaml(text)
    return read(text)


def code_named_in(values: Mapping[str, Any]) -> tuple[str, ...]:
    """What a recipe's plain values name of code that is neither rayrnn's nor a plugin's, as `package.module:Name`."""
    sections = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    names = (values.get("task"), sections.get("data", {}).get("source"), sections.get("model", {}).get("network"))
    return tuple(str(name) for name in names if ":" in str(name))


def validate_recipe(values: object, origin: str = "recipe", text: str = "", *, trusted: bool = True) -> Recipe:
    """Turn plain values into a Recipe, or raise one RecipeError that names every fault.

    Args:
        trusted: whether modules that the recipe names may be imported.
    """
    try:
        return Recipe.model_validate(values, context={"trusted": trusted})
    except pydantic.ValidationError as error:
        faults = [_describe(fault, origin, text, values) for fault in _told_once(error.errors())]
        raise RecipeError("\n".join(dict.fromkeys(faults))) from None


def shipped_recipes() -> dict[str, str]:
    """The recipes that come with rayrnn: name -> its YAML text (the first comment says what it is)."""
    folder = resources.files("rayrnn.recipe") / "shipped"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    return {file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8") for file in files}


def read_recipe(where: str | Path) -> tuple[str, str]:
    """What to call a recipe in messages, and its YAML text, from a file or a shipped recipe's name."""
    path, shipped = path_of(where), shipped_recipes()
    try:
        return str(path), read_plain(path, most=MOST_RECIPE).decode("utf-8")
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        # the directory of a shipped recipe's data may have its name
        if str(where) not in shipped or not path.is_dir():
            raise RecipeError(f"recipe {path} cannot be read: {error}") from None
    if str(where) in shipped:
        return f"recipe {where}", shipped[str(where)]
    raise RecipeError(
        f"there is no recipe {str(where)!r}: neither a YAML file nor a shipped recipe"
        f"{did_you_mean(str(where), shipped)}; shipped are {', '.join(shipped)}"
    )


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, raw = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set takes key=value, for example training.learning_rate=1e-3; this was {override!r}")
    *sections, leaf = key.split(".")
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            raise RecipeError(f"--set {key}: {section!r} holds a value, it is no section")
    if [*sections, leaf][:2] == ["model", "options"]:
        values[leaf] = _parse_option(raw)
    else:
        values[leaf] = _parse_value(raw, parse_typed if key == "model" else parse_yaml)


def _parse_value(raw: str, read: Callable[[str], object]) -> object:
    """Text stays text (the schema turns it into a number where one is due); [..], {..} and null are YAML."""
    if raw in ("null", "~", ""):
        return None
    if raw[0] not in "[{":
        return raw
    try:
        return _built_up(raw, read)
    except Exception:  # as in `parse_recipe`
        return raw


def _parse_option(raw: str) -> object:
    """What no schema knows of: numbers, true and false are what they are."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return _parse_value(raw, parse_typed)


def _told_once(faults: Iterable[Any]) -> list[Any]:
    """Of a key that takes one value or a list of them: no word on its being a list, where another is on an item."""
    told = list(faults)
    # pydantic names the type that it tried, before the place in it
    of_items = {tuple(fault["loc"][:-2]) for fault in told if str(fault["loc"][-2:-1]).startswith("('tuple[")}
    return [fault for fault in told if not (_is_a_list(fault) and tuple(fault["loc"][:-1]) in of_items)]


def _is_a_list(fault: Any) -> bool:
    return isinstance(fault["input"], list | tuple) and fault["type"].endswith("_type")


def _describe(fault: Any, origin: str, text: str, values: Any) -> str:
    location = _location(fault["loc"], values, is_missing=fault["type"] == "missing")
    key = ".".join(location)
    where = f"{origin}:{line}" if (line := line_of(location, text)) else origin
    if fault["type"] == "extra_forbidden":
        hint = _of_other_sources(location, values) or did_you_mean(location[-1], _siblings(location, values))
        return f'{where}: recipe key "{key}" is unknown{hint}'
    if fault["type"] == "missing":
        return f'{origin}: recipe key "{key}" is missing'
    reason = "a list is due" if fault["type"] == "tuple_type" else fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error" and isinstance(fault["input"], Mapping):
        return f"{where}: {reason}"
    return f'{where}: recipe key "{key}" is {shortened(fault["input"])}: {reason}'


def _location(parts: Iterable[int | str], values: Any, *, is_missing: bool) -> list[str]:
    """The way to a fault as the user wrote it: pydantic puts in the name of the type that it tried, of several."""
    location, left = [], list(parts)
    while left:
        part = left.pop(0)
        if isinstance(values, Mapping):  # what is missing is the last
            found = {str(key): value for key, value in values.items()}
            if str(part) in found or (is_missing and not left):
                location.append(str(part))
                values = found.get(str(part))
        elif isinstance(part, int) and isinstance(values, list | tuple):
            location.append(str(part))
            values = values[part] if part < len(values) else None
    return location


def _of_other_sources(location: list[str], values: Any) -> str:
    """Which sources have a key of the data section that this recipe's has not."""
    if len(location) != 2 or location[0] != "data":
        return ""
    owners = [n for n, own in OWN.items() if own.section is not GivenData and location[1] in _keys_of(own.section)]
    chosen = _source_of(values["data"])
    return f" with data.source: {chosen}; {listed(owners, 6)} have it: set data.source, too" if owners else ""


def _siblings(location: list[str], values: Any) -> set[str]:
    """Keys that may stand where `location` points."""
    if len(location) == 1:
        return set(Recipe.model_fields)
    if location[0] == "data":
        # the keys of this very section were looked at, so its source is known, and trusted
        return _keys_of(section_named(_source_of(values["data"]), trusted=True))
    kinds: list[type[Section]] = [Recipe]
    for key in location[:-1]:
        found = [kind.model_fields[key].annotation for kind in kinds if key in kind.model_fields]
        types = [kind for annotation in found for kind in (annotation, *get_args(annotation))]
        kinds = [kind for kind in types if isinstance(kind, type) and issubclass(kind, Section)]
    return {key for kind in kinds for key in _keys_of(kind)}


def _keys_of(section: type[pydantic.BaseModel]) -> set[str]:
    """As they are written."""
    return {field.alias or name for name, field in section.model_fields.items()}
