"""The recipe that a run keeps: whole, or refused; and whether what it names may be imported."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rayrnn.errors import RunError, UsageError
from rayrnn.foreign import read_inside
from rayrnn.recipe import MOST_RECIPE, Recipe, parse_recipe, validate_recipe
from rayrnn.runs.layout import RECIPE

#: the keys of a recipe that runs of rayrnn 0.1 have not
LATER = {
    *("data.line_ends", "data.missing", "data.decimal", "data.held_out_labels"),
    *("data.units", "data.pieces", "data.rare", "data.vectors", "data.several", "data.target"),
    *("data.targets", "data.held_out_targets", "data.where", "data.held_out_where"),
    *("data.forecast", "data.known_ahead", "data.static", "data.weight"),
    *("data.target_units", "data.target_pieces", "data.target_rare"),
    *("training.loss", "training.quantiles"),
    *("training.monitor", "training.max_minutes", "training.start_from", "training.dl4j"),
    *("averaging.minutes", "track"),
    *("model.decoder", "averaging.scaling", "averaging.overlap", "search", "detect"),
    *("model.front", "model.front_channels", "model.front_width", "model.front_stride"),
    *("model.parallel", "model.parallel_channels", "model.parallel_widths", "model.mask_steps", "model.mask_features"),
    *("model.dropout_at", "model.residual"),
}


def kept_recipe(folder: Path, *, trusted: bool) -> Recipe:
    """The resolved recipe that a run was started with.

    Raises:
        RunError: the file cannot be read, or something of it is lost.
    """
    text, origin = stored_recipe(folder)
    values = parse_recipe(text, origin)
    recipe = validate_recipe(values, origin, text, trusted=trusted)
    if lost := next(_lost_keys(values, recipe), None):
        raise RunError(
            f'{origin} cannot be used: the key "{lost}" is not there, and a run writes every key: the file is '
            "damaged; put back what it was"
        )
    return recipe


def _lost_keys(values: Mapping[str, Any], recipe: Recipe) -> Iterator[str]:
    """The keys that a run of this recipe writes, and `values` has not: a default would stand in for what is lost."""
    for section, content in recipe.model_dump(mode="json").items():
        if _is_lost(section, values, content):
            yield from [] if section in LATER else [section]
        elif isinstance(content, dict) and not (section == "data" and _is_others(recipe.data)):
            keys = (f"{section}.{key}" for key, value in content.items() if _is_lost(key, values[section], value))
            yield from (key for key in keys if key not in LATER)


def _is_lost(key: str, values: Mapping[str, Any], meant: object) -> bool:
    """Whether the key is not there, or its value is not: a file cut off after a colon has null there."""
    return key not in values or (values[key] is None and meant is not None)


def _is_others(section: object) -> bool:
    """Whether a section of a recipe comes from another package, which may have new keys at any time."""
    return not type(section).__module__.startswith("rayrnn.")


def stored_recipe(folder: Path) -> tuple[str, str]:
    """The text of a run's recipe, and what to call it.

    Raises:
        RunError: it cannot be read.
    """
    try:
        return read_inside(folder, RECIPE, most=MOST_RECIPE).decode("utf-8"), str(folder / RECIPE)
    except OSError as error:
        raise RunError(f"{folder / RECIPE} cannot be used: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RunError(f"{folder / RECIPE} cannot be used: {error}") from None


def check_trust(recipe: Recipe, *, trusted: bool, where: str) -> None:
    """See whether what a recipe names may be imported, and its data may be read as it says.

    Args:
        trusted: whether whoever chose the names may have any module imported.
        where: what to call the place of the recipe.

    Raises:
        UsageError: it names code that is not rayrnn's, or has programs run, and is not trusted.
    """
    if recipe.data.commands and not trusted:
        keys = " and ".join(f"data.{key}" for key in recipe.data.commands)
        raise UsageError(
            f"{where} has {keys} for {recipe.data.source}, by which whoever wrote it can have programs run as you: "
            "if you trust who made the run, add --trust (in Python: trust=True)"
        )
    if recipe.named_code and not trusted:
        raise UsageError(
            f"{where} names {' and '.join(recipe.named_code)}, which is not rayrnn's: using it runs the code of that "
            "Python module, with all that your account may do. If you know that code and trust who made the run, add "
            "--trust (in Python: trust=True)"
        )
