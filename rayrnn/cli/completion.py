"""What the shell is offered when the user presses TAB. Where it is offered nothing, it completes files by itself."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from rayrnn.wording import harmless

YAML_SUFFIXES = (".yaml", ".yml")
#: what `rayrnn train` writes first into a run directory
RECIPE_OF_A_RUN = "recipe.yaml"


def complete_recipe(incomplete: str) -> list[str]:
    """Shipped recipes by their names, then YAML files."""
    return complete_shipped_recipe(incomplete) + complete_yaml(incomplete)


def complete_shipped_recipe(incomplete: str) -> list[str]:
    """Shipped recipes by their names."""
    from rayrnn.recipe import shipped_recipes

    return [name for name in shipped_recipes() if name.startswith(incomplete)]


def complete_yaml(incomplete: str) -> list[str]:
    """YAML files here, and those in the folders whose names begin so."""
    return _offered(incomplete, lambda path: path.suffix in YAML_SUFFIXES and path.is_file())


def complete_run(incomplete: str) -> list[str]:
    """Run directories here, and those in the folders whose names begin so, such as runs/python."""
    return _offered(incomplete, lambda path: (path / RECIPE_OF_A_RUN).is_file())


def _offered(incomplete: str, is_wanted: Callable[[Path], bool]) -> list[str]:
    folder, slash, begun = incomplete.rpartition("/")
    offered = []
    for path in _children(Path(os.path.expanduser(f"{folder}{slash}"))):
        if path.name.startswith(begun) and (begun or not path.name.startswith(".")):
            found = [path] if is_wanted(path) else [child for child in _children(path) if is_wanted(child)]
            # as it was begun, ~ and all
            offered += [f"{folder}{slash}{one.relative_to(path.parent)}" for one in found]
    return offered


def _children(folder: Path) -> Iterator[Path]:
    """Nothing where it is no folder, or nobody may look; names that would give the terminal orders are left out."""
    with suppress(OSError):
        yield from sorted(path for path in folder.iterdir() if harmless(path.name) == path.name)
