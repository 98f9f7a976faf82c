"""The files that come in a directory, local or in a store: those that are whole, in the order of their names."""

from collections.abc import Iterable
from dataclasses import dataclass

from pyarrow import fs

from rayrnn.data.files import BACKUPS, is_hidden, open_file_system
from rayrnn.errors import DataError

#: how the names of files end that somebody is still writing
UNFINISHED = (
    *(".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".inprogress", ".unfinished", "._COPYING_"),
)


@dataclass(frozen=True)
class Arrival:
    """A file, as it was when it was looked at."""

    #: below the directory
    name: str
    #: in its file system
    path: str
    #: as the user would write it
    origin: str
    size: int
    #: nanoseconds since 1970
    modified: int

    @property
    def stamp(self) -> tuple[int, int]:
        """Tells it from what is written in its place."""
        return self.size, self.modified


class Arrivals:
    """A directory that files come in.

    Args:
        address: local, s3://, gs:// or hdfs://.
        endpoint: of an S3- or GCS-compatible store.

    Raises:
        DataError: it is not there, or is no directory, or its store cannot be reached.
    """

    def __init__(self, address: str, *, endpoint: str | None = None) -> None:
        self.address = address
        self.filesystem, self.path = open_file_system(address, endpoint=endpoint)
        #: every file at the last look, by its name
        self.seen: dict[str, Arrival] = {}
        try:
            kind = self.filesystem.get_file_info(self.path).type
        except OSError as error:
            raise self._unreachable(error) from None
        if kind == fs.FileType.NotFound and self.filesystem.type_name not in ("s3", "gcs"):
            raise DataError(f"there is no directory {address}: make it, and let the files come there")
        if kind == fs.FileType.File:
            raise DataError(f"{address} is a file: name the directory that files come in; `--data` answers one file")

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        return bool(self.filesystem.type_name == "local")

    def look(self) -> list[Arrival]:
        """The files that are as they were when it was looked before, in the order of their names.

        Raises:
            DataError: the directory cannot be listed.
        """
        before, self.seen = self.seen, {arrival.name: arrival for arrival in self._list()}
        return [arrival for name, arrival in self.seen.items() if before.get(name) == arrival]

    def is_still(self, arrival: Arrival) -> bool:
        """Whether the file is still there, as it was."""
        try:
            info = self.filesystem.get_file_info(arrival.path)
        except OSError:
            return False
        return bool(info.type == fs.FileType.File) and (info.size, info.mtime_ns) == arrival.stamp

    def _list(self) -> Iterable[Arrival]:
        selector = fs.FileSelector(self.path, recursive=True, allow_not_found=not self.is_local)
        try:
            found = self.filesystem.get_file_info(selector)
        except OSError as error:
            raise self._unreachable(error) from None
        start = len(self.path.rstrip("/")) + 1
        named = {info.path[start:]: info for info in found if info.type == fs.FileType.File}
        for name in sorted(named):
            if not is_hidden(name) and not name.endswith((*UNFINISHED, *BACKUPS)):
                info = named[name]
                yield Arrival(name, info.path, f"{self.address.rstrip('/')}/{name}", info.size, info.mtime_ns or 0)

    def _unreachable(self, error: OSError) -> DataError:
        return DataError(f"{self.address} cannot be listed: {error}")
