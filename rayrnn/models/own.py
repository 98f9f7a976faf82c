"""A network of the user's own, found by its name.

The name is `package.module:Name` (rayrnn/user_code.py says where that is looked for), or the one that an installed
package gave its network (an entry point of the group `rayrnn.networks`).
"""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from torch import nn

from rayrnn.errors import RecipeError, UsageError
from rayrnn.user_code import MAIN, load

GROUP = "rayrnn.networks"


@dataclass(frozen=True)
class OwnNetwork:
    """A network that was found by its name; a process that the recipe has travelled to finds it too."""

    #: as the recipe has it
    name: str
    #: package.module:Name
    place: str
    #: what makes it, in the process that found it
    make: Callable[..., object] | None

    def maker(self) -> Callable[..., object]:
        """The class, or the function that makes it.

        Raises:
            RecipeError: it cannot be found in this process; names the module and the host.
        """
        return self.make or _imported(self.place, self.name)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"make": self.make if self.place.partition(":")[0] == MAIN else None}


def find_own(name: str) -> OwnNetwork:
    """Find a network by its name; runs the code of its module.

    Raises:
        RecipeError: it cannot be found; says where it was looked for.
    """
    place = _place_of(name)
    return OwnNetwork(name, place, _imported(place, name))


def name_of(network: Callable[..., object]) -> str:
    """The name by which a class or function is found again.

    Raises:
        UsageError: it has none: it was defined in a function, or is no class or function.
    """
    module, name = getattr(network, "__module__", None), getattr(network, "__qualname__", None)
    found: object = sys.modules.get(str(module))
    for part in str(name).split("."):
        found = getattr(found, part, None)
    if found is not network:
        raise UsageError(
            f"network is {network!r}, which cannot be found again by a name: give a class, or a function that makes "
            "the network, defined at the top of a module"
        )
    return f"{module}:{name}"


def _place_of(name: str) -> str:
    """The `package.module:Name` of a network; no code is run.

    Raises:
        RecipeError: no installed package offers a network of this name.
    """
    if ":" in name:
        return name
    offered = {point.name: point.value for point in entry_points(group=GROUP)}
    if name not in offered:
        module, _, attribute = name.rpartition(".")
        meant = f'; did you mean "{module}:{attribute}"?' if module else ""
        raise RecipeError(
            f"model.network {name!r} is unknown: the installed packages offer {', '.join(sorted(offered)) or 'none'} "
            f"(entry points of {GROUP}); one of your own is package.module:Name{meant}"
        )
    return offered[name]


def _imported(place: str, name: str) -> Callable[..., object]:
    try:
        found = load(place, "model.network", name)
    except ValueError as error:
        raise RecipeError(str(error)) from None
    if inspect.isfunction(found) or (inspect.isclass(found) and issubclass(found, nn.Module)):
        return found
    raise RecipeError(
        f"model.network {name} is {found!r}; it must be a class of torch.nn.Module, or a function that makes one"
    )
