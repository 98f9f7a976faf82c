"""Python modules of the user's own: found by their names here, and carried to the processes that cannot find them.

A recipe names a network, a task or a source as `package.module:Name`. What is installed must be installed on every
host. What is not is looked for in the current directory, then where Python looks, and its Python files travel with the
recipe: the module, or the whole package that it is in. In the processes that they travel to they come before an
installed module of the same name.

Of the current directory only what is named comes before what is installed; what that imports from there comes after
it. A file `numpy.py` that lies there by chance is nobody's NumPy.
"""

import importlib
import inspect
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from rayrnn.errors import UsageError
from rayrnn.wording import size

#: of a script or a notebook: no file has it, so what it defines travels as it is
MAIN = "__main__"
#: bytes of Python that travel with a run; more belongs into a package that is installed
LIMIT = 8 * 2**20


@dataclass(frozen=True)
class PythonFiles:
    """A module, or the package that it is in; a process that unpickles it finds its modules from then on."""

    #: where it was found
    folder: str
    #: path below the folder -> content
    content: Mapping[str, bytes]

    def __reduce__(self) -> tuple[object, ...]:
        return _brought, (self.folder, dict(self.content))


#: module or package -> what this process found of it by itself
_found_here: dict[str, PythonFiles] = {}


def load(place: str, key: str, name: str) -> object:
    """What stands at `package.module:Name`, imported now; one that is named by its place may lie in this directory.

    Args:
        key: of the recipe, for messages.
        name: what the recipe has there: the place itself, or a name that an installed package gave it.

    Raises:
        ValueError: it cannot be found; says where it was looked for.
    """
    module, _, attribute = place.partition(":")
    if name == place and module not in sys.modules:
        _look_in(Path.cwd(), _top(module))
    found: object = _module(module, f"{key} is {name}")
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(_missing(module, attribute, f"{key} is {name}"))
        found = getattr(found, part)
    return found


def make(place: str, key: str, name: str) -> object:
    """What the class or function at `package.module:Name` makes without an argument; see `load`.

    Raises:
        ValueError: it cannot be found, or makes nothing.
    """
    maker = load(place, key, name)
    try:
        return maker()  # type: ignore[operator]
    except TypeError as error:
        raise ValueError(f"{key} is {name}, which makes nothing without an argument: {error}") from None


def files_of(names: Iterable[str]) -> tuple[PythonFiles, ...]:
    """What has to travel for these `package.module:Name` to be found elsewhere. No code is run.

    Raises:
        UsageError: a package is too large.
    """
    tops = dict.fromkeys(_top(name.partition(":")[0]) for name in names)
    found = (_files(top) for top in tops if top not in (MAIN, "rayrnn"))
    return tuple(files for files in found if files is not None)


@contextmanager
def found_by_workers(names: Iterable[str]) -> Iterator[list[str]]:
    """Inside, the folders of this machine where another process finds the modules of these names, and nothing else."""
    found = [files for files in files_of(names) if Path(files.folder).is_dir()]
    if not found:
        yield []
        return
    with tempfile.TemporaryDirectory(prefix="rayrnn-code-") as place:
        for files in found:
            for top in _tops(files):
                words = f"from rayrnn.user_code import stand_for\nstand_for({top!r}, {files.folder!r}, {place!r})\n"
                (Path(place) / f"{top}.py").write_text(words, encoding="utf-8")
        yield [place]


def stand_for(top: str, folder: str, place: str) -> None:
    """The module or package that lies in `folder`, for the one that is being imported from `place`."""
    _look_in(Path(folder), top, but_not_in=place)
    del sys.modules[top]
    importlib.import_module(top)


def _top(module: str) -> str:
    return module.partition(".")[0]


def _tops(files: PythonFiles) -> set[str]:
    return {file.partition("/")[0].removesuffix(".py") for file in files.content}


