"""What of a recipe lies on this machine and has to travel with the job: data (without a scheme), the user's modules."""

import os
from dataclasses import dataclass
from pathlib import Path

from rayrnn.data.files import list_files
from rayrnn.errors import DataError
from rayrnn.recipe import Recipe, validate_recipe
from rayrnn.recipe.sources import read_by_hosts
from rayrnn.runs.beginning import WEIGHTS
from rayrnn.runs.directory import open_run
from rayrnn.runs.layout import ENCODING, MODEL, RECIPE
from rayrnn.user_code import PythonFiles, files_of
from rayrnn.wording import counted, path_of, size

#: bytes of local data that travel with a job; more belongs in a store
LIMIT = 2 * 2**30
#: where files from outside the current directory lie on the head, below the job's directory
OUTSIDE = "_outside_"


@dataclass(frozen=True)
class Upload:
    """Local files that a job reads, and the recipe that names them as they are named where the job runs."""

    recipe: Recipe
    #: relative to the current directory, and keep their place
    inside: tuple[str, ...] = ()
    #: relative to the root of this machine
    outside: tuple[str, ...] = ()
    num_bytes: int = 0
    #: of what the recipe names and is not installed; the job finds it in its working directory
    code: tuple[PythonFiles, ...] = ()

    def __str__(self) -> str:
        count = len(self.inside) + len(self.outside)
        return f"{counted(count, 'local file')}, {size(self.num_bytes)}"


def gather(recipe: Recipe) -> Upload:
    """Find the local files that the recipe names (data.path, data.held_out and others of its source).

    Raises:
        DataError: one is not there, they are too large together, or the source reads on hosts that do not have them.
        UsageError: the Python files of what it names are too large, or `training.start_from` names no run.
    """
    data, code = recipe.data, files_of(recipe.named_code)
    local = {key: address for key, address in data.files.items() if any(map(_is_local, _several(address)))}
    found = _begun_with(recipe.training.start_from)
    if not local and not found:
        return Upload(recipe, code=code)
    if local and data.read_by_hosts:
        key, address = next(iter(local.items()))
        raise DataError(
            f"data.{key} is {address}, on this machine, and data.source {data.source} reads on the cluster's "
            "hosts: give a path that all of them have (s3://, hdfs://, or file:///... for the hosts' own disks)"
        )
    for address in local.values():
        listing = list_files(tuple(map(_absolute, filter(_is_local, _several(address)))))
        found |= dict(zip(listing.paths, listing.sizes.tolist(), strict=True))
    if sum(found.values()) > LIMIT:
        others = f", or where the hosts read them by themselves (data.source: {' or '.join(read_by_hosts())})"
        raise DataError(
            f"data.path ({data.describe()}) is {size(sum(found.values()))} on this machine; at most {size(LIMIT)} "
            "travel with a job: put the files into a store (data.path: s3://...; data.endpoint for one that is not "
            f"AWS){others if read_by_hosts() else ''}, or name file:///... where the head has them"
        )
    here = f"{Path.cwd().as_posix()}/"
    there = {key: _renamed(address, here) for key, address in local.items()}
    return Upload(
        _reading(recipe, there, here),
        inside=tuple(path.removeprefix(here) for path in found if path.startswith(here)),
        outside=tuple(path.removeprefix("/") for path in found if not path.startswith(here)),
        num_bytes=sum(found.values()),
        code=code,
    )


def _begun_with(where: str | None) -> dict[str, int]:
    """The local files that the network begins with, and their sizes."""
    if where is None or not _is_local(where):
        return {}
    place = Path(_absolute(where))
    names = [""] if place.suffix == WEIGHTS else [RECIPE, ENCODING, MODEL]
    if place.suffix != WEIGHTS:
        open_run(place)
    files = [place / name for name in names if (place / name).is_file()]
    if not files:
        raise DataError(f"training.start_from is {where}, and there is no such file on this machine")
    return {str(file): file.stat().st_size for file in files}


def _reading(recipe: Recipe, there: dict[str, str | tuple[str, ...]], here: str) -> Recipe:
    """The recipe as the job reads it, whose `data`, and `training.start_from`, name files where they lie there."""
    values = recipe.model_dump(mode="json")
    if (begin := recipe.training.start_from) is not None:
        values["training"]["start_from"] = _place(begin, here)
    return validate_recipe(values | {"data": values["data"] | there})


def _several(address: str | tuple[str, ...]) -> tuple[str, ...]:
    return (address,) if isinstance(address, str) else address


def _is_local(address: str) -> bool:
    return "://" not in address and not address.startswith("sysconfig:")


def _absolute(address: str) -> str:
    return os.path.normpath(path_of(address).absolute())


def _renamed(address: str | tuple[str, ...], here: str) -> str | tuple[str, ...]:
    return _place(address, here) if isinstance(address, str) else tuple(_place(one, here) for one in address)


def _place(address: str, here: str) -> str:
    """Where an address lies in the job's directory, which is this one in small."""
    if not _is_local(address):
        return address
    path = _absolute(address)
    if f"{path}/" == here:
        return "."
    return path.removeprefix(here) if path.startswith(here) else f"{OUTSIDE}{path}"
