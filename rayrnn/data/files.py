"""Finds the files of a source: one, a directory, a glob pattern or several of these; local, s3://, gs:// or hdfs://."""

import os
import re
import stat
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from posixpath import commonpath, dirname, normpath

import numpy as np
import pyarrow as pa
from pyarrow import fs

from rayrnn.data.contents import read_whole
from rayrnn.errors import DataError
from rayrnn.wording import closest, listed, path_of

SCHEMES = ("s3", "gs", "hdfs", "file")
_WILDCARD = re.compile(r"[*?\[]")
#: the size of what cannot be read, and of what nobody means to be
NO_FILE = -1
BACKUP = -2
_MEANINGS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
#: of these every choice has to be tried
MOST_DEEP_WILDCARDS = 3
#: what programs leave behind in directories of data
_LEFT_BEHIND = ("__pycache__", "_temporary")
#: how the names of an editor's copies end
BACKUPS = ("~", ".bak", ".swp", ".orig")


@dataclass(frozen=True)
class Listing:
    """Files in one file system, in the order of their paths. It travels to other processes."""

    filesystem: fs.FileSystem
    paths: tuple[str, ...]
    #: bytes in every file, int64
    sizes: np.ndarray
    #: what stands before every path in a name: `s3://`, or nothing for local files
    prefix: str = ""
    #: the directory from which local files are named
    here: str = field(default_factory=lambda: Path.cwd().as_posix())
    #: the directory that was named, or the one that all those lie in which were; a pattern begins below it
    base: str = ""
    #: each that was named, one or several
    bases: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The files as the user would write them: below the current directory from there, otherwise in full."""
        here = "" if self.prefix else f"{self.here}/"
        return tuple(self.prefix + path.removeprefix(here) for path in self.paths)

    @cached_property
    def places(self) -> tuple[tuple[str, str], ...]:
        """The same for one file, however it was written."""
        return tuple((self.prefix, normpath(path)) for path in self.paths)

    def groups(self, at_least: int, *, fewest: int = 1) -> list[np.ndarray]:
        """Cut the files into runs of neighbours with `at_least` bytes each, so that one task reads many small files.

        Args:
            fewest: where the bytes are too few for so many groups, make smaller ones.
        """
        size = max(1, min(at_least, int(self.sizes.sum()) // fewest))
        ends = np.cumsum(self.sizes)
        group_of = np.minimum((ends - 1).clip(min=0) // size, len(ends))
        return np.split(np.arange(len(self)), np.flatnonzero(np.diff(group_of)) + 1)


def list_files(
    where: str | tuple[str, ...], *, endpoint: str | None = None, say: Callable[[str], None] | None = None
) -> Listing:
    """Find the files that `where` names.

    What is there as it is written is no pattern, whatever characters are in its name, nor is a directory on the way.
    A directory stands for all files in it and below, without hidden ones (`.git`), the marks that programs leave
    (`_SUCCESS`) and an editor's backups (`a.csv~`). `sysconfig:stdlib/...` begins in the directory of this Python's
    standard library.

    Args:
        endpoint: the address of an S3- or GCS-compatible store, such as http://127.0.0.1:9000; without it that in
            AWS_ENDPOINT_URL (for S3), if any.
        say: how the user is told of what is in a directory and is left out: links that lead nowhere, pipes, backups.

    Raises:
        DataError: nothing is there, or it cannot be listed.
    """
    addresses = (where,) if isinstance(where, str) else where
    if not addresses:
        raise DataError("data.path names no file: give a file, a directory or a glob pattern")
    found: dict[str, int] = {}
    bases: list[str] = []
    systems = [open_file_system(address, endpoint=endpoint) for address in addresses]
    for (filesystem, path), address in zip(systems, addresses, strict=True):
        base, files = _find(filesystem, path, address)
        found |= files
        bases.append(base)
    if len({filesystem.type_name for filesystem, _ in systems}) > 1:
        raise DataError(f"data.path mixes file systems: {', '.join(addresses)}; all files must lie in one")
    paths = tuple(sorted(path for path, size in found.items() if size >= 0))
    if left_out := {path: found[path] for path in sorted(found.keys() - set(paths))}:
        told = _left_out(left_out)
        if not paths:
            raise DataError(f"{', '.join(addresses)} holds no files, but {told}")
        if say is not None:
            say(f"{told}: left out")
    sizes = np.array([found[path] for path in paths], dtype=np.int64)
    return Listing(systems[0][0], paths, sizes, _prefix(addresses[0]), base=commonpath(bases), bases=tuple(bases))


def open_file_system(address: str, *, endpoint: str | None = None) -> tuple[fs.FileSystem, str]:
    """The file system that holds `address`, and the path in it.

    Raises:
        DataError: the scheme is unknown, or the file system cannot be reached.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return fs.LocalFileSystem(), _local_path(address)
    if scheme not in SCHEMES:
        raise DataError(f"{address}: {scheme}:// is no file system known here; known are {', '.join(SCHEMES)}")
    if scheme == "file":
        return fs.LocalFileSystem(), _local_path(rest)
    host, _, path = rest.partition("/")
    try:
        if scheme == "hdfs":
            return fs.FileSystem.from_uri(f"hdfs://{host}/")[0], f"/{path}"
        return _object_store(scheme, host, endpoint), rest.rstrip("/")
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{address} cannot be reached: {error}") from None


