"""One file to write where sources are read: local, s3://, gs:// or hdfs://; it is there whole, or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa
from pyarrow import fs
from ray.exceptions import RayError

from rayrnn.data.files import open_file_system
from rayrnn.errors import DataError, UsageError

#: bytes of a file by which it is known whether it may be replaced
_BEGINNING = 4096


@dataclass(frozen=True)
class Destination:
    """A file that is not there yet, or one that may be replaced."""

    #: as the user wrote it
    name: str
    filesystem: fs.FileSystem
    path: str
    #: of the command, in messages
    option: str = "--out"
    #: a file that has this in it, near its beginning, may be replaced
    replaces: bytes | None = None

    @contextmanager
    def unfinished(self) -> Iterator[pa.NativeFile]:
        """A stream to a hidden neighbour, which takes the file's name at the end; an exception inside removes it.

        Raises:
            DataError: it cannot be written.
            UsageError: the file has come into being meanwhile.
        """
        whole = PurePosixPath(self.path)
        beside = str(whole.with_name(f".{whole.name}.unfinished"))
        try:
            with self._told():
                if self.filesystem.type_name in ("local", "hdfs"):
                    self.filesystem.create_dir(str(whole.parent), recursive=True)
                stream = self.filesystem.open_output_stream(beside, compression=None)
            with self._told(), stream:
                yield stream
            with self._told():
                self.check_absent()
                if self.replaces is not None and self.filesystem.type_name == "hdfs":  # whose move replaces nothing
                    self._remove(self.path)
                self.filesystem.move(beside, self.path)
        except BaseException:
            self._remove(beside)
            raise

    def check_absent(self) -> None:
        """
        Raises:
            UsageError: there is something already, and it may not be replaced.
        """
        kind = self.filesystem.get_file_info(self.path).type
        if kind == fs.FileType.NotFound or (kind == fs.FileType.File and self._may_replace()):
            return
        other = "" if self.replaces is None else ", and is no such file of rayrnn's"
        raise UsageError(f"{self.name} is there already{other}: remove it, or choose another {self.option}")

    def _may_replace(self) -> bool:
        if self.replaces is None:
            return False
        with self.filesystem.open_input_file(self.path) as stream:
            return self.replaces in bytes(stream.read(_BEGINNING))

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, RayError):
                # a task's own error, in Ray's wrapping
                raise
            raise DataError(f"{self.name} cannot be written: {error}") from None

    def _remove(self, path: str) -> None:
        try:
            self.filesystem.delete_file(path)
        except OSError:
            # the store that could not be written, or a file that never came into being: there is nothing more to do
            return


def open_destination(
    address: str,
    *,
    suffixes: tuple[str, ...],
    endpoint: str | None = None,
    option: str = "--out",
    replaces: bytes | None = None,
) -> Destination:
    """The place of a new file.

    Args:
        suffixes: what its name may end in.
        endpoint: the address of an S3- or GCS-compatible store.
        option: of the command that names it, in messages.
        replaces: a file that has this near its beginning is one of ours, and is replaced.

    Raises:
        UsageError: the name ends in something else, or there is something already that may not be replaced.
        DataError: the file system cannot be reached.
    """
    if PurePosixPath(address).suffix not in suffixes:
        due = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}" if len(suffixes) > 1 else suffixes[0]
        raise UsageError(f"{option} is {address}: its name must end in {due}")
    filesystem, path = open_file_system(address, endpoint=endpoint)
    destination = Destination(address, filesystem, path, option, replaces)
    try:
        destination.check_absent()
    except OSError as error:
        raise DataError(f"{address} cannot be reached: {error}") from None
    return destination
