"""The files that come in a directory, local or in a store: those that are whole, in the order of their names."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from warnings import warn

from pyarrow import fs

from rayrnn.data.files import BACKUPS, is_hidden, open_file_system, walk_here
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
        say: how the user is told of files that nobody can name.

    Raises:
        DataError: it is not there, or is no directory, or its store cannot be reached.
    """

    def __init__(self, address: str, *, endpoint: str | None = None, say: Callable[[str], None] = warn) -> None:
        self.address = address
        self.filesystem, self.path = open_file_system(address, endpoint=endpoint)
        self._say = say
        self._unnamed: set[str] = set()
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

    def _list(self) -> Iterator[Arrival]:
        start = len(self.path.rstrip("/")) + 1
        try:
            found = {path[start:]: stamp for path, stamp in self._files()}
        except OSError as error:
            raise self._unreachable(error) from None
        for name in sorted(found):
            origin = f"{self.address.rstrip('/')}/{name}"
            if any("\ud800" <= letter <= "\udfff" for letter in name) and name not in self._unnamed:  # bytes, no text
                self._unnamed.add(name)
                self._say(f"{origin!r} is left out: its name is no text: rename it")
            if name not in self._unnamed and not name.endswith((*UNFINISHED, *BACKUPS)):
                yield Arrival(name, f"{self.path.rstrip('/')}/{name}", origin, *found[name])

    def _files(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Their paths, sizes and times, without hidden ones."""
        if self.is_local:
            for path, about in walk_here(self.path):
                if about is not None:
                    yield path, (about.st_size, about.st_mtime_ns)
            return
        start = len(self.path.rstrip("/")) + 1
        for info in self.filesystem.get_file_info(fs.FileSelector(self.path, recursive=True, allow_not_found=True)):
            if info.type == fs.FileType.File and not is_hidden(info.path[start:]):
                yield info.path, (info.size, info.mtime_ns or 0)

    def _unreachable(self, error: OSError) -> DataError:
        return DataError(f"{self.address} cannot be listed: {error}")