def read_bytes(listing: Listing, number: int) -> bytes:
    """The whole of one file, unpacked where its name ends in .gz, .bz2, .zst or .lz4.

    Raises:
        DataError: it cannot be read.
    """
    return read_whole(listing.filesystem, listing.paths[number], listing.names[number])


def _object_store(scheme: str, bucket: str, endpoint: str | None) -> fs.FileSystem:
    options = {}
    if endpoint is None and scheme == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
    if endpoint is not None:
        transport, separator, address = endpoint.rpartition("://")
        options = {"endpoint_override": address.rstrip("/"), "scheme": transport if separator else "https"}
    if scheme == "gs":
        return fs.GcsFileSystem(**options)
    region = os.environ.get("AWS_REGION", os.environ.get("AWS_DEFAULT_REGION"))
    options["region"] = region or (fs.resolve_s3_region(bucket) if endpoint is None else "us-east-1")
    return fs.S3FileSystem(**options, **_credentials())


def _credentials() -> dict[str, str | None]:
    """What the environment has. It travels with the file system, for workers on other hosts have none of it."""
    names = {"access_key": "AWS_ACCESS_KEY_ID", "secret_key": "AWS_SECRET_ACCESS_KEY"}
    if not all(os.environ.get(name) for name in names.values()):
        return {}
    return {option: os.environ.get(name) for option, name in (names | {"session_token": "AWS_SESSION_TOKEN"}).items()}


def _local_path(address: str) -> str:
    if address.startswith("sysconfig:"):
        name, _, rest = address.removeprefix("sysconfig:").partition("/")
        if name not in sysconfig.get_path_names():
            raise DataError(f"{address}: Python has no directory {name!r}; write sysconfig:stdlib/*.py")
        return str(Path(sysconfig.get_path(name)) / rest)
    return path_of(address).absolute().as_posix()


def _prefix(address: str) -> str:
    scheme, separator, rest = address.partition("://")
    if not separator or scheme == "file":
        return ""
    return f"hdfs://{rest.partition('/')[0]}" if scheme == "hdfs" else f"{scheme}://"


def _left_out(found: dict[str, int]) -> str:
    """What is there and is no file, or none that is meant."""
    kinds: dict[str, list[str]] = {"a link that leads nowhere": [], "a pipe, socket or device": [], "a backup": []}
    for path, size in found.items():
        no_file = "a link that leads nowhere" if os.path.islink(path) else "a pipe, socket or device"
        kinds["a backup" if size == BACKUP else no_file].append(path)
    return "; ".join(f"{kind}, {listed(paths, most=1)}" for kind, paths in kinds.items() if paths)


def _find(filesystem: fs.FileSystem, path: str, address: str) -> tuple[str, dict[str, int]]:
    """The directory in which one address has something looked for, and path -> bytes of what it names.

    Of what is no file the bytes are NO_FILE, of a backup in a directory BACKUP.
    """
    try:
        base, pattern = _split_pattern(filesystem, path)
        if pattern:
            return base, _find_matching(filesystem, base, pattern, address)
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.File:
            return dirname(info.path), {info.path: info.size}
        if info.type == fs.FileType.NotFound and filesystem.type_name == "local" and os.path.islink(path):
            raise DataError(f"{address} is a link to {os.readlink(path)}, which is not there")
        if info.type == fs.FileType.NotFound:
            raise DataError(_not_found(filesystem, path, address))
        if info.type == fs.FileType.Unknown:
            raise DataError(f"{address} is no file but a pipe, a socket or a device: write what it gives into a file")
        found = _walk(filesystem, path, recursive=True)
    except OSError as error:
        raise DataError(f"{address} cannot be listed: {error}") from None
    if not found:
        raise DataError(f"the directory {address} holds no files")
    return path, {p: BACKUP if size >= 0 and p.endswith(BACKUPS) else size for p, size in found.items()}


def _split_pattern(filesystem: fs.FileSystem, path: str) -> tuple[str, str]:
    """The directory that is there by its own name, and the pattern below it; none where there is no wildcard."""
    parts = path.split("/")
    for count, part in enumerate(parts, start=1):
        there = "/".join(parts[:count])
        if _WILDCARD.search(part) and filesystem.get_file_info(there).type == fs.FileType.NotFound:
            return "/".join(parts[: count - 1]) or "/", "/".join(parts[count - 1 :])
    return path, ""


