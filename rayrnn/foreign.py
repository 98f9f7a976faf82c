"""Files that may be anybody's: plain ones alone, no longer than they may be, through no link where none may be.

A text in YAML is looked through before it is built up: a few lines of it may stand for more than any memory holds.
"""

import errno
import os
import stat
from pathlib import Path, PurePosixPath

import yaml

#: of YAML: values below values below values, and all of them, each as often as it is referred to
DEEPEST_YAML = 100
MOST_YAML_VALUES = 1_000_000


def open_inside(folder: Path, name: str, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
    """Open a file below `folder`, which may itself be reached through links; from there on none is followed.

    Args:
        name: relative to the folder, with slashes.

    Raises:
        OSError: it cannot be opened, or is no plain file; ELOOP where the file or something on the way is a link.
    """
    *folders, last = PurePosixPath(name).parts
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folders:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = below
        # who opens a pipe would wait for its other end
        return _plain(os.open(last, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode, dir_fd=at))
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and _has_link(folder, name):
            raise OSError(errno.ELOOP, "it is a link, or lies behind one, and none is followed here", name) from None
        raise
    finally:
        os.close(at)


def read_inside(folder: Path, name: str, *, most: int) -> bytes:
    """The whole of a file below `folder`, as `open_inside` opens it.

    Raises:
        OSError: it cannot be read, is no plain file, or has more than `most` bytes.
    """
    return _read(open_inside(folder, name), most)


def read_plain(path: Path, *, most: int) -> bytes:
    """The whole of a file that the user names; a link leads where it leads.

    Raises:
        OSError: it cannot be read, is no plain file, or has more than `most` bytes.
    """
    return _read(_plain(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)), most)


def memory_bytes() -> int:
    """What this machine has: a file that is larger cannot be taken in whole."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def kind_of(mode: int) -> str:
    """What a file of this mode is, in words."""
    kinds = {
        stat.S_ISREG: "a file",
        stat.S_ISDIR: "a directory",
        stat.S_ISLNK: "a link",
        stat.S_ISFIFO: "a named pipe",
        stat.S_ISSOCK: "a socket",
    }
    return next((name for asked, name in kinds.items() if asked(mode)), "a device")


def check_yaml(text: str) -> None:
    """See that a text in YAML, built up, is neither deep nor large; what is no YAML passes, and fails later.

    Raises:
        ValueError: it is.
    """
    #: of every list or mapping that is open: the values in it so far, and its anchor
    open_values: list[list[int]] = [[0]]
    anchors: list[str | None] = [None]
    sizes: dict[str | None, int] = {}
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                open_values.append([1])
                anchors.append(event.anchor)
            elif isinstance(event, yaml.CollectionEndEvent):
                (inside,) = open_values.pop()
                sizes[anchors.pop()] = inside
                open_values[-1][0] += inside
            elif isinstance(event, yaml.NodeEvent):
                is_alias = isinstance(event, yaml.AliasEvent)
                if is_alias and event.anchor in anchors:
                    raise ValueError(f"the value of &{event.anchor} has itself inside")
                open_values[-1][0] += sizes.get(event.anchor, 1) if is_alias else 1
            if len(open_values) > DEEPEST_YAML:
                raise ValueError(f"its values lie more than {DEEPEST_YAML} deep")
            if open_values[-1][0] > MOST_YAML_VALUES:
                raise ValueError(f"it stands for more than {MOST_YAML_VALUES:,} values")
    except yaml.YAMLError:
        return


def _plain(descriptor: int) -> int:
    """The same descriptor, of a plain file; else it is closed."""
    kind = kind_of(os.fstat(descriptor).st_mode)
    if kind != "a file":
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"it is {kind}, no file")
    return descriptor


def _read(descriptor: int, most: int) -> bytes:
    with open(descriptor, "rb") as file:
        if (size := os.fstat(descriptor).st_size) > most:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, and at most {most:,} are read")
        return file.read(size)  # what is added meanwhile is for the next reader


def _has_link(folder: Path, name: str) -> bool:
    parts = PurePosixPath(name).parts
    return any(folder.joinpath(*parts[:count]).is_symlink() for count in range(1, len(parts) + 1))
