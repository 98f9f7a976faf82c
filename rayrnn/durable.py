"""Files that are whole at every moment: written through to the disk, and put in place in one rename."""

import errno
import os
from pathlib import Path


def write_durably(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Make a new file and wait until the disk has it.

    Args:
        mode: who may read it, less what the process's umask takes away.

    Raises:
        OSError: it cannot be written, or something of this name is there: no file is cut, and no link followed.
    """
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, mode)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_durably(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Put new content in place of a file in one rename: a reader sees the old one or the new one.

    One process at a time: two would write the same draft. A write that fails leaves the old file, and no draft.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    try:
        write_durably(unfinished, content, mode=mode)
        unfinished.replace(path)
        sync_folder(path.parent)
    except Exception:
        unfinished.unlink(missing_ok=True)
        raise


def make_folder(folder: Path) -> None:
    """Make a directory, and those on the way to it, so that they survive a power cut; nothing where it is there.

    Raises:
        OSError: it cannot be made.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)


def sync_folder(folder: Path) -> None:
    """Make what was created, renamed and removed inside `folder` survive a power cut, where its file system can.

    Raises:
        OSError: the disk did not take it.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # who may write to a directory need not be one who may read it
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def stamp_of(path: Path) -> tuple[int, int, int]:
    """Tells a file from what is put in its place later; zeros where there is none, or it cannot be looked at."""
    try:
        about = path.stat()
    except OSError:
        return (0, 0, 0)
    return about.st_ino, about.st_mtime_ns, about.st_size