def _find_matching(filesystem: fs.FileSystem, base: str, pattern: str, address: str) -> dict[str, int]:
    if pattern.count("**") > MOST_DEEP_WILDCARDS:
        raise DataError(f"{address} has more than {MOST_DEEP_WILDCARDS} of **, which would be tried without end")
    if filesystem.get_file_info(base).type != fs.FileType.Directory:
        raise DataError(_not_found(filesystem, base, address))
    found = _walk(filesystem, base, recursive="/" in pattern or "**" in pattern)
    matches = re.compile(_expression(pattern)).fullmatch
    start = len(base.rstrip("/")) + 1
    chosen = {path: size for path, size in found.items() if matches(path[start:])}
    if not chosen:
        raise DataError(f"no file matches {address}; {len(found)} files lie in {base}, looked from {Path.cwd()}")
    return chosen


def _expression(pattern: str) -> str:
    """A glob pattern as a regular expression: `*` and `?` stay within a directory, `**` does not.

    Of several `*` in one directory's name, each but the last takes as little as it can, and keeps to that: it finds
    what any other choice would find, and not all have to be tried.
    """
    done: list[str] = []
    #: where the last `*` of this directory's name stands
    star: int | None = None
    for piece in re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+\])", pattern):
        if piece == "*" and star is not None:
            done[star:] = [f"(?>[^/]*?{''.join(done[star + 1 :])})"]
        done.append(_MEANINGS.get(piece) or _character_set(piece))
        if piece == "*":
            star = len(done) - 1
        elif piece.startswith("**") or "/" in piece:
            star = None
    return "".join(done)


def _character_set(piece: str) -> str:
    if not (piece.startswith("[") and piece.endswith("]")):
        return re.escape(piece)
    negated = piece.startswith("[!")
    return ("[^" if negated else "[") + re.sub(r"[\\[&~|]", r"\\\g<0>", piece[1 + negated : -1]) + "]"


def _walk(filesystem: fs.FileSystem, directory: str, *, recursive: bool) -> dict[str, int]:
    if filesystem.type_name == "local":
        found = walk_here(directory, recursive=recursive)
        return {path: NO_FILE if about is None else about.st_size for path, about in found}
    infos = filesystem.get_file_info(fs.FileSelector(directory, recursive=recursive))
    start = len(directory.rstrip("/")) + 1
    return {
        info.path: info.size for info in infos if info.type == fs.FileType.File and not is_hidden(info.path[start:])
    }


def walk_here(
    directory: str, above: tuple[tuple[int, int], ...] = (), *, recursive: bool = True
) -> Iterator[tuple[str, os.stat_result | None]]:
    """What lies in a directory of this machine, without hidden files; None for what is no file.

    A link may lead to another directory, but not to one of those `above`, for that has no end.

    Raises:
        OSError: a directory cannot be listed.
    """
    status = os.stat(directory)
    above = (*above, (status.st_dev, status.st_ino))
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                found = entry.stat()
            except OSError:  # it leads nowhere, or is gone
                found = None
            name = entry.name + ("/" if found is not None and stat.S_ISDIR(found.st_mode) else "")
            if is_hidden(name):
                continue
            path = f"{directory.rstrip('/')}/{entry.name}"
            if found is None or (found.st_dev, found.st_ino) in above:
                yield path, None
            elif stat.S_ISREG(found.st_mode):
                yield path, found
            elif not stat.S_ISDIR(found.st_mode):
                yield path, None
            elif recursive:
                yield from walk_here(path, above)


def is_hidden(path: str) -> bool:
    """Whether a file below a directory is none that is meant: hidden, or a mark that a program leaves (`_SUCCESS`)."""
    *directories, name = path.split("/")
    if any(directory.startswith(".") or directory in _LEFT_BEHIND for directory in directories):
        return True
    return name.startswith(".") or (name.startswith("_") and "." not in name)


def not_here(path: Path) -> str:
    """That there is no such file on this machine, where it was looked for, and what was probably meant."""
    return _not_found(fs.LocalFileSystem(), str(path.absolute()), str(path))


def _not_found(filesystem: fs.FileSystem, path: str, address: str) -> str:
    """What was looked for and from where, and the neighbour with the most similar name."""
    place = f", looked from the directory {Path.cwd()}" if filesystem.type_name == "local" else ""
    missing, parent = path, path.rpartition("/")[0]
    while parent and filesystem.get_file_info(parent).type != fs.FileType.Directory:
        missing, parent = parent, parent.rpartition("/")[0]
    if not parent:
        return f"there is no {address}{place}"
    neighbours = [info.base_name for info in filesystem.get_file_info(fs.FileSelector(parent))]
    close = closest(missing.rpartition("/")[2], neighbours)
    hint = f'; did you mean "{parent}/{close}"?' if close else ""
    if not close and not address.endswith(missing.rpartition("/")[2]):  # which would be said already
        hint = f"; {parent} has no {missing.rpartition('/')[2]!r}"
    return f"there is no {address}{place}{hint}"