def _files(top: str) -> PythonFiles | None:
    """None where it is installed, or not there at all."""
    for finder in sys.meta_path:
        if isinstance(finder, _Brought) and top in finder.tops:
            return finder.files
    _look_in(Path.cwd(), top)
    spec = find_spec(top)
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
            "put what the recipe names into a smaller package, or install it on every host"
        )
    content = {inner.as_posix(): path.read_bytes() for inner, path in sorted(files.items())}
    _found_here[top] = PythonFiles(str(roots[-1].parent), content)
    return _found_here[top]


def _look_in(folder: Path, top: str, but_not_in: str = "") -> None:
    """Find a module or package in this folder before any other; what else lies there is found last."""
    if not any(Path(entry).absolute() == folder for entry in sys.path):
        sys.path.append(str(folder))
    before = [finder for finder in sys.meta_path if isinstance(finder, _Named) and finder.top == top]
    for finder in before:
        sys.meta_path.remove(finder)
    if top not in sys.stdlib_module_names:  # half of Python may have it already
        sys.meta_path.insert(0, _Named(folder, top, but_not_in))
    importlib.invalidate_caches()  # a file may have been written a moment ago


def _is_installed(spec: ModuleSpec) -> bool:
    """Whether it is of Python's own or its packages, or is none of Python's text."""
    places = list(spec.submodule_search_locations or ()) or [str(spec.origin)]
    folder, kinds = Path(places[0]).parent, ("stdlib", "platstdlib", "purelib", "platlib")
    if not spec.submodule_search_locations and not places[0].endswith(".py"):
        return True
    return str(folder) in map(sysconfig.get_path, kinds) or bool({"site-packages", "dist-packages"} & set(folder.parts))


def _module(module: str, named: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        host = socket.gethostname()
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise ValueError(
                f"{named}, and there is no module {error.name} on {host}: it is looked for in the current directory "
                f"{Path.cwd()} and among the installed packages; install it, or start where it lies"
            ) from None
        raise ValueError(
            f"{named}, and its module {module} cannot be imported on {host}: {type(error).__name__}: {error}"
        ) from error


def _missing(module: str, attribute: str, named: str) -> str:
    if module == MAIN:
        return f"{named}: it was defined in a script or notebook, and can be found only there"
    found = sys.modules[module]
    there = [key for key, value in vars(found).items() if inspect.isclass(value) and value.__module__ == module]
    place = getattr(found, "__file__", None) or "a part of Python"
    classes = ", ".join(there) or "none"
    words = f"{named}, and module {module} has no {attribute}; its classes are {classes}; it is {place}"
    here = Path.cwd() / f"{_top(module)}.py"
    if here.exists() and "." not in module and str(here) != place:
        return f"{words}. {here} has a name that is taken: give the file another"
    return words


class _Named(MetaPathFinder):
    """Finds one module or package in one folder."""

    def __init__(self, folder: Path, top: str, but_not_in: str) -> None:
        self.folder = folder
        self.top = top
        self.but_not_in = but_not_in

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.top:
            return None
        # a package without __init__.py may have parts in several folders
        others = [folder for folder in sys.path if folder != self.but_not_in]
        return PathFinder.find_spec(fullname, [str(self.folder), *others])


class _Brought(MetaPathFinder, SourceLoader):  # type: ignore[misc] # typeshed's own two definitions differ
    """Finds modules among files that came from another process."""

    def __init__(self, files: PythonFiles) -> None:
        self.files = files
        self.tops = _tops(files)

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


def _brought(folder: str, content: Mapping[str, bytes]) -> PythonFiles:
    """Let this process find the modules; what it had imported of them before is forgotten."""
    files = PythonFiles(folder, content)
    before = [finder for finder in sys.meta_path if isinstance(finder, _Brought)]
    if files in _found_here.values() or any(finder.files == files for finder in before):
        return files
    arriving = _Brought(files)
    if Path(folder).is_dir() and folder not in sys.path:
        sys.path.append(folder)  # it may need others that lie there
    for module in [module for module in sys.modules if _top(module) in arriving.tops]:
        del sys.modules[module]
    replaced = [finder for finder in before if finder.tops & arriving.tops]
    sys.meta_path[:] = [arriving, *(finder for finder in sys.meta_path if finder not in replaced)]
    return files
