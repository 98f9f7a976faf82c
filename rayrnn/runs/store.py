"""The files below an address of a store: s3://, gs:// or hdfs://."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pyarrow import fs

from rayrnn.data.files import SCHEMES, open_file_system
from rayrnn.errors import DataError, UsageError

#: file:// is a directory
ADDRESSES = tuple(f"{scheme}://" for scheme in SCHEMES if scheme != "file")


def is_address(where: str | Path) -> bool:
    """Whether this names a place in a store, not a directory of this machine."""
    return isinstance(where, str) and where.startswith(ADDRESSES)


class Store:
    """What lies below one address; names are relative to it, with slashes.

    An S3-compatible store is named by AWS_ENDPOINT_URL; credentials come from where AWS's or Google's own tools have
    them.

    Raises:
        UsageError: here and in every method, when the store does not do it.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        try:
            self._filesystem, self._root = open_file_system(self.address)
        except DataError as error:
            raise UsageError(str(error)) from None
        if not PurePosixPath(self.address.partition("://")[2]).parts[1:]:
            raise UsageError(f"{address} names no directory: give one below it, {self.address}/runs/NAME")

    def sizes(self) -> dict[str, int]:
        """Every file's name and its bytes."""
        selector = fs.FileSelector(self._root, allow_not_found=True, recursive=True)
        with self._told("read"):
            found = [info for info in self._filesystem.get_file_info(selector) if info.type == fs.FileType.File]
        return {str(PurePosixPath(info.path).relative_to(self._root)): info.size for info in found}

    def read(self, name: str) -> bytes:
        """The whole of one file."""
        with self._told("read"), self._filesystem.open_input_stream(self._path(name), compression=None) as stream:
            return bytes(stream.read())

    def find(self, name: str, *, most: int) -> bytes | None:
        """The first `most` bytes of a file; None where there is none."""
        with self._told("read"):
            if self._filesystem.get_file_info(self._path(name)).type != fs.FileType.File:
                return None
            try:
                with self._filesystem.open_input_stream(self._path(name), compression=None) as stream:
                    return bytes(stream.read(most))
            except FileNotFoundError:  # it has gone meanwhile
                return None

    def stamp(self, name: str) -> tuple[int, int]:
        """Tells a file of now from the one that takes its place: its bytes, and when it was written, in nanoseconds."""
        with self._told("read"):
            info = self._filesystem.get_file_info(self._path(name))
        return info.size or 0, info.mtime_ns or 0

    def write(self, name: str, content: bytes) -> None:
        """Put this in the place of a file, which is there whole or not at all."""
        with self._told("written"):
            if self._filesystem.type_name == "hdfs":
                self._filesystem.create_dir(str(PurePosixPath(self._path(name)).parent), recursive=True)
            with self._filesystem.open_output_stream(self._path(name), compression=None) as stream:
                stream.write(content)

    def remove(self, name: str) -> None:
        """Take a file away; nothing where there is none."""
        with self._told("written"):
            if self._filesystem.get_file_info(self._path(name)).type == fs.FileType.File:
                self._filesystem.delete_file(self._path(name))

    def remove_empty_folder(self, name: str) -> None:
        """Take away a directory without a file in it; nothing where there is one, or no such directory."""
        selector = fs.FileSelector(self._path(name), allow_not_found=True, recursive=True)
        with self._told("written"):
            inside = self._filesystem.get_file_info(selector)
            is_there = self._filesystem.get_file_info(self._path(name)).type == fs.FileType.Directory
            if is_there and all(info.type == fs.FileType.Directory for info in inside):
                self._filesystem.delete_dir(self._path(name))

    def check_bucket(self) -> None:
        """
        Raises:
            UsageError: there is none.
        """
        if self.address.startswith("hdfs://"):
            return
        bucket = self._root.split("/")[0]
        with self._told("reached"):
            there = self._filesystem.get_file_info(bucket).type != fs.FileType.NotFound
        if not there:
            raise UsageError(f"{self.address}: there is no bucket {bucket}; make it first, or choose another --out")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(f"{self.address} cannot be {what}: {error}") from None
