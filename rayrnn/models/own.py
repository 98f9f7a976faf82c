"""A network of the user's own: found by its name here, and carried to the processes that cannot find it.

The name is `package.module:Name`, or the one that an installed package gave its network (an entry point of the group
`rayrnn.networks`). What is installed must be installed on every host. What is not is looked for in the current
directory, then where Python looks, and its Python files travel with the run: the module, or the whole package that it
is in. In the processes that they travel to they come before an installed module of the same name.
"""

import importlib
import inspect
import socket
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from rayrnn.errors import RecipeError, UsageError
from rayrnn.wording import size

GROUP = "rayrnn.networks"
#: of a script or a notebook: no file has it, so what it defines travels as it is
MAIN = "__main__"
#: bytes of Python that travel with a run; more belongs into a package that is installed
LIMIT = 8 * 2**20


@dataclass(frozen=True)
class PythonFiles:
    """A module, or the package that it is in."""

    #: where it was found
    folder: str
    #: path below the folder -> content
    content: Mapping[str, bytes]


@dataclass(frozen=True)
class OwnNetwork:
    """A network that was found by its name; another process finds it too."""

    #: as the recipe has it
    name: str
    #: package.module:Name
    place: str
    #: None where it is installed, or a script or notebook has it
    files: PythonFiles | None
    #: what makes it, in the process that found it
    make: Callable[..., object] | None

    @property
    def module(self) -> str:
        return self.place.partition(":")[0]

    def maker(self) -> Callable[..., object]:
        """The class, or the function that makes it.

        Raises:
            RecipeError: it cannot be found in this process; names the module and the host.
        """
        if self.make is not None:
            return self.make
        if self.files is not None:
            _bring(self.files)
        return _imported(self.place, self.name)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"make": self.make if self.module == MAIN else None}


def find_own(name: str) -> OwnNetwork:
    """Find a network by its name; runs the code of its module.

    Raises:
        RecipeError: it cannot be found; says where it was looked for.
    """
    place = place_of(name)
    _look_here()
    make = _imported(place, name)
    module = place.partition(":")[0]
    return OwnNetwork(name, place, None if module == MAIN else files_of(module), make)


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


def place_of(name: str) -> str:
    """The `package.module:Name` of a network; no code is run.

    Raises:
        RecipeError: no installed package offers a network of this name.
    """
    if ":" in name:
        return name
    offered = {point.name: point.value for point in entry_points(group=GROUP)}
    if name not in offered:
        raise RecipeError(
            f"model.network {name!r} is unknown: the installed packages offer "
            f"{', '.join(sorted(offered)) or 'none'} (entry points of {GROUP}); one of your own is package.module:Name"
        )
    return offered[name]


def files_of(module: str) -> PythonFiles | None:
    """What has to travel for a module to be found elsewhere; None where it is installed. Its code is not run.

    Raises:
        UsageError: the package is too large.
    """
    _look_here()
    top = module.partition(".")[0]
    spec = find_spec(top) if top != "rayrnn" else None
    if spec is None or _is_installed(spec):
        return None
    # a package without __init__.py may have several folders, of which the first comes first
    roots = [Path(root) for root in reversed(spec.submodule_search_locations or ())]
    files = {path.relative_to(root.parent): path for root in roots for path in root.rglob("*.py")}
    if not roots:
        roots = [Path(str(spec.origin))]
        files = {Path(roots[0].name): roots[0]}
    total = sum(path.stat().st_size for path in files.values())
    if total > LIMIT:
        raise UsageError(
            f"the Python files of {top} in {roots[-1]} are {size(total)}, at most {size(LIMIT)} travel with a run: "
            "put the network into a smaller package, or install it on every host"
        )
    return PythonFiles(
        str(roots[-1].parent), {inner.as_posix(): path.read_bytes() for inner, path in sorted(files.items())}
    )


def _look_here() -> None:
    """Find what lies in the current directory, as `python -m` does."""
    here = str(Path.cwd())
    if not {"", here} & set(sys.path):
        sys.path.insert(0, here)
    importlib.invalidate_caches()  # a file may have been written a moment ago


def _is_installed(spec: ModuleSpec) -> bool:
    """Whether it is of Python's own or its packages, or is none of Python's text."""
    places = list(spec.submodule_search_locations or ()) or [str(spec.origin)]
    folder, kinds = Path(places[0]).parent, ("stdlib", "platstdlib", "purelib", "platlib")
    if not spec.submodule_search_locations and not places[0].endswith(".py"):
        return True
    return str(folder) in map(sysconfig.get_path, kinds) or bool({"site-packages", "dist-packages"} & set(folder.parts))


def _imported(place: str, name: str) -> Callable[..., object]:
    module, _, attribute = place.partition(":")
    found: object = _module(module, name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise RecipeError(_missing(module, attribute, name))
        found = getattr(found, part)
    if inspect.isfunction(found) or (inspect.isclass(found) and issubclass(found, nn.Module)):
        return found
    raise RecipeError(
        f"model.network {name} is {found!r}; it must be a class of torch.nn.Module, or a function that makes one"
    )


def _module(module: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        host = socket.gethostname()
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise RecipeError(
                f"model.network is {name}, and there is no module {error.name} on {host}: it is looked for in the "
                f"current directory {Path.cwd()} and among the installed packages; install it, or start where it lies"
            ) from None
        raise RecipeError(
            f"model.network is {name}, and its module {module} cannot be imported on {host}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _missing(module: str, attribute: str, name: str) -> str:
    if module == MAIN:
        return f"model.network is {name}: it was defined in a script or notebook, and can be found only there"
    there = [
        key
        for key, value in vars(sys.modules[module]).items()
        if inspect.isclass(value) and issubclass(value, nn.Module) and value.__module__ == module
    ]
    return f"model.network is {name}, and module {module} has no {attribute}; its networks are {', '.join(there)}"


class _Brought(MetaPathFinder, SourceLoader):  # type: ignore[misc] # typeshed's own two definitions differ
    """Finds modules among files that came from another process."""

    def __init__(self, files: PythonFiles) -> None:
        self.files = files

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        inner = fullname.replace(".", "/")
        if self._file(fullname) in self.files.content:
            return spec_from_file_location(fullname, self.get_filename(fullname), loader=self)
        if any(file.startswith(f"{inner}/") for file in self.files.content):  # a package without __init__.py
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [f"{self.files.folder}/{inner}"]
            return spec
        return None

    def get_filename(self, fullname: str) -> str:
        return f"{self.files.folder}/{self._file(fullname)}"

    def get_data(self, path: bytes | str) -> bytes:
        return self.files.content[Path(str(path)).relative_to(self.files.folder).as_posix()]

    def _file(self, fullname: str) -> str:
        inner = fullname.replace(".", "/")
        package = f"{inner}/__init__.py"
        return package if package in self.files.content else f"{inner}.py"


def _bring(files: PythonFiles) -> None:
    """Let this process find the modules; what it had imported of them before is forgotten."""
    before = [finder for finder in sys.meta_path if isinstance(finder, _Brought)]
    if any(finder.files == files for finder in before):
        return
    tops = {file.partition("/")[0].removesuffix(".py") for file in files.content}
    for module in [module for module in sys.modules if module.partition(".")[0] in tops]:
        del sys.modules[module]
    sys.meta_path[:] = [_Brought(files), *(finder for finder in sys.meta_path if finder not in before)]
